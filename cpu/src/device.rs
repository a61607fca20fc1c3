//! The device: threads, instruction set and state.

use std::sync::Arc;

use autograd::{Result, Variable, VariableStore};
use schedule::{Device, Executable, Options, Schedule};

use crate::executable::CpuExecutable;
use crate::isa::Isa;
use crate::kernels::ThreadPool;
use crate::state::Shared;

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
        let available = || std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = if threads == 0 { available() } else { threads };
        CpuDevice { shared: Arc::new(Shared::new(Isa::best(), ThreadPool::new(threads))) }
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

impl Device for CpuDevice {
    fn name(&self) -> String {
        let threads = self.threads();
        let plural = if threads == 1 { "" } else { "s" };
        format!("CPU ({threads} thread{plural}, {})", self.shared.isa.name())
    }

    fn options(&self) -> Options {
        // No binding limit here: fuse whatever shares its elements.
        Options { max_buffers: 24, group_buffers: usize::MAX, ..Options::default() }
    }

    fn compile(&self, schedule: Schedule) -> Result<Box<dyn Executable>> {
        Ok(Box::new(CpuExecutable::new(Arc::clone(&self.shared), schedule)?))
    }
}

impl VariableStore for CpuDevice {
    fn write(&self, variable: &Variable, values: &[f32]) -> Result<()> {
        self.shared.state().write(variable, values)
    }

    fn read(&self, variable: &Variable) -> Result<Vec<f32>> {
        Ok(self.shared.state().read(variable))
    }
}
