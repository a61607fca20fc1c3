//! A run as a report knows it: what its folder holds.

use crate::distill::Method;
use crate::run::{EpochMetrics, Evaluation, RunError, RunInfo, best_epoch, exhausted, read_metrics};
use std::path::Path;

/// What a report knows about one run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Short, unique within a report.
    pub name: String,
    /// What `run.json` says.
    pub info: RunInfo,
    /// At least one epoch.
    pub metrics: Vec<EpochMetrics>,
    /// There at the end of a run only.
    pub evaluation: Option<Evaluation>,
    /// The resolved config, as YAML; empty for a program's run, which has none.
    pub config: String,
}

impl Run {
    /// Reads a run's folder; the run may still be going on.
    ///
    /// # Errors
    /// The folder does not exist or holds no run, no epoch is finished, or a file is damaged.
    pub fn read(folder: &Path) -> Result<Self, RunError> {
        folder.metadata().map_err(|source| RunError::Read { path: folder.into(), source })?;
        let log = folder.join("metrics.jsonl");
        if !log.is_file() {
            return Err(RunError::NoRun { folder: folder.into() });
        }
        let metrics = read_metrics(&log)?;
        if metrics.is_empty() {
            return Err(RunError::NoEpoch { folder: folder.into() });
        }
        let config = folder.join("config.yaml");
        let evaluation = folder.join("evaluation.json");
        let evaluation = evaluation.exists().then(|| Evaluation::read(&evaluation)).transpose()?;
        let name = folder
            .canonicalize()
            .ok()
            .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        Ok(Self {
            name: name.unwrap_or_else(|| folder.display().to_string()),
            info: RunInfo::read(folder)?,
            metrics,
            evaluation,
            config: match config.exists() {
                true => std::fs::read_to_string(&config)
                    .map_err(|source| RunError::Read { path: config, source })?,
                false => String::new(),
            },
        })
    }

    /// The last finished epoch.
    pub(super) fn last(&self) -> &EpochMetrics {
        &self.metrics[self.metrics.len() - 1]
    }

    /// Epochs that are still to come: none if the run's patience has ended it.
    pub fn epochs_left(&self) -> u32 {
        match exhausted(&self.metrics, self.info.patience) {
            Some(_) => 0,
            None => self.info.epochs.saturating_sub(self.last().epoch),
        }
    }

    /// The best epoch, by the rule of [`best_epoch`].
    pub(super) fn best(&self) -> &EpochMetrics {
        let best = best_epoch(&self.metrics).map(|best| best.epoch);
        self.metrics.iter().find(|metrics| Some(metrics.epoch) == best).unwrap_or_else(|| self.last())
    }

    /// Whether two runs were tested on the same images, as far as is known.
    pub(super) fn same_test(&self, other: &Self) -> bool {
        let (a, b) = (&self.info, &other.info);
        let unknown = a.test_digest.is_empty() || b.test_digest.is_empty();
        (&a.dataset, a.test_images) == (&b.dataset, b.test_images)
            && (unknown || a.test_digest == b.test_digest)
    }

    pub(super) fn seconds(&self) -> f64 {
        self.metrics.iter().map(|metrics| metrics.seconds).sum()
    }

    /// The method in words.
    pub(super) fn method(&self) -> String {
        let name = &self.info.distiller;
        let title = Method::find(name).map_or(name.as_str(), |method| method.make().about().title);
        let dot =
            self.info.settings.iter().any(|line| line.starts_with("SOLVER.TRAINER") && line.contains("dot"));
        if dot { format!("{title} + DOT") } else { title.into() }
    }
}
