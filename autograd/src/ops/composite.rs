//! What is written in the primitives: activations, softmax, attention, losses, normalisation, accuracy, dropout.
//!
//! None of these has a gradient of its own; [`crate::grad()`] derives it, and the schedule fuses it.

use crate::tensor::{DType, Tensor, Transfer};

/// What training-mode batch normalisation gives.
pub struct BatchNorm {
    /// The normalised, scaled and shifted tensor, shaped like the input.
    pub output: Tensor,
    /// Per-channel batch mean, `[views, C]` (see [`Tensor::batch_norm`]).
    pub mean: Tensor,
    /// Per-channel biased batch variance, `[views, C]`.
    pub variance: Tensor,
    /// Elements a channel and view were averaged over in this process.
    pub count: usize,
}

impl Tensor {
    /// `x Phi(x)` with the normal distribution's `Phi(x) = (1 + erf(x / sqrt(2))) / 2`: Hendrycks and Gimpel,
    /// *Gaussian Error Linear Units* (2016); PyTorch's default.
    ///
    /// ```
    /// # use autograd::Tensor;
    /// let y = Tensor::constant(&[3], vec![-1.0, 0.0, 1.0]).gelu().evaluate()?;
    /// assert!((y[0] + 0.158655).abs() < 1e-6 && y[1] == 0.0 && (y[2] - 0.841345).abs() < 1e-6);
    /// # Ok::<(), autograd::Error>(())
    /// ```
    #[track_caller]
    pub fn gelu(&self) -> Tensor {
        self * ((self * std::f64::consts::FRAC_1_SQRT_2).erf() * 0.5 + 0.5)
    }

    /// `x sigmoid(x)`, also called swish: Elfwing, Uchibe and Doya, *Sigmoid-Weighted Linear Units for Neural
    /// Network Function Approximation in Reinforcement Learning* (2017).
    #[track_caller]
    pub fn silu(&self) -> Tensor {
        self * self.sigmoid()
    }

    /// `relu6(x + 3) / 6`, straight lines in the place of the sigmoid: Howard et al., *Searching for
    /// MobileNetV3* (2019).
    ///
    /// ```
    /// # use autograd::Tensor;
    /// assert_eq!(Tensor::constant(&[3], vec![-4.0, 0.0, 3.0]).hardsigmoid().evaluate()?, [0.0, 0.5, 1.0]);
    /// assert_eq!(Tensor::constant(&[3], vec![-4.0, 0.0, 3.0]).hardswish().evaluate()?, [0.0, 0.0, 3.0]);
    /// assert_eq!(Tensor::constant(&[3], vec![-4.0, 1.0, 9.0]).relu6().evaluate()?, [0.0, 1.0, 6.0]);
    /// # Ok::<(), autograd::Error>(())
    /// ```
    #[track_caller]
    pub fn hardsigmoid(&self) -> Tensor {
        (self + 3.0).relu6() * (1.0 / 6.0)
    }

    /// `x relu6(x + 3) / 6`: Howard et al., *Searching for MobileNetV3* (2019).
    #[track_caller]
    pub fn hardswish(&self) -> Tensor {
        self * self.hardsigmoid()
    }

    /// `exp(x_i) / sum_j exp(x_j)` along one axis, computed on `x - max(x)`.
    #[track_caller]
    pub fn softmax(&self, axis: usize) -> Tensor {
        let exp = (self - self.max(axis).detach()).exp();
        &exp / exp.sum(&[axis])
    }

    /// `log(softmax(x))` along one axis, stable for any spread of logits. Subtracting the maximum is
    /// an identity, so its own gradient is zero and it is detached.
    #[track_caller]
    pub fn log_softmax(&self, axis: usize) -> Tensor {
        let shifted = self - self.max(axis).detach();
        &shifted - shifted.exp().sum(&[axis]).log()
    }

    /// Scaled dot-product attention, `softmax(q k^T / sqrt(d)) v` (Vaswani et al., *Attention Is All You
    /// Need*, 2017): queries (self) `[.., T, d]`, keys `[.., S, d]` and values `[.., S, e]` to `[.., T, e]`.
    #[track_caller]
    pub fn attention(&self, keys: &Tensor, values: &Tensor) -> Tensor {
        let last = self.rank().wrapping_sub(1);
        let scale = 1.0 / (self.dim(last) as f64).sqrt();
        let scores = (self * scale).matmul(&keys.transpose());
        scores.softmax(last).matmul(values)
    }

    /// 1 at the label, 0 elsewhere: integer labels `[N] -> [N, classes]`. A label outside
    /// `0..classes` gives a row of zeros.
    #[track_caller]
    pub fn one_hot(&self, classes: usize) -> Tensor {
        if self.dtype() != DType::I32 {
            return Tensor::invalid("one_hot", &[self], "takes integer labels".into());
        }
        let mut shape = self.shape().to_vec();
        shape.push(classes);
        Tensor::iota(&shape, self.rank()).equal(&self.unsqueeze(self.rank()))
    }

    /// Picks along one axis: self `[.., C, ..]`, integer `index` of the same shape but size 1 along
    /// `axis`; result shaped like `index`. Written with a one-hot mask, so its gradient is dense and
    /// needs no atomics. An index out of range gives 0.
    #[track_caller]
    pub fn gather(&self, axis: usize, index: &Tensor) -> Tensor {
        let mut expected = self.shape().to_vec();
        if axis < expected.len() {
            expected[axis] = 1;
        }
        if axis >= self.rank() || index.dtype() != DType::I32 || index.shape() != expected {
            let message = format!("needs an integer index of shape {expected:?} along axis {axis}");
            return Tensor::invalid("gather", &[self, index], message);
        }
        let chosen = Tensor::iota(self.shape(), axis).equal(index);
        chosen.select(self, &Tensor::scalar(0.0)).sum(&[axis])
    }

    /// The invalid tensor of an operation whose labels are not a class of each row.
    #[track_caller]
    fn without_labels(&self, op: &'static str, labels: &Tensor) -> Option<Tensor> {
        let fits = self.rank() == 2 && labels.dtype() == DType::I32 && labels.shape() == &self.shape()[..1];
        let message = "takes logits [N, C] and integer labels [N]";
        (!fits).then(|| Tensor::invalid(op, &[self, labels], message.into()))
    }

    /// Cross entropy of each row: logits `[N, C]` (self) and integer labels `[N]`, result `[N]`.
    #[track_caller]
    pub fn cross_entropy(&self, labels: &Tensor) -> Tensor {
        if let Some(invalid) = self.without_labels("cross_entropy", labels) {
            return invalid;
        }
        -self.log_softmax(1).gather(1, &labels.unsqueeze(1)).reshape(&[self.dim(0)])
    }

    /// The same with the part `smoothing` of each target spread evenly over all classes, as
    /// `torch.nn.functional.cross_entropy`'s `label_smoothing` (Szegedy et al., *Rethinking the Inception Architecture
    /// for Computer Vision*, 2016): `(1 - smoothing) CE + smoothing mean over classes of -log p`.
    #[track_caller]
    pub fn smoothed_cross_entropy(&self, labels: &Tensor, smoothing: f64) -> Tensor {
        let sharp = self.cross_entropy(labels);
        if smoothing == 0.0 || sharp.check().is_err() {
            return sharp;
        }
        let even = -self.log_softmax(1).mean(&[1]).reshape(&[self.dim(0)]);
        sharp * (1.0 - smoothing) + even * smoothing
    }

    /// `KL(softmax(target) || softmax(self))` of each row of logits `[.., C]`, result `[..]`. The
    /// gradient flows into both; detach the target where it should not. Formed from log-softmaxes, so
    /// a probability that underflows contributes 0 and no NaN.
    #[track_caller]
    pub fn kl_divergence(&self, target: &Tensor) -> Tensor {
        let Some((_, rows)) = self.shape().split_last().filter(|_| target.shape() == self.shape()) else {
            return Tensor::invalid(
                "kl_divergence",
                &[self, target],
                "takes two equal shapes [.., C]".into(),
            );
        };
        let last = rows.len();
        let (log_p, log_q) = (target.log_softmax(last), self.log_softmax(last));
        (log_p.exp() * (&log_p - &log_q)).sum(&[last]).reshape(rows)
    }

    /// 1 for each row whose label is among the `k` largest logits, else 0: logits `[N, C]` (self),
    /// integer labels `[N]`, result `[N]`. Of equal logits the lower index ranks first.
    #[track_caller]
    pub fn top_k_correct(&self, labels: &Tensor, k: usize) -> Tensor {
        if let Some(invalid) = self.without_labels("top_k_correct", labels) {
            return invalid;
        }
        let label = labels.unsqueeze(1);
        let own = self.gather(1, &label);
        let index = Tensor::iota(self.shape(), 1);
        let ahead = self.greater(&own) + self.equal(&own) * index.less(&label);
        let rank = ahead.sum(&[1]);
        rank.less(&Tensor::scalar(k as f64)).reshape(&[self.dim(0)])
    }

    /// Training-mode batch normalisation over the last axis (Ioffe & Szegedy 2015):
    /// `(x - mean) / sqrt(variance + eps) * gamma + beta`, biased variance.
    ///
    /// `views` splits the first dim into that many equal parts, each normalised with its own
    /// statistics: two augmentations of one batch go through a network together without mixing.
    #[track_caller]
    pub fn batch_norm(&self, gamma: &Tensor, beta: &Tensor, eps: f64, views: usize) -> BatchNorm {
        self.batch_norm_among(gamma, beta, eps, views, None)
    }

    /// The same among processes that normalise parts of one batch. With a `share` (a scalar of shape `[]`; of
    /// all processes together they are 1) the statistics are those of all images: the processes' own, weighted
    /// so. Without, every process uses its own.
    #[track_caller]
    pub fn batch_norm_among(
        &self,
        gamma: &Tensor,
        beta: &Tensor,
        eps: f64,
        views: usize,
        share: Option<&Tensor>,
    ) -> BatchNorm {
        let rank = self.rank();
        let channels = self.dim(rank.wrapping_sub(1));
        if rank < 2
            || views == 0
            || !self.dim(0).is_multiple_of(views)
            || gamma.shape() != [channels]
            || beta.shape() != [channels]
        {
            let message = format!("needs [N, .., C] in {views} equal views and gamma, beta of shape [C]");
            let output = Tensor::invalid("batch_norm", &[self, gamma, beta], message);
            return BatchNorm { mean: output.clone(), variance: output.clone(), output, count: 1 };
        }
        let mut split = vec![views, self.dim(0) / views];
        split.extend_from_slice(&self.shape()[1..]);
        let x = self.reshape(&split);
        let folded: Vec<usize> = (1..rank).collect();
        let count = folded.iter().map(|&a| x.dim(a)).product();
        let (mean, variance) = (x.mean(&folded), x.variance(&folded));
        let (mean, variance) = match share {
            None => (mean, variance),
            Some(share) => {
                let whole = (&mean * share).all_reduce(Transfer::F32);
                // The deviation of the parts' means adds to the variance of each. Its derivative by the mean
                // of all is zero.
                let apart = (&mean - whole.detach()).square();
                let variance = ((variance + apart) * share).all_reduce(Transfer::F32);
                (whole, variance)
            }
        };
        // One multiply-add an element: the scale is made once a channel. A division rounds once where a
        // reciprocal and a product round twice.
        let scale = gamma / (&variance + eps).sqrt();
        // Stretched to the views first, so that its gradient is the same per-view channel sum that
        // the mean's gradient needs, and only then a sum over views.
        let shift = beta.broadcast_to(mean.shape());
        let output = (&x - &mean) * scale + shift;
        BatchNorm {
            output: output.reshape(self.shape()),
            mean: mean.reshape(&[views, channels]),
            variance: variance.reshape(&[views, channels]),
            count,
        }
    }

    /// Evaluation-mode batch normalisation over the last axis with given statistics `[C]`.
    #[track_caller]
    pub fn batch_norm_eval(
        &self,
        gamma: &Tensor,
        beta: &Tensor,
        mean: &Tensor,
        variance: &Tensor,
        eps: f64,
    ) -> Tensor {
        let scale = gamma / (variance + eps).sqrt();
        let shift = beta - mean * &scale;
        self * scale + shift
    }

    /// Layer normalisation over the last axis (Ba, Kiros and Hinton 2016): each row of `[.., C]` less its
    /// mean, divided by its deviation `sqrt(variance + eps)` (biased), times `gamma`, plus `beta` (`[C]`).
    #[track_caller]
    pub fn layer_norm(&self, gamma: &Tensor, beta: &Tensor, eps: f64) -> Tensor {
        let channels = self.dim(self.rank().wrapping_sub(1));
        if self.rank() == 0 || gamma.shape() != [channels] || beta.shape() != [channels] {
            let message = "needs [.., C] and gamma, beta of shape [C]".into();
            return Tensor::invalid("layer_norm", &[self, gamma, beta], message);
        }
        self.standardized(&[self.rank() - 1], eps) * gamma + beta
    }

    /// Group normalisation (Wu and He 2018): as [`Tensor::layer_norm`], but mean and deviation are those of
    /// each image's channels in one of `groups` groups: `[N, .., C]`.
    #[track_caller]
    pub fn group_norm(&self, groups: usize, gamma: &Tensor, beta: &Tensor, eps: f64) -> Tensor {
        let channels = self.dim(self.rank().wrapping_sub(1));
        let fits = groups > 0 && channels.is_multiple_of(groups);
        if self.rank() < 2 || !fits || gamma.shape() != [channels] || beta.shape() != [channels] {
            let message = format!("needs [N, .., C] in {groups} equal groups and gamma, beta of shape [C]");
            return Tensor::invalid("group_norm", &[self, gamma, beta], message);
        }
        let pixels: usize = self.shape()[1..self.rank() - 1].iter().product();
        let split = self.reshape(&[self.dim(0), pixels, groups, channels / groups]);
        split.standardized(&[1, 3], eps).reshape(self.shape()) * gamma + beta
    }

    /// Less its mean along the axes, divided by its deviation along them.
    #[track_caller]
    fn standardized(&self, axes: &[usize], eps: f64) -> Tensor {
        let scale = (self.variance(axes) + eps).sqrt().reciprocal();
        (self - self.mean(axes)) * scale
    }

    /// Zeroes each element with probability `rate` and scales the rest by `1 / (1 - rate)`. `seed` and
    /// `step` are integer scalars; `stream` tells the dropouts of one step apart.
    #[track_caller]
    pub fn dropout(&self, rate: f64, seed: &Tensor, step: &Tensor, stream: u32) -> Tensor {
        if !(0.0..1.0).contains(&rate) {
            return Tensor::invalid("dropout", &[self], format!("rate {rate} is not in [0, 1)"));
        }
        let dropped = Tensor::random(self.shape(), seed, step, stream).less(&Tensor::scalar(rate));
        dropped.select(&Tensor::scalar(0.0), &(self * (1.0 / (1.0 - rate))))
    }
}
