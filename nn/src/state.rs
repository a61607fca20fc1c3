//! Between a model on a device and a checkpoint: strict loading, and saving.

use std::collections::{BTreeMap, HashMap};

use autograd::{Variable, VariableStore};

use crate::checkpoint::{NamedTensor, TensorData, match_names};
use crate::error::{Error, Result};
use crate::layers::{Kind, StateEntry};
use crate::models::{self, Model};

/// The models whose tensors these are, exactly, and their number of classes (0 without a model).
pub fn identify(tensors: &[NamedTensor]) -> (Vec<&'static str>, usize) {
    let fitting: Vec<Known> =
        known(tensors).into_iter().filter(|known| match_names(&known.manifest, tensors).is_ok()).collect();
    let classes = fitting.first().map_or(0, |known| known.classes);
    (fitting.into_iter().map(|known| known.name).collect(), classes)
}

/// A model of the registry, with the number of classes that a checkpoint has.
struct Known {
    name: &'static str,
    classes: usize,
    manifest: models::Manifest,
}

/// Every model, with as many classes as these tensors give its classifier; 1 where they have no such classifier.
fn known(tensors: &[NamedTensor]) -> Vec<Known> {
    let shapes: HashMap<&str, &[usize]> = tensors.iter().map(|t| (t.name.as_str(), &t.shape[..])).collect();
    let known = |(name, mut manifest): (_, models::Manifest)| {
        // What has no elements without classes is the classifier's.
        let rows = |(name, shape): &(String, Vec<usize>)| match shape[..] {
            [0, ..] => shapes.get(name.as_str()).and_then(|found| found.first().copied()),
            _ => None,
        };
        let classes = manifest.iter().find_map(rows).unwrap_or(1);
        for (_, shape) in &mut manifest {
            shape.iter_mut().filter(|size| **size == 0).for_each(|size| *size = classes);
        }
        Known { name, classes, manifest }
    };
    models::manifests().into_iter().map(known).collect()
}

impl Model {
    /// Names and shapes of the state dict, in order.
    pub fn manifest(&self) -> models::Manifest {
        manifest(self.state())
    }

    /// Gives the model on `device` a checkpoint's values. Strict: every tensor must be there, no other,
    /// each of its shape and finite, and no variance negative; only counters (`num_batches_tracked`) may
    /// be absent, as in old files, and then start at 0. Nothing is written unless everything fits.
    ///
    /// # Errors
    /// [`Error::Classes`] where only the number of classes differs, else [`Error::Mismatch`] with the names
    /// of missing, unexpected and mis-shaped tensors and the nearest model of the registry;
    /// [`Error::NotFinite`]; [`Error::NegativeVariance`]; the device's.
    pub fn load(&self, tensors: &[NamedTensor], device: &dyn VariableStore) -> Result<()> {
        let matched = match_names(&self.manifest(), tensors).map_err(|mismatch| {
            let (model, known) = (self.name().to_string(), known(tensors));
            match known.iter().find(|known| known.name == model) {
                Some(known) if match_names(&known.manifest, tensors).is_ok() => {
                    Error::Classes { model, found: known.classes, expected: self.classes() }
                }
                _ => {
                    let known = known.iter().map(|known| (known.name, known.manifest.as_slice()));
                    Error::Mismatch { model, mismatch: Box::new(mismatch.with_nearest(tensors, known)) }
                }
            }
        })?;
        write(self.state(), &matched, device)
    }

    /// As [`Model::load`], for training to begin with: a classifier of another number of classes, which is
    /// returned, is left out, and the model's begins with its initial values.
    pub fn begin_with(&self, tensors: &[NamedTensor], device: &dyn VariableStore) -> Result<Option<usize>> {
        let found = match self.load(tensors, device) {
            Ok(()) => return Ok(None),
            Err(Error::Classes { found, .. }) => found,
            Err(error) => return Err(error),
        };
        let own: HashMap<&str, &Variable> =
            self.state().iter().map(|entry| (entry.variable.name(), &entry.variable)).collect();
        let fitted: Vec<NamedTensor> = tensors
            .iter()
            .map(|tensor| match own.get(tensor.name.as_str()) {
                Some(own) if own.shape() != tensor.shape => {
                    NamedTensor::f32(own.name(), own.shape(), own.initial().to_vec())
                }
                _ => tensor.clone(),
            })
            .collect();
        self.load(&fitted, device)?;
        Ok(Some(found))
    }

    /// Whether what is on `device` can be a network's state.
    ///
    /// # Errors
    /// [`Error::NotFinite`] or [`Error::NegativeVariance`] with the first value that cannot; the device's.
    pub fn check(&self, device: &dyn VariableStore) -> Result<()> {
        check_state(self.state(), device)
    }

    /// The state dict as it is on `device`: `float32`, counters `int64`.
    pub fn save(&self, device: &dyn VariableStore) -> Result<Vec<NamedTensor>> {
        save_state(self.state(), device)
    }
}

fn manifest(state: &[StateEntry]) -> models::Manifest {
    let entry = |entry: &StateEntry| (entry.variable.name().to_string(), entry.variable.shape().to_vec());
    state.iter().map(entry).collect()
}

/// As [`Model::load`], for layers that belong to no network; `name` is for the error.
pub fn load_state(
    state: &[StateEntry],
    name: &str,
    tensors: &[NamedTensor],
    device: &dyn VariableStore,
) -> Result<()> {
    let matched = match_names(&manifest(state), tensors)
        .map_err(|mismatch| Error::Mismatch { model: name.into(), mismatch: Box::new(mismatch) })?;
    write(state, &matched, device)
}

/// As [`Model::check`].
pub fn check_state(state: &[StateEntry], device: &dyn VariableStore) -> Result<()> {
    state.iter().try_for_each(|entry| entry.check(&device.read(&entry.variable)?))
}

/// As [`Model::save`].
pub fn save_state(state: &[StateEntry], device: &dyn VariableStore) -> Result<Vec<NamedTensor>> {
    let mut tensors = Vec::with_capacity(state.len());
    for entry in state {
        let mut tensor = named(&entry.variable, device)?;
        if entry.kind == Kind::Counter {
            let counts = tensor.data.to_f64().into_iter().map(|count| count as i64).collect();
            tensor.data = TensorData::I64(counts);
        }
        tensors.push(tensor);
    }
    Ok(tensors)
}

/// Writes each entry its tensor, or zeros where it may be absent; nothing unless all are right.
fn write(state: &[StateEntry], matched: &[Option<&NamedTensor>], device: &dyn VariableStore) -> Result<()> {
    let mut values = Vec::with_capacity(matched.len());
    for (entry, tensor) in state.iter().zip(matched) {
        let tensor = tensor.map_or_else(|| vec![0.0; entry.variable.len()], |t| t.data.to_f32());
        entry.check(&tensor)?;
        values.push(tensor);
    }
    for (entry, values) in state.iter().zip(values) {
        device.write(&entry.variable, &values)?;
    }
    Ok(())
}

/// What each of `momenta`, or other state, is in a checkpoint, by position; zeros where it has none.
pub(crate) fn load_by_position(
    saved: &BTreeMap<usize, NamedTensor>,
    momenta: &[Variable],
) -> Result<Vec<(Variable, Vec<f32>)>> {
    let mut values = Vec::with_capacity(momenta.len());
    for (position, momentum) in momenta.iter().enumerate() {
        let Some(tensor) = saved.get(&position) else {
            values.push((momentum.clone(), vec![0.0; momentum.len()]));
            continue;
        };
        if tensor.shape != momentum.shape() {
            return Err(Error::Optimizer(format!(
                "the state of parameter {position} is {:?} in the checkpoint; {momentum:?} is needed",
                tensor.shape
            )));
        }
        let tensor = tensor.data.to_f32();
        finite(momentum.name(), &tensor)?;
        values.push((momentum.clone(), tensor));
    }
    if let Some((position, _)) = saved.range(momenta.len()..).next() {
        return Err(Error::Optimizer(format!(
            "the checkpoint has state for parameter {position}, but there are {}",
            momenta.len()
        )));
    }
    Ok(values)
}

/// A variable's value on a device.
pub(crate) fn named(variable: &Variable, device: &dyn VariableStore) -> Result<NamedTensor> {
    Ok(NamedTensor::f32(variable.name(), variable.shape(), device.read(variable)?))
}

impl StateEntry {
    fn check(&self, values: &[f32]) -> Result<()> {
        let name = self.variable.name();
        finite(name, values)?;
        match values.iter().position(|&v| v < 0.0) {
            Some(index) if self.kind == Kind::Variance => {
                Err(Error::NegativeVariance { name: name.into(), index, value: values[index] })
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn finite(name: &str, values: &[f32]) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        Some(index) => Err(Error::NotFinite { name: name.into(), index, value: values[index] }),
        None => Ok(()),
    }
}
