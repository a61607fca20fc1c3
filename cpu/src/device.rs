//! The device: threads, instruction set and state.

use std::sync::Arc;

use autograd::{Result, Variable, VariableStore};
use schedule::backend::{self, Backend, State, Variables};
use schedule::pending::at_once;
use schedule::{Options, Pending, Schedule};

use crate::executable::CpuExecutable;
use crate::isa::Isa;
use crate::kernels::ThreadPool;
use crate::memory::Floats;
use crate::shared::Shared;

/// The machine's own processor. Clones share threads and state.
///
/// Results depend on the instruction set, but not on the number of threads, and are the same at
/// every repetition.
#[derive(Clone)]
pub struct CpuDevice {
    shared: Arc<Shared>,
}

impl CpuDevice {
    /// A device that computes on `threads` threads, the caller's included (0: one for each core that
    /// this process may use).
    pub fn new(threads: usize) -> CpuDevice {
        CpuDevice::with_memory(threads, None)
    }

    /// The same; compiling a step that needs more than `most_bytes` fails, or without that more than is free.
    pub fn with_memory(threads: usize, most_bytes: Option<u64>) -> CpuDevice {
        let available = || std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = if threads == 0 { available() } else { threads };
        let shared =
            Shared { isa: Isa::best(), pool: ThreadPool::new(threads), state: State::default(), most_bytes };
        CpuDevice { shared: Arc::new(shared) }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.shared.pool.threads()
    }
}

impl Default for CpuDevice {
    /// One thread for each core.
    fn default() -> CpuDevice {
        CpuDevice::new(0)
    }
}

impl Backend for CpuDevice {
    type Memory = Floats;
    type Compiled = CpuExecutable;

    fn name(&self) -> String {
        let threads = self.threads();
        let plural = if threads == 1 { "" } else { "s" };
        format!("CPU ({threads} thread{plural}, {})", self.shared.isa.name())
    }

    fn options(&self) -> Options {
        // No binding limit here: fuse whatever shares its elements.
        Options { max_buffers: 24, group_buffers: usize::MAX, ..Options::default() }
    }

    fn state(&self) -> &State<Floats> {
        &self.shared.state
    }

    fn allocate(&self, variable: &Variable) -> Result<Floats> {
        Ok(Floats::zeros(variable.len()))
    }

    fn copy_in(&self, memory: &mut Floats, values: &[f32]) -> Result<()> {
        memory.as_mut_slice().copy_from_slice(values);
        Ok(())
    }

    fn copy_out(&self, memory: &Floats, _: usize) -> Result<Pending<Vec<f32>>> {
        Ok(at_once(Ok(memory.as_slice().to_vec())))
    }

    fn compile(&self, schedule: &Schedule, variables: &mut Variables<CpuDevice>) -> Result<CpuExecutable> {
        CpuExecutable::new(Arc::clone(&self.shared), schedule, variables)
    }
}

impl VariableStore for CpuDevice {
    fn write(&self, variable: &Variable, values: &[f32]) -> Result<()> {
        backend::write(self, variable, values)
    }

    fn read(&self, variable: &Variable) -> Result<Vec<f32>> {
        backend::read(self, variable)
    }
}
