//! Layers over maps that are stored in bytes.

use super::Task;
use super::building::Building;
use crate::encoder::engine::bytes::PIXEL;
use crate::encoder::engine::epilogue::Activation;
use crate::encoder::engine::lanes::LANES;
use crate::encoder::engine::lower::{self, IMAGE, Layer, QuantizedConvolution};
use crate::encoder::engine::place::Place;
use crate::encoder::engine::product::{OUTSIDE, Rows};
use crate::encoder::engine::quantization::{Quantization, Quantizer};
use crate::encoder::engine::quantized::{CodeMatrix, Columns};

impl Building<'_> {
    /// What rounds a layer's output, activation and all, if it is stored in bytes.
    pub(super) fn quantizer(&self, layer: &Layer) -> Option<Quantizer> {
        let quantization = self.quantization(layer.output)?;
        let quantizer = quantization.quantizer(layer.activation);
        Some(quantizer.expect("lowering lets layers round behind clamps only"))
    }

    pub(super) fn quantized(
        &mut self,
        at: usize,
        layer: &Layer,
        convolution: &QuantizedConvolution,
    ) -> (Task, usize) {
        let output = self.place(layer.output);
        let n_pixels = output.n_pixels();
        self.multiply_adds += (n_pixels * convolution.codes.len()) as u64;
        let (window, from) = (convolution.window, convolution.input);
        let [rows, columns] = window.kernel;
        let of_layer = Columns {
            codes: &convolution.codes,
            scales: &convolution.scales,
            biases: &convolution.bias,
            n_taps: rows * columns,
        };
        let matrix = CodeMatrix::pack(self.isa(), n_pixels, &of_layer, from);
        let n_parts = matrix.n_parts(n_pixels);
        let (rows, channels) = match layer.inputs[0] {
            IMAGE => {
                let table = self.image(at, layer, window, from);
                (table, columns * PIXEL)
            }
            input => {
                let (input, outside) = (self.place(input), self.padding(from.zero));
                (bytes_under(window, input, output, outside), input.channels)
            }
        };
        let task = Task::CodeProduct {
            rows,
            channels,
            matrix,
            output,
            quantizer: self.quantizer(layer),
        };
        (task, n_parts)
    }

    /// Prepares the image for a convolution; where the rows of its kernel lie, each as one
    /// tap.
    fn image(
        &mut self,
        at: usize,
        layer: &Layer,
        window: lower::Window,
        from: Quantization,
    ) -> Rows {
        let [height, width] = self.padded_image(window);
        let image = self.room_before(at);
        let [top, left, ..] = window.pads;
        let quantizer = from.quantizer(Activation::None);
        let task = Task::Image {
            before: [top, left],
            width,
            at: image,
            quantizer,
        };
        self.prepare(layer, task, height);
        let output = self.place(layer.output);
        let mut offsets = Vec::with_capacity(window.kernel[0] * output.n_pixels());
        for tap in 0..window.kernel[0] {
            for y in 0..output.height {
                let row = image + (y * window.stride[0] + tap) * width;
                let across = (0..output.width).map(|x| (row + x * window.stride[1]) * PIXEL);
                offsets.extend(across.map(|offset| offset as u32));
            }
        }
        Rows::new(offsets, window.kernel[0])
    }

    pub(super) fn byte_pool(&self, layer: &Layer, window: lower::Window) -> (Task, usize) {
        let [input, output] = [layer.inputs[0], layer.output].map(|value| self.place(value));
        // No byte is smaller than those of the zeros.
        let rows = bytes_under(window, input, output, 0);
        (Task::BytePool { rows, output }, output.n_pixels())
    }

    pub(super) fn byte_mean(&self, layer: &Layer) -> (Task, usize) {
        let [input, output] = [layer.inputs[0], layer.output].map(|value| self.place(value));
        let task = Task::ByteMean {
            input,
            quantization: self.stored(layer.inputs[0]),
            output,
        };
        (task, output.channels.div_ceil(LANES))
    }

    /// From values to bytes, or back.
    pub(super) fn converted(&self, layer: &Layer) -> (Task, usize) {
        let [input, output] = [layer.inputs[0], layer.output].map(|value| self.place(value));
        let task = match self.quantizer(layer) {
            Some(quantizer) => Task::Quantize {
                input,
                quantizer,
                output,
            },
            None => Task::Dequantize {
                input,
                quantization: self.stored(layer.inputs[0]),
                output,
            },
        };
        (task, output.n_pixels())
    }

    fn stored(&self, value: usize) -> Quantization {
        let quantization = self.quantization(value);
        quantization.expect("lowering gives these layers quantized maps")
    }
}

/// Where the taps of a window lie for every output pixel, in bytes from the memory's start;
/// taps in the padding lie at `outside`.
fn bytes_under(window: lower::Window, input: Place, output: Place, outside: usize) -> Rows {
    let rows = window.rows(input, output);
    let at = |&offset: &u32| match offset {
        OUTSIDE => outside as u32,
        offset => offset + input.at as u32,
    };
    Rows::new(rows.offsets().iter().map(at).collect(), rows.n_taps())
}
