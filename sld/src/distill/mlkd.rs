//! Jin, Wang, Lin, *Multi-level Logit Distillation* (CVPR 2023), as its published code computes it: the
//! masks, which were to choose samples and classes, multiply sums that are scalars already, and so act
//! as factors of about one half.

use autograd::Tensor;
use nn::layers::Modules;

use super::about::About;
use super::batch::Batch;
use super::distiller::{Distiller, Loss};
use super::divergence::{divergence, soften};
use crate::setting::{check::*, settings};

settings! {
    /// With `P_T(z)` the matrix of rows `softmax_T(z_i)`, batch means and sums over the temperatures:
    ///
    /// ```text
    /// K = T^2 KL(P_T(t) || P_T(s))                                    instances
    /// B = || P_T(t) P_T(t)' - P_T(s) P_T(s)' ||^2 / batch             the batch
    /// C = || P_T(t)' P_T(t) - P_T(s)' P_T(s) ||^2 / classes           classes
    /// ce_weight [CE(s_w, y) + CE(s_s, y)]
    ///   + kd_weight [ f K(weak) + K(strong, A) + K(weak, B) + g C(weak) + f B(weak) ]
    /// ```
    ///
    /// where `A` is the first temperature with the strong ones, `B` the weak ones, and everything else runs
    /// over all. `f` is the share of samples whose teacher confidence (at T = 1) is at most the median, `g` that of
    /// classes whose summed confidence is. That some temperatures use the weak view twice is the published
    /// code's.
    pub struct Mlkd {
        /// Temperature of both views.
        "KD.TEMPERATURE": temperature: f64 = 4.0, positive;
        /// Weight of the cross entropy.
        "KD.LOSS.CE_WEIGHT": ce_weight: f64 = 0.1, not_negative;
        /// Weight of the distillation.
        "KD.LOSS.KD_WEIGHT": kd_weight: f64 = 0.9, not_negative;
        /// Temperatures whose second instance term reads the strong view.
        "MLKD.STRONG_TEMPERATURES": strong_temperatures: Vec<f64> = vec![3.0, 5.0], temperatures;
        /// Temperatures whose second instance term reads the weak view again.
        "MLKD.WEAK_TEMPERATURES": weak_temperatures: Vec<f64> = vec![2.0, 6.0], temperatures;
    }
}

/// The median of a vector `[n]` (the mean of the middle two for an even count), a scalar.
///
/// Sorting without a sort: an element's rank is the number of elements before it, by value and then by
/// place.
pub(super) fn median(x: &Tensor) -> Tensor {
    let n = x.len();
    let (column, row) = (x.reshape(&[n, 1]), x.reshape(&[1, n]));
    let earlier = Tensor::iota(&[n, n], 1).less(&Tensor::iota(&[n, n], 0));
    let rank = (row.less(&column) + row.equal(&column) * earlier).sum(&[1]).reshape(&[n]);
    let at = |k: usize| {
        rank.equal(&Tensor::scalar(k as f64)).select(x, &Tensor::scalar(0.0)).sum(&[0]).reshape(&[])
    };
    if n % 2 == 1 { at(n / 2) } else { (at(n / 2 - 1) + at(n / 2)) * 0.5 }
}

/// Share of a vector's entries that are at most its median.
fn lower_share(x: &Tensor) -> Tensor {
    x.less_equal(&median(x)).mean_all()
}

/// Sum over temperatures of the squared distance of two stacks of matrices `[T, ., .]`.
fn squared_distance(a: Tensor, b: Tensor) -> Tensor {
    (a - b).square().sum_all()
}

impl Distiller for Mlkd {
    fn about(&self) -> About {
        About {
            name: "MLKD",
            aliases: &["KD_ours"],
            title: "Multi-level logit distillation",
            views: 2,
            // It relates the images of a batch to each other.
            smallest_batch: 2,
            ..About::DEFAULT
        }
    }
    fn equations(&self, batch: &Batch, _: &mut Modules) -> Result<Loss, Tensor> {
        let (s, t) = batch.pair(self.about())?;
        let (images, classes) = (batch.size() as f64, s.dim(1) as f64);
        let (sw, tw) = (batch.weak(&s), batch.weak(&t));
        let (ss, ts) = (batch.strong(&s), batch.strong(&t));

        let confidence = tw.softmax(1);
        let f = lower_share(&confidence.max(1).reshape(&[batch.size()]));
        let g = lower_share(&confidence.sum(&[0]).reshape(&[s.dim(1)]));

        let strong = [&[self.temperature], &self.strong_temperatures[..]].concat();
        let all = &[&strong[..], &self.weak_temperatures].concat();
        let instances = &f * divergence(&sw, &tw, all)
            + divergence(&ss, &ts, &strong)
            + divergence(&sw, &tw, &self.weak_temperatures);
        let [ps, pt] = [&sw, &tw].map(|z| soften(z, all).softmax(2));
        let of_classes = |p: &Tensor| p.transpose().matmul(p);
        let of_batch = |p: &Tensor| p.matmul(&p.transpose());
        let class = g * squared_distance(of_classes(&pt), of_classes(&ps));
        let batchwise = f * squared_distance(of_batch(&pt), of_batch(&ps));

        Ok(Loss::sum(vec![
            ("ce", batch.cross_entropy(self.about(), self.ce_weight)?),
            ("kd", instances * (self.kd_weight / images)),
            ("cc", class * (self.kd_weight / classes)),
            ("bc", batchwise * (self.kd_weight / images)),
        ]))
    }
}
