//! `sld train`.

use super::device::DeviceArgs;
use super::interrupt::{self, Interrupted};
use super::running::{self, Mode};
use super::session;
use crate::config::{Config, ConfigError, Overrides};
use crate::say;
use clap::Args;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Overrides:
  Any key of the config can be given after the options, as KEY VALUE:
    sld train --cfg F SOLVER.LR 0.1 SOLVER.EPOCHS 20 SOLVER.LR_DECAY_STAGES [12,15,18] SLD.GATE_EPOCH 12

Examples:
  A teacher (cross entropy alone):
    sld train --cfg configs/cifar100/vanilla.yaml DISTILLER.STUDENT resnet32x4
  A student of it:
    sld train --cfg configs/cifar100/sld/res32x4_res8x4.yaml --teacher output/.../student_best
  Go on where a run was stopped; the result is bit for bit that of an uninterrupted run:
    sld train --cfg configs/cifar100/sld/res32x4_res8x4.yaml --resume
  Choose the best epoch on held-out training images instead of the test set:
    sld train --cfg configs/cifar100/sld/res32x4_res8x4.yaml --val-fraction 0.1

Ctrl-C finishes the step, saves, and prints the command that resumes.";

/// Train a student, with or without a teacher.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct TrainArgs {
    /// The config file, as the reference's (see configs/).
    #[arg(long, value_name = "FILE")]
    pub cfg: PathBuf,
    /// Go on from the run's latest checkpoint.
    #[arg(long)]
    pub resume: bool,
    /// With --resume: go on with other settings than the run had. run.json keeps what changed, and when.
    #[arg(long, requires = "resume")]
    pub change: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Seed of initial weights, order and augmentation (SOLVER.SEED).
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Folder or archive with the images (DATASET.ROOT).
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The teacher's checkpoint: .pth or .safetensors (DISTILLER.TEACHER_CHECKPOINT).
    #[arg(long, value_name = "FILE")]
    pub teacher: Option<PathBuf>,
    /// The run's folder, instead of LOG.PREFIX/PROJECT/NAME.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Share of the training images held out to choose the best epoch on (DATASET.VAL_FRACTION).
    #[arg(long, value_name = "F")]
    pub val_fraction: Option<f64>,
    /// Config keys and their values: SOLVER.LR 0.1 SOLVER.EPOCHS 20
    #[arg(value_name = "KEY VALUE", allow_negative_numbers = true)]
    pub overrides: Vec<String>,
}

impl TrainArgs {
    /// The resolved config, and the folder of the run.
    ///
    /// `--seed` and `--val-fraction` change the result, so they are part of the folder's name as the
    /// overrides are; where data and teacher lie is not.
    pub fn resolve(&self) -> Result<(Config, PathBuf), ConfigError> {
        let mut named = Overrides::from_words(&self.overrides)?;
        if let Some(seed) = self.seed {
            named.push("SOLVER.SEED", seed);
        }
        if let Some(fraction) = self.val_fraction {
            named.push("DATASET.VAL_FRACTION", fraction);
        }
        let mut all = named.clone();
        if let Some(data) = &self.data {
            all.push("DATASET.ROOT", data.display());
        }
        if let Some(teacher) = &self.teacher {
            all.push("DISTILLER.TEACHER_CHECKPOINT", teacher.display());
        }
        let config = Config::load(&self.cfg, &all)?;
        let folder = self.output.clone().unwrap_or_else(|| config.run_folder(&named));
        Ok((config, folder))
    }
}

/// Trains.
pub fn run(args: TrainArgs) -> anyhow::Result<()> {
    let (config, folder) = args.resolve()?;
    say!("{}", config.to_yaml().trim_end());
    say!("# run folder: {}", folder.display());
    let stop = interrupt::stop_politely();
    let device = args.device.open()?;
    say!("# device: {}", device.name());
    let splits = session::load_splits(config.dataset.kind, Path::new(&config.dataset.root))?;
    let data = session::RunData::new(&config, splits)?;
    let mode = if args.resume { Mode::Resume { change: args.change } } else { Mode::New };
    let finished = running::train(&*device, &config, &folder, &data, mode, stop)?;
    let Some(finished) = finished else {
        say!("interrupted after a whole step; everything is saved. Go on with\n  {}", resuming_command());
        return Err(Interrupted.into());
    };
    say!("{finished}");
    Ok(())
}

/// This command with `--resume`, for a shell.
fn resuming_command() -> String {
    let plain = |word: &str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./=,:+@%".contains(&b));
    let quote = |word: String| match !word.is_empty() && plain(&word) {
        true => word,
        false => format!("'{}'", word.replace('\'', "'\\''")),
    };
    // What was to change has changed.
    let mut words: Vec<String> = std::env::args_os()
        .filter(|word| word != "--change")
        .map(|word| quote(word.to_string_lossy().into()))
        .collect();
    if !words.iter().any(|word| word == "--resume") {
        // Behind `train`: options may not follow the config keys.
        words.insert(words.len().min(2), "--resume".into());
    }
    words.join(" ")
}
