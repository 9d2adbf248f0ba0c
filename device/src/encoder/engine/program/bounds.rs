//! How far every step reads and writes, held against the memory that was laid out.
//!
//! Lowering and layout see to it; this is the second look before pointers are used, so that
//! a mistake there leaves a network to tract and does not read what is not its own.

use super::{Reduced, Step, Task};
use crate::encoder::engine::dots::UNIT;
use crate::encoder::engine::lanes::LANES;
use crate::encoder::engine::place::Place;
use crate::encoder::engine::product::Rows;

/// Whether a step stays within `len` values of memory whose first `constants` values are
/// zeros and as many after them the lowest numbers. Of maps in bytes taps in the padding lie
/// in the memory as others do.
pub(super) fn fits(step: &Step, side: usize, [len, constants]: [usize; 2]) -> bool {
    let within = |end: usize| end <= len;
    let within_bytes = |end: usize| end <= len * size_of::<f32>();
    let place = |place: Place| within(end_of(place));
    let bytes = |place: Place| within_bytes(end_of(place));
    let stored = |output: Place, in_bytes: bool| match in_bytes {
        true => bytes(output),
        false => place(output),
    };
    let rows = |at: usize, rows: &Rows, values: usize| {
        values <= constants && within(at + rows.end() + values)
    };
    let pixels = |output: Place| {
        step.residual.is_none_or(|(residual, quantization)| {
            stored(residual, quantization.is_some())
                && residual.n_pixels() == output.n_pixels()
                && blocks(residual) == blocks(output)
        })
    };
    let of_task = match &step.task {
        Task::Image {
            before,
            width,
            at,
            quantizer,
        } => {
            // A pixel in bytes takes the place of one value.
            let values = if quantizer.is_some() { 1 } else { 3 };
            before[1] + side <= *width && within(at + step.n_parts * width * values)
        }
        Task::Product {
            input,
            rows: table,
            channels,
            matrix,
            bias,
            output,
            quantizer,
        } => {
            // Taps of the image are several pixels, and none is outside.
            let taps = match table.is_inside() {
                true => within(input + table.end() + channels),
                false => rows(*input, table, *channels),
            };
            taps && table.n_rows() == output.n_pixels()
                && table.n_taps() * channels == matrix.depth()
                && matrix.n_panels() * LANES == blocks(*output)
                && bias.len() >= blocks(*output)
                && stored(*output, quantizer.is_some())
        }
        Task::CodeProduct {
            rows: table,
            channels,
            matrix,
            output,
            quantizer,
        } => {
            let units = channels.div_ceil(UNIT);
            table.is_inside()
                && within_bytes(table.end() + units * UNIT)
                && table.n_rows() == output.n_pixels()
                && table.n_taps() * units == matrix.n_units()
                && matrix.n_columns() == blocks(*output)
                && step.n_parts == matrix.n_parts(output.n_pixels())
                && stored(*output, quantizer.is_some())
        }
        Task::BytePool {
            rows: table,
            output,
        } => {
            table.is_inside()
                && within_bytes(table.end() + blocks(*output))
                && table.n_rows() == output.n_pixels()
                && step.n_parts == output.n_pixels()
                && bytes(*output)
        }
        Task::ByteMean { input, output, .. } => {
            bytes(*input)
                && blocks(*output) <= blocks(*input)
                && step.n_parts * LANES == blocks(*output)
                && place(*output)
        }
        Task::Quantize { input, output, .. } => {
            place(*input) && is_same_map(step, *input, *output) && bytes(*output)
        }
        Task::Dequantize { input, output, .. } => {
            bytes(*input) && is_same_map(step, *input, *output) && place(*output)
        }
        Task::Scatter {
            form,
            input,
            squares,
            at,
        } => {
            squares.n_taps() == form.n_places()
                && rows(input.at, squares, blocks(*input))
                && within(at + form.n_places() * squares.n_rows() * blocks(*input))
        }
        Task::Products {
            from,
            rows: table,
            matrices,
            at,
        } => matrices.iter().all(|matrix| {
            let each = |width: usize| matrices.len() * table.n_rows() * width;
            within(from + each(matrix.depth().next_multiple_of(LANES)))
                && within(at + each(matrix.n_panels() * LANES))
                && table.end() + matrix.depth() <= each(matrix.depth().next_multiple_of(LANES))
        }),
        Task::Gather {
            form,
            from,
            bias,
            output,
        } => {
            let n_squares = form.n_squares([output.height, output.width]);
            within(from + form.n_places() * n_squares * blocks(*output))
                && bias.len() >= blocks(*output)
                && place(*output)
        }
        Task::Window {
            input,
            rows: table,
            groups,
            reduction,
            output,
        } => {
            let of_window = match reduction {
                Reduced::Weighted { taps, bias } => {
                    taps.len() >= table.n_taps() * blocks(*output) && bias.len() >= blocks(*output)
                }
                Reduced::Max => true,
                Reduced::Mean { divisors } => divisors.len() == table.n_rows(),
            };
            of_window
                && groups.len() == step.n_parts
                && table.n_rows() == output.n_pixels()
                && rows(input.at, table, blocks(*output))
                && place(*output)
        }
        Task::Pointwise { inputs, output, .. } => {
            inputs
                .iter()
                .all(|input| place(*input) && input.stride.min(blocks(*input)) >= blocks(*output))
                && place(*output)
        }
        Task::Global { input, output, .. } => place(*input) && place(*output),
        Task::Channels { sources, output } => {
            let reach = |at: usize, stride: usize| at + (output.n_pixels() - 1) * stride + 1;
            sources
                .iter()
                .all(|&(at, stride)| within(reach(at, stride)))
                && place(*output)
        }
        Task::Normalize { input, output, .. } => place(*input) && place(*output),
    };
    of_task && step.output().is_none_or(pixels)
}

/// Whether a step that has a part a pixel makes a map of one of the same extents.
fn is_same_map(step: &Step, input: Place, output: Place) -> bool {
    let n_pixels = [input.n_pixels(), output.n_pixels()];
    n_pixels == [step.n_parts; 2] && blocks(input) == blocks(output)
}

/// Channels of a place filled up to whole lanes.
fn blocks(place: Place) -> usize {
    place.channels.next_multiple_of(LANES)
}

/// Behind the last value that is read or written of a place.
fn end_of(place: Place) -> usize {
    place.at + (place.n_pixels() - 1) * place.stride + blocks(place)
}
