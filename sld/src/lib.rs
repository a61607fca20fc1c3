//! The program: configs, data, augmentation, distillers, trainer, reports.

pub mod augment;
pub mod cli;
pub mod config;
pub mod data;
pub mod distill;
pub mod random;
pub mod report;
pub mod run;
pub mod training;
