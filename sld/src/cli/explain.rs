//! `sld explain`.

use super::device::DeviceArgs;
use super::session;
use crate::config::{Config, Overrides};
use crate::data::loader::part;
use crate::training::memory::shown;
use crate::training::step;
use crate::training::{Memory, Networks};
use crate::{out, outln, warn};
use clap::Args;
use schedule::{Device, Step};
use std::ffi::OsString;
use std::path::PathBuf;

const EXAMPLES: &str = "\
A training step is compiled once into a list of fused kernels with a fixed plan of memory, and replayed for every \
batch. This prints that list, or how data flow through it.

Examples:
  sld explain --cfg configs/cifar100/sld/res32x4_res8x4.yaml
  sld explain --cfg configs/cifar100/sld/res32x4_res8x4.yaml --format graphviz | dot -Tsvg > step.svg
  sld explain --cfg configs/cifar100/sld/res32x4_res8x4.yaml --format launches --device gpu --precision mixed
  sld explain --cfg configs/cifar100/sld/res32x4_res8x4.yaml --wgsl \"student layer1.0.conv1\"";

/// Show the compiled training step of a config: kernels, fusion, memory, shaders.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExplainArgs {
    /// The config file.
    #[arg(long, value_name = "FILE")]
    pub cfg: PathBuf,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Print a kernel's shader: by a text in its row of the table, such as "student fc", or its number there;
    /// an unknown one prints the table. For the GPU given by --device, else for the least that WebGPU guarantees.
    #[arg(long, value_name = "KERNEL", conflicts_with = "format")]
    pub wgsl: Option<String>,
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
    let images = session::Images::of(&config);
    let networks = session::networks(&config, images)?;
    let (batch, parts) = (config.solver.batch_size as usize, config.solver.accumulate as usize);
    let (step, update) = step::in_parts(&networks, config.method(), batch, parts, images.size);
    if let Some(wanted) = &args.wgsl {
        return print_shader(&*device, &step, wanted);
    }
    let schedule = step.schedule_with(device.options())?;
    match args.format {
        Format::Table => {
            let in_parts = match parts {
                1 => String::new(),
                _ => format!(", in parts of {}", part(batch, parts, 0).len()),
            };
            outln!("{} step for {}, batch {batch}{in_parts}", config.method().name(), device.name())?;
            out!("{}", schedule.table())?;
            if let Some(update) = &update {
                outln!("the update that follows the parts")?;
                out!("{}", update.schedule_with(device.options())?.table())?;
            }
            print_memory(&*device, &networks, &config, images.size)?;
        }
        Format::Launches => {
            let text = match device.launches(&schedule)? {
                Some(text) => text,
                None => gpu::webgpu_launches(&step.schedule_with(gpu::webgpu_options())?)?,
            };
            out!("{text}")?;
        }
        Format::Mermaid => out!("{}", schedule.mermaid())?,
        Format::Graphviz => out!("{}", schedule.graphviz())?,
    }
    Ok(())
}

/// Prints the memory that training takes, in as many parts as the config says and in more.
fn print_memory(
    device: &dyn Device,
    networks: &Networks,
    config: &Config,
    image: [usize; 2],
) -> anyhow::Result<()> {
    let (batch, parts) = (config.solver.batch_size as usize, config.solver.accumulate as usize);
    outln!("memory on the device, without what kernels keep for themselves")?;
    for parts in [1, 2, 4, 8].map(|times| times * parts).into_iter().filter(|&parts| parts <= batch) {
        let memory = Memory::of_training(device, networks, config.method(), batch, parts, image)?;
        let [total, state, step] = [memory.total(), memory.state, memory.step].map(shown);
        outln!(
            "  SOLVER.ACCUMULATE {parts:<4} {total:>9}: {state} of state, {step} for a part of the batch"
        )?;
    }
    Ok(())
}

/// Prints the shader of the first kernel that `wanted` fits.
fn print_shader(device: &dyn Device, step: &Step, wanted: &str) -> anyhow::Result<()> {
    let own = step.schedule_with(device.options())?;
    let has_shaders = match own.kernels.first() {
        Some(kernel) => device.source(&own, kernel)?.is_some(),
        None => false,
    };
    // Where kernels are part of the device: what the least of GPUs would run.
    let (schedule, target) = match has_shaders {
        true => (own, device.name()),
        false => (step.schedule_with(gpu::webgpu_options())?, "WebGPU's least limits".to_owned()),
    };
    let found = schedule.find(wanted);
    let Some((number, kernel)) = found.first() else {
        anyhow::bail!("no kernel `{wanted}`: these are the kernels for {target}\n{}", schedule.table());
    };
    if found.len() > 1 {
        let others: Vec<&str> = found[1..].iter().map(|(number, _)| number.as_str()).collect();
        warn!(
            "{} kernels fit `{wanted}`: this is {number}, the others are {}",
            found.len(),
            others.join(", ")
        );
    }
    let text = match device.source(&schedule, kernel)? {
        Some(text) => text,
        None => gpu::webgpu_source(&schedule, kernel)?,
    };
    outln!("// kernel {number}: {}, for {target}", kernel.label)?;
    out!("{text}")?;
    Ok(())
}

/// How to print a compiled step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A row a kernel, by part of the step and layer.
    Table,
    /// The table with what each kernel launches on the GPU given by --device, else on the least that WebGPU guarantees:
    /// each launch's workgroups, and the bytes that they reach.
    Launches,
    /// A Mermaid flowchart, folded to layers.
    Mermaid,
    /// A Graphviz graph, folded to layers.
    Graphviz,
}
