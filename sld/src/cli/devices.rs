//! `sld devices`.

use crate::cluster::cores;
use crate::outln;
use clap::Args;
use schedule::Device;

/// List the devices that can compute, and which one `auto` takes.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  sld devices\n  sld train --device gpu:0 --cfg F        the first GPU of the list\n  sld train --device nvidia --cfg F       the first with `nvidia` in its name\n\nA number or a part of a name chooses a GPU: --device gpu:1, --device nvidia."
)]
pub struct DevicesArgs {
    /// Print the list as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Lists.
pub fn run(args: DevicesArgs) -> anyhow::Result<()> {
    let adapters = gpu::adapters();
    let native = cpu::CpuDevice::new(cores::available()).name();
    let auto = adapters.iter().position(|adapter| !adapter.software);
    if args.json {
        let gpus: Vec<_> = adapters.iter().map(|a| a.to_string()).collect();
        outln!(
            "{}",
            serde_json::json!({ "cpu": native, "gpus": gpus, "auto": auto.map_or("cpu".into(), |i| format!("gpu:{i}")) })
        )?;
        return Ok(());
    }
    let mark = |chosen: bool| if chosen { "*" } else { " " };
    outln!("{} cpu     {native}", mark(auto.is_none()))?;
    for (number, adapter) in adapters.iter().enumerate() {
        outln!("{} gpu:{number}   {adapter}", mark(auto == Some(number)))?;
    }
    outln!("\n* is what --device auto takes.")?;
    if adapters.is_empty() {
        outln!(
            "No GPU driver was found. On Debian and Ubuntu: apt install mesa-vulkan-drivers, or the card maker's driver."
        )?;
    } else if auto.is_none() {
        outln!(
            "Only software drivers were found: they serve to test the shaders; the CPU device is several times faster."
        )?;
    }
    Ok(())
}
