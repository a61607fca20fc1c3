//! Several runs by one command. It goes on where it was stopped, and what is finished is not repeated.

use super::interrupt::Interrupted;
use super::running::{self, Job, Start};
use super::session::RunData;
use crate::cluster::Cluster;
use crate::config::{Config, decides};
use crate::experiment::Ended;
use crate::report::{self, Run};
use crate::{outln, say};
use anyhow::Context;
use nn::checkpoint::write_atomically;
use schedule::Device;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const TABLE: &str = "comparison.md";

/// Trains every config in its folder, and writes a table and a report of all into `output`.
///
/// # Errors
/// A run's; [`Interrupted`] after a stop.
pub fn train(
    cluster: &dyn Cluster,
    device: &dyn Device,
    output: &Path,
    runs: &[(PathBuf, Config)],
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    for (i, (folder, config)) in runs.iter().enumerate() {
        say!("\n[{}/{}] {}", i + 1, runs.len(), folder.display());
        // Rank 0 alone reads the folder.
        let finished = cluster.leads() && is_finished(folder, config);
        if cluster.broadcast(vec![u8::from(finished)])? == [1] {
            say!("finished before");
            continue;
        }
        let data = RunData::load(config)?;
        let start = Start::Resume { change: false };
        match running::train(cluster, &Job { device, config, folder, data: &data, start, stop, heading: "" })?
        {
            Ended::Finished(finished) => say!("{finished}"),
            Ended::Followed => continue,
            Ended::Interrupted => {
                say!("stopped; the same command goes on");
                return Err(Interrupted.into());
            }
        }
        // After every run, so that there is something to see of a series that takes days.
        write_results(output, &runs[..=i])?;
    }
    if cluster.leads() {
        outln!("\n{}", write_results(output, runs)?)?;
        say!("report: {}", output.join(report::FILE).display());
    }
    Ok(())
}

/// Whether the run in `folder` has done all its epochs under these settings.
fn is_finished(folder: &Path, config: &Config) -> bool {
    let decisive = |settings: &[String]| settings.iter().filter(|s| decides(s)).cloned().collect::<Vec<_>>();
    Run::read(folder).is_ok_and(|run| {
        let same = decisive(&run.info.settings) == decisive(&config.differences());
        run.evaluation.is_some() && run.epochs_left() == 0 && same
    })
}

/// Writes table and report of the runs, and gives the table.
fn write_results(output: &Path, runs: &[(PathBuf, Config)]) -> anyhow::Result<String> {
    let folders: Vec<&Path> = runs.iter().map(|run| run.0.as_path()).collect();
    let table = report::markdown(&report::write(&folders, &output.join(report::FILE))?.0);
    let path = output.join(TABLE);
    write_atomically(&path, |file| file.write_all(table.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(table)
}
