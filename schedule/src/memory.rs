//! Where everything lives: state updated in place, temporaries sharing slots.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

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
        // Of a part that does not write the value every load of the old one counts.
        Body::Map { parts } => parts.iter().all(|part| reads_what_it_writes(&part.program, &part.stores)),
        _ => false,
    }
}

/// Assigns slots, the largest temporaries first: each takes the smallest slot that is free from its first
/// writer to its last reader, or a new one ("greedy by size for shared objects": Pisarchyk and Lee, *Efficient
/// Memory Management for Deep Neural Net Inference*, 2020).
fn share_slots(buffers: &mut [Buffer], kernels: &[Kernel]) -> Vec<usize> {
    // From the first kernel that touches each temporary to the last.
    let mut lives: BTreeMap<BufferId, (usize, usize)> = BTreeMap::new();
    for (at, kernel) in kernels.iter().enumerate() {
        for id in kernel.buffers() {
            if matches!(buffers[id].role, Role::Temporary { .. }) {
                lives.entry(id).or_insert((at, at)).1 = at;
            }
        }
    }
    let mut temporaries: Vec<(BufferId, (usize, usize))> = lives.into_iter().collect();
    temporaries.sort_by_key(|(id, (first, _))| (Reverse(buffers[*id].len()), *first));
    let mut slots: Vec<usize> = Vec::new();
    let mut taken: Vec<Vec<(usize, usize)>> = Vec::new();
    for (id, (first, last)) in temporaries {
        let is_free = |slot: &usize| taken[*slot].iter().all(|&(from, to)| last < from || to < first);
        // Slots were made from the largest to the smallest.
        let slot = (0..slots.len()).rev().find(is_free).unwrap_or_else(|| {
            slots.push(buffers[id].len());
            taken.push(Vec::new());
            slots.len() - 1
        });
        taken[slot].push((first, last));
        buffers[id].role = Role::Temporary { slot };
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
