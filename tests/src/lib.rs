//! What crosses crates: see `tests/`. Here is what those tests share.

// Read beside the tests that use it, not as documentation.
#![allow(missing_docs)]

pub mod adapter;
pub mod compare;
pub mod dice;
pub mod fixture;
pub mod formula;
pub mod graphs;
pub mod kinks;
pub mod operations;
pub mod primitives;
pub mod runner;

pub use fixture::{Fixture, available};
pub use runner::{Inputs, Program, Runner, runners};
