//! `sld convert`.

use crate::outln;
use clap::Args;
use nn::checkpoint;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  sld convert ckpt_epoch_240.pth teacher.safetensors     PyTorch, either container, to safetensors
  sld convert student_best student.pth                   for PyTorch: torch.load(\"student.pth\")[\"model\"]

Names, shapes and values of the tensors stay as they are.";

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
    let checkpoint = checkpoint::read(&args.input)?;
    match args.output.extension().and_then(|e| e.to_str()) {
        Some("safetensors") => checkpoint::write_safetensors(&args.output, &checkpoint)?,
        Some("pth" | "pt") => checkpoint::write_pth(&args.output, &checkpoint)?,
        _ => anyhow::bail!("{}: the ending says the format; use .safetensors or .pth", args.output.display()),
    }
    outln!("{}: {} tensors", args.output.display(), checkpoint.tensors.len())?;
    Ok(())
}
