//! Losses as small functions: logits `[B, C]` in, a scalar out.

use autograd::Tensor;

/// Mean cross entropy over the batch; integer labels `[B]`.
#[track_caller]
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Tensor {
    logits.cross_entropy(labels).mean_all()
}

/// Share of the batch whose label is among the `k` largest logits, in `0..=1`.
#[track_caller]
pub fn accuracy(logits: &Tensor, labels: &Tensor, k: usize) -> Tensor {
    logits.top_k_correct(labels, k).mean_all()
}
