//! What the loop tells of a run.

use nn::checkpoint::Checkpoint;

use super::evaluate::Evaluation;
use super::expected::Expected;
use super::snapshot::Progress;
use super::step::Metric;

/// One finished step.
pub struct StepResult<'a> {
    /// Counted from 1.
    pub epoch: usize,
    /// Counted from 1, of the whole run.
    pub step: u64,
    /// Counted from 1, of `batches`.
    pub batch: usize,
    /// Batches of the epoch.
    pub batches: usize,
    /// Images of the epoch seen so far, and their number in all.
    pub images: usize,
    /// Images of the whole epoch.
    pub epoch_images: usize,
    /// The mean of each metric over the epoch so far.
    pub means: &'a [(Metric, f64)],
    /// The learning rate of the step.
    pub rate: f64,
}

/// One finished epoch.
#[derive(Clone, Debug, Default)]
pub struct EpochResult {
    /// Counted from 1.
    pub epoch: usize,
    /// The learning rate of its last step.
    pub rate: f64,
    /// The mean of each metric of the step over the epoch's images.
    pub train: Vec<(Metric, f64)>,
    /// On the test images.
    pub test: Evaluation,
    /// On held-out training images, if there are any: then they choose the best epoch.
    pub held_out: Option<Evaluation>,
    /// The best top-1 so far, this epoch included (percent), and its epoch.
    pub best: f64,
    /// The epoch of `best`, counted from 1.
    pub best_epoch: usize,
    /// Seconds of training and of evaluation (of this process, if the epoch was resumed).
    pub train_seconds: f64,
    /// See `train_seconds`.
    pub evaluation_seconds: f64,
    /// Images a second in training, decoding and augmentation included.
    pub images_per_second: f64,
}

impl EpochResult {
    /// A training metric's mean; `None` if the method does not measure it.
    pub fn metric(&self, wanted: Metric) -> Option<f64> {
        self.train.iter().find(|m| m.0 == wanted).map(|m| m.1)
    }
    /// The mean loss over the epoch's images; NaN if it was not measured.
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
    /// Before the first step.
    fn begins(&mut self, _expected: Expected) {}
    /// After every step of this process's share of a batch.
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
