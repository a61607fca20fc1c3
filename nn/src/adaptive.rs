//! Optimizers that divide each gradient by a running size of its own.

use autograd::{Tensor, Variable, VariableStore, grad, scope};

use crate::checkpoint::{NamedTensor, OptimizerState, ParamGroup, Scalar};
use crate::error::{Error, Result};
use crate::layers::within;
use crate::optimizer::{Losses, Optimizer, wrong_number};
use crate::state::{finite, load_by_position, named};

/// How such an optimizer updates a parameter `p` with gradient `g`, at its `t`-th step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Kingma and Ba, *Adam* (2015), as `torch.optim.Adam`, and decoupled Loshchilov and Hutter, *Decoupled Weight
    /// Decay Regularization* (2019), as `torch.optim.AdamW`:
    ///
    /// ```text
    /// g = g + weight_decay * p            or, decoupled,   p = p - rate * weight_decay * p
    /// m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2
    /// p = p - rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
    /// ```
    Adam {
        /// `beta1` and `beta2`, each from 0 to below 1.
        betas: [f64; 2],
        /// Added to the root, so that nothing is divided by 0.
        epsilon: f64,
        /// Coefficient of the parameter itself.
        weight_decay: f64,
        /// Whether the parameter shrinks by itself (AdamW), not through its gradient (Adam).
        decoupled: bool,
    },
    /// You et al., *Large Batch Optimization for Deep Learning* (LAMB, 2020): Adam's quotient `r` plus
    /// `weight_decay * p`, as long as the parameter: `p = p - rate * |p| / |r| * r` (a factor of 1 where one is 0).
    Lamb {
        /// As Adam's.
        betas: [f64; 2],
        /// As Adam's.
        epsilon: f64,
        /// Coefficient of the parameter itself in its step.
        weight_decay: f64,
    },
    /// Tieleman and Hinton's RMSprop (2012), as `torch.optim.RMSprop`:
    ///
    /// ```text
    /// g = g + weight_decay * p;   v = alpha v + (1 - alpha) g^2
    /// m = momentum m + g / (sqrt(v) + epsilon);   p = p - rate * m
    /// ```
    RmsProp {
        /// How much of the mean square of gradients is kept, from 0 to below 1.
        alpha: f64,
        /// How much of the step before goes on; 0: none.
        momentum: f64,
        /// Added to the root, so that nothing is divided by 0.
        epsilon: f64,
        /// Coefficient of the parameter itself in its gradient.
        weight_decay: f64,
    },
}

impl Rule {
    /// PyTorch's defaults of Adam, with this weight decay in the gradient.
    pub fn adam(weight_decay: f64) -> Rule {
        Rule::Adam { betas: [0.9, 0.999], epsilon: 1e-8, weight_decay, decoupled: false }
    }
    /// PyTorch's defaults of AdamW (whose weight decay is 0.01).
    pub fn adamw(weight_decay: f64) -> Rule {
        Rule::Adam { betas: [0.9, 0.999], epsilon: 1e-8, weight_decay, decoupled: true }
    }
    /// The paper's LAMB.
    pub fn lamb(weight_decay: f64) -> Rule {
        Rule::Lamb { betas: [0.9, 0.999], epsilon: 1e-6, weight_decay }
    }
    /// PyTorch's defaults of RMSprop, with momentum.
    pub fn rms_prop(momentum: f64, weight_decay: f64) -> Rule {
        Rule::RmsProp { alpha: 0.99, momentum, epsilon: 1e-8, weight_decay }
    }

    /// What is kept of each parameter, by PyTorch's names.
    fn buffers(&self) -> [&'static str; 2] {
        match self {
            Rule::Adam { .. } | Rule::Lamb { .. } => ["exp_avg", "exp_avg_sq"],
            Rule::RmsProp { .. } => ["momentum_buffer", "square_avg"],
        }
    }

    /// The settings that a state dict tells.
    fn settings(&self) -> Vec<(&'static str, f64)> {
        match *self {
            Rule::Adam { betas, epsilon, weight_decay, .. } | Rule::Lamb { betas, epsilon, weight_decay } => {
                vec![
                    ("betas.0", betas[0]),
                    ("betas.1", betas[1]),
                    ("eps", epsilon),
                    ("weight_decay", weight_decay),
                ]
            }
            Rule::RmsProp { alpha, momentum, epsilon, weight_decay } => {
                let first = [("momentum", momentum), ("alpha", alpha)];
                [&first[..], &[("eps", epsilon), ("weight_decay", weight_decay)]].concat()
            }
        }
    }

    /// The next parameter and the next buffers. `t` is the number of this step, from 1, a scalar.
    fn update(
        &self,
        p: &Tensor,
        g: &Tensor,
        [m, v]: [Tensor; 2],
        t: &Tensor,
        rate: &Tensor,
    ) -> (Tensor, [Tensor; 2]) {
        let blend = |old: Tensor, new: &Tensor, share: f64| old * share + new * (1.0 - share);
        // `1 - beta^t` without a difference of near numbers: `1 - exp(-2 u) = 2 tanh(u) / (1 + tanh(u))`.
        let correction = |beta: f64| {
            let tanh = (t * (-0.5 * beta.ln())).tanh();
            &tanh * 2.0 / (&tanh + 1.0)
        };
        let quotient = |m: &Tensor, v: &Tensor, [beta1, beta2]: [f64; 2], epsilon: f64| {
            let size = (v / correction(beta2)).sqrt() + epsilon;
            m / correction(beta1) / size
        };
        match *self {
            Rule::Adam { betas, epsilon, weight_decay, decoupled } => {
                let g = if decoupled { g.clone() } else { g + p * weight_decay };
                let p = if decoupled { p - rate * weight_decay * p } else { p.clone() };
                let (m, v) = (blend(m, &g, betas[0]), blend(v, &g.square(), betas[1]));
                (p - rate * quotient(&m, &v, betas, epsilon), [m, v])
            }
            Rule::Lamb { betas, epsilon, weight_decay } => {
                let (m, v) = (blend(m, g, betas[0]), blend(v, &g.square(), betas[1]));
                let r = quotient(&m, &v, betas, epsilon) + p * weight_decay;
                let [own, moved] = [p, &r].map(|t| t.square().sum_all().sqrt());
                let zero = Tensor::scalar(0.0);
                let both = zero.less(&own) * zero.less(&moved);
                let ratio = both.select(&(own / moved), &Tensor::scalar(1.0));
                (p - rate * ratio * r, [m, v])
            }
            Rule::RmsProp { alpha, momentum, epsilon, weight_decay } => {
                let g = g + p * weight_decay;
                let v = blend(v, &g.square(), alpha);
                let m = m * momentum + g / (v.sqrt() + epsilon);
                (p - rate * &m, [m, v])
            }
        }
    }
}

/// An optimizer by one of the rules. What it keeps of a parameter starts at 0.
pub struct Adaptive {
    rule: Rule,
    slots: Vec<Slot>,
    /// Each parameter's number of steps so far.
    steps: Variable,
}

struct Slot {
    parameter: Variable,
    buffers: [Variable; 2],
}

impl Adaptive {
    /// For these parameters.
    pub fn new(parameters: &[Variable], rule: Rule) -> Adaptive {
        let slot = |p: &Variable| {
            let buffer = |name: &str| Variable::full(format!("{}.{name}", p.name()), p.shape(), 0.0);
            Slot { parameter: p.clone(), buffers: rule.buffers().map(buffer) }
        };
        let slots: Vec<Slot> = parameters.iter().map(slot).collect();
        let steps = Variable::full("optimizer.steps", &[slots.len()], 0.0);
        Adaptive { rule, slots, steps }
    }

    fn of_kind(&self, kind: usize) -> Vec<Variable> {
        self.slots.iter().map(|slot| slot.buffers[kind].clone()).collect()
    }
}

impl Optimizer for Adaptive {
    fn parameters(&self) -> Vec<Variable> {
        self.slots.iter().map(|slot| slot.parameter.clone()).collect()
    }
    fn differentiated(&self) -> Vec<Variable> {
        self.parameters()
    }
    fn gradients(&self, losses: &Losses) -> Vec<Tensor> {
        grad(&losses.total, &self.parameters().iter().map(Variable::tensor).collect::<Vec<_>>())
    }
    fn updates(&self, gradients: &[Tensor], rate: &Tensor) -> Vec<(Variable, Tensor)> {
        if gradients.len() != self.slots.len() {
            return wrong_number(&self.parameters(), gradients, rate);
        }
        let _part = scope::part("update");
        let steps = self.steps.tensor() + 1.0;
        let mut updates = Vec::with_capacity(3 * self.slots.len() + 1);
        for (position, (slot, gradient)) in self.slots.iter().zip(gradients).enumerate() {
            let _layer = within(&slot.parameter);
            let t = steps.slice(0, position, 1, 1).reshape(&[]);
            let buffers = slot.buffers.each_ref().map(Variable::tensor);
            let (next, buffers) = self.rule.update(&slot.parameter.tensor(), gradient, buffers, &t, rate);
            updates.push((slot.parameter.clone(), next));
            updates.extend(slot.buffers.iter().cloned().zip(buffers));
        }
        updates.push((self.steps.clone(), steps));
        updates
    }
    fn state(&self) -> Vec<Variable> {
        self.slots.iter().flat_map(|slot| &slot.buffers).chain([&self.steps]).cloned().collect()
    }
    fn lacks(&self, saved: &OptimizerState, positions: std::ops::Range<usize>) -> Option<String> {
        let kinds = self.rule.buffers();
        positions.into_iter().find_map(|p| {
            let mut own = kinds.iter().zip(&self.slots[p].buffers);
            let missing = |(kind, buffer): &(&&str, &Variable)| {
                saved.kind(kind).get(&p).is_none_or(|tensor| tensor.shape != buffer.shape())
            };
            own.find(missing).map(|(_, buffer)| buffer.name().to_owned())
        })
    }
    fn load(&self, saved: &OptimizerState, device: &dyn VariableStore) -> Result<()> {
        let own = self.rule.buffers();
        if let Some(other) = saved.others(&[own[0], own[1], "step"]) {
            return Err(Error::Optimizer(format!("it has a `{other}`, which this optimizer does not keep")));
        }
        let mut values = Vec::new();
        for (kind, name) in own.into_iter().enumerate() {
            values.extend(load_by_position(saved.kind(name), &self.of_kind(kind))?);
        }
        let counts = saved.kind("step");
        let count = |p: usize| counts.get(&p).and_then(|t| t.data.to_f32().first().copied()).unwrap_or(0.0);
        let steps: Vec<f32> = (0..self.slots.len()).map(count).collect();
        finite(self.steps.name(), &steps)?;
        for (variable, values) in &values {
            device.write(variable, values)?;
        }
        Ok(device.write(&self.steps, &steps)?)
    }
    fn save(&self, rate: f64, device: &dyn VariableStore) -> Result<OptimizerState> {
        let mut saved = OptimizerState::default();
        let steps = device.read(&self.steps)?;
        for (position, slot) in self.slots.iter().enumerate() {
            let step = NamedTensor::f32("", &[], vec![steps[position]]);
            saved.kind_mut("step").insert(position, step);
            for (kind, buffer) in self.rule.buffers().into_iter().zip(&slot.buffers) {
                saved.kind_mut(kind).insert(position, named(buffer, device)?.unnamed());
            }
        }
        let settings = self.rule.settings().into_iter().chain([("lr", rate)]);
        saved.param_groups = vec![ParamGroup {
            params: (0..self.slots.len()).collect(),
            options: settings.map(|(name, value)| (name.to_owned(), Scalar::Float(value))).collect(),
        }];
        Ok(saved)
    }
}
