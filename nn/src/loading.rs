//! A checkpoint's tensors into a model's variables on a device.

use autograd::Device;

use crate::checkpoint::{Manifest, NamedTensor, match_names};
use crate::error::{Error, Result};
use crate::models::{self, Model};

/// Names and shapes of a model's state dict, in its order.
pub fn manifest(model: &Model) -> Vec<(String, Vec<usize>)> {
    let entry = |v: &autograd::Variable| (v.name().to_string(), v.shape().to_vec());
    model.state().iter().map(|e| entry(&e.variable)).collect()
}

/// Writes `tensors` into the model's variables. Names and shapes must be the model's (a batch norm's
/// counter may be absent and is then 0).
///
/// # Errors
/// [`Error::Mismatch`] lists what is missing, unexpected or of another shape and names the model that
/// would fit best; then nothing was written. A NaN or infinity in a tensor is the device's error.
pub fn load(device: &dyn Device, model: &Model, tensors: &[NamedTensor]) -> Result<()> {
    let manifest = manifest(model);
    let matched = match match_names(&manifest, tensors) {
        Ok(matched) => matched,
        Err(mismatch) => {
            let known = known_manifests(model.classes());
            let models = known.iter().map(|(name, manifest)| (*name, &manifest[..] as &Manifest));
            return Err(Error::Mismatch(mismatch.with_nearest(tensors, models)));
        }
    };
    let values: Vec<Vec<f32>> = matched
        .iter()
        .zip(&manifest)
        .map(|(tensor, (_, shape))| match tensor {
            Some(tensor) => tensor.data.to_f32(),
            None => vec![0.0; shape.iter().product()],
        })
        .collect();
    for (entry, values) in model.state().iter().zip(&values) {
        if let Some(bad) = values.iter().position(|v| !v.is_finite()) {
            return Err(Error::Engine(autograd::Error::State {
                name: entry.variable.name().into(),
                message: format!("element {bad} is {}; the checkpoint is damaged", values[bad]),
            }));
        }
    }
    for (entry, values) in model.state().iter().zip(&values) {
        device.write(&entry.variable, values)?;
    }
    Ok(())
}

/// Every model's manifest; a model that cannot be built with that many classes is left out.
fn known_manifests(classes: usize) -> Vec<(&'static str, Vec<(String, Vec<usize>)>)> {
    let build = |name: &'static str| models::build(name, classes, 0).ok().map(|m| (name, manifest(&m)));
    models::names().filter_map(build).collect()
}
