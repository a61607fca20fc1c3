//! What a run came to.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::report;
use crate::run::{RunError, epochs_in_words};

/// What a finished run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Of the run.
    pub folder: PathBuf,
    /// How many were done.
    pub epochs: usize,
    /// The last epoch that was better than all before, if none for too long since then is why the run ended.
    pub exhausted: Option<usize>,
    /// On the test images, after the last epoch.
    pub top1: f64,
    /// The same of the five likeliest classes.
    pub top5: f64,
    /// The best epoch, counted from 1.
    pub best_epoch: usize,
    /// Its top-1 on the test images.
    pub best: f64,
    /// Its top-1 on the held-out images, where they chose it and not the test images.
    pub best_held_out: Option<f64>,
    /// Of this process, compiling included.
    pub seconds: f64,
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let epochs = epochs_in_words(self.epochs);
        write!(f, "top-1 {:.2}%, top-5 {:.2}% after {epochs}; ", self.top1, self.top5)?;
        write!(f, "best {:.2}% in epoch {}", self.best, self.best_epoch)?;
        if let Some(held_out) = self.best_held_out {
            write!(f, ",\nchosen by the held-out training images, {held_out:.2}% of which it knows")?;
        }
        if let Some(epoch) = self.exhausted {
            write!(f, "\nstopped early: no epoch since {epoch} was better (SOLVER.PATIENCE)")?;
        }
        write!(f, "\nreport: {}", self.folder.join(report::FILE).display())
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// After its last epoch.
    Finished(Finished),
    /// Between two steps; everything is saved.
    Interrupted,
    /// Whatever came of it: rank 0 knows, and this process is another.
    Followed,
}

/// Writes the report of the run in `folder`.
pub fn write_report(folder: &Path) -> Result<(), RunError> {
    report::write(&[folder], &folder.join(report::FILE)).map(|_| ())
}
