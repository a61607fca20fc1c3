//! Snapshots: state between files and the device.
//!
//! The files have the reference trainer's names and layout, so that its tools read them: `latest` holds
//! epoch, `student.*` tensors, optimizer state and best accuracy; `student_latest` is the bare student.
//! Beside that, `latest` holds what an exact continuation needs: seed, the batch within the epoch, and
//! the sums of that epoch's metrics so far.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use nn::checkpoint::{self, Checkpoint, NamedTensor, NetworkInfo, Role, Scalar};
use nn::layers::Kind;
use nn::models::Model;
use schedule::Device;

use super::networks::Networks;
use crate::augment::Normalization;
use crate::data::{Dataset, Files};

/// Where training stands.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    /// The epoch in work, counted from 1; after the last batch of an epoch, the next one.
    pub epoch: usize,
    /// Batches of it that are done.
    pub batch: usize,
    /// Steps since the beginning of the run.
    pub steps: u64,
    /// Images seen and metric sums of the epoch in work.
    pub images: usize,
    /// See `images`; exact, in the metrics' order.
    pub sums: Vec<f64>,
    /// Best top-1 so far (percent); -1 before the first evaluation.
    pub best: f64,
    /// The epoch of `best`, of equals the last.
    pub best_epoch: usize,
    /// The first of these.
    pub improved: usize,
    /// The run's seed, which the order of images follows from.
    pub seed: u64,
}

impl Progress {
    /// Before the first step.
    pub fn start(seed: u64) -> Progress {
        Progress { epoch: 1, best: -1.0, seed, ..Progress::default() }
    }
}

/// What the names of the modules' tensors begin with.
const MODULES: &str = "module.";

/// Under which name a checkpoint keeps [`crate::data::Dataset::recipe`].
pub const RECIPE: &str = "dataset_recipe";

/// What a checkpoint of `model`, trained on `dataset`, says about it.
pub fn network_info(model: &Model, dataset: &Dataset) -> NetworkInfo {
    let Normalization { mean, std } = dataset.normalization();
    NetworkInfo {
        model: model.name().to_owned(),
        classes: dataset.classes().to_vec(),
        size: [dataset.height(), dataset.width()],
        resize: dataset.files().map_or(0, Files::resize),
        mean,
        std,
    }
}

/// The student alone: what `student_*` files hold and what other tools take.
pub fn student_checkpoint(
    device: &dyn Device,
    networks: &Networks,
    dataset: &Dataset,
) -> anyhow::Result<Checkpoint> {
    let (network, extra) = (Some(network_info(&networks.student, dataset)), recipe(dataset));
    Ok(Checkpoint { tensors: networks.result().save(device)?, network, extra, ..Checkpoint::default() })
}

/// What the images were drawn from, if they were, so that the network can be measured on the same.
fn recipe(dataset: &Dataset) -> BTreeMap<String, Scalar> {
    dataset.recipe().map(|recipe| (RECIPE.to_owned(), Scalar::Text(recipe.to_owned()))).into_iter().collect()
}

/// Everything that training on needs.
pub fn save(
    device: &dyn Device,
    networks: &Networks,
    dataset: &Dataset,
    progress: &Progress,
    rate: f64,
) -> anyhow::Result<Checkpoint> {
    let mut tensors = Vec::new();
    let mut add = |prefix: &str, saved: Vec<NamedTensor>| {
        tensors.extend(saved.into_iter().map(|t| NamedTensor { name: format!("{prefix}{}", t.name), ..t }));
    };
    add("module.student.", networks.student.save(device)?);
    if let Some(teacher) = networks.learning_teacher() {
        add("module.teacher.", teacher.save(device)?);
    }
    if let Some((_, average)) = &networks.average {
        add("module.average.", average.save(device)?);
    }
    add(MODULES, nn::save_state(&networks.modules, device)?);
    let mut extra = recipe(dataset);
    // As text: a Python int of more than 63 bits is not one of the format's numbers.
    extra.insert("seed".into(), Scalar::Text(progress.seed.to_string()));
    extra.insert("batch".into(), Scalar::Int(progress.batch as i64));
    extra.insert("steps".into(), Scalar::Int(progress.steps as i64));
    extra.insert("images".into(), Scalar::Int(progress.images as i64));
    extra.insert("best_epoch".into(), Scalar::Int(progress.best_epoch as i64));
    extra.insert("improved_epoch".into(), Scalar::Int(progress.improved as i64));
    // Bits, not digits: the sums go on exactly.
    let sums: Vec<String> = progress.sums.iter().map(|s| format!("{:016x}", s.to_bits())).collect();
    extra.insert("sums".into(), Scalar::Text(sums.join(" ")));
    // The reference counts finished epochs.
    let epoch = Some(progress.epoch as i64 - 1);
    Ok(Checkpoint {
        tensors,
        network: Some(network_info(&networks.student, dataset)),
        epoch,
        best_acc: Some(progress.best),
        optimizer: Some(networks.optimizer.save(rate, device)?),
        extra,
        ..Default::default()
    })
}

/// Puts a saved state back on the device and returns where it stands. `steps_per_epoch` counts the steps
/// of states that were saved without their number. With `other_method`, what the state has of another
/// method's modules is left, and this one's begin anew.
pub fn restore(
    device: &dyn Device,
    networks: &Networks,
    mut saved: Checkpoint,
    path: &Path,
    steps_per_epoch: usize,
    other_method: bool,
) -> anyhow::Result<Progress> {
    let place = path.display().to_string();
    let student = saved.take_submodule("student");
    let teacher = saved.take_submodule("teacher");
    let average = saved.take_submodule("average");
    let modules: Vec<NamedTensor> = saved
        .tensors
        .iter()
        .filter_map(|t| Some(NamedTensor { name: t.name.strip_prefix(MODULES)?.into(), ..t.clone() }))
        .collect();
    ensure!(!student.is_empty(), "{place} holds no student; resuming needs a run's `latest`");
    let text = |key: &str| match saved.extra.get(key) {
        Some(Scalar::Text(text)) => Ok(text.clone()),
        _ => bail!("{place} has no `{key}`; it was not saved by this trainer"),
    };
    let number = |key: &str| {
        let value = saved.extra.get(key).and_then(Scalar::as_i64);
        value.and_then(|v| usize::try_from(v).ok()).with_context(|| format!("{place} has no `{key}`"))
    };
    let sums: Result<Vec<f64>, _> = text("sums")?
        .split_whitespace()
        .map(|bits| u64::from_str_radix(bits, 16).map(f64::from_bits))
        .collect();
    let finished =
        saved.epoch.and_then(|e| usize::try_from(e).ok()).with_context(|| format!("{place} has no epoch"))?;
    let progress = Progress {
        epoch: finished + 1,
        batch: number("batch")?,
        steps: number("steps").unwrap_or(finished * steps_per_epoch + number("batch")?) as u64,
        images: number("images")?,
        sums: sums.with_context(|| format!("{place}: damaged sums"))?,
        best: saved.best_acc.unwrap_or(-1.0),
        best_epoch: number("best_epoch")?,
        // Not in states of older versions.
        improved: number("improved_epoch").or_else(|_| number("best_epoch"))?,
        seed: text("seed")?.parse().with_context(|| format!("{place}: damaged seed"))?,
    };

    ensure!(
        progress.best.is_finite() && progress.sums.iter().all(|sum| sum.is_finite()),
        "{place}: its metrics are not finite numbers; the training had diverged"
    );

    write_model(device, &networks.student, &student, &place)?;
    if let Some(model) = networks.learning_teacher().filter(|_| !(other_method && teacher.is_empty())) {
        write_model(device, model, &teacher, &place).context("the teacher's statistics")?;
    }
    if let Some((kept, model)) = networks.average.as_ref().filter(|_| !average.is_empty()) {
        write_model(device, model, &average, &place).context("the student's average")?;
        device.write(kept.begun(), &[f32::from(u8::from(progress.steps > 0))])?;
    }
    let mut optimizer = saved.optimizer.with_context(|| format!("{place} holds no optimizer state"))?;
    let mut positions = 0..networks.optimizer.parameters().len();
    if other_method {
        // The student's are the first.
        positions.end = networks.student.parameters().len();
        optimizer.retain(&positions);
    } else {
        nn::load_state(&networks.modules, "the method's modules", &modules, device)
            .with_context(|| place.clone())?;
    }
    if let Some(name) = networks.optimizer.lacks(&optimizer, positions) {
        bail!("{place}: the optimizer's `{name}` is missing or has another shape");
    }
    networks.optimizer.load(&optimizer, device).with_context(|| place.clone())?;
    Ok(progress)
}

/// Writes a state dict into a model's variables on the device. Names and shapes must agree exactly
/// (batch norm's counters may be absent); otherwise nothing is written and the differences are listed,
/// with the model that would fit best.
pub fn write_model(
    device: &dyn Device,
    model: &Model,
    tensors: &[NamedTensor],
    place: &str,
) -> anyhow::Result<()> {
    model.load(tensors, device).with_context(|| format!("{place} does not fit {}", model.name()))
}

/// A checksum of a model's parameters and statistics on the device.
pub fn digest(device: &dyn Device, model: &Model) -> anyhow::Result<String> {
    let mut sum = 0;
    for entry in model.state().iter().filter(|entry| entry.kind != Kind::Counter) {
        for value in device.read(&entry.variable)? {
            sum = crc32c::crc32c_append(sum, &value.to_le_bytes());
        }
    }
    Ok(format!("{sum:08x}"))
}

/// As [`load_model`], for training to begin with: a classifier of another number of classes is left out.
pub fn begin_with(device: &dyn Device, model: &Model, path: &Path) -> anyhow::Result<Vec<String>> {
    let mut network = checkpoint::read_network(path, Role::Student)?;
    let place = path.display();
    let other = model
        .begin_with(&network.tensors, device)
        .with_context(|| format!("{place} does not fit {}", model.name()))?;
    if let Some(classes) = other {
        network.notes.push(format!(
            "its classifier is of {classes} classes, this data set has {}: it is left out, and a new one is drawn",
            model.classes()
        ));
    }
    Ok(network.notes)
}

/// Reads a checkpoint file for a model and writes it to the device; gives what the user should know of it.
pub fn load_model(
    device: &dyn Device,
    model: &Model,
    path: &Path,
    role: Role,
) -> anyhow::Result<Vec<String>> {
    let network = checkpoint::read_network(path, role)?;
    write_model(device, model, &network.tensors, &path.display().to_string())?;
    Ok(network.notes)
}
