//! A run from its first step to its report, of whatever networks, method and images: for programs, and for
//! `sld train`, which makes all of these from a config.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! # let (networks, method): (sld::training::Networks, sld::distill::Vanilla) = todo!();
//! # let (train, test): (sld::data::Dataset, sld::data::Dataset) = todo!();
//! use sld::experiment::Experiment;
//! use sld::training::{RunData, Settings, Team};
//!
//! let device = cpu::CpuDevice::new(2);
//! let team = Team::alone(&device, &networks, &method);
//! let settings = Settings { epochs: 20, ..Settings::default() };
//! let finished = Experiment::new(team, settings, RunData::of(train, test)).train_in("runs/first")?;
//! println!("{finished:?}");
//! # Ok(())
//! # }
//! ```
//!
//! The folder then holds what `sld train` leaves: `report.html`, `student_best`, `metrics.jsonl` and the rest
//! ([`crate::run`]). The same program goes on where it was stopped.

mod finished;
mod recording;
pub(crate) mod terminal;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::ensure;
use autograd::tensor::Transfer;
use nn::Schedule;
use nn::checkpoint::{self, Checkpoint};
use schedule::Alone;

pub use finished::{Ended, Finished};
pub use recording::Log;
use recording::{Recorder, Silent};

use crate::cluster::Cluster;
use crate::config::Config;
use crate::run::{Claim, Evaluation as RunEvaluation, ModelInfo, Reached, RunInfo};
use crate::say;
use crate::training::{
    Changed, Evaluation, Evaluator, Networks, Outcome, RunData, Settings, Team, Trainer, alike,
};

/// Everything that decides a run.
pub struct Experiment<'a> {
    /// Who trains whom, on which device.
    pub team: Team<'a>,
    /// For how long, in which batches, at which rate.
    pub settings: Settings,
    /// On which images.
    pub data: RunData,
    /// What is written beside metrics and the latest state.
    pub log: Log,
    /// Ends the run between two steps once it is raised.
    pub stop: Option<&'a AtomicBool>,
}

/// Where a run is written, what is said of it there, and from where it goes on. Only rank 0 has one.
pub struct Record<'a> {
    /// The folder.
    pub claim: Claim,
    /// The description: [`Experiment::describe`], or more.
    pub info: RunInfo,
    /// What the run's settings were made from, if a config.
    pub config: Option<&'a Config>,
    /// None for a new run.
    pub from: Option<State>,
}

/// What a run goes on from.
pub struct State {
    /// What the run's `latest` holds.
    pub saved: Checkpoint,
    /// The file, for messages.
    pub path: PathBuf,
    /// What is otherwise from now on.
    pub changed: Changed,
}

impl<'a> Experiment<'a> {
    /// One that runs to its end.
    pub fn new(team: Team<'a>, settings: Settings, data: RunData) -> Experiment<'a> {
        Experiment { team, settings, data, log: Log::default(), stop: None }
    }

    /// Trains in `folder`, in one process: a new run, or the one there gone on with, bit for bit as if it had not been
    /// stopped. `None` if it was stopped.
    ///
    /// # Errors
    /// What is there is another run, or none that can go on; images, networks and method do not fit; the device's.
    pub fn train_in(&self, folder: impl AsRef<Path>) -> anyhow::Result<Option<Finished>> {
        let folder = folder.as_ref();
        let claim = Claim::new(folder)?;
        let mut info = self.describe();
        let from = match claim.latest() {
            Some(path) => {
                self.compare(folder, &mut info)?;
                Some(State { saved: checkpoint::read(&path)?, path, changed: Changed::Nothing })
            }
            None => {
                ensure!(claim.is_empty(), claim.no_latest());
                None
            }
        };
        Ok(match self.train(Some(Record { claim, info, config: None, from }))? {
            Ended::Finished(finished) => Some(finished),
            Ended::Interrupted | Ended::Followed => None,
        })
    }

    /// Trains, as one of the team's processes. Nothing is written before everything that can be refused was looked at.
    ///
    /// # Errors
    /// Images, networks and method do not fit; the device's, the cluster's; a file cannot be written.
    pub fn train(&self, record: Option<Record>) -> anyhow::Result<Ended> {
        let started = Instant::now();
        if let Some(Record { claim, from: Some(_), .. }) = &record {
            claim.choose_kernels(self.team.device)?;
        }
        let mut trainer = Trainer::new(self.team, self.settings.clone(), self.data.clone())?;
        if let Some(stop) = self.stop {
            trainer = trainer.stop_when(stop);
        }
        let Some(Record { claim, mut info, config, from }) = record else {
            return Ok(match trainer.run(&mut Silent)? {
                Outcome::Interrupted => Ended::Interrupted,
                Outcome::Finished { .. } => Ended::Followed,
            });
        };
        info.device_bytes = trainer.device_bytes();
        let run = match from {
            None => claim.begin(config, &info)?,
            Some(State { saved, path, changed }) => {
                let progress = trainer.resume(saved, &path, changed)?;
                say!("# going on in epoch {} after {} batches", progress.epoch, progress.batch);
                let reached = Reached { epoch: progress.epoch as u32 - 1, step: progress.steps };
                claim.go_on(config, &info, reached)?
            }
        };
        let folder = run.path().to_owned();
        let mut recorder = Recorder::new(self.team, &self.settings, self.log, run);
        match trainer.run(&mut recorder)? {
            Outcome::Interrupted => {
                // A run stopped within its first epoch has nothing to show yet.
                if !recorder.run.history().is_empty() {
                    finished::write_report(&folder)?;
                }
                Ok(Ended::Interrupted)
            }
            Outcome::Finished { best, best_epoch, epochs, exhausted } => {
                // A finished run that is resumed has no epoch to show for itself: measure it once more.
                let last = match recorder.last.take() {
                    Some(last) => last,
                    None => self.evaluate(&Alone, self.team.networks.result())?,
                };
                let evaluation = RunEvaluation {
                    epoch: epochs as u32,
                    classes: self.data.test.classes().to_vec(),
                    confusion: last.confusion.clone(),
                };
                recorder.run.finish(&evaluation)?;
                recorder.terminal.clear();
                finished::write_report(&folder)?;
                let on_test = recorder.run.best().map_or(best, |epoch| epoch.test.top1);
                Ok(Ended::Finished(Finished {
                    folder,
                    epochs,
                    exhausted,
                    top1: last.top1(),
                    top5: last.top5(),
                    best_epoch,
                    best: on_test,
                    best_held_out: self.data.held_out.is_some().then_some(best),
                    seconds: started.elapsed().as_secs_f64(),
                }))
            }
        }
    }

    /// A network on all test images, by all processes of `cluster`.
    ///
    /// # Errors
    /// Of [`Evaluator::run_among`].
    pub fn evaluate(&self, cluster: &dyn Cluster, model: &nn::Model) -> anyhow::Result<Evaluation> {
        let (test, settings) = (&self.data.test, &self.settings);
        let batch = settings.test_batch_size.min(test.len());
        let (device, size) = (self.team.device, [test.height(), test.width()]);
        let mut evaluator =
            alike::compile(cluster, device, || Ok(Evaluator::compile(device, model, batch, size)?))?;
        evaluator.run_among(cluster, test, settings.workers)
    }

    /// What is known of the run before it begins.
    pub fn describe(&self) -> RunInfo {
        let (Team { device, networks, method, .. }, RunData { train, test, held_out }) =
            (self.team, &self.data);
        // How long a run is changes none of its epochs.
        let Schedule { base, warmup, course, .. } = &self.settings.schedule;
        let schedule = ("schedule", format!("{base}, warm-up {warmup}, {course:?}"));
        let Settings { accumulate, transfer, sync_batch_norm, .. } = &self.settings;
        let Networks { smoothing, mixing, .. } = networks;
        // What most runs do without is told where it is there.
        let more = [
            (*accumulate > 1, ("parts of a batch", accumulate.to_string())),
            (*sync_batch_norm, ("batch norm", "of all processes".into())),
            (*transfer != Transfer::F32, ("gradients travel as", format!("{transfer:?}"))),
            (*smoothing > 0.0, ("label smoothing", smoothing.to_string())),
            (mixing.is_some(), ("mixing", format!("{mixing:?}"))),
        ];
        let more = more.into_iter().filter_map(|(there, setting)| there.then_some(setting));
        let settings = method.values().into_iter().chain([schedule]).chain(more);
        RunInfo {
            distiller: method.name().into(),
            dataset: train.name().into(),
            student: ModelInfo::of(&networks.student),
            teacher: networks.teacher.as_ref().map(ModelInfo::of),
            device: device.name(),
            precision: device.precision().into(),
            train_images: train.len() as u64,
            train_digest: train.digest(),
            test_images: test.len() as u64,
            test_digest: test.digest(),
            validation_images: held_out.as_ref().map_or(0, |images| images.len() as u64),
            epochs: self.settings.epochs as u32,
            patience: self.settings.patience as u32,
            batch_size: self.settings.batch_size as u32,
            device_bytes: 0,
            seed: self.settings.seed,
            version: crate::VERSION.into(),
            // Now, in whole seconds since 1970.
            started: std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
            settings: settings.map(|(key, value)| format!("{key}: {value}")).collect(),
            changes: Vec::new(),
        }
    }

    /// Whether the run in `folder` is this one; then it keeps its beginning.
    fn compare(&self, folder: &Path, info: &mut RunInfo) -> anyhow::Result<()> {
        let mut before = RunInfo::read(folder)?;
        if before.precision.is_empty() {
            before.precision.clone_from(&info.precision);
        }
        let teacher =
            |info: &RunInfo| info.teacher.as_ref().map(|model| model.name.clone()).unwrap_or_default();
        let facts = |info: &RunInfo| {
            [
                ("method", info.distiller.clone()),
                ("student", info.student.name.clone()),
                ("teacher", teacher(info)),
                ("training images (checksum)", info.train_digest.clone()),
                ("test images (checksum)", info.test_digest.clone()),
                ("batch size", info.batch_size.to_string()),
                ("seed", info.seed.to_string()),
                ("precision", info.precision.clone()),
                ("settings", info.settings.join(", ")),
            ]
        };
        for ((what, there), (_, here)) in facts(&before).into_iter().zip(facts(info)) {
            ensure!(
                there == here,
                "the run in {} has another {what}: {there} there, {here} now; nothing was changed: train in another \
                 folder",
                folder.display()
            );
        }
        info.started = before.started;
        info.changes = before.changes;
        Ok(())
    }
}
