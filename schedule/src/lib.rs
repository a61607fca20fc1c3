//! From expressions to a schedule: what runs, in what order, in which memory.
//!
//! The passes, in order, one file each:
//!
//! 1. [`step`]: the user's outputs and updates, checked.
//! 2. [`graph`]: the expressions as a compact graph; common subexpressions and constants are gone.
//! 3. [`partition`]: which nodes get memory of their own; the rest are recomputed where they are read.
//! 4. [`index`] and [`lower`]: each of those nodes becomes a kernel, with the elementwise
//!    expressions and rearrangements around it as its prologue and epilogue.
//! 5. [`merge`]: kernels over the same elements become one; batch norm's sums join the convolution
//!    that made their input.
//! 6. [`group`]: independent maps become one launch.
//! 7. [`memory`]: state is updated in place, temporaries share slots.
//!
//! [`ir`] is the result, [`explain`] prints it.

pub mod device;
pub mod explain;
pub mod graph;
pub mod group;
pub mod index;
pub mod ir;
pub mod lower;
pub mod memory;
pub mod merge;
pub mod partition;
pub mod step;

pub use device::{Device, Executable, Value};
pub use ir::*;
pub use step::{Options, Step};
