//! Stochastic gradient descent as expressions, and its learning-rate schedule.

use autograd::{Tensor, Variable, VariableStore, grad, scope};

use crate::checkpoint::OptimizerState;
use crate::error::Result;
use crate::layers::within;

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

    /// Whether its state on `device` is finite.
    ///
    /// # Errors
    /// [`crate::Error::NotFinite`] with the first value that is not; the device's.
    fn check(&self, device: &dyn VariableStore) -> Result<()>;

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

impl Optimizer for Sgd {
    fn parameters(&self) -> Vec<Variable> {
        self.parameters()
    }
    fn differentiated(&self) -> Vec<Variable> {
        self.parameters()
    }
    fn gradients(&self, losses: &Losses) -> Vec<Tensor> {
        grad(&losses.total, &self.tensors())
    }
    fn updates(&self, gradients: &[Tensor], rate: &Tensor) -> Vec<(Variable, Tensor)> {
        self.updates(gradients, rate)
    }
    fn check(&self, device: &dyn VariableStore) -> Result<()> {
        self.check(device)
    }
    fn lacks(&self, saved: &OptimizerState, positions: std::ops::Range<usize>) -> Option<String> {
        let momenta = self.momenta();
        let fits = |p: &usize| saved.momentum.get(p).is_some_and(|m| m.shape == momenta[*p].shape());
        positions.into_iter().find(|p| !fits(p)).map(|p| momenta[p].name().to_owned())
    }
    fn load(&self, saved: &OptimizerState, device: &dyn VariableStore) -> Result<()> {
        self.load(saved, device)
    }
    fn save(&self, rate: f64, device: &dyn VariableStore) -> Result<OptimizerState> {
        self.save(rate, device)
    }
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

/// Settings of a group of parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdOptions {
    /// How much of the step before goes on; 0: none.
    pub momentum: f64,
    /// Coefficient of the parameter itself in its gradient.
    pub weight_decay: f64,
    /// The group's learning rate as a multiple of the step's.
    pub rate_factor: f64,
    /// Nesterov's momentum: the gradient as it would be a step ahead.
    pub nesterov: bool,
}

impl Default for SgdOptions {
    fn default() -> Self {
        SgdOptions { momentum: 0.9, weight_decay: 5e-4, rate_factor: 1.0, nesterov: false }
    }
}

/// Parameters that share settings.
#[derive(Clone, Debug)]
pub struct ParameterGroup {
    /// What the settings are for.
    pub parameters: Vec<Variable>,
    /// The settings.
    pub options: SgdOptions,
}

/// Stochastic gradient descent with momentum (no dampening) and weight decay, as PyTorch's `torch.optim.SGD`:
///
/// ```text
/// g = gradient + weight_decay * p;   m = momentum * m + g;   p = p - rate * m
/// p = p - rate * (g + momentum * m)                                    with Nesterov's
/// ```
///
/// Momentum starts at 0, so the first `m` is `g`.
pub struct Sgd {
    slots: Vec<Slot>,
    /// Each group's settings and number of parameters, in order.
    groups: Vec<(SgdOptions, usize)>,
}

struct Slot {
    parameter: Variable,
    momentum: Variable,
    options: SgdOptions,
}

impl Sgd {
    /// One group.
    pub fn new(parameters: &[Variable], options: SgdOptions) -> Sgd {
        Sgd::with_groups(vec![ParameterGroup { parameters: parameters.to_vec(), options }])
    }

    /// Several groups. A parameter's momentum is the variable `PARAMETER.momentum`.
    pub fn with_groups(groups: Vec<ParameterGroup>) -> Sgd {
        let sizes = groups.iter().map(|group| (group.options, group.parameters.len())).collect();
        let slots = groups
            .into_iter()
            .flat_map(|group| {
                let options = group.options;
                group.parameters.into_iter().map(move |parameter| {
                    let name = format!("{}.momentum", parameter.name());
                    let momentum = Variable::full(name, parameter.shape(), 0.0);
                    Slot { parameter, momentum, options }
                })
            })
            .collect();
        Sgd { slots, groups: sizes }
    }

    /// Each group's settings and number of parameters, in order.
    pub fn groups(&self) -> &[(SgdOptions, usize)] {
        &self.groups
    }
    /// The parameters of all groups, in order.
    pub fn parameters(&self) -> Vec<Variable> {
        self.slots.iter().map(|slot| slot.parameter.clone()).collect()
    }
    /// The parameters as expressions, for [`autograd::grad()`].
    pub fn tensors(&self) -> Vec<Tensor> {
        self.slots.iter().map(|slot| slot.parameter.tensor()).collect()
    }
    /// The momentum of each parameter, in the same order.
    pub fn momenta(&self) -> Vec<Variable> {
        self.slots.iter().map(|slot| slot.momentum.clone()).collect()
    }

    /// New values of parameters and momenta, given each parameter's gradient and the learning rate (a
    /// scalar of shape `[]`, usually an input of the step).
    #[track_caller]
    pub fn updates(&self, gradients: &[Tensor], rate: &Tensor) -> Vec<(Variable, Tensor)> {
        if gradients.len() != self.slots.len() {
            return wrong_number(&self.parameters(), gradients, rate);
        }
        let _part = scope::part("update");
        let mut updates = Vec::with_capacity(2 * self.slots.len());
        for (slot, gradient) in self.slots.iter().zip(gradients) {
            let _layer = within(&slot.parameter);
            let SgdOptions { momentum, weight_decay, rate_factor, nesterov } = slot.options;
            let (p, m) = (slot.parameter.tensor(), slot.momentum.tensor());
            let g = gradient + &p * weight_decay;
            let m = m * momentum + &g;
            let direction = if nesterov { g + &m * momentum } else { m.clone() };
            updates.push((slot.parameter.clone(), p - rate * rate_factor * direction));
            updates.push((slot.momentum.clone(), m));
        }
        updates
    }
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

/// A learning rate that falls by a factor after each of some epochs. Epochs count from 1.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiStep {
    /// Rate up to and including the first stage's epoch.
    pub base: f64,
    /// Epochs after which the rate falls.
    pub stages: Vec<usize>,
    /// What it is multiplied with.
    pub factor: f64,
}

impl MultiStep {
    /// The rate of an epoch: `base * factor^n`, `n` the number of stages strictly before it.
    pub fn lr_at(&self, epoch: usize) -> f64 {
        let passed = self.stages.iter().filter(|&&stage| epoch > stage).count();
        self.base * self.factor.powf(passed as f64)
    }
}
