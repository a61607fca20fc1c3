//! `sld bench`.

use super::device::DeviceArgs;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Measure the speed of operations, steps and augmentation.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Clone, Subcommand)]
pub enum What {
    Ops(OpsArgs),
    Step(StepArgs),
    Augment(AugmentArgs),
}

/// Time single operations, beside what the machine could do.
#[derive(Debug, Clone, Args)]
pub struct OpsArgs {
    /// Only operations whose name contains this text.
    #[arg(value_name = "FILTER")]
    pub filter: Option<String>,
    #[command(flatten)]
    pub timing: Timing,
}

const STEP_EXAMPLES: &str = "\
Examples:
  sld bench step --teacher resnet32x4 --student resnet8x4           an SLD step
  sld bench step --vanilla resnet20 --threads 1                     a cross-entropy step
  sld bench step --eval resnet32x4 --json                           a forward pass";

/// Time whole training steps, or a forward pass.
#[derive(Debug, Clone, Args)]
#[command(after_help = STEP_EXAMPLES)]
#[command(group = clap::ArgGroup::new("step").required(true).args(["teacher", "vanilla", "eval"]))]
pub struct StepArgs {
    /// The teacher of an SLD step.
    #[arg(long, value_name = "MODEL", requires = "student")]
    pub teacher: Option<String>,
    /// The student of an SLD step.
    #[arg(long, value_name = "MODEL", requires = "teacher")]
    pub student: Option<String>,
    /// A step of cross entropy alone.
    #[arg(long, value_name = "MODEL")]
    pub vanilla: Option<String>,
    /// A forward pass in evaluation mode.
    #[arg(long, value_name = "MODEL")]
    pub eval: Option<String>,
    /// Images in a batch.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Number of classes.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub classes: u32,
    /// Show the time of each kernel.
    #[arg(long)]
    pub profile: bool,
    #[command(flatten)]
    pub timing: Timing,
}

/// Time the two views: decoding, crop, flip, RandAugment, Cutout, normalisation.
#[derive(Debug, Clone, Args)]
pub struct AugmentArgs {
    /// Images to use; random ones if not given.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub timing: Timing,
}

/// How to measure and print.
#[derive(Debug, Clone, Args)]
pub struct Timing {
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Measured repetitions, after a warm-up.
    #[arg(long, value_name = "K", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub iterations: u32,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Measures.
pub fn run(_args: BenchArgs) -> anyhow::Result<()> {
    anyhow::bail!("benchmarks are not built yet")
}
