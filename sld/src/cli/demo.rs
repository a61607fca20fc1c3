//! `sld` without a command.

use super::device::{DeviceArgs, DeviceChoice, Tune};
use super::interrupt::{self, Interrupted};
use super::running::{self, Job, Start};
use super::session::RunData;
use crate::config::{Config, ConfigError, Overrides};
use crate::data::synthetic::{self, Difficulty, SyntheticConfig};
use crate::experiment::Ended;
use crate::run::RunLock;
use crate::say;
use crate::training::{Evaluator, snapshot};
use anyhow::Context;
use clap::Args;
use nn::checkpoint::Role;
use schedule::{Alone, Device};
use std::path::{Path, PathBuf};
use std::time::Instant;

const EXAMPLES: &str = "\
Examples:
  sld                                the same as sld demo
  sld demo --seed 1                  another task, other networks
  sld demo --output /tmp/demo --device cpu --threads 1";

/// The demonstration: a drawn task, a teacher, and a student alone, with KD and with SLD.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
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
        let device = DeviceArgs {
            device: DeviceChoice::Auto,
            threads: None,
            precision: gpu::Precision::default(),
            tune: Tune::default(),
        };
        Self { output: "output/demo".into(), seed: 0, device }
    }
}

/// What the demonstration trains. Small enough for three minutes on two cores.
const TEACHER: &str = "resnet14";
const STUDENT: &str = "resnet8";

/// Epochs, and where the learning rate falls: about as late in the run as in the published schedule, which
/// is 150, 180 and 210 of 240.
type Schedule = (u32, &'static str);
const TEACHER_SCHEDULE: Schedule = (8, "[6, 7]");
const STUDENT_SCHEDULE: Schedule = (6, "[4, 5]");
/// The last epoch without SLD's second level; 150 of 240 in the published schedule.
const GATE_EPOCH: u32 = 4;

/// The task: many classes, as swaps need wrong answers to mend, and few images that are ambiguous in
/// themselves, whose label says no more than the teacher's answer does.
fn task(seed: u64) -> SyntheticConfig {
    let difficulty = Difficulty { ambiguity: 0.03, ..Difficulty::default() };
    SyntheticConfig { classes: 40, seed, difficulty, ..SyntheticConfig::default() }
}

/// One of the students, or the teacher.
struct Entry {
    title: &'static str,
    folder: &'static str,
    /// The value of `DISTILLER.TYPE` and of `SOLVER.TRAINER`.
    method: (&'static str, &'static str),
    network: &'static str,
    schedule: Schedule,
}

/// The teacher, trained with cross entropy.
const TEACHER_ENTRY: Entry = Entry {
    title: "teacher",
    folder: "teacher",
    method: ("NONE", "base"),
    network: TEACHER,
    schedule: TEACHER_SCHEDULE,
};

const fn student(title: &'static str, folder: &'static str, method: (&'static str, &'static str)) -> Entry {
    Entry { title, folder, method, network: STUDENT, schedule: STUDENT_SCHEDULE }
}

const ENTRIES: [Entry; 4] = [
    TEACHER_ENTRY,
    student("student alone", "alone", ("NONE", "base")),
    student("student with KD", "kd", ("KD", "base")),
    student("student with SLD", "sld", ("SLD", "ours")),
];

impl Entry {
    fn config(&self, args: &DemoArgs) -> Result<Config, ConfigError> {
        let (kind, trainer) = self.method;
        let mut overrides = Overrides::default();
        overrides.push("DATASET.TYPE", "synthetic");
        overrides.push("DISTILLER.TYPE", kind);
        overrides.push("DISTILLER.STUDENT", self.network);
        if kind != "NONE" {
            overrides.push("DISTILLER.TEACHER", TEACHER);
            overrides.push("DISTILLER.TEACHER_CHECKPOINT", teacher_checkpoint(args));
        }
        overrides.push("SOLVER.TRAINER", trainer);
        let (epochs, stages) = self.schedule;
        overrides.push("SOLVER.EPOCHS", epochs.to_string());
        // Few epochs want a large rate; SLD's is half, as in the published configs, for it adds two views.
        overrides.push("SOLVER.LR", if kind == "SLD" { "0.05" } else { "0.1" });
        overrides.push("SOLVER.LR_DECAY_STAGES", stages);
        overrides.push("SOLVER.WEIGHT_DECAY", "0.0005");
        overrides.push("SOLVER.SEED", args.seed.to_string());
        if kind == "SLD" {
            overrides.push("SLD.GATE_EPOCH", GATE_EPOCH.to_string());
        }
        Config::from_overrides(&overrides)
    }
}

/// Runs the demonstration.
pub fn run(args: DemoArgs) -> anyhow::Result<()> {
    let stop = interrupt::stop_politely();
    let device = args.device.open()?;
    let started = Instant::now();
    let task = task(args.seed);
    say!(
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
        say!("\n{}: {} ({} epochs)", entry.title, entry.network, entry.schedule.0);
        let data = RunData::new(&config, splits.clone())?;
        let folder = args.output.join(entry.folder);
        let begun = Instant::now();
        let job = Job {
            device: &*device,
            config: &config,
            folder: &folder,
            data: &data,
            start: Start::New,
            stop,
            heading: "",
        };
        let Ended::Finished(finished) = running::train(&Alone, &job)? else {
            say!("stopped; start again with the same command");
            return Err(Interrupted.into());
        };
        results.push((entry, finished, begun.elapsed().as_secs_f64()));
        if entry.folder == TEACHER_ENTRY.folder {
            let right = accuracy_on_training_images(&*device, &args, &data)?;
            say!(
                "The teacher is wrong on {:.1}% of the images it was trained on: this is what SLD swaps.",
                100.0 - right
            );
        }
    }

    let report = args.output.join(crate::report::FILE);
    let folders: Vec<PathBuf> = ENTRIES.iter().map(|entry| args.output.join(entry.folder)).collect();
    let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
    crate::report::write(&folders, &report)?;

    say!("\n{:<18} {:<10} {:>7} {:>7} {:>8}", "", "network", "top-1", "top-5", "time");
    for (entry, finished, seconds) in &results {
        say!(
            "{:<18} {:<10} {:>6.2}% {:>6.2}% {:>6.1} s",
            entry.title,
            entry.network,
            finished.top1,
            finished.top5,
            seconds
        );
    }
    say!("\nOne seed on a small task: differences of a point or two are chance. --seed N gives another.");
    say!("All in {:.0} seconds. Report: {}", started.elapsed().as_secs_f64(), report.display());
    Ok(())
}

/// Where the teacher's training leaves its weights.
fn teacher_checkpoint(args: &DemoArgs) -> PathBuf {
    args.output.join(TEACHER_ENTRY.folder).join("student_latest")
}

/// The trained teacher's top-1 on its training images without augmentation, in percent.
fn accuracy_on_training_images(device: &dyn Device, args: &DemoArgs, data: &RunData) -> anyhow::Result<f64> {
    let teacher = nn::models::build(TEACHER, data.train.classes().len(), 0)?;
    snapshot::load_model(device, &teacher, &teacher_checkpoint(args), Role::Student)?;
    let size = [data.train.height(), data.train.width()];
    Ok(Evaluator::compile(device, &teacher, 64, size)?.run(&data.train, 2, |_, _| ())?.top1())
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
