//! Where everything lives: state updated in place, temporaries sharing slots.

use std::collections::HashMap;

use crate::ir::*;
use crate::lower::{Item, Lowered, copy_kernel};

/// Finishes a schedule.
pub fn plan(mut lowered: Lowered) -> Schedule {
    update_in_place(&mut lowered);
    let Lowered { mut buffers, kernels, outputs, updates } = lowered;
    let (mut prepare, mut every_call) = (Vec::new(), Vec::new());
    for item in kernels {
        if item.frozen { prepare.push(item.kernel) } else { every_call.push(item.kernel) }
    }
    for buffer in prepare.iter().flat_map(Kernel::writes) {
        if let Role::Temporary { .. } = buffers[buffer].role {
            buffers[buffer].role = Role::Prepared;
        }
    }
    let slots = share_slots(&mut buffers, &every_call);
    let updated = updates.iter().map(|u| u.0).collect();
    let mut schedule = Schedule { buffers, prepare, kernels: every_call, slots, outputs, updated };
    schedule.drop_unused_buffers();
    schedule
}

/// Lets a kernel write a variable's new value straight into the variable, where no kernel reads the
/// old value afterwards; copies the rest at the end of the step.
fn update_in_place(lowered: &mut Lowered) {
    let mut renamed: HashMap<BufferId, BufferId> = HashMap::new();
    for (state, value) in lowered.updates.clone() {
        let value = *renamed.get(&value).unwrap_or(&value);
        let writer = lowered.kernels.iter().position(|item| item.kernel.writes().contains(&value));
        let direct = writer.is_some_and(|at| {
            let is_temporary = matches!(lowered.buffers[value].role, Role::Temporary { .. });
            let read_later =
                lowered.kernels[at + 1..].iter().any(|item| item.kernel.reads().contains(&state));
            is_temporary
                && !lowered.kernels[at].frozen
                && !read_later
                && overwrites_safely(&lowered.kernels[at].kernel, state, value)
        });
        if direct {
            lowered.kernels.iter_mut().for_each(|item| item.kernel.rename(value, state));
            lowered.outputs.iter_mut().filter(|o| o.1 == value).for_each(|o| o.1 = state);
            renamed.insert(value, state);
        } else {
            let kernel = copy_kernel(&lowered.buffers, value, state);
            lowered.kernels.push(Item { kernel, frozen: false });
        }
    }
}

/// Whether a kernel that reads `state` may write `value` over it: only elementwise, each index
/// reading exactly what it overwrites, and in a group only the part that writes it.
fn overwrites_safely(kernel: &Kernel, state: BufferId, value: BufferId) -> bool {
    if !kernel.reads().contains(&state) {
        return true;
    }
    let reads_what_it_writes = |program: &Program, stores: &[Store]| {
        let store = stores.iter().find(|s| s.buffer == value);
        program.instrs.iter().all(|instr| match instr {
            Instr::Load { buffer, view } if *buffer == state => store.is_some_and(|s| *view == s.view),
            _ => true,
        })
    };
    match &kernel.body {
        Body::Map { program, stores, .. } => reads_what_it_writes(program, stores),
        // Of a part that does not write the value every load of the old one counts.
        Body::Maps { parts } => parts.iter().all(|part| reads_what_it_writes(&part.program, &part.stores)),
        _ => false,
    }
}

/// Assigns slots by a scan in kernel order: a temporary takes the smallest free slot that fits, else
/// the largest free one, which grows; a slot is free again after its last reader.
fn share_slots(buffers: &mut [Buffer], kernels: &[Kernel]) -> Vec<usize> {
    let mut last_use: HashMap<BufferId, usize> = HashMap::new();
    for (at, kernel) in kernels.iter().enumerate() {
        kernel.buffers().into_iter().for_each(|b| {
            last_use.insert(b, at);
        });
    }
    let mut slots: Vec<usize> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    for (at, kernel) in kernels.iter().enumerate() {
        for id in kernel.writes() {
            let Role::Temporary { slot } = buffers[id].role else { continue };
            if slot != usize::MAX {
                continue;
            }
            let need = buffers[id].len();
            let fitting = free.iter().copied().filter(|&s| slots[s] >= need).min_by_key(|&s| slots[s]);
            let chosen = fitting.or_else(|| free.iter().copied().max_by_key(|&s| slots[s]));
            let slot = match chosen {
                Some(slot) => {
                    free.retain(|&s| s != slot);
                    slots[slot] = slots[slot].max(need);
                    slot
                }
                None => {
                    slots.push(need);
                    slots.len() - 1
                }
            };
            buffers[id].role = Role::Temporary { slot };
        }
        for id in kernel.buffers() {
            if let Role::Temporary { slot } = buffers[id].role
                && last_use.get(&id) == Some(&at)
            {
                free.push(slot);
            }
        }
    }
    slots
}

impl Schedule {
    /// Forgets buffers that merging left without a reader or writer.
    fn drop_unused_buffers(&mut self) {
        let mut used: Vec<bool> = vec![false; self.buffers.len()];
        for kernel in self.prepare.iter().chain(&self.kernels) {
            kernel.buffers().into_iter().for_each(|b| used[b] = true);
        }
        self.outputs.iter().for_each(|o| used[o.1] = true);
        self.updated.iter().for_each(|&b| used[b] = true);
        let mut renamed = vec![usize::MAX; used.len()];
        let mut kept = Vec::new();
        for (id, buffer) in std::mem::take(&mut self.buffers).into_iter().enumerate() {
            if used[id] {
                renamed[id] = kept.len();
                kept.push(buffer);
            }
        }
        self.buffers = kept;
        // Ids only shrink, so renaming in ascending order never meets a name still to be renamed.
        for kernel in self.prepare.iter_mut().chain(&mut self.kernels) {
            for id in kernel.buffers() {
                kernel.rename(id, renamed[id]);
            }
        }
        self.outputs.iter_mut().for_each(|o| o.1 = renamed[o.1]);
        self.updated.iter_mut().for_each(|b| *b = renamed[*b]);
    }

    /// Bytes of temporaries (the slots), outputs and prepared buffers: what one compiled step holds
    /// beside state and inputs.
    pub fn working_bytes(&self) -> u64 {
        let own =
            self.buffers.iter().filter(|b| matches!(b.role, Role::Output | Role::Prepared)).map(Buffer::len);
        4 * (self.slots.iter().sum::<usize>() + own.sum::<usize>()) as u64
    }
}
