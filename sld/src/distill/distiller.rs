//! What a method is: its equations, and the loss they make.

use super::about::About;
use super::logits::Logits;
use super::swap::Observation;
use crate::setting::Settings;
use autograd::Tensor;
use std::fmt;

/// A way to train a student, with its constants, which are config keys.
pub trait Distiller: Settings + Boxed + fmt::Debug + Send + Sync {
    /// What it is.
    fn about(&self) -> About;

    /// The value of [`Logits::factor`] in an epoch (counted from 1), or `None` if the method does not
    /// change with the epoch. Being an input of the step, it lets one compiled step serve all epochs.
    fn factor(&self, _epoch: usize) -> Option<f64> {
        None
    }

    /// The loss of a batch, or the invalid tensor that says why these logits do not fit.
    fn equations(&self, logits: &Logits) -> Result<Loss, Tensor>;

    /// The loss of a batch. Logits that do not fit the method give an invalid total, whose error the
    /// step reports.
    fn loss(&self, logits: &Logits) -> Loss {
        let invalid = |total| Loss { terms: Vec::new(), total, observations: Vec::new() };
        self.equations(logits).unwrap_or_else(invalid)
    }

    /// [`About::name`].
    fn name(&self) -> &'static str {
        self.about().name
    }
    /// [`About::views`].
    fn views(&self) -> usize {
        self.about().views
    }
    /// [`About::needs_teacher`].
    fn needs_teacher(&self) -> bool {
        self.about().needs_teacher
    }
}

/// How a boxed method is cloned.
pub trait Boxed {
    fn boxed(&self) -> Box<dyn Distiller>;
}

impl<T: Distiller + Clone + 'static> Boxed for T {
    fn boxed(&self) -> Box<dyn Distiller> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn Distiller> {
    fn clone(&self) -> Self {
        (**self).boxed()
    }
}

/// What a method makes of a batch; all scalars of shape `[]`.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Named, weighted parts, which sum to the total.
    pub terms: Vec<(&'static str, Tensor)>,
    /// What is minimised.
    pub total: Tensor,
    /// What is observed, without influence on training.
    pub observations: Vec<(Observation, Tensor)>,
}

impl Loss {
    /// The sum of weighted terms.
    pub(super) fn sum(terms: Vec<(&'static str, Tensor)>) -> Loss {
        let mut parts = terms.iter().map(|term| term.1.clone());
        let first = parts.next().unwrap_or_else(|| Tensor::scalar(0.0));
        let total = parts.fold(first, |sum, part| sum + part);
        Loss { terms, total, observations: Vec::new() }
    }
}
