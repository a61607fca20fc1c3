//! `sld train`.

use super::device::DeviceArgs;
use super::interrupt::{self, Interrupted};
use super::output;
use super::running::{self, Job, Start};
use super::{series, session};
use crate::cluster::{self, Cluster};
use crate::config::{self, Config, ConfigError, Overrides};
use crate::experiment::Ended;
use crate::{say, warn};
use clap::Args;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Overrides:
  Any key of the config can be given after the options, as KEY VALUE:
    sld train --cfg F SOLVER.LR 0.1 SOLVER.EPOCHS 20 SOLVER.LR_DECAY_STAGES [12,15,18] SLD.GATE_EPOCH 12

Examples:
  A teacher (cross entropy alone):
    sld train --cfg configs/cifar100/vanilla.yaml DISTILLER.STUDENT resnet32x4
  A student of it:
    sld train --cfg configs/cifar100/sld/res32x4_res8x4.yaml --teacher output/.../student_best
  A network that was trained for other classes, trained on for these:
    sld train --cfg configs/own/teacher.yaml --data photos --init resnet34-b627a593.pth
  Go on where a run was stopped; the result is bit for bit that of an uninterrupted run:
    sld train --cfg configs/cifar100/sld/res32x4_res8x4.yaml --resume
  Four processes, each with a GPU or its share of the cores (docs/cluster.md):
    mpirun -np 4 sld train --cfg configs/imagenet/r34_r18/sld.yaml
  Three seeds: mean and standard deviation, in a table and a report:
    sld train --cfg configs/cifar100/sld/res32x4_res8x4.yaml --teacher teacher.pth --seeds 3
  Choose the best epoch on held-out training images instead of the test set:
    sld train --cfg configs/cifar100/sld/res32x4_res8x4.yaml --val-fraction 0.1

Ctrl-C finishes the step, saves, and prints the command that resumes.";

const SEED: &str = "SOLVER.SEED";

/// Train a student, with or without a teacher.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", config::help()))]
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
    /// Train with the seeds 1 to N, one after the other, each in a folder of its own, and make a table of means and
    /// standard deviations and a report. The same command goes on; finished runs are not repeated.
    #[arg(long, value_name = "N", conflicts_with_all = ["seed", "resume", "change"],
        value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: Option<u64>,
    /// Folder or archive with the images (DATASET.ROOT).
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The teacher's checkpoint: .pth or .safetensors (DISTILLER.TEACHER_CHECKPOINT).
    #[arg(long, value_name = "FILE")]
    pub teacher: Option<PathBuf>,
    /// Weights that training begins with: .pth or .safetensors (DISTILLER.STUDENT_CHECKPOINT). A classifier of
    /// another number of classes is replaced.
    #[arg(long, value_name = "FILE")]
    pub init: Option<PathBuf>,
    /// The run's folder, instead of LOG.PREFIX/PROJECT/NAME.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Share of the training images held out to choose the best epoch on (DATASET.VAL_FRACTION).
    #[arg(long, value_name = "F")]
    pub val_fraction: Option<f64>,
    /// Of several processes: seconds after which one that does not answer is taken for dead, and all are ended.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    pub rank_timeout: u64,
    /// Config keys and their values: SOLVER.LR 0.1 SOLVER.EPOCHS 20
    #[arg(value_name = "KEY VALUE", allow_negative_numbers = true)]
    pub overrides: Vec<OsString>,
}

impl TrainArgs {
    /// The resolved config, and the folder of the run.
    ///
    /// `--seed` and `--val-fraction` change the result, so they are part of the folder's name as the
    /// overrides are; where data, teacher and the weights to begin with lie is not.
    pub fn resolve(&self) -> Result<(Config, PathBuf), ConfigError> {
        self.resolve_with(None)
    }

    /// The configs and folders of `--seeds`, and the folder that they are in.
    fn resolve_seeds(&self, seeds: u64) -> anyhow::Result<(Vec<(PathBuf, Config)>, PathBuf)> {
        let given = Overrides::from_words(&self.overrides)?;
        anyhow::ensure!(!given.has(SEED), "{SEED} follows from --seeds; leave it out");
        let run = |seed: u64| {
            let (config, folder) = self.resolve_with(Some(seed))?;
            Ok((folder.join(format!("seed-{seed}")), config))
        };
        let runs = (1..=seeds).map(run).collect::<Result<Vec<_>, ConfigError>>()?;
        Ok((runs, self.resolve()?.1))
    }

    /// `one_of` is a seed of several, which are not part of the folder's name.
    fn resolve_with(&self, one_of: Option<u64>) -> Result<(Config, PathBuf), ConfigError> {
        let mut named = Overrides::from_words(&self.overrides)?;
        if let Some(seed) = self.seed {
            named.option("--seed", SEED, seed.to_string());
        }
        if let Some(fraction) = self.val_fraction {
            named.option("--val-fraction", "DATASET.VAL_FRACTION", fraction.to_string());
        }
        let mut all = named.clone();
        if let Some(seed) = one_of {
            all.option("--seeds", SEED, seed.to_string());
        }
        if let Some(data) = &self.data {
            all.option("--data", "DATASET.ROOT", data);
        }
        if let Some(teacher) = &self.teacher {
            all.option("--teacher", "DISTILLER.TEACHER_CHECKPOINT", teacher);
        }
        if let Some(init) = &self.init {
            all.option("--init", "DISTILLER.STUDENT_CHECKPOINT", init);
        }
        let config = Config::load(&self.cfg, &all)?;
        let folder = self.output.clone().unwrap_or_else(|| config.run_folder(&named));
        Ok((config, folder))
    }
}

/// Trains, alone or as one of the processes that a launcher of MPI started.
pub fn run(args: TrainArgs) -> anyhow::Result<()> {
    let cluster = cluster::join(Duration::from_secs(args.rank_timeout))?;
    if !cluster.leads() {
        output::be_quiet();
    }
    let ended = run_among(&args, &*cluster);
    match &ended {
        Err(why) if cluster.size() > 1 && !why.is::<Interrupted>() => {
            if !cluster.leads() {
                // Rank 0 probably met the same, and says so for all.
                std::thread::sleep(Duration::from_secs(2));
            }
            output::last_words(format_args!("error: rank {}: {}", cluster.rank(), output::error_text(why)));
            cluster.abandon();
        }
        _ => {}
    }
    ended
}

fn run_among(args: &TrainArgs, cluster: &dyn Cluster) -> anyhow::Result<()> {
    if let Some(seeds) = args.seeds {
        return train_seeds(args, cluster, seeds);
    }
    let (config, folder) = args.resolve()?;
    config.warnings.iter().for_each(|warning| warn!("warning: {warning}"));
    let stop = interrupt::stop_politely();
    let device = args.device.open_among(cluster)?;
    let data = session::RunData::load(&config)?;
    let start = if args.resume { Start::Resume { change: args.change } } else { Start::New };
    let heading =
        format!("{}# run folder: {}\n# device: {}", config.to_yaml(), folder.display(), device.name());
    let job = Job {
        device: &*device,
        config: &config,
        folder: &folder,
        data: &data,
        start,
        stop,
        heading: &heading,
    };
    match running::train(cluster, &job)? {
        Ended::Finished(finished) => say!("{finished}"),
        Ended::Followed => {}
        Ended::Interrupted => {
            let launcher = match cluster.size() {
                1 => String::new(),
                size => format!("mpirun -np {size} "),
            };
            say!(
                "interrupted after a whole step; everything is saved. Go on with\n  {launcher}{}",
                resuming_command()
            );
            return Err(Interrupted.into());
        }
    }
    Ok(())
}

fn train_seeds(args: &TrainArgs, cluster: &dyn Cluster, seeds: u64) -> anyhow::Result<()> {
    let (runs, folder) = args.resolve_seeds(seeds)?;
    let config = &runs[0].1;
    config.warnings.iter().for_each(|warning| warn!("warning: {warning}"));
    let stop = interrupt::stop_politely();
    let device = args.device.open_among(cluster)?;
    // What cannot be is told before the first run, and before a page of settings.
    session::networks(config, session::Images::of_data(&session::RunData::load(config)?.train))?;
    say!("{}# runs: {}, seeds 1 to {seeds}\n# device: {}", config.to_yaml(), folder.display(), device.name());
    series::train(cluster, &*device, &folder, &runs, stop)
}

/// This command with `--resume`, for a shell.
fn resuming_command() -> String {
    // What was to change has changed.
    let mut words: Vec<String> =
        std::env::args_os().filter(|word| word != "--change").map(|word| shell_word(&word)).collect();
    if !words.iter().any(|word| word == "--resume") {
        // Behind `train`: options may not follow the config keys.
        words.insert(words.len().min(2), "--resume".into());
    }
    words.join(" ")
}

/// A word as a shell reads it back. Bytes that are no text are written as bash and zsh read them.
fn shell_word(word: &OsStr) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./=,:+@%".contains(&b);
    match word.to_str() {
        Some(text) if !text.is_empty() && text.bytes().all(plain) => text.into(),
        Some(text) => format!("'{}'", text.replace('\'', "'\\''")),
        None => {
            let byte = |b: &u8| if plain(*b) { char::from(*b).to_string() } else { format!("\\x{b:02x}") };
            format!("$'{}'", word.as_encoded_bytes().iter().map(byte).collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_shell_reads_every_word_back() {
        use std::os::unix::ffi::OsStrExt;
        for bytes in
            [&b"plain/path.yaml"[..], b"", b"set #2", b"it's", b"$HOME", b"a\nb", b"\xff'x", b"caf\xe9 \\1"]
        {
            let script = format!("printf %s {}", shell_word(OsStr::from_bytes(bytes)));
            let printed =
                std::process::Command::new("bash").args(["-c", &script]).output().expect("bash runs");
            assert_eq!(printed.stdout, bytes, "{script}");
        }
    }
}
