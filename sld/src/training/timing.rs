//! Timing of whole steps on random images: what `sld bench step` runs.

use std::time::Instant;

use autograd::{Device, Executable};
use nn::models::{self, Model};
use nn::optimizer::{Sgd, SgdOptions};

use super::evaluate::Evaluator;
use super::step::{Networks, TrainStep};
use crate::distill::{self, Distiller};
use crate::random::{Purpose, Stream};

/// What is timed.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// A distillation step of a pair.
    Distill { method: String, teacher: String, student: String },
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
    /// Kernels of an iteration, and the seconds of each where a profile was asked for.
    pub kernels: usize,
    pub profile: Vec<(String, f64)>,
}

const CLASSES: usize = 100;

/// Runs `subject` on batches of random 32x32 images.
pub fn time(
    device: &dyn Device,
    subject: &Subject,
    batch: usize,
    side: usize,
    iterations: usize,
    profile: bool,
) -> anyhow::Result<Timing> {
    match subject {
        Subject::Evaluate(name) => time_evaluation(device, name, batch, side, iterations, profile),
        Subject::Vanilla(name) => {
            let student = models::build(name, CLASSES, 1)?;
            time_training(device, student, None, &distill::Vanilla, batch, side, iterations, profile)
        }
        Subject::Distill { method, teacher, student } => {
            let known = || {
                anyhow::anyhow!("there is no method `{method}`; choose one of {}", distill::NAMES.join(", "))
            };
            let method = distill::by_name(method).ok_or_else(known)?;
            let teacher = method.needs_teacher().then(|| models::build(teacher, CLASSES, 2)).transpose()?;
            let student = models::build(student, CLASSES, 1)?;
            time_training(device, student, teacher, &*method, batch, side, iterations, profile)
        }
    }
}

#[allow(clippy::too_many_arguments)]
fn time_training(
    device: &dyn Device,
    student: Model,
    teacher: Option<Model>,
    distiller: &dyn Distiller,
    batch: usize,
    side: usize,
    iterations: usize,
    profile: bool,
) -> anyhow::Result<Timing> {
    let sgd = Sgd::new(&student.parameters(), SgdOptions::default());
    let networks = Networks { student, teacher, sgd, repeat_wrn_updates: true };
    let mut step = TrainStep::compile(device, &networks, distiller, batch, [side, side])?;
    let mut random = Stream::new(7, Purpose::Order, 0, 0);
    let count = distiller.views() * batch * side * side * 3;
    let images: Vec<f32> = (0..count).map(|_| random.unit() as f32 * 4.0 - 2.0).collect();
    let labels: Vec<i32> = (0..batch).map(|i| (i * 37 % CLASSES) as i32).collect();
    let factor = distiller.factor(usize::MAX).map(|f| f as f32);
    // A tiny rate: the weights stay where they began, so every iteration does the same work.
    let milliseconds = repeat(iterations, || step.run(&images, &labels, 1e-6, factor).map(|_| ()))?;
    measure(step.executable(), milliseconds, batch, profile)
}

fn time_evaluation(
    device: &dyn Device,
    name: &str,
    batch: usize,
    side: usize,
    iterations: usize,
    profile: bool,
) -> anyhow::Result<Timing> {
    let model = models::build(name, CLASSES, 1)?;
    let mut evaluator = Evaluator::compile(device, &model, batch, [side, side])?;
    let mut random = Stream::new(7, Purpose::Order, 0, 0);
    let images: Vec<f32> = (0..batch * side * side * 3).map(|_| random.unit() as f32 * 4.0 - 2.0).collect();
    let executable = evaluator.executable();
    let milliseconds = repeat(iterations, || {
        executable.call(&[("images", autograd::Value::F32(&images))])?;
        executable.output("logits").map(|_| ())
    })?;
    measure(executable, milliseconds, batch, profile)
}

/// Times `iterations` runs after two that warm caches, threads and clocks.
fn repeat(iterations: usize, mut run: impl FnMut() -> autograd::Result<()>) -> autograd::Result<Vec<f64>> {
    run()?;
    run()?;
    let mut times = Vec::with_capacity(iterations);
    for _ in 0..iterations {
        let started = Instant::now();
        run()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

fn measure(
    executable: &mut dyn Executable,
    milliseconds: Vec<f64>,
    images: usize,
    profile: bool,
) -> anyhow::Result<Timing> {
    let profile = if profile { executable.profile()? } else { vec![] };
    let schedule = executable.schedule();
    let (flops, kernels) = (schedule.total_work().flops, schedule.kernels.len());
    Ok(Timing { milliseconds, images, bytes: executable.bytes(), flops, kernels, profile })
}
