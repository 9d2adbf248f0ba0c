//! What tract runs: the nodes that the engine does not know, or the whole network.

use std::sync::Arc;

use tract_onnx::Onnx;
use tract_onnx::pb;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::Cost;
use tract_onnx::tract_core::ops::cnn::Conv;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::plan;
use tract_onnx::tract_core::tract_linalg::multithread::{Executor, multithread_tract_scope};
use tract_onnx::tract_hir::infer::InferenceModelExt;
use tract_onnx::tract_hir::internal::DimLike;

use super::profile::Clock;
use super::{EncodeError, graph, in_tract};

/// tract as ONNX files are read with it.
pub(super) fn framework() -> Onnx {
    tract_onnx::onnx()
        .with_ignore_output_shapes(true)
        .with_ignore_output_types(true)
        .with_ignore_value_info(true)
}

/// A graph in tract.
pub(super) struct Remainder {
    plan: Arc<TypedRunnableModel>,
    executor: Executor,
    shapes: Vec<Vec<usize>>,
    dim: usize,
    multiply_adds: u64,
}

impl Remainder {
    /// Builds a graph over inputs of these shapes.
    pub(super) fn build(
        framework: &Onnx,
        proto: &pb::ModelProto,
        shapes: Vec<Vec<usize>>,
    ) -> Result<Self, EncodeError> {
        let typed = in_tract("built", || {
            let mut model = framework.model_for_proto_model(proto)?;
            for (at, shape) in shapes.iter().enumerate() {
                model.set_input_fact(at, f32::fact(shape).into())?;
            }
            model.analyse(false)?;
            graph::check_shapes(&model)?;
            let model = model.into_typed()?;
            graph::check_axes(&model)?;
            model.into_decluttered()
        })?;
        let multiply_adds = in_tract("built", || count_multiply_adds(&typed))?;
        let (plan, dim) = in_tract("built", || {
            let plan = typed.into_optimized()?.into_runnable()?;
            let dim = plan.model().output_fact(0)?.shape.volume().to_usize()?;
            Ok((plan, dim))
        })?;
        Ok(Self {
            plan,
            executor: Executor::SingleThread,
            shapes,
            dim,
            multiply_adds,
        })
    }

    pub(super) fn set_threads(&mut self, n_threads: usize) {
        self.executor = match n_threads {
            0 | 1 => Executor::SingleThread,
            n => Executor::multithread(n),
        };
    }

    /// Its first output for its inputs' values, flattened.
    pub(super) fn run(&self, values: &[Vec<f32>]) -> Result<Vec<f32>, EncodeError> {
        Ok(self.run_all(values)?.swap_remove(0))
    }

    /// All of its outputs.
    pub(super) fn run_all(&self, values: &[Vec<f32>]) -> Result<Vec<Vec<f32>>, EncodeError> {
        in_tract("run", || {
            let inputs = self.inputs(values)?;
            let outputs = multithread_tract_scope(self.executor.clone(), || self.plan.run(inputs))?;
            let flat = |output: &TValue| -> TractResult<Vec<f32>> {
                let output = output.cast_to::<f32>()?;
                Ok(output.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
            };
            outputs.iter().map(flat).collect()
        })
    }

    fn inputs(&self, values: &[Vec<f32>]) -> TractResult<TVec<TValue>> {
        let pairs = self.shapes.iter().zip(values);
        let tensor = |(shape, values): (&Vec<usize>, &Vec<f32>)| {
            Ok(Tensor::from_shape(shape, values)?.into_tvalue())
        };
        pairs.map(tensor).collect()
    }

    /// Runs once beside a clock, which is told of every node.
    pub(super) fn profile(
        &self,
        values: &[Vec<f32>],
        clock: &mut Clock,
    ) -> Result<(), EncodeError> {
        in_tract("run", || {
            let inputs = self.inputs(values)?;
            multithread_tract_scope(self.executor.clone(), || {
                let mut state = self.plan.spawn()?;
                state.run_plan_with_eval(inputs, |context, state, node, values| {
                    let began = std::time::Instant::now();
                    let outcome = plan::eval(context, state, node, values);
                    let nanos = began.elapsed().as_nanos() as u64;
                    clock.tell(&node.name, &node.op.name(), nanos);
                    outcome
                })?;
                Ok(())
            })
        })
    }

    /// Values that it gives.
    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    pub(super) fn multiply_adds(&self) -> u64 {
        self.multiply_adds
    }
}

/// Multiply-adds of convolutions and matrix products, as tract counts them. Additions and
/// activations are left out, as is usual.
fn count_multiply_adds(model: &TypedModel) -> TractResult<u64> {
    let mut total = 0;
    for node in model.nodes() {
        if !(node.op_is::<Conv>() || node.op_is::<EinSum>()) {
            continue;
        }
        for (cost, count) in node.op.cost(&model.node_input_facts(node.id)?)? {
            if matches!(cost, Cost::FMA(_)) {
                total += u64::try_from(count.to_i64()?)?;
            }
        }
    }
    Ok(total)
}
