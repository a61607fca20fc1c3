//! Reductions: a fold over some dims of what a program computes, then a program over the results.
//!
//! Where the values of one fold lie side by side in memory, they are folded as a row; where the
//! values of neighbouring folds do (sums over pixels, one for each channel), they are folded as
//! columns side by side. A long fold is cut into parts, whose number depends on the shape alone and
//! which are merged in order: results do not depend on the number of threads.

use schedule::{Instr, Program, ReduceKind, Reg, Store};

use crate::block::{self, Block};
use crate::fold::{self, Columns, states_len};
use crate::launch::{Compile, Launch, Runtime};
use crate::map::Map;
use crate::memory::SharedSlice;
use crate::program::{BlockProgram, Spec};
use crate::space::BLOCK;

/// Elements times instructions that are worth a task of their own.
const TASK: usize = 1 << 15;
/// Most parts that a fold is cut into.
const PARTS: usize = 32;

/// A reduction. The program walks `[groups, length, width]`: `width` folds side by side, each of
/// `length` values, and `groups` of those one after the other.
pub struct Reduce {
    program: BlockProgram,
    finish: Map,
    kinds: Vec<ReduceKind>,
    groups: usize,
    length: usize,
    width: usize,
    /// Groups of one task, where `parts` is 1.
    task: usize,
    /// Tasks that share a group, and tiling rows of each.
    parts: usize,
    part_rows: usize,
    threads: usize,
}

impl Reduce {
    /// Compiles a reduction: what its fields are is said at [`schedule::Body::Reduce`].
    pub fn new(
        compile: &Compile,
        shape: &[usize],
        outer: usize,
        program: &Program,
        accumulators: &[(ReduceKind, Reg)],
        (finish, stores): (&Program, &[Store]),
    ) -> Reduce {
        let order = Order::new(shape, outer, program, accumulators.iter().map(|a| a.1));
        let results: Vec<_> = accumulators.iter().map(|&(_, value)| value).collect();
        let blocks = BlockProgram::new(&Spec {
            classes: &order.classes,
            results: &results,
            granularity: order.length * order.width,
            ..Spec::new(compile, &order.shape, &order.program)
        });
        let finish = Map::new(compile, &shape[..outer], finish, stores);
        let group = order.length * order.width;
        let work = blocks.per_block.len() + accumulators.len();
        let tiling = &blocks.tiling;
        let group_rows = group.checked_div(tiling.inner).unwrap_or(0);
        // A part starts where a block starts, and at a whole row of columns.
        let unit = (order.width.checked_div(tiling.inner).unwrap_or(0)).max(tiling.chunk);
        let unit = if tiling.inner < order.width { order.width / tiling.inner } else { unit };
        let wanted = if order.groups >= PARTS { 1 } else { (group * work / TASK).clamp(1, PARTS) };
        let part_rows = group_rows.div_ceil(wanted).next_multiple_of(unit.max(1)).max(1);
        let parts = group_rows.div_ceil(part_rows).max(1);
        let task = if parts > 1 { 1 } else { (TASK / (group * work).max(1)).max(1) };
        Reduce {
            kinds: accumulators.iter().map(|a| a.0).collect(),
            groups: order.groups,
            length: order.length,
            width: order.width,
            task: task.max(order.groups.div_ceil(compile.threads * 16)),
            parts,
            part_rows,
            threads: compile.threads,
            program: blocks,
            finish,
        }
    }

    /// Floats of one task's states.
    fn state_len(&self) -> usize {
        states_len(self.kinds.len(), self.width)
    }

    /// Number of states: one a thread, or one a part.
    fn states(&self) -> usize {
        if self.parts == 1 { self.threads } else { self.groups * self.parts }
    }

    /// Results of an accumulator.
    fn results_len(&self) -> usize {
        self.groups * self.width
    }

    /// Where an accumulator's results of a group go.
    ///
    /// # Safety
    /// No two users of one group at a time.
    unsafe fn results<'a>(&self, area: SharedSlice<'a>, accumulator: usize, group: usize) -> &'a mut [f32] {
        let start = self.states() * self.state_len() + accumulator * self.results_len() + group * self.width;
        // SAFETY: the caller's promise.
        unsafe { area.range(start..start + self.width) }
    }

    /// The state number `number`, for each accumulator.
    ///
    /// # Safety
    /// No two users of one state at a time.
    unsafe fn columns<'a>(
        &self,
        area: SharedSlice<'a>,
        number: usize,
    ) -> impl Fn(usize) -> Columns<'a> + use<'a> {
        let (start, width) = (number * self.state_len(), self.width);
        // SAFETY: the caller's promise.
        move |accumulator| unsafe { Columns::in_area(area, start, accumulator, width) }
    }

    /// Folds one part of a group into a state.
    unsafe fn fold_part<'a>(
        &self,
        runtime: &Runtime,
        group: usize,
        part: usize,
        columns: impl Fn(usize) -> Columns<'a>,
    ) {
        for (number, &kind) in self.kinds.iter().enumerate() {
            columns(number).reset(kind);
        }
        let group_rows = self.length * self.width / self.program.tiling.inner;
        let start = group * group_rows + part * self.part_rows;
        let end = (start + self.part_rows).min((group + 1) * group_rows);
        let mut at = part * self.part_rows * self.program.tiling.inner;
        let first = at / self.width;
        let visit = |block: &Block| {
            for (number, &kind) in self.kinds.iter().enumerate() {
                columns(number).add_at(runtime.isa, kind, block.result(number), at, first);
            }
            at += block.len;
        };
        // SAFETY: the caller's promise.
        unsafe { block::run(runtime, &self.program, start..end, &[], visit) };
    }

    /// Folds whole groups, one after the other, into results.
    unsafe fn fold_groups(&self, runtime: &Runtime, groups: std::ops::Range<usize>, thread: usize) {
        let (isa, area, size) = (runtime.isa, runtime.area, self.length * self.width);
        if size == 0 {
            // SAFETY: exclusive, as everything below, by the caller's promise.
            let columns = unsafe { self.columns(area, thread) };
            for (number, &kind) in self.kinds.iter().enumerate() {
                let mut state = columns(number);
                state.reset(kind);
                for group in groups.clone() {
                    // SAFETY: as above.
                    state.finish(kind, 0, unsafe { self.results(area, number, group) });
                }
            }
            return;
        }
        let group_rows = size / self.program.tiling.inner;
        let rows = groups.start * group_rows..groups.end * group_rows;
        let mut at = groups.start * size;
        // SAFETY: as above.
        let columns = unsafe { self.columns(area, thread) };
        let visit = |block: &Block| {
            for (number, &kind) in self.kinds.iter().enumerate() {
                let values = block.result(number);
                let mut done = 0;
                while done < values.len() {
                    let (group, inside) = ((at + done) / size, (at + done) % size);
                    let values = &values[done..values.len().min(done + size - inside)];
                    // SAFETY: as above.
                    let out = unsafe { self.results(area, number, group) };
                    if self.width == 1 && values.len() == size {
                        out[0] = fold::finish(kind, fold::row(isa, kind, values), size);
                    } else {
                        if inside == 0 {
                            columns(number).reset(kind);
                        }
                        columns(number).add_at(isa, kind, values, inside, 0);
                        if inside + values.len() == size {
                            columns(number).finish(kind, self.length, out);
                        }
                    }
                    done += values.len();
                }
            }
            at += block.len;
        };
        // SAFETY: as above.
        unsafe { block::run(runtime, &self.program, rows, &[], visit) };
    }

    /// Merges the parts of each group, in order.
    unsafe fn merge_parts(&self, runtime: &Runtime) {
        let area = runtime.area;
        let part_len = self.part_rows * self.program.tiling.inner / self.width;
        for group in 0..self.groups {
            // SAFETY: only this thread is left.
            let all = unsafe { self.columns(area, group * self.parts) };
            for part in 1..self.parts {
                // SAFETY: as above, and another state.
                let other = unsafe { self.columns(area, group * self.parts + part) };
                let count = part * part_len;
                let added = part_len.min(self.length - count);
                for (number, &kind) in self.kinds.iter().enumerate() {
                    all(number).merge(runtime.isa, kind, &other(number), count, added);
                }
            }
            for (number, &kind) in self.kinds.iter().enumerate() {
                // SAFETY: as above.
                all(number).finish(kind, self.length, unsafe { self.results(area, number, group) });
            }
        }
    }
}

impl Launch for Reduce {
    fn area_len(&self) -> usize {
        self.states() * self.state_len() + self.kinds.len() * self.results_len()
    }

    unsafe fn run(&self, runtime: &Runtime) {
        let tasks = if self.parts == 1 { self.groups.div_ceil(self.task) } else { self.groups * self.parts };
        runtime.pool.run(tasks, &|task, thread| {
            // SAFETY: states and results of different tasks (of different threads) are disjoint.
            unsafe {
                if self.parts > 1 {
                    let (group, part) = (task / self.parts, task % self.parts);
                    self.fold_part(runtime, group, part, self.columns(runtime.area, task));
                } else {
                    let groups = task * self.task..((task + 1) * self.task).min(self.groups);
                    self.fold_groups(runtime, groups, thread);
                }
            }
        });
        // SAFETY: all tasks are done; the area is as long as was asked for.
        unsafe {
            if self.parts > 1 {
                self.merge_parts(runtime);
            }
            let result = |i: usize| {
                runtime.area.pointer(self.states() * self.state_len()).wrapping_add(i * self.results_len())
            };
            let few: [*mut f32; 8] = std::array::from_fn(result);
            if self.kinds.len() <= few.len() {
                self.finish.evaluate(runtime, &few);
            } else {
                let many: Vec<_> = (0..self.kinds.len()).map(result).collect();
                self.finish.evaluate(runtime, &many);
            }
        }
    }
}

/// The order in which a reduction's dims are walked: `[groups, folded, side by side]`.
struct Order {
    shape: Vec<usize>,
    classes: Vec<u8>,
    program: Program,
    groups: usize,
    length: usize,
    width: usize,
}

impl Order {
    fn new(shape: &[usize], outer: usize, program: &Program, values: impl Iterator<Item = usize>) -> Order {
        let first_side = side_by_side(shape, outer, program, values);
        // Each new dim: its size, the dim it is part of, and its stride in steps of that dim.
        let mut groups: Vec<(usize, usize, i64)> = (0..first_side).map(|d| (shape[d], d, 1)).collect();
        let mut sides: Vec<(usize, usize, i64)> = (first_side..outer).map(|d| (shape[d], d, 1)).collect();
        let size = |dims: &[(usize, usize, i64)]| dims.iter().map(|d| d.0).product::<usize>();
        // A block should hold whole rows of columns: what is too wide is cut into groups.
        while size(&sides) > BLOCK {
            let (width, dim, _) = sides[0];
            let rest = size(&sides[1..]);
            if width > 1 && sides.len() > 1 && rest >= 32 {
                groups.push(sides.remove(0));
                continue;
            }
            let divisor = (1..=BLOCK / rest.max(1)).rev().find(|d| width.is_multiple_of(*d)).unwrap_or(1);
            if divisor * rest < 32 {
                break;
            }
            groups.push((width / divisor, dim, divisor as i64));
            sides[0].0 = divisor;
            break;
        }
        let folded = (outer..shape.len()).map(|d| (shape[d], d, 1));
        let lists = [groups.clone(), folded.clone().collect(), sides.clone()];
        let dims: Vec<(usize, usize, i64)> = lists.concat();
        let classes = lists
            .iter()
            .zip(0u8..)
            .flat_map(|(list, class)| std::iter::repeat_n(class, list.len()))
            .collect();
        let mut program = program.clone();
        for strides in program.stride_lists() {
            *strides = dims.iter().map(|&(_, d, step)| strides[d] * step).collect();
        }
        Order {
            shape: dims.iter().map(|d| d.0).collect(),
            classes,
            program,
            groups: size(&groups),
            length: folded.map(|d| d.0).product(),
            width: size(&sides),
        }
    }
}

/// The first of the outer dims that are walked side by side: where most loads have neighbouring
/// elements along an outer dim, that one; otherwise `outer`.
fn side_by_side(
    shape: &[usize],
    outer: usize,
    program: &Program,
    values: impl Iterator<Item = usize>,
) -> usize {
    // Elements that lie side by side along each dim.
    let mut weights = vec![0u64; shape.len()];
    for (_, instr) in program.needed(values) {
        let Instr::Load { view, .. } = instr else { continue };
        let moving = |d: &usize| view.strides[*d] != 0 && shape[*d] > 1;
        let elements: u64 = (0..shape.len()).filter(moving).map(|d| shape[d] as u64).product();
        if let Some(dim) = (0..shape.len()).find(|&d| shape[d] > 1 && view.strides[d].abs() == 1) {
            weights[dim] += elements;
        }
    }
    let folded: u64 = weights[outer..].iter().sum();
    let best = (0..outer).max_by_key(|&d| weights[d]);
    best.filter(|&d| weights[d] > folded).unwrap_or(outer)
}

#[cfg(test)]
mod tests {
    use schedule::{Body, View};

    use super::*;
    use crate::isa::Isa;
    use crate::kernels::ThreadPool;
    use crate::memory::Floats;
    use crate::random_programs::{Buffers, Dice, close, random_shape, random_view};

    const KINDS: [ReduceKind; 4] =
        [ReduceKind::Sum, ReduceKind::Max, ReduceKind::Variance, ReduceKind::ArgMax];

    fn run(body: &Body, isa: Isa, threads: usize, buffers: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let regions = (0..buffers.len()).collect();
        let compile = Compile { threads, regions, ..Compile::default() };
        let Body::Reduce { shape, outer, program, accumulators, finish, stores } = body else {
            unreachable!()
        };
        let reduce = Reduce::new(&compile, shape, *outer, program, accumulators, (finish, stores));
        let mut copies = Buffers::new(buffers);
        let memory = copies.memory();
        let mut area = Floats::zeros(reduce.area_len());
        area.as_mut_slice().fill(f32::NAN);
        let pool = ThreadPool::new(threads);
        let runtime = Runtime {
            isa,
            launch: block::launch(),
            pool: &pool,
            memory: &memory,
            area: SharedSlice::new(area.as_mut_slice()),
        };
        // SAFETY: the buffers are as long as their views reach.
        unsafe { reduce.run(&runtime) };
        copies.0.iter().map(|floats| floats.as_slice().to_vec()).collect()
    }

    fn check(seed: u64, body: &Body, buffers: &[Vec<f32>], outputs: usize) {
        let mut expected = reference::Memory::of(buffers);
        expected.run(body);
        let mut single: Option<Vec<Vec<f32>>> = None;
        for &isa in Isa::available() {
            for threads in [1, 3] {
                let results = run(body, isa, threads, buffers);
                for buffer in buffers.len() - outputs..buffers.len() {
                    // A sum that cancels, and values that nearly tie, are only as good as their inputs.
                    let expected = expected.buffer(buffer);
                    let scale =
                        expected.iter().fold(0f32, |m, v| if v.is_finite() { m.max(v.abs()) } else { m });
                    for (i, (&result, &expected)) in results[buffer].iter().zip(expected).enumerate() {
                        let near = close(result, expected, 1e-4) || (result - expected).abs() <= 2e-5 * scale;
                        assert!(
                            near,
                            "seed {seed}, {isa:?}, {threads} threads, buffer {buffer} element {i}: \
                             {result}, not {expected}\n{body:#?}"
                        );
                    }
                }
                match &single {
                    Some(single) if threads > 1 => {
                        let bits = |b: &Vec<Vec<f32>>| -> Vec<u32> {
                            b.iter().flatten().map(|v| v.to_bits()).collect()
                        };
                        assert_eq!(bits(single), bits(&results), "seed {seed}: threads change the result");
                    }
                    _ => single = Some(results),
                }
            }
        }
    }

    /// Loads and arithmetic only: functions with steep slopes would turn the last bit of an input into
    /// a difference that no tolerance fits.
    fn mild_program(dice: &mut Dice, shape: &[usize], buffers: &mut Vec<Vec<f32>>) -> Program {
        use autograd::tensor::BinaryOp;
        let mut instrs = Vec::new();
        for _ in 0..1 + dice.below(3) {
            let (view, len) = random_view(dice, shape);
            buffers.push(dice.values(len));
            instrs.push(Instr::Load { buffer: buffers.len() - 1, view });
        }
        for _ in 0..dice.below(4) {
            let (a, b) = (dice.below(instrs.len()), dice.below(instrs.len()));
            instrs.push(Instr::Binary(
                dice.pick(&[BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Max]),
                a,
                b,
            ));
        }
        Program { instrs }
    }

    fn random_case(seed: u64) -> (Body, Vec<Vec<f32>>, usize) {
        let mut dice = Dice::new(seed);
        let shape = random_shape(&mut dice, 4, 40_000);
        let outer = dice.below(shape.len() + 1);
        let mut buffers = Vec::new();
        let program = mild_program(&mut dice, &shape, &mut buffers);
        let accumulators: Vec<(ReduceKind, usize)> =
            (0..1 + dice.below(3)).map(|_| (dice.pick(&KINDS), dice.below(program.instrs.len()))).collect();
        let results = &shape[..outer];
        let len: usize = results.iter().product();
        let mut finish = Program::default();
        let mut stores = Vec::new();
        for number in 0..accumulators.len() {
            finish.instrs.push(Instr::Accumulator(number));
            finish.instrs.push(Instr::Unary(autograd::tensor::UnaryOp::Neg, 2 * number));
            buffers.push(vec![-7.0; len]);
            stores.push(Store {
                buffer: buffers.len() - 1,
                view: View::dense(results),
                value: 2 * number + dice.below(2),
            });
        }
        let outputs = stores.len();
        (Body::Reduce { shape, outer, program, accumulators, finish, stores }, buffers, outputs)
    }

    #[test]
    fn random_reductions_agree_with_plain_evaluation() {
        for seed in 0..300 {
            let (body, buffers, outputs) = random_case(seed);
            check(seed, &body, &buffers, outputs);
        }
    }

    /// One dense load, folded with a NaN in it, in every arrangement of rows and columns.
    #[test]
    fn every_arrangement() {
        let mut seed = 0;
        for folded in [vec![1], vec![3], vec![100], vec![600], vec![3000], vec![7, 90]] {
            for outer in [vec![], vec![1], vec![10], vec![64], vec![600], vec![509], vec![2, 64]] {
                for first in [true, false] {
                    for nan in [true, false] {
                        seed += 1;
                        let shape = [outer.clone(), folded.clone()].concat();
                        let mut view = View::dense(&shape);
                        if !first {
                            // The outer dims are the inner ones in memory.
                            let moved = View::dense(&[folded.clone(), outer.clone()].concat());
                            view.strides = moved.strides.clone();
                            view.strides.rotate_left(folded.len());
                        }
                        let len = shape.iter().product();
                        let mut values = Dice::new(seed).values(len);
                        if nan {
                            values[len / 2] = f32::NAN;
                        }
                        let finish = Program { instrs: (0..4).map(Instr::Accumulator).collect() };
                        let results: usize = outer.iter().product();
                        let store =
                            |value: usize| Store { buffer: value + 1, view: View::dense(&outer), value };
                        let body = Body::Reduce {
                            shape,
                            outer: outer.len(),
                            program: Program { instrs: vec![Instr::Load { buffer: 0, view }] },
                            accumulators: KINDS.iter().map(|&kind| (kind, 0)).collect(),
                            finish,
                            stores: (0..4).map(store).collect(),
                        };
                        let mut buffers = vec![values];
                        buffers.extend((0..4).map(|_| vec![0.0; results]));
                        check(seed, &body, &buffers, 4);
                    }
                }
            }
        }
    }
}
