//! Makes layers and keeps their parameters and buffers in state-dict order.

use autograd::Variable;

use super::batch_norm::{BatchNorm, ConvNorm};
use super::convolution::{ConvSpec, Convolution};
use super::linear::Linear;
use crate::initialization::Initializer;

/// What an entry of a state dict is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Learned: the optimizer's.
    Parameter,
    /// A running mean.
    Mean,
    /// A running variance: never negative.
    Variance,
    /// `num_batches_tracked`: a whole number, int64 in files.
    Counter,
}

/// One entry of a state dict; its name is the variable's.
#[derive(Clone, Debug)]
pub struct StateEntry {
    pub variable: Variable,
    pub kind: Kind,
}

struct Shared {
    initializer: Initializer,
    state: Vec<StateEntry>,
}

/// Where the layers of a network are made, in the order in which PyTorch registers them. A builder
/// stands at a path such as `layer1.0`, which the names of its layers continue.
pub struct Builder<'a> {
    shared: &'a mut Shared,
    path: String,
}

impl Builder<'_> {
    /// Runs `make` with a builder at the root, and returns what it made with its state dict.
    pub fn build<T>(initializer: Initializer, make: impl FnOnce(&mut Builder) -> T) -> (T, Vec<StateEntry>) {
        let mut shared = Shared { initializer, state: Vec::new() };
        let made = make(&mut Builder { shared: &mut shared, path: String::new() });
        (made, shared.state)
    }

    /// A builder at the submodule `name`.
    pub fn at(&mut self, name: impl AsRef<str>) -> Builder<'_> {
        let path = self.name(name.as_ref());
        Builder { shared: self.shared, path }
    }

    /// A convolution: `NAME.weight` and, if it has one, `NAME.bias`.
    pub fn convolution(&mut self, name: &str, spec: ConvSpec) -> Convolution {
        let shape = spec.weight_shape();
        let mut at = self.at(name);
        let weight = at.shared.initializer.convolution(&shape);
        let weight = at.add("weight", &shape, weight, Kind::Parameter);
        let bias = spec.bias.then(|| {
            let values = at.shared.initializer.convolution_bias(&shape);
            at.add("bias", &shape[..1], values, Kind::Parameter)
        });
        Convolution { weight, bias, conv: spec.conv() }
    }

    /// Batch norm: `NAME.weight`, `bias`, `running_mean`, `running_var`, `num_batches_tracked`.
    pub fn batch_norm(&mut self, name: &str, channels: usize) -> BatchNorm {
        let mut at = self.at(name);
        let mut add = |name, value, kind| at.add(name, &[channels], vec![value; channels], kind);
        let weight = add("weight", 1.0, Kind::Parameter);
        let bias = add("bias", 0.0, Kind::Parameter);
        let running_mean = add("running_mean", 0.0, Kind::Mean);
        let running_var = add("running_var", 1.0, Kind::Variance);
        let batches = at.add("num_batches_tracked", &[], vec![0.0], Kind::Counter);
        BatchNorm { weight, bias, running_mean, running_var, batches }
    }

    /// A convolution and the batch norm of its output.
    pub fn conv_norm(&mut self, conv: &str, norm: &str, spec: ConvSpec) -> ConvNorm {
        ConvNorm { conv: self.convolution(conv, spec), norm: self.batch_norm(norm, spec.outputs) }
    }

    /// A linear layer: `NAME.weight` `[outputs, inputs]` and `NAME.bias`.
    pub fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Linear {
        let shape = [outputs, inputs];
        let mut at = self.at(name);
        let weight = at.shared.initializer.linear(&shape);
        let bias = at.shared.initializer.linear_bias(&shape);
        Linear {
            weight: at.add("weight", &shape, weight, Kind::Parameter),
            bias: at.add("bias", &shape[..1], bias, Kind::Parameter),
        }
    }

    fn add(&mut self, name: &str, shape: &[usize], values: Vec<f32>, kind: Kind) -> Variable {
        let variable = Variable::new(self.name(name), shape, values)
            .expect("a layer makes as many values as its shape has elements");
        self.shared.state.push(StateEntry { variable: variable.clone(), kind });
        variable
    }

    fn name(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }
}
