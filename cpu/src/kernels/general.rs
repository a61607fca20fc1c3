//! Any convolution as matrix products, for the shapes that the fast kernels leave to this one.
//!
//! A tap of the window meets a row of pixels in a product of two matrices that lie in memory as they are:
//! neighbouring pixels by channels, and the tap's weights. The `gemm` crate computes it.

use std::ops::Range;

use super::plan::Pass;
use super::shape::ConvShape;
use super::stream::{fetch, lines};
use super::{Pool, SharedSlice, Sink, Source};

/// Result floats of one block: small enough to stay in the second-level cache.
const BLOCK: usize = 32 * 1024;
/// Most partial sums of a weight gradient, and the floats they may take together.
const CHUNKS: usize = 16;
const CHUNK_FLOATS: usize = 1 << 20;

/// A pass from one set of images to another, seen from the result.
struct View {
    /// Rows, columns and channels per group of the operand and the result.
    from: [usize; 3],
    to: [usize; 3],
    adjoint: bool,
    shape: ConvShape,
}

/// Pixels of a row that a tap meets, which are evenly spaced.
struct Hits {
    count: usize,
    /// The first in the result, and what it reads of the operand.
    at: usize,
    from: usize,
    /// From one to the next, in the result and in the operand.
    steps: [usize; 2],
}

impl View {
    fn new(shape: &ConvShape, pass: Pass) -> View {
        let x = [shape.h, shape.w, shape.cin_per_group()];
        let y = [shape.oh(), shape.ow(), shape.cout_per_group()];
        let adjoint = pass == Pass::InputGrad;
        let (from, to) = if adjoint { (y, x) } else { (x, y) };
        View { from, to, adjoint, shape: *shape }
    }

    /// The operand's row (axis 0) or column (axis 1) that tap `k` of result position `at` reads,
    /// or nothing where that is padding.
    fn tap(&self, axis: usize, at: usize, k: usize) -> Option<usize> {
        let (stride, pad) = (self.shape.stride[axis], self.shape.pad[axis]);
        let offset = k * self.shape.dilation[axis];
        let from = if self.adjoint {
            let scaled = (at + pad).checked_sub(offset)?;
            if scaled % stride != 0 {
                return None;
            }
            scaled / stride
        } else {
            (at * stride + offset).checked_sub(pad)?
        };
        (from < self.from[axis]).then_some(from)
    }

    /// Where tap column `kx` meets a row of the result; nothing if it only meets padding.
    fn hits(&self, kx: usize) -> Option<Hits> {
        let mut hits = (0..self.to[1]).filter_map(|at| Some((at, self.tap(1, at, kx)?)));
        let (at, from) = hits.next()?;
        let stride = self.shape.stride[1];
        let steps = if self.adjoint { [stride, 1] } else { [1, stride] };
        Some(Hits { count: 1 + hits.count(), at, from, steps })
    }

    /// The operand's rows that the result's rows `rows` read.
    fn rows(&self, rows: Range<usize>) -> Range<usize> {
        let mut read = rows.flat_map(|at| (0..self.shape.kh).filter_map(move |k| self.tap(0, at, k)));
        let Some(one) = read.next() else { return 0..0 };
        let (first, last) = read.fold((one, one), |(first, last), row| (first.min(row), last.max(row)));
        first..last + 1
    }
}

pub(super) fn tile_rows(shape: &ConvShape, pass: Pass) -> usize {
    let view = View::new(shape, pass);
    (BLOCK / (view.to[1] * view.to[2] * shape.groups)).clamp(1, view.to[0])
}

/// Operand floats that one block reads, at most.
fn operand_len(view: &View, tile_rows: usize) -> usize {
    let rows = (0..view.to[0])
        .step_by(tile_rows)
        .map(|first| view.rows(first..(first + tile_rows).min(view.to[0])).len())
        .max()
        .unwrap_or(0);
    lines(rows * view.from[1] * view.from[2] * view.shape.groups)
}

pub(super) fn workspace(shape: &ConvShape, pass: Pass, threads: usize) -> usize {
    let view = View::new(shape, pass);
    let rows = tile_rows(shape, pass);
    threads * (operand_len(&view, rows) + lines(rows * view.to[1] * view.to[2] * shape.groups))
}

pub(super) fn packed_len(shape: &ConvShape) -> usize {
    shape.weight_len()
}

/// To `[groups, kh, kw, from channels, to channels]`.
pub(super) fn pack(pool: &Pool, shape: &ConvShape, pass: Pass, weights: &[f32], packed: &mut [f32]) {
    let (ci, co, taps) = (shape.cin_per_group(), shape.cout_per_group(), shape.kh * shape.kw);
    let packed = SharedSlice::new(packed);
    pool.run(shape.groups * taps, &|task, _| {
        let (group, tap) = (task / taps, task % taps);
        // SAFETY: every task has its own part.
        let out = unsafe { packed.range(task * ci * co..(task + 1) * ci * co) };
        for o in 0..co {
            for i in 0..ci {
                let value = weights[((group * co + o) * ci + i) * taps + tap];
                let at = if pass == Pass::InputGrad { o * ci + i } else { i * co + o };
                out[at] = value;
            }
        }
    });
}

pub(super) fn run(
    pool: &Pool,
    shape: &ConvShape,
    pass: Pass,
    source: &dyn Source,
    packed: &[f32],
    sink: &dyn Sink,
    scratch: &mut [f32],
) {
    let view = View::new(shape, pass);
    let tile_rows = tile_rows(shape, pass);
    let blocks = view.to[0].div_ceil(tile_rows);
    let from_row = view.from[1] * view.from[2] * shape.groups;
    let to_row = view.to[1] * view.to[2] * shape.groups;
    let operand_len = operand_len(&view, tile_rows);
    let each = operand_len + lines(tile_rows * to_row);
    let target = sink.target();
    let scratch = SharedSlice::new(scratch);
    pool.run(shape.n * blocks, &|task, thread| {
        let (image, first) = (task / blocks, task % blocks * tile_rows);
        let to = first..(first + tile_rows).min(view.to[0]);
        let from = view.rows(to.clone());
        // SAFETY: every thread has its own part of the scratch memory.
        let own = unsafe { scratch.range(thread * each..(thread + 1) * each) };
        let (operand, tile) = own.split_at_mut(operand_len);
        let operand = fetch(
            source,
            [view.from[0], view.from[1], view.from[2] * shape.groups],
            image,
            from.clone(),
            operand,
        );
        let tile = match &target {
            Some(all) => {
                let start = (image * view.to[0] + to.start) * to_row;
                // SAFETY: every task has its own rows of the result.
                unsafe { all.range(start..start + to.len() * to_row) }
            }
            None => &mut tile[..to.len() * to_row],
        };
        tile.fill(0.0);
        for (at, row) in to.clone().zip(tile.chunks_exact_mut(to_row)) {
            for ky in 0..shape.kh {
                if let Some(y) = view.tap(0, at, ky) {
                    let operand = &operand[(y - from.start) * from_row..][..from_row];
                    add_row(&view, ky, operand, packed, row);
                }
            }
        }
        sink.finish(image, to, tile);
    });
}

/// Adds kernel row `ky`, applied to one operand row, to one result row.
fn add_row(view: &View, ky: usize, operand: &[f32], packed: &[f32], row: &mut [f32]) {
    let shape = &view.shape;
    let (ci, co, groups) = (view.from[2], view.to[2], shape.groups);
    for kx in 0..shape.kw {
        let Some(Hits { count, at, from, steps: [at_step, from_step] }) = view.hits(kx) else { continue };
        for group in 0..groups {
            let tap = (group * shape.kh + ky) * shape.kw + kx;
            let pixels = Matrix {
                data: &operand[from * ci * groups + group * ci..],
                size: [count, ci],
                strides: [from_step * ci * groups, 1],
            };
            let weights =
                Matrix { data: &packed[tap * ci * co..][..ci * co], size: [ci, co], strides: [co, 1] };
            add_product(&pixels, &weights, &mut row[at * co * groups + group * co..], at_step * co * groups);
        }
    }
}

/// A matrix in memory: rows and columns, and the elements from one to the next.
struct Matrix<'a> {
    data: &'a [f32],
    size: [usize; 2],
    strides: [usize; 2],
}

impl Matrix<'_> {
    /// Elements from the first to the last.
    fn reach(&self) -> usize {
        let [rows, columns] = self.size.map(|size| size.saturating_sub(1));
        rows * self.strides[0] + columns * self.strides[1] + 1
    }
}

/// `out += a b`, with `stride` elements between the rows of `out`.
fn add_product(a: &Matrix, b: &Matrix, out: &mut [f32], stride: usize) {
    let ([m, k], n) = (a.size, b.size[1]);
    if m * n * k == 0 {
        return;
    }
    assert!(a.reach() <= a.data.len() && b.reach() <= b.data.len() && b.size[0] == k);
    assert!(n <= stride && (m - 1) * stride + n <= out.len());
    let [[a_row, a_column], [b_row, b_column]] = [a.strides, b.strides].map(|s| s.map(|s| s as isize));
    // SAFETY: all three matrices lie inside their slices, by the assertions.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            true,
            a.data.as_ptr(),
            a_column,
            a_row,
            b.data.as_ptr(),
            b_column,
            b_row,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Images are summed in this many groups, each in order, and then the groups in order.
fn chunks(shape: &ConvShape) -> usize {
    (CHUNK_FLOATS / shape.weight_len()).clamp(2, CHUNKS).min(shape.n)
}

pub(super) fn weight_grad_workspace(shape: &ConvShape, threads: usize) -> usize {
    let image = |len: usize| lines(len / shape.n);
    chunks(shape) * lines(shape.weight_len())
        + threads * (image(shape.input_len()) + image(shape.output_len()))
}

pub(super) fn weight_grad(
    pool: &Pool,
    shape: &ConvShape,
    x: &dyn Source,
    dy: &dyn Source,
    dw: &mut [f32],
    scratch: &mut [f32],
) {
    let view = View::new(shape, Pass::Forward);
    let (ci, co, taps) = (view.from[2], view.to[2], shape.kh * shape.kw);
    let (x_len, y_len) = (shape.input_len() / shape.n, shape.output_len() / shape.n);
    let (chunks, len) = (chunks(shape), lines(shape.weight_len()));
    let (partials, images) = scratch.split_at_mut(chunks * len);
    {
        let (partials, images) = (SharedSlice::new(partials), SharedSlice::new(images));
        let each = lines(x_len) + lines(y_len);
        pool.run(chunks, &|chunk, thread| {
            // SAFETY: one part for each chunk, one for each thread.
            let sum = unsafe { partials.range(chunk * len..chunk * len + shape.weight_len()) };
            let own = unsafe { images.range(thread * each..(thread + 1) * each) };
            let (x_own, dy_own) = own.split_at_mut(lines(x_len));
            sum.fill(0.0);
            for image in shape.n * chunk / chunks..shape.n * (chunk + 1) / chunks {
                let x = fetch(x, [shape.h, shape.w, shape.cin], image, 0..shape.h, x_own);
                let dy = fetch(dy, [shape.oh(), shape.ow(), shape.cout], image, 0..shape.oh(), dy_own);
                add_image(&view, x, dy, sum);
            }
        });
    }
    let partials = &*partials;
    let dw = SharedSlice::new(dw);
    pool.run(shape.cout, &|o, _| {
        // SAFETY: every output channel has its own part.
        let out = unsafe { dw.range(o * ci * taps..(o + 1) * ci * taps) };
        let (group, o) = (o / co, o % co);
        for (at, out) in out.iter_mut().enumerate() {
            let (i, tap) = (at / taps, at % taps);
            let from = ((group * taps + tap) * ci + i) * co + o;
            *out = (0..chunks).map(|chunk| partials[chunk * len + from]).sum();
        }
    });
}

/// Adds one image's weight gradient to `sum`, `[groups, kh, kw, cin, cout]`.
fn add_image(view: &View, x: &[f32], dy: &[f32], sum: &mut [f32]) {
    let shape = &view.shape;
    let (ci, co, groups) = (view.from[2], view.to[2], shape.groups);
    for (oy, dy) in dy.chunks_exact(view.to[1] * co * groups).enumerate() {
        for ky in 0..shape.kh {
            let Some(y) = view.tap(0, oy, ky) else { continue };
            let x = &x[y * view.from[1] * ci * groups..];
            for kx in 0..shape.kw {
                let Some(Hits { count, at, from, steps: [at_step, from_step] }) = view.hits(kx) else {
                    continue;
                };
                for group in 0..groups {
                    let tap = (group * shape.kh + ky) * shape.kw + kx;
                    let pixels = Matrix {
                        data: &x[from * ci * groups + group * ci..],
                        size: [ci, count],
                        strides: [1, from_step * ci * groups],
                    };
                    let gradient = Matrix {
                        data: &dy[at * co * groups + group * co..],
                        size: [count, co],
                        strides: [at_step * co * groups, 1],
                    };
                    add_product(&pixels, &gradient, &mut sum[tap * ci * co..][..ci * co], co);
                }
            }
        }
    }
}
