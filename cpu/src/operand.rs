//! The operands and results of the heavy kernels: programs that are evaluated as values go in and
//! come out, or nothing but a load or a store.

use std::ops::Range;

use schedule::{BufferId, Epilogue, Instr, Operand, Program, Reg, Store, View};

use crate::block::{self, Block};
use crate::kernels::prefetch;
use crate::launch::{Compile, Runtime};
use crate::map::Map;
use crate::memory::{SharedSlice, lines};
use crate::program::{Array, BlockProgram, Output, Spec};

/// An operand or a result that lies in memory as a whole, and the kernel that makes the operand or uses the
/// result, if there is one.
pub enum Whole {
    Buffer(BufferId),
    /// In scratch memory, so many floats; the kernel's external number 0.
    Scratch(Map, usize),
}

impl Whole {
    /// An operand: in its buffer if it is nothing but a dense load.
    pub fn operand(compile: &Compile, operand: &Operand) -> Whole {
        if let Some(buffer) = operand.as_buffer() {
            return Whole::Buffer(buffer);
        }
        let outputs = [dense(&operand.shape, operand.value)];
        let map = Map::with_outputs(compile, &operand.shape, &operand.program, &outputs);
        Whole::Scratch(map, operand.shape.iter().product())
    }

    /// A result: in its buffer if the epilogue does nothing but store it there.
    pub fn result(compile: &Compile, epilogue: &Epilogue) -> Whole {
        let alone = epilogue.stores.len() == 1 && epilogue.fold.is_none();
        match plain_store(epilogue).filter(|_| alone) {
            Some((_, buffer)) => Whole::Buffer(buffer),
            None => {
                let map = Map::new(compile, &epilogue.shape, &epilogue.program, &epilogue.stores);
                Whole::Scratch(map, epilogue.shape.iter().product())
            }
        }
    }

    /// Floats of scratch memory.
    pub fn area_len(&self) -> usize {
        match self {
            Whole::Buffer(_) => 0,
            Whole::Scratch(_, len) => lines(*len),
        }
    }

    /// Where it lies, if its scratch memory begins at `start` of the area.
    pub fn place<'a>(&self, runtime: &Runtime<'a>, start: usize) -> SharedSlice<'a> {
        match self {
            Whole::Buffer(buffer) => runtime.memory.shared(*buffer),
            Whole::Scratch(_, len) => runtime.area.part(start..start + len),
        }
    }

    /// Makes an operand before it is used, or uses a result once it is made.
    ///
    /// # Safety
    /// As for [`Map::evaluate`]; `place` is that of [`Whole::place`].
    pub unsafe fn evaluate(&self, runtime: &Runtime, place: SharedSlice) {
        if let Whole::Scratch(map, _) = self {
            // SAFETY: the caller's promise.
            unsafe { map.evaluate(runtime, &[place.pointer(0)]) };
        }
    }
}

/// An operand that is evaluated a few rows at a time.
pub fn in_rows(compile: &Compile, operand: &Operand, row_len: usize) -> BlockProgram {
    BlockProgram::new(&Spec {
        outputs: &[dense(&operand.shape, operand.value)],
        granularity: row_len,
        ..Spec::new(compile, &operand.shape, &operand.program)
    })
}

/// Evaluates a program of rows from element `start` on; `values` are those of its external number 0 there.
///
/// # Safety
/// As for [`block::run`].
pub unsafe fn evaluate(
    runtime: &Runtime,
    program: &BlockProgram,
    start: usize,
    values: &mut [f32],
    visit: impl FnMut(&Block),
) {
    let inner = program.tiling.inner;
    let rows = start / inner..(start + values.len()) / inner;
    let external = [values.as_mut_ptr().wrapping_sub(start)];
    // SAFETY: the caller's promise; `values` are this call's alone.
    unsafe { block::run(runtime, program, rows, &external, visit) };
}

/// The buffers that a program over `shape` reads element by element in order, and stores go to in the same
/// way: what to fetch ahead of time.
pub fn streams(shape: &[usize], program: &Program, stores: &[Store]) -> Vec<BufferId> {
    let mut buffers: Vec<BufferId> = stores
        .iter()
        .filter(|store| store.view.is_dense(shape))
        .map(|store| store.buffer)
        .chain(program.instrs.iter().filter_map(|instr| match instr {
            Instr::Load { buffer, view } if view.is_dense(shape) => Some(*buffer),
            _ => None,
        }))
        .collect();
    buffers.sort_unstable();
    buffers.dedup();
    buffers
}

/// A hint that elements `range` of these buffers will be needed soon, in `parts` calls.
pub fn ahead(runtime: &Runtime, buffers: &[BufferId], range: Range<usize>, part: usize, parts: usize) {
    for &buffer in buffers {
        let end = range.end.min(runtime.memory.len(buffer));
        let start = runtime.memory.base(buffer).wrapping_add(range.start);
        prefetch(start, end.saturating_sub(range.start), part, parts);
    }
}

fn dense(shape: &[usize], value: Reg) -> Output {
    Output { array: Array::External(0), view: View::dense(shape), value }
}

/// The buffer that an epilogue stores the bare result to, densely, if it does.
pub fn plain_store(epilogue: &Epilogue) -> Option<(usize, BufferId)> {
    epilogue.stores.iter().enumerate().find_map(|(number, store)| {
        let bare = epilogue.program.instrs[store.value] == Instr::Accumulator(0);
        (bare && store.view.is_dense(&epilogue.shape)).then_some((number, store.buffer))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_walked_in_order_is_fetched_ahead() {
        let shape = [2, 3, 4];
        let load = |buffer, strides: &[i64]| Instr::Load {
            buffer,
            view: View { offset: 0, strides: strides.to_vec(), bounds: vec![] },
        };
        // In order, twice; a vector for every pixel; transposed.
        let instrs =
            vec![load(7, &[12, 4, 1]), load(7, &[12, 4, 1]), load(8, &[0, 0, 1]), load(9, &[1, 8, 2])];
        let program = Program { instrs };
        let store = |buffer, view| Store { buffer, view, value: 0 };
        let transposed = View { offset: 0, strides: vec![1, 8, 2], bounds: vec![] };
        let stores = [store(3, View::dense(&shape)), store(4, transposed)];
        assert_eq!(streams(&shape, &program, &stores), [3, 7]);
    }
}
