//! What all steps compiled for a device share: threads, instruction set, and the device's state (parameters,
//! momentum and running statistics).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use autograd::{Error, Result, Variable};

use crate::isa::Isa;
use crate::kernels::ThreadPool;
use crate::memory::Floats;

/// What a device and its executables share.
pub struct Shared {
    pub isa: Isa,
    pub pool: ThreadPool,
    state: Mutex<State>,
}

impl Shared {
    pub fn new(isa: Isa, pool: ThreadPool) -> Shared {
        Shared { isa, pool, state: Mutex::default() }
    }

    /// The state. Steps hold the lock while they run.
    pub fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it is held leaves plain numbers behind, not a broken structure.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every variable that a step or a write has named, by [`Variable::id`].
#[derive(Default)]
pub struct State {
    entries: HashMap<u64, Entry>,
}

struct Entry {
    values: Floats,
    /// Counts the writes.
    version: u64,
}

impl State {
    /// The address of a variable's values, created with its initial value if need be. It stays the
    /// same for the state's life.
    pub fn address(&mut self, variable: &Variable) -> *mut f32 {
        self.entry(variable).values.as_mut_ptr()
    }

    /// A number that changes with every write.
    pub fn version(&self, id: u64) -> u64 {
        self.entries.get(&id).map_or(0, |entry| entry.version)
    }

    /// Notes that a step has overwritten a variable.
    pub fn touch(&mut self, id: u64) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.version += 1;
        }
    }

    /// The values of a variable.
    pub fn read(&self, variable: &Variable) -> Vec<f32> {
        match self.entries.get(&variable.id()) {
            Some(entry) => entry.values.as_slice().to_vec(),
            None => variable.initial().to_vec(),
        }
    }

    /// Overwrites a variable.
    pub fn write(&mut self, variable: &Variable, values: &[f32]) -> Result<()> {
        let error = |message| Error::State { name: variable.name().to_string(), message };
        if values.len() != variable.len() {
            let (given, shape, len) = (values.len(), variable.shape(), variable.len());
            return Err(error(format!("{given} values written to shape {shape:?} ({len} elements)")));
        }
        if let Some(position) = values.iter().position(|v| !v.is_finite()) {
            let value = values[position];
            return Err(error(format!("the value at position {position} is {value}; nothing was written")));
        }
        let entry = self.entry(variable);
        entry.values.as_mut_slice().copy_from_slice(values);
        entry.version += 1;
        Ok(())
    }

    fn entry(&mut self, variable: &Variable) -> &mut Entry {
        self.entries
            .entry(variable.id())
            .or_insert_with(|| Entry { values: Floats::from_slice(variable.initial()), version: 0 })
    }
}
