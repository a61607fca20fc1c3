//! `sld` without a command.

use super::device::DeviceArgs;
use super::device::DeviceChoice;
use clap::Args;
use std::path::PathBuf;

/// The demonstration: a drawn task, a teacher, and a student alone, with KD and with SLD.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Folder for the runs and the report.
    #[arg(long, value_name = "DIR", default_value = "output/demo")]
    pub output: PathBuf,
    /// Seed of the task, the networks and the order of images.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub device: DeviceArgs,
}

impl Default for DemoArgs {
    fn default() -> Self {
        let device = DeviceArgs { device: DeviceChoice::Auto, threads: None };
        Self { output: "output/demo".into(), seed: 0, device }
    }
}

/// Runs the demonstration.
pub fn run(_args: DemoArgs) -> anyhow::Result<()> {
    anyhow::bail!("the demonstration is not built yet; `sld --help` shows the commands")
}
