//! `sld export`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use autograd::Tensor;
use clap::Args;
use nn::onnx::{self, BATCH};
use nn::{Forward, checkpoint};

use super::weights::{SightArgs, Weights};
use crate::outln;

const EXAMPLES: &str = "\
Examples:
  sld export output/.../student_best student.onnx              a run's student
  sld export teacher.pth teacher.onnx -m resnet56 --size 32    another's checkpoint
  sld export student_best student.onnx --levels                normalises by itself

The input `images` is [batch, 3, height, width], red, green and blue, normalised as in training unless --levels is \
given; the output `logits` is [batch, classes]. Batch norm is folded into the convolutions, and the file's properties \
tell the model, its classes, and how it sees pictures.";

/// Write a network as an ONNX model, for onnxruntime and whatever else reads it.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExportArgs {
    /// The network's weights: .pth, .safetensors or a checkpoint of `sld train`.
    #[arg(value_name = "CHECKPOINT")]
    pub checkpoint: PathBuf,
    /// The file to write; ends in .onnx.
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// The network's name, where the checkpoint does not tell; `sld models` lists them.
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Let the model take levels from 0 to 1 and normalise them itself.
    #[arg(long)]
    pub levels: bool,
    /// Replace OUT if it exists.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub sight: SightArgs,
}

/// Exports.
pub fn run(args: ExportArgs) -> anyhow::Result<()> {
    let place = args.output.display();
    ensure!(
        args.output.extension().is_some_and(|ending| ending == "onnx"),
        "{place}: the file is to end in .onnx (`sld convert` writes .pth and .safetensors)"
    );
    ensure!(args.force || !args.output.exists(), "{place} exists; choose another name or give --force");
    let weights = Weights::read(&args.checkpoint, args.model.as_deref())?;
    let sight = args.sight.sight(&weights)?;
    let names = args.sight.class_names(&weights)?;
    let device = cpu::CpuDevice::new(1);
    let model = weights.load(&device, names.len())?;

    let side = sight.side;
    let images = Tensor::input("images", &[BATCH, side, side, model.channels()]);
    let normalization = sight.normalization;
    let normalized = match args.levels {
        true => {
            let channels = |values: [f32; 3]| Tensor::constant(&[3], values.to_vec());
            (&images - channels(normalization.mean)) / channels(normalization.std)
        }
        false => images,
    };
    let logits = model.forward(&normalized, &mut Forward::eval()).logits;
    let properties = [
        ("model", weights.name.clone()),
        ("classes", serde_json::to_string(&names)?),
        ("resize", sight.resize.to_string()),
        ("mean", serde_json::to_string(&normalization.mean)?),
        ("std", serde_json::to_string(&normalization.std)?),
        (
            "input",
            if args.levels { "levels from 0 to 1" } else { "(levels from 0 to 1 - mean) / std" }.into(),
        ),
    ];
    let properties: Vec<(&str, &str)> =
        properties.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let bytes = onnx::expression(&weights.name, &[("logits", &logits)], &device, &properties)
        .with_context(|| format!("exporting {} for images of {side}x{side}", weights.name))?;
    checkpoint::write_atomically(&args.output, |file| file.write_all(&bytes))
        .with_context(|| format!("cannot write {place}"))?;
    outln!(
        "{place}: {} of {} classes, images [batch, {}, {side}, {side}] {}, {:.1} MiB",
        weights.name,
        names.len(),
        model.channels(),
        if args.levels { "in levels from 0 to 1" } else { "normalised" },
        bytes.len() as f64 / f64::from(1 << 20)
    )?;
    Ok(())
}
