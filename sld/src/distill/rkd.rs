//! Park et al., *Relational Knowledge Distillation* (arXiv:1904.05068).

use super::about::About;
use super::batch::Batch;
use super::distiller::{Distiller, Loss};
use super::features::normalize;
use crate::setting::{check::*, settings};
use autograd::Tensor;
use nn::layers::Modules;

settings! {
    /// With the pooled features `x_i` of a batch, `d_ij` the distance of two divided by the mean distance, `a_ijk` the
    /// cosine of the angle at `x_i` between `x_j` and `x_k`, and Huber's `h`:
    ///
    /// ```text
    /// ce_weight CE(s, y) + feat_weight [ distance_weight mean h(d(s) - d(t)) + angle_weight mean h(a(s) - a(t)) ]
    /// ```
    ///
    /// The means run over all `B^2` pairs and `B^3` triples, those of equal images included.
    pub struct Rkd {
        /// Weight of the distances.
        "RKD.DISTANCE_WEIGHT": distance_weight: f64 = 25.0, not_negative;
        /// Weight of the angles.
        "RKD.ANGLE_WEIGHT": angle_weight: f64 = 50.0, not_negative;
        /// Weight of the cross entropy.
        "RKD.LOSS.CE_WEIGHT": ce_weight: f64 = 1.0, not_negative;
        /// Weight of distances and angles together.
        "RKD.LOSS.FEAT_WEIGHT": feat_weight: f64 = 1.0, not_negative;
        /// The least squared distance.
        "RKD.PDIST.EPSILON": epsilon: f64 = 1e-12, positive;
        /// Whether squared distances take the distances' place.
        "RKD.PDIST.SQUARED": squared: bool = false;
    }
}

/// `x_j - x_i` of a batch's rows, `[B, B, D]`.
fn differences(x: &Tensor) -> Tensor {
    x.unsqueeze(0) - x.unsqueeze(1)
}

impl Rkd {
    /// All distances `[B, B]`, divided by the mean of those that are not 0.
    fn distances(&self, differences: &Tensor) -> Tensor {
        let images = differences.dim(0);
        // Of the differences, which loses no digits where rows are alike.
        let squared = differences.square().sum(&[2]).reshape(&[images, images]);
        let squared = squared.maximum(&Tensor::scalar(self.epsilon));
        let distances = if self.squared { squared } else { squared.sqrt() };
        let index = |axis| Tensor::iota(&[images, images], axis);
        let distances = index(0).equal(&index(1)).select(&Tensor::scalar(0.0), &distances);
        let count = Tensor::scalar(0.0).less(&distances).sum_all();
        let mean = distances.sum_all() / count;
        distances / mean
    }
}

/// The cosines `[B, B, B]` at each row between all others.
fn angles(differences: &Tensor) -> Tensor {
    let directions = normalize(differences, &[2]);
    directions.matmul(&directions.transpose())
}

/// Huber's function at 1 (PyTorch's `smooth_l1_loss`), mean over all entries.
fn huber(x: &Tensor) -> Tensor {
    let size = x.abs();
    size.less(&Tensor::scalar(1.0)).select(&(x.square() * 0.5), &(size - 0.5)).mean_all()
}

impl Distiller for Rkd {
    fn about(&self) -> About {
        // The distances of one image are none.
        About { name: "RKD", title: "Relational knowledge distillation", smallest_batch: 2, ..About::DEFAULT }
    }
    fn equations(&self, batch: &Batch, _: &mut Modules) -> Result<Loss, Tensor> {
        let (student, teacher) = batch.features(self.about())?;
        let [s, t] = [student, &teacher].map(|features| differences(&features.pooled));
        let distance = huber(&(self.distances(&s) - self.distances(&t)));
        let angle = huber(&(angles(&s) - angles(&t)));
        Ok(Loss::sum(vec![
            ("ce", batch.cross_entropy(self.about(), self.ce_weight)?),
            ("distance", distance * (self.feat_weight * self.distance_weight)),
            ("angle", angle * (self.feat_weight * self.angle_weight)),
        ]))
    }
}
