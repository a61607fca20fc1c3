//! Normalisation that is the same in training and evaluation: by layer and by group.

use autograd::{Tensor, Variable};

use super::scope::within;

/// Added to the variance.
const EPSILON: f64 = 1e-5;

/// Layer normalisation over the last axis; see [`Tensor::layer_norm`].
///
/// ```
/// # use autograd::Tensor;
/// # use nn::{initialization::{Initialization, Initializer}, layers::*};
/// # let initializer = Initializer::new(Initialization::PYTORCH, 1);
/// let (norm, _) = Builder::build(initializer, |b| b.layer_norm("ln", 4));
/// let tokens = norm.forward(&Tensor::input("tokens", &[2, 16, 4]));
/// assert_eq!(tokens.shape(), [2, 16, 4]);
/// ```
pub struct LayerNorm {
    pub(super) weight: Variable,
    pub(super) bias: Variable,
    /// Added to the variance: 1e-5, unless another is given (vision transformers have 1e-6).
    pub epsilon: f64,
}

impl LayerNorm {
    pub(super) fn new(weight: Variable, bias: Variable) -> LayerNorm {
        LayerNorm { weight, bias, epsilon: EPSILON }
    }

    /// `[.., C] -> [.., C]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let _layer = within(&self.weight);
        x.layer_norm(&self.weight.tensor(), &self.bias.tensor(), self.epsilon)
    }
}

/// Group normalisation; see [`Tensor::group_norm`].
///
/// ```
/// # use autograd::Tensor;
/// # use nn::{initialization::{Initialization, Initializer}, layers::*};
/// # let initializer = Initializer::new(Initialization::PYTORCH, 1);
/// let (norm, _) = Builder::build(initializer, |b| b.group_norm("gn", 2, 8));
/// let x = norm.forward(&Tensor::input("x", &[2, 5, 5, 8]));
/// assert_eq!(x.shape(), [2, 5, 5, 8]);
/// ```
pub struct GroupNorm {
    pub(super) weight: Variable,
    pub(super) bias: Variable,
    pub(super) groups: usize,
}

impl GroupNorm {
    /// `[N, .., C] -> [N, .., C]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let _layer = within(&self.weight);
        x.group_norm(self.groups, &self.weight.tensor(), &self.bias.tensor(), EPSILON)
    }
}
