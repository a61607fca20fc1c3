//! What a checkpoint holds, whatever its file format.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::tensor::NamedTensor;

/// A model's state dict with what a trainer saves beside it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    /// Parameters and buffers in file order. On reading, a `module.` that every name begins with
    /// (PyTorch's DataParallel) has been removed.
    pub tensors: Vec<NamedTensor>,
    /// The last epoch that was trained, counted from 1.
    pub epoch: Option<i64>,
    /// `accuracy` of the file: top-1 on the test set when it was written.
    pub accuracy: Option<f64>,
    /// `best_acc` of the file: the best top-1 so far.
    pub best_acc: Option<f64>,
    /// The optimizer's state.
    pub optimizer: Option<OptimizerState>,
    /// Other numbers and texts at the top level, by key.
    pub extra: BTreeMap<String, Scalar>,
    /// Keys that the file has and that were not read, being neither tensors, scalars nor optimizer state.
    pub ignored: Vec<String>,
}

impl Checkpoint {
    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&NamedTensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// Moves out the tensors of the submodule `prefix`, with the prefix and its dot removed: from the
    /// trainer's `latest`, whose names begin with `student.` and `teacher.`, one of the two networks.
    /// Empty if no name begins with it.
    pub fn take_submodule(&mut self, prefix: &str) -> Vec<NamedTensor> {
        let mut taken = Vec::new();
        let mut kept = Vec::new();
        for mut tensor in std::mem::take(&mut self.tensors) {
            let inner =
                tensor.name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')).map(str::to_owned);
            match inner {
                Some(name) => {
                    tensor.name = name;
                    taken.push(tensor);
                }
                None => kept.push(tensor),
            }
        }
        self.tensors = kept;
        taken
    }
}

/// State of an SGD optimizer, by position of the parameter.
///
/// A position is counted over the parameters of all groups, in order. That is what current PyTorch
/// writes; older files, which hold memory addresses instead, are renumbered on reading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OptimizerState {
    /// Momentum buffer of each parameter that has one; its `name` is empty.
    pub momentum: BTreeMap<usize, NamedTensor>,
    /// The groups with their settings.
    pub param_groups: Vec<ParamGroup>,
}

/// Parameters that share settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ParamGroup {
    /// Positions of the group's parameters.
    pub params: Vec<usize>,
    /// The settings by PyTorch's names (`lr`, `momentum`, `weight_decay`, ...), in file order.
    pub options: Vec<(String, Scalar)>,
}

impl ParamGroup {
    /// The setting of this name, if it is there and a number.
    pub fn number(&self, option: &str) -> Option<f64> {
        self.options.iter().find(|(name, _)| name == option).and_then(|(_, value)| value.as_f64())
    }
}

/// A single value of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scalar {
    /// Python's `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number, also a numpy scalar or a tensor of one element.
    Float(f64),
    /// A text.
    Text(String),
}

impl Scalar {
    /// The value as a number; truth values and texts are not numbers.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Scalar::Int(value) => Some(*value as f64),
            Scalar::Float(value) => Some(*value),
            Scalar::None | Scalar::Bool(_) | Scalar::Text(_) => None,
        }
    }

    /// The value as an integer; also a floating-point number that is one.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Scalar::Int(value) => Some(*value),
            Scalar::Float(value) if value.fract() == 0.0 && value.abs() < 2f64.powi(53) => {
                Some(*value as i64)
            }
            _ => None,
        }
    }
}
