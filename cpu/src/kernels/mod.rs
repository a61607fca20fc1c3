//! Native f32 convolution kernels: plain functions over slices, knowing nothing of the graph.
//!
//! Images are channels-last, `[N, H, W, C]`; weights come as PyTorch stores them,
//! `[Cout, Cin / groups, kh, kw]`, and are packed by [`Plan::pack`].
//!
//! The way of use, the same for every shape:
//!
//! 1. [`Plan::new`] picks the algorithm for a [`ConvShape`] and a [`Pass`] (see `plan.rs`, the one
//!    place where that is decided);
//! 2. [`Plan::pack`] lays the weights out for it (once for frozen weights, after every update
//!    otherwise);
//! 3. [`forward`], [`input_grad`] or [`weight_grad`] runs it on a [`Pool`], with a [`Workspace`]
//!    that holds all scratch memory, so that a call allocates nothing.
//!
//! Operands are fetched through a [`Source`] and results leave through a [`Sink`], so that
//! elementwise work before and after a convolution (batch-norm apply and ReLU before it; residual
//! add, ReLU and batch statistics after it) is done while the values are in cache.
//!
//! Results depend on the shape and the instruction set only: not on the number of threads, nor on
//! which thread ran which task.

mod depthwise;
mod direct;
mod exact;
mod general;
mod moments;
mod plan;
mod product;
mod run;
mod shape;
mod simd;
mod stream;
#[cfg(test)]
mod tests;
mod threads;
mod winograd;

pub use exact::exact;
pub use moments::{Moments, block_moments};
pub use plan::{Algorithm, Pass, Plan};
pub use run::{forward, input_grad, weight_grad};
pub use shape::ConvShape;
pub use simd::Isa;
pub use stream::{Dense, SharedSlice, Sink, Source, Store, Workspace, prefetch};
pub use threads::Pool;
