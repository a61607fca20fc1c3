//! Knowledge distillation with swapped targets at one temperature: what the published SLD code runs
//! under the name KD.

use super::sld::{observe, pseudo_teacher_divergence};
use super::{Distiller, Logits, Loss, divergence, swap};

/// With `L(a) = T^2 KL(softmax_T(a) || softmax_T(s))`, on the weak view:
///
/// ```text
/// ce_weight CE(s, y) + kd_weight [ L(swap(t)) + gate L(swap(s)) ]
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KdSwap {
    pub temperature: f64,
    pub ce_weight: f64,
    /// 4 in the published code, whatever its config says.
    pub kd_weight: f64,
    /// The last epoch without the student's own term.
    pub gate_epoch: usize,
    /// Whether the gradient stops at the swapped student; the published code lets it through.
    pub detach_pseudo_teacher: bool,
}

impl Default for KdSwap {
    fn default() -> Self {
        KdSwap {
            temperature: 4.0,
            ce_weight: 0.1,
            kd_weight: 4.0,
            gate_epoch: 150,
            detach_pseudo_teacher: false,
        }
    }
}

impl Distiller for KdSwap {
    fn name(&self) -> &'static str {
        "KD_swap"
    }
    fn views(&self) -> usize {
        1
    }
    /// The gate: 1 once the epoch is past `gate_epoch`.
    fn factor(&self, epoch: usize) -> Option<f64> {
        Some(if epoch > self.gate_epoch { 1.0 } else { 0.0 })
    }
    fn loss(&self, logits: &Logits) -> Loss {
        let (s, t) = match logits.pair("KD_swap", 1) {
            Ok(pair) => pair,
            Err(error) => return Loss::invalid(error),
        };
        let (y, gate) = (&logits.labels, &logits.factor);
        let per_image = 1.0 / logits.batch() as f64;
        let teacher = divergence(&s, &swap(&t, y), &[self.temperature]) * per_image;
        let student = gate
            * pseudo_teacher_divergence(&s, y, &[self.temperature], self.detach_pseudo_teacher)
            * per_image;
        let ce = nn::loss::cross_entropy(&s, y) * self.ce_weight;
        Loss {
            observations: observe(&s, &t, y, [&student, &teacher]),
            ..Loss::sum(vec![
                ("ce", ce),
                ("kd_teacher", teacher * self.kd_weight),
                ("kd_student", student * self.kd_weight),
            ])
        }
    }
}
