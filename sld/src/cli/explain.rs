//! `sld explain`.

use super::device::DeviceArgs;
use super::session;
use crate::config::{Config, DatasetKind, Overrides};
use crate::training::step;
use crate::{out, outln};
use clap::Args;
use std::ffi::OsString;
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
    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Config keys and their values.
    #[arg(value_name = "KEY VALUE", allow_negative_numbers = true)]
    pub overrides: Vec<OsString>,
}

/// Explains.
pub fn run(args: ExplainArgs) -> anyhow::Result<()> {
    let overrides = Overrides::from_words(&args.overrides)?;
    let config = Config::load(&args.cfg, &overrides)?;
    let device = args.device.open()?;
    let networks = session::networks(&config, session::classes(config.dataset.kind))?;
    let side = if config.dataset.kind == DatasetKind::Imagenet { 224 } else { 32 };
    let batch = config.solver.batch_size as usize;
    let (step, _) = step::expressions(&networks, config.method(), batch, [side, side]);
    let schedule = step.schedule_with(device.options())?;
    match args.format {
        Format::Table => {
            outln!("{} step for {}, batch {batch}", config.method().name(), device.name())?;
            out!("{}", schedule.table())?;
        }
        Format::Mermaid => out!("{}", schedule.mermaid())?,
        Format::Graphviz => out!("{}", schedule.graphviz())?,
    }
    Ok(())
}

/// How to print a compiled step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A row a kernel.
    Table,
    /// A Mermaid flowchart.
    Mermaid,
    /// A Graphviz graph.
    Graphviz,
}
