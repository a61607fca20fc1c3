//! The native device: runs schedules on all cores, and the plain reference that tests compare with.

mod block;
mod fold;
mod isa;
mod kernel;
pub mod kernels;
mod map;
mod math;
mod memory;
#[cfg(test)]
mod naive;
mod program;
mod reduce;
pub mod reference;
mod space;
