//! A compiled schedule: pipelines and bind groups made once, replayed by every call.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use autograd::{Error, Result};
use schedule::backend::{Backend, Compiled, Variables};
use schedule::{BufferId, Communicator, Exchange, Pending, PendingSum, Schedule, pending};
use shaders::{Sequence, Storage, precompute};

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
        let (run, context) = (&precomputed.schedule, precomputed.context(&gpu.target));
        let assembled = tuning.assemble(&gpu, context, run.all_kernels())?;
        let sequence = Sequence::new(context, run, assembled)?;
        let sum = |exchange: Exchange| {
            let staging = gpu.staging(exchange.len)?;
            let start = |kernel| sequence.starts.get(kernel).copied();
            // A sum that no kernel needs is there when the call ends.
            let finish = start(exchange.needed).unwrap_or(usize::MAX);
            Ok(Sum { exchange, begin: start(exchange.kernel).unwrap_or(0), finish, staging })
        };
        let sums = run.exchanges().into_iter().map(sum).collect::<Result<Vec<Sum>>>()?;
        let (prepare, dispatches, extra) = build(&gpu, pipelines, &memory, sequence)?;
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
    for kernel in schedule.all_kernels() {
        used.extend(kernel.buffers());
    }
    used
}

/// Pipelines, bind groups and memory of the launches' own; returns the dispatches of `prepare`, those of a
/// call, and the bytes allocated.
fn build(
    gpu: &Gpu,
    pipelines: &Pipelines,
    memory: &Memory,
    sequence: Sequence,
) -> Result<(Vec<Dispatch>, Vec<Dispatch>, u64)> {
    let allocate = |sizes: &[u64], label: &str| -> Result<Vec<wgpu::Buffer>> {
        sizes.iter().map(|&size| gpu.buffer(label, size)).collect()
    };
    let scratch = allocate(&sequence.scratch, "scratch")?;
    let packed = allocate(&sequence.packed, "packed")?;
    let own = sequence.scratch.iter().chain(&sequence.packed).sum::<u64>();
    let once = sequence.prepare.len();
    let launches = [sequence.prepare, sequence.call].concat();
    let pipelines = pipelines.get(gpu, &launches)?;
    let uniforms = Uniforms::new(gpu, &launches)?;
    let of = |storage| match storage {
        Storage::Memory(number) => memory.buffers[number].as_ref(),
        Storage::Scratch(number) => scratch.get(number),
        Storage::Packed(number) => packed.get(number),
    };
    let launches = launches.into_iter().zip(pipelines).enumerate();
    let dispatches =
        launches.map(|(number, (launch, pipeline))| uniforms.bind(gpu, number, launch, pipeline, of));
    let mut prepare = dispatches.collect::<Result<Vec<Dispatch>>>()?;
    let call = prepare.split_off(once);
    Ok((prepare, call, own + uniforms.bytes()))
}
