//! Tung and Mori, *Similarity-Preserving Knowledge Distillation* (arXiv:1907.09682).

use super::about::About;
use super::batch::Batch;
use super::distiller::{Distiller, Loss};
use super::features::normalize;
use crate::setting::{check::*, settings};
use autograd::Tensor;
use nn::Features;
use nn::layers::Modules;

settings! {
    /// With `G(x)` the products `x x'` of a batch's last features, flattened, each row divided by its length,
    ///
    /// ```text
    /// ce_weight CE(s, y) + feat_weight |G(t) - G(s)|^2 / B^2
    /// ```
    pub struct Sp {
        /// Weight of the cross entropy.
        "SP.LOSS.CE_WEIGHT": ce_weight: f64 = 1.0, not_negative;
        /// Weight of the similarities' distance.
        "SP.LOSS.FEAT_WEIGHT": feat_weight: f64 = 3000.0, not_negative;
    }
}

fn similarities(features: &Features, images: usize) -> Option<Tensor> {
    let last = features.stages.last()?;
    let rows = last.reshape(&[images, last.len() / images.max(1)]);
    Some(normalize(&rows.matmul(&rows.transpose()), &[1]))
}

impl Distiller for Sp {
    fn about(&self) -> About {
        About { name: "SP", title: "Similarity-preserving distillation", ..About::DEFAULT }
    }
    fn equations(&self, batch: &Batch, _: &mut Modules) -> Result<Loss, Tensor> {
        let (student, teacher) = batch.features(self.about())?;
        let [s, t] = [student, &teacher].map(|features| similarities(features, batch.size()));
        let (Some(s), Some(t)) = (s, t) else {
            return Err(batch.refuse(self.about(), "one of the networks gives no feature maps"));
        };
        Ok(Loss::sum(vec![
            ("ce", batch.cross_entropy(self.about(), self.ce_weight)?),
            ("similarity", (t - s).square().mean_all() * self.feat_weight),
        ]))
    }
}
