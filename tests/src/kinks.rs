//! Kinks: inputs of ReLUs so near to a bend that rounding to `f32` decides their side. There the derivative from
//! either side is right, and a network's gradients jump from one to the other. So the `f64` evaluator takes the
//! side that a device took, and both are compared beyond the kinks.

use std::collections::HashMap;

use autograd::tensor::{BinaryOp, Op, UnaryOp};
use autograd::{Tensor, nodes};
use serde_json::Value;

use crate::compare::{norm, relative};
use crate::runner::{Outputs, Reference};
use crate::{Inputs, Program, Runner};

/// What PyTorch's own `f32` is off by, from which tests have their tolerances: the worst of its ways to compute,
/// beyond the kinks. See `fixtures/models/make_rounding.py`.
#[derive(Clone, Debug)]
pub struct Rounding {
    /// The worst input of a ReLU, relative to its norm.
    pub relu: f64,
    /// The logits.
    pub logits: f64,
    /// Inputs of ReLUs that lay on the other side.
    pub turned: usize,
    /// Gradients of parameters, by name; those that are not listed are better than any tolerance.
    gradients: HashMap<String, f64>,
    /// Of a parameter that is not listed.
    worst: f64,
}

impl Rounding {
    /// From the numbers of a fixture.
    pub fn new(numbers: &Value) -> Rounding {
        let number = |value: &Value| value.as_f64().unwrap();
        let gradients = numbers["gradients"].as_object().into_iter().flatten();
        Rounding {
            relu: number(&numbers["relu"]),
            logits: number(&numbers["logits"]),
            turned: numbers["turned"].as_u64().unwrap() as usize,
            gradients: gradients.map(|(name, value)| (name.clone(), number(value))).collect(),
            worst: 0.0,
        }
    }

    /// Of the training pass of `models/NAME.safetensors`.
    pub fn of(name: &str) -> Rounding {
        Rounding::new(&crate::fixture::json("models/rounding.json")[name])
    }

    /// For logits. Where PyTorch was lucky, a plain tolerance.
    pub fn logits_tolerance(&self) -> f64 {
        1e-5f64.max(4.0 * self.logits)
    }
    /// For a parameter's gradient.
    pub fn gradient_tolerance(&self, parameter: &str) -> f64 {
        2e-5f64.max(4.0 * self.gradients.get(parameter).unwrap_or(&self.worst))
    }
    /// The same for a network like it, whose parameters have other names (the worst of these is for all) and which has
    /// `more` times as many inputs of ReLUs.
    pub fn for_one_alike(mut self, more: usize) -> Rounding {
        self.turned = self.turned.max(1) * more;
        self.worst = self.gradients.values().fold(0.0, |a, b| f64::max(a, *b));
        self
    }
    fn relu_tolerance(&self) -> f64 {
        // Winograd's algorithm is less accurate than what PyTorch computes with.
        1e-5f64.max(2.0 * self.relu)
    }
    fn most_turned(&self) -> usize {
        4 + 4 * self.turned
    }
}

/// The `f64` evaluator on its way beside a device, from the same state on, on the device's side of every kink.
pub struct Follower<'a> {
    program: &'a Program,
    exact: Reference,
    bends: Vec<Bend>,
    rounding: Rounding,
    /// What was turned, in words.
    pub turned: Vec<String>,
}

/// What enters a function that bends.
struct Bend {
    input: Tensor,
    name: String,
    /// Where a ReLU bends; nowhere if it is a maximum over windows.
    at: Vec<f64>,
}

impl<'a> Follower<'a> {
    /// `exact` and the device have the same state.
    pub fn new(program: &'a Program, exact: Reference, rounding: Rounding) -> Follower<'a> {
        Follower { program, exact, bends: bends(program), rounding, turned: Vec::new() }
    }

    /// The program's outputs for `call`; its updates are kept for the next. The device must not have run it yet.
    ///
    /// # Panics
    /// If the device is further off than rounding, or took another side where it does not matter.
    pub fn step(&mut self, device: &mut dyn Runner, call: &Inputs) -> Outputs {
        let inputs = self.bends.iter().fold(Program::new(), |p, bend| p.output(&bend.name, &bend.input));
        let found = device.run(&inputs, std::slice::from_ref(call)).remove(0);
        let bends: HashMap<u64, &Bend> = self.bends.iter().map(|bend| (bend.input.id(), bend)).collect();
        let (most, limit) = (self.rounding.most_turned(), self.rounding.relu_tolerance());
        let mut turned = Vec::new();
        let outputs = self.exact.step(self.program, call, |node, values| {
            let Some(bend) = bends.get(&node.id()) else { return };
            let found = &found[&bend.name];
            let error = relative(found, values, 0.0);
            assert!(error < limit, "{}: {}: {error:.2e} over {limit:.1e}", device.name(), bend.name);
            if bend.at.is_empty() {
                // Which element of a window is the largest is the device's choice.
                values.copy_from_slice(found);
            }
            let size = norm(values) / (values.len() as f64).sqrt();
            for (position, (value, &found)) in values.iter_mut().zip(found).enumerate() {
                if bend.at.iter().any(|&at| (*value > at) != (found > at)) {
                    let what = format!("{} [{position}] is {found:.3e} for {value:.3e}", bend.name);
                    assert!((found - *value).abs() < 16.0 * limit * size, "{}: {what}", device.name());
                    turned.push(what);
                    *value = found;
                }
            }
        });
        assert!(turned.len() <= most, "{}: {}", device.name(), turned.join("; "));
        self.turned.extend(turned);
        outputs
    }

    /// The state after the last step.
    pub fn exact(&self) -> &Reference {
        &self.exact
    }
}

/// Everything that bends in a program, numbered in the order of writing.
fn bends(program: &Program) -> Vec<Bend> {
    let outputs = program.outputs.iter().map(|output| &output.1);
    let nodes = nodes(outputs.chain(program.updates.iter().map(|update| &update.1)));
    // ReLU6 is the smaller of a ReLU and 6.
    let least = |node: &&Tensor| matches!(node.op(), Op::Binary(BinaryOp::Min));
    let limited: Vec<u64> = nodes.iter().filter(least).map(|node| node.inputs()[0].id()).collect();
    let mut found: Vec<Bend> = Vec::new();
    for node in &nodes {
        let at = match node.op() {
            Op::Unary(UnaryOp::Relu) if limited.contains(&node.id()) => vec![0.0, 6.0],
            Op::Unary(UnaryOp::Relu) => vec![0.0],
            Op::MaxPoolGather(_) => vec![],
            _ => continue,
        };
        let input = &node.inputs()[0];
        if found.iter().all(|bend| bend.input.id() != input.id()) {
            let kind = if at.is_empty() { "pool" } else { "ReLU" };
            let scope = node.scope();
            let place = [scope.part, scope.layer.as_deref().unwrap_or_default()].join(" ");
            let name = format!("input of {kind} {} after {}", found.len(), place.trim());
            found.push(Bend { input: input.clone(), name, at });
        }
    }
    found
}

/// What of the gradients is over the tolerance of its parameter; one that is small is measured by the whole.
pub fn misses(
    names: &[String],
    actual: &Outputs,
    expected: &Outputs,
    tolerance: impl Fn(&str) -> f64,
) -> Vec<String> {
    let whole = names.iter().map(|name| norm(&expected[name]).powi(2)).sum::<f64>().sqrt();
    let mut missed = Vec::new();
    for name in names {
        let (error, most) = (relative(&actual[name], &expected[name], 1e-4 * whole), tolerance(name));
        if error > most {
            missed.push(format!("{name}: {error:.2e} over {most:.1e}"));
        }
    }
    missed
}
