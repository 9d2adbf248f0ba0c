//! Pooling in windows and over whole maps.

use super::{Step, Writer, int, ints};
use crate::export::ExportError;
use crate::zoo::{GEM_MIN, Node, Places, Pooling};

/// ONNX's operator for the mean over height and width.
pub(super) const MEAN: &str = "GlobalAveragePool";

/// ONNX's operator for the maximum over height and width.
const MAX: &str = "GlobalMaxPool";

impl Writer<'_> {
    /// The overhang of a `ceil` pool is written as padding below and to the right, which
    /// counts as minus infinity in a maximum: readers disagree about `ceil_mode`, not
    /// about that.
    pub(super) fn max_pool(&mut self, step: Step<'_>, [kernel, stride, padding]: [usize; 3]) {
        let [input, output] = step.places.map(Places::side);
        let overhang = ((output - 1) * stride + kernel).saturating_sub(input + 2 * padding);
        let after = padding + overhang;
        let attributes = vec![
            ints("kernel_shape", &[kernel; 2]),
            ints("pads", &[padding, padding, after, after]),
            ints("strides", &[stride; 2]),
        ];
        self.push("MaxPool", step.output, step.inputs, attributes);
    }

    pub(super) fn average_pool(&mut self, step: Step<'_>, [kernel, stride, padding]: [usize; 3]) {
        let attributes = vec![
            ints("kernel_shape", &[kernel; 2]),
            ints("pads", &[padding; 4]),
            ints("strides", &[stride; 2]),
            int("count_include_pad", 1),
        ];
        self.push("AveragePool", step.output, step.inputs, attributes);
    }

    pub(super) fn global_pool(
        &mut self,
        step: Step<'_>,
        pooling: Pooling,
    ) -> Result<(), ExportError> {
        let name = &step.node.name;
        let (mean, max) = (format!("{name}.mean"), format!("{name}.max"));
        let pooled = match pooling {
            Pooling::Average => {
                self.push(MEAN, mean.clone(), step.inputs, Vec::new());
                mean
            }
            Pooling::Max => {
                self.push(MAX, max.clone(), step.inputs, Vec::new());
                max
            }
            Pooling::AverageMax => {
                let sum = format!("{name}.sum");
                self.push(MEAN, mean.clone(), step.inputs.clone(), Vec::new());
                self.push(MAX, max.clone(), step.inputs, Vec::new());
                self.push("Add", sum.clone(), vec![mean, max], Vec::new());
                sum
            }
            Pooling::Gem => self.gem(step.node, step.inputs)?,
        };
        self.push("Flatten", step.output, vec![pooled], vec![int("axis", 1)]);
        Ok(())
    }

    /// (mean max(x, 1e-6)^p)^(1/p), its exponent a constant now.
    fn gem(&mut self, node: &Node, inputs: Vec<String>) -> Result<String, ExportError> {
        let name = &node.name;
        let weight = format!("{name}.p");
        let p = self.weights.get(&weight, &[1])?.widened()[0];
        let min = self.constant(&format!("{name}.min"), GEM_MIN, &[]);
        let exponent = self.constant(&weight, p, &[1; 4]);
        let inverse = self.constant(&format!("{name}.inverse_p"), p.recip(), &[1; 4]);
        let [bounded, powers, mean, root] =
            ["bounded", "powers", "mean", "root"].map(|part| format!("{name}.{part}"));
        let of_clip = inputs.into_iter().chain([min]).collect();
        self.push("Clip", bounded.clone(), of_clip, Vec::new());
        self.push("Pow", powers.clone(), vec![bounded, exponent], Vec::new());
        self.push(MEAN, mean.clone(), vec![powers], Vec::new());
        self.push("Pow", root.clone(), vec![mean, inverse], Vec::new());
        Ok(root)
    }
}
