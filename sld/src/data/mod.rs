//! Data sets: CIFAR-10 and CIFAR-100 in their published forms, folders of pictures, a synthetic task, held-out
//! splits, and the loader that turns them into augmented batches ahead of the device.
//!
//! A data set ([`Dataset`]) lives in memory as bytes, or in files as a list of them; a loader
//! ([`loader::Loader`]) makes floats of it.

mod augmentation;
pub mod cifar;
mod dataset;
mod error;
#[cfg(not(target_family = "wasm"))]
pub mod fetch;
mod files;
pub mod inspect;
mod levels;
pub mod loader;
pub mod pictures;
pub mod split;
pub mod synthetic;

pub use augmentation::Augmentation;
pub use dataset::{Dataset, Splits};
pub use error::DataError;
pub use files::{File, Files};
