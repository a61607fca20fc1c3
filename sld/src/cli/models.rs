//! `sld models`.

use crate::distill::Vanilla;
use crate::outln;
use crate::training::{Networks, Setup, step};
use clap::Args;

const EXAMPLES: &str = "\
Examples:
  sld models                       every network
  sld models resnet                those with `resnet` in their name
  sld models --classes 10          as they are for CIFAR-10";

/// List the networks, their parameters and multiplications.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ModelsArgs {
    /// Only names that contain this text.
    #[arg(value_name = "FILTER")]
    pub filter: Option<String>,
    /// Number of classes to count the parameters for.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub classes: u32,
    /// Print the list as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Lists.
pub fn run(args: ModelsArgs) -> anyhow::Result<()> {
    let wanted =
        |name: &&str| args.filter.as_ref().is_none_or(|f| name.to_lowercase().contains(&f.to_lowercase()));
    let mut rows = Vec::new();
    let names: Vec<&str> = nn::models::names().filter(wanted).collect();
    if let (true, Some(filter)) = (names.is_empty(), &args.filter) {
        let hint = nn::suggest::hint(filter, nn::models::names().collect::<Vec<_>>());
        anyhow::bail!("no network has \"{filter}\" in its name{hint}");
    }
    for name in names {
        rows.push(Row::new(name, args.classes as usize)?);
    }
    if args.json {
        outln!("{}", serde_json::to_string_pretty(&rows)?)?;
        return Ok(());
    }
    outln!(
        "{:<24} {:>12} {:>10} {:>9} {:>14}  images",
        "model",
        "parameters",
        "MACs (M)",
        "MiB",
        "training (MiB)"
    )?;
    for row in rows {
        outln!(
            "{:<24} {:>12} {:>10.1} {:>9.1} {:>14.0}  {}x{}",
            row.model,
            row.parameters,
            row.macs as f64 / 1e6,
            row.bytes as f64 / 1048576.0,
            row.training_bytes as f64 / 1048576.0,
            row.side,
            row.side
        )?;
    }
    outln!(
        "\nMACs: multiply-adds of one image. training: a cross-entropy step at batch {BATCH}, weights and momenta included."
    )?;
    Ok(())
}

/// The batch that memory is given for (a few images for 224-pixel networks would say little, so the same).
const BATCH: usize = 64;

/// A model card.
#[derive(serde::Serialize)]
struct Row {
    model: String,
    parameters: usize,
    macs: u64,
    /// Of the weights and buffers.
    bytes: u64,
    /// Of a training step at batch 64: working memory, weights, momenta, images.
    training_bytes: u64,
    side: usize,
}

impl Row {
    fn new(name: &str, classes: usize) -> anyhow::Result<Row> {
        let side = nn::models::side(name);
        let student = nn::models::build(name, classes, 0)?;
        let bytes = 4 * student.state().iter().map(|e| e.variable.len() as u64).sum::<u64>();
        let (parameters, macs) = (student.parameter_count(), student.macs(side, side)?);
        let setup = Setup { size: [side, side], ..Setup::default() };
        let networks = Networks::new(student, None, &Vanilla {}, setup)?;
        let (step, _) = step::expressions(&networks, &Vanilla {}, BATCH, [side, side]);
        let working = step.schedule()?.working_bytes();
        let images = 4 * (BATCH * side * side * 3) as u64;
        Ok(Row {
            model: name.into(),
            parameters,
            macs,
            bytes,
            training_bytes: working + bytes + 4 * parameters as u64 + images,
            side,
        })
    }
}
