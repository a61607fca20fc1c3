//! Counts a network's arithmetic from its expression.

use autograd::tensor::Op;
use autograd::{Tensor, nodes};

/// Multiply-accumulates of the convolutions and matrix products that `output` needs.
pub fn macs(output: &Tensor) -> u64 {
    // Terms of each output element's sum.
    let terms = |node: &Tensor| match node.op() {
        Op::Convolution(_) => node.inputs()[1].shape()[1..].iter().product(),
        Op::MatMul => node.inputs()[0].dim(node.rank() - 1),
        _ => 0,
    };
    nodes([output]).iter().map(|node| (node.len() * terms(node)) as u64).sum()
}
