//! Swapped logit distillation: Luo and Guo, *Swapped Logit Distillation via Bi-level Teacher Alignment*
//! (2025), as its published code computes it.

use autograd::Tensor;

use super::{Distiller, Logits, Loss, SwapStatistics, divergence, student_swap_divergence, swap};

/// With `L(a, s, T) = T^2 KL(softmax_T(a) || softmax_T(s))`, batch means, and `w`, `s` the weak and the
/// strong view:
///
/// ```text
/// ce_weight [ CE(s_w, y) + CE(s_s, y) ]
///   + kd_weight sum over views and temperatures of [ L(swap(t), s, T) + gate L(swap(s), s, T) ]
/// ```
///
/// The views are added, not averaged, and never mixed. The gradient also flows through `swap(s)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sld {
    pub temperatures: Vec<f64>,
    pub ce_weight: f64,
    pub kd_weight: f64,
    /// The last epoch without the student's own term.
    pub gate_epoch: usize,
    /// Whether the gradient stops at the swapped student; the published code lets it through.
    pub detach_pseudo_teacher: bool,
}

impl Default for Sld {
    fn default() -> Self {
        let temperatures = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        Sld { temperatures, ce_weight: 0.1, kd_weight: 0.9, gate_epoch: 150, detach_pseudo_teacher: false }
    }
}

impl Distiller for Sld {
    fn name(&self) -> &'static str {
        "SLD"
    }
    fn views(&self) -> usize {
        2
    }
    /// The gate: 1 once the epoch is past `gate_epoch`.
    fn factor(&self, epoch: usize) -> Option<f64> {
        Some(if epoch > self.gate_epoch { 1.0 } else { 0.0 })
    }
    fn loss(&self, logits: &Logits) -> Loss {
        let (s, t) = match logits.pair("SLD", 2) {
            Ok(pair) => pair,
            Err(error) => return Loss::invalid(error),
        };
        // Sums over all rows of both views, divided by the batch: the sum of the views' means.
        let (y, gate) = (&logits.stacked_labels(), &logits.factor);
        let per_image = 1.0 / logits.batch() as f64;
        let ce = s.cross_entropy(y).sum_all() * per_image;
        let teacher = divergence(&s, &swap(&t, y), &self.temperatures) * per_image;
        let student =
            pseudo_teacher_divergence(&s, y, &self.temperatures, self.detach_pseudo_teacher) * per_image;
        Loss {
            statistics: observe(&logits.weak(&s), &logits.weak(&t), &logits.labels),
            ..Loss::sum(vec![
                ("ce", ce * self.ce_weight),
                ("kd_teacher", teacher * self.kd_weight),
                ("kd_student", gate * student * self.kd_weight),
            ])
        }
    }
}

/// The student's divergence from its own swapped logits, as teachers that learn with it or fixed ones.
pub(super) fn pseudo_teacher_divergence(
    student: &Tensor,
    labels: &Tensor,
    temperatures: &[f64],
    detached: bool,
) -> Tensor {
    if detached {
        divergence(student, &swap(student, labels).detach(), temperatures)
    } else {
        student_swap_divergence(student, labels, temperatures)
    }
}

/// What the swap does to both networks' logits.
pub(super) fn observe(student: &Tensor, teacher: &Tensor, labels: &Tensor) -> Vec<(&'static str, Tensor)> {
    let s = SwapStatistics::new(student, labels);
    let t = SwapStatistics::new(teacher, labels);
    vec![
        ("student_swapped", s.share),
        ("student_confidence", s.before),
        ("student_confidence_swapped", s.after),
        ("teacher_swapped", t.share),
        ("teacher_confidence", t.before),
        ("teacher_confidence_swapped", t.after),
    ]
}
