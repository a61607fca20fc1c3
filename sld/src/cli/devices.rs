//! `sld devices`.

use clap::Args;

/// List the devices that can compute, and which one `auto` takes.
#[derive(Debug, Clone, Args)]
#[command(after_help = "The name, or a part of it, goes after gpu: in --device gpu:NAME.")]
pub struct DevicesArgs {
    /// Print the list as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Lists.
pub fn run(_args: DevicesArgs) -> anyhow::Result<()> {
    anyhow::bail!("listing devices is not built yet")
}
