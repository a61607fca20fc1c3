//! One type for all kinds of kernel.

use std::collections::HashSet;

use autograd::{Error, Result};
use schedule::{Body, BufferId, Instr, Program, Role, Schedule};

use crate::convolution::Convolution;
use crate::kernel::{Compile, Runtime};
use crate::kernels::Workspace;
use crate::map::{Map, Maps};
use crate::matmul::MatMul;
use crate::pool::Pool;
use crate::reduce::Reduce;

/// A kernel of a schedule, compiled.
pub enum Kernel {
    Map(Map),
    Maps(Maps),
    Reduce(Reduce),
    MatMul(MatMul),
    Convolution(Box<Convolution>),
    Pool(Pool),
}

impl Kernel {
    /// Compiles one; `frozen` are the buffers that keep their contents from call to call.
    ///
    /// # Errors
    /// [`Error::Step`] if its parts contradict each other.
    pub fn new(compile: &Compile, kernel: &schedule::Kernel, frozen: &HashSet<BufferId>) -> Result<Kernel> {
        let body = &kernel.body;
        let compiled = match body {
            Body::Map { shape, program, stores } => {
                Some(Kernel::Map(Map::new(compile, shape, program, stores)))
            }
            Body::Maps { parts } => Some(Kernel::Maps(Maps::new(compile, parts))),
            Body::Reduce { .. } => Reduce::new(compile, body).map(Kernel::Reduce),
            Body::MatMul { .. } => MatMul::new(compile, body).map(Kernel::MatMul),
            Body::Convolution { .. } => {
                Convolution::new(compile, body, frozen).map(Box::new).map(Kernel::Convolution)
            }
            Body::Pool { .. } => Pool::new(compile, body).map(Kernel::Pool),
        };
        compiled.ok_or_else(|| Error::Step(format!("`{}` cannot be compiled", kernel.label)))
    }

    /// Floats of scratch memory.
    pub fn area_len(&self) -> usize {
        match self {
            Kernel::Map(_) | Kernel::Maps(_) => 0,
            Kernel::Reduce(reduce) => reduce.area_len(),
            Kernel::MatMul(matmul) => matmul.area_len(),
            Kernel::Convolution(convolution) => convolution.area_len(),
            Kernel::Pool(pool) => pool.area_len(),
        }
    }

    /// Floats of the convolution kernels' own workspace.
    pub fn workspace_len(&self) -> usize {
        match self {
            Kernel::Convolution(convolution) => convolution.workspace_len(),
            _ => 0,
        }
    }

    /// Bytes of packed weights.
    pub fn packed_bytes(&self) -> u64 {
        match self {
            Kernel::Convolution(convolution) => convolution.packed_bytes(),
            _ => 0,
        }
    }

    /// What is done once for many calls.
    ///
    /// # Safety
    /// As for [`Kernel::run`].
    pub unsafe fn prepare(&mut self, runtime: &Runtime) {
        if let Kernel::Convolution(convolution) = self {
            // SAFETY: the caller's promise.
            unsafe { convolution.prepare(runtime) };
        }
    }

    /// What is done at every call before it runs, and changes the kernel itself.
    ///
    /// # Safety
    /// As for [`Kernel::run`].
    pub unsafe fn renew(&mut self, runtime: &Runtime) {
        if let Kernel::Convolution(convolution) = self {
            // SAFETY: the caller's promise.
            unsafe { convolution.renew(runtime) };
        }
    }

    /// Runs it.
    ///
    /// # Safety
    /// The schedule's buffers must be valid, and no other kernel be running on them.
    pub unsafe fn run(&self, runtime: &Runtime, workspace: &mut Workspace) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Kernel::Map(map) => map.run(runtime, &[]),
                Kernel::Maps(maps) => maps.run(runtime),
                Kernel::Reduce(reduce) => reduce.run(runtime),
                Kernel::MatMul(matmul) => matmul.run(runtime),
                Kernel::Convolution(convolution) => convolution.run(runtime, workspace),
                Kernel::Pool(pool) => pool.run(runtime),
            }
        }
    }
}

/// The buffers that a program loads.
pub fn loads(program: &Program) -> impl Iterator<Item = BufferId> {
    program.instrs.iter().filter_map(|instr| match instr {
        Instr::Load { buffer, .. } => Some(*buffer),
        _ => None,
    })
}

/// The buffers that keep their contents from call to call.
pub fn frozen(schedule: &Schedule) -> HashSet<BufferId> {
    let is_frozen = |buffer: &BufferId| match schedule.buffers[*buffer].role {
        Role::Constant(_) | Role::Prepared => true,
        Role::State(_) => !is_updated(schedule, *buffer),
        Role::Input { .. } | Role::Temporary { .. } | Role::Output => false,
    };
    (0..schedule.buffers.len()).filter(is_frozen).collect()
}

/// Whether a step overwrites the variable in a buffer (possibly named by another buffer).
pub fn is_updated(schedule: &Schedule, buffer: BufferId) -> bool {
    let variable = |buffer: BufferId| match &schedule.buffers[buffer].role {
        Role::State(variable) => Some(variable.id()),
        _ => None,
    };
    schedule.updated.iter().any(|&updated| updated == buffer || variable(updated) == variable(buffer))
}
