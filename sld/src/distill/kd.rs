//! Knowledge distillation: Hinton, Vinyals, Dean, *Distilling the Knowledge in a Neural Network* (2015).

use super::{Distiller, Logits, Loss, divergence};

/// `ce_weight CE(s, y) + kd_weight T^2 KL(softmax_T(t) || softmax_T(s))`, on the weak view.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kd {
    pub temperature: f64,
    pub ce_weight: f64,
    pub kd_weight: f64,
}

impl Default for Kd {
    fn default() -> Self {
        Kd { temperature: 4.0, ce_weight: 0.1, kd_weight: 0.9 }
    }
}

impl Distiller for Kd {
    fn name(&self) -> &'static str {
        "KD"
    }
    fn views(&self) -> usize {
        1
    }
    fn loss(&self, logits: &Logits) -> Loss {
        let (s, t) = match logits.pair("KD", 1) {
            Ok(pair) => pair,
            Err(error) => return Loss::invalid(error),
        };
        let kd = divergence(&s, &t, &[self.temperature]) * (1.0 / logits.batch() as f64);
        Loss::sum(vec![
            ("ce", nn::loss::cross_entropy(&s, &logits.labels) * self.ce_weight),
            ("kd", kd * self.kd_weight),
        ])
    }
}
