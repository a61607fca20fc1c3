//! The engine's language: tensor expressions, their gradients, and what they mean.
//!
//! Data flows downwards: [`tensor`] and [`ops`] are the language, [`mod@grad`] turns a loss into more
//! expressions, [`evaluate()`] computes any of them slowly. What runs them fast is elsewhere: the crate
//! `schedule` turns a step into a short list of fused kernels, and a device runs that list again and
//! again.

pub mod error;
mod evaluate;
pub mod grad;
mod nodes;
pub mod ops;

pub mod random;
mod scalar;
pub mod scope;
pub mod tensor;
pub mod variable_store;

pub use error::{Error, Result};
pub use evaluate::{evaluate, evaluate_adjusted};
pub use grad::{grad, grad_where_any};
pub use nodes::nodes;

pub use tensor::{Conv2d, DType, Tensor, Variable, Window};
pub use variable_store::VariableStore;

/// The README's program is tested too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
