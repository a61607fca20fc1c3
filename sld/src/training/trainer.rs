//! The loop: epochs of steps, an evaluation after each, snapshots that continue exactly.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use nn::checkpoint::{Checkpoint, Scalar};
use nn::optimizer::{GradientSums, MultiStep};
use schedule::{Device, Executable, Value};

use super::evaluate::{Evaluation, Evaluator, NotFinite};
use super::networks::Networks;
use super::snapshot::{self, Progress};
use super::step::{Metric, Scalars, TrainStep, update_expressions};
use crate::data::loader::{Batch, Loader, LoaderConfig, Parts, Position, Views, Waited, part};
use crate::data::{DataError, Dataset};
use crate::distill::{Distiller, Drawn};

/// What a run needs beside networks and data.
#[derive(Clone, Debug)]
pub struct Settings {
    pub epochs: usize,
    pub batch_size: usize,
    /// Parts that a batch is computed in, one after the other, at least 1.
    pub accumulate: usize,
    pub test_batch_size: usize,
    pub schedule: MultiStep,
    /// Seeds the order of the images and their augmentation.
    pub seed: u64,
    /// Threads that augment.
    pub workers: usize,
}

/// One finished step.
pub struct StepResult<'a> {
    pub epoch: usize,
    /// Counted from 1, of the whole run.
    pub step: u64,
    /// Counted from 1, of `batches`.
    pub batch: usize,
    pub batches: usize,
    /// Images of the epoch seen so far, and their number in all.
    pub images: usize,
    pub epoch_images: usize,
    /// The mean of each metric over the epoch so far.
    pub means: &'a [(Metric, f64)],
}

/// One finished epoch.
#[derive(Clone, Debug, Default)]
pub struct EpochResult {
    pub epoch: usize,
    pub rate: f64,
    /// The mean of each metric of the step over the epoch's images.
    pub train: Vec<(Metric, f64)>,
    /// On the test images.
    pub test: Evaluation,
    /// On held-out training images, if there are any: then they choose the best epoch.
    pub held_out: Option<Evaluation>,
    /// The best top-1 so far, this epoch included (percent), and its epoch.
    pub best: f64,
    pub best_epoch: usize,
    /// Seconds of training and of evaluation (of this process, if the epoch was resumed).
    pub train_seconds: f64,
    pub evaluation_seconds: f64,
    /// Images a second in training, decoding and augmentation included.
    pub images_per_second: f64,
}

impl EpochResult {
    /// A training metric's mean; `None` if the method does not measure it.
    pub fn metric(&self, wanted: Metric) -> Option<f64> {
        self.train.iter().find(|m| m.0 == wanted).map(|m| m.1)
    }
    pub fn train_loss(&self) -> f64 {
        self.metric(Metric::Loss).unwrap_or(f64::NAN)
    }
    /// Percent.
    pub fn train_top1(&self) -> f64 {
        100.0 * self.metric(Metric::Top1).unwrap_or(f64::NAN)
    }
    /// Percent.
    pub fn train_top5(&self) -> f64 {
        100.0 * self.metric(Metric::Top5).unwrap_or(f64::NAN)
    }
}

/// Who is told what happens, and writes files and terminals.
pub trait Observer {
    fn step(&mut self, _result: &StepResult) {}
    /// After every epoch: `latest` is the state to continue from, `student` the bare student;
    /// `is_best` if it is at least as good as any before (the reference overwrites on a tie).
    fn epoch(
        &mut self,
        result: &EpochResult,
        latest: &Checkpoint,
        student: &Checkpoint,
        is_best: bool,
    ) -> anyhow::Result<()>;
    /// After the steps of a run's first epoch, before anything is measured: the state to go on from if what
    /// follows is cut off.
    fn trained(&mut self, _latest: &Checkpoint) -> anyhow::Result<()> {
        Ok(())
    }
    /// When the run is interrupted between two steps.
    fn interrupted(&mut self, _progress: &Progress, _latest: &Checkpoint) -> anyhow::Result<()> {
        Ok(())
    }
    /// When a number that is none was met: the state it was met in.
    fn diverged(&mut self, _message: &str, _state: &Checkpoint) -> anyhow::Result<()> {
        Ok(())
    }
}

/// What a run that goes on does otherwise than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    Nothing,
    /// What decides a step or the order of the images.
    Steps,
    /// The method, and with it the modules.
    Method,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    Finished {
        best: f64,
        best_epoch: usize,
    },
    /// Between two steps, because [`Trainer::stop_when`]'s flag was raised.
    Interrupted,
}

/// A run: everything of it that lives in memory.
pub struct Trainer<'a> {
    device: &'a dyn Device,
    networks: &'a Networks,
    distiller: &'a dyn Distiller,
    settings: Settings,
    train: Arc<Dataset>,
    test: Arc<Dataset>,
    held_out: Option<Arc<Dataset>>,
    progress: Progress,
    stop: Option<&'a AtomicBool>,
    /// Compiled steps, or parts of steps: a full batch's, and when they are needed those of other sizes.
    steps: Vec<TrainStep>,
    accumulation: Option<Accumulation>,
    evaluator: Evaluator,
}

/// What batches in parts need beside the parts' programs.
struct Accumulation {
    sums: GradientSums,
    update: Box<dyn Executable>,
}

impl<'a> Trainer<'a> {
    /// Compiles what a run needs. The best epoch is chosen on the `held_out` images, or without any on the
    /// test set, as in the reference.
    ///
    /// # Errors
    /// Data that do not fit the networks or one another, and whatever compiling reports.
    pub fn new(
        device: &'a dyn Device,
        networks: &'a Networks,
        distiller: &'a dyn Distiller,
        settings: Settings,
        train: Arc<Dataset>,
        test: Arc<Dataset>,
        held_out: Option<Arc<Dataset>>,
    ) -> anyhow::Result<Trainer<'a>> {
        ensure!(settings.batch_size > 0, "a batch needs at least one image");
        ensure!(!train.is_empty(), "there are no training images");
        let classes = train.classes().len();
        for model in [Some(&networks.student), networks.teacher.as_ref()].into_iter().flatten() {
            ensure!(
                model.classes() == classes,
                "{} has {} classes, the data {classes}",
                model.name(),
                model.classes()
            );
        }
        if distiller.needs_teacher() && networks.teacher.is_none() {
            bail!("{} needs a teacher; give its checkpoint with --teacher", distiller.name());
        }
        // A larger batch would only be filled up.
        let test_batch_size = settings.test_batch_size.min(test.len());
        let settings = Settings { test_batch_size, ..settings };
        let image = [train.height(), train.width()];
        let parts = settings.accumulate.max(1);
        check_parts(settings.batch_size, train.len(), parts, distiller)?;
        let accumulation = match parts {
            1 => None,
            _ => {
                let sums = GradientSums::new(&networks.optimizer.differentiated());
                let update = device.compile_step(&update_expressions(networks, &sums))?;
                Some(Accumulation { sums, update })
            }
        };
        let evaluator = Evaluator::compile(device, &networks.student, settings.test_batch_size, image)?;
        let progress = Progress::start(settings.seed);
        let largest = part(settings.batch_size.min(train.len()), parts, 0).len();
        let mut trainer = Trainer {
            device,
            networks,
            distiller,
            settings,
            train,
            test,
            held_out,
            progress,
            stop: None,
            steps: Vec::new(),
            accumulation,
            evaluator,
        };
        trainer.step_for(largest)?;
        Ok(trainer)
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
        let batches = self.train.len().div_ceil(self.settings.batch_size);
        let other_method = change == Changed::Method;
        let saved = snapshot::restore(self.device, self.networks, latest, path, batches, other_method)?;
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
        let step = self.steps.iter().map(TrainStep::bytes).max().unwrap_or(0);
        let sums =
            self.accumulation.as_ref().map_or(0, |_| 4 * self.networks.student.parameter_count() as u64);
        step + sums + self.networks.state_bytes()
    }

    /// Where the run stands.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Trains to the last epoch, or until stopped.
    pub fn run(&mut self, observer: &mut dyn Observer) -> anyhow::Result<Outcome> {
        let views = if self.distiller.views() == 2 { Views::WeakAndStrong } else { Views::Weak };
        let parts = self.settings.accumulate.max(1);
        let config = LoaderConfig {
            batch_size: self.settings.batch_size,
            parts: Parts { of: parts, first: 0, count: parts },
            views,
            seed: self.settings.seed,
            threads: self.settings.workers.max(1),
            prefetch: self.settings.workers.max(1) + 2,
        };
        let start = Position { epoch: self.progress.epoch as u64, batch: self.progress.batch };
        let mut loader = Loader::train(Arc::clone(&self.train), config, start)?;

        while self.progress.epoch <= self.settings.epochs {
            let started = Instant::now();
            let already = self.progress.images;
            let finished = match self.train_epoch(&mut loader, observer) {
                Ok(finished) => finished,
                Err(why) => return Err(self.keep(why, observer)?),
            };
            // A state that cannot go on takes no good one's place.
            if let Err(why) = self.check_state() {
                return Err(self.diverged(why.to_string(), observer)?);
            }
            if !finished {
                let latest = self.snapshot()?;
                observer.interrupted(&self.progress, &latest)?;
                return Ok(Outcome::Interrupted);
            }
            if self.progress.epoch == 1 {
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
            let is_best = accuracy >= self.progress.best;
            if is_best {
                self.progress.best = accuracy;
                self.progress.best_epoch = self.progress.epoch;
            }
            let result = EpochResult {
                epoch: self.progress.epoch,
                rate: self.settings.schedule.lr_at(self.progress.epoch),
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
            let student = snapshot::student_checkpoint(self.device, self.networks, &self.test)?;
            let student = self.with_recipe(student);
            observer.epoch(&result, &self.snapshot()?, &student, is_best)?;
        }
        Ok(Outcome::Finished { best: self.progress.best, best_epoch: self.progress.best_epoch })
    }

    /// The rest of the epoch in work; false if it was interrupted.
    fn train_epoch(&mut self, loader: &mut Loader, observer: &mut dyn Observer) -> anyhow::Result<bool> {
        let batches = loader.batches_per_epoch();
        let epoch = self.progress.epoch;
        let rate = self.settings.schedule.lr_at(epoch) as f32;
        let scalars = Scalars::new(rate, self.distiller.factor(epoch).map(|f| f as f32));
        while self.progress.batch < batches {
            let Some(parts) = self.next_batch(loader)? else { return Ok(false) };
            self.train_batch(parts, loader, scalars, observer)?;
            let means = self.means();
            observer.step(&StepResult {
                epoch,
                step: self.progress.steps,
                batch: self.progress.batch,
                batches,
                images: self.progress.images,
                epoch_images: self.train.len(),
                means: &means,
            });
        }
        Ok(true)
    }

    /// The parts of the next batch, however long they take; `None` when the run is to stop. All of them are there
    /// before the first is computed, since a batch that is begun cannot be left.
    fn next_batch(&self, loader: &mut Loader) -> anyhow::Result<Option<Vec<Batch>>> {
        let mut parts = Vec::new();
        while parts.len() < self.settings.accumulate.max(1) {
            if self.stop.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
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

    /// One step: a batch, part by part.
    fn train_batch(
        &mut self,
        parts: Vec<Batch>,
        loader: &mut Loader,
        scalars: Scalars,
        observer: &mut dyn Observer,
    ) -> anyhow::Result<()> {
        let mut bad = None;
        for batch in parts {
            if batch.counted == 0 {
                continue;
            }
            let labels: Vec<i32> = batch.labels.iter().map(|&l| l as i32).collect();
            let at = self.step_for(labels.len())?;
            let weight = labels.len() as f32 / batch.whole as f32;
            let own = self.distiller.inputs(&Drawn {
                seed: self.settings.seed,
                epoch: self.progress.epoch as u64,
                indices: &batch.indices,
                labels: self.train.labels(),
            });
            let scalars = Scalars { weight, ..scalars };
            let values = self.steps[at].run(&batch.images, &labels, scalars, &own)?;
            self.progress.sums.resize(values.len(), 0.0);
            for (sum, &value) in self.progress.sums.iter_mut().zip(&values) {
                *sum += f64::from(value) * labels.len() as f64;
            }
            self.progress.images += labels.len();
            match values.iter().all(|value| value.is_finite()) {
                true => loader.recycle(batch),
                false => bad = bad.or(Some((values, batch))),
            }
        }
        self.progress.batch += 1;
        self.progress.steps += 1;
        if let Some((values, batch)) = bad {
            let why = self.culprit(&values, batch)?;
            return Err(self.diverged(why, observer)?);
        }
        if let Some(accumulation) = &mut self.accumulation {
            accumulation.update.call(&[("rate", Value::F32(&[scalars.rate]))])?;
        }
        Ok(())
    }

    /// Saves what was reached, if images that cannot be read are what ends the run.
    fn keep(&self, why: anyhow::Error, observer: &mut dyn Observer) -> anyhow::Result<anyhow::Error> {
        if !why.is::<DataError>() {
            return Ok(why);
        }
        self.check_state()?;
        observer.interrupted(&self.progress, &self.snapshot()?)?;
        let steps = self.progress.steps;
        Ok(why.context(format!("stopped after {steps} steps, which are saved: --resume goes on behind them")))
    }

    /// Index of the compiled step, or part of one, for so many images; compiled when first needed.
    fn step_for(&mut self, batch: usize) -> anyhow::Result<usize> {
        if let Some(at) = self.steps.iter().position(|step| step.batch() == batch) {
            return Ok(at);
        }
        let image = [self.train.height(), self.train.width()];
        let (device, networks, distiller) = (self.device, self.networks, self.distiller);
        let step = match &self.accumulation {
            None => TrainStep::compile(device, networks, distiller, batch, image)?,
            Some(Accumulation { sums, .. }) => {
                TrainStep::compile_part(device, networks, distiller, sums, batch, image)?
            }
        };
        self.steps.push(step);
        Ok(self.steps.len() - 1)
    }

    /// Means over the epoch so far. All compiled steps have the same metrics.
    fn means(&self) -> Vec<(Metric, f64)> {
        let metrics = self.steps.first().map_or(&[][..], TrainStep::metrics);
        let count = self.progress.images.max(1) as f64;
        metrics.iter().zip(&self.progress.sums).map(|(&metric, &sum)| (metric, sum / count)).collect()
    }

    fn snapshot(&self) -> anyhow::Result<Checkpoint> {
        let rate = self.settings.schedule.lr_at(self.progress.epoch);
        Ok(self.with_recipe(snapshot::save(self.device, self.networks, &self.test, &self.progress, rate)?))
    }

    /// Adds what the data were drawn from, so that the network can be measured on the same.
    fn with_recipe(&self, mut checkpoint: Checkpoint) -> Checkpoint {
        let recipe = self.train.recipe().map(|recipe| Scalar::Text(recipe.to_owned()));
        checkpoint.extra.extend(recipe.map(|recipe| (snapshot::RECIPE.to_owned(), recipe)));
        checkpoint
    }

    /// Test images, and held-out ones if there are any.
    fn evaluate(&mut self) -> anyhow::Result<(Evaluation, Option<Evaluation>)> {
        let workers = self.settings.workers;
        let mut on = |images| self.evaluator.run(images, workers, |_, _| ());
        Ok((on(&self.test)?, self.held_out.as_ref().map(on).transpose()?))
    }

    /// Whether training can go on from the state on the device.
    fn check_state(&self) -> nn::Result<()> {
        self.networks.student.check(self.device)?;
        if let Some(teacher) = self.networks.learning_teacher() {
            teacher.check(self.device)?;
        }
        nn::check_state(&self.networks.modules, self.device)?;
        self.networks.optimizer.check(self.device)
    }

    /// Why a step gave numbers that are none.
    fn culprit(&self, values: &[f32], mut batch: Batch) -> anyhow::Result<String> {
        let metrics = self.steps[0].metrics();
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
        if let Some(teacher) = self.networks.teacher.as_ref().filter(|_| self.distiller.needs_teacher()) {
            let (rows, size) =
                (batch.images.len() / self.train.image_len(), [self.train.height(), self.train.width()]);
            let mut evaluator = Evaluator::compile(self.device, teacher, rows, size)?;
            if let Err(why) = evaluator.logits(&mut batch.images, self.train.name(), &batch.indices) {
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
        observer.diverged(&message, &self.snapshot()?)?;
        Ok(anyhow::anyhow!(message))
    }
}

/// Whether every part of a full batch and of an epoch's last one has the images that the method needs.
fn check_parts(
    batch_size: usize,
    images: usize,
    parts: usize,
    distiller: &dyn Distiller,
) -> anyhow::Result<()> {
    let least = distiller.about().smallest_batch as usize;
    for whole in [batch_size.min(images), images % batch_size].into_iter().filter(|&n| n > 0 && parts > 1) {
        let smallest = (0..parts).map(|number| part(whole, parts, number).len()).filter(|&n| n > 0).min();
        ensure!(
            smallest.is_none_or(|n| n >= least),
            "{} needs at least {least} images in a part of a batch; a batch of {whole} in {parts} parts has fewer in \
             one: take a smaller SOLVER.ACCUMULATE or another SOLVER.BATCH_SIZE",
            distiller.name()
        );
    }
    Ok(())
}
