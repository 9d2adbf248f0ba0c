//! What each operator of a network takes.
//!
//! tract runs its plan node by node, and lets somebody stand beside each; what that costs is
//! in the times, so their shares mean something and their sum is not a query's.

use std::time::Instant;

use eyas_shared::preprocess::Pixels;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::plan;
use tract_onnx::tract_core::tract_linalg::multithread::multithread_tract_scope;

use super::{EncodeError, Network, in_tract};

/// What one operator took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorTime {
    /// Name of its node, which begins with the name of a node of the ONNX file.
    pub node: String,
    /// What it computes, as tract names it.
    pub kind: String,
    /// Median over the runs, in nanoseconds.
    pub nanos: u64,
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
        let input = self.input(pixels)?;
        let n_nodes = self.plan.model().nodes.len();
        let mut times: Vec<Vec<u64>> = vec![Vec::new(); n_nodes];
        let mut order = Vec::new();
        in_tract("run", || {
            multithread_tract_scope(self.executor.clone(), || {
                for _ in 0..n_runs.max(1) {
                    let mut state = self.plan.spawn()?;
                    order.clear();
                    let inputs = tvec!(input.clone().into_tvalue());
                    state.run_plan_with_eval(inputs, |context, state, node, values| {
                        let began = Instant::now();
                        let outcome = plan::eval(context, state, node, values);
                        times[node.id].push(began.elapsed().as_nanos() as u64);
                        order.push(node.id);
                        outcome
                    })?;
                }
                Ok(())
            })
        })?;
        let nodes = &self.plan.model().nodes;
        let operators = order.iter().map(|id| {
            let times = &mut times[*id];
            times.sort_unstable();
            OperatorTime {
                node: nodes[*id].name.clone(),
                kind: nodes[*id].op.name().into_owned(),
                nanos: times[(times.len() - 1) / 2],
            }
        });
        Ok(operators.collect())
    }
}
