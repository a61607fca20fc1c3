//! Neuron selectivity transfer: Huang and Wang, *Like What You Like: Knowledge Distill via Neuron Selectivity
//! Transfer* (arXiv:1707.01219).

use super::about::About;
use super::batch::Batch;
use super::distiller::{Distiller, Loss};
use super::features::{matched_stages, normalize, sum};
use crate::setting::{check::*, settings};
use autograd::Tensor;
use nn::layers::Modules;

settings! {
    /// The maximum mean discrepancy, with the kernel `(x' y)^2`, between the channels of student and teacher, each
    /// channel's map a vector `x` of length 1. With `k(X, Y)` the kernel's mean over images and all pairs of channels:
    ///
    /// ```text
    /// ce_weight CE(s, y) + feat_weight sum over stages of [ k(t, t) + k(s, s) - 2 k(s, t) ]
    /// ```
    ///
    /// Of two maps the larger is pooled to the other's height first. `k(t, t)` has no gradient.
    pub struct Nst {
        /// Weight of the cross entropy.
        "NST.LOSS.CE_WEIGHT": ce_weight: f64 = 1.0, not_negative;
        /// Weight of the discrepancy.
        "NST.LOSS.FEAT_WEIGHT": feat_weight: f64 = 50.0, not_negative;
    }
}

/// A channel a row, `[B, C, H W]`, of length 1.
fn channels(x: &Tensor) -> Tensor {
    let [b, positions, c] = [x.dim(0), x.dim(1) * x.dim(2), x.dim(3)];
    normalize(&x.reshape(&[b, positions, c]).transpose(), &[2])
}

/// The kernel's mean over all pairs of rows.
fn kernel(x: &Tensor, y: &Tensor) -> Tensor {
    x.matmul(&y.transpose()).square().mean_all()
}

impl Distiller for Nst {
    fn about(&self) -> About {
        About { name: "NST", title: "Neuron selectivity transfer", ..About::DEFAULT }
    }
    fn equations(&self, batch: &Batch, _: &mut Modules) -> Result<Loss, Tensor> {
        let (student, teacher) = batch.features(self.about())?;
        let stages = matched_stages(student, &teacher).into_iter();
        let discrepancy = stages.map(|(s, t)| {
            let (s, t) = (channels(&s), channels(&t));
            kernel(&t, &t) + kernel(&s, &s) - kernel(&s, &t) * 2.0
        });
        Ok(Loss::sum(vec![
            ("ce", batch.cross_entropy(self.about(), self.ce_weight)?),
            ("discrepancy", sum(discrepancy) * self.feat_weight),
        ]))
    }
}
