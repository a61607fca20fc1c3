//! From expressions to a schedule: what runs, in what order, in which memory.

pub mod graph;
pub mod ir;
pub mod step;

pub use ir::*;
pub use step::{Options, Step};
