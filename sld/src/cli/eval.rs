//! `sld eval`.

use super::device::DeviceArgs;
use super::session;
use crate::config::DatasetKind;
use crate::data::synthetic::{self, SyntheticConfig};
use crate::outln;
use crate::setting::Choice;
use crate::training::{Evaluator, snapshot};
use anyhow::Context;
use clap::Args;
use nn::checkpoint::{self, Checkpoint, NamedTensor, Scalar, TensorData};
use std::path::PathBuf;
use std::sync::Arc;

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
    DatasetKind::named(name)
}

/// The settings of the drawn task that the checkpoint was trained on, where it tells.
fn drawn_from(args: &EvalArgs) -> anyhow::Result<Option<SyntheticConfig>> {
    if args.dataset != DatasetKind::Synthetic {
        return Ok(None);
    }
    // What is wrong with the file is told when its weights are read.
    let Ok(checkpoint) = checkpoint::read(&args.checkpoint) else { return Ok(None) };
    let Some(Scalar::Text(recipe)) = checkpoint.extra.get(snapshot::RECIPE) else { return Ok(None) };
    let settings = SyntheticConfig::from_recipe(recipe);
    Ok(Some(settings.with_context(|| args.checkpoint.display().to_string())?))
}

/// Evaluates.
pub fn run(args: EvalArgs) -> anyhow::Result<()> {
    let splits = match drawn_from(&args)? {
        Some(settings) => synthetic::generate(&settings)?,
        None => session::load_splits(args.dataset, &args.data)?,
    };
    let images = Arc::new(if args.train_split { splits.train } else { splits.test });
    let model = nn::models::build(&args.model, images.classes().len(), 0)?;
    let device = args.device.open()?;
    snapshot::load_model(&*device, &model, &args.checkpoint)?;
    let size = [images.height(), images.width()];
    let mut evaluator = Evaluator::compile(&*device, &model, (args.batch as usize).min(images.len()), size)?;
    let (mut logits, mut labels) = (Vec::new(), Vec::new());
    let keep = args.logits.is_some();
    let result = evaluator.run(&images, 2, |batch, answers| {
        if keep {
            logits.extend_from_slice(batch);
            labels.extend(answers.iter().map(|&l| i64::from(l)));
        }
    })?;
    if let Some(path) = &args.logits {
        let tensors = vec![
            NamedTensor::f32("logits", &[result.images, model.classes()], logits),
            NamedTensor { name: "labels".into(), shape: vec![result.images], data: TensorData::I64(labels) },
        ];
        checkpoint::write_safetensors(path, &Checkpoint { tensors, ..Checkpoint::default() })?;
    }
    if args.json {
        let json = serde_json::json!({
            "model": model.name(), "images": result.images,
            "top1_correct": result.top1_correct, "top1": result.top1(),
            "top5_correct": result.top5_correct, "top5": result.top5(), "cross_entropy": result.loss,
        });
        outln!("{json}")?;
        return Ok(());
    }
    outln!("{} on {} ({} images, {})", model.name(), images.name(), result.images, device.name())?;
    outln!("top-1  {:6.2}%  {} of {}", result.top1(), result.top1_correct, result.images)?;
    outln!("top-5  {:6.2}%  {} of {}", result.top5(), result.top5_correct, result.images)?;
    outln!("cross entropy  {:.6}", result.loss)?;
    Ok(())
}
