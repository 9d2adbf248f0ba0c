//! Tokens: a table with a row for each, without an axis for images, so that a linear layer of
//! all tokens is one `Gemm`, as that of a vector is.
//!
//! Opset 13 has neither layer norm nor GELU: they are written out.

use eyas_shared::quant;

use super::{DataType, Step, Writer, int, ints};
use crate::export::ExportError;
use crate::zoo::{Node, WeightShape};

impl Writer<'_> {
    /// A map's places as rows.
    pub(super) fn tokens(&mut self, step: Step<'_>) {
        let planes = format!("{}.planes", step.node.name);
        self.push("Flatten", planes.clone(), step.inputs, vec![int("axis", 2)]);
        let order = vec![ints("perm", &[1, 0])];
        self.push("Transpose", step.output, vec![planes], order);
    }

    pub(super) fn class_token(&mut self, step: Step<'_>) -> Result<(), ExportError> {
        let mut rows = self.added_rows(step.node)?;
        rows.extend(step.inputs);
        self.push("Concat", step.output, rows, vec![int("axis", 0)]);
        Ok(())
    }

    pub(super) fn positions(&mut self, step: Step<'_>) -> Result<(), ExportError> {
        let mut terms = step.inputs;
        terms.extend(self.added_rows(step.node)?);
        self.push("Add", step.output, terms, Vec::new());
        Ok(())
    }

    /// Stores a weight `[1, rows, channels]` as a table; its name.
    fn added_rows(&mut self, node: &Node) -> Result<Vec<String>, ExportError> {
        let store = |WeightShape { name, shape, .. }| -> Result<String, ExportError> {
            let bytes = quant::f32_bytes(&self.weights.get(&name, &shape)?.widened());
            self.initializer(name.clone(), &shape[1..], DataType::Float, bytes);
            Ok(name)
        };
        node.weights().into_iter().map(store).collect()
    }

    pub(super) fn layer_norm(&mut self, step: Step<'_>, epsilon: f64) -> Result<(), ExportError> {
        let name = &step.node.name;
        let weights = self.layer_weights(step.node)?;
        let [weight, bias] = <[String; 2]>::try_from(weights).expect("a gain and a shift");
        let epsilon = self.constant(&format!("{name}.epsilon"), epsilon as f32, &[]);
        let [mean, centered, squares, variance] =
            ["mean", "centered", "squares", "variance"].map(|part| format!("{name}.{part}"));
        let [bounded, deviation, normal, scaled] =
            ["bounded", "deviation", "normal", "scaled"].map(|part| format!("{name}.{part}"));
        let over_channels = || vec![ints("axes", &[1]), int("keepdims", 1)];
        let input = step.inputs[0].clone();
        self.push("ReduceMean", mean.clone(), step.inputs, over_channels());
        self.binary("Sub", &centered, [input, mean]);
        self.binary("Mul", &squares, [centered.clone(), centered.clone()]);
        self.push(
            "ReduceMean",
            variance.clone(),
            vec![squares],
            over_channels(),
        );
        self.binary("Add", &bounded, [variance, epsilon]);
        self.push("Sqrt", deviation.clone(), vec![bounded], Vec::new());
        self.binary("Div", &normal, [centered, deviation]);
        self.binary("Mul", &scaled, [normal, weight]);
        self.binary("Add", &step.output, [scaled, bias]);
        Ok(())
    }

    /// softmax(q k^T / sqrt(d)) v, a head beside the other.
    pub(super) fn attention(&mut self, step: Step<'_>, channels: usize, heads: usize) {
        let name = &step.node.name;
        let (tokens, depth) = (step.places[0].n(), channels / heads);
        // Heads x tokens x depth, but for the keys, which are read by columns.
        let orders = [("q", [1, 0, 2]), ("k", [1, 2, 0]), ("v", [1, 0, 2])];
        let mut which = 0;
        let [q, k, v] = orders.map(|(part, order)| {
            let all = format!("{name}.{part}");
            let range = [which * channels, (which + 1) * channels];
            which += 1;
            self.slice(all.clone(), &step.inputs[0], 1, range);
            let split = format!("{all}.heads");
            self.reshape(split.clone(), all.clone(), &[tokens, heads, depth]);
            let of_heads = format!("{all}.of_heads");
            let order = vec![ints("perm", &order)];
            self.push("Transpose", of_heads.clone(), vec![split], order);
            of_heads
        });
        let scale = ((depth as f64).sqrt().recip()) as f32;
        let scale = self.constant(&format!("{name}.scale"), scale, &[]);
        let [scaled, scores, shares, mixed, beside] =
            ["scaled", "scores", "shares", "mixed", "beside"].map(|part| format!("{name}.{part}"));
        self.binary("Mul", &scaled, [q, scale]);
        self.binary("MatMul", &scores, [scaled, k]);
        self.push(
            "Softmax",
            shares.clone(),
            vec![scores],
            vec![int("axis", 2)],
        );
        self.binary("MatMul", &mixed, [shares, v]);
        let order = vec![ints("perm", &[1, 0, 2])];
        self.push("Transpose", beside.clone(), vec![mixed], order);
        self.reshape(step.output, beside, &[tokens, channels]);
    }

    pub(super) fn layer_scale(&mut self, step: Step<'_>) -> Result<(), ExportError> {
        let mut factors = step.inputs;
        factors.extend(self.layer_weights(step.node)?);
        self.push("Mul", step.output, factors, Vec::new());
        Ok(())
    }

    /// The first row as a map of one place.
    pub(super) fn first_token(&mut self, step: Step<'_>, channels: usize) {
        let row = format!("{}.row", step.node.name);
        self.slice(row.clone(), &step.inputs[0], 0, [0, 1]);
        self.reshape(step.output, row, &[1, channels, 1, 1]);
    }

    /// x / 2 times (1 + erf(x / sqrt(2))).
    pub(super) fn gelu(&mut self, output: String, inputs: Vec<String>) {
        let constants = [
            ("gelu.half", 0.5),
            ("gelu.one", 1.0),
            ("gelu.inverse_root_of_two", std::f32::consts::FRAC_1_SQRT_2),
        ];
        let [half, one, root] = constants.map(|(name, value)| self.constant(name, value, &[]));
        let [scaled, erf, gate, halved] =
            ["scaled", "erf", "gate", "halved"].map(|part| format!("{output}.{part}"));
        let x = &inputs[0];
        self.binary("Mul", &scaled, [x.clone(), root]);
        self.push("Erf", erf.clone(), vec![scaled], Vec::new());
        self.binary("Add", &gate, [erf, one]);
        self.binary("Mul", &halved, [x.clone(), half]);
        self.binary("Mul", &output, [halved, gate]);
    }

    fn binary(&mut self, op_type: &str, output: &str, inputs: [String; 2]) {
        self.push(op_type, output.to_owned(), inputs.into(), Vec::new());
    }
}
