//! Our own way to run a convolutional network: channels last, layers fused, weights packed
//! when it is loaded, no allocation in a run.
//!
//! [`lower`] takes as much of an ONNX graph as it knows, [`program`] places values and packs
//! weights, and the other modules compute, with the instructions that the CPU has: the same
//! bits with all of them, whatever the number of threads. This module and its children are
//! the second home of vector code (the first is `matcher::kernel`), and `unsafe` in them
//! means its instructions and pointers into one piece of memory that [`memory`] laid out.
//! Its reference is tract, which runs the same graphs.

mod bytes;
mod dots;
mod epilogue;
mod lanes;
mod lines;
mod lower;
mod memory;
mod place;
mod point;
mod product;
mod program;
mod quantization;
mod quantized;
mod team;
#[cfg(test)]
mod tests;
mod window;
mod winograd;

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tract_onnx::pb;

pub use lanes::Isa;
use program::{Memory, Program};
pub(super) use team::Team;

/// Most f32 values that a run may need; networks that need more are left to tract.
const MAX_LEN: usize = 1 << 27;

/// The part of a network that runs here.
pub(super) struct Engine {
    program: Program,
    /// Memory of runs that ended, for those to come.
    memories: Mutex<Vec<Memory>>,
}

/// What is left of a graph, and what it reads of the engine.
pub(super) struct Handover {
    /// The shape of each of the engine's outputs, as the graph's next nodes want it.
    pub(super) shapes: Vec<Vec<usize>>,
    /// The rest of the graph, with those outputs as inputs in order; `None` if they are the
    /// graph's outputs.
    pub(super) rest: Option<pb::GraphProto>,
}

/// What one step took, in nanoseconds.
pub(super) struct StepTime {
    pub(super) layer: String,
    pub(super) kind: String,
    pub(super) nanos: u64,
}

impl Engine {
    /// Takes the nodes of a checked graph over an image of `side` x `side` that it knows;
    /// `None` if not even the first is among them.
    pub(super) fn take(graph: &pb::GraphProto, side: usize, isa: Isa) -> Option<(Self, Handover)> {
        let lowered = lower::lower(graph, side)?;
        if lowered.layers.is_empty() {
            return None;
        }
        let program = Program::new(&lowered, side, isa, MAX_LEN)?;
        let places = program.outputs.iter().zip(&lowered.outputs);
        let shapes = places.map(|(place, output)| match output.is_flat {
            true => vec![1, place.channels],
            false => vec![1, place.channels, place.height, place.width],
        });
        let handover = Handover {
            shapes: shapes.collect(),
            rest: lowered.rest,
        };
        let memories = Mutex::default();
        Some((Self { program, memories }, handover))
    }

    /// Its outputs for an image of 3 x side x side, channels first.
    pub(super) fn run(&self, image: &[f32], team: &Team) -> Vec<Vec<f32>> {
        let mut memory = self.borrow();
        let run = self.program.run(&mut memory, image);
        team.perform(self.program.steps.len(), |at, share| {
            let parts = share.of(self.program.steps[at].n_parts());
            // SAFETY: a team's members take disjoint shares of a step, and begin it when
            // all are done with the one before.
            unsafe { run.step(at, parts) }
        });
        let outputs = 0..self.program.outputs.len();
        let outputs = outputs.map(|at| self.program.output(&memory, at)).collect();
        self.give_back(memory);
        outputs
    }

    /// What every step of one run takes, on one thread.
    pub(super) fn profile(&self, image: &[f32]) -> Vec<StepTime> {
        let mut memory = self.borrow();
        let run = self.program.run(&mut memory, image);
        let steps = self.program.steps.iter().enumerate();
        let times = steps.map(|(at, step)| {
            let began = Instant::now();
            // SAFETY: all parts of the step, after all of the steps before.
            unsafe { run.step(at, 0..step.n_parts()) }
            StepTime {
                layer: step.name.clone(),
                kind: step.kind(),
                nanos: began.elapsed().as_nanos() as u64,
            }
        });
        let times = times.collect();
        self.give_back(memory);
        times
    }

    /// Multiply-adds of one run: those of convolutions and products, as their definitions
    /// count them.
    pub(super) fn multiply_adds(&self) -> u64 {
        self.program.multiply_adds
    }

    fn borrow(&self) -> Memory {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        memories.pop().unwrap_or_else(|| self.program.memory())
    }

    fn give_back(&self, memory: Memory) {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        memories.push(memory);
    }
}
