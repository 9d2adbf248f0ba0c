//! Channels taken out and dealt out anew.

use super::{DataType, Step, Writer, ints};

impl Writer<'_> {
    /// What lies in `[start, end)` of an axis.
    pub(super) fn slice(
        &mut self,
        output: String,
        input: &str,
        axis: usize,
        [start, end]: [usize; 2],
    ) {
        let bounds = [("start", start), ("end", end), ("axis", axis)]
            .map(|(part, value)| self.integers(format!("{output}.{part}"), &[value]));
        let inputs = std::iter::once(input.to_owned()).chain(bounds).collect();
        self.push("Slice", output, inputs, Vec::new());
    }

    /// Channels as rows of a table with one row per group, which is then read by columns.
    pub(super) fn shuffle(&mut self, step: Step<'_>, channels: usize, groups: usize) {
        let name = &step.node.name;
        let side = step.places[0].side();
        let table = [1, groups, channels / groups, side * side];
        let map = [1, channels, side, side];
        let shapes = [("table", &table), ("map", &map)];
        let [table, map] =
            shapes.map(|(part, shape)| self.integers(format!("{name}.{part}.shape"), shape));
        let [rows, columns] = ["rows", "columns"].map(|part| format!("{name}.{part}"));
        let source = step.inputs.into_iter().chain([table]).collect();
        self.push("Reshape", rows.clone(), source, Vec::new());
        let order = vec![ints("perm", &[0, 2, 1, 3])];
        self.push("Transpose", columns.clone(), vec![rows], order);
        self.push("Reshape", step.output, vec![columns, map], Vec::new());
    }

    /// Values under another shape.
    pub(super) fn reshape(&mut self, output: String, input: String, shape: &[usize]) {
        let shape = self.integers(format!("{output}.shape"), shape);
        self.push("Reshape", output, vec![input, shape], Vec::new());
    }

    /// Stores whole numbers; their name.
    fn integers(&mut self, name: String, values: &[usize]) -> String {
        let bytes = values
            .iter()
            .flat_map(|&value| (value as i64).to_le_bytes());
        self.initializer(
            name.clone(),
            &[values.len()],
            DataType::Int64,
            bytes.collect(),
        );
        name
    }
}
