//! The fully connected layer.

use super::scope::within;
use autograd::{Tensor, Variable};

/// `y = x W^T + b` with weight `[out, in]` and bias `[out]`.
pub struct Linear {
    pub(super) weight: Variable,
    pub(super) bias: Variable,
}

impl Linear {
    /// `[.., in] -> [.., out]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let _layer = within(&self.weight);
        linear(x, &self.weight.tensor(), &self.bias.tensor())
    }
}

/// `x W^T + b` for rows of any shape, as one product: `[.., in] -> [.., out]`.
#[track_caller]
pub(super) fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let Some((&inputs, rows)) = x.shape().split_last().filter(|(_, rows)| rows.len() > 1) else {
        return x.matmul(&weight.transpose()) + bias;
    };
    let flat = x.reshape(&[rows.iter().product(), inputs]);
    (flat.matmul(&weight.transpose()) + bias).reshape(&[rows, &[weight.dim(0)]].concat())
}
