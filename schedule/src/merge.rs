//! Kernels over the same elements become one.
//!
//! * A fold over all pixels (batch norm's statistics, the sums of its gradient) joins the
//!   convolution that makes its input, so the activation is not read again.
//! * Maps over one shape that read each other or the same tensors become one map with several
//!   stores (a parameter and its momentum); folds over one space become one with several
//!   accumulators.
//!
//! Before memory planning every element is written by exactly one kernel, so order is all that must be
//! watched: a kernel may move up past kernels whose results it does not read. (The kernels that write
//! the parts of one long concatenation stay where they are.)

use std::collections::{HashMap, HashSet};

use crate::ir::*;
use crate::lower::{Item, Lowered};
use crate::step::Options;

/// Merges in place.
pub fn merge(lowered: &mut Lowered, options: &Options) {
    let mut list = List::new(std::mem::take(&mut lowered.kernels), options.max_buffers);
    list.attach_channel_reductions();
    list.merge_alike(&lowered.buffers);
    lowered.kernels = list.items.into_iter().flatten().collect();
}

struct List {
    /// Merged kernels leave a gap, so positions stay valid.
    items: Vec<Option<Item>>,
    /// The last kernel that writes each buffer.
    writer: HashMap<BufferId, usize>,
    /// Buffers that several kernels write, each a part.
    in_parts: HashSet<BufferId>,
    max_buffers: usize,
}

impl List {
    fn new(items: Vec<Item>, max_buffers: usize) -> List {
        let (mut writer, mut in_parts) = (HashMap::new(), HashSet::new());
        for (position, item) in items.iter().enumerate() {
            for buffer in item.kernel.writes() {
                if writer.insert(buffer, position).is_some() {
                    in_parts.insert(buffer);
                }
            }
        }
        List { items: items.into_iter().map(Some).collect(), writer, in_parts, max_buffers }
    }

    /// Whether everything the kernel reads is written before `position`, or by the kernel there.
    fn available(&self, kernel: &Kernel, position: usize) -> bool {
        kernel.reads().iter().all(|b| self.writer.get(b).is_none_or(|&w| w <= position))
    }

    fn attach_channel_reductions(&mut self) {
        for at in 0..self.items.len() {
            let Some(item) = &self.items[at] else { continue };
            let Body::Reduce { .. } = &item.kernel.body else { continue };
            // The latest kernel it reads from is the only candidate.
            let made = item.kernel.reads().iter().filter_map(|b| self.writer.get(b)).max().copied();
            let Some(host) = made.filter(|&h| h < at) else { continue };
            let Some(Item { kernel: target, frozen }) = &self.items[host] else { continue };
            if *frozen != item.frozen {
                continue;
            }
            if let Some(merged) = attach(target, &item.kernel, self.max_buffers) {
                let outputs = item.kernel.writes();
                let frozen = *frozen;
                self.items[host] = Some(Item { kernel: merged, frozen });
                self.items[at] = None;
                outputs.into_iter().for_each(|b| {
                    self.writer.insert(b, host);
                });
            }
        }
    }

    fn merge_alike(&mut self, buffers: &[Buffer]) {
        // Positions of kernels by iteration space, latest last.
        let mut by_space: HashMap<(bool, Vec<usize>, usize), Vec<usize>> = HashMap::new();
        for at in 0..self.items.len() {
            let Some(item) = &self.items[at] else { continue };
            let key = match &item.kernel.body {
                Body::Map { shape, .. } => (item.frozen, shape.clone(), usize::MAX),
                Body::Reduce { shape, outer, .. } => (item.frozen, shape.clone(), *outer),
                _ => continue,
            };
            let candidates = by_space.entry(key).or_default();
            let mut merged = false;
            for &host in candidates.iter().rev().take(16) {
                if self.merge_into(host, at, buffers) {
                    merged = true;
                    break;
                }
            }
            if !merged {
                candidates.push(at);
            }
        }
    }

    /// Moves the kernel at `at` up into the one at `host`, if order, limits and use allow.
    fn merge_into(&mut self, host: usize, at: usize, buffers: &[Buffer]) -> bool {
        let (Some(first), Some(second)) = (&self.items[host], &self.items[at]) else { return false };
        let is_part = |kernel: &Kernel| kernel.writes().iter().any(|b| self.in_parts.contains(b));
        if !self.available(&second.kernel, host) || is_part(&first.kernel) || is_part(&second.kernel) {
            return false;
        }
        let elements = |kernel: &Kernel| match &kernel.body {
            Body::Map { shape, .. } | Body::Reduce { shape, .. } => shape.iter().product::<usize>(),
            _ => 0,
        };
        let touched = first.kernel.buffers();
        let big = |b: &BufferId| buffers[*b].len() * 8 >= elements(&second.kernel);
        let shares = second.kernel.reads().iter().any(|b| touched.contains(b) && big(b));
        if !shares && elements(&second.kernel) > 1 << 14 {
            return false;
        }
        let Some(kernel) = join(&first.kernel, &second.kernel) else { return false };
        if kernel.buffers().len() > self.max_buffers || kernel.programs().iter().any(|p| p.instrs.len() > 128)
        {
            return false;
        }
        let outputs = second.kernel.writes();
        let frozen = first.frozen;
        self.items[host] = Some(Item { kernel, frozen });
        self.items[at] = None;
        outputs.into_iter().for_each(|b| {
            self.writer.insert(b, host);
        });
        true
    }
}

/// Appends `added` to `base`; a load of something `stored` at the same view becomes that register.
/// `None` if something stored is read at another view. Returns where each register went.
fn append(base: &mut Program, added: &Program, stored: &[Store]) -> Option<Vec<Reg>> {
    let mut map: Vec<Reg> = Vec::with_capacity(added.instrs.len());
    for instr in &added.instrs {
        let at = |r: &Reg| map[*r];
        let instr = match instr {
            Instr::Load { buffer, view } => match stored.iter().find(|s| s.buffer == *buffer) {
                Some(store) if store.view == *view => {
                    map.push(store.value);
                    continue;
                }
                Some(_) => return None,
                None => instr.clone(),
            },
            Instr::Constant(_) | Instr::Index(_) | Instr::InBounds(_) | Instr::Accumulator(_) => {
                instr.clone()
            }
            Instr::Unary(op, a) => Instr::Unary(*op, at(a)),
            Instr::Binary(op, a, b) => Instr::Binary(*op, at(a), at(b)),
            Instr::Select { condition, yes, no } => {
                Instr::Select { condition: at(condition), yes: at(yes), no: at(no) }
            }
            Instr::Random { stream, index, seed, step } => {
                Instr::Random { stream: *stream, index: index.clone(), seed: at(seed), step: at(step) }
            }
        };
        let reg = base.push(instr);
        map.push(reg);
    }
    Some(map)
}

/// Two maps or two folds over one space as one kernel.
fn join(first: &Kernel, second: &Kernel) -> Option<Kernel> {
    let label = if first.label == second.label {
        first.label.clone()
    } else {
        format!("{}, {}", first.label, second.label)
    };
    let label =
        if label.len() > 60 { format!("{}..", label.chars().take(58).collect::<String>()) } else { label };
    match (&first.body, &second.body) {
        (Body::Map { shape, program, stores }, Body::Map { program: added, stores: more, .. }) => {
            let (mut program, mut stores) = (program.clone(), stores.clone());
            let map = append(&mut program, added, &stores)?;
            stores.extend(more.iter().map(|s| Store { value: map[s.value], ..s.clone() }));
            Some(Kernel { label, body: Body::Map { shape: shape.clone(), program, stores } })
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
            let mut renumbered = ending.clone();
            for instr in &mut renumbered.instrs {
                if let Instr::Accumulator(k) = instr {
                    let (kind, reg) = folds[*k];
                    let fold = (kind, map[reg]);
                    *k = accumulators.iter().position(|f| *f == fold).unwrap_or_else(|| {
                        accumulators.push(fold);
                        accumulators.len() - 1
                    });
                }
            }
            let map = append(&mut finish, &renumbered, &[])?;
            stores.extend(more.iter().map(|s| Store { value: map[s.value], ..s.clone() }));
            let body =
                Body::Reduce { shape: shape.clone(), outer: *outer, program, accumulators, finish, stores };
            Some(Kernel { label, body })
        }
        _ => None,
    }
}

/// The convolution with a fold over its pixels as channel reductions, if the fold is one.
fn attach(host: &Kernel, fold: &Kernel, max_buffers: usize) -> Option<Kernel> {
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
    if epilogue.channel_reductions.iter().any(|sum| reads.contains(&sum.output)) {
        return None;
    }
    // Bring the fold's space (kept.., channels, folded..) into the image's order (kept.., folded.., channels).
    let kept = outer - 1;
    let order: Vec<usize> = (0..kept).chain(*outer..shape.len()).chain([kept]).collect();
    let fold_shape: Vec<usize> = order.iter().map(|&d| shape[d]).collect();
    let mut fold_program = program.clone();
    map_strides(&mut fold_program, |strides| order.iter().map(|&d| strides[d]).collect());

    let mut epilogue = epilogue.clone();
    if epilogue.channel_reductions.is_empty() {
        epilogue.kept = kept;
    }
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
    if epilogue.kept != kept {
        return None;
    }
    let stores_of_epilogue = epilogue.stores.clone();
    let map = append(&mut epilogue.program, &fold_program, &stores_of_epilogue)?;
    for store in stores {
        let Instr::Accumulator(k) = finish.instrs[store.value] else { return None };
        let (kind, reg) = accumulators[k];
        epilogue.channel_reductions.push(ChannelReduction { kind, value: map[reg], output: store.buffer });
    }
    let label = format!("{} + {}", host.label, fold.label);
    let body = Body::Convolution {
        kind: *kind,
        geometry: geometry.clone(),
        lhs: lhs.clone(),
        rhs: rhs.clone(),
        epilogue,
    };
    let kernel = Kernel { label, body };
    (kernel.buffers().len() <= max_buffers).then_some(kernel)
}

fn map_strides(program: &mut Program, f: impl Fn(&[i64]) -> Vec<i64>) {
    for instr in &mut program.instrs {
        let view = match instr {
            Instr::Load { view, .. } | Instr::Index(view) | Instr::InBounds(view) => view,
            Instr::Random { index, .. } => index,
            _ => continue,
        };
        view.strides = f(&view.strides);
        view.bounds.iter_mut().for_each(|b| b.strides = f(&b.strides));
    }
}

/// Splits the first iteration dim into `[size / inner, inner]`.
fn split_first(program: &mut Program, inner: usize) {
    map_strides(program, |strides| [&[strides[0] * inner as i64], strides].concat());
}
