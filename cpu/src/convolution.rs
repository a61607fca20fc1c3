//! Convolutions: the native kernels, with programs evaluated as operands go in and results come out.

use std::ops::Range;

use schedule::{BufferId, ConvGeometry, ConvKind, Epilogue, Operand};

use crate::kernels::{Fetch, ImagePlan, Sink, Source, WeightPlan};
use crate::launch::{Compile, Launch, Runtime};
use crate::memory::{Floats, SharedSlice, lines};
use crate::operand::{self, Whole};
use crate::program::BlockProgram;
use crate::tile::TileEpilogue;

/// Compiles a convolution or one of its gradients.
pub fn compile(
    compile: &Compile,
    kind: ConvKind,
    geometry: &ConvGeometry,
    lhs: &Operand,
    rhs: &Operand,
    epilogue: &Epilogue,
) -> Box<dyn Launch> {
    let plan = match kind {
        ConvKind::Forward => ImagePlan::forward(geometry),
        ConvKind::InputGrad => ImagePlan::input_grad(geometry),
        ConvKind::WeightGrad => {
            let g = geometry;
            return Box::new(WeightGradient {
                x: Image::new(compile, lhs, [g.height, g.width, g.in_channels]),
                dy: Image::new(compile, rhs, [g.out_height, g.out_width, g.out_channels]),
                result: Whole::result(compile, epilogue),
                len: epilogue.shape.iter().product(),
                threads: compile.threads,
                plan: WeightPlan::new(geometry),
            });
        }
    };
    Box::new(Convolution {
        operand: Image::new(compile, lhs, plan.operand()),
        weights: Whole::operand(compile, rhs),
        weights_len: rhs.shape.iter().product(),
        packed: Floats::zeros(plan.packed_len()),
        is_frozen: rhs.program.buffers().all(|buffer| compile.frozen[buffer]),
        epilogue: TileEpilogue::new(compile, epilogue, geometry.batch, plan.result(), plan.tile_rows()),
        threads: compile.threads,
        plan,
    })
}

/// A forward pass or an input gradient.
struct Convolution {
    plan: ImagePlan,
    operand: Image,
    weights: Whole,
    weights_len: usize,
    packed: Floats,
    /// Whether the weights are the same at every call: they are packed once.
    is_frozen: bool,
    epilogue: TileEpilogue,
    threads: usize,
}

impl Convolution {
    /// # Safety
    /// As for [`Launch::run`].
    unsafe fn pack(&mut self, runtime: &Runtime) {
        let weights = self.weights.place(runtime, 0);
        // SAFETY: the caller's promise.
        let weights = unsafe {
            self.weights.evaluate(runtime, weights);
            weights.range(0..self.weights_len)
        };
        self.plan.pack(runtime.pool, weights, self.packed.as_mut_slice());
    }
}

impl Launch for Convolution {
    /// The weights before they are packed; the epilogue's; the kernel's own.
    fn area_len(&self) -> usize {
        let own = lines(self.plan.scratch_len(self.threads));
        self.weights.area_len().max(lines(self.epilogue.area_len()) + own)
    }

    fn bytes(&self) -> u64 {
        self.packed.bytes()
    }

    unsafe fn prepare(&mut self, runtime: &Runtime) {
        if self.is_frozen {
            // SAFETY: the caller's promise.
            unsafe { self.pack(runtime) };
        }
    }

    unsafe fn renew(&mut self, runtime: &Runtime) {
        if !self.is_frozen {
            // SAFETY: the caller's promise.
            unsafe { self.pack(runtime) };
        }
    }

    unsafe fn run(&self, runtime: &Runtime) {
        let start = lines(self.epilogue.area_len());
        // SAFETY: this part of the area is the kernel's alone.
        let scratch = unsafe { runtime.area.range(start..start + self.plan.scratch_len(self.threads)) };
        let sink = EpilogueSink { runtime, epilogue: &self.epilogue };
        self.operand.with_source(runtime, |source| {
            self.plan.run(runtime.pool, source, self.packed.as_slice(), &sink, scratch);
        });
        // SAFETY: the caller's promise; all tiles are finished.
        unsafe { self.epilogue.merge(runtime) };
    }
}

struct WeightGradient {
    plan: WeightPlan,
    x: Image,
    dy: Image,
    result: Whole,
    len: usize,
    threads: usize,
}

impl Launch for WeightGradient {
    fn area_len(&self) -> usize {
        self.result.area_len() + self.plan.scratch_len(self.threads)
    }

    unsafe fn run(&self, runtime: &Runtime) {
        let (start, result) = (self.result.area_len(), self.result.place(runtime, 0));
        // SAFETY: the result and the two parts of the area are the kernel's alone.
        let (scratch, dw) = unsafe {
            let scratch = runtime.area.range(start..start + self.plan.scratch_len(self.threads));
            (scratch, result.range(0..self.len))
        };
        self.x.with_source(runtime, |x| {
            self.dy.with_source(runtime, |dy| self.plan.run(runtime.pool, x, dy, dw, scratch))
        });
        // SAFETY: the caller's promise.
        unsafe { self.result.evaluate(runtime, result) };
    }
}

/// An operand of images.
struct Image {
    /// Rows, columns and channels.
    dims: [usize; 3],
    len: usize,
    values: Values,
}

enum Values {
    Buffer(BufferId),
    /// Computed, from the second, which are read in order.
    Program(BlockProgram, Vec<BufferId>),
}

impl Image {
    fn new(compile: &Compile, operand: &Operand, dims: [usize; 3]) -> Image {
        let values = match operand.as_buffer() {
            Some(buffer) => Values::Buffer(buffer),
            None => Values::Program(
                operand::in_rows(compile, operand, dims[1] * dims[2]),
                operand::streams(&operand.shape, &operand.program, &[]),
            ),
        };
        Image { dims, len: operand.shape.iter().product(), values }
    }

    fn with_source<R>(&self, runtime: &Runtime, f: impl FnOnce(Source) -> R) -> R {
        match &self.values {
            Values::Buffer(buffer) => {
                // SAFETY: the promise of whoever runs the kernel: nothing writes to operands now.
                let values = unsafe { runtime.memory.slice(*buffer) };
                f(Source::dense(&values[..self.len], self.dims))
            }
            Values::Program(program, streams) => {
                let [height, width, channels] = self.dims;
                let rows = Rows { runtime, program, streams, height, row_len: width * channels };
                f(Source::computed(&rows, self.dims))
            }
        }
    }
}

/// Evaluates a program's rows.
struct Rows<'a> {
    runtime: &'a Runtime<'a>,
    program: &'a BlockProgram,
    streams: &'a [BufferId],
    height: usize,
    row_len: usize,
}

impl Fetch for Rows<'_> {
    fn rows(&self, image: usize, rows: Range<usize>, out: &mut [f32]) {
        let start = (image * self.height + rows.start) * self.row_len;
        // SAFETY: the promise of whoever runs the kernel: nothing writes to operands now.
        unsafe { operand::evaluate(self.runtime, self.program, start, out, |_| {}) };
    }

    fn ahead(&self, image: usize, rows: Range<usize>, part: usize, parts: usize) {
        let [start, end] = [rows.start, rows.end].map(|row| (image * self.height + row) * self.row_len);
        operand::ahead(self.runtime, self.streams, start..end, part, parts);
    }
}

/// Hands finished tiles to the epilogue.
struct EpilogueSink<'a> {
    runtime: &'a Runtime<'a>,
    epilogue: &'a TileEpilogue,
}

impl Sink for EpilogueSink<'_> {
    fn target(&self) -> Option<SharedSlice<'_>> {
        self.epilogue.target().map(|buffer| self.runtime.memory.shared(buffer))
    }

    fn finish(&self, image: usize, rows: Range<usize>, tile: &mut [f32]) {
        // SAFETY: called once for each tile.
        unsafe { self.epilogue.finish(self.runtime, image, rows, tile) };
    }

    fn ahead(&self, image: usize, rows: Range<usize>, part: usize, parts: usize) {
        let range = self.epilogue.elements(image, rows);
        operand::ahead(self.runtime, self.epilogue.streams(), range, part, parts);
    }
}
