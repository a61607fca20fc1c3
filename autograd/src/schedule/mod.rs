//! From expressions to a schedule: what runs, in what order, in which memory.

pub mod ir;

pub use ir::*;
