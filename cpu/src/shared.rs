//! What all steps compiled for a device share.

use schedule::backend::State;

use crate::isa::Isa;
use crate::kernels::ThreadPool;
use crate::memory::Floats;

/// Instruction set, threads, memory, and the device's state (parameters, momentum and running statistics).
pub struct Shared {
    pub isa: Isa,
    pub pool: ThreadPool,
    pub state: State<Floats>,
    /// Most bytes that a step may take; without it those that are free.
    pub most_bytes: Option<u64>,
}
