//! `sld models`.

use clap::Args;

/// List the networks, their parameters and multiplications.
#[derive(Debug, Clone, Args)]
pub struct ModelsArgs {
    /// Only names that contain this text.
    #[arg(value_name = "FILTER")]
    pub filter: Option<String>,
    /// Number of classes to count the parameters for.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub classes: u32,
    /// Print the list as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Lists.
pub fn run(_args: ModelsArgs) -> anyhow::Result<()> {
    anyhow::bail!("listing models is not built yet")
}
