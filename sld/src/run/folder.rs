//! A run's folder while it is written.

use super::change::Change;
use super::error::RunError;
use super::evaluation::Evaluation;
use super::lock::RunLock;
use super::metrics::{BestEpoch, EpochMetrics, MetricsLog, best_epoch};
use super::tensorboard::EventWriter;
use super::worklog;
use nn::checkpoint::write_atomically;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// How kernels are computed that can be computed in several ways ([`schedule::Device::choices`]).
pub(super) const KERNELS: &str = "kernels.json";

/// What a run is: `run.json`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RunInfo {
    /// The method, as a config names it.
    pub distiller: String,
    /// As `DATASET.TYPE` names it.
    pub dataset: String,
    /// The network that learns.
    pub student: ModelInfo,
    /// The network that is learned from, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<ModelInfo>,
    /// What computed, in words.
    pub device: String,
    /// In what precision it multiplied ([`schedule::Device::precision`]). Empty in files of older versions.
    #[serde(default)]
    pub precision: String,
    /// Images learned from in an epoch; those held out are not counted.
    pub train_images: u64,
    /// [`crate::data::Dataset::digest`] of the training images. Empty in files of older versions.
    #[serde(default)]
    pub train_digest: String,
    /// Images that accuracy is measured on.
    pub test_images: u64,
    /// [`crate::data::Dataset::digest`] of the test images. Empty in files of older versions.
    #[serde(default)]
    pub test_digest: String,
    /// Training images held out to choose the best epoch on.
    #[serde(default)]
    pub validation_images: u64,
    /// Epochs that the run is meant to have.
    pub epochs: u32,
    /// Epochs without a better one after which it ends; 0: none. 0 in files of older versions.
    #[serde(default)]
    pub patience: u32,
    /// Images of a training batch, in all processes together.
    pub batch_size: u32,
    /// What the device holds while it trains: the step's memory and all state. 0 in files of older versions.
    #[serde(default)]
    pub device_bytes: u64,
    /// `SOLVER.SEED`.
    pub seed: u64,
    /// [`crate::VERSION`].
    pub version: String,
    /// When the run began, in seconds since 1970 (UTC); a run that is gone on with keeps it. 0 in files of
    /// older versions.
    #[serde(default)]
    pub started: u64,
    /// The config keys that are not at their defaults.
    pub settings: Vec<String>,
    /// What was changed when the run was resumed, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
}

impl RunInfo {
    /// Reads the file of the run in `folder`.
    pub fn read(folder: &Path) -> Result<Self, RunError> {
        let path = folder.join("run.json");
        let bytes = std::fs::read(&path).map_err(RunError::read(&path))?;
        serde_json::from_slice(&bytes).map_err(|why| RunError::content(&path, Some(why.line()), why))
    }
}

/// A network of a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ModelInfo {
    /// As a config names it.
    pub name: String,
    /// Numbers that are learned, biases and batch norms included.
    pub parameters: u64,
    /// Percent of the test images, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top1: Option<f64>,
    /// A checksum of the weights that were read from a file, a teacher's or those that training began with, by
    /// which they are known wherever they lie.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
}

impl ModelInfo {
    /// Of a network whose accuracy is not known.
    pub fn of(model: &nn::Model) -> Self {
        Self { name: model.name().into(), parameters: model.parameter_count() as u64, ..Self::default() }
    }
}

/// A run's folder, locked, with its logs open. [`super::Claim`] opens it.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    metrics: MetricsLog,
    history: Vec<EpochMetrics>,
    changes: Vec<Change>,
    events: EventWriter,
    /// What [`RunFolder::keep_kernels`] kept last.
    kernels: String,
    _lock: RunLock,
}

impl RunFolder {
    pub(super) fn new(
        path: PathBuf,
        lock: RunLock,
        metrics: MetricsLog,
        history: Vec<EpochMetrics>,
        changes: Vec<Change>,
        events: EventWriter,
    ) -> Self {
        Self { path, metrics, history, changes, events, kernels: String::new(), _lock: lock }
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The epochs logged so far.
    pub fn history(&self) -> &[EpochMetrics] {
        &self.history
    }

    /// A point of the training loss, for TensorBoard. `step` counts from the run's start.
    pub fn log_step(&mut self, step: u64, loss: f64, lr: f64) -> Result<(), RunError> {
        self.events.scalars(step, &[("step/loss".into(), loss), ("step/lr".into(), lr)])
    }

    /// Logs an epoch everywhere.
    pub fn log_epoch(&mut self, metrics: EpochMetrics) -> Result<(), RunError> {
        self.metrics.append(&metrics)?;
        self.append_worklog(&worklog::epochs(std::slice::from_ref(&metrics), &self.changes))?;
        self.events.epoch(&metrics)?;
        self.history.push(metrics);
        Ok(())
    }

    /// Keeps how the kernels of the run are computed, if there is anything to choose: a state that is gone on from
    /// needs it.
    pub fn keep_kernels(&mut self, choices: String) -> Result<(), RunError> {
        if choices != self.kernels {
            replace(&self.path.join(KERNELS), choices.as_bytes())?;
            self.kernels = choices;
        }
        Ok(())
    }

    /// Closes the logs of a run whose last epoch is done.
    pub fn finish(&mut self, evaluation: &Evaluation) -> Result<(), RunError> {
        evaluation.write(&self.path.join("evaluation.json"))?;
        let log = worklog::epochs(&self.history, &self.changes);
        // The reference's start value, for a run without an epoch.
        let best = self.best().map_or(-1.0, |best| best.test.top1);
        replace(&self.path.join("worklog.txt"), (log + &worklog::end(best)).as_bytes())?;
        self.events.flush()
    }

    /// The best epoch so far.
    pub fn best(&self) -> Option<BestEpoch> {
        best_epoch(&self.history)
    }

    fn append_worklog(&self, text: &str) -> Result<(), RunError> {
        let path = self.path.join("worklog.txt");
        let file = OpenOptions::new().append(true).create(true).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(RunError::write(&path))
    }
}

pub(super) fn write_info(folder: &Path, info: &RunInfo) -> Result<(), RunError> {
    let path = folder.join("run.json");
    let text = serde_json::to_vec_pretty(info).map_err(|why| RunError::content(&path, None, why))?;
    replace(&path, &text)
}

pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    write_atomically(path, |file| file.write_all(bytes)).map_err(RunError::write(path))
}
