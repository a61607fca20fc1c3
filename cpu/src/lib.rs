//! The native device: runs schedules on all cores, and the plain reference that tests compare with.

mod block;
mod isa;
pub mod kernels;
mod math;
mod memory;
mod program;
pub mod reference;
mod space;
