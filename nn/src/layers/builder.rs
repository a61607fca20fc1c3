//! Makes layers and keeps their parameters and buffers in state-dict order.

use autograd::{Tensor, Variable};

use super::attention::{MultiHeadAttention, SqueezeExcitation};
use super::batch_norm::{BatchNorm, ConvNorm};
use super::convolution::{ConvSpec, Convolution, TransposedConvolution};
use super::embedding::Embedding;
use super::linear::Linear;
use super::norm::{GroupNorm, LayerNorm};
use crate::initialization::{Initialization, Initializer};

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
    /// Neither learned nor one of these: what else a layer or a method remembers from step to step.
    Memory,
}

/// One entry of a state dict; its name is the variable's.
#[derive(Clone, Debug)]
pub struct StateEntry {
    /// Where the values are, with its name and shape.
    pub variable: Variable,
    /// What the values are, which decides who changes them and how they are saved.
    pub kind: Kind,
}

/// What the builders of one network share.
pub(super) struct Shared {
    pub(super) initializer: Initializer,
    pub(super) state: Vec<StateEntry>,
}

impl Shared {
    /// A builder at the root.
    pub(super) fn root(&mut self) -> Builder<'_> {
        Builder { shared: self, path: String::new() }
    }
}

/// Where the layers of a network are made, in the order in which PyTorch registers them. A builder
/// stands at a path such as `layer1.0`, which the names of its layers continue. Where there is a layer
/// of that name already, it is given (see [`super::Modules`]).
pub struct Builder<'a> {
    shared: &'a mut Shared,
    path: String,
}

impl Builder<'_> {
    /// Runs `make` with a builder at the root, and returns what it made with its state dict.
    pub fn build<T>(initializer: Initializer, make: impl FnOnce(&mut Builder) -> T) -> (T, Vec<StateEntry>) {
        let mut shared = Shared { initializer, state: Vec::new() };
        let made = make(&mut shared.root());
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
        let weight = at.parameter("weight", &shape, |draw| draw.convolution(&shape));
        let bias = spec.bias.then(|| at.parameter("bias", &shape[..1], |draw| draw.convolution_bias(&shape)));
        Convolution { weight, bias, conv: spec.conv() }
    }

    /// A transposed convolution: `NAME.weight` `[inputs, outputs/groups, k, k]`, of which PyTorch takes the
    /// second dim for the fan-in, and, if it has one, `NAME.bias`.
    pub fn transposed_convolution(&mut self, name: &str, spec: ConvSpec) -> TransposedConvolution {
        let ConvSpec { inputs, outputs, kernel, groups, .. } = spec;
        let shape = [inputs, outputs / groups, kernel, kernel];
        let drawn_as = [outputs, outputs / groups, kernel, kernel];
        let mut at = self.at(name);
        let weight = at.parameter("weight", &shape, |draw| draw.convolution(&shape));
        let bias =
            spec.bias.then(|| at.parameter("bias", &[outputs], |draw| draw.convolution_bias(&drawn_as)));
        TransposedConvolution { weight, bias, conv: spec.conv(), extra: 0 }
    }

    /// Batch norm: `NAME.weight`, `bias`, `running_mean`, `running_var`, `num_batches_tracked`.
    pub fn batch_norm(&mut self, name: &str, channels: usize) -> BatchNorm {
        let mut at = self.at(name);
        let mut add = |name, value, kind| at.add(name, &[channels], kind, |_| vec![value; channels]);
        let weight = add("weight", 1.0, Kind::Parameter);
        let bias = add("bias", 0.0, Kind::Parameter);
        let running_mean = add("running_mean", 0.0, Kind::Mean);
        let running_var = add("running_var", 1.0, Kind::Variance);
        let batches = at.add("num_batches_tracked", &[], Kind::Counter, |_| vec![0.0]);
        BatchNorm { weight, bias, running_mean, running_var, batches }
    }

    /// Layer normalisation: `NAME.weight` and `NAME.bias` `[channels]`.
    pub fn layer_norm(&mut self, name: &str, channels: usize) -> LayerNorm {
        let (weight, bias) = self.scale_and_shift(name, channels);
        LayerNorm::new(weight, bias)
    }

    /// Group normalisation, channels in `groups` groups: `NAME.weight` and `NAME.bias` `[channels]`.
    pub fn group_norm(&mut self, name: &str, groups: usize, channels: usize) -> GroupNorm {
        let (weight, bias) = self.scale_and_shift(name, channels);
        GroupNorm { weight, bias, groups }
    }

    fn scale_and_shift(&mut self, name: &str, channels: usize) -> (Variable, Variable) {
        let mut at = self.at(name);
        let mut add = |name, value| at.parameter(name, &[channels], |_| vec![value; channels]);
        (add("weight", 1.0), add("bias", 0.0))
    }

    /// A vector of so many channels for each of `0..numbers`: `NAME.weight` `[numbers, channels]`.
    pub fn embedding(&mut self, name: &str, numbers: usize, channels: usize) -> Embedding {
        let weight = self
            .at(name)
            .parameter("weight", &[numbers, channels], |draw| draw.normal(numbers * channels, 1.0));
        Embedding { weight }
    }

    /// Multi-head attention, which so many heads share the channels of: `NAME.in_proj_weight` and
    /// `NAME.in_proj_bias`, `NAME.out_proj`. Initial values are PyTorch's: Glorot's uniform ones, zeros, and
    /// those of a linear layer.
    pub fn attention(&mut self, name: &str, channels: usize, heads: usize) -> MultiHeadAttention {
        let (all, bound) = (3 * channels, (6.0 / (4 * channels) as f64).sqrt());
        let mut at = self.at(name);
        let weight =
            at.parameter("in_proj_weight", &[all, channels], |draw| draw.uniform(all * channels, bound));
        let bias = at.parameter("in_proj_bias", &[all], |_| vec![0.0; all]);
        let mut out = at.at("out_proj");
        let shape = [channels, channels];
        let output = Linear {
            weight: out.parameter("weight", &shape, |draw| draw.linear(&shape)),
            bias: out.parameter("bias", &shape[..1], |_| vec![0.0; channels]),
        };
        MultiHeadAttention { weight, bias, output, heads }
    }

    /// Squeeze and excitation by way of so many channels: the convolutions `NAME.fc1` and `NAME.fc2`.
    pub fn squeeze_excitation(&mut self, name: &str, channels: usize, squeezed: usize) -> SqueezeExcitation {
        let mut at = self.at(name);
        SqueezeExcitation {
            squeeze: at.convolution("fc1", ConvSpec::new(channels, squeezed, 1).with_bias()),
            excite: at.convolution("fc2", ConvSpec::new(squeezed, channels, 1).with_bias()),
            activation: Tensor::relu,
            gate: Tensor::sigmoid,
        }
    }

    /// A convolution and the batch norm of its output.
    pub fn conv_norm(&mut self, conv: &str, norm: &str, spec: ConvSpec) -> ConvNorm {
        ConvNorm { conv: self.convolution(conv, spec), norm: self.batch_norm(norm, spec.outputs) }
    }

    /// A linear layer: `NAME.weight` `[outputs, inputs]` and `NAME.bias`.
    pub fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Linear {
        let shape = [outputs, inputs];
        let mut at = self.at(name);
        Linear {
            weight: at.parameter("weight", &shape, |draw| draw.linear(&shape)),
            bias: at.parameter("bias", &shape[..1], |draw| draw.linear_bias(&shape)),
        }
    }

    /// State that is not learned, with initial values as they are drawn.
    pub fn memory(
        &mut self,
        name: &str,
        shape: &[usize],
        values: impl FnOnce(&mut Initializer) -> Vec<f32>,
    ) -> Variable {
        self.add(name, shape, Kind::Memory, values)
    }

    /// The same builder, drawing initial values by other rules from here on.
    pub fn drawn(self, rules: Initialization) -> Self {
        self.shared.initializer.follow(rules);
        self
    }

    /// A parameter, which an optimizer trains: `values` draws its initial values, row-major.
    ///
    /// # Panics
    /// If these are not as many as the shape has elements.
    pub fn parameter(
        &mut self,
        name: &str,
        shape: &[usize],
        values: impl FnOnce(&mut Initializer) -> Vec<f32>,
    ) -> Variable {
        self.add(name, shape, Kind::Parameter, values)
    }

    /// An entry of the state dict of any kind: what a layer's parameters and running statistics are made with.
    ///
    /// # Panics
    /// As [`Builder::parameter`].
    pub fn add(
        &mut self,
        name: &str,
        shape: &[usize],
        kind: Kind,
        values: impl FnOnce(&mut Initializer) -> Vec<f32>,
    ) -> Variable {
        let name = self.name(name);
        let known = |entry: &&StateEntry| entry.variable.name() == name && entry.variable.shape() == shape;
        if let Some(entry) = self.shared.state.iter().find(known) {
            return entry.variable.clone();
        }
        let variable = Variable::new(name, shape, values(&mut self.shared.initializer))
            .expect("a layer makes as many values as its shape has elements");
        self.shared.state.push(StateEntry { variable: variable.clone(), kind });
        variable
    }

    fn name(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }
}
