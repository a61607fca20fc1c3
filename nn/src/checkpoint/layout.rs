//! From a pickled object to a [`Checkpoint`]: where state dict, optimizer and numbers lie.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::error::{Allowance, Problem, quoted};
use super::state::{Checkpoint, NetworkInfo, OptimizerState, ParamGroup, Scalar};
use super::tensor::NamedTensor;
use super::torch::{self, PickledTensor};
use crate::pickle::{Pickle, Value};

/// Where the bytes of storages come from.
pub(super) trait Storages {
    /// All bytes of the storage `key`.
    fn bytes(&mut self, key: &str, allowance: &mut Allowance) -> Result<Rc<[u8]>, Problem>;
}

/// Where the state dict is, in most files.
const USUAL: [&str; 2] = ["model", "state_dict"];

/// Reads the checkpoint that the pickle describes, its tensors' elements from `storages`. The state dict
/// is what is under the key `part`, if anything; `part` is then taken.
pub(super) fn checkpoint(
    pickle: &Pickle<'_>,
    part: &mut Option<&str>,
    storages: &mut dyn Storages,
    allowance: &mut Allowance,
) -> Result<Checkpoint, Problem> {
    Reader { pickle, storages, allowance, checkpoint: Checkpoint::default() }.read(part)
}

struct Reader<'a, 'p> {
    pickle: &'a Pickle<'p>,
    storages: &'a mut dyn Storages,
    allowance: &'a mut Allowance,
    checkpoint: Checkpoint,
}

/// A dict with texts as keys.
type Entries<'p> = Vec<(&'p str, Value<'p>)>;

impl<'p> Reader<'_, 'p> {
    fn read(mut self, part: &mut Option<&str>) -> Result<Checkpoint, Problem> {
        let root = self.pickle.root;
        let Some((entries, unnamed)) = self.dict(&root)? else {
            return Err(Problem::Layout(format!(
                "holds {} where a dict is expected: save model.state_dict(), not the model",
                self.kind(&root)
            )));
        };
        self.checkpoint.left_out.extend(unnamed);
        let Some(key) = self.state_dict_key(&entries, part)? else {
            for (name, value) in entries {
                match torch::is_tensor(self.pickle, &value) {
                    true => self.read_tensor(name, &value)?,
                    false => self.read_beside(name, &value)?,
                }
            }
            return Ok(self.checkpoint);
        };
        for (found, value) in entries {
            if found == key {
                self.read_state_dict(key, &value)?;
            } else {
                self.read_beside(found, &value)?;
            }
        }
        if !USUAL.contains(&key) {
            self.checkpoint.notes.push(format!("its state dict is its {}", quoted(key)));
        }
        Ok(self.checkpoint)
    }

    /// The key of the state dict; `None` if the whole is one.
    fn state_dict_key(
        &mut self,
        entries: &Entries<'p>,
        part: &mut Option<&str>,
    ) -> Result<Option<&'p str>, Problem> {
        let mut candidates = Vec::new();
        for (key, value) in entries {
            if self.dict(value)?.is_some_and(|(inner, _)| self.has_tensors(&inner)) {
                candidates.push(*key);
            }
        }
        if let Some(&key) = candidates.iter().find(|key| Some(**key) == *part) {
            *part = None;
            return Ok(Some(key));
        }
        let usual: Vec<&str> = candidates.iter().copied().filter(|key| USUAL.contains(key)).collect();
        // A tensor beside the state dict (an accuracy, a random state) has a plain name, not a path.
        let flat =
            entries.iter().any(|(key, value)| key.contains('.') && torch::is_tensor(self.pickle, value));
        match (usual.as_slice(), candidates.as_slice()) {
            ([key], _) => Ok(Some(key)),
            ([], [key]) if !flat => Ok(Some(key)),
            ([], []) if self.has_tensors(entries) => Ok(None),
            ([], []) => Err(self.no_tensors(entries)?),
            (_, several) => {
                let top = if flat { "its top level, " } else { "" };
                Err(Problem::Layout(format!(
                    "has several dicts of tensors: {top}{}; take one with `sld convert --part {} IN OUT`",
                    listed(several.iter().map(|key| quoted(key))),
                    several[0].escape_debug()
                )))
            }
        }
    }

    fn has_tensors(&self, entries: &Entries<'p>) -> bool {
        entries.iter().any(|(_, value)| torch::is_tensor(self.pickle, value))
    }

    /// What there is instead of tensors.
    fn no_tensors(&mut self, entries: &Entries<'p>) -> Result<Problem, Problem> {
        let usual = entries.iter().find(|(key, _)| USUAL.contains(key));
        let (place, inside) = match usual {
            Some((key, value)) => (format!(" under {key:?}"), self.dict(value)?),
            None => (String::new(), Some((entries.clone(), self.checkpoint.left_out.clone()))),
        };
        let found = match (inside, usual) {
            (Some((entries, unnamed)), _) if !entries.is_empty() || !unnamed.is_empty() => {
                let named =
                    entries.iter().map(|(key, value)| format!("{} ({})", quoted(key), self.kind(value)));
                format!("there are {}", listed(named.chain(unnamed)))
            }
            (None, Some((_, value))) => format!("it is {}", self.kind(value)),
            _ => "it is empty".into(),
        };
        Ok(Problem::Layout(format!("no state dict: no tensor with a name was found{place}; {found}")))
    }

    /// What a value is, for messages.
    fn kind(&self, value: &Value<'p>) -> String {
        match torch::is_tensor(self.pickle, value) {
            true => "a tensor".into(),
            false => self.pickle.kind(value).into_owned(),
        }
    }

    /// The entries of a dict that have texts as keys, and the others in words. `None` if the value is not
    /// a dict.
    fn dict(&mut self, value: &Value<'p>) -> Result<Option<(Entries<'p>, Vec<String>)>, Problem> {
        let Some(entries) = self.pickle.dict(value) else { return Ok(None) };
        // A dict may be referred to many times over; each walk through it is paid for.
        self.allowance.charge((entries.len() * size_of::<(&str, Value<'p>)>()) as u64)?;
        let mut keys: HashSet<&str> = HashSet::new();
        let (mut named, mut others) = (Vec::new(), Vec::new());
        for (key, value) in entries.iter() {
            match self.pickle.text(key) {
                Some(key) if keys.insert(key) => named.push((key, *value)),
                Some(key) => {
                    return Err(Problem::Layout(format!("a dict has the key {} twice", quoted(key))));
                }
                None => {
                    let key = self.pickle.int(key).map_or_else(|| self.kind(key), |key| key.to_string());
                    self.allowance.charge(64)?;
                    others.push(format!("{key} ({})", self.kind(value)));
                }
            }
        }
        Ok(Some((named, others)))
    }

    fn read_state_dict(&mut self, key: &str, value: &Value<'p>) -> Result<(), Problem> {
        let (entries, unnamed) = self.dict(value)?.unwrap_or_default();
        self.checkpoint
            .left_out
            .extend(unnamed.iter().map(|entry| format!("{}.{entry}", key.escape_debug())));
        for (name, value) in entries {
            match torch::is_tensor(self.pickle, &value) {
                true => self.read_tensor(name, &value)?,
                false => self.leave_out(&[key, name], &value)?,
            }
        }
        Ok(())
    }

    fn read_tensor(&mut self, name: &str, value: &Value<'p>) -> Result<(), Problem> {
        let tensor = self.materialise(name, value)?;
        self.checkpoint.tensors.push(tensor);
        Ok(())
    }

    /// Notes that the value at `path` is not read.
    fn leave_out(&mut self, path: &[&str], value: &Value<'p>) -> Result<(), Problem> {
        let text = format!("{} ({})", path.join(".").escape_debug(), self.kind(value));
        self.allowance.charge((text.len() + size_of::<String>()) as u64)?;
        self.checkpoint.left_out.push(text);
        Ok(())
    }

    /// Something beside the state dict.
    fn read_beside(&mut self, key: &str, value: &Value<'p>) -> Result<(), Problem> {
        if key == "optimizer" && self.read_optimizer(value)? {
            return Ok(());
        }
        if key == "network"
            && let Some(network) = self.network(value)?
        {
            self.checkpoint.network = Some(network);
            return Ok(());
        }
        let Some(scalar) = self.scalar(key, value)? else {
            return self.leave_out(&[key], value);
        };
        match key {
            "epoch" if scalar.as_i64().is_some() => self.checkpoint.epoch = scalar.as_i64(),
            "accuracy" if scalar.as_f64().is_some() => self.checkpoint.accuracy = scalar.as_f64(),
            "best_acc" if scalar.as_f64().is_some() => self.checkpoint.best_acc = scalar.as_f64(),
            _ => {
                self.allowance.charge((key.len() + size_of::<(String, Scalar)>()) as u64)?;
                self.checkpoint.extra.insert(key.to_owned(), scalar);
            }
        }
        Ok(())
    }

    /// What this project writes about the network. `None` if it is something else of that name.
    fn network(&mut self, value: &Value<'p>) -> Result<Option<NetworkInfo>, Problem> {
        let pickle = self.pickle;
        let items = |key: &str| pickle.get(value, key).and_then(|list| pickle.sequence(&list));
        let float = |value: &Value<'_>| match value {
            Value::Float(value) => Some(*value as f32),
            _ => None,
        };
        let floats = |key| items(key)?.iter().map(float).collect::<Option<Vec<f32>>>()?.try_into().ok();
        let read = || {
            let model = pickle.get(value, "model")?;
            let sides: Option<Vec<usize>> = items("size")?.iter().map(|side| pickle.size(side)).collect();
            let classes = items("classes")?.iter().map(|name| pickle.text(name));
            Some((pickle.text(&model)?, sides?.try_into().ok()?, floats("mean")?, floats("std")?, classes))
        };
        let Some((model, size, mean, std, names)) = read() else { return Ok(None) };
        let mut classes = Vec::new();
        for name in names {
            let Some(name) = name else { return Ok(None) };
            self.allowance.charge((name.len() + size_of::<String>()) as u64)?;
            classes.push(name.to_owned());
        }
        let resize = pickle.get(value, "resize").and_then(|side| pickle.size(&side)).unwrap_or(0);
        Ok(Some(NetworkInfo { model: model.to_owned(), classes, size, resize, mean, std }))
    }

    /// The state of an optimizer that is known. False if the value is not that; the state of another optimizer is left out whole,
    /// since half of it would be taken for a fresh start.
    fn read_optimizer(&mut self, value: &Value<'p>) -> Result<bool, Problem> {
        let (Some(state), Some(groups)) =
            (self.pickle.get(value, "state"), self.pickle.get(value, "param_groups"))
        else {
            return Ok(false);
        };
        let (Some(state), Some(groups)) = (self.pickle.dict(&state), self.pickle.sequence(&groups)) else {
            return Ok(false);
        };
        self.allowance.charge((state.len() * size_of::<(Value<'p>, Value<'p>)>()) as u64)?;
        let mut optimizer = OptimizerState::default();
        let mut buffers = Vec::new();
        let mut other_state = Vec::new();
        for (parameter, state) in state.iter() {
            let (entries, unnamed) = self.dict(state)?.unwrap_or_default();
            for (key, value) in entries {
                match key {
                    name if optimizer.buffers_named(name).is_some() => {
                        buffers.extend((value != Value::None).then_some((name, *parameter, value)));
                    }
                    other if !other_state.contains(&other) && other_state.len() < 8 => {
                        other_state.push(other)
                    }
                    _ => {}
                }
            }
            if !unnamed.is_empty() && other_state.is_empty() {
                other_state.push("?");
            }
        }
        let mut momentum = false;
        for group in groups {
            let (entries, _) = self.dict(group)?.unwrap_or_default();
            momentum |= entries.iter().any(|(key, _)| *key == "momentum");
        }
        if !other_state.is_empty() || (buffers.is_empty() && !momentum) {
            let what = match other_state.is_empty() {
                true => String::new(),
                false => format!(" its state is {};", listed(other_state.iter().map(|key| quoted(key)))),
            };
            let read = "only the state of these is read";
            self.checkpoint.left_out.push(format!("optimizer (not SGD, Adam or RMSprop:{what} {read})"));
            return Ok(true);
        }
        // Old files name parameters by memory address; what counts is the position over all groups.
        let mut positions: HashMap<i128, usize> = HashMap::new();
        for (index, group) in groups.iter().enumerate() {
            let group = self.param_group(index, group, &mut positions)?;
            optimizer.param_groups.push(group);
        }
        for (name, parameter, buffer) in buffers {
            let position = self.pickle.int(&parameter).and_then(|parameter| positions.get(&parameter));
            match position {
                Some(&position) => {
                    let mut buffer = self.materialise(&format!("{name} of parameter {position}"), &buffer)?;
                    buffer.name.clear();
                    if let Some(buffers) = optimizer.buffers_named(name) {
                        buffers.insert(position, buffer);
                    }
                }
                None => self.leave_out(&["optimizer", "state", "(of no parameter)"], &buffer)?,
            }
        }
        self.checkpoint.optimizer = Some(optimizer);
        Ok(true)
    }

    fn param_group(
        &mut self,
        index: usize,
        group: &Value<'p>,
        positions: &mut HashMap<i128, usize>,
    ) -> Result<ParamGroup, Problem> {
        let bad = |what: &str| Problem::Layout(format!("its optimizer's param_groups: {what}"));
        let (entries, _) = self.dict(group)?.ok_or_else(|| bad("a group is not a dict"))?;
        let mut read = ParamGroup::default();
        for (key, value) in entries {
            if key == "params" {
                let params = self.pickle.sequence(&value).ok_or_else(|| bad("params is not a list"))?;
                for parameter in params {
                    let parameter = self.pickle.int(parameter);
                    let parameter =
                        parameter.ok_or_else(|| bad("params holds something that is not a number"))?;
                    // A group may be referred to many times over; each copy is paid for.
                    self.allowance.charge(size_of::<usize>() as u64)?;
                    let next = positions.len();
                    read.params.push(*positions.entry(parameter).or_insert(next));
                }
            } else if let Some(betas) = self.pickle.sequence(&value).filter(|_| key == "betas") {
                // Adam's two numbers, in one setting.
                for (number, beta) in betas.iter().enumerate().take(2) {
                    let beta = self.scalar(key, beta)?.ok_or_else(|| bad("betas are not numbers"))?;
                    self.allowance.charge(size_of::<(String, Scalar)>() as u64)?;
                    read.options.push((format!("betas.{number}"), beta));
                }
            } else if let Some(scalar) = self.scalar(key, &value)? {
                self.allowance.charge((key.len() + size_of::<(String, Scalar)>()) as u64)?;
                read.options.push((key.to_owned(), scalar));
            } else {
                self.leave_out(&["optimizer", "param_groups", &index.to_string(), key], &value)?;
            }
        }
        self.allowance.charge(size_of::<ParamGroup>() as u64)?;
        Ok(read)
    }

    /// A number, text or tensor of one element; `None` if the value is none of these.
    fn scalar(&mut self, key: &str, value: &Value<'p>) -> Result<Option<Scalar>, Problem> {
        if let Some(text) = self.pickle.text(value) {
            self.allowance.charge(text.len() as u64)?;
        }
        match torch::tensor(self.pickle, value) {
            Ok(tensor) if tensor.view.shape.iter().all(|&dim| dim == 1) => {
                let tensor = self.elements(key, &tensor)?;
                Ok(tensor.data.to_f64().first().map(|&value| Scalar::Float(value)))
            }
            _ => Ok(torch::scalar(self.pickle, value)),
        }
    }

    /// A tensor with its elements, contiguous.
    fn materialise(&mut self, name: &str, value: &Value<'p>) -> Result<NamedTensor, Problem> {
        let tensor =
            torch::tensor(self.pickle, value).map_err(|what| Problem::Tensor { name: quoted(name), what })?;
        self.elements(name, &tensor)
    }

    fn elements(&mut self, name: &str, tensor: &PickledTensor<'p>) -> Result<NamedTensor, Problem> {
        let problem = |what: String| Problem::Tensor { name: quoted(name), what };
        let PickledTensor { storage, view } = tensor;
        let bytes = self.storages.bytes(storage.key, self.allowance)?;
        if storage.numel.checked_mul(storage.size) != Some(bytes.len()) {
            return Err(problem(format!(
                "its storage {} has {} bytes where {} elements of {} bytes are declared",
                quoted(storage.key),
                bytes.len(),
                storage.numel,
                storage.size
            )));
        }
        let bytes = match storage.part {
            None => &bytes[..],
            Some((offset, numel)) => offset
                .checked_add(numel)
                .filter(|&end| end <= storage.numel)
                .map(|end| &bytes[offset * storage.size..end * storage.size])
                .ok_or_else(|| problem("its part reaches outside the storage".into()))?,
        };
        let size = view.dtype.size();
        let count = view.checked_len(bytes.len() / size).map_err(problem)?;
        let described = name.len() + (view.shape.len() + 16) * size_of::<usize>();
        self.allowance.charge(described as u64)?;
        self.allowance.charge((count as u64).saturating_mul(size as u64))?;
        Ok(NamedTensor { name: name.to_owned(), shape: view.shape.clone(), data: view.gather(bytes, count) })
    }
}

/// The first few of a list; a file can have thousands.
fn listed(mut items: impl Iterator<Item = String>) -> String {
    let shown: Vec<String> = items.by_ref().take(10).collect();
    match items.count() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
