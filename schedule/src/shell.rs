//! The part of a device that is the same for all: a step is checked and compiled, its inputs are checked
//! and copied, what frozen state it was prepared from is watched.

use autograd::{Error, Result};

use crate::backend::{Backend, Compiled, Variables};
use crate::communicator::Communicator;
use crate::device::{Device, Executable, Value};
use crate::ir::{Buffer, BufferId, Kernel, Role, Schedule};
use crate::pending::{Pending, at_once};
use crate::step::Options;
use crate::validate::validate;

/// The largest magnitude up to which `f32` holds every whole number.
const LARGEST_INTEGER: u32 = 1 << 24;

impl<B: Backend> Device for B {
    fn name(&self) -> String {
        Backend::name(self)
    }

    fn options(&self) -> Options {
        Backend::options(self)
    }

    fn precision(&self) -> &'static str {
        Backend::precision(self)
    }

    fn choices(&self) -> String {
        Backend::choices(self)
    }

    fn choose(&self, choices: &str) -> Result<()> {
        Backend::choose(self, choices)
    }

    fn source(&self, schedule: &Schedule, kernel: &Kernel) -> Result<Option<String>> {
        Backend::source(self, schedule, kernel)
    }

    fn launches(&self, schedule: &Schedule) -> Result<Option<String>> {
        Backend::launches(self, schedule)
    }

    fn compile(&self, schedule: Schedule) -> Result<Box<dyn Executable>> {
        validate(&schedule)?;
        let compiled = Backend::compile(self, &schedule, &mut Variables::lock(self))?;
        let mut updated: Vec<u64> =
            schedule.updated.iter().filter_map(|&b| schedule.variable(b)).map(|v| v.id()).collect();
        updated.sort_unstable();
        updated.dedup();
        let frozen = schedule.frozen_variables().into_iter().map(|id| (id, 0)).collect();
        let device = self.clone();
        Ok(Box::new(Shell { device, schedule, compiled, updated, frozen, prepared: false, called: false }))
    }
}

/// A schedule compiled for a device.
struct Shell<B: Backend> {
    device: B,
    schedule: Schedule,
    compiled: B::Compiled,
    /// The variables that a call overwrites.
    updated: Vec<u64>,
    /// The variables that what is prepared depends on, with their versions when it was.
    frozen: Vec<(u64, u64)>,
    prepared: bool,
    called: bool,
}

impl<B: Backend> Shell<B> {
    /// The inputs: buffer, name, whether it holds integers.
    fn inputs(&self) -> impl Iterator<Item = (BufferId, &str, bool)> {
        self.schedule.buffers.iter().enumerate().filter_map(|(id, buffer)| match &buffer.role {
            Role::Input { name, integer } => Some((id, &name[..], *integer)),
            _ => None,
        })
    }

    /// Checks all that a call is given; nothing has been copied yet.
    fn check(&self, given: &[(&str, Value)]) -> Result<()> {
        let error = |name: &str, message: String| Err(Error::Input { name: name.to_string(), message });
        let expected = || quoted(self.inputs().map(|(_, name, _)| name));
        for (position, (name, value)) in given.iter().enumerate() {
            let Some((id, _, integer)) = self.inputs().find(|(_, other, _)| other == name) else {
                return error(name, format!("there is no such input; this step takes {}", expected()));
            };
            if given[..position].iter().any(|(other, _)| other == name) {
                return error(name, "is given twice".into());
            }
            let buffer: &Buffer = &self.schedule.buffers[id];
            if value.len() != buffer.len() {
                let (len, shape, want) = (value.len(), &buffer.shape, buffer.len());
                return error(name, format!("{len} values for shape {shape:?} ({want} elements)"));
            }
            match value {
                Value::F32(_) if integer => return error(name, "holds integers: give Value::I32".into()),
                Value::I32(_) if !integer => return error(name, "holds floats: give Value::F32".into()),
                Value::I32(values) => {
                    if let Some(bad) = values.iter().find(|v| v.unsigned_abs() > LARGEST_INTEGER) {
                        return error(name, format!("{bad} is beyond 2^24 in magnitude"));
                    }
                }
                Value::F32(_) => {}
            }
        }
        match self.inputs().find(|(_, name, _)| !given.iter().any(|(other, _)| other == name)) {
            Some((_, name, _)) => error(name, format!("is missing; this step takes {}", expected())),
            None => Ok(()),
        }
    }

    /// Runs the kernels by `run`, which is told whether to prepare: at first, and when frozen state was
    /// written since.
    fn run<T>(&mut self, run: impl FnOnce(&mut B::Compiled, bool) -> Result<T>) -> Result<T> {
        let mut variables = Variables::lock(&self.device);
        let fresh = self.frozen.iter().all(|&(id, version)| variables.version(id) == version);
        let prepare = !(self.prepared && fresh);
        self.prepared = false;
        let result = run(&mut self.compiled, prepare);
        // Also after an error: part of it may have been written.
        self.updated.iter().for_each(|&id| variables.touch(id));
        if result.is_ok() {
            self.frozen.iter_mut().for_each(|(id, version)| *version = variables.version(*id));
            (self.prepared, self.called) = (true, true);
        }
        result
    }
}

impl<B: Backend> Executable for Shell<B> {
    fn call_among(&mut self, given: &[(&str, Value)], processes: &dyn Communicator) -> Result<()> {
        self.check(given)?;
        for (name, value) in given {
            let same = |(id, other, _): (BufferId, &str, bool)| (other == *name).then_some(id);
            for buffer in self.inputs().filter_map(same).collect::<Vec<_>>() {
                match value {
                    Value::F32(values) => self.compiled.copy_in(buffer, values)?,
                    Value::I32(values) => {
                        let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
                        self.compiled.copy_in(buffer, &values)?;
                    }
                }
            }
        }
        self.run(|compiled, prepare| compiled.run(prepare, processes))
    }

    fn output_async(&mut self, name: &str) -> Pending<Vec<f32>> {
        self.copy_out(name).unwrap_or_else(|error| at_once(Err(error)))
    }

    fn bytes(&self) -> u64 {
        self.compiled.bytes()
    }

    fn profile_async(&mut self) -> Pending<Vec<(String, f64)>> {
        if !self.called {
            return at_once(Err(Error::Step("the profile repeats a call: call once before".into())));
        }
        if !self.schedule.exchanges().is_empty() {
            return at_once(Err(Error::Step("a step with sums over processes has no profile".into())));
        }
        self.run(B::Compiled::profile).unwrap_or_else(|error| at_once(Err(error)))
    }

    fn schedule(&self) -> &Schedule {
        &self.schedule
    }
}

impl<B: Backend> Shell<B> {
    /// Asks the device for an output.
    fn copy_out(&mut self, name: &str) -> Result<Pending<Vec<f32>>> {
        let Some((_, buffer)) = self.schedule.outputs.iter().find(|(output, _)| output == name) else {
            let names = quoted(self.schedule.outputs.iter().map(|(name, _)| &name[..]));
            return Err(Error::Step(format!("no output `{name}`; this step has {names}")));
        };
        if !self.called {
            return Err(Error::Step(format!("output `{name}` is read before the first call")));
        }
        // Locked, so that no other step writes to state meanwhile.
        let _variables = Variables::lock(&self.device);
        self.compiled.copy_out(*buffer, self.schedule.buffers[*buffer].len())
    }
}

fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
