//! A compiled schedule: pipelines and bind groups made once, replayed by every call.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use autograd::{Error, Result};
use schedule::ir::{BufferId, Kernel, Role};
use schedule::{Executable, Schedule, Value};
use shaders::{Assembled, Context, Launch, Storage, assemble, precompute};

use crate::context::Gpu;
use crate::memory::Memory;
use crate::pipelines::{Dispatch, Pipelines};
use crate::profile;
use crate::state::State;

/// Calls that may be on their way to the device before a new one waits.
const IN_FLIGHT: usize = 3;
/// Where uniforms may begin, at any adapter's limit.
const UNIFORM_STRIDE: usize = 256;

/// See [`Executable`].
pub struct GpuExecutable {
    gpu: Arc<Gpu>,
    state: Arc<State>,
    schedule: Schedule,
    memory: Memory,
    prepare: Vec<Dispatch>,
    dispatches: Vec<Dispatch>,
    inputs: Vec<Input>,
    /// The variables this step writes.
    updated: Vec<u64>,
    /// The variables that prepared buffers may depend on, with their versions when `prepare` ran.
    watched: Vec<(u64, Option<u64>)>,
    in_flight: VecDeque<wgpu::SubmissionIndex>,
    called: bool,
    bytes: u64,
    /// Integers on their way to `f32`.
    converted: Vec<f32>,
}

struct Input {
    name: String,
    buffer: BufferId,
    len: usize,
    integer: bool,
    used: bool,
}

impl GpuExecutable {
    pub fn new(
        gpu: Arc<Gpu>,
        pipelines: &Pipelines,
        state: Arc<State>,
        schedule: Schedule,
    ) -> Result<GpuExecutable> {
        let precomputed = precompute(schedule.clone(), &gpu.target);
        let used = used(&precomputed.schedule);
        let memory = Memory::new(&gpu, &state, &precomputed, &used)?;
        let run = precomputed.schedule;
        let frozen = run.frozen();
        let context = Context {
            buffers: &run.buffers,
            tight: false,
            places: &memory.places,
            frozen: &frozen,
            target: &gpu.target,
        };
        let mut builder = Builder::default();
        for kernel in &run.prepare {
            builder.add(context, kernel, true)?;
        }
        for kernel in &run.kernels {
            builder.add(context, kernel, false)?;
        }
        let (prepare, dispatches, extra) = builder.build(&gpu, pipelines, &memory)?;
        let inputs = schedule.buffers.iter().enumerate().filter_map(|(buffer, b)| match &b.role {
            Role::Input { name, integer } => Some(Input {
                name: name.clone(),
                buffer,
                len: b.len(),
                integer: *integer,
                used: memory.of(buffer).is_some(),
            }),
            _ => None,
        });
        let variable = |id: BufferId| match &schedule.buffers[id].role {
            Role::State(variable) => Some(variable.id()),
            _ => None,
        };
        let updated: Vec<u64> = schedule.updated.iter().filter_map(|&b| variable(b)).collect();
        let watched = (0..schedule.buffers.len())
            .filter(|&b| frozen[b] && used.contains(&b))
            .filter_map(variable)
            .map(|id| (id, None))
            .collect();
        Ok(GpuExecutable {
            inputs: inputs.collect(),
            updated,
            watched,
            bytes: memory.bytes + extra,
            gpu,
            state,
            memory,
            prepare,
            dispatches,
            in_flight: VecDeque::new(),
            called: false,
            converted: Vec::new(),
            schedule,
        })
    }

    /// Checks all inputs before any is written, so that a wrong call changes nothing.
    fn check_inputs(&self, given: &[(&str, Value)]) -> Result<()> {
        let error = |name: &str, message: String| Error::Input { name: name.to_string(), message };
        for (i, (name, value)) in given.iter().enumerate() {
            let Some(input) = self.inputs.iter().find(|input| input.name == *name) else {
                let known: Vec<&str> = self.inputs.iter().map(|i| i.name.as_str()).collect();
                return Err(error(name, format!("this step has no such input; it has {known:?}")));
            };
            if given[..i].iter().any(|(other, _)| other == name) {
                return Err(error(name, "given twice".into()));
            }
            if value.len() != input.len {
                let shape = &self.schedule.buffers[input.buffer].shape;
                let (got, expected) = (value.len(), input.len);
                return Err(error(name, format!("{got} values for shape {shape:?} ({expected} elements)")));
            }
            match value {
                Value::F32(_) if input.integer => {
                    return Err(error(name, "is an integer input, give I32 values".into()));
                }
                Value::I32(_) if !input.integer => {
                    return Err(error(name, "is a real input, give F32 values".into()));
                }
                Value::I32(values) => {
                    if let Some(v) = values.iter().find(|v| v.unsigned_abs() >= 1 << 24) {
                        return Err(error(name, format!("{v} is outside -2^24..2^24")));
                    }
                }
                Value::F32(_) => {}
            }
        }
        match self.inputs.iter().find(|input| !given.iter().any(|(name, _)| *name == input.name)) {
            Some(missing) => Err(error(&missing.name, "missing".into())),
            None => Ok(()),
        }
    }

    fn write_inputs(&mut self, given: &[(&str, Value)]) {
        for (name, value) in given {
            let input = self.inputs.iter().find(|input| input.name == *name && input.used);
            let Some(buffer) = input.and_then(|input| self.memory.of(input.buffer)) else { continue };
            match value {
                Value::F32(values) => self.gpu.queue.write_buffer(buffer, 0, bytemuck::cast_slice(values)),
                Value::I32(values) => {
                    self.converted.clear();
                    self.converted.extend(values.iter().map(|&v| v as f32));
                    self.gpu.queue.write_buffer(buffer, 0, bytemuck::cast_slice(&self.converted));
                }
            }
        }
    }

    /// Whether something that prepared buffers depend on was written since they were made; notes the
    /// present versions.
    fn needs_prepare(&mut self) -> bool {
        let mut changed = !self.called;
        for (id, seen) in &mut self.watched {
            let version = Some(self.state.version(*id));
            changed |= *seen != version;
            *seen = version;
        }
        changed && !self.prepare.is_empty()
    }

    fn submit(&mut self, prepare: bool) -> Result<()> {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            let first: &[Dispatch] = if prepare { &self.prepare } else { &[] };
            first.iter().chain(&self.dispatches).for_each(|dispatch| dispatch.encode(&mut pass));
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

impl Executable for GpuExecutable {
    fn call(&mut self, inputs: &[(&str, Value)]) -> Result<()> {
        self.gpu.check()?;
        self.check_inputs(inputs)?;
        self.write_inputs(inputs);
        let prepare = self.needs_prepare();
        let submitted = self.submit(prepare);
        self.state.written(&self.updated);
        self.called = true;
        submitted.and_then(|()| self.gpu.check())
    }

    fn output(&mut self, name: &str) -> Result<Vec<f32>> {
        let Some((_, id)) = self.schedule.outputs.iter().find(|(n, _)| n == name) else {
            let known: Vec<&str> = self.schedule.outputs.iter().map(|(n, _)| n.as_str()).collect();
            return Err(Error::Step(format!("no output `{name}`; this step has {known:?}")));
        };
        if !self.called {
            return Err(Error::Step(format!("output `{name}` was asked for before the first call")));
        }
        match self.memory.of(*id) {
            Some(buffer) => self.gpu.read(buffer, self.schedule.buffers[*id].len()),
            None => Err(Error::Step(format!("output `{name}` has no memory"))),
        }
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn profile(&mut self) -> Result<Vec<(String, f64)>> {
        if !self.called {
            return Err(Error::Step("profile needs a call first, for its inputs".into()));
        }
        let seconds = profile::measure(&self.gpu, &self.dispatches)?;
        self.state.written(&self.updated);
        Ok(self.dispatches.iter().map(|d| d.label.clone()).zip(seconds).collect())
    }

    fn schedule(&self) -> &Schedule {
        &self.schedule
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
    fn add(&mut self, context: Context, kernel: &Kernel, prepare: bool) -> Result<()> {
        let Assembled { prepare: first, launches, scratch, kept } = assemble(context, kernel)?;
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
        Ok(())
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
        let params = params_buffer(gpu, &self.launches)?;
        let total = self.scratch.iter().chain(&self.kept).sum::<u64>() + params.size();

        let (mut prepare, mut dispatches) = (Vec::new(), Vec::new());
        for (number, (launch, pipeline)) in self.launches.into_iter().zip(pipelines).enumerate() {
            let (is_prepare, kept_base) = self.places[number];
            let mut entries = vec![wgpu::BindGroupEntry {
                binding: 0,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &params,
                    offset: (number * UNIFORM_STRIDE) as u64,
                    size: std::num::NonZeroU64::new(UNIFORM_STRIDE as u64),
                }),
            }];
            for (i, bound) in launch.bindings.iter().enumerate() {
                let buffer = match bound.storage {
                    Storage::Memory(m) => memory.buffers[m].as_ref(),
                    Storage::Scratch(s) => scratch.get(s),
                    Storage::Kept(k) => kept.get(kept_base + k),
                };
                let Some(buffer) = buffer else {
                    let message = format!("kernel `{}` uses memory that does not exist", launch.label);
                    return Err(Error::Device(message));
                };
                entries.push(wgpu::BindGroupEntry {
                    binding: i as u32 + 1,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer,
                        offset: 0,
                        size: std::num::NonZeroU64::new(bound.bytes()),
                    }),
                });
            }
            let bind_group = gpu.scoped(&format!("binding kernel `{}`", launch.label), || {
                gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: None,
                    layout: &pipeline.layout,
                    entries: &entries,
                })
            })?;
            let dispatch = Dispatch { label: launch.label, pipeline, bind_group, groups: launch.groups };
            if is_prepare { prepare.push(dispatch) } else { dispatches.push(dispatch) }
        }
        Ok((prepare, dispatches, total))
    }
}

/// The uniforms of all launches, one after the other.
fn params_buffer(gpu: &Gpu, launches: &[Launch]) -> Result<wgpu::Buffer> {
    let mut contents = vec![0u32; launches.len().max(1) * UNIFORM_STRIDE / 4];
    for (number, launch) in launches.iter().enumerate() {
        contents[number * UNIFORM_STRIDE / 4] = launch.count;
    }
    let buffer = gpu.scoped("kernel parameters", || {
        gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("kernel parameters"),
            size: (contents.len() * 4) as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    })?;
    gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&contents));
    Ok(buffer)
}
