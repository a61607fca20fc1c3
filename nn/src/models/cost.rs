//! Counts a network's arithmetic from its expression.

use std::collections::HashSet;

use autograd::Tensor;
use autograd::tensor::Op;

/// Multiply-accumulates of the convolutions and matrix products that `output` needs.
pub fn macs(output: &Tensor) -> u64 {
    let mut seen = HashSet::new();
    let mut pending = vec![output.clone()];
    let mut total = 0;
    while let Some(node) = pending.pop() {
        if !seen.insert(node.id()) {
            continue;
        }
        // Terms of each output element's sum.
        let terms = match node.op() {
            Op::Convolution(_) => node.inputs()[1].shape()[1..].iter().product(),
            Op::MatMul => node.inputs()[0].dim(node.rank() - 1),
            _ => 0,
        };
        total += (node.len() * terms) as u64;
        pending.extend(node.inputs().iter().cloned());
    }
    total
}
