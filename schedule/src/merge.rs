//! Kernels over the same elements become one.
//!
//! * A fold over all pixels (batch norm's statistics, the sums of its gradient) joins the
//!   convolution that makes its input, so the activation is not read again.
//! * Maps over one shape that read each other or the same tensors become one map with several
//!   stores (a parameter and its momentum); folds over one space become one with several
//!   accumulators.
//! * A map over the results of a fold joins the fold, or the convolution, that makes them last (batch norm's scale and
//!   shift): it is evaluated where they are finished.
//!
//! Before memory planning every element is written by exactly one kernel, so order is all that must be
//! watched: a kernel may move up past kernels whose results it does not read. (The kernels that write
//! the parts of one long concatenation stay where they are.)

use std::collections::{HashMap, HashSet};

use crate::draft::Draft;
use crate::explain::cut;
use crate::ir::{
    Body, Buffer, BufferId, ChannelFold, ConvKind, Instr, Kernel, Map, Program, ReduceKind, Reg, Store, View,
};
use crate::step::{ChannelFolds, Options};

/// Most instructions of a program that two kernels make together.
const LONGEST_PROGRAM: usize = 128;

/// Merges in place.
pub fn merge(draft: &mut Draft, options: &Options) {
    let Draft { buffers, prepare, kernels, updates, .. } = draft;
    // A variable is written at the end of a step, when nobody needs its old value.
    let late: HashSet<BufferId> = updates.iter().map(|update| update.1).collect();
    for kernels in [prepare, kernels] {
        let mut list = List::new(std::mem::take(kernels), buffers, options.max_buffers);
        list.attach_folds(options.channel_folds, options.group_buffers);
        list.merge_alike();
        list.finish_folds(&late, options.group_buffers);
        *kernels = list.kernels.into_iter().flatten().collect();
    }
}

struct List<'a> {
    buffers: &'a [Buffer],
    /// Merged kernels leave a gap, so positions stay valid.
    kernels: Vec<Option<Kernel>>,
    /// The last kernel that writes each buffer.
    writer: HashMap<BufferId, usize>,
    /// Buffers that several kernels write, each a part.
    in_parts: HashSet<BufferId>,
    max_buffers: usize,
}

impl List<'_> {
    fn new(kernels: Vec<Kernel>, buffers: &[Buffer], max_buffers: usize) -> List<'_> {
        let (mut writer, mut in_parts) = (HashMap::new(), HashSet::new());
        for (position, kernel) in kernels.iter().enumerate() {
            for buffer in kernel.writes() {
                if writer.insert(buffer, position).is_some() {
                    in_parts.insert(buffer);
                }
            }
        }
        List { buffers, kernels: kernels.into_iter().map(Some).collect(), writer, in_parts, max_buffers }
    }

    /// Whether everything the kernel reads is written before `position`, or by the kernel there.
    fn available(&self, kernel: &Kernel, position: usize) -> bool {
        kernel.reads().iter().all(|b| self.writer.get(b).is_none_or(|&w| w <= position))
    }

    /// The latest kernel that the one at `at` reads from: the only one that it can join.
    fn source(&self, at: usize, kernel: &Kernel) -> Option<usize> {
        let made = kernel.reads().iter().filter_map(|b| self.writer.get(b)).max().copied();
        made.filter(|&host| host < at)
    }

    /// Puts `merged`, made of the kernels at `host` and `at`, in place of the first.
    fn replace(&mut self, host: usize, at: usize, merged: Kernel) {
        merged.writes().into_iter().for_each(|buffer| {
            self.writer.insert(buffer, host);
        });
        self.kernels[host] = Some(merged);
        self.kernels[at] = None;
    }

    fn attach_folds(&mut self, to: ChannelFolds, most: usize) {
        for at in 0..self.kernels.len() {
            let Some(fold) = &self.kernels[at] else { continue };
            let Some(host) = self.source(at, fold) else { continue };
            let Some(convolution) = &self.kernels[host] else { continue };
            let Body::Convolution { kind, geometry, .. } = &convolution.body else { continue };
            if to.allow(*kind, geometry)
                && let Some(merged) = attach(convolution, fold)
                && merged.buffers().len() <= most
            {
                self.replace(host, at, merged);
            }
        }
    }

    fn merge_alike(&mut self) {
        // Positions of kernels by iteration space, latest last.
        let mut by_space: HashMap<(Vec<usize>, usize), Vec<usize>> = HashMap::new();
        for at in 0..self.kernels.len() {
            let Some(kernel) = &self.kernels[at] else { continue };
            let space = match &kernel.body {
                Body::Map { parts } => match &parts[..] {
                    [part] => (part.shape.clone(), usize::MAX),
                    _ => continue,
                },
                Body::Reduce { shape, outer, .. } => (shape.clone(), *outer),
                _ => continue,
            };
            let candidates = by_space.entry(space).or_default();
            let merged =
                candidates.iter().rev().take(16).find_map(|&host| Some((host, self.joined(host, at)?)));
            match merged {
                Some((host, merged)) => self.replace(host, at, merged),
                None => candidates.push(at),
            }
        }
    }

    fn finish_folds(&mut self, late: &HashSet<BufferId>, most: usize) {
        for at in 0..self.kernels.len() {
            let Some(map) = &self.kernels[at] else { continue };
            let Some(host) = self.source(at, map) else { continue };
            let Some(fold) = &self.kernels[host] else { continue };
            if map.writes().iter().any(|b| self.in_parts.contains(b) || late.contains(b)) {
                continue;
            }
            if let Some(merged) = finish(fold, map).filter(|merged| fits(merged, most)) {
                self.replace(host, at, merged);
            }
        }
    }

    /// The kernel at `at` moved up into the one at `host`, if order, limits and use allow.
    fn joined(&self, host: usize, at: usize) -> Option<Kernel> {
        let (first, second) = (self.kernels[host].as_ref()?, self.kernels[at].as_ref()?);
        let is_part = |kernel: &Kernel| kernel.writes().iter().any(|b| self.in_parts.contains(b));
        if !self.available(second, host) || is_part(first) || is_part(second) {
            return None;
        }
        let elements = match &second.body {
            Body::Map { parts } => parts.iter().map(|part| part.shape.iter().product::<usize>()).sum(),
            Body::Reduce { shape, .. } => shape.iter().product::<usize>(),
            _ => 0,
        };
        let touched = first.buffers();
        let is_big = |b: &BufferId| self.buffers[*b].len() * 8 >= elements;
        let shares = second.reads().iter().any(|b| touched.contains(b) && is_big(b));
        if !shares && elements > 1 << 14 {
            return None;
        }
        join(first, second).filter(|merged| fits(merged, self.max_buffers))
    }
}

/// Appends `added` to `base`; a load of something `stored` at the same view becomes that register.
/// `None` if something stored is read at another view. Returns where each register went.
fn append(base: &mut Program, added: &Program, stored: &[Store]) -> Option<Vec<Reg>> {
    let store = |buffer: BufferId| stored.iter().find(|store| store.buffer == buffer);
    if added.loads().any(|(buffer, view)| store(buffer).is_some_and(|store| store.view != *view)) {
        return None;
    }
    Some(base.append(added, |instr| match instr {
        Instr::Load { buffer, .. } => store(*buffer).map(|store| store.value),
        _ => None,
    }))
}

fn fits(kernel: &Kernel, most: usize) -> bool {
    kernel.buffers().len() <= most && kernel.programs().iter().all(|p| p.instrs.len() <= LONGEST_PROGRAM)
}

/// The label of two kernels in one.
fn both(first: &Kernel, second: &Kernel) -> String {
    let label = if first.label == second.label {
        first.label.clone()
    } else {
        format!("{}, {}", first.label, second.label)
    };
    cut(&label, 60)
}

/// A fold with a map over its results as what is done with them, if the map is over their space.
fn finish(fold: &Kernel, map: &Kernel) -> Option<Kernel> {
    let Body::Map { parts } = &map.body else { return None };
    let [Map { shape: space, program: added, stores: more }] = &parts[..] else { return None };
    let mut body = fold.body.clone();
    let (kept, finish, stores) = match &mut body {
        Body::Reduce { shape, outer, finish, stores, .. } => (shape[..*outer].to_vec(), finish, stores),
        Body::Convolution { epilogue, .. } => {
            // The rest of its results is not there yet.
            if epilogue.stores.iter().any(|store| added.buffers().any(|b| b == store.buffer)) {
                return None;
            }
            let fold = epilogue.fold.as_mut()?;
            (fold.space(&epilogue.shape), &mut fold.finish, &mut fold.stores)
        }
        _ => return None,
    };
    let (mut added, mut more) = (added.clone(), more.clone());
    for strides in added.stride_lists().chain(more.iter_mut().flat_map(|store| store.view.stride_lists())) {
        *strides = split(strides, space, &kept)?;
    }
    let map_of = append(finish, &added, stores)?;
    stores.extend(more.into_iter().map(|store| Store { value: map_of[store.value], ..store }));
    Some(Kernel { label: both(fold, map), body })
}

/// The strides over a space as strides over a finer one: each of its dims is one of the first, or several together.
fn split(strides: &[i64], space: &[usize], finer: &[usize]) -> Option<Vec<i64>> {
    let mut result = vec![0; finer.len()];
    let mut end = finer.len();
    for (&stride, &size) in strides.iter().zip(space).rev() {
        let mut inner = 1;
        while inner < size {
            end = end.checked_sub(1)?;
            result[end] = stride * inner as i64;
            inner *= finer[end];
        }
        if inner != size {
            return None;
        }
    }
    finer[..end].iter().all(|&size| size == 1).then_some(result)
}

/// Two maps or two folds over one space as one kernel.
fn join(first: &Kernel, second: &Kernel) -> Option<Kernel> {
    let label = both(first, second);
    match (&first.body, &second.body) {
        (Body::Map { parts }, Body::Map { parts: more }) => {
            let ([part], [more]) = (&parts[..], &more[..]) else { return None };
            let Map { shape, mut program, mut stores } = part.clone();
            let map = append(&mut program, &more.program, &stores)?;
            stores.extend(more.stores.iter().map(|s| Store { value: map[s.value], ..s.clone() }));
            Some(Kernel { label, body: Body::map(shape, program, stores) })
        }
        (
            Body::Reduce { shape, outer, program, accumulators, finish, stores },
            Body::Reduce { program: added, accumulators: folds, finish: ending, stores: more, .. },
        ) => {
            let reads_first = second.reads().iter().any(|b| first.writes().contains(b));
            if reads_first {
                return None;
            }
            let (mut program, mut accumulators) = (program.clone(), accumulators.clone());
            let (mut finish, mut stores) = (finish.clone(), stores.clone());
            let map = append(&mut program, added, &[])?;
            let folds: Vec<_> = folds.iter().map(|&(kind, reg)| (kind, map[reg])).collect();
            add_fold((&mut accumulators, &mut finish, &mut stores), (&folds, ending, more))?;
            let body =
                Body::Reduce { shape: shape.clone(), outer: *outer, program, accumulators, finish, stores };
            Some(Kernel { label, body })
        }
        _ => None,
    }
}

/// Adds to the accumulators, the finish and the stores of a fold those of another over the same values.
fn add_fold(
    (accumulators, finish, stores): (&mut Vec<(ReduceKind, Reg)>, &mut Program, &mut Vec<Store>),
    (folds, ending, more): (&[(ReduceKind, Reg)], &Program, &[Store]),
) -> Option<()> {
    let mut renumbered = ending.clone();
    for instr in &mut renumbered.instrs {
        if let Instr::Accumulator(k) = instr {
            *k = accumulators.iter().position(|fold| *fold == folds[*k]).unwrap_or_else(|| {
                accumulators.push(folds[*k]);
                accumulators.len() - 1
            });
        }
    }
    let map = append(finish, &renumbered, &[])?;
    stores.extend(more.iter().map(|store| Store { value: map[store.value], ..store.clone() }));
    Some(())
}

/// The convolution with a fold over its pixels in its epilogue, if the fold is one.
fn attach(host: &Kernel, fold: &Kernel) -> Option<Kernel> {
    let Body::Convolution { kind, geometry, lhs, rhs, epilogue } = &host.body else { return None };
    let Body::Reduce { shape, outer, program, accumulators, finish, stores } = &fold.body else {
        return None;
    };
    if *kind == ConvKind::WeightGrad || *outer == 0 || *outer > 2 {
        return None;
    }
    if accumulators.iter().any(|a| !matches!(a.0, ReduceKind::Sum | ReduceKind::Variance)) {
        return None;
    }
    // A sum that the convolution makes itself (a mean that the fold subtracts) is not there yet.
    let reads = fold.reads();
    if epilogue.fold.iter().flat_map(|fold| &fold.stores).any(|store| reads.contains(&store.buffer)) {
        return None;
    }
    // Bring the fold's space (kept.., channels, folded..) into the image's order (kept.., folded.., channels).
    let kept = outer - 1;
    let order: Vec<usize> = (0..kept).chain(*outer..shape.len()).chain([kept]).collect();
    let fold_shape: Vec<usize> = order.iter().map(|&d| shape[d]).collect();
    let mut fold_program = program.clone();
    fold_program.stride_lists().for_each(|s| *s = order.iter().map(|&d| s[d]).collect());

    let mut epilogue = epilogue.clone();
    if epilogue.shape != fold_shape {
        // The result's first dim may have to be split into views, or the fold's to follow the result's.
        let splits = |coarse: &[usize], fine: &[usize]| {
            fine.len() == coarse.len() + 1 && fine[0] * fine[1] == coarse[0] && fine[2..] == coarse[1..]
        };
        if splits(&epilogue.shape, &fold_shape) {
            split_first(&mut epilogue.program, fold_shape[1]);
            epilogue.shape = fold_shape.clone();
            epilogue.stores.iter_mut().for_each(|s| s.view = View::dense(&fold_shape));
        } else if splits(&fold_shape, &epilogue.shape) && kept == 0 {
            split_first(&mut fold_program, epilogue.shape[1]);
        } else {
            return None;
        }
    }
    if epilogue.fold.as_ref().is_some_and(|fold| fold.kept != kept) {
        return None;
    }
    let stores_of_epilogue = epilogue.stores.clone();
    let map = append(&mut epilogue.program, &fold_program, &stores_of_epilogue)?;
    let accumulators: Vec<_> = accumulators.iter().map(|&(kind, reg)| (kind, map[reg])).collect();
    match &mut epilogue.fold {
        None => {
            let (finish, stores) = (finish.clone(), stores.clone());
            epilogue.fold = Some(ChannelFold { kept, accumulators, finish, stores });
        }
        Some(ChannelFold { accumulators: first, finish: base, stores: all, .. }) => {
            add_fold((first, base, all), (&accumulators, finish, stores))?;
        }
    }
    let label = format!("{} + {}", host.label, fold.label);
    let body = Body::Convolution {
        kind: *kind,
        geometry: geometry.clone(),
        lhs: lhs.clone(),
        rhs: rhs.clone(),
        epilogue,
    };
    Some(Kernel { label, body })
}

/// Splits the first iteration dim into `[size / inner, inner]`.
fn split_first(program: &mut Program, inner: usize) {
    program.stride_lists().for_each(|strides| strides.insert(0, strides[0] * inner as i64));
}
