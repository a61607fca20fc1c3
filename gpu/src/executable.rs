//! A compiled schedule: pipelines and bind groups made once, replayed by every call.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use autograd::{Error, Result};
use schedule::backend::{Backend, Compiled, Variables};
use schedule::{BufferId, Communicator, Exchange, Pending, PendingSum, Schedule, pending};
use shaders::{Assembled, Context, Launch, Storage, precompute};

use crate::context::Gpu;
use crate::dispatch::{Dispatch, Uniforms};
use crate::memory::Memory;
use crate::pipelines::Pipelines;
use crate::profile;
use crate::tuning::Tuning;

/// Calls that may be on their way to the device before a new one waits.
const IN_FLIGHT: usize = 3;

/// A schedule compiled for an adapter.
pub struct GpuExecutable {
    gpu: Arc<Gpu>,
    memory: Memory,
    prepare: Vec<Dispatch>,
    dispatches: Vec<Dispatch>,
    /// The sums over processes.
    sums: Vec<Sum>,
    in_flight: VecDeque<wgpu::SubmissionIndex>,
    bytes: u64,
}

/// A sum over processes, and the numbers of the dispatches before which it begins and must be there.
struct Sum {
    exchange: Exchange,
    begin: usize,
    finish: usize,
    /// Where the processor reads the values.
    staging: wgpu::Buffer,
}

impl GpuExecutable {
    pub fn new(
        gpu: Arc<Gpu>,
        pipelines: &Pipelines,
        tuning: &Tuning,
        schedule: &Schedule,
        variables: &mut Variables<impl Backend<Memory = wgpu::Buffer>>,
    ) -> Result<GpuExecutable> {
        let precomputed = precompute(schedule.clone(), &gpu.target);
        let used = used(&precomputed.schedule);
        let memory = Memory::new(&gpu, variables, &precomputed, &used)?;
        let run = precomputed.schedule;
        let frozen = run.frozen();
        let context = Context {
            buffers: &run.buffers,
            tight: false,
            places: &memory.places,
            frozen: &frozen,
            target: &gpu.target,
            choice: None,
        };
        let mut builder = Builder::default();
        let all = run.prepare.iter().chain(&run.kernels);
        let mut assembled = tuning.assemble(&gpu, context, all)?.into_iter();
        for kernel in assembled.by_ref().take(run.prepare.len()) {
            builder.add(kernel, true);
        }
        let exchanges = run.exchanges();
        let mut sums = Vec::with_capacity(exchanges.len());
        for &exchange in &exchanges {
            sums.push(Sum { exchange, begin: 0, finish: usize::MAX, staging: gpu.staging(exchange.len)? });
        }
        for (number, kernel) in assembled.enumerate() {
            let so_far = builder.calls();
            for sum in &mut sums {
                if sum.exchange.kernel == number {
                    sum.begin = so_far;
                } else if sum.exchange.needed == number {
                    sum.finish = so_far;
                }
            }
            builder.add(kernel, false);
        }
        let (prepare, dispatches, extra) = builder.build(&gpu, pipelines, &memory)?;
        let bytes = memory.bytes + extra + sums.iter().map(|sum| sum.staging.size()).sum::<u64>();
        Ok(GpuExecutable { gpu, memory, prepare, dispatches, sums, in_flight: VecDeque::new(), bytes })
    }

    /// Sends the kernels of a call in pieces, between which sums over processes begin, and end: as late as
    /// their first reader allows, so that the device goes on computing meanwhile.
    fn run_among(&mut self, prepare: bool, processes: &dyn Communicator) -> Result<()> {
        let mut sent = 0;
        let mut prepare = prepare;
        // The sums before `oldest` are done. The values of those before `next` were copied to where the processor
        // reads them; of these, first the ones that are `under_way` were handed to the processes.
        let (mut next, mut oldest) = (0, 0);
        let mut copied = VecDeque::new();
        let mut under_way: VecDeque<Box<dyn PendingSum>> = VecDeque::new();
        loop {
            let begin = self.sums.get(next).map_or(usize::MAX, |sum| sum.begin);
            let finish = self.sums[oldest..next].iter().map(|sum| sum.finish).min().unwrap_or(usize::MAX);
            let until = begin.min(finish).min(self.dispatches.len());
            if until > sent || prepare {
                self.submit(prepare, sent..until)?;
                (sent, prepare) = (until, false);
            }
            if finish <= begin && oldest < next {
                // In the order of their beginning, up to the one that is needed.
                let last = self.sums[oldest..next].iter().rposition(|sum| sum.finish <= finish).unwrap_or(0);
                for sum in &self.sums[oldest + under_way.len()..next] {
                    let Some(copied) = copied.pop_front() else { break };
                    let values =
                        pending::wait(self.gpu.fetch(sum.staging.clone(), copied, sum.exchange.len))?;
                    under_way.push_back(processes.begin_sum(values, sum.exchange.transfer)?);
                }
                for sum in &self.sums[oldest..=oldest + last] {
                    let Some(pending) = under_way.pop_front() else { break };
                    let values = pending.finish()?;
                    if let Some(buffer) = self.memory.of(sum.exchange.output) {
                        self.gpu.queue.write_buffer(buffer, 0, bytemuck::cast_slice(&values));
                    }
                }
                oldest += last + 1;
            } else if let Some(sum) = self.sums.get(next) {
                let Some(buffer) = self.memory.of(sum.exchange.input) else {
                    return Err(Error::Step("a sum over processes has no memory".into()));
                };
                copied.push_back(self.gpu.copy_to(buffer, &sum.staging, sum.exchange.len)?);
                next += 1;
            } else {
                return Ok(());
            }
        }
    }

    /// Sends the kernels that are to be prepared, if asked for, and some of a call.
    fn submit(&mut self, prepare: bool, call: Range<usize>) -> Result<()> {
        let prepare = if prepare { &self.prepare[..] } else { &[] };
        let call = &self.dispatches[call];
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            prepare.iter().chain(call).for_each(|dispatch| dispatch.encode(&mut pass));
        }
        let index = self.gpu.queue.submit([encoder.finish()]);
        self.in_flight.push_back(index);
        if self.in_flight.len() > IN_FLIGHT
            && let Some(oldest) = self.in_flight.pop_front()
        {
            self.gpu.wait(Some(oldest))?;
        }
        Ok(())
    }
}

impl Compiled for GpuExecutable {
    fn copy_in(&mut self, buffer: BufferId, values: &[f32]) -> Result<()> {
        // An input that no kernel reads has no memory.
        if let Some(buffer) = self.memory.of(buffer) {
            self.gpu.queue.write_buffer(buffer, 0, bytemuck::cast_slice(values));
        }
        Ok(())
    }

    fn copy_out(&mut self, buffer: BufferId, len: usize) -> Result<Pending<Vec<f32>>> {
        match self.memory.of(buffer) {
            Some(buffer) => self.gpu.read(buffer, len),
            None => Err(Error::Step("an output has no memory".into())),
        }
    }

    fn run(&mut self, prepare: bool, processes: &dyn Communicator) -> Result<()> {
        self.gpu.check()?;
        match self.sums.is_empty() {
            true => self.submit(prepare, 0..self.dispatches.len())?,
            false => self.run_among(prepare, processes)?,
        }
        self.gpu.check()
    }

    fn profile(&mut self, prepare: bool) -> Result<Pending<Vec<(String, f64)>>> {
        if prepare {
            self.submit(true, 0..0)?;
        }
        let seconds = profile::measure(&self.gpu, &self.dispatches.iter().collect::<Vec<_>>())?;
        let labels: Vec<String> = self.dispatches.iter().map(|d| d.label.clone()).collect();
        Ok(Box::pin(async move { Ok(labels.into_iter().zip(seconds.await?).collect()) }))
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Buffers that a kernel touches or a caller can read.
fn used(schedule: &Schedule) -> HashSet<BufferId> {
    let mut used: HashSet<BufferId> = schedule.outputs.iter().map(|(_, id)| *id).collect();
    for kernel in schedule.prepare.iter().chain(&schedule.kernels) {
        used.extend(kernel.buffers());
    }
    used
}

/// Collects the launches of all kernels.
#[derive(Default)]
struct Builder {
    launches: Vec<Launch>,
    /// Of each launch: whether it belongs to `prepare`, and where its kernel's kept memory begins.
    places: Vec<(bool, usize)>,
    /// Bytes of the scratch allocations, shared by all kernels.
    scratch: Vec<u64>,
    kept: Vec<u64>,
}

impl Builder {
    /// Launches of a call so far.
    fn calls(&self) -> usize {
        self.places.iter().filter(|(prepare, _)| !prepare).count()
    }

    fn add(&mut self, kernel: Assembled, prepare: bool) {
        let Assembled { prepare: first, launches, scratch, kept } = kernel;
        let base = self.kept.len();
        self.places.extend(first.iter().map(|_| (true, base)));
        self.launches.extend(first);
        self.places.extend(launches.iter().map(|_| (prepare, base)));
        self.launches.extend(launches);
        for (i, size) in scratch.into_iter().enumerate() {
            if i == self.scratch.len() {
                self.scratch.push(0);
            }
            self.scratch[i] = self.scratch[i].max(size);
        }
        self.kept.extend(kept);
    }

    /// Pipelines, bind groups and scratch memory; returns the dispatches of `prepare`, those of a call,
    /// and the bytes allocated.
    fn build(
        self,
        gpu: &Gpu,
        pipelines: &Pipelines,
        memory: &Memory,
    ) -> Result<(Vec<Dispatch>, Vec<Dispatch>, u64)> {
        let allocate = |sizes: &[u64], label: &str| -> Result<Vec<wgpu::Buffer>> {
            sizes.iter().map(|&size| gpu.buffer(label, size)).collect()
        };
        let scratch = allocate(&self.scratch, "scratch")?;
        let kept = allocate(&self.kept, "packed")?;
        let pipelines = pipelines.get(gpu, &self.launches)?;
        let uniforms = Uniforms::new(gpu, &self.launches)?;
        let total = self.scratch.iter().chain(&self.kept).sum::<u64>() + uniforms.bytes();

        let (mut prepare, mut dispatches) = (Vec::new(), Vec::new());
        for (number, (launch, pipeline)) in self.launches.into_iter().zip(pipelines).enumerate() {
            let (is_prepare, kept_base) = self.places[number];
            let memory = |storage| match storage {
                Storage::Memory(m) => memory.buffers[m].as_ref(),
                Storage::Scratch(s) => scratch.get(s),
                Storage::Kept(k) => kept.get(kept_base + k),
            };
            let dispatch = uniforms.bind(gpu, number, launch, pipeline, memory)?;
            if is_prepare { prepare.push(dispatch) } else { dispatches.push(dispatch) }
        }
        Ok((prepare, dispatches, total))
    }
}
