//! `report.html`: one self-contained file about a run, or about several side by side.
//!
//! The charts are SVG drawn here; style sheet and script are part of the file. Without the script
//! everything is shown except values under the pointer.

mod chart;
mod classes;
mod comparison;
mod confusion;
mod curves;
mod frame;
mod html;
mod line;
mod page;
mod scale;
mod swap;

use crate::distill::Method;
use crate::run::{EpochMetrics, Evaluation, RunError, RunInfo, best_epoch, read_metrics};
use nn::checkpoint::write_atomically;
use std::io::Write;
use std::path::Path;

/// What a report knows about one run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Short, unique within a report.
    pub name: String,
    pub info: RunInfo,
    /// At least one epoch.
    pub metrics: Vec<EpochMetrics>,
    /// There at the end of a run only.
    pub evaluation: Option<Evaluation>,
    /// The resolved config, as YAML.
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
            config: std::fs::read_to_string(&config)
                .map_err(|source| RunError::Read { path: config, source })?,
        })
    }

    /// The last finished epoch.
    fn last(&self) -> &EpochMetrics {
        &self.metrics[self.metrics.len() - 1]
    }

    /// The best epoch, by the rule of [`best_epoch`].
    fn best(&self) -> &EpochMetrics {
        let best = best_epoch(&self.metrics).map(|best| best.epoch);
        self.metrics.iter().find(|metrics| Some(metrics.epoch) == best).unwrap_or_else(|| self.last())
    }

    /// Whether two runs were tested on the same images, as far as is known.
    fn same_test(&self, other: &Self) -> bool {
        let (a, b) = (&self.info, &other.info);
        let unknown = a.test_digest.is_empty() || b.test_digest.is_empty();
        (&a.dataset, a.test_images) == (&b.dataset, b.test_images)
            && (unknown || a.test_digest == b.test_digest)
    }

    fn seconds(&self) -> f64 {
        self.metrics.iter().map(|metrics| metrics.seconds).sum()
    }

    /// The method in words.
    fn method(&self) -> &str {
        let name = &self.info.distiller;
        Method::find(name).map_or(name, |method| method.make().about().title)
    }
}

/// The report as HTML.
///
/// # Panics
/// Without runs.
pub fn render(runs: &[Run]) -> String {
    assert!(!runs.is_empty(), "a report is about at least one run");
    page::page(&by_data(distinct(runs)))
}

/// Reads the runs' folders and writes the report. Folders without a finished epoch are left out: gives why,
/// a [`RunError::NoRun`] or [`RunError::NoEpoch`] for each.
///
/// # Errors
/// No folder has a finished epoch, one does not exist, a file is damaged or the report cannot be written.
pub fn write(folders: &[&Path], output: &Path) -> Result<Vec<RunError>, RunError> {
    let (mut runs, mut skipped) = (Vec::new(), Vec::new());
    for folder in folders {
        match Run::read(folder) {
            Ok(run) => runs.push(run),
            Err(why @ (RunError::NoRun { .. } | RunError::NoEpoch { .. })) => skipped.push(why),
            Err(why) => return Err(why),
        }
    }
    if runs.is_empty() {
        return Err(match skipped.len() {
            1 => skipped.remove(0),
            _ => RunError::NothingToReport { skipped },
        });
    }
    let html = render(&runs);
    write_atomically(output, |file| file.write_all(html.as_bytes()))
        .map_err(|source| RunError::Write { path: output.into(), source })?;
    Ok(skipped)
}

/// The runs that were tested on the same images, together: only those can be held against each other.
fn by_data(runs: Vec<Run>) -> Vec<Vec<Run>> {
    let mut groups: Vec<Vec<Run>> = Vec::new();
    for run in runs {
        match groups.iter_mut().find(|group| group.iter().all(|other| run.same_test(other))) {
            Some(group) => group.push(run),
            None => groups.push(vec![run]),
        }
    }
    groups
}

/// The runs, with a number after names that occur more than once.
fn distinct(runs: &[Run]) -> Vec<Run> {
    let mut named = runs.to_vec();
    for (i, run) in named.iter_mut().enumerate() {
        let twins = |other: &&Run| other.name == runs[i].name;
        if runs.iter().filter(twins).count() > 1 {
            run.name += &format!(" ({})", runs[..=i].iter().filter(twins).count());
        }
    }
    named
}
