//! A run's folder before the run: what is there, nothing of it changed.

use super::error::RunError;
use super::folder::{self, RunFolder, RunInfo};
use super::lock::RunLock;
use super::metrics::{EpochMetrics, MetricsLog, Reached, read_metrics};
use super::tensorboard::EventWriter;
use super::worklog;
use crate::config::{Config, Overrides};
use schedule::Device;
use std::path::{Path, PathBuf};

/// The state that a run goes on from.
pub const LATEST: &str = "latest";

/// The right to begin or go on with the run in a folder.
///
/// Until one of the two is done nothing in the folder is written, so that a run which cannot start leaves
/// all as it was.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    /// None where no run was ever begun: then there is nobody to keep out yet.
    lock: Option<RunLock>,
    logged: Vec<EpochMetrics>,
    /// Checkpoints that training can go on from, but for `latest`; then those of the student alone.
    states: Vec<String>,
    students: Vec<String>,
}

impl Claim {
    /// Claims a folder, which need not exist.
    ///
    /// # Errors
    /// It is in use, or cannot be read.
    pub fn new(path: &Path) -> Result<Self, RunError> {
        let lock = path.join(".lock").exists().then(|| RunLock::acquire(path)).transpose()?;
        let log = path.join("metrics.jsonl");
        let logged = if log.exists() { read_metrics(&log)? } else { Vec::new() };
        let (mut states, mut students) = (Vec::new(), Vec::new());
        if path.is_dir() {
            let unreadable = || RunError::read(path);
            for entry in std::fs::read_dir(path).map_err(unreadable())? {
                let name = entry.map_err(unreadable())?.file_name().to_string_lossy().into_owned();
                if name == "best" || name.starts_with("epoch_") {
                    states.push(name);
                } else if name.starts_with("student_") {
                    students.push(name);
                }
            }
        }
        states.sort();
        Ok(Self { path: path.into(), lock, logged, states, students })
    }

    /// The state to go on from, if there is one.
    pub fn latest(&self) -> Option<PathBuf> {
        Some(self.path.join(LATEST)).filter(|path| path.exists())
    }

    /// Whether nothing was trained here that a new run would overwrite.
    pub fn is_empty(&self) -> bool {
        self.logged.is_empty()
            && self.states.is_empty()
            && self.students.is_empty()
            && self.latest().is_none()
    }

    /// # Errors
    /// [`RunError::Exists`] if there is a run.
    pub fn require_empty(&self) -> Result<(), RunError> {
        match self.is_empty() {
            true => Ok(()),
            false => Err(RunError::Exists { folder: self.path.clone(), epochs: self.logged.len() }),
        }
    }

    /// That a run is here which lacks its `latest`.
    pub fn no_latest(&self) -> RunError {
        let (folder, epochs) = (self.path.clone(), self.logged.len());
        RunError::NoLatest { folder, epochs, states: self.states.clone() }
    }

    /// The config and the description that the run wrote; none where they are missing.
    ///
    /// # Errors
    /// One is damaged.
    pub fn recorded(&self) -> Result<Option<(Config, RunInfo)>, RunError> {
        let [place, info] = ["config.yaml", "run.json"].map(|name| self.path.join(name));
        if !(place.exists() && info.exists()) {
            return Ok(None);
        }
        let config = std::fs::read_to_string(&place).map_err(RunError::read(&place))?;
        let config = Config::parse(&config, &place, &Overrides::default())
            .map_err(|why| RunError::content(&place, None, why))?;
        Ok(Some((config, RunInfo::read(&self.path)?)))
    }

    /// Computes kernels as the run here did. To be done before its steps are compiled.
    ///
    /// # Errors
    /// The run's file cannot be read, or is not what a run wrote.
    pub fn choose_kernels(&self, device: &dyn Device) -> Result<(), RunError> {
        let path = self.path.join(folder::KERNELS);
        if !path.exists() {
            return Ok(());
        }
        let kernels = std::fs::read_to_string(&path).map_err(RunError::read(&path))?;
        device.choose(&kernels).map_err(|why| RunError::content(&path, None, why))
    }

    /// Makes the folder of a new run and writes what it is into it, with the config that it was made from, if one was. If that fails, a folder made for it is
    /// gone again.
    ///
    /// # Errors
    /// [`RunError::Exists`]; the folder is in use, or cannot be written.
    pub fn begin(self, config: Option<&Config>, info: &RunInfo) -> Result<RunFolder, RunError> {
        self.require_empty()?;
        let path = self.path.clone();
        let is_new = !path.exists();
        std::fs::create_dir_all(&path).map_err(RunError::write(&path))?;
        let begun = self.open(config, info, Reached { epoch: 0, step: 0 });
        if is_new && begun.is_err() {
            // It holds nothing but what could not be finished just now.
            let _ = std::fs::remove_dir_all(&path);
        }
        begun
    }

    /// Goes on with the run where its `latest` stands. What was logged after that is dropped: it will be
    /// measured again.
    ///
    /// # Errors
    /// There is no such folder, it is in use, or cannot be written.
    pub fn go_on(
        self,
        config: Option<&Config>,
        info: &RunInfo,
        reached: Reached,
    ) -> Result<RunFolder, RunError> {
        if !self.path.is_dir() {
            return Err(RunError::NoRun { folder: self.path });
        }
        self.open(config, info, reached)
    }

    fn open(self, config: Option<&Config>, info: &RunInfo, reached: Reached) -> Result<RunFolder, RunError> {
        let Self { path, lock, .. } = self;
        let mut lock = lock.map_or_else(|| RunLock::acquire(&path), Ok)?;
        lock.sign().map_err(RunError::write(&path))?;
        let (metrics, history) = MetricsLog::open(&path.join("metrics.jsonl"), reached.epoch)?;
        // The description first: it says what changes, and a crash before the config is written says it again.
        folder::write_info(&path, info)?;
        if let Some(config) = config {
            folder::replace(&path.join("config.yaml"), config.to_yaml().as_bytes())?;
        }
        folder::replace(&path.join("worklog.txt"), worklog::epochs(&history, &info.changes).as_bytes())?;
        let events = EventWriter::create(&path, reached)?;
        Ok(RunFolder::new(path, lock, metrics, history, info.changes.clone(), events))
    }
}
