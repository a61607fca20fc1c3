//! A training run as people see it: progress on the terminal, files in the run's folder.

use crate::say;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use nn::checkpoint::{self, Checkpoint, Problem};
use schedule::Device;

use super::session::{self, RunData};
use crate::config::Config;
use crate::distill::{Distiller, Network, Observation};
use crate::run::{
    Accuracy, EpochMetrics, Evaluation as RunEvaluation, ModelInfo, RunError, RunFolder, RunInfo,
    SwapMetrics, SwapSide, TrainMetrics,
};
use crate::training::snapshot::{self, Progress};
use crate::training::{
    EpochResult, Evaluation, Evaluator, Metric, Networks, Observer, Outcome, StepResult, Trainer,
};

/// The report's name in a run's folder.
const REPORT: &str = "report.html";

/// Whether a run starts or goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    New,
    /// From `latest` in the run's folder.
    Resume,
}

/// What a finished run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    pub folder: PathBuf,
    pub epochs: usize,
    /// On the test images, after the last epoch.
    pub top1: f64,
    pub top5: f64,
    /// The best epoch's, by the images that choose it.
    pub best: f64,
    pub best_epoch: usize,
    pub seconds: f64,
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "top-1 {:.2}%, top-5 {:.2}% after {} epochs; best {:.2}% in epoch {}; report: {}",
            self.top1,
            self.top5,
            self.epochs,
            self.best,
            self.best_epoch,
            self.folder.join(REPORT).display()
        )
    }
}

/// Trains the config's student in `folder`. `None` if it was interrupted.
pub fn train(
    device: &dyn Device,
    config: &Config,
    folder: &Path,
    data: &RunData,
    mode: Mode,
    stop: &AtomicBool,
) -> anyhow::Result<Option<Finished>> {
    let distiller = session::distiller(config);
    let networks = session::networks(config, data.train.classes().len())?;
    let mut info = describe(device, config, data, &networks);
    let latest = folder.join("latest");
    let saved = match mode {
        Mode::New => None,
        Mode::Resume if !latest.exists() => {
            say!("# nothing saved in {} yet: starting from the beginning", folder.display());
            None
        }
        Mode::Resume => Some(checkpoint::read(&latest)?),
    };
    if saved.is_some() {
        info.started = RunInfo::read(folder).map_or(info.started, |begun| begun.started);
    }
    let last_epoch = saved.as_ref().and_then(|s| s.epoch).unwrap_or(0) as u32;
    // The folder first: a run in use or finished is noticed before anything is computed.
    let run = match mode {
        Mode::New => RunFolder::create(folder, config, &info)?,
        Mode::Resume if folder.is_dir() => RunFolder::resume(folder, config, &info, last_epoch)?,
        Mode::Resume => RunFolder::create(folder, config, &info)?,
    };
    if let Some(teacher) = &networks.teacher {
        let path = config.distiller.teacher_path();
        snapshot::load_model(device, teacher, Path::new(&path)).with_context(|| {
            format!("the teacher {} cannot be read; give its checkpoint with --teacher", teacher.name())
        })?;
        let accuracy = evaluate(device, teacher, config, data)?.top1();
        say!("# teacher {}: top-1 {accuracy:.2}% on {} test images", teacher.name(), data.test.len());
        if let Some(teacher) = &mut info.teacher {
            teacher.top1 = Some(accuracy);
        }
        run.write_info(&info)?;
    }
    let settings = session::settings(config);
    let mut trainer = Trainer::new(
        device,
        &networks,
        &*distiller,
        settings,
        data.train.clone(),
        data.test.clone(),
        data.held_out.clone(),
    )?
    .stop_when(stop);
    if let Some(saved) = saved {
        let progress = trainer.resume(saved, &latest)?;
        say!("# going on in epoch {} after {} batches", progress.epoch, progress.batch);
    }
    let mut observer = RunObserver::new(config, &*distiller, run);
    match trainer.run(&mut observer)? {
        Outcome::Interrupted => {
            // A run stopped within its first epoch has nothing to show yet.
            if !observer.run.history().is_empty() {
                write_report(folder)?;
            }
            Ok(None)
        }
        Outcome::Finished { best, best_epoch } => {
            // A finished run that is resumed has no epoch to show for itself: measure it once more.
            let last = match observer.last.take() {
                Some(last) => last,
                None => evaluate(device, &networks.student, config, data)?,
            };
            let evaluation = RunEvaluation {
                epoch: config.solver.epochs,
                classes: data.test.classes().to_vec(),
                confusion: last.confusion.clone(),
            };
            observer.run.finish(&evaluation)?;
            observer.bar.finish_and_clear();
            write_report(folder)?;
            Ok(Some(Finished {
                folder: folder.into(),
                epochs: config.solver.epochs as usize,
                top1: last.top1(),
                top5: last.top5(),
                best,
                best_epoch,
                seconds: observer.started.elapsed().as_secs_f64(),
            }))
        }
    }
}

/// Writes the report of the run in `folder`.
fn write_report(folder: &Path) -> anyhow::Result<()> {
    crate::report::write(&[folder], &folder.join(REPORT))?;
    Ok(())
}

fn evaluate(
    device: &dyn Device,
    model: &nn::Model,
    config: &Config,
    data: &RunData,
) -> anyhow::Result<Evaluation> {
    let size = [data.test.height(), data.test.width()];
    let batch = config.dataset.test_batch_size as usize;
    Evaluator::compile(device, model, batch, size)?.run(&data.test, session::workers(config), |_, _| ())
}

fn describe(device: &dyn Device, config: &Config, data: &RunData, networks: &Networks) -> RunInfo {
    let model = |m: &nn::Model| ModelInfo {
        name: m.name().into(),
        parameters: m.parameter_count() as u64,
        top1: None,
    };
    RunInfo {
        distiller: config.distiller.kind.name().into(),
        dataset: config.dataset.kind.name().into(),
        student: model(&networks.student),
        teacher: networks.teacher.as_ref().map(model),
        device: device.name(),
        train_images: data.train.len() as u64,
        test_images: data.test.len() as u64,
        test_digest: data.test.digest(),
        validation_images: data.held_out.as_ref().map_or(0, |d| d.len() as u64),
        epochs: config.solver.epochs,
        batch_size: config.solver.batch_size,
        seed: config.solver.seed,
        version: crate::VERSION.into(),
        started: started(),
        settings: config.differences(),
    }
}

/// Now, in whole seconds since 1970.
fn started() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}

/// A duration as hours, minutes and seconds: "1:02:03", "2:03".
fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// Shows progress and writes the run's files.
struct RunObserver<'a> {
    config: &'a Config,
    distiller: &'a dyn Distiller,
    run: RunFolder,
    bar: ProgressBar,
    last: Option<Evaluation>,
    started: Instant,
    epoch_started: Instant,
    /// Images of the epoch in work when this process took it up.
    first_images: Option<usize>,
    drawn: Option<Instant>,
}

impl<'a> RunObserver<'a> {
    fn new(config: &'a Config, distiller: &'a dyn Distiller, run: RunFolder) -> RunObserver<'a> {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{prefix} {bar:12} {pos}/{len} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        let now = Instant::now();
        RunObserver {
            config,
            distiller,
            run,
            bar,
            last: None,
            started: now,
            epoch_started: now,
            first_images: None,
            drawn: None,
        }
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
        let gate = self.distiller.factor(result.epoch).unwrap_or(1.0);
        Some(SwapMetrics {
            teacher: side(Network::Teacher)?,
            student: side(Network::Student)?,
            student_gate: gate > 0.0,
            teacher_level: observed(Observation::Level(Network::Teacher))?,
            student_level: observed(Observation::Level(Network::Student))?,
        })
    }
}

impl Observer for RunObserver<'_> {
    fn step(&mut self, result: &StepResult) {
        let mean = |wanted: Metric| result.means.iter().find(|m| m.0 == wanted).map_or(f64::NAN, |m| m.1);
        let first = *self.first_images.get_or_insert_with(|| {
            self.epoch_started = Instant::now();
            result.images
        });
        let step = (result.epoch - 1) * result.batches + result.batch;
        let every = self.config.log.tensorboard_freq.max(1) as usize;
        if step.is_multiple_of(every) {
            // A log that cannot be written must not end the training; the epoch's own files will say so.
            let rate = session::settings(self.config).schedule.lr_at(result.epoch);
            self.run.log_step(step as u64, mean(Metric::Loss), rate).ok();
        }
        let due = self.drawn.is_none_or(|at| at.elapsed() > Duration::from_millis(100));
        if !due && result.batch < result.batches {
            return;
        }
        self.drawn = Some(Instant::now());
        let seconds = self.epoch_started.elapsed().as_secs_f64();
        let done = (result.images - first) as f64;
        let epochs = self.config.solver.epochs as usize;
        let to_do = result.epoch_images - result.images + (epochs - result.epoch) * result.epoch_images;
        // The first batch begins the clock and says nothing about speed yet.
        let speed = match done > 0.0 {
            true => {
                format!("  {:.0} images/s  {} left", done / seconds, clock(to_do as f64 * seconds / done))
            }
            false => String::new(),
        };
        self.bar.set_length(result.batches as u64);
        self.bar.set_position(result.batch as u64);
        self.bar.set_prefix(format!("epoch {}/{epochs}", result.epoch));
        self.bar.set_message(format!(
            "loss {:.3}  top-1 {:.1}%{speed}",
            mean(Metric::Loss),
            100.0 * mean(Metric::Top1)
        ));
    }

    fn epoch(
        &mut self,
        result: &EpochResult,
        latest: &Checkpoint,
        student: &Checkpoint,
        is_best: bool,
    ) -> anyhow::Result<()> {
        self.first_images = None;
        let line = format!(
            "epoch {:>3}  lr {:<8} train: loss {:.4} top-1 {:5.2}%  test: top-1 {:5.2}% top-5 {:5.2}% loss {:.4}{}  {:.0} images/s",
            result.epoch,
            format!("{:.6}", result.rate).trim_end_matches('0'),
            result.train_loss(),
            result.train_top1(),
            result.test.top1(),
            result.test.top5(),
            result.test.loss,
            if is_best { "  best" } else { "" },
            result.images_per_second,
        );
        if self.bar.is_hidden() {
            say!("{line}");
        } else {
            self.bar.println(line);
        }
        // What is logged but not in `latest` is measured again after a crash, so logs come first and
        // `latest` last.
        self.run.log_epoch(self.metrics(result))?;
        self.save("student_latest", student)?;
        if is_best {
            self.save("best", latest)?;
            self.save("student_best", student)?;
        }
        let every = self.config.log.save_checkpoint_freq as usize;
        if every > 0 && result.epoch.is_multiple_of(every) {
            self.save(&format!("epoch_{}", result.epoch), latest)?;
            self.save(&format!("student_{}", result.epoch), student)?;
        }
        self.save("latest", latest)?;
        self.last = Some(result.test.clone());
        Ok(())
    }

    fn interrupted(&mut self, _progress: &Progress, latest: &Checkpoint) -> anyhow::Result<()> {
        self.bar.abandon();
        self.save("latest", latest)
    }

    fn diverged(&mut self, message: &str, state: &Checkpoint) -> anyhow::Result<()> {
        self.bar.abandon_with_message(message.to_string());
        self.save("diverged", state)
    }
}

#[cfg(test)]
mod tests {
    use super::clock;

    #[test]
    fn durations_read_as_a_clock_shows_them() {
        for (seconds, shown) in [(0.4, "0:00"), (59.6, "1:00"), (754.0, "12:34"), (3_723.0, "1:02:03")] {
            assert_eq!(clock(seconds), shown);
        }
        assert_eq!(clock(90_000.0), "25:00:00");
    }
}
