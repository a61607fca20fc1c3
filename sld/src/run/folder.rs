//! A run's folder while it is written.

use super::tensorboard::EventWriter;
use super::{EpochMetrics, Evaluation, MetricsLog, RunError, RunLock, best_epoch, read_metrics, worklog};
use crate::config::Config;
use nn::checkpoint::write_atomically;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What a run is: `run.json`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RunInfo {
    /// The method, as a config names it.
    pub distiller: String,
    pub dataset: String,
    pub student: ModelInfo,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<ModelInfo>,
    /// What computed, in words.
    pub device: String,
    pub train_images: u64,
    pub test_images: u64,
    /// [`crate::data::Dataset::digest`] of the test images. Empty in files of older versions.
    #[serde(default)]
    pub test_digest: String,
    /// Training images held out to choose the best epoch on.
    #[serde(default)]
    pub validation_images: u64,
    /// Epochs that the run is meant to have.
    pub epochs: u32,
    pub batch_size: u32,
    pub seed: u64,
    /// [`crate::VERSION`].
    pub version: String,
    /// When the run began, in seconds since 1970 (UTC); a run that is gone on with keeps it. 0 in files of
    /// older versions.
    #[serde(default)]
    pub started: u64,
    /// The config keys that are not at their defaults.
    pub settings: Vec<String>,
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
    pub name: String,
    pub parameters: u64,
    /// Percent of the test images, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top1: Option<f64>,
}

/// A run's folder, locked, with its logs open.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    metrics: MetricsLog,
    history: Vec<EpochMetrics>,
    events: EventWriter,
    _lock: RunLock,
}

impl RunFolder {
    /// Makes the folder of a new run and writes the config into it.
    ///
    /// # Errors
    /// The folder holds a run already, is in use, or cannot be written.
    pub fn create(path: &Path, config: &Config, info: &RunInfo) -> Result<Self, RunError> {
        std::fs::create_dir_all(path).map_err(RunError::write(path))?;
        let lock = RunLock::acquire(path)?;
        let log = path.join("metrics.jsonl");
        let epochs = if log.exists() { read_metrics(&log)?.len() } else { 0 };
        if epochs > 0 {
            return Err(RunError::Exists { folder: path.into(), epochs });
        }
        Self::open(path, lock, config, info, 0)
    }

    /// Opens the folder of a run that goes on after `last_epoch`, its last saved epoch. What was logged
    /// after that epoch is dropped: it will be measured again.
    ///
    /// # Errors
    /// There is no such folder, it is in use, or cannot be written.
    pub fn resume(path: &Path, config: &Config, info: &RunInfo, last_epoch: u32) -> Result<Self, RunError> {
        if !path.is_dir() {
            return Err(RunError::NoRun { folder: path.into() });
        }
        let lock = RunLock::acquire(path)?;
        Self::open(path, lock, config, info, last_epoch)
    }

    fn open(
        path: &Path,
        lock: RunLock,
        config: &Config,
        info: &RunInfo,
        last: u32,
    ) -> Result<Self, RunError> {
        let (metrics, history) = MetricsLog::open(&path.join("metrics.jsonl"), last)?;
        replace(&path.join("config.yaml"), config.to_yaml().as_bytes())?;
        let info = serde_json::to_vec_pretty(info).map_err(|why| RunError::content(path, None, why))?;
        replace(&path.join("run.json"), &info)?;
        let log: String = history.iter().map(worklog::epoch).collect();
        replace(&path.join("worklog.txt"), log.as_bytes())?;
        let events = EventWriter::create(path)?;
        Ok(Self { path: path.into(), metrics, history, events, _lock: lock })
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
        self.append_worklog(&worklog::epoch(&metrics))?;
        self.events.epoch(&metrics)?;
        self.history.push(metrics);
        Ok(())
    }

    /// Closes the logs of a run whose last epoch is done.
    pub fn finish(&mut self, evaluation: &Evaluation) -> Result<(), RunError> {
        evaluation.write(&self.path.join("evaluation.json"))?;
        let log: String = self.history.iter().map(worklog::epoch).collect();
        // The reference's start value, for a run without an epoch.
        let best = self.best().map_or(-1.0, |best| best.test.top1);
        replace(&self.path.join("worklog.txt"), (log + &worklog::end(best)).as_bytes())?;
        self.events.flush()
    }

    /// Updates `run.json`, when more is known than at the start.
    pub fn write_info(&self, info: &RunInfo) -> Result<(), RunError> {
        let info = serde_json::to_vec_pretty(info).map_err(|why| RunError::content(&self.path, None, why))?;
        replace(&self.path.join("run.json"), &info)
    }

    /// The best epoch so far.
    pub fn best(&self) -> Option<super::BestEpoch> {
        best_epoch(&self.history)
    }

    fn append_worklog(&self, text: &str) -> Result<(), RunError> {
        let path = self.path.join("worklog.txt");
        let file = OpenOptions::new().append(true).create(true).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(RunError::write(&path))
    }
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    write_atomically(path, |file| file.write_all(bytes)).map_err(RunError::write(path))
}
