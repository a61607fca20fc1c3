//! Runs a compiled program: block after block, each instruction as one vector loop.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use autograd::random;
use autograd::tensor::{BinaryOp, UnaryOp};

use crate::isa::multiversion;
use crate::launch::Runtime;
use crate::math;
use crate::memory::Memory;
use crate::program::{Array, BlockInstr, BlockProgram, Fused, GatherKind, Slot, Walk};
use crate::space::BLOCK;
use crate::walk::{Extent, gather_rows, load_row, scatter, walk_rows};

/// Floats from one register to the next. Not a power of two, so that registers do not compete for
/// the same cache sets.
const REGISTER: usize = BLOCK + 16;

/// A thread's registers and tables for one program. They grow when a program is first run, and stay.
#[derive(Default)]
struct Scratch {
    /// The launch and the program (by address) that they were last used for.
    user: (u64, usize),
    registers: Vec<[f32; REGISTER]>,
    addresses: Vec<*mut f32>,
    results: Vec<*const f32>,
    index: Vec<usize>,
}

/// Programs that take turns on a thread within a launch: two operands and an epilogue.
const TURNS: usize = 3;

thread_local! {
    static SCRATCH: RefCell<([Scratch; TURNS], usize)> = RefCell::default();
}

/// Calls `f` with this thread's scratch memory for a program; with true if the program was the last to
/// use it, in the same launch.
fn with_scratch(user: (u64, usize), f: impl FnOnce(&mut Scratch, bool)) {
    SCRATCH.with_borrow_mut(|(turns, next)| {
        if let Some(scratch) = turns.iter_mut().find(|scratch| scratch.user == user) {
            return f(scratch, true);
        }
        *next = (*next + 1) % TURNS;
        turns[*next].user = user;
        f(&mut turns[*next], false);
    });
}

/// What a visitor sees of each block.
pub struct Block<'a> {
    /// Elements.
    pub len: usize,
    results: &'a [*const f32],
}

impl Block<'_> {
    /// The values of result number `number`.
    pub fn result(&self, number: usize) -> &[f32] {
        // SAFETY: each address was set by `run` to at least `len` values, that nothing writes to
        // during the visit.
        unsafe { std::slice::from_raw_parts(self.results[number], self.len) }
    }
}

/// Numbers launches: see [`run`].
static LAUNCHES: AtomicU64 = AtomicU64::new(1);

/// The number of a new launch.
pub fn launch() -> u64 {
    LAUNCHES.fetch_add(1, Ordering::Relaxed)
}

/// Evaluates `program` over `rows` (of its tiling), stores its outputs, and shows `visit` each block.
///
/// `externals` are the addresses of element 0 of each [`Array::External`]; they may lie outside of
/// what is allocated, as long as the elements of `rows` do not. Runs of the same launch share what
/// does not vary: buffers that the program reads but does not overwrite must stay the same.
///
/// # Safety
/// Buffers and externals must be valid for every element that the program's views reach in `rows`, and
/// nothing else may write to what is read or touch what is written during the run.
pub unsafe fn run(
    runtime: &Runtime,
    program: &BlockProgram,
    rows: Range<usize>,
    externals: &[*mut f32],
    mut visit: impl FnMut(&Block),
) {
    let (isa, memory) = (runtime.isa, runtime.memory);
    with_scratch((runtime.launch, std::ptr::from_ref(program).addr()), |scratch, warm| {
        let Scratch { registers, addresses, results, index, .. } = scratch;
        let warm = warm && program.once_a_launch;
        if !warm {
            if registers.len() < program.registers {
                registers.resize(program.registers, [0.0; REGISTER]);
            }
            addresses.clear();
            addresses.extend(program.slots.iter().map(|slot| match slot {
                Some(register) => registers[*register].as_mut_ptr(),
                None => std::ptr::null_mut(),
            }));
        }
        let tiling = &program.tiling;
        let length = tiling.sizes[tiling.split];
        index.clear();
        index.resize(tiling.split + 1, 0);
        let full = Extent { rows: tiling.chunk, len: tiling.block_len() };
        let mut row = rows.start;
        let mut first = true;
        while row < rows.end {
            let position = row % length;
            if first || position == 0 {
                let mut rest = row / length;
                for axis in (0..tiling.split).rev() {
                    index[axis] = rest % tiling.sizes[axis];
                    rest /= tiling.sizes[axis];
                }
            }
            index[tiling.split] = position;
            let count = tiling.chunk.min(length - position).min(rows.end - row);
            let extent = Extent { rows: count, len: count * tiling.inner };
            for pointer in &program.pointers {
                let base = address(pointer.array, memory, externals);
                addresses[pointer.slot] = base.wrapping_offset(pointer.element.at(index) as isize);
            }
            let context = Context { addresses, walks: &program.walks, memory, externals, index };
            if first && !warm {
                run_steps(isa, &program.once, &context, full);
            }
            if first || position == 0 {
                run_steps(isa, &program.per_run, &context, full);
            }
            run_steps(isa, &program.per_block, &context, extent);
            for store in &program.stores {
                let walk = &program.walks[store.walk];
                let base = address(store.array, memory, externals);
                // SAFETY: the caller's promise; values are registers or buffers of at least `len`.
                unsafe {
                    let values = std::slice::from_raw_parts(addresses[store.value], extent.len);
                    if store.contiguous {
                        let start = walk.view.at(index) as isize;
                        std::ptr::copy(values.as_ptr(), base.wrapping_offset(start), extent.len);
                    } else {
                        scatter(walk, index, extent, base, values);
                    }
                }
            }
            results.clear();
            results.extend(program.results.iter().map(|&slot| addresses[slot].cast_const()));
            visit(&Block { len: extent.len, results });
            first = false;
            row += count;
        }
    });
}

/// What instructions need besides themselves.
struct Context<'a> {
    addresses: &'a [*mut f32],
    walks: &'a [Walk],
    memory: &'a Memory,
    externals: &'a [*mut f32],
    index: &'a [usize],
}

impl Context<'_> {
    #[inline(always)]
    fn values(&self, slot: Slot, len: usize) -> &[f32] {
        // SAFETY: the compiler of programs gives each operand a register or buffer of at least `len`
        // values that no step of this block writes while it is read.
        unsafe { std::slice::from_raw_parts(self.addresses[slot], len) }
    }

    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    fn out(&self, slot: Slot, len: usize) -> &mut [f32] {
        // SAFETY: as above, and a result's memory is never one of its step's operands.
        unsafe { std::slice::from_raw_parts_mut(self.addresses[slot], len) }
    }
}

#[inline(always)]
fn address(array: Array, memory: &Memory, externals: &[*mut f32]) -> *mut f32 {
    match array {
        Array::Buffer(buffer) => memory.base(buffer),
        Array::External(number) => externals[number],
    }
}

multiversion!(fn run_steps = run_steps_generic(steps: &[BlockInstr], context: &Context<'_>, extent: Extent));

#[inline(always)]
fn run_steps_generic(steps: &[BlockInstr], context: &Context, extent: Extent) {
    let len = extent.len;
    for step in steps {
        match *step {
            BlockInstr::Fill { value, out } => context.out(out, len).fill(value),
            BlockInstr::Unary { op, a, out } => unary(op, context.values(a, len), context.out(out, len)),
            BlockInstr::Binary { op, a, b, out } => {
                binary(op, context.values(a, len), context.values(b, len), context.out(out, len));
            }
            BlockInstr::Fused(ref fused) => {
                let (a, b) = (context.values(fused.a, len), context.values(fused.b, len));
                fused_pair(fused, a, b, context.values(fused.c, len), context.out(fused.out, len));
            }
            BlockInstr::Select { condition, yes, no, out } => {
                let condition = context.values(condition, len);
                let (yes, no) = (context.values(yes, len), context.values(no, len));
                let pick = |[condition, yes, no]: [f32; 3]| choose(condition != 0.0, yes, no);
                each([condition, yes, no], context.out(out, len), pick);
            }
            BlockInstr::Random { stream, index, seed, step, out } => {
                let (index, out) = (context.values(index, len), context.out(out, len));
                let (seed, step) = (context.values(seed, len), context.values(step, len));
                each([index, seed, step], out, |[index, seed, step]| {
                    random::uniform(seed as i32 as u32, step as i32 as u32, stream, index.to_bits())
                });
            }
            BlockInstr::Gather { walk, kind, out } => {
                gather(&context.walks[walk], kind, context, extent, context.out(out, len));
            }
        }
    }
}

/// `out[i] = f(inputs[0][i], ..)`: the shape of loop that the compiler vectorises best.
#[inline(always)]
fn each<const N: usize>(inputs: [&[f32]; N], out: &mut [f32], f: impl Fn([f32; N]) -> f32) {
    assert!(inputs.iter().all(|input| input.len() == out.len()));
    let inputs = inputs.map(<[f32]>::as_ptr);
    for (i, out) in out.iter_mut().enumerate() {
        // SAFETY: all lengths are the same. (Were the compiler to check that, it would have to leave
        // the last vectors to a loop over single elements.)
        *out = f(std::array::from_fn(|n| unsafe { *inputs[n].add(i) }));
    }
}

#[inline(always)]
fn unary(op: UnaryOp, a: &[f32], out: &mut [f32]) {
    match op {
        UnaryOp::Neg => each([a], out, |[a]| -a),
        UnaryOp::Exp => each([a], out, |[a]| math::exp(a)),
        UnaryOp::Log => each([a], out, |[a]| math::ln(a)),
        UnaryOp::Sqrt => each([a], out, |[a]| a.sqrt()),
        UnaryOp::Abs => each([a], out, |[a]| a.abs()),
        UnaryOp::Reciprocal => each([a], out, |[a]| 1.0 / a),
        UnaryOp::Tanh => each([a], out, |[a]| math::tanh(a)),
        UnaryOp::Erf => each([a], out, |[a]| math::erf(a)),
        UnaryOp::Relu => each([a], out, |[a]| relu(a)),
        UnaryOp::Sign => each([a], out, |[a]| truth(a > 0.0) - truth(a < 0.0)),
        UnaryOp::Floor => each([a], out, |[a]| a.floor()),
    }
}

#[inline(always)]
fn binary(op: BinaryOp, a: &[f32], b: &[f32], out: &mut [f32]) {
    match op {
        BinaryOp::Add => each([a, b], out, |[a, b]| a + b),
        BinaryOp::Sub => each([a, b], out, |[a, b]| a - b),
        BinaryOp::Mul => each([a, b], out, |[a, b]| a * b),
        BinaryOp::Div => each([a, b], out, |[a, b]| a / b),
        BinaryOp::Max => each([a, b], out, |[a, b]| math::maximum(a, b)),
        BinaryOp::Min => each([a, b], out, |[a, b]| math::minimum(a, b)),
        BinaryOp::Less => each([a, b], out, |[a, b]| truth(a < b)),
        BinaryOp::LessEqual => each([a, b], out, |[a, b]| truth(a <= b)),
        BinaryOp::Equal => each([a, b], out, |[a, b]| truth(a == b)),
    }
}

/// One loop for each of the combinations, by nested choices.
#[inline(always)]
fn fused_pair(fused: &Fused, a: &[f32], b: &[f32], c: &[f32], out: &mut [f32]) {
    macro_rules! finish {
        ($f:expr) => {
            if fused.relu {
                each([a, b, c], out, |[a, b, c]| relu($f(a, b, c)))
            } else {
                each([a, b, c], out, |[a, b, c]| $f(a, b, c))
            }
        };
    }
    macro_rules! second {
        ($first:expr) => {
            match (fused.second, fused.swapped) {
                (BinaryOp::Add, _) => finish!(|a: f32, b: f32, c: f32| $first(a, b) + c),
                (BinaryOp::Mul, _) => finish!(|a: f32, b: f32, c: f32| $first(a, b) * c),
                (_, false) => finish!(|a: f32, b: f32, c: f32| $first(a, b) - c),
                (_, true) => finish!(|a: f32, b: f32, c: f32| c - $first(a, b)),
            }
        };
    }
    match fused.first {
        BinaryOp::Add => second!(|a: f32, b: f32| a + b),
        BinaryOp::Mul => second!(|a: f32, b: f32| a * b),
        _ => second!(|a: f32, b: f32| a - b),
    }
}

#[inline(always)]
fn relu(a: f32) -> f32 {
    if a < 0.0 { 0.0 } else { a }
}

#[inline(always)]
fn truth(holds: bool) -> f32 {
    if holds { 1.0 } else { 0.0 }
}

/// `yes` or `no`, in bit arithmetic: the compiler would make a choice between two addresses of the
/// choice between two values, and gather from those.
#[inline(always)]
fn choose(condition: bool, yes: f32, no: f32) -> f32 {
    let mask = (condition as u32).wrapping_neg();
    f32::from_bits((yes.to_bits() & mask) | (no.to_bits() & !mask))
}

/// Fills a register by walking a view row by row.
#[inline(always)]
fn gather(walk: &Walk, kind: GatherKind, context: &Context, extent: Extent, out: &mut [f32]) {
    let strides = &walk.view.strides;
    let stride = strides[strides.len() - 1];
    if let (GatherKind::Load(array), true) = (kind, walk.view.bounds.is_empty()) {
        let base = address(array, context.memory, context.externals);
        // SAFETY: the views of a schedule stay inside their buffers (checked when it was compiled).
        return unsafe { gather_rows(walk, context.index, extent, base, stride, out) };
    }
    let base = match kind {
        GatherKind::Load(array) => address(array, context.memory, context.externals),
        GatherKind::Index | GatherKind::IndexBits | GatherKind::InBounds => std::ptr::null_mut(),
    };
    let room = match kind {
        GatherKind::Load(Array::Buffer(buffer)) => 0..context.memory.len(buffer) as i64,
        _ => i64::MIN..i64::MAX,
    };
    walk_rows(walk, context.index, extent, |start, valid, positions| {
        let out = &mut out[positions];
        match kind {
            GatherKind::Load(_) => {
                let (before, rest) = out.split_at_mut(valid.start);
                let (inside, after) = rest.split_at_mut(valid.len());
                before.fill(0.0);
                after.fill(0.0);
                let first = start + valid.start as i64 * stride;
                let last = first + (inside.len() as i64 - 1) * stride;
                if !(room.contains(&first) && room.contains(&last)) {
                    // Only a schedule that is wrong comes here (or an empty row).
                    return inside.fill(0.0);
                }
                // SAFETY: inside the buffer, as just tested.
                unsafe { load_row(base.wrapping_offset(first as isize), stride, inside) }
            }
            GatherKind::Index => {
                for (i, out) in out.iter_mut().enumerate() {
                    *out = (start + i as i64 * stride) as f32;
                }
            }
            GatherKind::IndexBits => {
                for (i, out) in out.iter_mut().enumerate() {
                    *out = f32::from_bits((start + i as i64 * stride) as u32);
                }
            }
            GatherKind::InBounds => {
                out.fill(0.0);
                out[valid].fill(1.0);
            }
        }
    });
}
