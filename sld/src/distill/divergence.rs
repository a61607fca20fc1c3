//! Divergences at several temperatures at once.
//!
//! Temperatures are a leading axis, `[T, N, C]`, so that six of them cost the kernels of one.

use autograd::Tensor;

use super::swap::places;

/// The temperatures as `f32`, in the given shape.
fn constants(temperatures: &[f64], shape: &[usize], of: impl Fn(f64) -> f64) -> Tensor {
    Tensor::constant(shape, temperatures.iter().map(|&t| of(t) as f32).collect())
}

/// `z / T` for each temperature: `[N, C] -> [T, N, C]`.
pub(super) fn soften(logits: &Tensor, temperatures: &[f64]) -> Tensor {
    logits.unsqueeze(0) / constants(temperatures, &[temperatures.len(), 1, 1], |t| t)
}

/// Sum over temperatures and rows of `T^2 KL(softmax_T(target) || softmax_T(student))`; logits `[N, C]`,
/// result a scalar. Divide by the batch for the batch mean. The gradient flows into both; detach the
/// target where it should not.
#[track_caller]
pub fn divergence(student: &Tensor, target: &Tensor, temperatures: &[f64]) -> Tensor {
    let kl = soften(student, temperatures).kl_divergence(&soften(target, temperatures));
    (kl * constants(temperatures, &[temperatures.len(), 1], |t| t * t)).sum_all()
}

/// [`divergence`] with the swapped student as the target, through which the gradient flows, too.
///
/// Only the entries of the largest logit `m` and of the label `y` differ between the two
/// distributions, so the divergence of a row is, exactly,
///
/// ```text
/// T^2 KL(softmax_T(swap(s)) || softmax_T(s)) = T (q_m - q_y) (s_m - s_y),   q = softmax_T(s)
/// ```
///
/// and 0 where `m = y`. Unlike a logarithm of `q`, this and its gradient stay finite when an entry of `q`
/// underflows.
#[track_caller]
pub fn student_swap_divergence(student: &Tensor, labels: &Tensor, temperatures: &[f64]) -> Tensor {
    let (maximum, label) = places(student, labels);
    let direction = maximum - label;
    let logit_gap = (student * &direction).sum(&[1]);
    let probability_gap = (soften(student, temperatures).softmax(2) * direction).sum(&[2]);
    let weights = constants(temperatures, &[temperatures.len(), 1, 1], |t| t);
    (probability_gap * logit_gap * weights).sum_all()
}
