//! Attention transfer: Zagoruyko and Komodakis, *Paying More Attention to Attention* (arXiv:1612.03928).

use super::about::About;
use super::batch::Batch;
use super::distiller::{Distiller, Loss};
use super::features::{matched_stages, normalize, sum};
use crate::setting::{check::*, settings};
use autograd::Tensor;
use nn::layers::Modules;

settings! {
    /// With the attention map `q(x)` of a stage: the mean over channels of `x^P`, a vector of all positions,
    /// divided by its length,
    ///
    /// ```text
    /// ce_weight CE(s, y) + feat_weight sum over stages of mean (q(s) - q(t))^2
    /// ```
    ///
    /// Of two maps the larger is pooled to the other's height first. The power keeps signs.
    pub struct At {
        /// Power of the activations.
        "AT.P": power: u32 = 2, at_least_one;
        /// Weight of the cross entropy.
        "AT.LOSS.CE_WEIGHT": ce_weight: f64 = 1.0, not_negative;
        /// Weight of the attention maps' distance.
        "AT.LOSS.FEAT_WEIGHT": feat_weight: f64 = 1000.0, not_negative;
    }
}

impl At {
    fn attention(&self, x: &Tensor) -> Tensor {
        let power = (1..self.power).fold(x.clone(), |power, _| power * x);
        normalize(&power.mean(&[3]), &[1, 2])
    }
}

impl Distiller for At {
    fn about(&self) -> About {
        About { name: "AT", title: "Attention transfer", ..About::DEFAULT }
    }
    fn equations(&self, batch: &Batch, _: &mut Modules) -> Result<Loss, Tensor> {
        let (student, teacher) = batch.features(self.about())?;
        let stages = matched_stages(student, &teacher).into_iter();
        let distance = stages.map(|(s, t)| (self.attention(&s) - self.attention(&t)).square().mean_all());
        Ok(Loss::sum(vec![
            ("ce", batch.cross_entropy(self.about(), self.ce_weight)?),
            ("attention", sum(distance) * self.feat_weight),
        ]))
    }
}
