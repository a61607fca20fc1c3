//! Learning rates by epoch and step.

use std::f64::consts::PI;

/// The course of a learning rate.
#[derive(Clone, Debug, PartialEq)]
pub enum Course {
    /// Falls by a factor after each of some epochs: `torch.optim.lr_scheduler.MultiStepLR`.
    MultiStep {
        /// Epochs, counted from 1, after which the rate falls.
        stages: Vec<usize>,
        /// What it is multiplied with each time.
        factor: f64,
    },
    /// Falls by a factor after every so many epochs: `StepLR`.
    Step {
        /// Epochs from one fall to the next.
        every: usize,
        /// What the rate is multiplied with each time.
        factor: f64,
    },
    /// Half a cosine from the rate to 0, epoch by epoch: `CosineAnnealingLR` (Loshchilov and Hutter, *SGDR*,
    /// 2017, without restarts).
    Cosine,
    /// From a 25th of the rate up to it, in three tenths of all steps, and down to a 250,000th, along cosines, step by
    /// step: `OneCycleLR` (Smith and Topin, *Super-Convergence*, 2018), its momentum apart.
    OneCycle,
}

/// A learning rate for every step.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// The largest rate.
    pub base: f64,
    /// Epochs in all.
    pub epochs: usize,
    /// Epochs, at the beginning, in which the rate rises from nothing, by as much each step: what the course says times
    /// the share of these epochs' steps (Goyal et al., *Accurate, Large Minibatch SGD*, 2017).
    pub warmup: usize,
    /// What the rate does after the warm-up, and meanwhile as well.
    pub course: Course,
}

impl Schedule {
    /// A rate that begins at `base` and falls by a factor after each of some epochs, counted from 1.
    pub fn multi_step(base: f64, stages: &[usize], factor: f64) -> Schedule {
        Schedule { base, epochs: 1, warmup: 0, course: Course::MultiStep { stages: stages.to_vec(), factor } }
    }

    /// The rate of a step: of an epoch, counted from 1, a batch, counted from 0, of so many in each epoch.
    pub fn rate(&self, epoch: usize, batch: usize, batches: usize) -> f64 {
        let past = epoch.saturating_sub(1);
        let step = past * batches + batch;
        let share = match &self.course {
            Course::MultiStep { stages, factor } => {
                factor.powf(stages.iter().filter(|&&stage| epoch > stage).count() as f64)
            }
            Course::Step { every, factor } => factor.powf((past / (*every).max(1)) as f64),
            Course::Cosine => (1.0 + (PI * past as f64 / self.epochs.max(1) as f64).cos()) / 2.0,
            Course::OneCycle => one_cycle(step as f64, (self.epochs * batches) as f64),
        };
        let rising = ((step + 1) as f64 / (self.warmup * batches).max(1) as f64).min(1.0);
        self.base * share * rising
    }
}

/// The share of the largest rate at a step of so many.
fn one_cycle(step: f64, steps: f64) -> f64 {
    let (first, last) = (1.0 / 25.0, 1.0 / 25.0 / 1e4);
    let (top, end) = (0.3 * steps - 1.0, steps - 1.0);
    let between = |from: f64, to: f64, way: f64| to + (from - to) / 2.0 * (1.0 + (PI * way).cos());
    match step <= top {
        true => between(first, 1.0, step / top.max(1.0)),
        false => between(1.0, last, ((step - top) / (end - top).max(1.0)).min(1.0)),
    }
}
