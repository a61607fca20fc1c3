//! `sld` without a command.

use super::device::DeviceArgs;
use super::device::DeviceChoice;
use super::running::{self, Mode};
use super::session::RunData;
use crate::config::{Config, ConfigError, Overrides};
use crate::data::synthetic::{self, SyntheticConfig};
use crate::run::RunLock;
use anyhow::Context;
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The demonstration: a drawn task, a teacher, and a student alone, with KD and with SLD.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Folder for the runs and the report.
    #[arg(long, value_name = "DIR", default_value = "output/demo")]
    pub output: PathBuf,
    /// Seed of the task, the networks and the order of images.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub device: DeviceArgs,
}

impl Default for DemoArgs {
    fn default() -> Self {
        let device = DeviceArgs { device: DeviceChoice::Auto, threads: None };
        Self { output: "output/demo".into(), seed: 0, device }
    }
}

/// What the demonstration trains. Small enough for three minutes on two cores.
const TEACHER: &str = "resnet14";
const STUDENT: &str = "resnet8";
const EPOCHS: u32 = 10;
/// The learning rate falls, and SLD's second level starts, as late in the run as in the published
/// schedule of 240 epochs.
const STAGES: &str = "[6, 8]";
const GATE_EPOCH: u32 = 6;

/// One of the students, or the teacher.
struct Entry {
    title: &'static str,
    folder: &'static str,
    /// The value of `DISTILLER.TYPE` and of `SOLVER.TRAINER`.
    method: (&'static str, &'static str),
    network: &'static str,
}

const ENTRIES: [Entry; 4] = [
    Entry { title: "teacher", folder: "teacher", method: ("NONE", "base"), network: TEACHER },
    Entry { title: "student alone", folder: "alone", method: ("NONE", "base"), network: STUDENT },
    Entry { title: "student with KD", folder: "kd", method: ("KD", "base"), network: STUDENT },
    Entry { title: "student with SLD", folder: "sld", method: ("SLD", "ours"), network: STUDENT },
];

impl Entry {
    fn config(&self, args: &DemoArgs) -> Result<Config, ConfigError> {
        let (kind, trainer) = self.method;
        let mut overrides = Overrides::from_words(&[])?;
        overrides.push("DATASET.TYPE", "synthetic");
        overrides.push("DISTILLER.TYPE", kind);
        overrides.push("DISTILLER.TEACHER", TEACHER);
        overrides.push("DISTILLER.STUDENT", self.network);
        overrides.push("DISTILLER.TEACHER_CHECKPOINT", args.output.join("teacher/student_latest").display());
        overrides.push("SOLVER.TRAINER", trainer);
        overrides.push("SOLVER.EPOCHS", EPOCHS);
        // Few epochs want a large rate; SLD's is half, as in the published configs, for it adds two views.
        overrides.push("SOLVER.LR", if kind == "SLD" { 0.05 } else { 0.1 });
        overrides.push("SOLVER.LR_DECAY_STAGES", STAGES);
        overrides.push("SOLVER.WEIGHT_DECAY", 0.0005);
        overrides.push("SOLVER.SEED", args.seed);
        overrides.push("SLD.GATE_EPOCH", GATE_EPOCH);
        Config::from_overrides(&overrides)
    }
}

/// Runs the demonstration.
pub fn run(args: DemoArgs) -> anyhow::Result<()> {
    let stop = running::stop_on_interrupt()?;
    let device = args.device.open()?;
    let started = Instant::now();
    let task = SyntheticConfig { seed: args.seed, ..SyntheticConfig::default() };
    println!(
        "A task of {} classes: {} training and {} test images, drawn from seed {}; {}.",
        task.classes,
        task.train,
        task.test,
        args.seed,
        device.name()
    );
    let splits = synthetic::generate(&task)?;
    clear_old_runs(&args.output)?;

    let mut results = Vec::new();
    for entry in &ENTRIES {
        let config = entry.config(&args)?;
        println!("\n{}: {} ({EPOCHS} epochs)", entry.title, entry.network);
        let data = RunData::new(&config, splits.clone())?;
        let folder = args.output.join(entry.folder);
        let begun = Instant::now();
        let Some(finished) = running::train(&*device, &config, &folder, &data, Mode::New, stop)? else {
            println!("stopped; start again with the same command");
            return Ok(());
        };
        results.push((entry, finished, begun.elapsed().as_secs_f64()));
    }

    let report = args.output.join("report.html");
    let folders: Vec<PathBuf> = ENTRIES.iter().map(|entry| args.output.join(entry.folder)).collect();
    let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
    crate::report::write(&folders, &report)?;

    println!("\n{:<18} {:<10} {:>7} {:>7} {:>8}", "", "network", "top-1", "top-5", "time");
    for (entry, finished, seconds) in &results {
        println!(
            "{:<18} {:<10} {:>6.2}% {:>6.2}% {:>6.1} s",
            entry.title, entry.network, finished.top1, finished.top5, seconds
        );
    }
    println!("\nOne seed on a small task: differences of a point or two are chance. --seed N gives another.");
    println!("All in {:.0} seconds. Report: {}", started.elapsed().as_secs_f64(), report.display());
    Ok(())
}

/// Removes what an earlier demonstration left, and nothing else.
fn clear_old_runs(output: &Path) -> anyhow::Result<()> {
    for entry in &ENTRIES {
        let folder = output.join(entry.folder);
        if !folder.exists() {
            continue;
        }
        let ours = folder.join("run.json").is_file() || std::fs::read_dir(&folder)?.next().is_none();
        anyhow::ensure!(
            ours,
            "{} is in the way and was not made by the demonstration; choose another folder with --output",
            folder.display()
        );
        let _lock = RunLock::acquire(&folder)?;
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}
