//! Zhao, Cui, Song, Qiu, Liang, *Decoupled Knowledge Distillation* (CVPR 2022).

use autograd::Tensor;
use nn::layers::Modules;

use super::about::About;
use super::batch::Batch;
use super::distiller::{Distiller, Loss};
use super::swap::pick;
use crate::setting::{check::*, settings};

settings! {
    /// With `b(z) = [softmax_T(z)_y, 1 - softmax_T(z)_y]`, on the weak view:
    ///
    /// ```text
    /// TCKD = T^2 KL(b(t) || b(s))                                       target class against the rest
    /// NCKD = T^2 KL(softmax_T(t without y) || softmax_T(s without y))   among the rest
    /// ce_weight CE(s, y) + min(epoch / warmup, 1) (alpha TCKD + beta NCKD)
    /// ```
    pub struct Dkd {
        /// Weight of the cross entropy.
        "DKD.CE_WEIGHT": ce_weight: f64 = 1.0, not_negative;
        /// Weight of the target class against the rest.
        "DKD.ALPHA": alpha: f64 = 1.0, not_negative;
        /// Weight of the other classes among themselves.
        "DKD.BETA": beta: f64 = 8.0, not_negative;
        /// Temperature.
        "DKD.T": temperature: f64 = 4.0, positive;
        /// Epochs until the distillation loss has its full weight.
        "DKD.WARMUP": warmup: u32 = 20, at_least_one;
    }
}

/// Taken from the label's softened logit to leave it out of a softmax.
const LEFT_OUT: f64 = 1000.0;

/// `log sum exp` of each row, `[N, 1]`.
fn log_sum_exp(rows: &Tensor) -> Tensor {
    let largest = rows.max(1).detach();
    (rows - &largest).exp().sum(&[1]).log() + largest
}

/// A network's softened logits, apart.
struct Decoupled {
    /// `log b(z)`, `[N, 1]` each: of the label's probability, and of the sum of the others'.
    label: Tensor,
    others: Tensor,
    /// Logits without the label's.
    rest: Tensor,
}

impl Decoupled {
    fn new(logits: &Tensor, label: &Tensor, temperature: f64) -> Decoupled {
        let softened = logits / temperature;
        let rest = &softened - label * LEFT_OUT;
        let all = log_sum_exp(&softened);
        // Logarithms of sums, not of rounded probabilities: finite however sure the network is.
        Decoupled { label: pick(&softened, label) - &all, others: log_sum_exp(&rest) - &all, rest }
    }
}

impl Distiller for Dkd {
    fn about(&self) -> About {
        About { name: "DKD", title: "Decoupled knowledge distillation", ..About::DEFAULT }
    }
    /// The warm-up: rises to 1 over `warmup` epochs.
    fn factor(&self, epoch: usize) -> Option<f64> {
        Some((epoch as f64 / f64::from(self.warmup)).min(1.0))
    }
    fn equations(&self, batch: &Batch, _: &mut Modules) -> Result<Loss, Tensor> {
        let (s, t) = batch.pair(self.about())?;
        let label = batch.labels.one_hot(s.dim(1));
        let [ds, dt] = [&s, &t].map(|logits| Decoupled::new(logits, &label, self.temperature));
        let tckd = dt.label.exp() * (&dt.label - &ds.label) + dt.others.exp() * (&dt.others - &ds.others);
        let nckd = ds.rest.kl_divergence(&dt.rest);
        let squared = self.temperature * self.temperature;
        let warmup = &batch.factor;
        Ok(Loss::sum(vec![
            ("ce", batch.cross_entropy(self.about(), self.ce_weight)?),
            ("tckd", warmup * tckd.mean_all() * (self.alpha * squared)),
            ("nckd", warmup * nckd.mean_all() * (self.beta * squared)),
        ]))
    }
}
