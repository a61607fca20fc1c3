//! `report.html`: one self-contained file about a run, or about several side by side.
//!
//! The charts are SVG drawn here; style sheet and script are part of the file. Without the script
//! everything is shown except values under the pointer.

mod chart;
mod classes;
mod comparison;
mod confusion;
mod curves;
mod event;
mod frame;
mod html;
mod line;
mod page;
mod run;
mod scale;
mod swap;

use crate::run::RunError;
use nn::checkpoint::write_atomically;
use std::io::Write;
use std::path::Path;

pub use comparison::markdown;
pub use run::Run;

/// A report's name in the folder of what it is about.
pub const FILE: &str = "report.html";

/// The report as HTML.
///
/// # Panics
/// Without runs.
pub fn render(runs: &[Run]) -> String {
    assert!(!runs.is_empty(), "a report is about at least one run");
    page::page(&by_data(distinct(runs)))
}

/// Reads the runs' folders and writes the report. Gives the runs, and of folders without a finished epoch, which are left
/// out, why: a [`RunError::NoRun`] or [`RunError::NoEpoch`] for each.
///
/// # Errors
/// No folder has a finished epoch, one does not exist, a file is damaged or the report cannot be written.
pub fn write(folders: &[&Path], output: &Path) -> Result<(Vec<Run>, Vec<RunError>), RunError> {
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
    Ok((runs, skipped))
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
