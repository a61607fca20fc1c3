//! A config's training run: what it begins with, or goes on from.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use nn::checkpoint::Role;
use schedule::Device;

use super::resuming::Resume;
use super::session;
use crate::cluster::{Cluster, agreement};
use crate::config::{Config, decides};
use crate::experiment::{Ended, Experiment, Log, Record, State};
use crate::run::{Claim, ModelInfo, RunInfo};
use crate::say;
use crate::setting::Choice;
use crate::training::{RunData, Team, snapshot};

/// Whether a run starts or goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    New,
    /// From `latest` in the run's folder; with `change` also under other settings than the run had.
    Resume {
        change: bool,
    },
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
    let log = &config.log;
    let experiment = Experiment {
        team: Team { cluster, device, networks: &networks, method: config.method() },
        settings: session::settings(config),
        data: data.clone(),
        log: Log {
            every_steps: log.tensorboard_freq.into(),
            every_epochs: log.save_checkpoint_freq as usize,
        },
        stop: Some(stop),
    };
    let mut info = RunInfo {
        dataset: config.dataset.kind.name().into(),
        settings: config.differences(),
        ..experiment.describe()
    };
    if cluster.size() > 1 {
        info.device = format!("{} and {} more", info.device, cluster.size() - 1);
    }
    if let Some(teacher) = &networks.teacher {
        let digest = load_teacher(device, teacher, config)?;
        info.teacher = Some(ModelInfo { digest, ..ModelInfo::of(teacher) });
    }
    info.student.digest = begin_with(device, &networks.student, config, resume.is_some())?;
    if let Some(resume) = &mut resume {
        resume.compare_found(config, &info);
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
        let accuracy = experiment.evaluate(cluster, teacher).context("the teacher")?.top1();
        say!("# teacher {}: top-1 {accuracy:.2}% on {} test images", teacher.name(), data.test.len());
        described.top1 = Some(accuracy);
    }
    let from = resume.map(|resume| {
        let changed = resume.changed();
        resume.describe(&mut info);
        State { saved: resume.saved, path: resume.latest, changed }
    });
    experiment.train(claim.map(|claim| Record { claim, info, config: Some(config), from }))
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
    let values = config.values().into_iter().filter(|(key, _)| decides(key));
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
