//! The fully connected layer.

use super::scope::within;
use autograd::{Tensor, Variable};

/// `y = x W^T + b` with weight `[out, in]` and bias `[out]`.
pub struct Linear {
    pub(super) weight: Variable,
    pub(super) bias: Variable,
}

impl Linear {
    /// `[N, in] -> [N, out]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let _layer = within(&self.weight);
        x.matmul(&self.weight.tensor().transpose()) + self.bias.tensor()
    }
}
