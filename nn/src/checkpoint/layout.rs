//! From a pickled object to a [`Checkpoint`]: where state dict, optimizer and numbers lie.

use std::collections::HashMap;
use std::rc::Rc;

use super::error::{Allowance, Problem, quoted};
use super::pickle::{Node, Pickle, PickledTensor, Value};
use super::state::{Checkpoint, OptimizerState, ParamGroup, Scalar};
use super::tensor::NamedTensor;

/// Where the bytes of storages come from.
pub(super) trait Storages {
    /// All bytes of the storage `key`.
    fn bytes(&mut self, key: &str, allowance: &mut Allowance) -> Result<Rc<[u8]>, Problem>;
}

/// The keys under which the state dict is looked for, in this order.
const STATE_DICT_KEYS: [&str; 2] = ["model", "state_dict"];

/// Reads the checkpoint that the pickle describes, its tensors' elements from `storages`.
pub(super) fn checkpoint(
    pickle: &Pickle,
    storages: &mut dyn Storages,
    allowance: &mut Allowance,
) -> Result<Checkpoint, Problem> {
    Reader { pickle, storages, allowance }.checkpoint()
}

struct Reader<'a> {
    pickle: &'a Pickle,
    storages: &'a mut dyn Storages,
    allowance: &'a mut Allowance,
}

impl<'a> Reader<'a> {
    fn checkpoint(mut self) -> Result<Checkpoint, Problem> {
        let root = &self.pickle.root;
        let entries = self.text_dict(root).ok_or_else(|| {
            Problem::Layout(format!(
                "holds {} where a dict is expected: save model.state_dict(), not the model",
                self.pickle.kind(root)
            ))
        })?;
        let keyed = STATE_DICT_KEYS.iter().find_map(|wanted| entries.iter().find(|(key, _)| key == wanted));

        let mut checkpoint = Checkpoint::default();
        let (state_key, state_dict) = match keyed {
            Some((key, value)) => (*key, self.state_dict_entries(key, value)?),
            None if self.is_state_dict(&entries) => {
                self.read_state_dict(&entries, &mut checkpoint)?;
                return Ok(checkpoint);
            }
            None => return Err(no_state_dict(&entries)),
        };
        self.read_state_dict(&state_dict, &mut checkpoint)?;
        for (key, value) in entries {
            if key != state_key {
                self.read_extra(key, value, &mut checkpoint)?;
            }
        }
        Ok(checkpoint)
    }

    /// The entries of a dict with the last value of each key, in order of first appearance (Python's
    /// order). Keys that are not texts are left out. `None` if the value is not a dict.
    fn text_dict(&self, value: &Value) -> Option<Vec<(&'a str, &'a Value)>> {
        let dict = self.pickle.dict(value)?;
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut entries: Vec<(&str, &Value)> = Vec::new();
        for (key, value) in dict {
            let Value::Text(key) = key else { continue };
            let place = *places.entry(key).or_insert(entries.len());
            match entries.get_mut(place) {
                Some(entry) => entry.1 = value,
                None => entries.push((key, value)),
            }
        }
        Some(entries)
    }

    fn tensor(&self, value: &Value) -> Option<&'a PickledTensor> {
        match self.pickle.node(value) {
            Some(Node::Tensor(tensor)) => Some(tensor),
            _ => None,
        }
    }

    fn is_state_dict(&self, entries: &[(&str, &Value)]) -> bool {
        !entries.is_empty() && entries.iter().all(|(_, value)| self.tensor(value).is_some())
    }

    fn state_dict_entries(&self, key: &str, value: &Value) -> Result<Vec<(&'a str, &'a Value)>, Problem> {
        self.text_dict(value).ok_or_else(|| {
            Problem::Layout(format!(
                "its {key:?} is {} where a state dict is expected",
                self.pickle.kind(value)
            ))
        })
    }

    fn read_state_dict(
        &mut self,
        entries: &[(&str, &Value)],
        checkpoint: &mut Checkpoint,
    ) -> Result<(), Problem> {
        let parallel = !entries.is_empty() && entries.iter().all(|(k, _)| k.starts_with("module."));
        for (key, value) in entries {
            let name = if parallel { &key["module.".len()..] } else { key };
            match self.tensor(value) {
                Some(tensor) => {
                    let tensor = self.materialise(name, tensor)?;
                    checkpoint.tensors.push(tensor);
                }
                None => checkpoint.ignored.push(self.text(name)?),
            }
        }
        Ok(())
    }

    fn read_extra(&mut self, key: &str, value: &Value, checkpoint: &mut Checkpoint) -> Result<(), Problem> {
        if key == "optimizer" && self.pickle.dict(value).is_some() {
            checkpoint.optimizer = self.optimizer(value)?;
            return Ok(());
        }
        let Some(scalar) = self.scalar(key, value)? else {
            checkpoint.ignored.push(self.text(key)?);
            return Ok(());
        };
        match key {
            "epoch" if scalar.as_i64().is_some() => checkpoint.epoch = scalar.as_i64(),
            "accuracy" if scalar.as_f64().is_some() => checkpoint.accuracy = scalar.as_f64(),
            "best_acc" if scalar.as_f64().is_some() => checkpoint.best_acc = scalar.as_f64(),
            _ => {
                let key = self.text(key)?;
                checkpoint.extra.insert(key, scalar);
            }
        }
        Ok(())
    }

    /// SGD's state. `None` if the dict is not an optimizer's.
    fn optimizer(&mut self, value: &Value) -> Result<Option<OptimizerState>, Problem> {
        let Some(entries) = self.text_dict(value) else {
            return Ok(None);
        };
        let find = |wanted: &str| entries.iter().find(|(key, _)| *key == wanted);
        let (Some((_, state)), Some((_, groups))) = (find("state"), find("param_groups")) else {
            return Ok(None);
        };
        let (Some(state), Some(groups)) = (self.pickle.dict(state), self.pickle.sequence(groups)) else {
            return Ok(None);
        };

        let mut optimizer = OptimizerState::default();
        // Old files name parameters by memory address; what counts is the position over all groups.
        let mut positions: HashMap<i128, usize> = HashMap::new();
        for group in groups {
            let group = self.param_group(group, &mut positions)?;
            optimizer.param_groups.push(group);
        }
        for (parameter, state) in state {
            let Value::Int(parameter) = parameter else {
                continue;
            };
            let Some(&position) = positions.get(parameter) else {
                continue;
            };
            let buffer = self
                .text_dict(state)
                .and_then(|state| {
                    let buffer = state.iter().find(|(key, _)| *key == "momentum_buffer");
                    buffer.map(|(_, value)| *value)
                })
                .and_then(|value| self.tensor(value));
            if let Some(buffer) = buffer {
                let mut buffer =
                    self.materialise(&format!("momentum_buffer of parameter {position}"), buffer)?;
                buffer.name.clear();
                optimizer.momentum.insert(position, buffer);
            }
        }
        Ok(Some(optimizer))
    }

    fn param_group(
        &mut self,
        group: &Value,
        positions: &mut HashMap<i128, usize>,
    ) -> Result<ParamGroup, Problem> {
        let bad = |what: &str| Problem::Layout(format!("its optimizer's param_groups: {what}"));
        let entries = self.text_dict(group).ok_or_else(|| bad("a group is not a dict"))?;
        let mut read = ParamGroup::default();
        for (key, value) in entries {
            if key == "params" {
                let params = self.pickle.sequence(value).ok_or_else(|| bad("params is not a list"))?;
                for parameter in params {
                    let Value::Int(parameter) = parameter else {
                        return Err(bad("params holds something that is not a number"));
                    };
                    // A group may be referred to many times over; each copy is paid for.
                    self.allowance.charge(size_of::<usize>() as u64)?;
                    let next = positions.len();
                    read.params.push(*positions.entry(*parameter).or_insert(next));
                }
            } else if let Some(scalar) = self.scalar(key, value)? {
                let key = self.text(key)?;
                read.options.push((key, scalar));
            }
        }
        self.allowance.charge(size_of::<ParamGroup>() as u64)?;
        Ok(read)
    }

    /// A number, text or tensor of one element; `None` if the value is none of these.
    fn scalar(&mut self, key: &str, value: &Value) -> Result<Option<Scalar>, Problem> {
        Ok(match value {
            Value::None => Some(Scalar::None),
            Value::Bool(value) => Some(Scalar::Bool(*value)),
            Value::Int(value) => i64::try_from(*value).ok().map(Scalar::Int),
            Value::Float(value) => Some(Scalar::Float(*value)),
            Value::Text(text) => Some(Scalar::Text(self.text(text)?)),
            Value::Node(_) => match self.tensor(value) {
                Some(tensor) if tensor.view.shape.iter().all(|&dim| dim == 1) => {
                    let tensor = self.materialise(key, tensor)?;
                    tensor.data.to_f64().first().map(|&v| Scalar::Float(v))
                }
                _ => None,
            },
            Value::Bytes(_) | Value::Global(_) => None,
        })
    }

    /// A copy of a text of the file.
    fn text(&mut self, text: &str) -> Result<String, Problem> {
        self.allowance.charge((text.len() + size_of::<(String, Scalar)>()) as u64)?;
        Ok(text.to_owned())
    }

    /// A tensor with its elements, contiguous.
    fn materialise(&mut self, name: &str, tensor: &PickledTensor) -> Result<NamedTensor, Problem> {
        let problem = |what: String| Problem::Tensor { name: quoted(name), what };
        let PickledTensor { storage, view } = tensor;
        let size = view.dtype.size();
        let bytes = self.storages.bytes(&storage.key, self.allowance)?;
        if storage.numel.checked_mul(size) != Some(bytes.len()) {
            return Err(problem(format!(
                "its storage {} has {} bytes where {} {} elements are declared",
                quoted(&storage.key),
                bytes.len(),
                storage.numel,
                view.dtype
            )));
        }
        let bytes = match storage.part {
            None => &bytes[..],
            Some((offset, numel)) => offset
                .checked_add(numel)
                .filter(|&end| end <= storage.numel)
                .map(|end| &bytes[offset * size..end * size])
                .ok_or_else(|| problem("its part reaches outside the storage".into()))?,
        };
        let count = view.checked_len(bytes.len() / size).map_err(problem)?;
        let described = name.len() + (view.shape.len() + 16) * size_of::<usize>();
        self.allowance.charge(described as u64)?;
        self.allowance.charge((count as u64).saturating_mul(size as u64))?;
        Ok(NamedTensor { name: name.to_owned(), shape: view.shape.clone(), data: view.gather(bytes, count) })
    }
}

fn no_state_dict(entries: &[(&str, &Value)]) -> Problem {
    const SHOWN: usize = 10;
    let mut keys: Vec<String> = entries.iter().take(SHOWN).map(|(key, _)| quoted(key)).collect();
    if entries.len() > SHOWN {
        keys.push(format!("and {} more", entries.len() - SHOWN));
    }
    let keys = if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
    Problem::Layout(format!(
        "no state dict found: expected a key \"model\" or \"state_dict\", or only tensors; its keys: {keys}"
    ))
}
