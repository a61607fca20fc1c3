//! Training without a teacher: cross entropy.

use super::about::About;
use super::batch::Batch;
use super::distiller::{Distiller, Loss};
use crate::setting::settings;
use autograd::Tensor;
use nn::layers::Modules;

settings! {
    /// `CE(s, y)`, on the weak view.
    pub struct Vanilla {}
}

impl Distiller for Vanilla {
    fn about(&self) -> About {
        About { name: "NONE", title: "Cross entropy", needs_teacher: false, ..About::DEFAULT }
    }
    fn equations(&self, batch: &Batch, _: &mut Modules) -> Result<Loss, Tensor> {
        Ok(Loss::sum(vec![("ce", batch.cross_entropy(self.about(), 1.0)?)]))
    }
}
