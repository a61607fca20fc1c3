//! Swapped logit distillation: Luo and Guo, *Swapped Logit Distillation via Bi-level Teacher Alignment*
//! (2025), as its published code computes it.

use autograd::Tensor;

use super::{
    Distiller, Logits, Loss, Network, Observation, SwapStatistics, divergence, student_swap_divergence, swap,
};

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
        let student = gate
            * pseudo_teacher_divergence(&s, y, &self.temperatures, self.detach_pseudo_teacher)
            * per_image;
        let (weak_s, weak_t) = (logits.weak(&s), logits.weak(&t));
        Loss {
            observations: observe(&weak_s, &weak_t, &logits.labels, [&student, &teacher]),
            ..Loss::sum(vec![
                ("ce", ce * self.ce_weight),
                ("kd_teacher", teacher * self.kd_weight),
                ("kd_student", student * self.kd_weight),
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

/// What the swap does to the logits of student and teacher, and what each level of the loss comes to
/// without its weight.
pub(super) fn observe(
    student: &Tensor,
    teacher: &Tensor,
    labels: &Tensor,
    levels: [&Tensor; 2],
) -> Vec<(Observation, Tensor)> {
    let side = |network: Network, logits: &Tensor, level: &Tensor| {
        let swap = SwapStatistics::new(logits, labels);
        [
            (Observation::Swapped(network), swap.share),
            (Observation::Confidence(network), swap.before),
            (Observation::ConfidenceSwapped(network), swap.after),
            (Observation::Level(network), level.detach()),
        ]
    };
    let student = side(Network::Student, student, levels[0]);
    student.into_iter().chain(side(Network::Teacher, teacher, levels[1])).collect()
}
