//! Timing of whole steps on random images: what `sld bench step` and `sld bench growth` run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nn::models::{self, Model};
use schedule::{Device, Executable};

use super::evaluate::Evaluator;
use super::networks::{Networks, Setup};
use super::step::{Scalars, TrainStep};
use crate::distill::{self, Distiller, Drawn};
use crate::random::{Purpose, Stream};
use crate::setting::Choice;

/// What is timed.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// A distillation step of a pair.
    Distill {
        /// As `DISTILLER.TYPE` names it.
        method: String,
        /// A network of the registry.
        teacher: String,
        /// A network of the registry.
        student: String,
    },
    /// A training step without a teacher.
    Vanilla(String),
    /// Evaluation of one batch.
    Evaluate(String),
}

/// The measurements.
pub struct Timing {
    /// Milliseconds of each iteration, after the warm-up.
    pub milliseconds: Vec<f64>,
    /// Images of a batch (each with all its views).
    pub images: usize,
    /// Bytes of the compiled step: temporaries, outputs, prepared weights, scratch.
    pub bytes: u64,
    /// Floating point operations of an iteration by the direct algorithms.
    pub flops: u64,
    /// Bytes that the kernels of an iteration read and write, each buffer counted once a kernel.
    pub moved: u64,
    /// Kernels of an iteration.
    pub kernels: usize,
    /// Where the time goes, the dearest first; empty unless a profile was asked for.
    pub profile: Vec<KernelTime>,
}

impl Timing {
    /// The middle iteration, in milliseconds.
    pub fn median(&self) -> f64 {
        middle(self.milliseconds.clone())
    }

    /// The fastest iteration, in milliseconds.
    pub fn fastest(&self) -> f64 {
        self.milliseconds.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

/// The middle one; NaN if there is none.
fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The kernels of one label, together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KernelTime {
    /// What the kernels are called in `sld explain`.
    pub label: String,
    /// Kernels of the label.
    pub count: usize,
    /// In one iteration.
    pub seconds: f64,
    /// By the direct algorithm.
    pub flops: u64,
    /// Read and written, each buffer counted once a kernel.
    pub bytes: u64,
}

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Images of a batch.
    pub batch: usize,
    /// Height and width of the images.
    pub side: usize,
    /// Most measured iterations.
    pub iterations: usize,
    /// Iterations end after this time, but not before the third.
    pub patience: Duration,
    /// Whether to measure each kernel too.
    pub profile: bool,
}

const CLASSES: usize = 100;

/// Runs `subject` on batches of random images.
///
/// # Errors
/// An unknown network or method, a network that does not take images of this size, and the device's.
pub fn time(device: &dyn Device, subject: &Subject, effort: Effort) -> anyhow::Result<Timing> {
    match subject {
        Subject::Evaluate(name) => time_evaluation(device, name, effort),
        Subject::Vanilla(name) => {
            let student = models::build(name, CLASSES, 1)?;
            time_training(device, student, None, &distill::Vanilla {}, effort)
        }
        Subject::Distill { method, teacher, student } => {
            let method = <Box<dyn Distiller>>::named(method).map_err(anyhow::Error::msg)?;
            let teacher = method.needs_teacher().then(|| models::build(teacher, CLASSES, 2)).transpose()?;
            let student = models::build(student, CLASSES, 1)?;
            time_training(device, student, teacher, &*method, effort)
        }
    }
}

fn time_training(
    device: &dyn Device,
    student: Model,
    teacher: Option<Model>,
    distiller: &dyn Distiller,
    effort: Effort,
) -> anyhow::Result<Timing> {
    let Effort { batch, side, .. } = effort;
    let setup = Setup { size: [side, side], ..Setup::default() };
    let networks = Networks::new(student, teacher, distiller, setup)?;
    let mut step = TrainStep::compile(device, &networks, distiller, batch, [side, side])?;
    let mut random = Stream::new(7, Purpose::Order, 0, 0);
    let count = distiller.views() * batch * side * side * 3;
    let images: Vec<f32> = (0..count).map(|_| random.unit() as f32 * 4.0 - 2.0).collect();
    let labels: Vec<i32> = (0..batch).map(|i| (i % CLASSES) as i32).collect();
    let (indices, all): (Vec<u32>, Vec<u32>) =
        ((0..batch as u32).collect(), (0..setup.images).map(|i| (i % CLASSES) as u32).collect());
    let own = distiller.inputs(&Drawn { seed: 7, epoch: 1, indices: &indices, labels: &all });
    // A tiny rate: the weights stay where they began, so every iteration does the same work.
    let scalars = Scalars::new(1e-6, distiller.factor(usize::MAX).map(|f| f as f32));
    let milliseconds = repeat(effort, || step.run(&images, &labels, scalars, &own).map(|_| ()))?;
    measure(step.executable(), milliseconds, effort)
}

fn time_evaluation(device: &dyn Device, name: &str, effort: Effort) -> anyhow::Result<Timing> {
    let Effort { batch, side, .. } = effort;
    let model = models::build(name, CLASSES, 1)?;
    let mut evaluator = Evaluator::compile(device, &model, batch, [side, side])?;
    let mut random = Stream::new(7, Purpose::Order, 0, 0);
    let images: Vec<f32> = (0..batch * side * side * 3).map(|_| random.unit() as f32 * 4.0 - 2.0).collect();
    let executable = evaluator.executable();
    let milliseconds = repeat(effort, || {
        executable.call(&[("images", schedule::Value::F32(&images))])?;
        executable.output("logits").map(|_| ())
    })?;
    measure(executable, milliseconds, effort)
}

/// Milliseconds of each run, after two that warm caches, threads and clocks.
fn repeat(effort: Effort, mut run: impl FnMut() -> autograd::Result<()>) -> autograd::Result<Vec<f64>> {
    run()?;
    run()?;
    let begun = Instant::now();
    let mut times = Vec::new();
    while times.len() < effort.iterations && (times.len() < 3 || begun.elapsed() < effort.patience) {
        let started = Instant::now();
        run()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

fn measure(
    executable: &mut dyn Executable,
    milliseconds: Vec<f64>,
    effort: Effort,
) -> anyhow::Result<Timing> {
    let profile = if effort.profile { profile(executable)? } else { vec![] };
    let bytes = executable.bytes();
    let schedule = executable.schedule();
    let work = schedule.total_work();
    Ok(Timing {
        milliseconds,
        images: effort.batch,
        bytes,
        flops: work.flops,
        moved: work.bytes,
        kernels: schedule.kernels.len(),
        profile,
    })
}

/// Calls that a profile is the median of, kernel by kernel.
const PROFILES: usize = 5;

fn profile(executable: &mut dyn Executable) -> anyhow::Result<Vec<KernelTime>> {
    let mut calls = Vec::with_capacity(PROFILES);
    for _ in 0..PROFILES {
        calls.push(executable.profile()?);
    }
    let mut by_label: BTreeMap<String, KernelTime> = BTreeMap::new();
    for (at, (label, _)) in calls[0].iter().enumerate() {
        by_label.entry(label.clone()).or_default().seconds +=
            middle(calls.iter().map(|call| call[at].1).collect());
    }
    // A GPU may take several launches for a kernel, under its label; its work counts once.
    let schedule = executable.schedule();
    for kernel in &schedule.kernels {
        let work = schedule.work(kernel);
        let entry = by_label.entry(kernel.label.clone()).or_default();
        entry.count += 1;
        entry.flops += work.flops;
        entry.bytes += work.bytes;
    }
    let mut profile: Vec<KernelTime> =
        by_label.into_iter().map(|(label, kernel)| KernelTime { label, ..kernel }).collect();
    profile.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok(profile)
}
