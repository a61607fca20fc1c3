//! The engine: a tensor language, one table of gradients, and the schedule that devices run.
//!
//! Data flows downwards: [`tensor`] and [`ops`] are the language, [`mod@grad`] turns a loss into more
//! expressions, [`schedule`] turns expressions into a short list of fused kernels with a memory plan,
//! and a [`device::Device`] (in the crates `cpu` and `gpu`) runs that list again and again.

pub mod device;
pub mod error;
pub mod grad;
pub mod ops;

pub mod random;
pub mod schedule;
pub mod tensor;

pub use device::{Device, Executable, Value};
pub use error::{Error, Result};
pub use grad::grad;

pub use schedule::{Schedule, Step};
pub use tensor::{Conv2d, DType, Tensor, Variable, Window};
