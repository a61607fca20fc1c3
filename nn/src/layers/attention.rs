//! Composites that weigh what they see: multi-head attention over tokens, squeeze and excitation over channels.

use autograd::{Tensor, Variable};

use super::convolution::Convolution;
use super::linear::{Linear, linear};
use super::scope::within;

/// Multi-head attention (Vaswani et al., *Attention Is All You Need*, 2017), with the parameters of PyTorch's
/// `MultiheadAttention`: `in_proj_weight` `[3 C, C]` and `in_proj_bias` `[3 C]` for queries, keys and values,
/// and the linear layer `out_proj`.
///
/// ```
/// # use autograd::Tensor;
/// # use nn::{initialization::{Initialization, Initializer}, layers::*};
/// # let initializer = Initializer::new(Initialization::PYTORCH, 1);
/// let (attention, state) = Builder::build(initializer, |b| b.attention("self_attention", 12, 3));
/// let tokens = attention.forward(&Tensor::input("tokens", &[2, 16, 12]));
/// assert_eq!(tokens.shape(), [2, 16, 12]);
/// assert_eq!(state[0].variable.name(), "self_attention.in_proj_weight");
/// ```
pub struct MultiHeadAttention {
    pub(super) weight: Variable,
    pub(super) bias: Variable,
    pub(super) output: Linear,
    pub(super) heads: usize,
}

impl MultiHeadAttention {
    /// Each token looks at all tokens of its image: `[N, T, C] -> [N, T, C]`.
    #[track_caller]
    pub fn forward(&self, tokens: &Tensor) -> Tensor {
        let channels = self.output.weight.shape()[1];
        if let Some(refused) = self.refused(tokens) {
            return refused;
        }
        // One product for all three.
        let together = self.project(tokens, 0, 3);
        let [q, k, v] = [0, 1, 2].map(|part| together.slice(2, part * channels, channels, 1));
        self.attend(&q, &k, &v)
    }

    /// Each token of `[N, T, C]` looks at those of a memory, `[N, S, C]`: `-> [N, T, C]`.
    #[track_caller]
    pub fn forward_to(&self, tokens: &Tensor, memory: &Tensor) -> Tensor {
        let channels = self.output.weight.shape()[1];
        if let Some(refused) = self.refused(tokens).or_else(|| self.refused(memory)) {
            return refused;
        }
        let together = self.project(memory, 1, 2);
        let [k, v] = [0, 1].map(|part| together.slice(2, part * channels, channels, 1));
        self.attend(&self.project(tokens, 0, 1), &k, &v)
    }

    fn refused(&self, tokens: &Tensor) -> Option<Tensor> {
        let channels = self.output.weight.shape()[1];
        let fits = tokens.rank() == 3 && tokens.dim(2) == channels && channels.is_multiple_of(self.heads);
        let message = || format!("takes tokens [N, T, {channels}], channels that {} heads share", self.heads);
        (!fits).then(|| Tensor::invalid("attention", &[tokens], message()))
    }

    /// `count` of the three projections, from the one of that number (queries, keys, values).
    fn project(&self, x: &Tensor, first: usize, count: usize) -> Tensor {
        let _layer = within(&self.weight);
        let channels = self.output.weight.shape()[1];
        let rows = |t: Tensor| t.slice(0, first * channels, count * channels, 1);
        linear(x, &rows(self.weight.tensor()), &rows(self.bias.tensor()))
    }

    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let seen = {
            let _layer = within(&self.weight);
            let heads = |t: &Tensor| {
                let split = [t.dim(0), t.dim(1), self.heads, t.dim(2) / self.heads];
                t.reshape(&split).permute(&[0, 2, 1, 3])
            };
            let seen = heads(q).attention(&heads(k), &heads(v));
            seen.permute(&[0, 2, 1, 3]).reshape(q.shape())
        };
        self.output.forward(&seen)
    }
}

/// Squeeze and excitation (Hu, Shen and Sun 2018): each channel times a number in 0..1 that two 1x1
/// convolutions, `fc1` and `fc2`, make of all channels' means. As torchvision's.
///
/// ```
/// # use autograd::Tensor;
/// # use nn::{initialization::{Initialization, Initializer}, layers::*};
/// # let initializer = Initializer::new(Initialization::PYTORCH, 1);
/// let (mut block, _) = Builder::build(initializer, |b| b.squeeze_excitation("se", 8, 2));
/// block.gate = Tensor::hardsigmoid; // as MobileNetV3 has it
/// let x = block.forward(&Tensor::input("x", &[2, 5, 5, 8]));
/// assert_eq!(x.shape(), [2, 5, 5, 8]);
/// ```
pub struct SqueezeExcitation {
    pub(super) squeeze: Convolution,
    pub(super) excite: Convolution,
    /// Between the two: ReLU, unless another is given.
    pub activation: fn(&Tensor) -> Tensor,
    /// Makes the numbers: the sigmoid, unless another is given.
    pub gate: fn(&Tensor) -> Tensor,
}

impl SqueezeExcitation {
    /// `[N, H, W, C] -> [N, H, W, C]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let hidden = (self.activation)(&self.squeeze.forward(&x.mean(&[1, 2])));
        x * (self.gate)(&self.excite.forward(&hidden))
    }
}
