//! Batched matrix products through the `gemm` crate.
//!
//! An operand that is a plain load is read where it lies, whatever its strides. A large product is
//! cut into pieces, whose number depends on the shape alone.

use schedule::{Body, BufferId, Instr, Operand};

use crate::kernel::{Compile, Runtime};
use crate::map::Map;
use crate::operand;

/// Multiply-adds that are worth a task of their own.
const TASK: usize = 1 << 20;
/// Most pieces of one product.
const PIECES: usize = 16;
/// Pieces are whole multiples of this many rows or columns.
const UNIT: usize = 48;

/// A matrix product.
pub struct MatMul {
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    lhs: Matrix,
    rhs: Matrix,
    /// The buffer that results go to directly.
    target: Option<BufferId>,
    /// What is done with results in scratch memory.
    epilogue: Option<Map>,
    /// Rows and columns of a piece.
    piece: [usize; 2],
}

/// Where an operand's elements are: `base + offsets[batch] + row * rows + column * columns`.
struct Matrix {
    source: Source,
    offsets: Vec<i64>,
    rows: i64,
    columns: i64,
}

enum Source {
    Buffer(BufferId),
    /// Evaluated into scratch memory, this many floats long.
    Scratch(Map, usize),
}

impl MatMul {
    /// Compiles a [`Body::MatMul`]; nothing for another body.
    pub fn new(compile: &Compile, body: &Body) -> Option<MatMul> {
        let &Body::MatMul { batch, m, n, k, ref lhs, ref rhs, ref epilogue } = body else { return None };
        let target = operand::only_store(epilogue);
        let piece = if m * n * k < 2 * TASK {
            [m, n]
        } else {
            let pieces = (m * n * k / TASK).min(PIECES);
            let cut = |size: usize| size.div_ceil(pieces).next_multiple_of(UNIT);
            if m >= n { [cut(m), n] } else { [m, cut(n)] }
        };
        Some(MatMul {
            batch,
            m,
            n,
            k,
            lhs: Matrix::new(compile, lhs),
            rhs: Matrix::new(compile, rhs),
            target,
            epilogue: target.is_none().then(|| operand::epilogue_map(compile, epilogue)),
            piece,
        })
    }

    /// Floats of scratch memory.
    pub fn area_len(&self) -> usize {
        let result = if self.target.is_some() { 0 } else { self.batch * self.m * self.n };
        self.lhs.area_len() + self.rhs.area_len() + result.next_multiple_of(16)
    }

    /// # Safety
    /// The schedule's buffers must be valid, and nothing else may use those that this kernel writes.
    pub unsafe fn run(&self, runtime: &Runtime) {
        let area = runtime.area.0;
        let after_lhs = area.wrapping_add(self.lhs.area_len());
        let scratch = after_lhs.wrapping_add(self.rhs.area_len());
        let out = self.target.map_or(scratch, |buffer| runtime.memory.base(buffer));
        // SAFETY: the area is as long as was asked for.
        let (lhs, rhs) = unsafe { (self.lhs.fetch(runtime, area), self.rhs.fetch(runtime, after_lhs)) };
        let operands = Operands { lhs, rhs, out };
        let [rows, columns] = [self.m.div_ceil(self.piece[0].max(1)), self.n.div_ceil(self.piece[1].max(1))];
        let run = |task: usize, _: usize| {
            let (batch, piece) = (task / (rows * columns), task % (rows * columns));
            // SAFETY: pieces are disjoint.
            unsafe { self.multiply(operands, batch, [piece / columns, piece % columns]) };
        };
        let tasks = self.batch * rows * columns;
        if tasks * self.piece[0] * self.piece[1] * self.k < 2 * TASK {
            (0..tasks).for_each(|task| run(task, 0));
        } else {
            runtime.pool.run(tasks, &run);
        }
        if let Some(epilogue) = &self.epilogue {
            // SAFETY: the caller's promise; the product is finished.
            unsafe { epilogue.run(runtime, &[out]) };
        }
    }

    unsafe fn multiply(&self, operands: Operands, batch: usize, piece: [usize; 2]) {
        let (row, column) = (piece[0] * self.piece[0], piece[1] * self.piece[1]);
        let (rows, columns) = (self.piece[0].min(self.m - row), self.piece[1].min(self.n - column));
        let (l, r) = (&self.lhs, &self.rhs);
        let lhs = operands.lhs.wrapping_offset((l.offsets[batch] + row as i64 * l.rows) as isize);
        let rhs = operands.rhs.wrapping_offset((r.offsets[batch] + column as i64 * r.columns) as isize);
        let out = operands.out.wrapping_add((batch * self.m + row) * self.n + column);
        if self.k == 0 {
            for row in 0..rows {
                // SAFETY: inside this piece of the result.
                unsafe { std::slice::from_raw_parts_mut(out.add(row * self.n), columns).fill(0.0) };
            }
            return;
        }
        // SAFETY: the strides stay inside the operands (checked when the schedule was compiled).
        unsafe {
            gemm::gemm(
                rows,
                columns,
                self.k,
                out,
                1,
                self.n as isize,
                false,
                lhs,
                l.columns as isize,
                l.rows as isize,
                rhs,
                r.columns as isize,
                r.rows as isize,
                0.0f32,
                1.0f32,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}

#[derive(Clone, Copy)]
struct Operands {
    lhs: *const f32,
    rhs: *const f32,
    out: *mut f32,
}

// SAFETY: only addresses.
unsafe impl Sync for Operands {}

impl Matrix {
    fn new(compile: &Compile, operand: &Operand) -> Matrix {
        let shape = &operand.shape;
        let (leading, matrix) = shape.split_at(shape.len() - 2);
        if let Instr::Load { buffer, view } = &operand.program.instrs[operand.value] {
            let strides = &view.strides[leading.len()..];
            // Broadcast matrices are rare and not what the kernels are tuned for.
            let spread = |d: usize| strides[d] != 0 || matrix[d] == 1;
            if view.bounds.is_empty() && spread(0) && spread(1) {
                let mut offsets = vec![view.offset];
                for (&size, &stride) in leading.iter().zip(&view.strides) {
                    offsets = offsets
                        .iter()
                        .flat_map(|offset| (0..size as i64).map(move |i| offset + i * stride))
                        .collect();
                }
                let source = Source::Buffer(*buffer);
                return Matrix { source, offsets, rows: strides[0], columns: strides[1] };
            }
        }
        let batch: usize = leading.iter().product();
        let size = (matrix[0] * matrix[1]) as i64;
        let source = Source::Scratch(operand::materialise(compile, operand), shape.iter().product());
        let offsets = (0..batch as i64).map(|i| i * size).collect();
        Matrix { source, offsets, rows: matrix[1] as i64, columns: 1 }
    }

    fn area_len(&self) -> usize {
        match self.source {
            Source::Buffer(_) => 0,
            Source::Scratch(_, len) => len.next_multiple_of(16),
        }
    }

    /// The address of the elements; evaluates them first if they are not in memory yet.
    unsafe fn fetch(&self, runtime: &Runtime, area: *mut f32) -> *const f32 {
        match &self.source {
            Source::Buffer(buffer) => runtime.memory.base(*buffer),
            Source::Scratch(map, _) => {
                // SAFETY: the caller gives `area_len` floats.
                unsafe { map.run(runtime, &[area]) };
                area
            }
        }
    }
}
