//! The device: threads, instruction set and state.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use autograd::{Result, Variable, VariableStore};
use schedule::{Device, Executable, Options, Schedule};

use crate::executable::CpuExecutable;
use crate::isa::Isa;
use crate::kernels::ThreadPool;
use crate::state::Store;

/// What a device and its executables share.
pub struct Shared {
    pub isa: Isa,
    pub pool: ThreadPool,
    store: Mutex<Store>,
}

impl Shared {
    /// The state. Steps hold the lock while they run.
    pub fn store(&self) -> MutexGuard<'_, Store> {
        // A panic while it is held leaves plain numbers behind, not a broken structure.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
        let shared = Shared { isa: Isa::best(), pool: ThreadPool::new(threads), store: Mutex::default() };
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
        self.shared.store().write(variable, values)
    }

    fn read(&self, variable: &Variable) -> Result<Vec<f32>> {
        Ok(self.shared.store().read(variable))
    }
}
