//! The words of the language: methods on [`Tensor`](crate::Tensor), a file a family.
//!
//! [`elementwise`], [`shape`], [`reduce`], [`linear`] and [`pool`] make the primitives;
//! [`composite`] is written in them.

pub mod composite;
pub mod elementwise;
pub mod linear;
pub mod pool;
pub mod reduce;
pub mod shape;

pub use composite::BatchNorm;
