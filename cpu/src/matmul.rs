//! Batched matrix products through the `gemm` crate.
//!
//! An operand that is a plain load is read where it lies, whatever its strides. A large product is
//! cut into pieces, whose number depends on the shape alone.

use schedule::{Epilogue, Instr, Operand};

use crate::launch::{Compile, Launch, Runtime};
use crate::memory::SharedSlice;
use crate::operand::Whole;

/// Multiply-adds that are worth a task of their own.
const TASK: usize = 1 << 20;
/// Most pieces of one product.
const PIECES: usize = 16;
/// Pieces are whole multiples of this many rows or columns.
const UNIT: usize = 48;

/// Values of k that are added up in registers before they are added to the result: a longer running sum is rounded
/// more than PyTorch's.
const RUNNING: usize = 192;

/// A matrix product.
pub struct MatMul {
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    lhs: Matrix,
    rhs: Matrix,
    result: Whole,
    /// Rows and columns of a piece.
    piece: [usize; 2],
}

/// Where an operand's elements are: `base + offsets[batch] + row * rows + column * columns`.
struct Matrix {
    base: Whole,
    offsets: Vec<i64>,
    rows: i64,
    columns: i64,
}

impl MatMul {
    /// `batch` products of `[m, k]` and `[k, n]`.
    pub fn new(
        compile: &Compile,
        [batch, m, n, k]: [usize; 4],
        lhs: &Operand,
        rhs: &Operand,
        epilogue: &Epilogue,
    ) -> MatMul {
        let piece = if m * n * k < 2 * TASK {
            [m, n]
        } else {
            let pieces = (m * n * k / TASK).min(PIECES);
            let cut = |size: usize| size.div_ceil(pieces).next_multiple_of(UNIT);
            if m >= n { [cut(m), n] } else { [m, cut(n)] }
        };
        let (lhs, rhs) = (Matrix::new(compile, lhs), Matrix::new(compile, rhs));
        MatMul { batch, m, n, k, lhs, rhs, result: Whole::result(compile, epilogue), piece }
    }

    unsafe fn multiply(&self, [lhs, rhs, out]: [SharedSlice; 3], batch: usize, piece: [usize; 2]) {
        let (row, column) = (piece[0] * self.piece[0], piece[1] * self.piece[1]);
        let (rows, columns) = (self.piece[0].min(self.m - row), self.piece[1].min(self.n - column));
        let (l, r) = (&self.lhs, &self.rhs);
        let lhs = lhs.pointer(0).wrapping_offset((l.offsets[batch] + row as i64 * l.rows) as isize);
        let rhs = rhs.pointer(0).wrapping_offset((r.offsets[batch] + column as i64 * r.columns) as isize);
        let out = out.pointer((batch * self.m + row) * self.n + column);
        if self.k == 0 {
            for row in 0..rows {
                // SAFETY: inside this piece of the result.
                unsafe { std::slice::from_raw_parts_mut(out.add(row * self.n), columns).fill(0.0) };
            }
            return;
        }
        for first in (0..self.k).step_by(RUNNING) {
            let step = |distance: i64| (first as i64 * distance) as isize;
            // SAFETY: the strides stay inside the operands (checked when the schedule was compiled).
            unsafe {
                gemm::gemm(
                    rows,
                    columns,
                    RUNNING.min(self.k - first),
                    out,
                    1,
                    self.n as isize,
                    first > 0,
                    lhs.wrapping_offset(step(l.columns)),
                    l.columns as isize,
                    l.rows as isize,
                    rhs.wrapping_offset(step(r.rows)),
                    r.columns as isize,
                    r.rows as isize,
                    1.0f32,
                    1.0f32,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            }
        }
    }
}

impl Launch for MatMul {
    fn area_len(&self) -> usize {
        self.lhs.base.area_len() + self.rhs.base.area_len() + self.result.area_len()
    }

    unsafe fn run(&self, runtime: &Runtime) {
        let [lhs_len, rhs_len] = [&self.lhs, &self.rhs].map(|matrix| matrix.base.area_len());
        let lhs = self.lhs.base.place(runtime, 0);
        let rhs = self.rhs.base.place(runtime, lhs_len);
        let out = self.result.place(runtime, lhs_len + rhs_len);
        // SAFETY: the caller's promise.
        unsafe {
            self.lhs.base.evaluate(runtime, lhs);
            self.rhs.base.evaluate(runtime, rhs);
        }
        let [rows, columns] = [self.m.div_ceil(self.piece[0].max(1)), self.n.div_ceil(self.piece[1].max(1))];
        let run = |task: usize, _: usize| {
            let (batch, piece) = (task / (rows * columns), task % (rows * columns));
            // SAFETY: pieces are disjoint.
            unsafe { self.multiply([lhs, rhs, out], batch, [piece / columns, piece % columns]) };
        };
        let tasks = self.batch * rows * columns;
        if tasks * self.piece[0] * self.piece[1] * self.k < 2 * TASK {
            (0..tasks).for_each(|task| run(task, 0));
        } else {
            runtime.pool.run(tasks, &run);
        }
        // SAFETY: the caller's promise; the product is finished.
        unsafe { self.result.evaluate(runtime, out) };
    }
}

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
                let base = Whole::Buffer(*buffer);
                return Matrix { base, offsets, rows: strides[0], columns: strides[1] };
            }
        }
        let batch: usize = leading.iter().product();
        let size = (matrix[0] * matrix[1]) as i64;
        let offsets = (0..batch as i64).map(|i| i * size).collect();
        Matrix { base: Whole::operand(compile, operand), offsets, rows: matrix[1] as i64, columns: 1 }
    }
}
