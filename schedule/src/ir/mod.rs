//! What a schedule is made of: numbered buffers, and kernels that read and write them.
//!
//! This is the whole contract between the engine and a device. A device needs to know six kinds of
//! kernel ([`Body`]) and one small expression language ([`Program`]); everything elementwise that
//! surrounds a kernel (its prologue and epilogue) arrives as such a program.
//!
//! Every buffer holds `f32`. Integer tensors (labels, indices) are stored as whole numbers in `f32`,
//! which is exact up to 2^24; the language checks the types before a schedule exists.

mod geometry;
mod kernel;
mod program;
mod schedule;
mod view;

pub use geometry::{ConvGeometry, ConvKind, PoolGeometry, PoolKind};
pub use kernel::{Body, ChannelFold, Epilogue, Kernel, Map, Operand, ReduceKind};
pub use program::{BufferId, Instr, Program, Reg, Store};
pub use schedule::{Buffer, Exchange, Role, Schedule};
pub use view::{Bound, View, merge_dims, reach};
