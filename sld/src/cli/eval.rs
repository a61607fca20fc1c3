//! `sld eval`.

use super::device::DeviceArgs;
use crate::config::DatasetKind;
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  sld eval -m resnet20 -c teacher.pth --data data
  sld eval -m resnet8x4 -c output/cifar100_baselines/sld,resnet32x4,resnet8x4/student_best
  sld eval -m resnet20 -c teacher.pth --logits logits.safetensors

Top-1 is the share of images whose largest output is the true class, top-5 the share whose true class is among \
the five largest.";

/// Measure a checkpoint on the test images: top-1, top-5, cross entropy.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct EvalArgs {
    /// The network's name; `sld models` lists them.
    #[arg(short, long, value_name = "MODEL")]
    pub model: String,
    /// Its weights: .pth, .safetensors or a checkpoint of `sld train`.
    #[arg(short, long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    /// Folder or archive with the images.
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
    /// Which data set it is.
    #[arg(long, value_name = "NAME", default_value = "cifar100", value_parser = dataset)]
    pub dataset: DatasetKind,
    /// Measure on the training images, without augmentation, instead.
    #[arg(long)]
    pub train_split: bool,
    /// Images in a batch. No effect on the result.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Write the outputs (logits, labels) to this safetensors file.
    #[arg(long, value_name = "OUT.safetensors")]
    pub logits: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
}

fn dataset(name: &str) -> Result<DatasetKind, String> {
    DatasetKind::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = DatasetKind::ALL.iter().map(|kind| kind.name()).collect();
        format!("choose one of {}", names.join(", "))
    })
}

/// Evaluates.
pub fn run(_args: EvalArgs) -> anyhow::Result<()> {
    anyhow::bail!("evaluation is not built yet")
}
