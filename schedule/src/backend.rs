//! What a device supplies: memory, compiling, copying, running. All else that a [`Device`](crate::Device) does, from
//! checking what it is given to knowing when something has to be prepared again, follows from that and is
//! written once, here and in `shell`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use autograd::{Error, Result, Variable, VariableStore};

use crate::communicator::Communicator;
use crate::ir::{BufferId, Kernel, Schedule};
use crate::pending::{self, Pending};
use crate::step::Options;

/// A device's own part. With it the device is a [`Device`](crate::Device); its [`VariableStore`] is
/// [`write()`] and [`read()`].
pub trait Backend: VariableStore + Clone + 'static {
    /// The memory of a variable.
    type Memory;
    /// A schedule compiled for the device.
    type Compiled: Compiled + 'static;

    /// See [`Device::name`](crate::Device::name).
    fn name(&self) -> String;
    /// See [`Device::options`](crate::Device::options).
    fn options(&self) -> Options;
    /// The variables on the device.
    fn state(&self) -> &State<Self::Memory>;

    /// Memory for a variable, with anything in it.
    fn allocate(&self, variable: &Variable) -> Result<Self::Memory>;
    /// Fills a variable's memory.
    fn copy_in(&self, memory: &mut Self::Memory, values: &[f32]) -> Result<()>;
    /// Reads a variable's memory, of so many elements.
    fn copy_out(&self, memory: &Self::Memory, len: usize) -> Result<Pending<Vec<f32>>>;

    /// See [`Device::precision`](crate::Device::precision).
    fn precision(&self) -> &'static str {
        "f32"
    }
    /// See [`Device::choices`](crate::Device::choices).
    fn choices(&self) -> String {
        String::new()
    }
    /// See [`Device::choose`](crate::Device::choose).
    fn choose(&self, _choices: &str) -> Result<()> {
        Ok(())
    }
    /// See [`Device::source`](crate::Device::source).
    fn source(&self, _schedule: &Schedule, _kernel: &Kernel) -> Result<Option<String>> {
        Ok(None)
    }
    /// See [`Device::launches`](crate::Device::launches).
    fn launches(&self, _schedule: &Schedule) -> Result<Option<String>> {
        Ok(None)
    }

    /// Compiles a schedule, which has been checked. (Only the shell has [`Variables`] to give.)
    fn compile(&self, schedule: &Schedule, variables: &mut Variables<Self>) -> Result<Self::Compiled>;
}

/// A compiled schedule's own part. The device's state is locked while anything but
/// [`copy_in`](Compiled::copy_in) is called.
pub trait Compiled {
    /// Copies as many values as it has elements to an input's buffer.
    fn copy_in(&mut self, buffer: BufferId, values: &[f32]) -> Result<()>;
    /// Reads the buffer of an output, of so many elements.
    fn copy_out(&mut self, buffer: BufferId, len: usize) -> Result<Pending<Vec<f32>>>;
    /// Runs the kernels of a call, after those of [`Schedule::prepare`] and whatever else depends on
    /// frozen state alone if `prepare` says so.
    fn run(&mut self, prepare: bool, processes: &dyn Communicator) -> Result<()>;
    /// The same, with the seconds of each kernel. Only for schedules without sums over processes.
    fn profile(&mut self, prepare: bool) -> Result<Pending<Vec<(String, f64)>>>;
    /// See [`Executable::bytes`](crate::Executable::bytes).
    fn bytes(&self) -> u64;
}

/// A device's state: every variable that a step or a write has named, by [`Variable::id`].
pub struct State<M>(Mutex<HashMap<u64, Entry<M>>>);

struct Entry<M> {
    memory: M,
    /// Counts the writes.
    version: u64,
}

impl<M> Default for State<M> {
    fn default() -> State<M> {
        State(Mutex::default())
    }
}

/// A device's state while it is locked.
pub struct Variables<'a, B: Backend> {
    device: &'a B,
    entries: MutexGuard<'a, HashMap<u64, Entry<B::Memory>>>,
}

impl<'a, B: Backend> Variables<'a, B> {
    pub(crate) fn lock(device: &'a B) -> Variables<'a, B> {
        // A panic while it was locked left plain numbers behind, not a broken structure.
        let entries = device.state().0.lock().unwrap_or_else(PoisonError::into_inner);
        Variables { device, entries }
    }

    /// A variable's memory, made with its initial value if need be. It stays for the device's life.
    ///
    /// # Errors
    /// The device has no room.
    pub fn memory(&mut self, variable: &Variable) -> Result<&mut B::Memory> {
        use std::collections::hash_map::Entry::{Occupied, Vacant};
        let entry = match self.entries.entry(variable.id()) {
            Occupied(entry) => entry.into_mut(),
            Vacant(place) => {
                let mut memory = self.device.allocate(variable)?;
                self.device.copy_in(&mut memory, variable.initial())?;
                place.insert(Entry { memory, version: 0 })
            }
        };
        Ok(&mut entry.memory)
    }

    /// A number that changes with every write.
    pub(crate) fn version(&self, id: u64) -> u64 {
        self.entries.get(&id).map_or(0, |entry| entry.version)
    }

    /// Notes that a variable was written.
    pub(crate) fn touch(&mut self, id: u64) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.version += 1;
        }
    }
}

/// A device's [`VariableStore::write`].
///
/// # Errors
/// [`Error::State`] for the wrong number of values, NaN or infinity: nothing is written then.
pub fn write<B: Backend>(device: &B, variable: &Variable, values: &[f32]) -> Result<()> {
    let error = |message| Error::State { name: variable.name().to_string(), message };
    if values.len() != variable.len() {
        let (given, shape, len) = (values.len(), variable.shape(), variable.len());
        return Err(error(format!("{given} values written to shape {shape:?} ({len} elements)")));
    }
    if let Some(position) = values.iter().position(|v| !v.is_finite()) {
        let value = values[position];
        return Err(error(format!("the value at position {position} is {value}; nothing was written")));
    }
    let mut variables = Variables::lock(device);
    device.copy_in(variables.memory(variable)?, values)?;
    variables.touch(variable.id());
    Ok(())
}

/// A device's [`VariableStore::read`].
///
/// # Errors
/// What the device reports.
pub fn read<B: Backend>(device: &B, variable: &Variable) -> Result<Vec<f32>> {
    let variables = Variables::lock(device);
    match variables.entries.get(&variable.id()) {
        Some(entry) => pending::wait(device.copy_out(&entry.memory, variable.len())?),
        None => Ok(variable.initial().to_vec()),
    }
}
