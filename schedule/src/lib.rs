//! From a step to a schedule: what runs, in what order, in which memory.
//!
//! A [`Step`] is what its author writes: named results, and new values for variables, as expressions of
//! the crate `autograd`. [`Step::schedule_with`] makes a [`Schedule`] of it, which a [`Device`] compiles
//! and runs again and again. Data flows one way, a file or folder a pass:
//!
//! 1. `graph`: the expressions as a compact graph; common subexpressions and constants are gone.
//! 2. `partition`: which nodes get memory of their own; the rest are recomputed where they are read.
//! 3. `lower`: each of those nodes becomes a kernel, with the elementwise expressions and
//!    rearrangements around it as its prologue and epilogue.
//! 4. `merge`: kernels over the same elements become one; batch norm's sums join the convolution
//!    that made their input.
//! 5. `advance`: sums over processes begin as early as they can.
//! 6. `group`: independent maps become one launch.
//! 7. `memory`: state is updated in place, temporaries share slots.
//!
//! A [`Schedule`] (`ir`) is the result, and the whole of what a device needs to know; `explain` prints it as a table and
//! `flow` as a graph.
//!
//! # Words
//!
//! * **Leaf**: a node whose value is there before the step: an input, state, a constant.
//! * **State**: the value of a variable on a device, which outlives the step.
//! * **Materialised**: said of a node whose values are in memory. The others are *inlined*: every kernel
//!   that reads them computes them again.
//! * **Heavy**: said of a node that is always a kernel of its own: a convolution, product, fold or pool.
//! * **Core**: what a heavy node's kernel computes, before its epilogue.
//! * **Tail**: the last of the elementwise nodes that follow a heavy node and are computed in its
//!   kernel. The tail is materialised in the heavy node's place.
//! * **Prologue**: what a kernel computes of an element as it loads it ([`Operand`]).
//! * **Epilogue**: what a kernel does with its core's result before and as it stores it ([`Epilogue`]).
//! * **Program**: a prologue, an epilogue or a map, as a list of instructions ([`Program`]).
//! * **Space**: the dims over which a program is evaluated. To *refine* a space is to split one of its
//!   dims in two, so that a reshape becomes index arithmetic.
//! * **View**: where in a buffer the element of an index of the space is ([`View`]).
//! * **Frozen**: the same in every call, until somebody else writes state. Frozen nodes are computed once,
//!   by [`Schedule::prepare`].
//! * **Buffer**: one tensor in memory. Buffers of one slot or one variable share *memory*
//!   ([`Schedule::memories`]).
//! * **Slot**: memory that several temporaries use one after the other.

mod advance;
pub mod backend;
mod communicator;
mod device;
mod draft;
mod explain;
mod flow;
mod graph;
mod group;
mod ir;
mod lower;
mod memory;
mod merge;
mod partition;
pub mod pending;
mod shell;
mod step;
mod validate;
mod work;

use autograd::{Error, Result};

pub use communicator::{Alone, Communicator, PendingSum};
pub use device::{Device, Executable, Value};

pub use ir::*;
pub use pending::Pending;
pub use step::{ChannelFolds, Options, Step};
pub use work::Work;

impl Step {
    /// The schedule with everything on.
    pub fn schedule(&self) -> Result<Schedule> {
        self.schedule_with(Options::default())
    }

    /// Checks the step and makes its schedule.
    ///
    /// # Errors
    /// Of an expression that cannot be; [`Error::Input`] for one name with two shapes; [`Error::Step`] for
    /// outputs or updates that contradict each other, or options that no kernel can keep to.
    pub fn schedule_with(&self, options: Options) -> Result<Schedule> {
        self.check()?;
        if options.max_buffers < Options::LEAST_BUFFERS {
            let (given, least) = (options.max_buffers, Options::LEAST_BUFFERS);
            return Err(Error::Step(format!("kernels need at least {least} buffers, {given} are allowed")));
        }
        let graph = graph::Graph::build(self)?;
        let mut draft = lower::lower(&graph, &options)?;
        if options.fuse {
            merge::merge(&mut draft, &options);
            advance::advance(&mut draft);
            group::group(&mut draft, &options);
        }
        Ok(memory::plan(draft))
    }
}

/// The README's program is tested too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
