//! The WGSL kernels and their assembly: a schedule's kernel goes in, WGSL text and launch sizes come out.
//!
//! Each kernel family is a template in `wgsl/` whose slots (`{{name}}`) this crate fills: sizes, the
//! bindings, and the fused prologue and epilogue, generated from a [`Program`](schedule::ir::Program).
//! Nothing here knows a driver: strings in, strings out, so every module can be checked and translated
//! without one.

mod bindings;
mod collapse;
mod convolution;
mod emit;
mod fold;
mod gemm;
mod gemm_kernel;
mod legalise;
mod map;
mod matmul;
mod operand;
mod pool;
mod reduce;
mod target;
mod template;
mod thread;
mod tile;

use std::sync::Arc;

use autograd::{Error, Result};
use schedule::ir::{Body, Buffer, Kernel};

pub use bindings::{Access, Bound, Storage};
pub use legalise::{Legal, frozen, legalise, memories};
pub use target::{Limits, Operands, Subgroups, Target};

/// Where a schedule's buffer lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which allocation; two buffers that share one (slots, variables) have the same number.
    pub memory: usize,
    /// Its elements, from the allocation's first on.
    pub len: usize,
    /// How they are stored.
    pub element: Element,
}

/// How an element lies in memory. Kernels compute in `f32` whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    #[default]
    F32,
    /// Rounded to 16 bits: what tile kernels would round anyway, see [`Operands`].
    F16,
}

impl Element {
    /// Bytes that so many elements take: whole vectors of 16 bytes, and never none.
    pub fn bytes(self, elements: usize) -> u64 {
        let size = match self {
            Element::F32 => 4,
            Element::F16 => 2,
        };
        (elements.max(1) as u64 * size).next_multiple_of(16)
    }

    /// An expression of this type as `f32` (with `vector`: four of them).
    fn widened(self, value: String, vector: bool) -> String {
        match (self, vector) {
            (Element::F32, _) => value,
            (Element::F16, false) => format!("f32({value})"),
            (Element::F16, true) => format!("vec4<f32>({value})"),
        }
    }

    /// An `f32` expression as this type.
    fn narrowed(self, value: String, vector: bool) -> String {
        match (self, vector) {
            (Element::F32, _) => value,
            (Element::F16, false) => format!("f16({value})"),
            (Element::F16, true) => format!("vec4<f16>({value})"),
        }
    }

    /// The WGSL type of one element, or of four.
    fn wgsl(self, vector: bool) -> &'static str {
        match (self, vector) {
            (Element::F32, false) => "f32",
            (Element::F32, true) => "vec4<f32>",
            (Element::F16, false) => "f16",
            (Element::F16, true) => "vec4<f16>",
        }
    }
}

/// What assembly needs to know besides the kernel.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The schedule's buffers.
    pub buffers: &'a [Buffer],
    /// Where each of them lies.
    pub places: &'a [Place],
    /// Whether a buffer can change between two calls without [`prepare`](Assembled::prepare) running
    /// again; what depends only on others is packed once.
    pub frozen: &'a [bool],
    pub target: &'a Target,
    /// Binds every buffer once, at the price of vector access to those that also need single elements.
    /// [`assemble`] sets it where bindings are short.
    pub tight: bool,
}

/// One dispatch.
#[derive(Clone, Debug)]
pub struct Launch {
    pub label: String,
    /// A WGSL module with one entry point, `main`. Binding 0 of group 0 is a uniform that holds
    /// [`count`](Launch::count), the other bindings follow. Kernels of one form share it whatever their sizes.
    pub source: Arc<str>,
    /// Bindings in order; number `i` is binding `i + 1`.
    pub bindings: Vec<Bound>,
    /// Threads, or workgroups, that have work: the last workgroup may have more.
    pub count: u32,
    /// Workgroups in each dimension, none over the target's limit.
    pub groups: [u32; 3],
}

/// A kernel made ready for a device.
#[derive(Clone, Debug, Default)]
pub struct Assembled {
    /// Launches that need to run only when frozen buffers were written (packing a frozen weight).
    pub prepare: Vec<Launch>,
    /// The launches of one call, in order.
    pub launches: Vec<Launch>,
    /// Bytes of each scratch allocation the kernel needs while it runs.
    pub scratch: Vec<u64>,
    /// Bytes of each allocation that `prepare` writes and `launches` read.
    pub kept: Vec<u64>,
}

/// Makes a kernel ready for a device.
///
/// # Errors
/// [`Error::Limit`] where the kernel cannot be made to fit the target's limits.
pub fn assemble(context: Context, kernel: &Kernel) -> Result<Assembled> {
    let mut assembled = assemble_once(context, kernel)?;
    let limit = context.target.limits.storage_buffers as usize;
    let mut launches = assembled.prepare.iter().chain(&assembled.launches);
    if launches.any(|launch| launch.bindings.len() > limit) {
        assembled = assemble_once(Context { tight: true, ..context }, kernel)?;
    }
    for launch in assembled.prepare.iter().chain(&assembled.launches) {
        check_limits(context.target, launch)?;
    }
    Ok(assembled)
}

fn assemble_once(context: Context, kernel: &Kernel) -> Result<Assembled> {
    let label = kernel.label.as_str();
    let assembled = match &kernel.body {
        Body::Map { shape, program, stores } => map::assemble(context, label, shape, program, stores)?,
        Body::Maps { parts } => map::assemble_group(context, label, parts)?,
        Body::Reduce { .. } => reduce::assemble(context, label, &kernel.body)?,
        Body::MatMul { .. } => matmul::assemble(context, label, &kernel.body)?,
        Body::Convolution { .. } => convolution::assemble(context, label, &kernel.body)?,
        Body::Pool { kind, geometry, inputs, output } => {
            pool::assemble(context, label, *kind, geometry, inputs, *output)?
        }
    };
    Ok(assembled)
}

fn check_limits(target: &Target, launch: &Launch) -> Result<()> {
    let limits = &target.limits;
    if launch.bindings.len() > limits.storage_buffers as usize {
        return Err(Error::Limit(format!(
            "kernel `{}` needs {} storage buffers, the device allows {}",
            launch.label,
            launch.bindings.len(),
            limits.storage_buffers
        )));
    }
    for bound in &launch.bindings {
        if bound.bytes() > limits.binding_bytes {
            return Err(Error::Limit(format!(
                "kernel `{}` binds {} MiB at once, the device allows {} MiB: use a smaller batch",
                launch.label,
                bound.bytes() >> 20,
                limits.binding_bytes >> 20
            )));
        }
    }
    if launch.groups.iter().any(|&g| g > limits.groups) {
        return Err(Error::Limit(format!(
            "kernel `{}` needs {:?} workgroups, the device allows {} a dimension",
            launch.label, launch.groups, limits.groups
        )));
    }
    Ok(())
}
