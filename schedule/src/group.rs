//! Independent maps become one launch: the new values of all parameters, the running statistics.
//!
//! A map whose result nobody needs yet waits for a later one, and both run together, each over its own
//! space. Maps only ever move down, and only past kernels that do not read what they write. A map
//! that reads big temporaries waits no longer than the maps around it, or their memory would stay taken.

use std::collections::{BTreeSet, HashMap};

use crate::draft::Draft;
use crate::explain::cut;
use crate::ir::{Body, Buffer, BufferId, Kernel, Role};
use crate::step::Options;

/// Elements of temporaries that a map may hold back while it waits.
const SMALL: usize = 1 << 14;

/// Groups in place.
pub fn group(draft: &mut Draft, options: &Options) {
    let Draft { buffers, prepare, kernels, updates, .. } = draft;
    for kernels in [prepare, kernels] {
        let list = List::new(std::mem::take(kernels), buffers, updates, options.group_buffers);
        *kernels = list.grouped();
    }
}

struct List<'a> {
    buffers: &'a [Buffer],
    /// The buffer of the new value of each variable that the step overwrites, by the variable's buffer.
    updates: HashMap<BufferId, BufferId>,
    /// In order. A kernel that joined a later one leaves a gap.
    kernels: Vec<Option<Kernel>>,
    /// The maps that start groups, with what they touch: the latest first.
    groups: Vec<Group>,
    /// The first kernel that reads each buffer, and the first that writes it, of those seen so far
    /// (from the last to the first), where they are now.
    first_read: HashMap<BufferId, usize>,
    first_write: HashMap<BufferId, usize>,
    most_buffers: usize,
}

struct Group {
    position: usize,
    members: Vec<Kernel>,
    touched: BTreeSet<BufferId>,
}

impl List<'_> {
    fn new<'a>(
        kernels: Vec<Kernel>,
        buffers: &'a [Buffer],
        updates: &[(BufferId, BufferId)],
        most_buffers: usize,
    ) -> List<'a> {
        List {
            buffers,
            updates: updates.iter().copied().collect(),
            kernels: kernels.into_iter().map(Some).collect(),
            groups: Vec::new(),
            first_read: HashMap::new(),
            first_write: HashMap::new(),
            most_buffers,
        }
    }

    fn grouped(mut self) -> Vec<Kernel> {
        // The first kernel after the one at hand that is not a map.
        let mut run_end = self.kernels.len();
        for at in (0..self.kernels.len()).rev() {
            let Some(kernel) = self.kernels[at].take() else { continue };
            let (reads, writes) = (kernel.reads(), kernel.writes());
            let position = match &kernel.body {
                Body::Map { .. } => self.place(kernel, at, run_end),
                _ => {
                    run_end = at;
                    self.kernels[at] = Some(kernel);
                    at
                }
            };
            let note = |first: &mut HashMap<BufferId, usize>, buffers: Vec<BufferId>| {
                for buffer in buffers {
                    let earliest = first.entry(buffer).or_insert(position);
                    *earliest = position.min(*earliest);
                }
            };
            note(&mut self.first_read, reads);
            note(&mut self.first_write, writes);
        }
        for group in self.groups {
            self.kernels[group.position] = Some(together(group.members));
        }
        self.kernels.into_iter().flatten().collect()
    }

    /// Puts a map into the latest group that it may wait for and that has room, or starts one; gives the
    /// group's position.
    fn place(&mut self, kernel: Kernel, at: usize, run_end: usize) -> usize {
        let before =
            self.deadline(&kernel).min(if self.holds_little(&kernel) { usize::MAX } else { run_end });
        let touched: BTreeSet<BufferId> = kernel.buffers().into_iter().collect();
        let fits = |group: &&mut Group| {
            group.position < before && group.touched.union(&touched).count() <= self.most_buffers
        };
        if let Some(group) = self.groups.iter_mut().find(fits) {
            group.touched.extend(touched);
            group.members.push(kernel);
            return group.position;
        }
        self.groups.push(Group { position: at, members: vec![kernel], touched });
        at
    }

    /// The position that the kernel must come before: that of the first reader of its results, and of
    /// the first kernel that makes a new value of a variable whose old one it reads.
    fn deadline(&self, kernel: &Kernel) -> usize {
        let writes = kernel.writes();
        let read = writes.iter().filter_map(|b| self.first_read.get(b));
        let reads = kernel.reads();
        let new_values = reads.iter().filter_map(|b| self.updates.get(b)).filter(|b| !writes.contains(b));
        read.chain(new_values.filter_map(|b| self.first_write.get(b))).min().copied().unwrap_or(usize::MAX)
    }

    /// Whether little memory stays taken while the kernel waits.
    fn holds_little(&self, kernel: &Kernel) -> bool {
        let reads = kernel.reads();
        let temporaries =
            reads.iter().map(|&b| &self.buffers[b]).filter(|b| matches!(b.role, Role::Temporary { .. }));
        temporaries.map(Buffer::len).sum::<usize>() <= SMALL
    }
}

/// Maps as one kernel. The members came from the last to the first.
fn together(mut members: Vec<Kernel>) -> Kernel {
    members.reverse();
    if members.len() == 1 {
        return members.remove(0);
    }
    let count = members.len();
    let mut names: Vec<String> = Vec::new();
    let mut parts = Vec::new();
    for Kernel { label, body } in members {
        if let Body::Map { parts: more } = body {
            parts.extend(more);
        }
        if !names.contains(&label) {
            names.push(label);
        }
    }
    let label = format!("{count} maps: {}", cut(&names.join("; "), 50));
    Kernel { label, body: Body::Map { parts } }
}
