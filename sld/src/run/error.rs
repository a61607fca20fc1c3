//! What can go wrong with a run's folder, and what to do.

use std::io;
use std::path::{Path, PathBuf};

/// Why a run's folder could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Someone else is writing there.
    #[error("another run{} is writing to {}: wait for it, stop it, or choose another folder with --output", by(*.process), folder.display())]
    InUse {
        /// The run's folder.
        folder: PathBuf,
        /// Whose lock it is, where it says so.
        process: Option<u32>,
    },
    /// There is a run, and this one would overwrite it.
    #[error("{} already holds a run of {}: go on with --resume, or choose another folder with --output", folder.display(), epochs_in_words(*.epochs))]
    Exists {
        /// The run's folder.
        folder: PathBuf,
        /// Epochs that it has finished.
        epochs: usize,
    },
    /// There is a run, but not the state from which it could go on.
    #[error("{} holds a run of {}, but no `latest` to go on from: {}choose another folder with --output", folder.display(), epochs_in_words(*.epochs), other_states(folder, states))]
    NoLatest {
        /// The run's folder.
        folder: PathBuf,
        /// Epochs that it has finished.
        epochs: usize,
        /// Other checkpoints there from which training could go on.
        states: Vec<String>,
    },
    /// Writing failed.
    #[error("cannot write {}: {source}{}", path.display(), remedy(.source))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Reading failed.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what this program writes.
    #[error("{}{}: {reason}", path.display(), at(*.line))]
    Content {
        /// The file.
        path: PathBuf,
        /// Counted from 1, where one line is to blame.
        line: Option<usize>,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder holds no run.
    #[error("{} holds no run: there is no metrics.jsonl in it; give the folder that `sld train` printed", folder.display())]
    NoRun {
        /// What was given.
        folder: PathBuf,
    },
    /// The folder's run has only begun.
    #[error("no epoch is finished yet in {}: wait for the first", folder.display())]
    NoEpoch {
        /// The run's folder.
        folder: PathBuf,
    },
    /// Of several folders none can be reported on.
    #[error("nothing to report on:{}", lines(.skipped))]
    NothingToReport {
        /// Why not, of each.
        skipped: Vec<RunError>,
    },
}

impl RunError {
    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Write { path, source }
    }

    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Read { path, source }
    }

    pub(super) fn content(path: &Path, line: Option<usize>, reason: impl ToString) -> Self {
        Self::Content { path: path.to_path_buf(), line, reason: reason.to_string() }
    }
}

/// "3 epochs", "1 epoch"; of a run stopped in its first, "less than an epoch".
pub fn epochs_in_words(epochs: usize) -> String {
    match epochs {
        0 => "less than an epoch".into(),
        1 => "1 epoch".into(),
        _ => format!("{epochs} epochs"),
    }
}

fn other_states(folder: &Path, states: &[String]) -> String {
    match states.first() {
        Some(state) => format!(
            "copy another checkpoint there to go on from that ({}: cp {} {}), or ",
            states.join(", "),
            folder.join(state).display(),
            folder.join("latest").display()
        ),
        None => String::new(),
    }
}

fn by(process: Option<u32>) -> String {
    process.map(|id| format!(" (process {id})")).unwrap_or_default()
}

fn at(line: Option<usize>) -> String {
    line.map(|number| format!(", line {number}")).unwrap_or_default()
}

fn lines(errors: &[RunError]) -> String {
    errors.iter().map(|error| format!("\n  {error}")).collect()
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space, then go on with --resume: what was saved before is whole"
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            "; choose a folder that can be written with --output"
        }
        _ => "",
    }
}
