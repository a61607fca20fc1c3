//! The loop: epochs of steps, an evaluation after each, snapshots that continue exactly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use nn::checkpoint::Checkpoint;
use nn::optimizer::MultiStep;
use schedule::Device;

use super::evaluate::{Evaluation, Evaluator};
use super::snapshot::{self, Progress};
use super::step::{Metric, Networks, TrainStep};
use crate::data::Dataset;
use crate::data::loader::{Batch, Loader, LoaderConfig, Position, Views};
use crate::distill::Distiller;

/// What a run needs beside networks and data.
#[derive(Clone, Debug)]
pub struct Settings {
    pub epochs: usize,
    pub batch_size: usize,
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
    /// When the run is interrupted between two steps.
    fn interrupted(&mut self, _progress: &Progress, _latest: &Checkpoint) -> anyhow::Result<()> {
        Ok(())
    }
    /// When the loss is no longer finite: the state after the step that made it so.
    fn diverged(&mut self, _message: &str, _state: &Checkpoint) -> anyhow::Result<()> {
        Ok(())
    }
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
    /// Compiled steps: the full batch's, and when it is needed the last, smaller batch's.
    steps: Vec<TrainStep>,
}

impl<'a> Trainer<'a> {
    /// The best epoch is chosen on the `held_out` images, or without any on the test set, as in the
    /// reference.
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
        let progress = Progress::start(settings.seed);
        Ok(Trainer {
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
        })
    }

    /// Ends the run after the step in which `flag` is raised.
    pub fn stop_when(mut self, flag: &'a AtomicBool) -> Self {
        self.stop = Some(flag);
        self
    }

    /// Continues from a saved state instead of starting.
    pub fn resume(&mut self, latest: Checkpoint, path: &std::path::Path) -> anyhow::Result<&Progress> {
        let progress = snapshot::restore(self.device, self.networks, latest, path)?;
        ensure!(
            progress.seed == self.settings.seed,
            "{} was trained with seed {}, this run has seed {}; resume with --seed {0}",
            path.display(),
            progress.seed,
            self.settings.seed
        );
        self.progress = progress;
        Ok(&self.progress)
    }

    /// Where the run stands.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Trains to the last epoch, or until stopped.
    pub fn run(&mut self, observer: &mut dyn Observer) -> anyhow::Result<Outcome> {
        let image = [self.train.height(), self.train.width()];
        self.step_for(self.settings.batch_size.min(self.train.len()))?;
        let mut evaluator =
            Evaluator::compile(self.device, &self.networks.student, self.settings.test_batch_size, image)?;
        let views = if self.distiller.views() == 2 { Views::WeakAndStrong } else { Views::Weak };
        let config = LoaderConfig {
            batch_size: self.settings.batch_size,
            views,
            seed: self.settings.seed,
            threads: self.settings.workers.max(1),
            prefetch: self.settings.workers.max(1) + 2,
        };
        let start = Position { epoch: self.progress.epoch as u64, batch: self.progress.batch };
        let mut loader = Loader::train(Arc::clone(&self.train), config, start)?;
        let mut images = Vec::new();

        while self.progress.epoch <= self.settings.epochs {
            let started = Instant::now();
            let already = self.progress.images;
            if !self.train_epoch(&mut loader, &mut images, observer)? {
                let latest = self.snapshot()?;
                observer.interrupted(&self.progress, &latest)?;
                return Ok(Outcome::Interrupted);
            }
            let train_seconds = started.elapsed().as_secs_f64();
            let seen = self.progress.images - already;

            let started = Instant::now();
            let mut evaluate = |images| evaluator.run(images, self.settings.workers, |_, _| ());
            let test = evaluate(&self.test)?;
            let held_out = self.held_out.as_ref().map(evaluate).transpose()?;
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
            let student = snapshot::student_checkpoint(self.device, self.networks)?;
            observer.epoch(&result, &self.snapshot()?, &student, is_best)?;
        }
        Ok(Outcome::Finished { best: self.progress.best, best_epoch: self.progress.best_epoch })
    }

    /// The rest of the epoch in work; false if it was interrupted.
    fn train_epoch(
        &mut self,
        loader: &mut Loader,
        images: &mut Vec<f32>,
        observer: &mut dyn Observer,
    ) -> anyhow::Result<bool> {
        let batches = loader.batches_per_epoch();
        let epoch = self.progress.epoch;
        let rate = self.settings.schedule.lr_at(epoch) as f32;
        let factor = self.distiller.factor(epoch).map(|f| f as f32);
        while self.progress.batch < batches {
            if self.stop.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
                return Ok(false);
            }
            let batch = loader.next().context("the loader ended early")?;
            let labels: Vec<i32> = batch.labels.iter().map(|&l| l as i32).collect();
            stack_views(&batch, images);
            let at = self.step_for(labels.len())?;
            let values = self.steps[at].run(images, &labels, rate, factor)?;
            self.progress.batch += 1;
            if !values[0].is_finite() {
                return Err(self.report_divergence(values[0], observer)?);
            }
            self.progress.sums.resize(values.len(), 0.0);
            for (sum, &value) in self.progress.sums.iter_mut().zip(&values) {
                *sum += f64::from(value) * labels.len() as f64;
            }
            self.progress.images += labels.len();
            let means = self.means();
            observer.step(&StepResult {
                epoch,
                batch: self.progress.batch,
                batches,
                images: self.progress.images,
                epoch_images: self.train.len(),
                means: &means,
            });
            loader.recycle(batch);
        }
        Ok(true)
    }

    /// Index of the compiled step for a batch size, compiled when first needed.
    fn step_for(&mut self, batch: usize) -> anyhow::Result<usize> {
        if let Some(at) = self.steps.iter().position(|step| step.batch() == batch) {
            return Ok(at);
        }
        let image = [self.train.height(), self.train.width()];
        let step = TrainStep::compile(self.device, self.networks, self.distiller, batch, image)?;
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
        snapshot::save(self.device, self.networks, &self.progress, rate)
    }

    /// Names the first tensor that is not finite, saves, and makes the error that ends the run.
    fn report_divergence(&self, loss: f32, observer: &mut dyn Observer) -> anyhow::Result<anyhow::Error> {
        let mut culprit = "no parameter yet: the loss itself overflowed".to_string();
        for variable in self.networks.trained_state() {
            let values = self.device.read(&variable)?;
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                culprit = format!("`{}` element {at} is {}", variable.name(), values[at]);
                break;
            }
        }
        let message = format!(
            "the loss became {loss} in epoch {}, step {} ({culprit}); a smaller SOLVER.LR usually helps",
            self.progress.epoch, self.progress.batch
        );
        observer.diverged(&message, &self.snapshot()?)?;
        Ok(anyhow::anyhow!(message))
    }
}

/// All weak views, then all strong ones: the layout of the step's `images`.
fn stack_views(batch: &Batch, images: &mut Vec<f32>) {
    images.clear();
    images.extend_from_slice(&batch.weak);
    if let Some(strong) = &batch.strong {
        images.extend_from_slice(strong);
    }
}
