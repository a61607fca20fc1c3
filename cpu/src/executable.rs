//! A compiled step: its memory and its kernels.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use autograd::{Error, Result};
use schedule::backend::{Backend, Compiled, Variables};
use schedule::pending::at_once;
use schedule::{Alone, Body, BufferId, Communicator, Exchange, Kernel, Pending, PendingSum, Role, Schedule};

use crate::block;
use crate::chain::{self, Chain};
use crate::dispatch;
use crate::launch::{Compile, Launch, Runtime};
use crate::memory::{Floats, Memory, SharedSlice, free_bytes};
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
    /// The sums over processes.
    exchanges: Vec<Placed>,
    area: Floats,
}

/// A sum over processes, and the numbers of the launches before which it begins and must be there.
struct Placed {
    exchange: Exchange,
    begin: usize,
    finish: usize,
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
        let slots = slot_lens(schedule, &chains);
        check_memory(&shared, schedule, &slots)?;
        let mut owned: Vec<Floats> = slots.into_iter().map(Floats::zeros).collect();
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
        let place = |exchange| Placed { exchange, begin: usize::MAX, finish: usize::MAX };
        let mut exchanges: Vec<Placed> = schedule.exchanges().into_iter().map(place).collect();
        let mut number = 0;
        while number < schedule.kernels.len() {
            if let Body::AllReduce { .. } = schedule.kernels[number].body {
                for placed in &mut exchanges {
                    // A sum may be of sums.
                    if placed.exchange.needed == number {
                        placed.finish = launches.len();
                    } else if placed.exchange.kernel == number {
                        placed.begin = launches.len();
                    }
                }
                number += 1;
                continue;
            }
            let launch = match chains.next_if(|c| c.kernels.start == number) {
                Some(found) => {
                    let kernels = &schedule.kernels[found.kernels.clone()];
                    let labels = kernels.iter().map(|kernel| kernel.label.clone()).collect();
                    Labelled { labels, launch: Box::new(Chain::new(schedule, &found, &compile)) }
                }
                None => compiled(&schedule.kernels[number]),
            };
            let first = number;
            number += launch.labels.len();
            for exchange in exchanges.iter_mut().filter(|e| (first..number).contains(&e.exchange.needed)) {
                exchange.finish = launches.len();
            }
            launches.push(launch);
        }
        let area_len = prepare.iter().chain(&launches).map(|l| l.launch.area_len()).max();
        let area = Floats::zeros(area_len.unwrap_or(0));
        Ok(CpuExecutable { shared, memory, owned, prepare, launches, exchanges, area })
    }

    /// Runs the kernels, those of `prepare` first if asked for. `seconds` receives the time of each of a
    /// call's kernels, if asked for.
    fn run_kernels(
        &mut self,
        prepare: bool,
        mut seconds: Option<&mut Vec<f64>>,
        processes: &dyn Communicator,
    ) -> Result<()> {
        let mut sums =
            Sums { exchanges: &self.exchanges, memory: &self.memory, begun: VecDeque::new(), next: 0 };
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
        let outcome = catch_unwind(AssertUnwindSafe(|| -> Result<()> {
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
                sums.before(number, processes)?;
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
            sums.before(usize::MAX, processes)
        }));
        outcome.unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            let launch = if latest.0 { &self.prepare[latest.1] } else { &self.launches[latest.1] };
            Err(Error::Device(format!("`{}` failed: {message} (this is a defect)", launch.labels[0])))
        })
    }
}

/// The sums over processes of a call.
struct Sums<'a> {
    exchanges: &'a [Placed],
    memory: &'a Memory,
    /// Those that are under way, the first of them being number `next - begun.len()`.
    begun: VecDeque<Box<dyn PendingSum>>,
    next: usize,
}

impl Sums<'_> {
    /// Before a launch: waits for what it needs and begins what is ready. Sums end in the order of their
    /// beginning.
    fn before(&mut self, launch: usize, processes: &dyn Communicator) -> Result<()> {
        loop {
            let oldest = self.next - self.begun.len();
            let waited = self.exchanges[oldest..self.next].iter().rposition(|e| e.finish <= launch);
            for exchange in &self.exchanges[oldest..oldest + waited.map_or(0, |last| last + 1)] {
                let Some(sum) = self.begun.pop_front() else { break };
                // SAFETY: no kernel is running: this executable is borrowed mutably, and state is locked.
                unsafe { self.memory.slice_mut(exchange.exchange.output) }.copy_from_slice(&sum.finish()?);
            }
            match self.exchanges.get(self.next).filter(|e| e.begin <= launch) {
                Some(Placed { exchange, .. }) => {
                    // SAFETY: as above.
                    let values = unsafe { self.memory.slice(exchange.input) }[..exchange.len].to_vec();
                    self.begun.push_back(processes.begin_sum(values, exchange.transfer)?);
                    self.next += 1;
                }
                None => return Ok(()),
            }
        }
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

    fn run(&mut self, prepare: bool, processes: &dyn Communicator) -> Result<()> {
        self.run_kernels(prepare, None, processes)
    }

    fn profile(&mut self, prepare: bool) -> Result<Pending<Vec<(String, f64)>>> {
        let mut seconds = Vec::new();
        self.run_kernels(prepare, Some(&mut seconds), &Alone)?;
        let labels = self.launches.iter().flat_map(|launch| launch.labels.iter().cloned());
        Ok(at_once(Ok(labels.zip(seconds).collect())))
    }

    fn bytes(&self) -> u64 {
        let owned: u64 = self.owned.iter().map(Floats::bytes).sum();
        let launches = self.prepare.iter().chain(&self.launches);
        owned + launches.map(|l| l.launch.bytes()).sum::<u64>() + self.area.bytes()
    }
}

/// Whether there is room for a step's slots and its other buffers. (The system would give memory that it does not
/// have, and end the program when it is used.)
fn check_memory(shared: &Shared, schedule: &Schedule, slots: &[usize]) -> Result<()> {
    let is_own = |role: &Role| !matches!(role, Role::Temporary { .. } | Role::State(_));
    let own = schedule.buffers.iter().filter(|buffer| is_own(&buffer.role)).map(|buffer| buffer.len());
    let needed = 4 * own.chain(slots.iter().copied()).sum::<usize>() as u64;
    match shared.most_bytes.or_else(free_bytes) {
        Some(free) if needed > free => Err(Error::OutOfMemory(format!(
            "a step needs {} MiB, {} MiB are free: use a smaller batch",
            needed >> 20,
            free >> 20
        ))),
        _ => Ok(()),
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
