//! Knowledge distillation with swapped targets at one temperature: what the published SLD code runs
//! under the name KD.

use super::about::About;
use super::batch::Batch;
use super::distiller::{Distiller, Loss};
use super::divergence::divergence;
use super::sld::{observe, pseudo_teacher_divergence};
use super::swap::swap;
use crate::setting::{check::*, settings};
use autograd::Tensor;
use nn::layers::Modules;

settings! {
    /// With `L(a) = T^2 KL(softmax_T(a) || softmax_T(s))`, on the weak view:
    ///
    /// ```text
    /// ce_weight CE(s, y) + kd_weight [ L(swap(t)) + gate L(swap(s)) ]
    /// ```
    pub struct KdSwap {
        /// Temperature.
        "KD.TEMPERATURE": temperature: f64 = 4.0, positive;
        /// Weight of the cross entropy.
        "KD.LOSS.CE_WEIGHT": ce_weight: f64 = 0.1, not_negative;
        /// Weight of the distillation: 4 in the published code, whatever its config says.
        "KD_SWAP.KD_WEIGHT": kd_weight: f64 = 4.0, not_negative;
        /// The last epoch without the student's own term.
        "KD_SWAP.GATE_EPOCH": gate_epoch: u32 = 150;
        /// Whether the gradient stops at the swapped student; the published code lets it through.
        "KD_SWAP.DETACH_PSEUDO_TEACHER": detach_pseudo_teacher: bool = false;
    }
}

impl Distiller for KdSwap {
    fn about(&self) -> About {
        About { name: "KD_SWAP", title: "KD with swapped logits", ..About::DEFAULT }
    }
    /// The gate: 1 once the epoch is past `gate_epoch`.
    fn factor(&self, epoch: usize) -> Option<f64> {
        Some(if epoch > self.gate_epoch as usize { 1.0 } else { 0.0 })
    }
    fn equations(&self, batch: &Batch, _: &mut Modules) -> Result<Loss, Tensor> {
        let (s, t) = batch.pair(self.about())?;
        let (y, gate) = (&batch.labels, &batch.factor);
        let per_image = 1.0 / batch.size() as f64;
        let teacher = divergence(&s, &swap(&t, y), &[self.temperature]) * per_image;
        let student = gate
            * pseudo_teacher_divergence(&s, y, &[self.temperature], self.detach_pseudo_teacher)
            * per_image;
        Ok(Loss {
            observations: observe(&s, &t, y, [&student, &teacher]),
            ..Loss::sum(vec![
                ("ce", batch.cross_entropy(self.about(), self.ce_weight)?),
                ("kd_teacher", teacher * self.kd_weight),
                ("kd_student", student * self.kd_weight),
            ])
        })
    }
}
