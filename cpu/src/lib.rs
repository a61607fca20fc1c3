//! The native device: runs schedules on all cores.
//!
//! [`CpuDevice`] compiles a schedule into kernels with all the memory they need (`executable`).
//! Elementwise expressions are evaluated block by block in cache (`program`, `block`) and serve
//! every kernel: by themselves (`map`), folded (`reduce`), and as what goes into and comes out of
//! matrix products (`matmul`) and convolutions (`convolution`, `kernels`). Where no kernel looks at
//! more than one image, several run on a few images at a time (`chain`).

mod block;
mod chain;
mod compiler;
mod convolution;
mod device;
mod dispatch;
mod executable;
mod fold;
mod isa;
pub mod kernels;
mod launch;
mod map;
mod math;
mod matmul;
mod memory;
mod operand;
mod pooling;
mod program;
#[cfg(test)]
mod random_programs;
mod reduce;
mod shared;
mod space;
mod tile;
mod walk;

pub use device::CpuDevice;

/// The README's program is tested too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
