//! Passalis and Tefas, *Learning Deep Representations with Probabilistic Knowledge Transfer* (arXiv:1803.10837).

use super::about::About;
use super::batch::Batch;
use super::distiller::{Distiller, Loss};
use super::features::length;
use crate::setting::{check::*, settings};
use autograd::Tensor;
use nn::layers::Modules;

settings! {
    /// With `P(x)` the cosine similarities of a batch's pooled features, moved to `[0, 1]`, each row divided by its
    /// sum:
    ///
    /// ```text
    /// ce_weight CE(s, y) + feat_weight mean over all B^2 entries of P(t) log(P(t) / P(s))
    /// ```
    pub struct Pkt {
        /// Weight of the cross entropy.
        "PKT.LOSS.CE_WEIGHT": ce_weight: f64 = 1.0, not_negative;
        /// Weight of the divergence.
        "PKT.LOSS.FEAT_WEIGHT": feat_weight: f64 = 30000.0, not_negative;
    }
}

/// Added to what is divided by.
const EPSILON: f64 = 1e-7;

fn probabilities(x: &Tensor) -> Tensor {
    let rows = x / (length(x, &[1]) + EPSILON);
    let similarity = (rows.matmul(&rows.transpose()) + 1.0) * 0.5;
    &similarity / similarity.sum(&[1])
}

/// What `P(t) log((P(t) + e) / (P(s) + e))` comes to in each entry of `[B, B]`. Its rows' sums are small beside its
/// entries; with `u = (P(s) + e) / (P(t) + e) - 1` it is `P(t) (u - log(1 + u)) + e u - (P(s) - P(t))`, of which the last
/// part, whose rows sum to 0, is left out.
fn divergence(s: &Tensor, t: &Tensor) -> Tensor {
    let u = (s - t) / (t + EPSILON);
    t * excess(&u) + &u * EPSILON
}

/// `u - log(1 + u)`, not negative, also where it is far smaller than `u`.
fn excess(u: &Tensor) -> Tensor {
    // log(1 + u) = 2 (z + z^3/3 + z^5/5 + ..), and u - 2 z = u z.
    let z = u / (u + 2.0);
    let square = z.square();
    let series = (1..=9).rev().fold(Tensor::scalar(0.0), |sum, k| sum * &square + 1.0 / f64::from(2 * k + 1));
    let near = &z * u - &z * &square * series * 2.0;
    let far = u - (u + 1.0).log();
    z.abs().less(&Tensor::scalar(0.3)).select(&near, &far)
}

impl Distiller for Pkt {
    fn about(&self) -> About {
        About { name: "PKT", title: "Probabilistic knowledge transfer", ..About::DEFAULT }
    }
    fn equations(&self, batch: &Batch, _: &mut Modules) -> Result<Loss, Tensor> {
        let (student, teacher) = batch.features(self.about())?;
        let [s, t] = [student, &teacher].map(|features| probabilities(&features.pooled));
        Ok(Loss::sum(vec![
            ("ce", batch.cross_entropy(self.about(), self.ce_weight)?),
            ("divergence", divergence(&s, &t).mean_all() * self.feat_weight),
        ]))
    }
}
