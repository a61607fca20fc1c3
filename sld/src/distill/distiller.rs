//! What a method is: its equations, and the loss they make.

use super::about::About;
use super::batch::Batch;
use super::swap::Observation;
use crate::setting::Settings;
use autograd::Tensor;
use nn::layers::Modules;
use nn::optimizer::Losses;
use std::fmt;

/// A way to train a student, with its constants, which are config keys.
pub trait Distiller: Settings + Boxed + fmt::Debug + Send + Sync {
    /// What it is.
    fn about(&self) -> About;

    /// The value of [`Batch::factor`] in an epoch (counted from 1), or `None` if the method does not
    /// change with the epoch. Being an input of the step, it lets one compiled step serve all epochs.
    fn factor(&self, _epoch: usize) -> Option<f64> {
        None
    }

    /// Values for inputs of its own that [`Distiller::equations`] asks for by name.
    fn inputs(&self, _drawn: &Drawn) -> Vec<(&'static str, Own)> {
        Vec::new()
    }

    /// The loss of a batch, or the invalid tensor that says why these networks do not fit. What the method
    /// trains beside the student it makes in `own`, where it uses it.
    fn equations(&self, batch: &Batch, own: &mut Modules) -> Result<Loss, Tensor>;

    /// The loss of a batch. Networks that do not fit the method give an invalid total, whose error the
    /// step reports.
    fn loss(&self, batch: &Batch, own: &mut Modules) -> Loss {
        let invalid = |total| Loss { terms: Vec::new(), total, observations: Vec::new() };
        self.equations(batch, own).unwrap_or_else(invalid)
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

/// Which images a batch is made of.
pub struct Drawn<'a> {
    /// The run's seed, `SOLVER.SEED`.
    pub seed: u64,
    /// Counted from 1.
    pub epoch: u64,
    /// Places in the training set, `[B]`.
    pub indices: &'a [u32],
    /// Of the whole training set.
    pub labels: &'a [u32],
}

/// A value of a method's own input.
pub enum Own {
    /// For an input of [`autograd::Tensor::input`], row-major.
    F32(Vec<f32>),
    /// For an input of [`autograd::Tensor::input_i32`], row-major.
    I32(Vec<i32>),
}

/// What a method makes of a batch; all scalars of shape `[]`.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Named, weighted parts, which sum to the total. The first is the task's; the others distil.
    pub terms: Vec<(&'static str, Tensor)>,
    /// What is minimised.
    pub total: Tensor,
    /// What is observed, without influence on training.
    pub observations: Vec<(Observation, Tensor)>,
}

impl Loss {
    /// The task's loss, the rest, and the sum.
    pub fn losses(&self) -> Losses {
        let mut parts = self.terms.iter().map(|term| term.1.clone());
        let task = parts.next().unwrap_or_else(|| self.total.clone());
        let distillation = parts.reduce(|sum, part| sum + part);
        Losses { total: self.total.clone(), task, distillation }
    }

    /// The sum of weighted terms.
    pub fn sum(terms: Vec<(&'static str, Tensor)>) -> Loss {
        let mut parts = terms.iter().map(|term| term.1.clone());
        let first = parts.next().unwrap_or_else(|| Tensor::scalar(0.0));
        let total = parts.fold(first, |sum, part| sum + part);
        Loss { terms, total, observations: Vec::new() }
    }
}
