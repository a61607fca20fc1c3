//! From a schedule's kernels to compiled ones.

use std::collections::HashSet;

use schedule::{Body, BufferId, Kernel, Role, Schedule};

use crate::convolution;
use crate::launch::{Compile, Launch};
use crate::map::{Map, Maps};
use crate::matmul::MatMul;
use crate::pooling::Pooling;
use crate::reduce::Reduce;

/// Compiles a kernel.
pub fn compile(compile: &Compile, kernel: &Kernel) -> Box<dyn Launch> {
    match &kernel.body {
        Body::Map { shape, program, stores } => Box::new(Map::new(compile, shape, program, stores)),
        Body::Maps { parts } => Box::new(Maps::new(compile, parts)),
        Body::Reduce { shape, outer, program, accumulators, finish, stores } => {
            Box::new(Reduce::new(compile, shape, *outer, program, accumulators, (finish, stores)))
        }
        Body::MatMul { batch, m, n, k, lhs, rhs, epilogue } => {
            Box::new(MatMul::new(compile, [*batch, *m, *n, *k], lhs, rhs, epilogue))
        }
        Body::Convolution { kind, geometry, lhs, rhs, epilogue } => {
            convolution::compile(compile, *kind, geometry, lhs, rhs, epilogue)
        }
        Body::Pool { kind, geometry, inputs, output } => {
            Box::new(Pooling::new(compile, *kind, geometry, inputs, *output))
        }
    }
}

/// The buffers that keep their contents from call to call.
pub fn frozen(schedule: &Schedule) -> HashSet<BufferId> {
    let is_frozen = |buffer: &BufferId| match schedule.buffers[*buffer].role {
        Role::Constant(_) | Role::Prepared => true,
        Role::State(_) => !is_updated(schedule, *buffer),
        Role::Input { .. } | Role::Temporary { .. } | Role::Output => false,
    };
    (0..schedule.buffers.len()).filter(is_frozen).collect()
}

/// Whether a step overwrites the variable in a buffer (possibly named by another buffer).
pub fn is_updated(schedule: &Schedule, buffer: BufferId) -> bool {
    let variable = |buffer: BufferId| match &schedule.buffers[buffer].role {
        Role::State(variable) => Some(variable.id()),
        _ => None,
    };
    schedule.updated.iter().any(|&updated| updated == buffer || variable(updated) == variable(buffer))
}
