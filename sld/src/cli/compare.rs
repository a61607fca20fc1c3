//! `sld compare`.

use super::device::DeviceArgs;
use super::interrupt;
use super::series;
use super::session::{self, RunData};
use crate::config::{Config, ConfigError, Overrides, TrainerKind};
use crate::distill::{METHODS, Method};
use crate::setting::Choice;
use anyhow::{Context, ensure};
use clap::Args;
use nn::suggest::hint;
use schedule::Alone;
use std::ffi::OsString;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Methods are named as in configs, in any letter case; METHOD+dot trains it distillation-oriented. \
Keys after the options hold for the methods that read them.

Examples:
  sld compare --cfg configs/cifar100/kd.yaml --teacher teacher.pth --methods kd,sld,crd --seeds 3
  sld compare --cfg configs/cifar100/kd.yaml --teacher teacher.pth --methods none,kd,kd+dot,reviewkd \\
    DISTILLER.TEACHER resnet20 DISTILLER.STUDENT resnet8 SOLVER.EPOCHS 20 SOLVER.LR_DECAY_STAGES 12,15,18 \\
    REVIEWKD.IN_CHANNELS 16,32,64,64 REVIEWKD.OUT_CHANNELS 16,32,64,64

Ctrl-C finishes the step and saves. The same command goes on; finished runs are not repeated.";

/// Train a student by several methods with several seeds, and make a table and a report of it.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompareArgs {
    /// The config file with what all runs have in common; its method does not matter.
    #[arg(long, value_name = "FILE")]
    pub cfg: PathBuf,
    /// The methods, such as kd,sld,crd,kd+dot.
    #[arg(long, value_name = "LIST", value_delimiter = ',', required = true)]
    pub methods: Vec<String>,
    /// Runs of each method, with the seeds 1 to N.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// Folder of the runs, the table (comparison.md) and the report (report.html).
    #[arg(long, value_name = "DIR", default_value = "output/compare")]
    pub output: PathBuf,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Folder or archive with the images (DATASET.ROOT).
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The teacher's checkpoint (DISTILLER.TEACHER_CHECKPOINT).
    #[arg(long, value_name = "FILE")]
    pub teacher: Option<PathBuf>,
    /// Config keys and their values: SOLVER.LR 0.1 SOLVER.EPOCHS 20
    #[arg(value_name = "KEY VALUE", allow_negative_numbers = true)]
    pub overrides: Vec<OsString>,
}

/// What ends a method's name if it is trained distillation-oriented.
const DOT: &str = "+dot";

/// One method of the comparison.
struct Entry {
    method: &'static Method,
    dot: bool,
}

impl Entry {
    fn parse(name: &str) -> anyhow::Result<Entry> {
        let lower = name.trim().to_ascii_lowercase();
        let plain = lower.strip_suffix(DOT);
        let wanted = plain.unwrap_or(&lower);
        let method = Method::find(wanted).with_context(|| {
            format!(
                "there is no method \"{wanted}\"{}",
                hint(wanted, METHODS.iter().map(|method| method.tag))
            )
        })?;
        Ok(Entry { method, dot: plain.is_some() })
    }

    fn name(&self) -> String {
        format!("{}{}", self.method.tag, if self.dot { DOT } else { "" })
    }

    fn config(&self, args: &CompareArgs, seed: u64) -> Result<Config, ConfigError> {
        let mut overrides = Overrides::default();
        overrides.push("DISTILLER.TYPE", self.method.make().name());
        overrides.push("SOLVER.TRAINER", TrainerKind::of(self.method.make().about(), self.dot).name());
        overrides.push("SOLVER.SEED", seed.to_string());
        if let Some(data) = &args.data {
            overrides.option("--data", "DATASET.ROOT", data);
        }
        let taught = self.method.make().needs_teacher();
        if let Some(teacher) = args.teacher.as_ref().filter(|_| taught) {
            overrides.option("--teacher", "DISTILLER.TEACHER_CHECKPOINT", teacher);
        }
        let given = Overrides::from_words(&args.overrides)?;
        let reads = |key: &str| match key {
            "DISTILLER.TEACHER" | "DISTILLER.TEACHER_CHECKPOINT" => taught,
            "SOLVER.DOT.DELTA" => self.dot,
            _ => {
                let of_some = |method: &Method| method.make().get(key).is_some();
                of_some(self.method) || !METHODS.iter().any(of_some)
            }
        };
        overrides.extend(given.only(reads));
        Config::load(&args.cfg, &overrides)
    }
}

/// Keys that make the runs what they are; they follow from the methods and seeds.
const OWN_KEYS: [&str; 3] = ["DISTILLER.TYPE", "SOLVER.TRAINER", "SOLVER.SEED"];

/// Compares.
pub fn run(args: CompareArgs) -> anyhow::Result<()> {
    let entries = args.methods.iter().map(|name| Entry::parse(name)).collect::<anyhow::Result<Vec<_>>>()?;
    for (i, entry) in entries.iter().enumerate() {
        ensure!(
            entries[..i].iter().all(|other| other.name() != entry.name()),
            "{} is there twice in --methods",
            entry.name()
        );
    }
    let given = Overrides::from_words(&args.overrides)?;
    for key in OWN_KEYS {
        ensure!(!given.has(key), "{key} follows from --methods and --seeds; leave it out");
    }
    if let Some(key) = given.keys().find(|key| {
        let of_some = |method: &Method| method.make().get(key).is_some();
        METHODS.iter().any(of_some) && !entries.iter().any(|entry| of_some(entry.method))
    }) {
        anyhow::bail!("{key} is read by none of the methods in --methods");
    }
    // What cannot be is told before the first run.
    let mut runs: Vec<(PathBuf, Config)> = Vec::new();
    for seed in 1..=args.seeds {
        for entry in &entries {
            let folder = args.output.join(format!("{}-{seed}", entry.name()));
            runs.push((folder, entry.config(&args, seed)?));
        }
    }
    let stop = interrupt::stop_politely();
    let device = args.device.open()?;
    let images = session::Images::of_data(&RunData::load(&runs[0].1)?.train);
    for (_, config) in &runs[..entries.len()] {
        session::networks(config, images)?;
    }
    series::train(&Alone, &*device, &args.output, &runs, stop)
}
