//! A schedule in the making: what lowering, merging and grouping hand on until memory is planned.

use crate::ir::{Buffer, BufferId, Kernel, Role};

/// A [`Schedule`](crate::Schedule) before memory is planned. No temporary has a slot yet, and new values of variables have buffers of their own.
#[derive(Default)]
pub struct Draft {
    pub buffers: Vec<Buffer>,
    /// Kernels on frozen state only, which run once. They read nothing that `kernels` write.
    pub prepare: Vec<Kernel>,
    /// Kernels of every call.
    pub kernels: Vec<Kernel>,
    pub outputs: Vec<(String, BufferId)>,
    /// (the variable's buffer, the buffer of its new value).
    pub updates: Vec<(BufferId, BufferId)>,
}

impl Draft {
    /// A temporary that has no slot yet.
    pub const TEMPORARY: Role = Role::Temporary { slot: usize::MAX };
}
