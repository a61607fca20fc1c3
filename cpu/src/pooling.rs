//! Pooling over images `[N, H, W, C]`: vector loops over the channels of a pixel.

use std::ops::Range;

use schedule::{BufferId, PoolGeometry, PoolKind};

use crate::isa::multiversion;
use crate::launch::{Compile, Launch, Runtime};
use crate::memory::lines;

/// Elements of window work that are worth a task of their own.
const TASK: usize = 1 << 15;

/// A pooling kernel.
pub struct Pooling {
    kind: PoolKind,
    geometry: PoolGeometry,
    inputs: Vec<BufferId>,
    output: BufferId,
    /// Units (output rows, or images where windows overlap in the result) of one task.
    task: usize,
    threads: usize,
}

impl Pooling {
    pub fn new(
        compile: &Compile,
        kind: PoolKind,
        geometry: &PoolGeometry,
        inputs: &[BufferId],
        output: BufferId,
    ) -> Pooling {
        let [height, width] = geometry.window.size;
        let row = geometry.out_width * geometry.channels * height * width;
        let unit = if scatters(kind) { row * geometry.out_height } else { row };
        Pooling {
            kind,
            geometry: geometry.clone(),
            inputs: inputs.to_vec(),
            output,
            task: (TASK / unit.max(1)).max(1),
            threads: compile.threads,
        }
    }

    /// Floats of a thread's scratch memory: a row of channels twice.
    fn row_len(&self) -> usize {
        lines(2 * self.geometry.channels)
    }
}

impl Launch for Pooling {
    fn area_len(&self) -> usize {
        self.threads * self.row_len()
    }

    unsafe fn run(&self, runtime: &Runtime) {
        let g = &self.geometry;
        let units = if scatters(self.kind) { g.batch } else { g.batch * g.out_height };
        let unit_len =
            if scatters(self.kind) { g.height * g.width * g.channels } else { g.out_width * g.channels };
        let tasks = units.div_ceil(self.task);
        let all = runtime.memory.shared(self.output);
        runtime.pool.run(tasks, &|task, thread| {
            let range = task * self.task..((task + 1) * self.task).min(units);
            // SAFETY: tasks write disjoint parts of the output, threads have scratch rows of their own.
            let (out, scratch) = unsafe {
                let start = thread * self.row_len();
                let out = all.range(range.start * unit_len..range.end * unit_len);
                (out, runtime.area.range(start..start + 2 * g.channels))
            };
            // SAFETY: the output is none of the inputs.
            let inputs = |number: usize| unsafe { runtime.memory.slice(self.inputs[number]) };
            match self.kind {
                PoolKind::MaxGather => {
                    max_gather(runtime.isa, g, range, inputs(0), inputs(1), scratch, out);
                }
                PoolKind::MaxScatter => {
                    max_scatter(runtime.isa, g, range, inputs(0), inputs(1), scratch, out);
                }
                PoolKind::Average => average(runtime.isa, g, range, inputs(0), out),
                PoolKind::AverageTransposed => average_transposed(runtime.isa, g, range, inputs(0), out),
            }
        });
    }
}

/// Whether windows write to the result wherever they lie, instead of to a pixel of their own.
fn scatters(kind: PoolKind) -> bool {
    matches!(kind, PoolKind::MaxScatter | PoolKind::AverageTransposed)
}

/// The input rows (axis 0) or columns (axis 1) of the window at output position `at`.
#[inline(always)]
fn pixels(g: &PoolGeometry, axis: usize, at: usize) -> Range<usize> {
    let window = &g.window;
    let size = [g.height, g.width][axis];
    let start = at * window.stride[axis];
    let end = (start + window.size[axis]).saturating_sub(window.padding[axis]).min(size);
    start.saturating_sub(window.padding[axis]).min(end)..end
}

/// Calls `f(start of the pixel in its image, whether it is the first)` for the window's pixels.
#[inline(always)]
fn for_each_pixel(g: &PoolGeometry, row: usize, column: usize, mut f: impl FnMut(usize, bool)) {
    let mut first = true;
    for y in pixels(g, 0, row) {
        for x in pixels(g, 1, column) {
            f((y * g.width + x) * g.channels, first);
            first = false;
        }
    }
}

/// Whether a later value displaces the largest so far: NaN displaces numbers, nothing displaces NaN.
#[inline(always)]
fn beats(value: f32, best: f32) -> bool {
    !best.is_nan() & ((value > best) | value.is_nan())
}

#[inline(always)]
fn divisor(g: &PoolGeometry, row: usize, column: usize) -> f32 {
    let real = pixels(g, 0, row).len() * pixels(g, 1, column).len();
    // A window without a real pixel has sum 0 and must not become 0/0.
    (if g.window.count_padding { g.window.size[0] * g.window.size[1] } else { real.max(1) }) as f32
}

multiversion!(fn max_gather = max_gather_generic(
    g: &PoolGeometry, rows: Range<usize>, x: &[f32], source: &[f32], scratch: &mut [f32], out: &mut [f32]));
multiversion!(fn max_scatter = max_scatter_generic(
    g: &PoolGeometry, images: Range<usize>, x: &[f32], dy: &[f32], scratch: &mut [f32], out: &mut [f32]));
multiversion!(fn average = average_generic(g: &PoolGeometry, rows: Range<usize>, x: &[f32], out: &mut [f32]));
multiversion!(fn average_transposed = average_transposed_generic(
    g: &PoolGeometry, images: Range<usize>, dy: &[f32], out: &mut [f32]));

#[inline(always)]
fn max_gather_generic(
    g: &PoolGeometry,
    rows: Range<usize>,
    x: &[f32],
    source: &[f32],
    scratch: &mut [f32],
    out: &mut [f32],
) {
    let (c, image_len) = (g.channels, g.height * g.width * g.channels);
    let best = &mut scratch[..c];
    // The maxima themselves are wanted, mostly.
    let is_own = std::ptr::eq(x, source);
    for (row, out) in rows.zip(out.chunks_exact_mut(g.out_width * c)) {
        let (image, row) = (row / g.out_height * image_len, row % g.out_height);
        for (column, out) in out.chunks_exact_mut(c).enumerate() {
            out.fill(0.0);
            for_each_pixel(g, row, column, |pixel, first| {
                let at = image + pixel;
                let (x, source) = (&x[at..at + c], &source[at..at + c]);
                match (first, is_own) {
                    (true, true) => out.copy_from_slice(x),
                    (true, false) => {
                        best.copy_from_slice(x);
                        out.copy_from_slice(source);
                    }
                    (false, true) => {
                        for (&x, out) in x.iter().zip(out.iter_mut()) {
                            *out = if beats(x, *out) { x } else { *out };
                        }
                    }
                    (false, false) => keep_larger(x, best, source.iter().copied(), out),
                }
            });
        }
    }
}

/// `best = max(best, x)`, and what belongs to the larger is kept with it.
#[inline(always)]
fn keep_larger(x: &[f32], best: &mut [f32], belongs: impl Iterator<Item = f32>, kept: &mut [f32]) {
    for (((&x, best), belongs), kept) in x.iter().zip(best).zip(belongs).zip(kept) {
        let better = beats(x, *best);
        *best = if better { x } else { *best };
        *kept = if better { belongs } else { *kept };
    }
}

#[inline(always)]
fn max_scatter_generic(
    g: &PoolGeometry,
    images: Range<usize>,
    x: &[f32],
    dy: &[f32],
    scratch: &mut [f32],
    out: &mut [f32],
) {
    let (c, image_len) = (g.channels, g.height * g.width * g.channels);
    let (best, at) = scratch.split_at_mut(c);
    out.fill(0.0);
    for (image, out) in images.zip(out.chunks_exact_mut(image_len)) {
        let x = &x[image * image_len..(image + 1) * image_len];
        for row in 0..g.out_height {
            for column in 0..g.out_width {
                let start = ((image * g.out_height + row) * g.out_width + column) * c;
                let dy = &dy[start..start + c];
                let mut any = false;
                for_each_pixel(g, row, column, |pixel, first| {
                    any = true;
                    let x = &x[pixel..pixel + c];
                    // The pixel's number, as the bits of a float.
                    let number = f32::from_bits((pixel / c) as u32);
                    if first {
                        best.copy_from_slice(x);
                        at.fill(number);
                    } else {
                        keep_larger(x, best, x.iter().map(|_| number), at);
                    }
                });
                if any {
                    for i in 0..c {
                        out[at[i].to_bits() as usize * c + i] += dy[i];
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn average_generic(g: &PoolGeometry, rows: Range<usize>, x: &[f32], out: &mut [f32]) {
    let (c, image_len) = (g.channels, g.height * g.width * g.channels);
    for (row, out) in rows.zip(out.chunks_exact_mut(g.out_width * c)) {
        let (image, row) = (row / g.out_height * image_len, row % g.out_height);
        for (column, out) in out.chunks_exact_mut(c).enumerate() {
            out.fill(0.0);
            for_each_pixel(g, row, column, |pixel, _| {
                let x = &x[image + pixel..image + pixel + c];
                out.iter_mut().zip(x).for_each(|(out, x)| *out += x);
            });
            let divisor = divisor(g, row, column);
            out.iter_mut().for_each(|out| *out /= divisor);
        }
    }
}

#[inline(always)]
fn average_transposed_generic(g: &PoolGeometry, images: Range<usize>, dy: &[f32], out: &mut [f32]) {
    let (c, image_len) = (g.channels, g.height * g.width * g.channels);
    out.fill(0.0);
    for (image, out) in images.zip(out.chunks_exact_mut(image_len)) {
        for row in 0..g.out_height {
            for column in 0..g.out_width {
                let start = ((image * g.out_height + row) * g.out_width + column) * c;
                let dy = &dy[start..start + c];
                let divisor = divisor(g, row, column);
                for_each_pixel(g, row, column, |pixel, _| {
                    let out = &mut out[pixel..pixel + c];
                    out.iter_mut().zip(dy).for_each(|(out, dy)| *out += dy / divisor);
                });
            }
        }
    }
}
