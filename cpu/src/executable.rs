//! A compiled step: its memory, its kernels, and the call.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard};

use autograd::{Error, Result};
use schedule::{BufferId, Kernel, Role, Schedule};
use schedule::{Executable, Value};

use crate::block;
use crate::chain::{self, Chain};
use crate::dispatch;
use crate::launch::{Compile, Launch, Runtime};
use crate::memory::{Floats, Memory, SharedSlice};
use crate::state::{Shared, State};
use crate::validate;

/// Largest magnitude of an integer that `f32` holds exactly, with all smaller ones.
const LARGEST_INTEGER: u32 = 1 << 24;

/// A schedule compiled for the CPU.
pub struct CpuExecutable {
    schedule: Schedule,
    shared: Arc<Shared>,
    memory: Memory,
    /// What `memory` points into, besides the device's state.
    owned: Vec<Floats>,
    inputs: Vec<Input>,
    /// What runs when state that it reads has changed, and what runs at every call; each with the number of
    /// its first kernel in the schedule.
    prepare: Vec<(usize, Box<dyn Launch>)>,
    launches: Vec<(usize, Box<dyn Launch>)>,
    area: Floats,
    /// The state that prepared buffers and packed weights are made of, with its version then.
    prepared_from: Vec<(u64, u64)>,
    prepared: bool,
    called: bool,
}

struct Input {
    name: String,
    integer: bool,
    buffer: BufferId,
}

impl CpuExecutable {
    /// Compiles a schedule: every allocation is made here.
    pub fn new(shared: Arc<Shared>, schedule: Schedule) -> Result<CpuExecutable> {
        validate::schedule(&schedule)?;
        let frozen = schedule.frozen();
        let chains = chain::find(&schedule, &frozen, shared.pool.threads());
        let mut owned: Vec<Floats> = slot_lens(&schedule, &chains).into_iter().map(Floats::zeros).collect();
        let mut bases: Vec<*mut f32> = Vec::new();
        let mut inputs = Vec::new();
        let mut state = shared.state();
        for (id, buffer) in schedule.buffers.iter().enumerate() {
            let floats = match &buffer.role {
                Role::Temporary { slot } => {
                    bases.push(owned[*slot].as_mut_ptr());
                    continue;
                }
                Role::State(variable) => {
                    bases.push(state.address(variable));
                    continue;
                }
                Role::Input { name, integer } => {
                    inputs.push(Input { name: name.clone(), integer: *integer, buffer: id });
                    Floats::zeros(buffer.len())
                }
                Role::Constant(values) => Floats::from_slice(values),
                Role::Prepared | Role::Output => Floats::zeros(buffer.len()),
            };
            owned.push(floats);
            bases.extend(owned.last_mut().map(Floats::as_mut_ptr));
        }
        drop(state);
        let memory = Memory { bases, lens: schedule.buffers.iter().map(|b| b.len()).collect() };
        let compile = Compile { threads: shared.pool.threads(), regions: schedule.memories(), frozen };
        let compiled = |kernels: &[Kernel], number: usize| dispatch::compile(&compile, &kernels[number]);
        let prepare: Vec<_> =
            (0..schedule.prepare.len()).map(|number| (number, compiled(&schedule.prepare, number))).collect();
        let mut chains = chains.into_iter().peekable();
        let mut launches: Vec<(usize, Box<dyn Launch>)> = Vec::new();
        let mut number = 0;
        while number < schedule.kernels.len() {
            let (launch, end): (Box<dyn Launch>, _) = match chains.next_if(|c| c.kernels.start == number) {
                Some(found) => (Box::new(Chain::new(&schedule, &found, &compile)), found.kernels.end),
                None => (compiled(&schedule.kernels, number), number + 1),
            };
            launches.push((number, launch));
            number = end;
        }
        let area_len = prepare.iter().chain(&launches).map(|(_, launch)| launch.area_len()).max();
        Ok(CpuExecutable {
            prepared_from: schedule.frozen_variables().into_iter().map(|id| (id, 0)).collect(),
            prepared: false,
            called: false,
            area: Floats::zeros(area_len.unwrap_or(0)),
            schedule,
            shared,
            memory,
            owned,
            inputs,
            prepare,
            launches,
        })
    }

    /// Checks the inputs of a call, all of them before any is copied.
    fn copy_inputs(&mut self, given: &[(&str, Value)]) -> Result<()> {
        let error = |name: &str, message: String| Error::Input { name: name.to_string(), message };
        let expected = || {
            let mut names: Vec<&str> = self.inputs.iter().map(|input| &input.name[..]).collect();
            names.sort_unstable();
            names.dedup();
            names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        };
        for (position, (name, value)) in given.iter().enumerate() {
            let Some(input) = self.inputs.iter().find(|input| input.name == *name) else {
                return Err(error(name, format!("is unknown; this step takes {}", expected())));
            };
            if given[..position].iter().any(|(other, _)| other == name) {
                return Err(error(name, "is given twice".into()));
            }
            let buffer = &self.schedule.buffers[input.buffer];
            if value.len() != buffer.len() {
                let (len, shape, want) = (value.len(), &buffer.shape, buffer.len());
                return Err(error(name, format!("{len} values for shape {shape:?} ({want} elements)")));
            }
            match value {
                Value::F32(_) if input.integer => {
                    return Err(error(name, "holds integers: give Value::I32".into()));
                }
                Value::I32(_) if !input.integer => {
                    return Err(error(name, "holds floats: give Value::F32".into()));
                }
                Value::I32(values) => {
                    if let Some(bad) = values.iter().find(|v| v.unsigned_abs() > LARGEST_INTEGER) {
                        return Err(error(name, format!("{bad} is beyond 2^24 in magnitude")));
                    }
                }
                Value::F32(_) => {}
            }
        }
        for input in &self.inputs {
            let Some((_, value)) = given.iter().find(|(name, _)| *name == input.name) else {
                return Err(error(&input.name, format!("is missing; this step takes {}", expected())));
            };
            // SAFETY: no kernel is running: this executable is borrowed mutably.
            let buffer = unsafe { self.memory.slice_mut(input.buffer) };
            match value {
                Value::F32(values) => buffer.copy_from_slice(values),
                Value::I32(values) => {
                    buffer.iter_mut().zip(*values).for_each(|(to, &from)| *to = from as f32);
                }
            }
        }
        Ok(())
    }

    /// Runs `prepare` if what it was made of has changed, then the kernels. `seconds` receives the
    /// time of each of these, if asked for.
    fn run(&mut self, mut seconds: Option<&mut Vec<f64>>) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        let fresh = self.prepared_from.iter().all(|&(id, version)| state.version(id) == version);
        let prepare = !(self.prepared && fresh);
        self.prepared = false;
        let mut runtime = Runtime {
            isa: shared.isa,
            launch: 0,
            pool: &shared.pool,
            memory: &self.memory,
            area: SharedSlice::new(self.area.as_mut_slice()),
        };
        let mut latest = None;
        // Kernels do not panic; should one do so all the same, the caller gets an error and the
        // device stays usable.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY (all): the schedule was checked, its buffers live in `owned` and in the state,
            // whose lock is held, and kernels run one after the other.
            if prepare {
                for (number, launch) in &mut self.prepare {
                    latest = Some(&self.schedule.prepare[*number].label);
                    runtime.launch = block::launch();
                    unsafe {
                        launch.prepare(&runtime);
                        launch.renew(&runtime);
                        launch.run(&runtime);
                    }
                }
                for (number, launch) in &mut self.launches {
                    latest = Some(&self.schedule.kernels[*number].label);
                    runtime.launch = block::launch();
                    unsafe { launch.prepare(&runtime) };
                }
            }
            for (number, launch) in &mut self.launches {
                latest = Some(&self.schedule.kernels[*number].label);
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
        for &buffer in &self.schedule.updated {
            if let Role::State(variable) = &self.schedule.buffers[buffer].role {
                state.touch(variable.id());
            }
        }
        if let Err(panic) = outcome {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            let kernel = latest.map_or("a kernel", String::as_str);
            return Err(Error::Device(format!("`{kernel}` failed: {message} (this is a defect)")));
        }
        for (id, version) in &mut self.prepared_from {
            *version = state.version(*id);
        }
        self.prepared = true;
        self.called = true;
        Ok(())
    }
}

impl Executable for CpuExecutable {
    fn call(&mut self, inputs: &[(&str, Value)]) -> Result<()> {
        self.copy_inputs(inputs)?;
        self.run(None)
    }

    fn output(&mut self, name: &str) -> Result<Vec<f32>> {
        let Some((_, buffer)) = self.schedule.outputs.iter().find(|(output, _)| output == name) else {
            let names: Vec<String> = self.schedule.outputs.iter().map(|(n, _)| format!("`{n}`")).collect();
            return Err(Error::Step(format!("no output `{name}`; this step has {}", names.join(", "))));
        };
        if !self.called {
            return Err(Error::Step(format!("output `{name}` is read before the first call")));
        }
        // Held so that no other step writes to state meanwhile.
        let _state: MutexGuard<State> = self.shared.state();
        // SAFETY: no kernel of this executable or, by the lock, of another is running.
        Ok(unsafe { self.memory.slice(*buffer) }.to_vec())
    }

    fn bytes(&self) -> u64 {
        let owned: u64 = self.owned.iter().map(Floats::bytes).sum();
        let launches = self.prepare.iter().chain(&self.launches);
        owned + launches.map(|(_, launch)| launch.bytes()).sum::<u64>() + self.area.bytes()
    }

    fn profile(&mut self) -> Result<Vec<(String, f64)>> {
        if !self.called {
            return Err(Error::Step("the profile repeats a call: call once before".into()));
        }
        let mut seconds = Vec::with_capacity(self.schedule.kernels.len());
        self.run(Some(&mut seconds))?;
        let labels = self.schedule.kernels.iter().map(|kernel| kernel.label.clone());
        Ok(labels.zip(seconds).collect())
    }

    fn schedule(&self) -> &Schedule {
        &self.schedule
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
