//! A step as its author writes it: named results, and new values for variables.

use std::collections::{HashMap, HashSet};

use autograd::error::{Error, Result};
use autograd::tensor::{DType, Op, Tensor, Variable};

use crate::ir::{ConvGeometry, ConvKind};

/// What one call computes: outputs to read and variables to overwrite. All expressions see the
/// variables' values from before the call.
#[derive(Clone, Default)]
pub struct Step {
    /// Values that are asked for, by name.
    pub outputs: Vec<(String, Tensor)>,
    /// Variables and what each is overwritten with.
    pub updates: Vec<(Variable, Tensor)>,
}

/// How a schedule is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Off: one kernel a primitive, nothing fused, merged or moved. For tests and teaching.
    pub fuse: bool,
    /// Most distinct buffers one kernel may touch (a GPU's storage bindings); at least
    /// [`Options::LEAST_BUFFERS`].
    pub max_buffers: usize,
    /// Which convolutions fold their results over pixels as they make them.
    pub channel_folds: ChannelFolds,
    /// Most distinct buffers that several maps in one launch may touch together.
    pub group_buffers: usize,
}

/// For which convolutions there may be an [`Epilogue::fold`](crate::Epilogue::fold).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelFolds {
    /// For none.
    None,
    /// For those that are one dense product: of a single group, with whole fours of channels, and no gradient of a
    /// stride.
    Dense,
    /// For every forward pass and input gradient.
    All,
}

impl ChannelFolds {
    /// Whether such a convolution may have one.
    pub fn allow(self, kind: ConvKind, geometry: &ConvGeometry) -> bool {
        let conv = &geometry.conv;
        let (is_whole, channels) = match kind {
            ConvKind::Forward => (true, geometry.out_channels),
            ConvKind::InputGrad => (conv.stride == [1, 1], geometry.in_channels),
            ConvKind::WeightGrad => return false,
        };
        match self {
            ChannelFolds::None => false,
            ChannelFolds::Dense => conv.groups == 1 && is_whole && channels.is_multiple_of(4),
            ChannelFolds::All => true,
        }
    }
}

impl Options {
    /// What a select touches: three operands and its result.
    pub const LEAST_BUFFERS: usize = 4;
}

impl Default for Options {
    fn default() -> Self {
        Options { fuse: true, max_buffers: 8, group_buffers: 8, channel_folds: ChannelFolds::All }
    }
}

impl Step {
    /// A step that computes nothing yet.
    pub fn new() -> Step {
        Step::default()
    }

    /// Asks for the value of an expression under a name.
    pub fn output(mut self, name: impl Into<String>, tensor: &Tensor) -> Step {
        self.outputs.push((name.into(), tensor.clone()));
        self
    }

    /// Overwrites a variable with the value of an expression of the same shape.
    pub fn update(mut self, variable: &Variable, value: &Tensor) -> Step {
        self.updates.push((variable.clone(), value.clone()));
        self
    }

    /// Several updates.
    pub fn updates(mut self, updates: impl IntoIterator<Item = (Variable, Tensor)>) -> Step {
        self.updates.extend(updates);
        self
    }

    /// Whether it can be scheduled.
    pub(crate) fn check(&self) -> Result<()> {
        let mut names = HashSet::new();
        for (name, tensor) in &self.outputs {
            tensor.check()?;
            if !names.insert(name) {
                return Err(Error::Step(format!("two outputs are named `{name}`")));
            }
        }
        let mut updated = HashSet::new();
        for (variable, value) in &self.updates {
            value.check()?;
            if !updated.insert(variable.id()) {
                return Err(Error::Step(format!("`{}` is updated twice; keep one update", variable.name())));
            }
            if value.shape() != variable.shape() || value.dtype() != DType::F32 {
                return Err(Error::Step(format!(
                    "the update of {variable:?} has shape {:?} ({:?}), written at {}",
                    value.shape(),
                    value.dtype(),
                    value.location()
                )));
            }
        }
        self.check_inputs()
    }

    /// All nodes of the step, operands before users.
    pub(crate) fn nodes(&self) -> Vec<Tensor> {
        autograd::nodes(
            self.outputs.iter().map(|output| &output.1).chain(self.updates.iter().map(|update| &update.1)),
        )
    }

    /// One name must mean one input: the same shape and type wherever it is used.
    fn check_inputs(&self) -> Result<()> {
        let mut inputs: HashMap<String, Tensor> = HashMap::new();
        for node in self.nodes() {
            if let Op::Input(name) = node.op() {
                let first = inputs.entry(name.clone()).or_insert_with(|| node.clone());
                if first.shape() != node.shape() || first.dtype() != node.dtype() {
                    return Err(Error::Input {
                        name: name.clone(),
                        message: format!(
                            "used with shape {:?} ({:?}) at {} and with shape {:?} ({:?}) at {}",
                            first.shape(),
                            first.dtype(),
                            first.location(),
                            node.shape(),
                            node.dtype(),
                            node.location()
                        ),
                    });
                }
            }
        }
        Ok(())
    }
}
