//! `sld report`.

use crate::{outln, warn};
use clap::Args;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  sld report output/cifar100_baselines/sld,resnet32x4,resnet8x4
  sld report -o comparison.html runs/alone runs/kd runs/sld";

/// Write one self-contained HTML file about a run, or several side by side.
///
/// Folders without a finished epoch are skipped, and named.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    /// Folders of runs.
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// The file to write; report.html in the run's folder, or here for several runs.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Writes the report.
pub fn run(args: ReportArgs) -> anyhow::Result<()> {
    let folders: Vec<&Path> = args.runs.iter().map(PathBuf::as_path).collect();
    let output = args.output.unwrap_or_else(|| match folders.as_slice() {
        [run] => run.join(crate::report::FILE),
        _ => PathBuf::from(crate::report::FILE),
    });
    for why in crate::report::write(&folders, &output)?.1 {
        warn!("skipped: {why}");
    }
    outln!("{}", output.display())?;
    Ok(())
}
