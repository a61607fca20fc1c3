//! Stochastic gradient descent.

use std::collections::BTreeMap;

use autograd::{Tensor, Variable, VariableStore, grad, scope};

use crate::checkpoint::{OptimizerState, ParamGroup, Scalar};
use crate::error::{Error, Result};
use crate::layers::within;
use crate::optimizer::{Losses, Optimizer, wrong_number};
use crate::state::{load_by_position, named};

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
    fn state(&self) -> Vec<Variable> {
        self.momenta()
    }
    fn lacks(&self, saved: &OptimizerState, positions: std::ops::Range<usize>) -> Option<String> {
        let momenta = self.momenta();
        let fits = |p: &usize| saved.momentum.get(p).is_some_and(|m| m.shape == momenta[*p].shape());
        positions.into_iter().find(|p| !fits(p)).map(|p| momenta[p].name().to_owned())
    }
    fn load(&self, saved: &OptimizerState, device: &dyn VariableStore) -> Result<()> {
        if !saved.momentum_kd.is_empty() {
            let message = "it is of a distillation-oriented trainer, with two momenta a parameter";
            return Err(Error::Optimizer(message.into()));
        }
        if let Some(other) = saved.others(&["momentum_buffer"]) {
            return Err(Error::Optimizer(format!("it has a `{other}`: it is of another optimizer than SGD")));
        }
        for (momentum, values) in load_by_position(&saved.momentum, &self.momenta())? {
            device.write(&momentum, &values)?;
        }
        Ok(())
    }
    fn save(&self, rate: f64, device: &dyn VariableStore) -> Result<OptimizerState> {
        let mut momentum = BTreeMap::new();
        for (position, variable) in self.momenta().iter().enumerate() {
            momentum.insert(position, named(variable, device)?.unnamed());
        }
        let mut param_groups = Vec::new();
        let mut next = 0;
        for &(options, count) in self.groups() {
            let settings = [
                ("lr", Scalar::Float(rate * options.rate_factor)),
                ("momentum", Scalar::Float(options.momentum)),
                ("dampening", Scalar::Float(0.0)),
                ("weight_decay", Scalar::Float(options.weight_decay)),
                ("nesterov", Scalar::Bool(options.nesterov)),
            ];
            param_groups.push(ParamGroup {
                params: (next..next + count).collect(),
                options: settings.map(|(name, value)| (name.to_string(), value)).to_vec(),
            });
            next += count;
        }
        Ok(OptimizerState { momentum, param_groups, ..OptimizerState::default() })
    }
}
