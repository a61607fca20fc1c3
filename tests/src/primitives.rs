//! All primitives of the language, counted. No wildcard: a new primitive does not compile here until it is
//! counted, and then fails the tests that want all of them until a case has it.

use autograd::tensor::{BinaryOp, Op, ReduceOp, UnaryOp};

/// One more than the largest number.
pub const COUNT: usize = 29 + UnaryOp::ALL.len() + BinaryOp::ALL.len();

/// Each primitive's number, below [`COUNT`]; `Invalid` is 0.
pub fn number(op: &Op) -> usize {
    match op {
        Op::Invalid => 0,
        Op::Input(_) => 1,
        Op::State(_) => 2,
        Op::Constant(_) => 3,
        Op::Full(_) => 4,
        Op::Iota(_) => 5,
        Op::Random { .. } => 6,
        Op::Select => 7,
        Op::Cast => 8,
        Op::Detach => 9,
        Op::Reduce(ReduceOp::Sum, _) => 10,
        Op::Reduce(ReduceOp::Max, _) => 11,
        Op::Reduce(ReduceOp::Variance, _) => 12,
        Op::ArgMax(_) => 13,
        Op::Reshape => 14,
        Op::Permute(_) => 15,
        Op::Slice { .. } => 16,
        Op::Pad { .. } => 17,
        Op::Broadcast => 18,
        Op::Concatenate(_) => 19,
        Op::MatMul => 20,
        Op::Convolution(_) => 21,
        Op::ConvolutionInputGrad(_) => 22,
        Op::ConvolutionWeightGrad(_) => 23,
        Op::MaxPoolGather(_) => 24,
        Op::MaxPoolScatter(_) => 25,
        Op::AveragePool(_) => 26,
        Op::AveragePoolTransposed(_) => 27,
        Op::AllReduce(_) => 28,
        Op::Unary(op) => 29 + *op as usize,
        Op::Binary(op) => 29 + UnaryOp::ALL.len() + *op as usize,
    }
}
