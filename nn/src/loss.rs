//! Losses as small functions: logits `[B, C]` in, a scalar out.

use autograd::Tensor;

/// Mean cross entropy over the batch; integer labels `[B]`.
#[track_caller]
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Tensor {
    logits.cross_entropy(labels).mean_all()
}

/// Hinton's distillation loss (Hinton, Vinyals, Dean 2015): `T^2` times the batch mean of
/// `KL(softmax(target / T) || softmax(logits / T))`. The factor keeps the size of its gradient
/// independent of `T`.
#[track_caller]
pub fn distillation(logits: &Tensor, target: &Tensor, temperature: f64) -> Tensor {
    let (s, t) = (logits * (1.0 / temperature), target * (1.0 / temperature));
    s.kl_divergence(&t).mean_all() * (temperature * temperature)
}

/// Share of the batch whose label is among the `k` largest logits, in `0..=1`.
#[track_caller]
pub fn accuracy(logits: &Tensor, labels: &Tensor, k: usize) -> Tensor {
    logits.top_k_correct(labels, k).mean_all()
}
