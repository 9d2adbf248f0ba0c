//! What each operator of a network takes.
//!
//! Steps and nodes are timed one by one, on one thread in the engine; what that costs is in
//! the times, so their shares mean something and their sum is not a query's.

use eyas_shared::preprocess::Pixels;

use super::{EncodeError, Network};

/// What one operator took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorTime {
    /// Name of its node, which begins with the name of a node of the ONNX file. What is
    /// fused has the name of the convolution, and its steps share it.
    pub node: String,
    /// What it computes.
    pub kind: String,
    /// Median over the runs, in nanoseconds.
    pub nanos: u64,
}

/// Times of the operators of some runs.
#[derive(Default)]
pub(super) struct Clock {
    operators: Vec<(String, String, Vec<u64>)>,
    /// The operator whose time comes next.
    at: usize,
}

impl Clock {
    /// The next operator of this run took so long.
    pub(super) fn tell(&mut self, node: &str, kind: &str, nanos: u64) {
        match self.operators.get_mut(self.at) {
            Some((_, _, times)) => times.push(nanos),
            None => self
                .operators
                .push((node.to_owned(), kind.to_owned(), vec![nanos])),
        }
        self.at += 1;
    }

    fn medians(self) -> Vec<OperatorTime> {
        let median = |(node, kind, mut times): (String, String, Vec<u64>)| {
            times.sort_unstable();
            let nanos = times[(times.len() - 1) / 2];
            OperatorTime { node, kind, nanos }
        };
        self.operators.into_iter().map(median).collect()
    }
}

impl Network {
    /// Median times of all operators over some runs with one image, in the order of their
    /// running. Constants are not computed, and have none.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn profile(
        &self,
        pixels: &Pixels,
        n_runs: usize,
    ) -> Result<Vec<OperatorTime>, EncodeError> {
        let image = super::image(pixels, self.side)?;
        let mut clock = Clock::default();
        for _ in 0..n_runs.max(1) {
            clock.at = 0;
            let mut values = vec![image.to_vec()];
            if let Some(engine) = &self.engine {
                for step in engine.profile(image) {
                    clock.tell(&step.layer, &step.kind, step.nanos);
                }
                if self.remainder.is_some() {
                    values = engine.run(image, &self.team);
                }
            }
            if let Some(remainder) = &self.remainder {
                remainder.profile(&values, &mut clock)?;
            }
        }
        Ok(clock.medians())
    }
}
