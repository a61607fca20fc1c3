//! `sld explain`.

use super::device::DeviceArgs;
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
A training step is compiled once into a list of fused kernels with a fixed plan of memory, and replayed for every \
batch. This prints that list.

Examples:
  sld explain --cfg configs/cifar100/sld/res32x4_res8x4.yaml
  sld explain --cfg configs/cifar100/sld/res32x4_res8x4.yaml SOLVER.BATCH_SIZE 8";

/// Show the compiled training step of a config: kernels, fusion, memory.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExplainArgs {
    /// The config file.
    #[arg(long, value_name = "FILE")]
    pub cfg: PathBuf,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Config keys and their values.
    #[arg(value_name = "KEY VALUE", allow_negative_numbers = true)]
    pub overrides: Vec<String>,
}

/// Explains.
pub fn run(_args: ExplainArgs) -> anyhow::Result<()> {
    anyhow::bail!("explaining a step is not built yet")
}
