//! What methods that read feature maps `[B, H, W, C]` share.

use autograd::Tensor;
use nn::Features;
use nn::layers::adaptive_average_pool;

/// The least length by which a vector is divided.
const LEAST_LENGTH: f64 = 1e-12;

/// The length of vectors along `axes`. Its gradient at a zero vector is 0.
pub(super) fn length(x: &Tensor, axes: &[usize]) -> Tensor {
    let squares = x.square().sum(axes);
    // A square root has no slope at 0.
    let is_zero = squares.equal(&Tensor::scalar(0.0));
    is_zero.select(&Tensor::scalar(0.0), &is_zero.select(&Tensor::scalar(1.0), &squares).sqrt())
}

/// `x / max(|x|, 1e-12)`, the length taken over `axes`. The gradient at a zero vector is that of the
/// division by 1e-12, as PyTorch's `normalize`.
pub(super) fn normalize(x: &Tensor, axes: &[usize]) -> Tensor {
    x / length(x, axes).maximum(&Tensor::scalar(LEAST_LENGTH))
}

/// Both networks' stages but the stem, paired from the first on as far as both have any, the larger map
/// of each pair pooled to the other's height (and to a square).
pub(super) fn matched_stages(student: &Features, teacher: &Features) -> Vec<(Tensor, Tensor)> {
    let pairs = student.stages.iter().zip(&teacher.stages).skip(1);
    pairs
        .map(|(s, t)| match (s.dim(1), t.dim(1)) {
            (from, to) if from > to => (adaptive_average_pool(s, to), t.clone()),
            (to, from) if from > to => (s.clone(), adaptive_average_pool(t, to)),
            _ => (s.clone(), t.clone()),
        })
        .collect()
}

/// The sum of scalars.
pub(super) fn sum(terms: impl IntoIterator<Item = Tensor>) -> Tensor {
    terms.into_iter().reduce(|sum, term| sum + term).unwrap_or_else(|| Tensor::scalar(0.0))
}
