//! `sld convert`.

use crate::outln;
use clap::Args;
use nn::checkpoint;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  sld convert ckpt_epoch_240.pth teacher.safetensors     PyTorch, either container, to safetensors
  sld convert student_best student.pth                   for PyTorch: torch.load(\"student.pth\")[\"model\"]
  sld convert --part teacher latest teacher.pth          one network of a trainer's state

Names, shapes and values of the tensors stay as they are. What is neither a tensor, a single value nor the state of \
SGD is left out and named.";

/// Convert a checkpoint between PyTorch (.pth) and safetensors.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ConvertArgs {
    /// The checkpoint to read; its format is recognised by its content.
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// The file to write; its ending (.safetensors, .pth) says the format.
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// Take one part alone: the dict of tensors under this key, or the submodule of this name.
    #[arg(long, value_name = "NAME")]
    pub part: Option<String>,
    /// Replace OUT if it exists.
    #[arg(long)]
    pub force: bool,
}

/// Converts.
pub fn run(args: ConvertArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.force || !args.output.exists(),
        "{} exists; choose another name or give --force",
        args.output.display()
    );
    let checkpoint = match &args.part {
        None => checkpoint::read(&args.input)?,
        Some(part) => checkpoint::read_part(&args.input, part)?,
    };
    anyhow::ensure!(!checkpoint.tensors.is_empty(), "{}: holds no tensors", args.input.display());
    match args.output.extension().and_then(|e| e.to_str()) {
        Some("safetensors") => checkpoint::write_safetensors(&args.output, &checkpoint)?,
        Some("pth" | "pt") => checkpoint::write_pth(&args.output, &checkpoint)?,
        _ => anyhow::bail!("{}: the ending says the format; use .safetensors or .pth", args.output.display()),
    }
    let count = checkpoint.tensors.len();
    outln!("{}: {count} tensor{}", args.output.display(), if count == 1 { "" } else { "s" })?;
    for note in &checkpoint.notes {
        outln!("{}: {note}", args.input.display())?;
    }
    for left_out in &checkpoint.left_out {
        outln!("left out: {left_out}")?;
    }
    Ok(())
}
