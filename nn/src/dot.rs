//! The distillation-oriented trainer: Zhao, Cui, Song, Liang, *DOT: A Distillation-Oriented Trainer* (ICCV 2023).

use std::collections::BTreeMap;

use autograd::{Tensor, Variable, VariableStore, grad, grad_where_any, scope};

use crate::checkpoint::{OptimizerState, ParamGroup, Scalar};
use crate::error::Result;
use crate::layers::within;
use crate::optimizer::{Losses, Optimizer};
use crate::sgd::SgdOptions;
use crate::state::{load_by_position, named};

/// Stochastic gradient descent with a momentum for each of the two losses: with `M` the momentum and `d` the
/// difference,
///
/// ```text
/// b_t = (M - d) b_t + g_t + weight_decay * p     of the task
/// b_k = (M + d) b_k + g_k                        of the distillation
/// p = p - rate * b_t - rate * b_k
/// ```
///
/// A parameter that has a gradient of one loss only has the momentum `M`; and of the distillation only, also weight
/// decay, but not in its first step. Buffers start at 0.
pub struct Dot {
    slots: Vec<Slot>,
    options: SgdOptions,
    delta: f64,
    /// 1 for each parameter that has met a gradient of the distillation.
    begun: Variable,
}

struct Slot {
    parameter: Variable,
    task: Variable,
    distillation: Variable,
    /// Which losses depend on it.
    has: [bool; 2],
}

impl Dot {
    /// For the parameters of these losses.
    pub fn new(parameters: &[Variable], losses: &Losses, options: SgdOptions, delta: f64) -> Dot {
        let tensors: Vec<Tensor> = parameters.iter().map(Variable::tensor).collect();
        let present = |loss: &Tensor| grad_where_any(loss, &tensors).iter().map(Option::is_some).collect();
        let task: Vec<bool> = present(&losses.task);
        let none = vec![false; parameters.len()];
        let distillation = losses.distillation.as_ref().map_or(none, present);
        Dot::with_gradients(
            parameters,
            task.into_iter().zip(distillation).map(|(t, k)| [t, k]),
            options,
            delta,
        )
    }

    /// For parameters of which it is known which losses depend on them: the task's, the distillation's.
    pub fn with_gradients(
        parameters: &[Variable],
        has: impl IntoIterator<Item = [bool; 2]>,
        options: SgdOptions,
        delta: f64,
    ) -> Dot {
        let buffer = |parameter: &Variable, name: &str| {
            Variable::full(format!("{}.{name}", parameter.name()), parameter.shape(), 0.0)
        };
        let slot = |(parameter, has): (&Variable, [bool; 2])| Slot {
            parameter: parameter.clone(),
            task: buffer(parameter, "momentum"),
            distillation: buffer(parameter, "momentum_kd"),
            has,
        };
        let slots: Vec<Slot> = parameters.iter().zip(has).map(slot).collect();
        let begun = Variable::full("dot.begun", &[slots.len()], 0.0);
        Dot { slots, options, delta, begun }
    }

    /// The slots that a loss (0: the task's, 1: the distillation's) has gradients for.
    fn with(&self, loss: usize) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(move |slot| slot.has[loss])
    }

    /// The two buffers of each parameter: task and distillation.
    pub fn momenta(&self) -> Vec<[Variable; 2]> {
        self.slots.iter().map(|slot| [slot.task.clone(), slot.distillation.clone()]).collect()
    }

    /// As [`Optimizer::updates`], with the gradients of each parameter: task, distillation.
    pub fn step(&self, gradients: &[[Option<Tensor>; 2]], rate: &Tensor) -> Vec<(Variable, Tensor)> {
        let _part = scope::part("update");
        let SgdOptions { momentum, weight_decay, .. } = self.options;
        let mut updates = Vec::new();
        for (position, (slot, gradients)) in self.slots.iter().zip(gradients).enumerate() {
            let _layer = within(&slot.parameter);
            let parameter = slot.parameter.tensor();
            let mut next = parameter.clone();
            if let Some(g) = &gradients[0] {
                let share = if gradients[1].is_some() { momentum - self.delta } else { momentum };
                let b = slot.task.tensor() * share + (g + &parameter * weight_decay);
                next = next - rate * &b;
                updates.push((slot.task.clone(), b));
            }
            if let Some(g) = &gradients[1] {
                let b = match gradients[0] {
                    Some(_) => slot.distillation.tensor() * (momentum + self.delta) + g,
                    None => {
                        let begun = self.begun.tensor().slice(0, position, 1, 1).reshape(&[]);
                        slot.distillation.tensor() * momentum + g + &parameter * (begun * weight_decay)
                    }
                };
                next = next - rate * &b;
                updates.push((slot.distillation.clone(), b));
            }
            if gradients.iter().any(Option::is_some) {
                updates.push((slot.parameter.clone(), next));
            }
        }
        let met = gradients.iter().map(|gradients| f32::from(gradients[1].is_some())).collect();
        let met = Tensor::constant(&[self.slots.len()], met);
        updates.push((self.begun.clone(), self.begun.tensor().maximum(&met)));
        updates
    }
}

impl Optimizer for Dot {
    fn parameters(&self) -> Vec<Variable> {
        self.slots.iter().map(|slot| slot.parameter.clone()).collect()
    }
    fn differentiated(&self) -> Vec<Variable> {
        [0, 1].into_iter().flat_map(|loss| self.with(loss)).map(|slot| slot.parameter.clone()).collect()
    }
    fn gradients(&self, losses: &Losses) -> Vec<Tensor> {
        let of = |loss: usize, value: &Tensor| {
            grad(value, &self.with(loss).map(|slot| slot.parameter.tensor()).collect::<Vec<_>>())
        };
        let mut gradients = of(0, &losses.task);
        gradients.extend(losses.distillation.iter().flat_map(|value| of(1, value)));
        gradients
    }
    fn updates(&self, gradients: &[Tensor], rate: &Tensor) -> Vec<(Variable, Tensor)> {
        let needed = self.differentiated().len();
        if gradients.len() != needed {
            let message = format!("{} gradients where {needed} are needed", gradients.len());
            let invalid = Tensor::invalid("dot", &[rate], message);
            return self.slots.iter().map(|slot| (slot.parameter.clone(), invalid.clone())).collect();
        }
        let (mut task, mut distillation) =
            (gradients.iter().cloned(), gradients[self.with(0).count()..].iter().cloned());
        let of = |slot: &Slot| {
            [slot.has[0].then(|| task.next()).flatten(), slot.has[1].then(|| distillation.next()).flatten()]
        };
        self.step(&self.slots.iter().map(of).collect::<Vec<_>>(), rate)
    }
    fn state(&self) -> Vec<Variable> {
        self.momenta().into_iter().flatten().chain([self.begun.clone()]).collect()
    }
    fn lacks(&self, saved: &OptimizerState, positions: std::ops::Range<usize>) -> Option<String> {
        // Before the first step there are none of the distillation.
        let begun = !saved.momentum_kd.is_empty();
        positions.into_iter().find_map(|p| {
            let slot = &self.slots[p];
            let buffers = [
                (&saved.momentum, &slot.task, slot.has[0]),
                (&saved.momentum_kd, &slot.distillation, slot.has[1] && begun),
            ];
            let missing = buffers.into_iter().find(|(saved, buffer, wanted)| {
                *wanted && saved.get(&p).is_none_or(|tensor| tensor.shape != buffer.shape())
            });
            missing.map(|(_, buffer, _)| buffer.name().to_owned())
        })
    }
    fn load(&self, saved: &OptimizerState, device: &dyn VariableStore) -> Result<()> {
        let [task, distillation]: [Vec<Variable>; 2] =
            [0, 1].map(|loss| self.momenta().into_iter().map(|pair| pair[loss].clone()).collect());
        let task = load_by_position(&saved.momentum, &task)?;
        let met = load_by_position(&saved.momentum_kd, &distillation)?;
        let begun: Vec<f32> =
            (0..self.slots.len()).map(|p| f32::from(saved.momentum_kd.contains_key(&p))).collect();
        for (variable, values) in task.iter().chain(&met) {
            device.write(variable, values)?;
        }
        Ok(device.write(&self.begun, &begun)?)
    }
    fn save(&self, rate: f64, device: &dyn VariableStore) -> Result<OptimizerState> {
        let begun = device.read(&self.begun)?;
        let (mut momentum, mut momentum_kd) = (BTreeMap::new(), BTreeMap::new());
        for (position, slot) in self.slots.iter().enumerate() {
            if slot.has[0] {
                momentum.insert(position, named(&slot.task, device)?.unnamed());
            }
            if begun[position] != 0.0 {
                momentum_kd.insert(position, named(&slot.distillation, device)?.unnamed());
            }
        }
        let SgdOptions { momentum: middle, weight_decay, .. } = self.options;
        let settings = [
            ("lr", rate),
            ("momentum", middle - self.delta),
            ("momentum_kd", middle + self.delta),
            ("dampening", 0.0),
            ("weight_decay", weight_decay),
        ];
        let group = ParamGroup {
            params: (0..self.slots.len()).collect(),
            options: settings.map(|(name, value)| (name.to_owned(), Scalar::Float(value))).to_vec(),
        };
        Ok(OptimizerState { momentum, momentum_kd, param_groups: vec![group], ..OptimizerState::default() })
    }
}
