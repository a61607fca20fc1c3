//! A compiled step: its memory and its kernels.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use autograd::{Error, Result};
use schedule::backend::{Backend, Compiled, Variables};
use schedule::pending::at_once;
use schedule::{BufferId, Kernel, Pending, Role, Schedule};

use crate::block;
use crate::chain::{self, Chain};
use crate::dispatch;
use crate::launch::{Compile, Launch, Runtime};
use crate::memory::{Floats, Memory, SharedSlice};
use crate::shared::Shared;

/// A schedule compiled for the CPU.
pub struct CpuExecutable {
    shared: Arc<Shared>,
    memory: Memory,
    /// What `memory` points into, besides the device's state.
    owned: Vec<Floats>,
    /// What runs when state that it reads has changed, and what runs at every call.
    prepare: Vec<Labelled>,
    launches: Vec<Labelled>,
    area: Floats,
}

/// A launch, with the labels of its kernels.
struct Labelled {
    labels: Vec<String>,
    launch: Box<dyn Launch>,
}

impl CpuExecutable {
    /// Compiles a schedule: every allocation is made here.
    pub fn new(
        shared: Arc<Shared>,
        schedule: &Schedule,
        variables: &mut Variables<impl Backend<Memory = Floats>>,
    ) -> Result<CpuExecutable> {
        let frozen = schedule.frozen();
        let chains = chain::find(schedule, &frozen, shared.pool.threads());
        let mut owned: Vec<Floats> = slot_lens(schedule, &chains).into_iter().map(Floats::zeros).collect();
        let mut bases: Vec<*mut f32> = Vec::new();
        for buffer in &schedule.buffers {
            let floats = match &buffer.role {
                Role::Temporary { slot } => {
                    bases.push(owned[*slot].as_mut_ptr());
                    continue;
                }
                Role::State(variable) => {
                    bases.push(variables.memory(variable)?.as_mut_ptr());
                    continue;
                }
                Role::Constant(values) => Floats::from_slice(values),
                Role::Input { .. } | Role::Prepared | Role::Output => Floats::zeros(buffer.len()),
            };
            owned.push(floats);
            bases.extend(owned.last_mut().map(Floats::as_mut_ptr));
        }
        let memory = Memory { bases, lens: schedule.buffers.iter().map(|b| b.len()).collect() };
        let compile = Compile { threads: shared.pool.threads(), regions: schedule.memories(), frozen };
        let compiled = |kernel: &Kernel| {
            let launch = dispatch::compile(&compile, kernel);
            Labelled { labels: vec![kernel.label.clone()], launch }
        };
        let prepare: Vec<Labelled> = schedule.prepare.iter().map(compiled).collect();
        let mut chains = chains.into_iter().peekable();
        let mut launches: Vec<Labelled> = Vec::new();
        let mut number = 0;
        while number < schedule.kernels.len() {
            let launch = match chains.next_if(|c| c.kernels.start == number) {
                Some(found) => {
                    let kernels = &schedule.kernels[found.kernels.clone()];
                    let labels = kernels.iter().map(|kernel| kernel.label.clone()).collect();
                    Labelled { labels, launch: Box::new(Chain::new(schedule, &found, &compile)) }
                }
                None => compiled(&schedule.kernels[number]),
            };
            number += launch.labels.len();
            launches.push(launch);
        }
        let area_len = prepare.iter().chain(&launches).map(|l| l.launch.area_len()).max();
        let area = Floats::zeros(area_len.unwrap_or(0));
        Ok(CpuExecutable { shared, memory, owned, prepare, launches, area })
    }

    /// Runs the kernels, those of `prepare` first if asked for. `seconds` receives the time of each of a
    /// call's kernels, if asked for.
    fn run_kernels(&mut self, prepare: bool, mut seconds: Option<&mut Vec<f64>>) -> Result<()> {
        let mut runtime = Runtime {
            isa: self.shared.isa,
            launch: 0,
            pool: &self.shared.pool,
            memory: &self.memory,
            area: SharedSlice::new(self.area.as_mut_slice()),
        };
        // Whether the latest launch is one of `prepare`, and its number.
        let mut latest = (false, 0);
        // Kernels do not panic; should one do so all the same, the caller gets an error and the
        // device stays usable.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY (all): the schedule was checked, its buffers live in `owned` and in the device's
            // state, which is locked, and kernels run one after the other.
            if prepare {
                for (number, Labelled { launch, .. }) in self.prepare.iter_mut().enumerate() {
                    latest = (true, number);
                    runtime.launch = block::launch();
                    unsafe {
                        launch.prepare(&runtime);
                        launch.renew(&runtime);
                        launch.run(&runtime);
                    }
                }
                for (number, Labelled { launch, .. }) in self.launches.iter_mut().enumerate() {
                    latest = (false, number);
                    runtime.launch = block::launch();
                    unsafe { launch.prepare(&runtime) };
                }
            }
            for (number, Labelled { launch, .. }) in self.launches.iter_mut().enumerate() {
                latest = (false, number);
                runtime.launch = block::launch();
                match &mut seconds {
                    Some(seconds) => seconds.extend(unsafe { launch.profile(&runtime) }),
                    None => unsafe {
                        launch.renew(&runtime);
                        launch.run(&runtime);
                    },
                }
            }
        }));
        outcome.map_err(|panic| {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            let launch = if latest.0 { &self.prepare[latest.1] } else { &self.launches[latest.1] };
            Error::Device(format!("`{}` failed: {message} (this is a defect)", launch.labels[0]))
        })
    }
}

impl Compiled for CpuExecutable {
    fn copy_in(&mut self, buffer: BufferId, values: &[f32]) -> Result<()> {
        // SAFETY: no kernel is running: this executable is borrowed mutably, and inputs are its own.
        unsafe { self.memory.slice_mut(buffer) }.copy_from_slice(values);
        Ok(())
    }

    fn copy_out(&mut self, buffer: BufferId, len: usize) -> Result<Pending<Vec<f32>>> {
        // SAFETY: no kernel of this executable or, as state is locked, of another is running.
        Ok(at_once(Ok(unsafe { self.memory.slice(buffer) }[..len].to_vec())))
    }

    fn run(&mut self, prepare: bool) -> Result<()> {
        self.run_kernels(prepare, None)
    }

    fn profile(&mut self, prepare: bool) -> Result<Pending<Vec<(String, f64)>>> {
        let mut seconds = Vec::new();
        self.run_kernels(prepare, Some(&mut seconds))?;
        let labels = self.launches.iter().flat_map(|launch| launch.labels.iter().cloned());
        Ok(at_once(Ok(labels.zip(seconds).collect())))
    }

    fn bytes(&self) -> u64 {
        let owned: u64 = self.owned.iter().map(Floats::bytes).sum();
        let launches = self.prepare.iter().chain(&self.launches);
        owned + launches.map(|l| l.launch.bytes()).sum::<u64>() + self.area.bytes()
    }
}

/// Elements that each slot needs: what chains keep to themselves does not lie there.
fn slot_lens(schedule: &Schedule, chains: &[chain::Found]) -> Vec<usize> {
    let mut lens = vec![0; schedule.slots.len()];
    for (id, buffer) in schedule.buffers.iter().enumerate() {
        if let Role::Temporary { slot } = buffer.role
            && !chains.iter().any(|chain| chain.own.contains(&id))
        {
            lens[slot] = lens[slot].max(buffer.len());
        }
    }
    lens
}
