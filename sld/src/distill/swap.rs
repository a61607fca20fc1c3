//! The swap: where the largest logit is not the label's, the two exchange places.
//!
//! Limantoro et al., *Swapped Logit Distillation via Bi-level Teacher Alignment* (2025): a wrong prediction
//! is made right without inventing a value, so the distribution keeps its shape.

use autograd::Tensor;

/// Exchanges, in each row of `[N, C]` whose largest entry is not the label's, these two entries; labels
/// are integers `[N]`. Of equal largest entries the first counts. The largest entry's place has no
/// gradient; the moved values have theirs.
#[track_caller]
pub fn swap(logits: &Tensor, labels: &Tensor) -> Tensor {
    let (maximum, label) = places(logits, labels);
    let largest = logits.max(1);
    let own = pick(logits, &label);
    maximum.select(&own, &label.select(&largest, logits))
}

/// One-hot rows `[N, C]`: of the largest entry, and of the label.
pub(super) fn places(logits: &Tensor, labels: &Tensor) -> (Tensor, Tensor) {
    let maximum = Tensor::iota(logits.shape(), 1).equal(&logits.argmax(1));
    (maximum, labels.one_hot(logits.dim(1)))
}

/// The entry of each row that a one-hot mask marks, `[N, 1]`.
pub(super) fn pick(rows: &Tensor, mask: &Tensor) -> Tensor {
    mask.select(rows, &Tensor::scalar(0.0)).sum(&[1])
}

/// What swapping does to a batch of logits; scalars.
#[derive(Clone, Debug)]
pub struct SwapStatistics {
    /// Share of rows that are changed, in `0..=1`.
    pub share: Tensor,
    /// Mean probability of the label before, at `T = 1`.
    pub before: Tensor,
    /// Mean probability of the label after: that of the largest entry.
    pub after: Tensor,
}

impl SwapStatistics {
    /// Of logits `[N, C]` and integer labels `[N]`.
    #[track_caller]
    pub fn new(logits: &Tensor, labels: &Tensor) -> SwapStatistics {
        let probabilities = logits.softmax(1).detach();
        let (maximum, label) = places(logits, labels);
        let before = pick(&probabilities, &label);
        let kept = pick(&maximum, &label);
        SwapStatistics {
            share: 1.0 - kept.mean_all(),
            before: before.mean_all(),
            after: pick(&probabilities, &maximum).mean_all(),
        }
    }
}

/// Whose logits are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The network that learns.
    Student,
    /// The network that is learned from.
    Teacher,
}

/// What a method that swaps observes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// Share of rows that the swap changes, in `0..=1`.
    Swapped(Network),
    /// Mean probability of the label before the swap, at `T = 1`.
    Confidence(Network),
    /// The same after it.
    ConfidenceSwapped(Network),
    /// The student's divergence from these swapped logits, as it enters the loss but for the weight.
    Level(Network),
}
