//! A compiled step: buffers, and the kernels that read and write them.

use std::collections::HashMap;
use std::sync::Arc;

use autograd::Variable;
use autograd::scope::Scope;
use autograd::tensor::Transfer;

use super::kernel::{Body, Kernel};
use super::program::BufferId;

/// A compiled step, still independent of any device.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    /// Every tensor that kernels name, by [`BufferId`].
    pub buffers: Vec<Buffer>,
    /// Kernels whose results depend only on constants and on state this step does not update
    /// (a frozen teacher's folded weights): run once, and again only after such state was written.
    pub prepare: Vec<Kernel>,
    /// The kernels of one call, in order.
    pub kernels: Vec<Kernel>,
    /// Size in elements of each reusable slot that temporaries live in, see [`Role::Temporary`].
    pub slots: Vec<usize>,
    /// Named results, in the order they were asked for. The buffer may have any role.
    pub outputs: Vec<(String, BufferId)>,
    /// The state that `kernels` overwrite.
    pub updated: Vec<BufferId>,
}

/// One tensor in memory, dense and row-major.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// Dims, outermost first.
    pub shape: Vec<usize>,
    /// What it is for, which decides where it lies.
    pub role: Role,
    /// A name for tables and graphs: the state's or input's name, else what produced it.
    pub label: String,
    /// Where in the program what is written here comes from. For tables and graphs.
    pub scope: Scope,
}

impl Buffer {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
    /// Whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where a buffer's contents come from and how long they live.
#[derive(Clone, Debug)]
pub enum Role {
    /// Written by the caller before every call.
    Input {
        /// By which the caller gives it.
        name: String,
        /// Whether the caller gives integers; in memory they are `f32` all the same.
        integer: bool,
    },
    /// Lives on the device between calls and is shared by all steps that name it.
    State(Variable),
    /// Known when the schedule was made.
    Constant(Arc<Vec<f32>>),
    /// Written by [`Schedule::prepare`]; lives as long as the compiled step.
    Prepared,
    /// Lives in a slot between the first kernel that
    /// writes it and the last that reads it. Different temporaries share slots over time.
    Temporary {
        /// An index into [`Schedule::slots`].
        slot: usize,
    },
    /// Written by a call and read by the caller; has memory of its own.
    Output,
}

/// A sum over processes in a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Its kernel: the input is read there.
    pub kernel: usize,
    /// The first kernel that needs the sum, or the number of kernels.
    pub needed: usize,
    /// How the numbers travel.
    pub transfer: Transfer,
    /// What this process adds.
    pub input: BufferId,
    /// The sum.
    pub output: BufferId,
    /// Elements.
    pub len: usize,
}

impl Schedule {
    /// All kernels: those that run once, then those of a call.
    pub fn all_kernels(&self) -> impl Iterator<Item = &Kernel> {
        self.prepare.iter().chain(&self.kernels)
    }

    /// Whether a call takes an input of this name.
    pub fn has_input(&self, wanted: &str) -> bool {
        self.buffers.iter().any(|b| matches!(&b.role, Role::Input { name, .. } if name == wanted))
    }

    /// The variable that a buffer holds, if it holds one.
    pub fn variable(&self, buffer: BufferId) -> Option<&Variable> {
        match &self.buffers[buffer].role {
            Role::State(variable) => Some(variable),
            _ => None,
        }
    }

    /// For every buffer the number of the memory it lies in, counted from 0: temporaries of one slot share
    /// it, and so do buffers of one variable.
    pub fn memories(&self) -> Vec<usize> {
        #[derive(PartialEq, Eq, Hash)]
        enum Memory {
            Slot(usize),
            Variable(u64),
            Own(BufferId),
        }
        let mut numbers = HashMap::new();
        let number = |(id, buffer): (BufferId, &Buffer)| {
            let memory = match &buffer.role {
                Role::Temporary { slot } => Memory::Slot(*slot),
                Role::State(variable) => Memory::Variable(variable.id()),
                _ => Memory::Own(id),
            };
            let next = numbers.len();
            *numbers.entry(memory).or_insert(next)
        };
        self.buffers.iter().enumerate().map(number).collect()
    }

    /// The sums over processes in a call, in order.
    pub fn exchanges(&self) -> Vec<Exchange> {
        let memories = self.memories();
        let exchange = |(kernel, body): (usize, &Kernel)| {
            let Body::AllReduce { transfer, input, output } = body.body else { return None };
            let touches = |later: &&Kernel| later.buffers().iter().any(|&b| memories[b] == memories[output]);
            let later = &self.kernels[kernel + 1..];
            let needed = kernel + 1 + later.iter().take_while(|later| !touches(later)).count();
            Some(Exchange { kernel, needed, transfer, input, output, len: self.buffers[input].len() })
        };
        self.kernels.iter().enumerate().filter_map(exchange).collect()
    }

    /// For every buffer whether it is frozen: it changes only when a caller or another step writes state.
    /// That is so for constants, prepared buffers, and state that this step does not update.
    pub fn frozen(&self) -> Vec<bool> {
        let is_frozen = |buffer: BufferId| match &self.buffers[buffer].role {
            Role::Constant(_) | Role::Prepared => true,
            Role::State(_) => !self.updated.iter().any(|&b| self.variable(b) == self.variable(buffer)),
            Role::Input { .. } | Role::Temporary { .. } | Role::Output => false,
        };
        (0..self.buffers.len()).map(is_frozen).collect()
    }

    /// The state that this step reads but does not update, each variable once: when one of these is
    /// written, [`Schedule::prepare`] has to run again.
    pub fn frozen_variables(&self) -> Vec<u64> {
        let frozen = self.frozen();
        let ids = (0..self.buffers.len()).filter(|&b| frozen[b]).filter_map(|b| self.variable(b));
        let mut ids: Vec<u64> = ids.map(Variable::id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Bytes of inputs and constants.
    pub fn given_bytes(&self) -> u64 {
        let given = self.buffers.iter().filter(|b| matches!(b.role, Role::Input { .. } | Role::Constant(_)));
        4 * given.map(Buffer::len).sum::<usize>() as u64
    }

    /// The variables that it reads or writes, some of them more than once.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        (0..self.buffers.len()).filter_map(|buffer| self.variable(buffer))
    }

    /// The variables that it writes, each once.
    pub fn updated(&self) -> Vec<Variable> {
        let mut updated: Vec<Variable> = Vec::new();
        for variable in self.kernels.iter().flat_map(Kernel::writes).filter_map(|b| self.variable(b)) {
            if updated.iter().all(|other| other.id() != variable.id()) {
                updated.push(variable.clone());
            }
        }
        updated
    }

    /// Bytes of temporaries (the slots), outputs and prepared buffers: what one compiled step holds
    /// beside state and inputs.
    pub fn working_bytes(&self) -> u64 {
        let own =
            self.buffers.iter().filter(|b| matches!(b.role, Role::Output | Role::Prepared)).map(Buffer::len);
        4 * (self.slots.iter().sum::<usize>() + own.sum::<usize>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two variables, each in two buffers, one of them updated by its second; two temporaries in a slot.
    fn sample() -> (Schedule, Variable) {
        let (updated, kept) = (Variable::full("updated", &[2], 0.0), Variable::full("kept", &[2], 0.0));
        let roles = vec![
            Role::State(updated.clone()),
            Role::State(kept.clone()),
            Role::State(updated),
            Role::State(kept.clone()),
            Role::Temporary { slot: 0 },
            Role::Temporary { slot: 0 },
            Role::Prepared,
            Role::Output,
        ];
        let buffer = |role| Buffer { shape: vec![2], role, label: String::new(), scope: Scope::default() };
        let buffers = roles.into_iter().map(buffer).collect();
        (Schedule { buffers, slots: vec![2], updated: vec![2], ..Schedule::default() }, kept)
    }

    #[test]
    fn slots_and_variables_are_one_memory_each() {
        assert_eq!(sample().0.memories(), [0, 1, 0, 1, 2, 2, 3, 4]);
    }

    /// A variable is updated under whatever name.
    #[test]
    fn what_a_step_updates_is_not_frozen() {
        let (schedule, kept) = sample();
        assert_eq!(schedule.frozen(), [false, true, false, true, false, false, true, false]);
        assert_eq!(schedule.frozen_variables(), [kept.id()]);
    }
}
