//! The loop: epochs of steps, an evaluation after each, snapshots that continue exactly.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use nn::checkpoint::Checkpoint;

use super::alike;
use super::batches::{Batches, Begun};
use super::blame::blame;
use super::evaluate::{Evaluation, Evaluator, NotFinite};
use super::expected::Expected;
use super::observer::{EpochResult, Observer, StepResult};
use super::settings::Settings;
use super::snapshot::{self, Progress};
use super::step::{Metric, Scalars};
use super::team::{RunData, Team};
use crate::data::DataError;
use crate::data::loader::{Batch, Loader, Position, Waited};
use crate::distill::Drawn;

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
        let Team { cluster, device, networks, .. } = team;
        data.fit(team)?;
        // A larger batch would only be filled up.
        let test_batch_size = settings.test_batch_size.min(data.test.len());
        let settings = Settings { test_batch_size, accumulate: settings.accumulate.max(1), ..settings };
        let image = [data.train.height(), data.train.width()];
        let (batches, evaluator) = alike::compile(cluster, device, || {
            let batches = Batches::fitting(team, &settings, data.train.len(), image)?;
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
        let mut loader = self.batches.loader(&self.data.train, start)?;

        if self.progress.epoch <= self.settings.epochs && !self.is_exhausted() {
            let Trainer { team, settings, data, progress, evaluator, .. } = self;
            observer.begins(Expected::of(*team, settings, data, progress, evaluator));
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
            if let Err(why) = self.team.networks.check(self.team.device) {
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
        while parts.len() < self.settings.accumulate {
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
            let (train, metrics) = (&self.data.train, self.batches.metrics());
            let why = |(values, batch): (Vec<f32>, _)| {
                blame(self.team, train, &self.progress, metrics, &values, batch)
            };
            let own = trained.bad.map(why).transpose()?;
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
        self.team.networks.check(self.team.device)?;
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
        snapshot::save(self.team.device, self.team.networks, &self.data.test, &self.progress, rate)
    }

    /// Test images, and held-out ones if there are any.
    fn evaluate(&mut self) -> anyhow::Result<(Evaluation, Option<Evaluation>)> {
        let workers = self.settings.workers;
        let mut on = |images| self.evaluator.run_among(self.team.cluster, images, workers);
        Ok((on(&self.data.test)?, self.data.held_out.as_ref().map(on).transpose()?))
    }

    /// Whether any process is to stop.
    fn any_stops(&self) -> anyhow::Result<bool> {
        let own = self.stop.is_some_and(|flag| flag.load(Ordering::Relaxed));
        let mut all = [f64::from(u8::from(own))];
        self.team.cluster.sum(&mut all)?;
        Ok(all[0] > 0.0)
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
