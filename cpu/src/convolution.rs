//! Convolutions: the native kernels, with programs evaluated as operands go in and results come out.

use std::collections::HashSet;
use std::ops::Range;

use schedule::{Body, BufferId, ConvGeometry, ConvKind, Operand};

use crate::kernel::{Compile, Runtime};
use crate::kernels::{self, ConvShape, Pass, Plan, SharedSlice, Sink, Source, Workspace};
use crate::map::Map;
use crate::memory::Floats;
use crate::operand;
use crate::program::BlockProgram;
use crate::tile::TileEpilogue;

/// A convolution or one of its gradients.
pub struct Convolution {
    plan: Plan,
    lhs: Image,
    work: Work,
    workspace_len: usize,
}

enum Work {
    /// Forward or input gradient.
    Images { weights: Weights, epilogue: TileEpilogue },
    /// Weight gradient: the gradient of the result, where the result goes, and what else is done.
    Weights { rhs: Image, target: Option<BufferId>, epilogue: Option<Map> },
}

/// An image operand.
enum Image {
    /// The first `len` elements of a buffer.
    Buffer { buffer: BufferId, len: usize, height: usize, row_len: usize },
    Program {
        program: BlockProgram,
        /// What it reads in order.
        streams: Vec<BufferId>,
        height: usize,
        row_len: usize,
    },
}

/// Weights and their packed form.
struct Weights {
    source: WeightSource,
    packed: Floats,
    frozen: bool,
}

enum WeightSource {
    /// The first so many elements of a buffer.
    Buffer(BufferId, usize),
    Program(Map, usize),
}

impl Convolution {
    /// Compiles a [`Body::Convolution`]; nothing for another body.
    ///
    /// `frozen` are the buffers that keep their contents from call to call: weights made of such are
    /// packed by [`Convolution::prepare`] alone.
    pub fn new(compile: &Compile, body: &Body, frozen: &HashSet<BufferId>) -> Option<Convolution> {
        let Body::Convolution { kind, geometry, lhs, rhs, epilogue } = body else { return None };
        let pass = match kind {
            ConvKind::Forward => Pass::Forward,
            ConvKind::InputGrad => Pass::InputGrad,
            ConvKind::WeightGrad => Pass::WeightGrad,
        };
        let plan = Plan::new(pass, shape(geometry));
        let g = geometry;
        let x = [g.height, g.width * g.in_channels];
        let y = [g.out_height, g.out_width * g.out_channels];
        let (lhs_size, work) = match kind {
            ConvKind::Forward | ConvKind::InputGrad => {
                let (from, to) = if *kind == ConvKind::Forward { (x, y) } else { (y, x) };
                let channels = if *kind == ConvKind::Forward { g.out_channels } else { g.in_channels };
                let weights = Weights::new(compile, rhs, plan.packed_len(), frozen);
                let rows = plan.tile_rows();
                let epilogue = TileEpilogue::new(compile, epilogue, [g.batch, to[0], to[1], channels], rows);
                (from, Work::Images { weights, epilogue })
            }
            ConvKind::WeightGrad => {
                let target = operand::only_store(epilogue);
                let epilogue = target.is_none().then(|| operand::epilogue_map(compile, epilogue));
                (x, Work::Weights { rhs: Image::new(compile, rhs, y), target, epilogue })
            }
        };
        Some(Convolution {
            workspace_len: plan.workspace_len(compile.threads),
            lhs: Image::new(compile, lhs, lhs_size),
            plan,
            work,
        })
    }

    /// Floats of scratch memory.
    pub fn area_len(&self) -> usize {
        match &self.work {
            Work::Images { weights, epilogue } => weights.area_len() + epilogue.area_len(),
            Work::Weights { target: Some(_), .. } => 0,
            Work::Weights { target: None, .. } => self.plan.shape().weight_len(),
        }
    }

    /// Floats of the kernels' own workspace.
    pub fn workspace_len(&self) -> usize {
        self.workspace_len
    }

    /// Bytes of packed weights.
    pub fn packed_bytes(&self) -> u64 {
        match &self.work {
            Work::Images { weights, .. } => weights.packed.bytes(),
            Work::Weights { .. } => 0,
        }
    }

    /// Packs weights that do not change from call to call.
    ///
    /// # Safety
    /// As for [`Convolution::run`].
    pub unsafe fn prepare(&mut self, runtime: &Runtime) {
        if let Work::Images { weights, .. } = &mut self.work
            && weights.frozen
        {
            // SAFETY: the caller's promise.
            unsafe { weights.pack(runtime, &self.plan) };
        }
    }

    /// Packs weights that do; to be called before every [`Convolution::run`].
    ///
    /// # Safety
    /// As for [`Convolution::run`].
    pub unsafe fn renew(&mut self, runtime: &Runtime) {
        if let Work::Images { weights, .. } = &mut self.work
            && !weights.frozen
        {
            // SAFETY: the caller's promise.
            unsafe { weights.pack(runtime, &self.plan) };
        }
    }

    /// # Safety
    /// The schedule's buffers must be valid, and nothing else may use those that this kernel writes.
    pub unsafe fn run(&self, runtime: &Runtime, workspace: &mut Workspace) {
        match &self.work {
            // SAFETY (all): the caller's promise.
            Work::Images { weights, epilogue } => {
                let area = runtime.area.0.wrapping_add(weights.area_len());
                let sink = EpilogueSink { runtime, epilogue, area };
                let source = self.lhs.source(runtime);
                let packed = weights.packed.as_slice();
                let run =
                    if self.plan.pass() == Pass::Forward { kernels::forward } else { kernels::input_grad };
                run(runtime.pool, &self.plan, &source, packed, &sink, workspace);
                unsafe { epilogue.merge(runtime, area) };
            }
            Work::Weights { rhs, target, epilogue } => {
                let len = self.plan.shape().weight_len();
                let out = target.map_or(runtime.area.0, |buffer| runtime.memory.base(buffer));
                // SAFETY: the target is as long as the weights, and so is the area.
                let result = unsafe { std::slice::from_raw_parts_mut(out, len) };
                let (x, dy) = (self.lhs.source(runtime), rhs.source(runtime));
                kernels::weight_grad(runtime.pool, &self.plan, &x, &dy, result, workspace);
                if let Some(epilogue) = epilogue {
                    unsafe { epilogue.run(runtime, &[out]) };
                }
            }
        }
    }
}

fn shape(g: &ConvGeometry) -> ConvShape {
    ConvShape {
        n: g.batch,
        h: g.height,
        w: g.width,
        cin: g.in_channels,
        cout: g.out_channels,
        kh: g.kernel[0],
        kw: g.kernel[1],
        stride: g.conv.stride,
        pad: g.conv.padding,
        dilation: g.conv.dilation,
        groups: g.conv.groups,
    }
}

/// Whether the native kernels can run this geometry; the reason if not.
pub fn check(g: &ConvGeometry) -> Result<(), String> {
    let shape = shape(g);
    if !shape.is_valid() || (shape.oh(), shape.ow()) != (g.out_height, g.out_width) {
        return Err(format!("{g:?} is not a convolution"));
    }
    Ok(())
}

impl Weights {
    fn new(compile: &Compile, operand: &Operand, packed_len: usize, frozen: &HashSet<BufferId>) -> Weights {
        let source = match operand.as_buffer() {
            Some(buffer) => WeightSource::Buffer(buffer, operand.shape.iter().product()),
            None => {
                let map = operand::materialise(compile, operand);
                WeightSource::Program(map, operand.shape.iter().product())
            }
        };
        let frozen = crate::dispatch::loads(&operand.program).all(|buffer| frozen.contains(&buffer));
        Weights { source, packed: Floats::zeros(packed_len), frozen }
    }

    fn area_len(&self) -> usize {
        match self.source {
            WeightSource::Buffer(..) => 0,
            WeightSource::Program(_, len) => len.next_multiple_of(16),
        }
    }

    unsafe fn pack(&mut self, runtime: &Runtime, plan: &Plan) {
        // SAFETY: the caller's promise; the area is as long as was asked for.
        let weights = unsafe {
            match &self.source {
                WeightSource::Buffer(buffer, len) => &runtime.memory.slice(*buffer)[..*len],
                WeightSource::Program(map, len) => {
                    map.run(runtime, &[runtime.area.0]);
                    std::slice::from_raw_parts(runtime.area.0, *len)
                }
            }
        };
        plan.pack(runtime.pool, weights, self.packed.as_mut_slice());
    }
}

impl Image {
    /// An operand of images of `height` rows of `row_len` elements.
    fn new(compile: &Compile, operand: &Operand, [height, row_len]: [usize; 2]) -> Image {
        match operand.as_buffer() {
            Some(buffer) => Image::Buffer { buffer, len: operand.shape.iter().product(), height, row_len },
            None => Image::Program {
                program: operand::in_rows(compile, operand, row_len),
                streams: operand::streams(&operand.shape, &operand.program, &[]),
                height,
                row_len,
            },
        }
    }

    fn source<'a>(&'a self, runtime: &'a Runtime<'a>) -> ImageSource<'a> {
        ImageSource { image: self, runtime }
    }
}

struct ImageSource<'a> {
    image: &'a Image,
    runtime: &'a Runtime<'a>,
}

impl Source for ImageSource<'_> {
    fn rows(&self, image: usize, rows: Range<usize>, out: &mut [f32]) {
        // SAFETY (both): the promise of whoever runs the convolution: nothing writes to operands now.
        match self.image {
            Image::Buffer { buffer, height, row_len, .. } => {
                let start = (image * height + rows.start) * row_len;
                let data = unsafe { self.runtime.memory.slice(*buffer) };
                out.copy_from_slice(&data[start..start + out.len()]);
            }
            Image::Program { program, height, row_len, .. } => {
                let start = (image * height + rows.start) * row_len;
                unsafe { operand::evaluate(self.runtime, program, start, out) };
            }
        }
    }

    fn direct(&self) -> Option<&[f32]> {
        match self.image {
            // SAFETY: as above.
            Image::Buffer { buffer, len, .. } => Some(unsafe { &self.runtime.memory.slice(*buffer)[..*len] }),
            Image::Program { .. } => None,
        }
    }

    fn ahead(&self, image: usize, rows: Range<usize>, part: usize, parts: usize) {
        let (streams, height, row_len) = match self.image {
            Image::Buffer { buffer, height, row_len, .. } => (std::slice::from_ref(buffer), height, row_len),
            Image::Program { streams, height, row_len, .. } => (&streams[..], height, row_len),
        };
        let [start, end] = [rows.start, rows.end].map(|row| (image * height + row) * row_len);
        operand::ahead(self.runtime, streams, start..end, part, parts);
    }
}

/// Hands finished tiles to the epilogue.
struct EpilogueSink<'a> {
    runtime: &'a Runtime<'a>,
    epilogue: &'a TileEpilogue,
    area: *mut f32,
}

// SAFETY: tiles are disjoint, and each has a state of its own in the area.
unsafe impl Sync for EpilogueSink<'_> {}

impl Sink for EpilogueSink<'_> {
    fn target(&self) -> Option<SharedSlice<'_>> {
        let buffer = self.epilogue.target()?;
        // SAFETY: the kernel's result is nobody else's during the run.
        Some(SharedSlice::new(unsafe { self.runtime.memory.slice_mut(buffer) }))
    }

    fn finish(&self, image: usize, rows: Range<usize>, tile: &mut [f32]) {
        // SAFETY: called once for each tile.
        unsafe { self.epilogue.finish(self.runtime, self.area, image, rows, tile) };
    }

    fn ahead(&self, image: usize, rows: Range<usize>, part: usize, parts: usize) {
        let range = self.epilogue.elements(image, rows);
        operand::ahead(self.runtime, self.epilogue.streams(), range, part, parts);
    }
}
