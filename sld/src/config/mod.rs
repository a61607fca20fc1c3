//! Configs: the reference's YAML keys, checked, with an error that points at the place.
//!
//! A key is a line: a method's stands with its equations in [`crate::distill`], all others in `keys.rs`.

mod catalog;
mod choice;
mod error;
mod file;
mod keys;
mod load;
mod print;
mod validate;

pub use catalog::models_of;
pub use choice::{DatasetKind, OptimizerKind, ScheduleKind, TrainerKind, TransferKind};
pub use error::{ConfigError, Origin};
pub use keys::{Config, Dataset, Distiller, Experiment, Log, Model, Solver, decides, keys};
pub use load::Overrides;
pub use print::help;
