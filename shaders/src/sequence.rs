//! All launches of a schedule, in order.

use std::collections::BTreeSet;

use autograd::Result;
use schedule::Schedule;

use crate::assembled::Assembled;
use crate::launch::{Context, Launch, Storage};
use crate::pack::{Pack, launch as pack_launch};

/// Where a binding may begin, at any adapter's limit: bytes.
const ALIGNMENT: u64 = 256;

/// All launches of a schedule, and the memory of their own that they need.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    /// Launches that need to run only when frozen buffers were written.
    pub prepare: Vec<Launch>,
    /// The launches of one call.
    pub call: Vec<Launch>,
    /// For every kernel of a call the number of its first launch.
    pub starts: Vec<usize>,
    /// Bytes of each allocation that kernels use one after the other.
    pub scratch: Vec<u64>,
    /// Bytes of each allocation for packed operands.
    pub packed: Vec<u64>,
}

impl Sequence {
    /// Of [all kernels](Schedule::all_kernels), made ready. What their products read packed, and what no earlier
    /// kernel of the call makes, is packed before all kernels, by as few launches as the bindings allow.
    ///
    /// # Errors
    /// [`Error::Limit`](autograd::Error::Limit) where an operand does not fit the limits.
    pub fn new(context: Context, schedule: &Schedule, assembled: Vec<Assembled>) -> Result<Sequence> {
        let mut sequence = Sequence::default();
        let mut assembled = assembled.into_iter();
        for assembled in assembled.by_ref().take(schedule.prepare.len()) {
            let launches = sequence.in_place(context, assembled)?;
            sequence.prepare.extend(launches);
        }
        let mut groups = Groups { context, groups: Vec::new() };
        let mut written = BTreeSet::new();
        let mut kernels = Vec::with_capacity(schedule.kernels.len());
        for (kernel, mut assembled) in schedule.kernels.iter().zip(assembled) {
            let is_steady =
                |pack: &mut Pack| pack.reads().all(|b| !written.contains(&context.places[b].memory));
            if let Some(pack) = assembled.pack.take_if(is_steady) {
                let (number, offset) = groups.place(pack);
                assembled
                    .launches
                    .iter_mut()
                    .for_each(|launch| relocate(launch, Storage::Packed(number), offset));
            }
            kernels.push(sequence.in_place(context, assembled)?);
            written.extend(kernel.writes().into_iter().map(|b| context.places[b].memory));
        }
        for (number, group) in groups.groups.into_iter().enumerate() {
            let launch = pack_launch(context, Storage::Packed(number), &group.packs)?;
            if group.is_frozen {
                sequence.prepare.push(launch)
            } else {
                sequence.call.push(launch)
            }
            sequence.packed.push(group.bytes);
        }
        for launches in kernels {
            sequence.starts.push(sequence.call.len());
            sequence.call.extend(launches);
        }
        Ok(sequence)
    }

    /// The launches of a kernel, after the one that packs its right operand into scratch, if there is one.
    fn in_place(&mut self, context: Context, assembled: Assembled) -> Result<Vec<Launch>> {
        let Assembled { pack, mut launches, mut scratch } = assembled;
        if let Some(pack) = pack {
            let storage = Storage::Scratch(scratch.len());
            scratch.push(pack.packed().bytes());
            launches.iter_mut().for_each(|launch| relocate(launch, storage, 0));
            launches.insert(0, pack_launch(context, storage, &[(0, pack)])?);
        }
        self.scratch.resize(self.scratch.len().max(scratch.len()), 0);
        self.scratch.iter_mut().zip(scratch).for_each(|(most, bytes)| *most = bytes.max(*most));
        Ok(launches)
    }
}

/// Says where the packed operand of a launch lies.
fn relocate(launch: &mut Launch, to: Storage, offset: u64) {
    for bound in launch.bindings.iter_mut().filter(|bound| bound.storage == Storage::Packed(0)) {
        (bound.storage, bound.offset) = (to, offset);
    }
}

/// Operands that are packed before all kernels.
struct Groups<'a> {
    context: Context<'a>,
    groups: Vec<Group>,
}

/// Operands that one launch packs into one allocation.
struct Group {
    is_frozen: bool,
    /// Each with the number of its first element there.
    packs: Vec<(usize, Pack)>,
    /// The memory that they are made from.
    reads: BTreeSet<usize>,
    bytes: u64,
}

impl Groups<'_> {
    /// Puts an operand into the last group, if it has room, or into a new one; gives the group's number and
    /// where the operand begins there, in bytes.
    fn place(&mut self, pack: Pack) -> (usize, u64) {
        let Context { frozen, places, target, .. } = self.context;
        let limits = &target.limits;
        let is_frozen = pack.reads().all(|b| frozen[b]);
        let reads: BTreeSet<usize> = pack.reads().map(|b| places[b].memory).collect();
        let packed = pack.packed();
        let last = self.groups.iter().rposition(|group| group.is_frozen == is_frozen);
        let number = last.filter(|&last| {
            let group = &self.groups[last];
            // One binding is that of the results.
            group.reads.union(&reads).count() < limits.storage_buffers as usize
                && group.bytes.next_multiple_of(ALIGNMENT) + packed.bytes() <= limits.binding_bytes
        });
        let number = number.unwrap_or_else(|| {
            self.groups.push(Group { is_frozen, packs: Vec::new(), reads: BTreeSet::new(), bytes: 0 });
            self.groups.len() - 1
        });
        let group = &mut self.groups[number];
        let offset = group.bytes.next_multiple_of(ALIGNMENT);
        group.packs.push((packed.element.elements(offset), pack));
        group.reads.extend(reads);
        group.bytes = offset + packed.bytes();
        (number, offset)
    }
}
