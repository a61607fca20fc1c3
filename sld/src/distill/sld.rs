//! Swapped logit distillation: Limantoro, Lin, Wang, Tsai, Shuai, Huang, Cheng, *Swapped Logit
//! Distillation via Bi-level Teacher Alignment* (2025), as its published code computes it.

use autograd::Tensor;
use nn::layers::Modules;

use super::about::About;
use super::batch::Batch;
use super::distiller::{Distiller, Loss};
use super::divergence::{divergence, student_swap_divergence};
use super::swap::{Network, Observation, SwapStatistics, swap};
use crate::setting::{check::*, settings};

settings! {
    /// With `L(a, s, T) = T^2 KL(softmax_T(a) || softmax_T(s))`, batch means, and `w`, `s` the weak and the
    /// strong view:
    ///
    /// ```text
    /// ce_weight [ CE(s_w, y) + CE(s_s, y) ]
    ///   + kd_weight sum over views and temperatures of [ L(swap(t), s, T) + gate L(swap(s), s, T) ]
    /// ```
    ///
    /// The views are added, not averaged, and never mixed. The gradient also flows through `swap(s)`.
    pub struct Sld {
        /// Weight of the cross entropy.
        "KD.LOSS.CE_WEIGHT": ce_weight: f64 = 0.1, not_negative;
        /// Weight of the distillation.
        "KD.LOSS.KD_WEIGHT": kd_weight: f64 = 0.9, not_negative;
        /// Temperatures, summed over, not averaged.
        "SLD.TEMPERATURES": temperatures: Vec<f64> = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], some_temperatures;
        /// The last epoch without the student's own term.
        "SLD.GATE_EPOCH": gate_epoch: u32 = 150;
        /// Whether the gradient stops at the swapped student; the published code lets it through.
        "SLD.DETACH_PSEUDO_TEACHER": detach_pseudo_teacher: bool = false;
    }
}

impl Distiller for Sld {
    fn about(&self) -> About {
        About { name: "SLD", title: "Swapped logit distillation", views: 2, ..About::DEFAULT }
    }
    /// The gate: 1 once the epoch is past `gate_epoch`.
    fn factor(&self, epoch: usize) -> Option<f64> {
        Some(if epoch > self.gate_epoch as usize { 1.0 } else { 0.0 })
    }
    fn equations(&self, batch: &Batch, _: &mut Modules) -> Result<Loss, Tensor> {
        let (s, t) = batch.pair(self.about())?;
        // Sums over all rows of both views, divided by the batch: the sum of the views' means.
        let (y, gate) = (&batch.stacked_labels(), &batch.factor);
        let per_image = 1.0 / batch.size() as f64;
        let teacher = divergence(&s, &swap(&t, y), &self.temperatures) * per_image;
        let student = gate
            * pseudo_teacher_divergence(&s, y, &self.temperatures, self.detach_pseudo_teacher)
            * per_image;
        let (weak_s, weak_t) = (batch.weak(&s), batch.weak(&t));
        Ok(Loss {
            observations: observe(&weak_s, &weak_t, &batch.labels, [&student, &teacher]),
            ..Loss::sum(vec![
                ("ce", batch.cross_entropy(self.about(), self.ce_weight)?),
                ("kd_teacher", teacher * self.kd_weight),
                ("kd_student", student * self.kd_weight),
            ])
        })
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
