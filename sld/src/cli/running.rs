//! A training run from its folder's claim to its report.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::Context;
use nn::checkpoint::Role;
use schedule::{Alone, Device};

use super::recording::{Recorder, Silent};
use super::resuming::{self, Resume};
use super::session::{self, RunData};
use crate::cluster::{Cluster, agreement};
use crate::config::Config;
use crate::run::{Claim, Evaluation as RunEvaluation, ModelInfo, Reached, RunInfo, epochs_in_words};
use crate::say;
use crate::setting::Choice;
use crate::training::snapshot;
use crate::training::{Evaluation, Evaluator, Networks, Outcome, Trainer};

/// The report's name in a run's folder.
const REPORT: &str = "report.html";

/// Whether a run starts or goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    New,
    /// From `latest` in the run's folder; with `change` also under other settings than the run had.
    Resume {
        change: bool,
    },
}

/// What a finished run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    pub folder: PathBuf,
    pub epochs: usize,
    /// The last epoch that was better than all before, if none for too long since then is why the run ended.
    pub exhausted: Option<usize>,
    /// On the test images, after the last epoch.
    pub top1: f64,
    pub top5: f64,
    /// The best epoch, and its top-1 on the test images.
    pub best_epoch: usize,
    pub best: f64,
    /// Its top-1 on the held-out images, where they chose it and not the test images.
    pub best_held_out: Option<f64>,
    pub seconds: f64,
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let epochs = epochs_in_words(self.epochs);
        write!(f, "top-1 {:.2}%, top-5 {:.2}% after {epochs}; ", self.top1, self.top5)?;
        write!(f, "best {:.2}% in epoch {}", self.best, self.best_epoch)?;
        if let Some(held_out) = self.best_held_out {
            write!(f, ",\nchosen by the held-out training images, {held_out:.2}% of which it knows")?;
        }
        if let Some(epoch) = self.exhausted {
            write!(f, "\nstopped early: no epoch since {epoch} was better (SOLVER.PATIENCE)")?;
        }
        write!(f, "\nreport: {}", self.folder.join(REPORT).display())
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    Finished(Finished),
    Interrupted,
    /// Whatever came of it: rank 0 knows, and this process is another.
    Followed,
}

/// A run that is to be done.
pub struct Job<'a> {
    pub device: &'a dyn Device,
    pub config: &'a Config,
    /// Of the run. Only rank 0 reads and writes it.
    pub folder: &'a Path,
    pub data: &'a RunData,
    pub start: Start,
    /// Ends the run between two steps once it is raised.
    pub stop: &'a AtomicBool,
    /// Printed when nothing can be refused any more, so that what prevents the run is not told below a page of
    /// settings.
    pub heading: &'a str,
}

/// Trains the config's student, as one of the processes of a cluster. Nothing is written before everything that can be
/// refused was looked at.
pub fn train(cluster: &dyn Cluster, job: &Job) -> anyhow::Result<Ended> {
    let &Job { device, config, folder, data, start, stop, heading } = job;
    let started = Instant::now();
    let claim = cluster.leads().then(|| Claim::new(folder)).transpose()?;
    let (mut resume, change) = match (&claim, start) {
        (None, _) => (None, false),
        (Some(claim), Start::New) => {
            claim.require_empty()?;
            (None, false)
        }
        (Some(claim), Start::Resume { change }) => (Resume::find(claim)?, change),
    };
    match &mut resume {
        Some(resume) => {
            resume.compare_settings(config)?;
            resume.agree(change)?;
        }
        None if claim.is_some() && start != Start::New => {
            say!("# nothing saved in {} yet: starting from the beginning", folder.display());
        }
        None => {}
    }
    let networks = session::networks(config, session::Images::of_data(&data.train))?;
    let mut info = describe(device, config, data, &networks);
    if cluster.size() > 1 {
        info.device = format!("{} and {} more", info.device, cluster.size() - 1);
    }
    if let Some(teacher) = &networks.teacher {
        let digest = load_teacher(device, teacher, config)?;
        info.teacher = Some(ModelInfo { digest, ..ModelInfo::of(teacher) });
    }
    info.student.digest = begin_with(device, &networks.student, config, resume.is_some())?;
    if let Some(resume) = &mut resume {
        resume.compare_files(config, &info);
        resume.agree(change)?;
    }
    agreement::check(cluster, &facts(config, &info))?;
    if !heading.is_empty() {
        say!("{heading}");
    }
    if !networks.modules.is_empty() {
        say!("# extra parameters of {}: {}", config.method().name(), networks.extra_values());
    }
    if let (Some(teacher), Some(described)) = (&networks.teacher, &mut info.teacher) {
        let accuracy = evaluate(cluster, device, teacher, config, data).context("the teacher")?.top1();
        say!("# teacher {}: top-1 {accuracy:.2}% on {} test images", teacher.name(), data.test.len());
        described.top1 = Some(accuracy);
    }
    let images = [Some(data.train.clone()), Some(data.test.clone()), data.held_out.clone()];
    let settings = session::settings(config);
    let mut trainer =
        Trainer::among(cluster, device, &networks, config.method(), settings, images)?.stop_when(stop);
    info.device_bytes = trainer.device_bytes();
    let Some(claim) = claim else {
        return Ok(match trainer.run(&mut Silent)? {
            Outcome::Interrupted => Ended::Interrupted,
            Outcome::Finished { .. } => Ended::Followed,
        });
    };
    let run = match resume {
        None => claim.begin(config, &info)?,
        Some(resume) => {
            let changed = resume.changed();
            resume.describe(&mut info);
            let progress = trainer.resume(resume.saved, &resume.latest, changed)?;
            say!("# going on in epoch {} after {} batches", progress.epoch, progress.batch);
            let reached = Reached { epoch: progress.epoch as u32 - 1, step: progress.steps };
            claim.go_on(config, &info, reached)?
        }
    };
    let mut recorder = Recorder::new(config, config.method(), run);
    match trainer.run(&mut recorder)? {
        Outcome::Interrupted => {
            // A run stopped within its first epoch has nothing to show yet.
            if !recorder.run.history().is_empty() {
                write_report(folder)?;
            }
            Ok(Ended::Interrupted)
        }
        Outcome::Finished { best, best_epoch, epochs, exhausted } => {
            // A finished run that is resumed has no epoch to show for itself: measure it once more.
            let last = match recorder.last.take() {
                Some(last) => last,
                None => evaluate(&Alone, device, networks.result(), config, data)?,
            };
            let evaluation = RunEvaluation {
                epoch: epochs as u32,
                classes: data.test.classes().to_vec(),
                confusion: last.confusion.clone(),
            };
            recorder.run.finish(&evaluation)?;
            recorder.terminal.clear();
            write_report(folder)?;
            let on_test = recorder.run.best().map_or(best, |epoch| epoch.test.top1);
            Ok(Ended::Finished(Finished {
                folder: folder.into(),
                epochs,
                exhausted,
                top1: last.top1(),
                top5: last.top5(),
                best_epoch,
                best: on_test,
                best_held_out: data.held_out.is_some().then_some(best),
                seconds: started.elapsed().as_secs_f64(),
            }))
        }
    }
}

/// Writes the report of the run in `folder`.
fn write_report(folder: &Path) -> anyhow::Result<()> {
    crate::report::write(&[folder], &folder.join(REPORT))?;
    Ok(())
}

/// Gives the teacher its weights, and gives their checksum.
fn load_teacher(device: &dyn Device, teacher: &nn::Model, config: &Config) -> anyhow::Result<String> {
    let path = config.distiller.teacher_path();
    let notes =
        snapshot::load_model(device, teacher, Path::new(&path), Role::Teacher).with_context(|| {
            format!("the teacher {} cannot be read; give its checkpoint with --teacher", teacher.name())
        })?;
    notes.iter().for_each(|note| say!("# {}: {note}", path.display()));
    snapshot::digest(device, teacher)
}

/// Gives the student the weights that it is to begin with, if there are any, and gives their checksum.
fn begin_with(
    device: &dyn Device,
    student: &nn::Model,
    config: &Config,
    goes_on: bool,
) -> anyhow::Result<String> {
    let path = &config.distiller.student_checkpoint;
    if path.as_os_str().is_empty() {
        return Ok(String::new());
    }
    let notes = match snapshot::begin_with(device, student, path) {
        Ok(notes) => notes,
        // The run has weights of its own by now; the file may be gone.
        Err(why) if goes_on && !path.exists() => {
            say!("# {why:#}: not needed to go on, but whether it was another file cannot be told");
            return Ok(String::new());
        }
        Err(why) => return Err(why.context("the weights to begin with (--init)")),
    };
    notes.iter().for_each(|note| say!("# {}: {note}", path.display()));
    snapshot::digest(device, student)
}

/// What all processes have to agree on.
fn facts(config: &Config, info: &RunInfo) -> Vec<(String, String)> {
    let values = config.values().into_iter().filter(|(key, _)| !resuming::WITHOUT_EFFECT.contains(key));
    let teacher = info.teacher.as_ref().map_or(String::new(), |teacher| teacher.digest.clone());
    let files = [
        ("weights to begin with (checksum)", info.student.digest.clone()),
        ("version", info.version.clone()),
        ("training images (checksum)", info.train_digest.clone()),
        ("test images (checksum)", info.test_digest.clone()),
        ("teacher's weights (checksum)", teacher),
    ];
    files
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .chain(values.map(|(key, value)| (key.to_owned(), value)))
        .collect()
}

/// On all test images, by all processes of a cluster.
fn evaluate(
    cluster: &dyn Cluster,
    device: &dyn Device,
    model: &nn::Model,
    config: &Config,
    data: &RunData,
) -> anyhow::Result<Evaluation> {
    let size = [data.test.height(), data.test.width()];
    let batch = (config.dataset.test_batch_size as usize).min(data.test.len());
    Evaluator::compile(device, model, batch, size)?.run_among(cluster, &data.test, session::workers(config))
}

fn describe(device: &dyn Device, config: &Config, data: &RunData, networks: &Networks) -> RunInfo {
    RunInfo {
        distiller: config.method().name().into(),
        dataset: config.dataset.kind.name().into(),
        student: ModelInfo::of(&networks.student),
        teacher: None,
        device: device.name(),
        train_images: data.train.len() as u64,
        train_digest: data.train.digest(),
        test_images: data.test.len() as u64,
        test_digest: data.test.digest(),
        validation_images: data.held_out.as_ref().map_or(0, |d| d.len() as u64),
        epochs: config.solver.epochs,
        patience: config.solver.patience,
        batch_size: config.solver.batch_size,
        device_bytes: 0,
        seed: config.solver.seed,
        version: crate::VERSION.into(),
        // Now, in whole seconds since 1970.
        started: std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
        settings: config.differences(),
        changes: Vec::new(),
    }
}
