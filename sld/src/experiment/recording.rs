//! What a training run leaves: a line on the terminal and the run's files, after every epoch.

use nn::checkpoint::{self, Checkpoint, Problem};

use super::terminal::Terminal;
use crate::distill::{Network, Observation};
use crate::run::{Accuracy, EpochMetrics, LATEST, RunError, RunFolder, SwapMetrics, SwapSide, TrainMetrics};
use crate::training::snapshot::Progress;
use crate::training::{EpochResult, Evaluation, Expected, Metric, Observer, Settings, StepResult, Team};

/// How much a run writes.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    /// Steps between two points of the training loss in TensorBoard.
    pub every_steps: u64,
    /// Epochs between two checkpoints that are kept; 0: none is.
    pub every_epochs: usize,
}

impl Default for Log {
    /// A config's.
    fn default() -> Log {
        Log { every_steps: 500, every_epochs: 40 }
    }
}

/// The observer of a process that is not rank 0, which has nothing to say.
pub struct Silent;

impl Observer for Silent {
    fn epoch(&mut self, _: &EpochResult, _: &Checkpoint, _: &Checkpoint, _: bool) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Shows progress and writes the run's files.
pub struct Recorder<'a> {
    team: Team<'a>,
    log: Log,
    pub run: RunFolder,
    pub terminal: Terminal,
    /// On the test images, of the last epoch that this process finished.
    pub last: Option<Evaluation>,
}

impl<'a> Recorder<'a> {
    /// Of a run of this team with these settings.
    pub fn new(team: Team<'a>, settings: &Settings, log: Log, run: RunFolder) -> Recorder<'a> {
        let terminal = Terminal::new(settings.epochs, settings.patience > 0);
        Recorder { team, log, run, terminal, last: None }
    }

    /// Saves the state to go on from, and before it what that needs.
    fn save_latest(&mut self, latest: &Checkpoint) -> anyhow::Result<()> {
        self.run.keep_kernels(self.team.device.choices())?;
        self.save(LATEST, latest)
    }

    fn save(&self, name: &str, checkpoint: &Checkpoint) -> anyhow::Result<()> {
        let path = self.run.path().join(name);
        checkpoint::write_pth(&path, checkpoint).map_err(|why| match why.problem {
            // With what to do about a full or read-only disk.
            Problem::Io { source, .. } => RunError::Write { path, source }.into(),
            _ => why.into(),
        })
    }

    fn metrics(&self, result: &EpochResult) -> EpochMetrics {
        let accuracy = |e: &Evaluation| Accuracy { top1: e.top1(), top5: e.top5(), loss: e.loss };
        let term = |&(metric, mean): &(Metric, f64)| match metric {
            Metric::Term(name) => Some((name.to_string(), mean)),
            _ => None,
        };
        EpochMetrics {
            epoch: result.epoch as u32,
            lr: result.rate,
            train: TrainMetrics {
                loss: result.train_loss(),
                top1: result.train_top1(),
                top5: result.train_top5(),
                terms: result.train.iter().filter_map(term).collect(),
            },
            validation: result.held_out.as_ref().map(accuracy),
            test: accuracy(&result.test),
            images_per_second: result.images_per_second,
            seconds: result.train_seconds + result.evaluation_seconds,
            swap: self.swap_metrics(result),
        }
    }

    fn swap_metrics(&self, result: &EpochResult) -> Option<SwapMetrics> {
        let observed = |what: Observation| result.metric(Metric::Observed(what));
        let side = |network| {
            Some(SwapSide {
                share: observed(Observation::Swapped(network))?,
                confidence_before: observed(Observation::Confidence(network))?,
                confidence_after: observed(Observation::ConfidenceSwapped(network))?,
            })
        };
        let gate = self.team.method.factor(result.epoch).unwrap_or(1.0);
        Some(SwapMetrics {
            teacher: side(Network::Teacher)?,
            student: side(Network::Student)?,
            student_gate: gate > 0.0,
            teacher_level: observed(Observation::Level(Network::Teacher))?,
            student_level: observed(Observation::Level(Network::Student))?,
        })
    }
}

impl Observer for Recorder<'_> {
    fn begins(&mut self, expected: Expected) {
        self.terminal.begins(expected);
    }

    fn step(&mut self, result: &StepResult) {
        if result.step.is_multiple_of(self.log.every_steps.max(1)) {
            let loss = result.means.iter().find(|m| m.0 == Metric::Loss).map_or(f64::NAN, |m| m.1);
            // A log that cannot be written must not end the training; the epoch's own files will say so.
            self.run.log_step(result.step, loss, result.rate).ok();
        }
        self.terminal.step(result);
    }

    fn epoch(
        &mut self,
        result: &EpochResult,
        latest: &Checkpoint,
        student: &Checkpoint,
        is_best: bool,
    ) -> anyhow::Result<()> {
        self.terminal.epoch(result, is_best);
        // What is logged but not in `latest` is measured again after a crash, so logs come first and
        // `latest` last.
        self.run.log_epoch(self.metrics(result))?;
        self.save("student_latest", student)?;
        if is_best {
            self.save("best", latest)?;
            self.save("student_best", student)?;
        }
        let every = self.log.every_epochs;
        if every > 0 && result.epoch.is_multiple_of(every) {
            self.save(&format!("epoch_{}", result.epoch), latest)?;
            self.save(&format!("student_{}", result.epoch), student)?;
        }
        self.save_latest(latest)?;
        self.last = Some(result.test.clone());
        Ok(())
    }

    fn trained(&mut self, latest: &Checkpoint) -> anyhow::Result<()> {
        // From now on there is a `latest`: without one, what follows would be a run that cannot go on.
        self.save_latest(latest)
    }

    fn interrupted(&mut self, _progress: &Progress, latest: &Checkpoint) -> anyhow::Result<()> {
        self.terminal.abandon();
        self.save_latest(latest)
    }

    fn diverged(&mut self, _message: &str, state: &Checkpoint) -> anyhow::Result<()> {
        self.terminal.abandon();
        self.save("diverged", state)
    }
}
