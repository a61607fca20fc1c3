//! The native device: runs schedules on all cores, and the plain reference that tests compare with.

pub mod kernels;
pub mod reference;
