//! Batch normalisation with PyTorch's running statistics, alone and after a convolution.

use autograd::{Tensor, Variable, scope};

use super::convolution::Convolution;
use super::forward::{Forward, Mode};
use super::scope::within;

/// Added to the variance.
pub const EPSILON: f64 = 1e-5;
/// Weight of a batch's statistics in the running ones.
pub const MOMENTUM: f64 = 0.1;

/// Batch normalisation over the last axis (Ioffe and Szegedy 2015).
pub struct BatchNorm {
    pub(super) weight: Variable,
    pub(super) bias: Variable,
    pub(super) running_mean: Variable,
    pub(super) running_var: Variable,
    pub(super) batches: Variable,
}

impl BatchNorm {
    /// `[N, .., C] -> [N, .., C]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, forward: &mut Forward) -> Tensor {
        self.forward_repeated(x, forward, 1)
    }

    /// The same, for a layer that the reference runs `times` times on the same input in training: its
    /// running statistics move `times` times.
    #[track_caller]
    pub fn forward_repeated(&self, x: &Tensor, forward: &mut Forward, times: usize) -> Tensor {
        let _layer = within(&self.weight);
        let (weight, bias) = (self.weight.tensor(), self.bias.tensor());
        match forward.mode() {
            Mode::Train { views } => {
                let normalized = x.batch_norm_among(&weight, &bias, EPSILON, views, forward.share());
                let count = forward.count_of_all(normalized.count);
                if count < 2 && normalized.output.check().is_ok() {
                    let message = "one value a channel has no variance; give a larger batch or image".into();
                    return Tensor::invalid("batch_norm", &[x], message);
                }
                let times = forward.repeats(times);
                self.update(&normalized.mean, &normalized.variance, count, times, forward);
                normalized.output
            }
            Mode::Eval | Mode::EvalUnfolded => {
                let (mean, variance) = (self.running_mean.tensor(), self.running_var.tensor());
                x.batch_norm_eval(&weight, &bias, &mean, &variance, EPSILON)
            }
        }
    }

    /// What it multiplies the normalised input with and adds to it, `[C]` each.
    pub fn scale_and_shift(&self) -> (Tensor, Tensor) {
        (self.weight.tensor(), self.bias.tensor())
    }

    /// `running = 0.9 running + 0.1 batch`, for each view in order and `times` times each, in closed
    /// form. The batch variance enters unbiased, although the normalisation uses the biased one.
    fn update(&self, mean: &Tensor, variance: &Tensor, count: usize, times: usize, forward: &mut Forward) {
        let _part = scope::part("update");
        let views = mean.dim(0);
        let kept = (1.0 - MOMENTUM).powi(times as i32);
        let blend = |old: Tensor, batch: &Tensor, correction: f64| {
            (0..views).fold(old * kept.powi(views as i32), |sum, view| {
                let weight = (1.0 - kept) * kept.powi((views - 1 - view) as i32) * correction;
                sum + batch.slice(0, view, 1, 1).squeeze(0) * weight
            })
        };
        let unbiased = count as f64 / (count as f64 - 1.0);
        let running_mean = blend(forward.current(&self.running_mean), mean, 1.0);
        let running_var = blend(forward.current(&self.running_var), variance, unbiased);
        let batches = forward.current(&self.batches) + (views * times) as f64;
        forward.update(&self.running_mean, running_mean);
        forward.update(&self.running_var, running_var);
        forward.update(&self.batches, batches);
    }

    /// In evaluation, `y = x * scale + shift`: the two vectors `[C]`.
    fn affine(&self) -> (Tensor, Tensor) {
        let deviation = (self.running_var.tensor() + EPSILON).sqrt();
        let scale = self.weight.tensor() * deviation.reciprocal();
        let shift = self.bias.tensor() - self.running_mean.tensor() * &scale;
        (scale, shift)
    }
}

/// A convolution followed by batch norm, which evaluation folds into one convolution.
pub struct ConvNorm {
    /// The convolution.
    pub conv: Convolution,
    /// What normalises its result.
    pub norm: BatchNorm,
}

impl ConvNorm {
    /// `[N, H, W, Cin] -> [N, Ho, Wo, Cout]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, forward: &mut Forward) -> Tensor {
        if forward.mode() != Mode::Eval {
            return self.norm.forward(&self.conv.forward(x), forward);
        }
        let _layer = within(&self.conv.weight);
        let (scale, shift) = self.norm.affine();
        let per_filter = scale.reshape(&[scale.len(), 1, 1, 1]);
        let weight = self.conv.weight.tensor() * per_filter;
        let bias = match &self.conv.bias {
            Some(bias) => bias.tensor() * &scale + shift,
            None => shift,
        };
        x.conv2d(&weight, self.conv.conv) + bias
    }
}
