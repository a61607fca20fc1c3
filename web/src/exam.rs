//! A step to be read and timed, kernel by kernel.

use anyhow::{Context, Result};
use autograd::{Tensor, Variable, VariableStore};
use schedule::{Device, Executable, Kernel, Options, Schedule, Step};
use serde::Serialize;

use crate::learner::Learner;

/// A kernel of the step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What it computes: `conv3x3 forward + relu`.
    pub label: String,
    /// The part of the step: student, teacher, loss, backward, update.
    pub part: &'static str,
    /// The layer it belongs to; empty between layers.
    pub layer: String,
    /// Floating point operations of a call, in millions.
    pub mflop: f64,
    /// Bytes read and written, in KiB.
    pub kib: f64,
    /// The kernels whose results it reads, by their place in the list.
    pub from: Vec<usize>,
}

/// A step that belongs to networks of its own. Its kernels are WebGPU's also where another device runs them, whose
/// own cannot be read.
pub struct Exam {
    learner: Learner,
    /// The temperature that it was compiled for.
    pub temperature: f64,
    /// The kernels, in their order.
    pub rows: Vec<Row>,
    sources: Vec<String>,
}

impl Exam {
    /// `learner` makes the step on the device that it is given.
    ///
    /// # Errors
    /// The learner's, and of a kernel that cannot be written for WebGPU.
    pub fn new(
        device: &dyn Device,
        temperature: f64,
        learner: impl FnOnce(&dyn Device) -> Result<Learner>,
    ) -> Result<Exam> {
        let device = &Readable::new(device)?;
        let mut learner = learner(device)?;
        let schedule = learner.executable().schedule();
        let rows = rows(schedule);
        let text = |kernel| Ok(device.source(schedule, kernel)?.unwrap_or_default());
        let sources = schedule.kernels.iter().map(text).collect::<Result<_>>()?;
        Ok(Exam { learner, temperature, rows, sources })
    }

    /// The program text of a kernel.
    pub fn source(&self, kernel: usize) -> Result<&str> {
        self.sources.get(kernel).map(String::as_str).context("there is no such kernel")
    }

    /// Seconds of each kernel: the mean of a few calls, for a browser's clock is too coarse for one.
    ///
    /// # Errors
    /// The device cannot measure them.
    pub async fn seconds(&mut self) -> Result<Vec<f64>> {
        const CALLS: usize = 5;
        if self.learner.steps() == 0 {
            self.learner.advance().await?;
        }
        let mut mean = vec![0.0; self.rows.len()];
        for _ in 0..CALLS {
            let launches = self.learner.executable().profile_async().await?;
            let seconds = by_kernel(&self.learner.executable().schedule().kernels, &launches);
            mean.iter_mut().zip(seconds).for_each(|(mean, seconds)| *mean += seconds / CALLS as f64);
        }
        Ok(mean)
    }
}

fn rows(schedule: &Schedule) -> Vec<Row> {
    // The kernel that wrote a buffer last.
    let mut writer = vec![None; schedule.buffers.len()];
    let mut rows = Vec::new();
    for (number, kernel) in schedule.kernels.iter().enumerate() {
        let scope = schedule.scope(kernel);
        let work = schedule.work(kernel);
        let mut from: Vec<usize> = kernel.reads().into_iter().filter_map(|buffer| writer[buffer]).collect();
        from.sort_unstable();
        from.dedup();
        kernel.writes().into_iter().for_each(|buffer| writer[buffer] = Some(number));
        rows.push(Row {
            label: kernel.label.clone(),
            part: if scope.part.is_empty() { "step" } else { scope.part },
            layer: scope.layer.as_deref().unwrap_or("").into(),
            mflop: work.flops as f64 / 1e6,
            kib: work.bytes as f64 / 1024.0,
            from,
        });
    }
    rows
}

/// The time of each kernel from that of each launch, in order. A kernel may take several launches under its label,
/// after others that compute its operands (`LABEL, operand`). Kernels of one label in a row share their time.
fn by_kernel(kernels: &[Kernel], launches: &[(String, f64)]) -> Vec<f64> {
    let mut seconds = Vec::new();
    let mut launches = launches.iter().peekable();
    for run in kernels.chunk_by(|a, b| a.label == b.label) {
        let label = &run[0].label;
        let mut total = 0.0;
        while let Some((_, took)) = launches.next_if(|(of, _)| of != label) {
            total += took;
        }
        while let Some((_, took)) =
            launches.next_if(|(of, _)| of == label || of.strip_suffix(", operand") == Some(label.as_str()))
        {
            total += took;
        }
        seconds.extend(run.iter().map(|_| total / run.len() as f64));
    }
    seconds
}

/// A device whose kernels can be read: those that are WGSL, else what WebGPU would run in their place.
struct Readable<'a> {
    device: &'a dyn Device,
    is_wgsl: bool,
}

impl<'a> Readable<'a> {
    fn new(device: &'a dyn Device) -> Result<Readable<'a>> {
        let sample = Step::new().output("sample", &(Tensor::input("x", &[1]) + 1.0)).schedule()?;
        let is_wgsl = device.source(&sample, &sample.kernels[0])?.is_some();
        Ok(Readable { device, is_wgsl })
    }
}

impl Device for Readable<'_> {
    fn name(&self) -> String {
        self.device.name()
    }
    fn options(&self) -> Options {
        if self.is_wgsl { self.device.options() } else { gpu::webgpu_options() }
    }
    fn compile(&self, schedule: Schedule) -> autograd::Result<Box<dyn Executable>> {
        self.device.compile(schedule)
    }
    fn source(&self, schedule: &Schedule, kernel: &Kernel) -> autograd::Result<Option<String>> {
        match self.is_wgsl {
            true => self.device.source(schedule, kernel),
            false => gpu::webgpu_source(schedule, kernel).map(Some),
        }
    }
}

impl VariableStore for Readable<'_> {
    fn write(&self, variable: &Variable, values: &[f32]) -> autograd::Result<()> {
        self.device.write(variable, values)
    }
    fn read(&self, variable: &Variable) -> autograd::Result<Vec<f32>> {
        self.device.read(variable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_launch_counts_for_its_kernel() {
        let kernel = |label: &str| Kernel { label: label.into(), ..Kernel::copy(0, 1, 1) };
        let kernels = ["a", "b", "b", "c"].map(kernel);
        let launches = [("a", 1.0), ("a", 2.0), ("b, operand", 4.0), ("b", 8.0), ("b", 16.0), ("c", 32.0)];
        let launches = launches.map(|(label, seconds)| (label.to_string(), seconds));
        assert_eq!(by_kernel(&kernels, &launches), [3.0, 14.0, 14.0, 32.0]);
    }
}
