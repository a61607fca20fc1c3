//! The loop: epochs of steps, an evaluation after each, snapshots that continue exactly.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use autograd::tensor::Transfer;
use nn::checkpoint::{Checkpoint, Scalar};
use nn::{Course, Model, Schedule};

use super::alike;
use super::batches::{Batches, Begun, Sharing};
use super::evaluate::{Evaluation, Evaluator, NotFinite};
use super::observer::{EpochResult, Expected, Observer, StepResult};
use super::snapshot::{self, Progress};
use super::step::{Metric, Scalars};
use super::team::{RunData, Team};
use crate::data::DataError;
use crate::data::loader::{Batch, Loader, Position, Waited, part};
use crate::distill::Drawn;

/// What a run needs beside networks and data.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Passes over the training images.
    pub epochs: usize,
    /// Epochs after which training ends if none of them was better than all before; 0: it does not.
    pub patience: usize,
    /// Images of a batch, in all processes together.
    pub batch_size: usize,
    /// Parts that a process computes its share of a batch in, one after the other, at least 1.
    pub accumulate: usize,
    /// How gradients travel between processes.
    pub transfer: Transfer,
    /// Whether batch norm's statistics are those of all processes.
    pub sync_batch_norm: bool,
    /// Images of a batch of the evaluation; no effect on the result.
    pub test_batch_size: usize,
    /// The learning rate of every step.
    pub schedule: Schedule,
    /// Seeds the order of the images and their augmentation.
    pub seed: u64,
    /// Threads that augment.
    pub workers: usize,
}

impl Default for Settings {
    /// A config's: the reference's for CIFAR, on one process.
    fn default() -> Settings {
        let course = Course::MultiStep { stages: vec![150, 180, 210], factor: 0.1 };
        Settings {
            epochs: 240,
            patience: 0,
            batch_size: 64,
            accumulate: 1,
            transfer: Transfer::F32,
            sync_batch_norm: false,
            test_batch_size: 64,
            schedule: Schedule { base: 0.05, epochs: 240, warmup: 0, course },
            seed: 0,
            workers: 2,
        }
    }
}

/// What a run that goes on does otherwise than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Everything is as it was.
    Nothing,
    /// What decides a step or the order of the images.
    Steps,
    /// The method, and with it the modules.
    Method,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// After the last epoch.
    Finished {
        /// The best top-1, percent, by which the epoch was chosen.
        best: f64,
        /// The epoch with it, counted from 1.
        best_epoch: usize,
        /// How many were done.
        epochs: usize,
        /// The last epoch that was better than all before, if [`Settings::patience`] ended the run.
        exhausted: Option<usize>,
    },
    /// Between two steps, because [`Trainer::stop_when`]'s flag was raised.
    Interrupted,
}

/// A run: everything of it that lives in memory.
pub struct Trainer<'a> {
    team: Team<'a>,
    settings: Settings,
    data: RunData,
    progress: Progress,
    stop: Option<&'a AtomicBool>,
    batches: Batches<'a>,
    evaluator: Evaluator,
}

impl<'a> Trainer<'a> {
    /// Compiles what a run needs. All processes have the same networks, settings and images.
    ///
    /// # Errors
    /// Data that do not fit the networks or one another, and whatever compiling reports.
    pub fn new(team: Team<'a>, settings: Settings, data: RunData) -> anyhow::Result<Trainer<'a>> {
        let Team { cluster, device, networks, method } = team;
        let train = &data.train;
        ensure!(!train.is_empty(), "there are no training images");
        for other in [Some(&data.test), data.held_out.as_ref()].into_iter().flatten() {
            let (shape, wanted) = (other.shape(), train.shape());
            let name = other.name();
            ensure!(shape == wanted, "the images of {name} are {shape:?}, those to train on {wanted:?}");
        }
        let classes = train.classes().len();
        for model in [Some(&networks.student), networks.teacher.as_ref()].into_iter().flatten() {
            ensure!(
                model.classes() == classes,
                "{} has {} classes, the data {classes}",
                model.name(),
                model.classes()
            );
            ensure!(
                model.channels() == train.channels(),
                "{} takes images of {} channels, the data have {}",
                model.name(),
                model.channels(),
                train.channels()
            );
        }
        if method.needs_teacher() && networks.teacher.is_none() {
            bail!("{} needs a teacher; give its checkpoint with --teacher", method.name());
        }
        // A larger batch would only be filled up.
        let test_batch_size = settings.test_batch_size.min(data.test.len());
        let settings = Settings { test_batch_size, ..settings };
        let image = [train.height(), train.width()];
        let sharing = Sharing {
            batch_size: settings.batch_size,
            accumulate: settings.accumulate.max(1),
            transfer: settings.transfer,
            sync_batch_norm: settings.sync_batch_norm,
        };
        let (batches, evaluator) = alike::compile(cluster, device, || {
            let batches = Batches::fitting(team, sharing, train)?;
            let evaluator = Evaluator::compile(device, networks.result(), settings.test_batch_size, image)?;
            Ok((batches, evaluator))
        })?;
        let progress = Progress::start(settings.seed);
        Ok(Trainer { team, settings, data, progress, stop: None, batches, evaluator })
    }

    /// Ends the run after the step in which `flag` is raised.
    pub fn stop_when(mut self, flag: &'a AtomicBool) -> Self {
        self.stop = Some(flag);
        self
    }

    /// Continues from a saved state instead of starting. After a change of what decides a step or the
    /// order of the images, the epoch in work begins again with its first batch; after one of the method,
    /// what it trains beside the student is new.
    pub fn resume(&mut self, latest: Checkpoint, path: &Path, change: Changed) -> anyhow::Result<&Progress> {
        let batches = self.data.train.len().div_ceil(self.settings.batch_size);
        let other_method = change == Changed::Method;
        let saved =
            snapshot::restore(self.team.device, self.team.networks, latest, path, batches, other_method)?;
        self.progress = match change != Changed::Nothing {
            true => Progress { batch: 0, images: 0, sums: Vec::new(), seed: self.settings.seed, ..saved },
            false => saved,
        };
        ensure!(
            self.progress.seed == self.settings.seed,
            "{} was trained with seed {}, this run has seed {}; resume with --seed {1}",
            path.display(),
            self.progress.seed,
            self.settings.seed
        );
        Ok(&self.progress)
    }

    /// What the device holds of this run: the largest step's memory, and all state.
    pub fn device_bytes(&self) -> u64 {
        self.batches.bytes() + self.team.networks.state_bytes()
    }

    /// Where the run stands.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Trains to the last epoch, or until stopped.
    pub fn run(&mut self, observer: &mut dyn Observer) -> anyhow::Result<Outcome> {
        self.progress = alike::begin(self.team.cluster, self.team.device, &self.batches, &self.progress)?;
        let start = Position { epoch: self.progress.epoch as u64, batch: self.progress.batch };
        let (seed, workers) = (self.settings.seed, self.settings.workers);
        let mut loader = self.batches.loader(&self.data.train, seed, workers, start)?;

        if self.progress.epoch <= self.settings.epochs && !self.is_exhausted() {
            observer.begins(self.expected());
        }
        while self.progress.epoch <= self.settings.epochs && !self.is_exhausted() {
            let started = Instant::now();
            let already = self.progress.images;
            let finished = match self.train_epoch(&mut loader, observer) {
                Ok(finished) => finished,
                Err(why) => return Err(self.keep(why, observer)?),
            };
            alike::check(self.team.cluster, self.team.device, self.team.networks, self.progress.steps)?;
            alike::take_over(self.team.cluster, self.team.device, &self.batches)?;
            // A state that cannot go on takes no good one's place.
            if let Err(why) = self.check_state() {
                return Err(self.diverged(why.to_string(), observer)?);
            }
            if !finished {
                if self.team.cluster.leads() {
                    let latest = self.snapshot()?;
                    observer.interrupted(&self.progress, &latest)?;
                }
                return Ok(Outcome::Interrupted);
            }
            if self.progress.epoch == 1 && self.team.cluster.leads() {
                observer.trained(&self.snapshot()?)?;
            }
            let train_seconds = started.elapsed().as_secs_f64();
            let seen = self.progress.images - already;

            let started = Instant::now();
            let (test, held_out) = match self.evaluate() {
                Ok(measured) => measured,
                Err(why) if why.is::<NotFinite>() => return Err(self.diverged(why.to_string(), observer)?),
                Err(why) => return Err(self.keep(why, observer)?),
            };
            let accuracy = held_out.as_ref().unwrap_or(&test).top1();
            if accuracy > self.progress.best {
                self.progress.improved = self.progress.epoch;
            }
            let is_best = accuracy >= self.progress.best;
            if is_best {
                self.progress.best = accuracy;
                self.progress.best_epoch = self.progress.epoch;
            }
            let result = EpochResult {
                epoch: self.progress.epoch,
                rate: self.rate(self.progress.batch.saturating_sub(1)),
                train: self.means(),
                test,
                held_out,
                best: self.progress.best,
                best_epoch: self.progress.best_epoch,
                train_seconds,
                evaluation_seconds: started.elapsed().as_secs_f64(),
                images_per_second: seen as f64 / train_seconds.max(1e-9),
            };
            self.progress = Progress {
                epoch: self.progress.epoch + 1,
                batch: 0,
                images: 0,
                sums: vec![],
                ..self.progress.clone()
            };
            if self.team.cluster.leads() {
                let student =
                    snapshot::student_checkpoint(self.team.device, self.team.networks, &self.data.test)?;
                let student = self.with_recipe(student);
                observer.epoch(&result, &self.snapshot()?, &student, is_best)?;
            }
        }
        let Progress { best, best_epoch, improved, .. } = self.progress;
        let exhausted = self.is_exhausted().then_some(improved);
        Ok(Outcome::Finished { best, best_epoch, epochs: self.progress.epoch - 1, exhausted })
    }

    /// Whether no epoch was better than all before for as long as that is waited for.
    fn is_exhausted(&self) -> bool {
        let since = (self.progress.epoch - 1).saturating_sub(self.progress.improved);
        self.settings.patience > 0 && since >= self.settings.patience
    }

    /// The rest of the epoch in work; false if it was interrupted.
    ///
    /// Where it may, a batch is sent to the device before the numbers of the one before are waited for: while the
    /// device computes, the next images are fetched and copied, and it never waits for this thread.
    fn train_epoch(&mut self, loader: &mut Loader, observer: &mut dyn Observer) -> anyhow::Result<bool> {
        let batches = loader.batches_per_epoch();
        let mut under_way: Option<Begun> = None;
        let mut stop = self.any_stops()?;
        let mut failure = None;
        loop {
            let number = self.progress.batch + usize::from(under_way.is_some());
            let mut next = None;
            if number < batches && !stop && failure.is_none() {
                match self.begin(loader, number) {
                    Ok(Some(begun)) => next = Some(begun),
                    Ok(None) => stop = true,
                    // Told when what is under way is done and counted.
                    Err(why) => failure = Some(why),
                }
            }
            let is_last = next.is_none();
            let due = if self.batches.overlap() { std::mem::replace(&mut under_way, next) } else { next };
            if let Some(begun) = due {
                stop |= self.finish(begun, loader, observer)?;
            }
            if is_last {
                return failure.map_or(Ok(self.progress.batch == batches), Err);
            }
        }
    }

    /// Sends the batch of this number to the device; nothing when the run is to stop.
    fn begin(&mut self, loader: &mut Loader, number: usize) -> anyhow::Result<Option<Begun>> {
        let Some(parts) = self.next_batch(loader)? else { return Ok(None) };
        let (method, seed, epoch) = (self.team.method, self.settings.seed, self.progress.epoch);
        let scalars = Scalars::new(self.rate(number) as f32, method.factor(epoch).map(|f| f as f32));
        let labels = self.data.train.labels();
        let drawn = |indices: &[u32]| method.inputs(&Drawn { seed, epoch: epoch as u64, indices, labels });
        self.batches.begin(parts, scalars, drawn).map(Some)
    }

    /// The parts of the next batch, however long they take; `None` when the run is to stop. All of them are there
    /// before the first is computed, since a batch that is begun cannot be left.
    fn next_batch(&self, loader: &mut Loader) -> anyhow::Result<Option<Vec<Batch>>> {
        let mut parts = Vec::new();
        while parts.len() < self.settings.accumulate.max(1) {
            // (Several processes stop after a step, together.)
            if self.team.cluster.size() == 1 && self.any_stops()? {
                return Ok(None);
            }
            match loader.wait(Duration::from_millis(200))? {
                Waited::Batch(part) => parts.push(part),
                Waited::End => bail!("the loader ended early"),
                Waited::NotYet => {}
            }
        }
        Ok(Some(parts))
    }

    /// Counts the next batch, which was begun. Tells whether to stop after it. (Where its numbers are none, the
    /// device may be a batch further already; of that nothing is kept but the state to look at.)
    fn finish(
        &mut self,
        begun: Begun,
        loader: &mut Loader,
        observer: &mut dyn Observer,
    ) -> anyhow::Result<bool> {
        let flag = self.stop;
        let stop = || flag.is_some_and(|flag| flag.load(Ordering::Relaxed));
        let trained = self.batches.finish(begun, loader, stop)?;
        let rate = self.rate(self.progress.batch);
        self.progress.batch += 1;
        self.progress.steps += 1;
        if !trained.is_finite() {
            let own = trained.bad.map(|(values, batch)| self.culprit(&values, batch)).transpose()?;
            let why = self.first_of_all(own)?.unwrap_or_else(|| "the sum of the metrics overflowed".into());
            return Err(self.diverged(why, observer)?);
        }
        self.progress.sums.resize(trained.sums.len(), 0.0);
        for (sum, &value) in self.progress.sums.iter_mut().zip(&trained.sums) {
            *sum += value;
        }
        self.progress.images += trained.images;
        let means = self.means();
        observer.step(&StepResult {
            epoch: self.progress.epoch,
            step: self.progress.steps,
            batch: self.progress.batch,
            batches: loader.batches_per_epoch(),
            images: self.progress.images,
            epoch_images: self.data.train.len(),
            means: &means,
            rate,
        });
        Ok(trained.stop)
    }

    /// Saves what was reached, if images that cannot be read are what ends the run.
    fn keep(&self, why: anyhow::Error, observer: &mut dyn Observer) -> anyhow::Result<anyhow::Error> {
        if !why.is::<DataError>() || !self.team.cluster.leads() {
            return Ok(why);
        }
        self.check_state()?;
        observer.interrupted(&self.progress, &self.snapshot()?)?;
        let steps = self.progress.steps;
        Ok(why.context(format!("stopped after {steps} steps, which are saved: --resume goes on behind them")))
    }

    /// What the first process says that has anything to say.
    fn first_of_all(&self, own: Option<String>) -> anyhow::Result<Option<String>> {
        let all = self.team.cluster.gather(own.unwrap_or_default().into_bytes())?;
        let said = all.into_iter().find(|text| !text.is_empty());
        Ok(said.map(|text| String::from_utf8_lossy(&text).into_owned()))
    }

    /// Means over the epoch so far. All compiled steps have the same metrics.
    fn means(&self) -> Vec<(Metric, f64)> {
        let metrics = self.batches.metrics();
        let count = self.progress.images.max(1) as f64;
        metrics.iter().zip(&self.progress.sums).map(|(&metric, &sum)| (metric, sum / count)).collect()
    }

    /// The learning rate of a batch, counted from 0, of the epoch in work.
    fn rate(&self, batch: usize) -> f64 {
        let batches = self.data.train.len().div_ceil(self.settings.batch_size);
        self.settings.schedule.rate(self.progress.epoch, batch, batches)
    }

    fn snapshot(&self) -> anyhow::Result<Checkpoint> {
        let rate = self.rate(self.progress.batch);
        Ok(self.with_recipe(snapshot::save(
            self.team.device,
            self.team.networks,
            &self.data.test,
            &self.progress,
            rate,
        )?))
    }

    /// Adds what the data were drawn from, so that the network can be measured on the same.
    fn with_recipe(&self, mut checkpoint: Checkpoint) -> Checkpoint {
        let recipe = self.data.train.recipe().map(|recipe| Scalar::Text(recipe.to_owned()));
        checkpoint.extra.extend(recipe.map(|recipe| (snapshot::RECIPE.to_owned(), recipe)));
        checkpoint
    }

    /// Test images, and held-out ones if there are any.
    fn evaluate(&mut self) -> anyhow::Result<(Evaluation, Option<Evaluation>)> {
        let workers = self.settings.workers;
        let mut on = |images| self.evaluator.run_among(self.team.cluster, images, workers);
        Ok((on(&self.data.test)?, self.data.held_out.as_ref().map(on).transpose()?))
    }

    /// What is to be expected, by this process's first test images. What cannot be measured takes no time: why not
    /// will be told when it is needed.
    fn expected(&mut self) -> Expected {
        let (workers, cluster) = (self.settings.workers, self.team.cluster);
        let sets = [Some(&self.data.test), self.data.held_out.as_ref()];
        let (mut evaluation, mut measured) = (0.0, 0);
        for images in sets.into_iter().flatten() {
            let own = part(images.len(), cluster.size(), cluster.rank());
            measured += own.len();
            evaluation += self.evaluator.estimate(images, own, workers).unwrap_or(0.0);
        }
        let Team { networks, method, .. } = self.team;
        let (train, progress) = (&self.data.train, &self.progress);
        let macs = |model: &Model| model.macs(train.height(), train.width()).unwrap_or(0) as f64;
        let teacher = networks.teacher.as_ref().filter(|_| method.needs_teacher()).map_or(0.0, macs);
        let student = macs(&networks.student);
        let step_of_image = method.views() as f64 * (3.0 + teacher / student.max(1.0));
        let epochs = (self.settings.epochs + 1 - progress.epoch) as f64;
        let images = (epochs * train.len() as f64 - progress.images as f64) / cluster.size() as f64;
        let steps = images * step_of_image * evaluation / measured.max(1) as f64;
        Expected { evaluation, all: steps + epochs * evaluation }
    }

    /// Whether any process is to stop.
    fn any_stops(&self) -> anyhow::Result<bool> {
        let own = self.stop.is_some_and(|flag| flag.load(Ordering::Relaxed));
        let mut all = [f64::from(u8::from(own))];
        self.team.cluster.sum(&mut all)?;
        Ok(all[0] > 0.0)
    }

    /// Whether training can go on from the state on the device.
    fn check_state(&self) -> nn::Result<()> {
        self.team.networks.student.check(self.team.device)?;
        self.team.networks.result().check(self.team.device)?;
        if let Some(teacher) = self.team.networks.learning_teacher() {
            teacher.check(self.team.device)?;
        }
        nn::check_state(&self.team.networks.modules, self.team.device)?;
        self.team.networks.optimizer.check(self.team.device)
    }

    /// Why a step gave numbers that are none.
    fn culprit(&self, values: &[f32], mut batch: Batch) -> anyhow::Result<String> {
        let metrics = self.batches.metrics();
        let bad = values.iter().position(|value| !value.is_finite()).unwrap_or(0);
        let measured = |&(metric, value): &(&Metric, &f32)| match metric {
            Metric::Term(name) => Some(format!("{name} {value}")),
            _ => None,
        };
        let terms: Vec<String> = metrics.iter().zip(values).filter_map(|pair| measured(&pair)).collect();
        let said = format!(
            "{} became {} in epoch {}, step {} ({})",
            metrics[bad].name(),
            values[bad],
            self.progress.epoch,
            self.progress.batch,
            terms.join(", ")
        );
        if let Some(teacher) =
            self.team.networks.teacher.as_ref().filter(|_| self.team.method.needs_teacher())
        {
            let (rows, size) = (
                batch.images.len() / self.data.train.image_len(),
                [self.data.train.height(), self.data.train.width()],
            );
            let mut evaluator = Evaluator::compile(self.team.device, teacher, rows, size)?;
            if let Err(why) = evaluator.logits(&mut batch.images, self.data.train.name(), &batch.indices) {
                return Ok(format!("{said}: the teacher is to blame, not the student: {why}"));
            }
        }
        Ok(match self.progress.steps {
            1 => format!(
                "{said} before anything was learned: it is not SOLVER.LR; look at the method's temperatures and weights"
            ),
            _ => format!("{said}; a smaller SOLVER.LR usually helps"),
        })
    }

    /// Saves, and makes the error that ends the run.
    fn diverged(&self, why: String, observer: &mut dyn Observer) -> anyhow::Result<anyhow::Error> {
        let message = format!("the training diverged: after {} steps {why}", self.progress.steps);
        if self.team.cluster.leads() {
            observer.diverged(&message, &self.snapshot()?)?;
        }
        Ok(anyhow::anyhow!(message))
    }
}
