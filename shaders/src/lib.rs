//! The WGSL kernels and their assembly: a schedule's kernel goes in, WGSL text and launch sizes come out.
//!
//! Each kernel family is a template in `wgsl/` whose slots (`{{name}}`) this crate fills: sizes, the
//! bindings, and the fused prologue and epilogue, generated from a [`Program`](schedule::Program).
//! Nothing here knows a driver: strings in, strings out, so every module can be checked and translated
//! without one.

mod assembled;
mod bindings;
mod choice;
mod convolution;
mod element;
mod emit;
mod fold;
mod gemm;
mod gemm_ending;
mod gemm_kernel;
mod gemm_plan;
mod gemm_staging;
mod halves;
mod launch;
mod map;
mod operand;
mod pack;
mod pool;
mod precompute;
mod reduce;
mod sequence;
mod taps;
mod target;
mod template;
mod thread;
mod tile;
mod tile_fold;
mod tile_text;

use autograd::{Error, Result};
use gemm::Gemm;
use schedule::{Body, Kernel};

pub use assembled::Assembled;
pub use choice::Choice;
pub use element::Element;
pub use launch::{Access, Bound, Context, Launch, Place, Storage};
pub use pack::Pack;
pub use precompute::{Precomputed, precompute, precompute_alone};
pub use sequence::Sequence;
pub use target::{Limits, Operands, Target};

/// The ways to compute a kernel: first the one that is taken without measuring. Empty where there is one alone.
pub fn candidates(context: Context, kernel: &Kernel) -> Vec<Choice> {
    match &kernel.body {
        body @ Body::Reduce { .. } => {
            reduce::candidates(context, body).into_iter().map(Choice::Fold).collect()
        }
        body @ (Body::MatMul { .. } | Body::Convolution { .. }) => {
            let gemms = Gemm::of(body, context.target.operands);
            gemm_kernel::candidates(context, &gemms).into_iter().map(Choice::Product).collect()
        }
        Body::Map { .. } | Body::Pool { .. } | Body::AllReduce { .. } => Vec::new(),
    }
}

/// Makes a kernel ready for a device.
///
/// # Errors
/// [`Error::Limit`] where the kernel cannot be made to fit the target's limits.
pub fn assemble(context: Context, kernel: &Kernel) -> Result<Assembled> {
    let mut assembled = assemble_once(context, kernel)?;
    let limit = context.target.limits.storage_buffers as usize;
    if assembled.launches.iter().any(|launch| launch.bindings.len() > limit) {
        assembled = assemble_once(Context { tight: true, ..context }, kernel)?;
    }
    for launch in &assembled.launches {
        launch.check(context.target)?;
    }
    Ok(assembled)
}

fn assemble_once(context: Context, kernel: &Kernel) -> Result<Assembled> {
    let label = kernel.label.as_str();
    let assembled = match &kernel.body {
        Body::Map { parts } => map::assemble(context, label, parts)?,
        Body::Reduce { .. } => reduce::assemble(context, label, &kernel.body)?,
        Body::MatMul { .. } => {
            let products =
                gemm_kernel::assemble(context, label, &Gemm::of(&kernel.body, context.target.operands));
            products.ok_or_else(|| Error::Device(format!("no tile fits the product `{label}`")))?
        }
        Body::Convolution { .. } => convolution::assemble(context, label, &kernel.body)?,
        // Between launches: the device's.
        Body::AllReduce { .. } => Assembled::default(),
        Body::Pool { kind, geometry, inputs, output } => {
            pool::assemble(context, label, *kind, geometry, inputs, *output)?
        }
    };
    Ok(assembled)
}
