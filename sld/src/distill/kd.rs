//! Knowledge distillation: Hinton, Vinyals, Dean, *Distilling the Knowledge in a Neural Network* (2015).

use super::about::About;
use super::batch::Batch;
use super::distiller::{Distiller, Loss};
use super::divergence::divergence;
use crate::setting::{check::*, settings};
use autograd::Tensor;
use nn::layers::Modules;

settings! {
    /// `ce_weight CE(s, y) + kd_weight T^2 KL(softmax_T(t) || softmax_T(s))`, on the weak view.
    pub struct Kd {
        /// Temperature.
        "KD.TEMPERATURE": temperature: f64 = 4.0, positive;
        /// Weight of the cross entropy.
        "KD.LOSS.CE_WEIGHT": ce_weight: f64 = 0.1, not_negative;
        /// Weight of the distillation.
        "KD.LOSS.KD_WEIGHT": kd_weight: f64 = 0.9, not_negative;
    }
}

impl Distiller for Kd {
    fn about(&self) -> About {
        About { name: "KD", title: "Knowledge distillation", ..About::DEFAULT }
    }
    fn equations(&self, batch: &Batch, _: &mut Modules) -> Result<Loss, Tensor> {
        let (s, t) = batch.pair(self.about())?;
        let kd = divergence(&s, &t, &[self.temperature]) * (1.0 / batch.size() as f64);
        Ok(Loss::sum(vec![
            ("ce", batch.cross_entropy(self.about(), self.ce_weight)?),
            ("kd", kd * self.kd_weight),
        ]))
    }
}
