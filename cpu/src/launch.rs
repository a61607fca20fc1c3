//! What all kernels are compiled from and run with.

use web_time::Instant;

use crate::isa::Isa;
use crate::kernels::ThreadPool;
use crate::memory::{Memory, SharedSlice};

/// What compiling a kernel needs to know.
#[derive(Default)]
pub struct Compile {
    /// Threads that will run it.
    pub threads: usize,
    /// The memory each buffer lies in: buffers with equal entries may overlap.
    pub regions: Vec<usize>,
    /// See [`Schedule::frozen`](schedule::Schedule::frozen).
    pub frozen: Vec<bool>,
}

/// What running a kernel needs.
pub struct Runtime<'a> {
    pub isa: Isa,
    /// The number of this launch, from `block::launch`.
    pub launch: u64,
    pub pool: &'a ThreadPool,
    pub memory: &'a Memory,
    /// Scratch memory that is this kernel's for the run: at least as much as it asked for, aligned to 64
    /// bytes.
    pub area: SharedSlice<'a>,
}

/// What runs at once: a kernel of a schedule, compiled, or several on a few images at a time.
pub trait Launch: Send + Sync {
    /// Floats of scratch memory.
    fn area_len(&self) -> usize {
        0
    }

    /// Bytes that it holds itself.
    fn bytes(&self) -> u64 {
        0
    }

    /// What is done once for many calls.
    ///
    /// # Safety
    /// As for [`Launch::run`].
    unsafe fn prepare(&mut self, _runtime: &Runtime) {}

    /// What is done at every call before it runs, and changes the kernel itself.
    ///
    /// # Safety
    /// As for [`Launch::run`].
    unsafe fn renew(&mut self, _runtime: &Runtime) {}

    /// Runs it.
    ///
    /// # Safety
    /// The schedule's buffers must be valid, and nothing else may run on them.
    unsafe fn run(&self, runtime: &Runtime);

    /// Renews and runs it; the seconds that each of its kernels took.
    ///
    /// # Safety
    /// As for [`Launch::run`].
    unsafe fn profile(&mut self, runtime: &Runtime) -> Vec<f64> {
        let start = Instant::now();
        // SAFETY: the caller's promise.
        unsafe {
            self.renew(runtime);
            self.run(runtime);
        }
        vec![start.elapsed().as_secs_f64()]
    }
}
