//! The engine's language: tensor expressions, and one table of gradients.
//!
//! Data flows downwards: [`tensor`] and [`ops`] are the language, [`mod@grad`] turns a loss into more
//! expressions. What computes them is elsewhere: the crate `schedule` turns a step into a short list
//! of fused kernels, and a device runs that list again and again.

pub mod error;
pub mod grad;
pub mod ops;

pub mod random;
pub mod tensor;
pub mod variable_store;

pub use error::{Error, Result};
pub use grad::grad;

pub use tensor::{Conv2d, DType, Tensor, Variable, Window};
pub use variable_store::VariableStore;
