//! The program: configs, data, augmentation, distillers, trainer, reports.

// Printing goes through `cli::output`, which survives a full disk and a reader who leaves.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod augment;
#[cfg(not(target_family = "wasm"))]
pub mod cli;
pub mod cluster;
pub mod config;
pub mod data;
pub mod distill;
#[cfg(not(target_family = "wasm"))]
pub mod experiment;
pub mod number;
pub mod picture;
pub mod random;
pub mod report;
pub mod run;
pub mod setting;
pub mod training;

/// The program's version, with the commit it was built from where that is known: "0.1.0 (95be2d8)".
pub const VERSION: &str = env!("SLD_VERSION");
