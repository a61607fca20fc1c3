//! What an optimizer is, and what is done with gradients before it.

use autograd::{Tensor, Variable, VariableStore, scope};

use crate::checkpoint::OptimizerState;
use crate::error::Result;
use crate::layers::within;
use crate::state::finite;

/// The losses of a step, scalars of shape `[]`.
#[derive(Clone, Debug)]
pub struct Losses {
    /// What is minimised: the sum of the two.
    pub total: Tensor,
    /// Of the labels.
    pub task: Tensor,
    /// Of the teacher; none without one.
    pub distillation: Option<Tensor>,
}

impl Losses {
    /// Each as `f` makes it.
    pub fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Losses {
        let Losses { total, task, distillation } = self;
        Losses { total: f(total), task: f(task), distillation: distillation.as_ref().map(f) }
    }
}

/// What makes of gradients the next parameters.
pub trait Optimizer: Send + Sync {
    /// What it trains, in the order of its state's positions.
    fn parameters(&self) -> Vec<Variable>;

    /// The parameter of each of [`Optimizer::gradients`]; those of several losses come one after the other.
    fn differentiated(&self) -> Vec<Variable>;

    /// The gradients that the update reads.
    fn gradients(&self, losses: &Losses) -> Vec<Tensor>;

    /// New values of parameters and of the optimizer's own state, given these gradients and the learning rate
    /// (a scalar of shape `[]`, usually an input of the step).
    fn updates(&self, gradients: &[Tensor], rate: &Tensor) -> Vec<(Variable, Tensor)>;

    /// What it keeps between steps beside the parameters.
    fn state(&self) -> Vec<Variable>;

    /// Whether its state on `device` is finite.
    ///
    /// # Errors
    /// [`crate::Error::NotFinite`] with the first value that is not; the device's.
    fn check(&self, device: &dyn VariableStore) -> Result<()> {
        self.state().iter().try_for_each(|kept| finite(kept.name(), &device.read(kept)?))
    }

    /// The name of the first of its parameters from `positions` whose state `saved` lacks, or has in another shape.
    fn lacks(&self, saved: &OptimizerState, positions: std::ops::Range<usize>) -> Option<String>;

    /// Gives its state on `device` a checkpoint's, by position of the parameter; where that has none, it begins
    /// anew. Settings (learning rate, weight decay) stay this optimizer's.
    ///
    /// # Errors
    /// [`crate::Error::Optimizer`] for a position or shape that does not fit, [`crate::Error::NotFinite`]; then
    /// nothing is written.
    fn load(&self, saved: &OptimizerState, device: &dyn VariableStore) -> Result<()>;

    /// Its state as PyTorch's `Optimizer.state_dict()` has it; `rate` is the learning rate.
    fn save(&self, rate: f64, device: &dyn VariableStore) -> Result<OptimizerState>;
}

/// Gradients as they are, or where they are together longer than `most`, shortened to that length: as
/// `torch.nn.utils.clip_grad_norm_` (Pascanu, Mikolov and Bengio, *On the difficulty of training recurrent neural
/// networks*, 2013).
pub fn clip_by_norm(gradients: &[Tensor], most: f64) -> Vec<Tensor> {
    let _part = scope::part("update");
    let squares = gradients.iter().map(|gradient| gradient.square().sum_all());
    let Some(length) = squares.reduce(|sum, square| sum + square) else { return Vec::new() };
    let factor = (most / (length.sqrt() + 1e-6)).minimum(&Tensor::scalar(1.0));
    gradients.iter().map(|gradient| gradient * &factor).collect()
}

/// What an optimizer gives for another number of gradients than it has parameters: invalid tensors.
#[track_caller]
pub(crate) fn wrong_number(
    parameters: &[Variable],
    gradients: &[Tensor],
    rate: &Tensor,
) -> Vec<(Variable, Tensor)> {
    let message = format!("{} gradients for {} parameters", gradients.len(), parameters.len());
    let invalid = Tensor::invalid("optimizer", &[rate], message);
    parameters.iter().map(|parameter| (parameter.clone(), invalid.clone())).collect()
}

/// Sums of gradients, kept on the device between programs: what the parts of a batch add to, one after the
/// other, and its update reads. Zeros between batches.
pub struct GradientSums {
    /// Parameters and their sums.
    slots: Vec<(Variable, Variable)>,
}

impl GradientSums {
    /// One for each parameter, in their order: the variable `PARAMETER.gradient`.
    pub fn new(parameters: &[Variable]) -> GradientSums {
        let slot = |p: &Variable| {
            let sum = Variable::full(format!("{}.gradient", p.name()), p.shape(), 0.0);
            (p.clone(), sum)
        };
        GradientSums { slots: parameters.iter().map(slot).collect() }
    }

    /// The variables that the sums are in.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.slots.iter().map(|(_, sum)| sum)
    }

    /// The sums as they are.
    pub fn tensors(&self) -> Vec<Tensor> {
        self.slots.iter().map(|(_, sum)| sum.tensor()).collect()
    }

    /// The sums with a part's gradients (one for each parameter) added.
    pub fn add(&self, gradients: &[Tensor]) -> Vec<(Variable, Tensor)> {
        let _part = scope::part("update");
        let add = |((parameter, sum), gradient): (&(Variable, Variable), &Tensor)| {
            let _layer = within(parameter);
            (sum.clone(), sum.tensor() + gradient)
        };
        self.slots.iter().zip(gradients).map(add).collect()
    }

    /// Zeros, for the next batch.
    pub fn clear(&self) -> Vec<(Variable, Tensor)> {
        let _part = scope::part("update");
        let clear = |(parameter, sum): &(Variable, Variable)| {
            let _layer = within(parameter);
            (sum.clone(), Tensor::full(sum.shape(), 0.0))
        };
        self.slots.iter().map(clear).collect()
    }
}
