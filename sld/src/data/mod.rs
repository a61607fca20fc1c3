//! Data sets: CIFAR-10 and CIFAR-100 in their published forms, a synthetic task, held-out splits, and the
//! loader that turns them into augmented batches ahead of the device.
//!
//! A data set lives in memory as bytes ([`Dataset`]); a loader ([`loader::Loader`]) makes floats of it.

pub mod cifar;
mod dataset;
mod error;
pub mod fetch;
pub mod inspect;
pub mod loader;
pub mod split;
pub mod synthetic;

pub use dataset::{Dataset, Splits};
pub use error::DataError;
