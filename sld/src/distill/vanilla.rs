//! Training without a teacher: cross entropy.

use super::about::About;
use super::distiller::{Distiller, Loss};
use super::logits::Logits;
use crate::setting::settings;
use autograd::Tensor;

settings! {
    /// `CE(s, y)`, on the weak view.
    pub struct Vanilla {}
}

impl Distiller for Vanilla {
    fn about(&self) -> About {
        About { name: "NONE", title: "Cross entropy", needs_teacher: false, ..About::DEFAULT }
    }
    fn equations(&self, logits: &Logits) -> Result<Loss, Tensor> {
        let s = logits.student_rows(self.about())?;
        Ok(Loss::sum(vec![("ce", nn::loss::cross_entropy(&s, &logits.labels))]))
    }
}
