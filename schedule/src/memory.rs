//! Where everything lives: state updated in place, temporaries sharing slots.

use std::collections::HashMap;

use crate::draft::Draft;
use crate::ir::{Body, Buffer, BufferId, Instr, Kernel, Program, Role, Schedule, Store};

/// Finishes a schedule.
pub fn plan(mut draft: Draft) -> Schedule {
    update_in_place(&mut draft);
    let Draft { mut buffers, prepare, kernels, outputs, updates } = draft;
    for buffer in prepare.iter().flat_map(Kernel::writes) {
        if let Role::Temporary { .. } = buffers[buffer].role {
            buffers[buffer].role = Role::Prepared;
        }
    }
    let slots = share_slots(&mut buffers, &kernels);
    let updated = updates.iter().map(|u| u.0).collect();
    without_unused_buffers(Schedule { buffers, prepare, kernels, slots, outputs, updated })
}

/// Lets a kernel write a variable's new value straight into the variable, where no kernel reads the
/// old value afterwards; copies the rest at the end of the step.
fn update_in_place(draft: &mut Draft) {
    let mut renamed: HashMap<BufferId, BufferId> = HashMap::new();
    for (state, value) in draft.updates.clone() {
        let value = *renamed.get(&value).unwrap_or(&value);
        draft.buffers[state].scope = draft.buffers[value].scope.clone();
        let is_temporary = matches!(draft.buffers[value].role, Role::Temporary { .. });
        let writer = draft.kernels.iter().position(|kernel| kernel.writes().contains(&value));
        let is_direct = writer.is_some_and(|at| {
            let read_later = draft.kernels[at + 1..].iter().any(|kernel| kernel.reads().contains(&state));
            is_temporary && !read_later && overwrites_safely(&draft.kernels[at], state, value)
        });
        if is_direct {
            let mentions = draft.kernels.iter_mut().flat_map(Kernel::mentions);
            mentions.filter(|buffer| **buffer == value).for_each(|buffer| *buffer = state);
            draft.outputs.iter_mut().filter(|o| o.1 == value).for_each(|o| o.1 = state);
            renamed.insert(value, state);
        } else {
            draft.kernels.push(Kernel::copy(value, state, draft.buffers[value].len()));
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

/// Forgets buffers that merging left without a reader or writer.
fn without_unused_buffers(mut schedule: Schedule) -> Schedule {
    let mut used: Vec<bool> = vec![false; schedule.buffers.len()];
    schedule.all_kernels().flat_map(Kernel::buffers).for_each(|b| used[b] = true);
    schedule.outputs.iter().for_each(|o| used[o.1] = true);
    schedule.updated.iter().for_each(|&b| used[b] = true);
    // The new number of each buffer.
    let numbers: Vec<BufferId> =
        used.iter().scan(0, |next, &used| Some(std::mem::replace(next, *next + used as usize))).collect();
    let mut keep = used.iter();
    schedule.buffers.retain(|_| *keep.next().unwrap_or(&false));
    let kernels = schedule.prepare.iter_mut().chain(&mut schedule.kernels);
    let mentions = kernels.flat_map(Kernel::mentions);
    let outputs = schedule.outputs.iter_mut().map(|o| &mut o.1);
    mentions.chain(outputs).chain(&mut schedule.updated).for_each(|b| *b = numbers[*b]);
    schedule
}
