//! From a schedule's kernels to compiled ones.

use schedule::{Body, Kernel};

use crate::convolution;
use crate::launch::{Compile, Launch};
use crate::map::Maps;
use crate::matmul::MatMul;
use crate::pooling::Pooling;
use crate::reduce::Reduce;

/// Compiles a kernel.
pub fn compile(compile: &Compile, kernel: &Kernel) -> Box<dyn Launch> {
    match &kernel.body {
        Body::Map { parts } => Box::new(Maps::new(compile, parts)),
        Body::Reduce { shape, outer, program, accumulators, finish, stores } => {
            Box::new(Reduce::new(compile, shape, *outer, program, accumulators, (finish, stores)))
        }
        Body::MatMul { batch, m, n, k, lhs, rhs, epilogue } => {
            Box::new(MatMul::new(compile, [*batch, *m, *n, *k], lhs, rhs, epilogue))
        }
        Body::Convolution { kind, geometry, lhs, rhs, epilogue } => {
            convolution::compile(compile, *kind, geometry, lhs, rhs, epilogue)
        }
        Body::AllReduce { .. } => unreachable!("sums over processes are no launches"),
        Body::Pool { kind, geometry, inputs, output } => {
            Box::new(Pooling::new(compile, *kind, geometry, inputs, *output))
        }
    }
}
