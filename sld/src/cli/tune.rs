//! `sld tune`.

use super::device::{DeviceArgs, Tune, kernels_folder};
use super::session;
use crate::config::{Config, Overrides};
use crate::outln;
use crate::training::batches::Batches;
use crate::training::{Evaluator, Team};
use anyhow::ensure;
use clap::Args;
use gpu::{Choices, Chosen, Measured};
use schedule::Device;
use std::ffi::OsString;
use std::path::PathBuf;

const EXAMPLES: &str = "\
A GPU can compute a convolution, a matrix product or a sum in several ways: by larger or smaller tiles, cut or whole. \
Which is the fastest depends on the card, its driver and the sizes. This measures the ways of each kernel of a \
config's training and keeps the fastest in the user's cache folder, where training finds it. Training measures what \
it does not find.

Examples:
  sld tune --cfg configs/cifar100/sld/res32x4_res8x4.yaml
  sld tune --cfg configs/cifar100/sld/res32x4_res8x4.yaml --precision mixed SOLVER.BATCH_SIZE 256";

/// Measure which way to compute each kernel of a config is the fastest on this GPU.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct TuneArgs {
    /// The config file.
    #[arg(long, value_name = "FILE")]
    pub cfg: PathBuf,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Config keys and their values.
    #[arg(value_name = "KEY VALUE", allow_negative_numbers = true)]
    pub overrides: Vec<OsString>,
}

/// Measures and prints a table.
pub fn run(args: TuneArgs) -> anyhow::Result<()> {
    let config = Config::load(&args.cfg, &Overrides::from_words(&args.overrides)?)?;
    let device = DeviceArgs { tune: Tune::On, ..args.device }.open()?;
    compile(&*device, &config)?;
    let choices = device.choices();
    ensure!(!choices.is_empty(), "{} has nothing to choose: name a GPU by --device", device.name());
    let choices = Choices::parse(&choices)?;
    let measured = choices.kernels.values().filter_map(|chosen| Some((chosen, chosen.measured?)));
    let mut measured: Vec<(&Chosen, Measured)> = measured.collect();
    ensure!(!measured.is_empty(), "{} offers no timestamps: its kernels cannot be measured", device.name());
    let gain = |times: &Measured| times.fixed - times.best;
    measured.sort_by(|a, b| gain(&b.1).total_cmp(&gain(&a.1)));
    outln!("{:>9} {:>9} {:>5}  {:<42} way", "fixed, us", "best, us", "gain", "kernel")?;
    for (chosen, times) in &measured {
        let way = chosen.choice.map_or("fixed".into(), |choice| choice.to_string());
        let share = 100.0 * gain(times) / times.fixed.max(1e-9);
        let Measured { fixed, best, .. } = times;
        outln!("{fixed:>9.1} {best:>9.1} {share:>4.0}%  {:<42} {way}", chosen.label)?;
    }
    let others = measured.iter().filter(|(chosen, _)| chosen.choice.is_some()).count();
    let ways: usize = measured.iter().map(|(_, times)| times.ways).sum();
    outln!(
        "{} different kernels in {ways} ways; {others} are computed otherwise than fixed",
        measured.len()
    )?;
    if let Some(folder) = kernels_folder() {
        outln!("kept in {}: delete the file of this GPU there to measure anew", folder.display())?;
    }
    Ok(())
}

/// Compiles what training by the config compiles, and with it measures.
fn compile(device: &dyn Device, config: &Config) -> anyhow::Result<()> {
    let images = session::Images::of(config);
    let networks = session::networks(config, images)?;
    let team = Team::alone(device, &networks, config.method());
    Batches::new(team, &session::settings(config), images.count, images.size)?;
    for model in [Some(networks.result()), networks.teacher.as_ref()].into_iter().flatten() {
        Evaluator::compile(device, model, config.dataset.test_batch_size as usize, images.size)?;
    }
    Ok(())
}
