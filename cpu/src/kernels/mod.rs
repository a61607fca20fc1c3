//! Native f32 convolution kernels: plain functions over slices, knowing nothing of programs.
//!
//! Images are channels-last, `[N, H, W, C]`; weights come as PyTorch stores them,
//! `[Cout, Cin / groups, kh, kw]`, and are packed by [`ImagePlan::pack`] (once for frozen weights, after
//! every update otherwise).
//!
//! [`ImagePlan`] is a forward pass or an input gradient, [`WeightPlan`] a weight gradient; making one picks
//! the algorithm (see `plan.rs`, the one place where that is decided). Both run on a [`ThreadPool`], with
//! scratch memory from the caller, so that a call allocates nothing.
//!
//! Operands are fetched through a [`Source`] and results leave through a [`Sink`], so that
//! elementwise work before and after a convolution (batch-norm apply and ReLU before it; residual
//! add, ReLU and batch statistics after it) is done while the values are in cache.
//!
//! Results depend on the shape and the instruction set only: not on the number of threads, nor on
//! which thread ran which task.

mod algorithm;
mod depthwise;
mod direct;
mod geometry;
mod plan;
mod product;
mod stream;
#[cfg(test)]
mod tests;
mod threads;
mod winograd;

pub use plan::{ImagePlan, WeightPlan};
pub use stream::{Fetch, Sink, Source, prefetch};
pub use threads::ThreadPool;

pub use crate::memory::SharedSlice;
