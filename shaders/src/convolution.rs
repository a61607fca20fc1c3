//! Convolutions: which kernel for which geometry, and the simple kernels that do all of them.

use std::fmt::Display;

use autograd::{Error, Result};
use schedule::{Body, ChannelFolds, ConvGeometry, ConvKind, Epilogue, Operand, ReduceKind};

use crate::assembled::Assembled;
use crate::bindings::Bindings;
use crate::fold::Fold;
use crate::gemm::Gemm;
use crate::gemm_kernel;
use crate::launch::{Access, Context, Scratch};
use crate::operand::{Finisher, IMAGE, WEIGHT};
use crate::target::Operands;
use crate::template::fill;
use crate::thread::{self, Functions};

const FORWARD: &str = include_str!("../wgsl/convolution_forward_direct.wgsl");
const INPUT_GRAD: &str = include_str!("../wgsl/convolution_input_grad_direct.wgsl");
const WEIGHT_GRAD: &str = include_str!("../wgsl/convolution_weight_grad_direct.wgsl");

pub fn assemble(context: Context, label: &str, body: &Body) -> Result<Assembled> {
    let Body::Convolution { kind, geometry, lhs, rhs, epilogue } = body else {
        return Err(Error::Device(format!("kernel `{label}` is no convolution")));
    };
    if epilogue.fold.is_some() && !ChannelFolds::Dense.allow(*kind, geometry) {
        let message = format!("kernel `{label}` has a fold: schedule it with this device's options");
        return Err(Error::Device(message));
    }
    let gemms = Gemm::of(body, context.target.operands);
    if let Some(tiled) = gemm_kernel::assemble(context, label, &gemms) {
        return Ok(tiled);
    }
    let assembled = match kind {
        ConvKind::Forward => direct(context, label, FORWARD, geometry, lhs, rhs, epilogue),
        ConvKind::InputGrad => direct(context, label, INPUT_GRAD, geometry, lhs, rhs, epilogue),
        ConvKind::WeightGrad => direct_weight_grad(context, label, geometry, lhs, rhs, epilogue),
    };
    Ok(assembled)
}

/// Whether tiles compute it, which round what they multiply in mixed precision.
pub fn is_tiled(body: &Body) -> bool {
    // Whatever the operands are.
    matches!(body, Body::Convolution { .. }) && gemm_kernel::is_tiled(&Gemm::of(body, Operands::F32))
}

/// Fills the slots of a geometry that the text has, and the `extra` ones.
fn fill_geometry(text: &str, g: &ConvGeometry, extra: &[(&str, &dyn Display)]) -> String {
    let [kh, kw] = g.kernel;
    let group_in = g.in_channels / g.conv.groups;
    let slots: [(&str, usize); 24] = [
        ("in_channels", g.in_channels),
        ("out_channels", g.out_channels),
        ("group_in", group_in),
        ("group_out", g.out_channels / g.conv.groups),
        ("group_weights", group_in * kh * kw),
        ("weights", g.out_channels * group_in * kh * kw),
        ("taps", kh * kw),
        ("height", g.height),
        ("width", g.width),
        ("in_pixels", g.height * g.width),
        ("out_height", g.out_height),
        ("out_width", g.out_width),
        ("out_pixels", g.out_height * g.out_width),
        ("pixels", g.batch * g.out_height * g.out_width),
        ("batch", g.batch),
        ("kh", kh),
        ("kw", kw),
        ("stride_y", g.conv.stride[0]),
        ("stride_x", g.conv.stride[1]),
        ("padding_y", g.conv.padding[0]),
        ("padding_x", g.conv.padding[1]),
        ("dilation_y", g.conv.dilation[0]),
        ("dilation_x", g.conv.dilation[1]),
        ("in_len", g.batch * g.height * g.width * g.in_channels),
    ];
    let used = |name: &str| text.contains(&format!("{{{{{name}}}}}"));
    let mut all: Vec<(&str, &dyn Display)> = Vec::new();
    all.extend(
        slots.iter().filter(|(name, _)| used(name)).map(|(name, value)| (*name, value as &dyn Display)),
    );
    all.extend(extra.iter().copied());
    fill(text, &all)
}

fn direct(
    context: Context,
    label: &str,
    template: &str,
    geometry: &ConvGeometry,
    lhs: &Operand,
    rhs: &Operand,
    epilogue: &Epilogue,
) -> Assembled {
    let functions =
        Functions { lhs: (lhs, IMAGE), rhs: (rhs, WEIGHT), finish: Some((epilogue, IMAGE)), scratch: None };
    let body = fill_geometry(template, geometry, &[]);
    let count = epilogue.shape.iter().product();
    let launch = thread::launch(context, label, count, functions, |_| body.clone());
    Assembled { launches: vec![launch], ..Default::default() }
}

fn direct_weight_grad(
    context: Context,
    label: &str,
    geometry: &ConvGeometry,
    lhs: &Operand,
    rhs: &Operand,
    epilogue: &Epilogue,
) -> Assembled {
    let weights: usize = epilogue.shape.iter().product();
    let pixels = geometry.batch * geometry.out_height * geometry.out_width;
    let wanted = 65_536usize.div_ceil(weights);
    let chunks = wanted.max(pixels.div_ceil(1024)).clamp(1, pixels.div_ceil(64).max(1));
    let chunk_len = pixels.div_ceil(chunks).max(1);
    let chunks = pixels.div_ceil(chunk_len).max(1);
    let scratch = Scratch::first(chunks * weights);
    let functions = Functions {
        lhs: (lhs, IMAGE),
        rhs: (rhs, IMAGE),
        finish: None,
        scratch: Some((scratch, Access::ReadWrite)),
    };
    let first = thread::launch(context, label, chunks * weights, functions, |partials| {
        fill_geometry(WEIGHT_GRAD, geometry, &[("chunk_len", &chunk_len), ("partials", &partials)])
    });
    let finisher = Finisher::new(epilogue, WEIGHT, None);
    let mut bindings = Bindings::new(context, epilogue.stores.iter().map(|s| s.buffer));
    finisher.declare(&mut bindings);
    let functions = finisher.write("finish", &[], &mut bindings);
    let fold = Fold {
        kinds: &[ReduceKind::Sum],
        is_vector: false,
        is_outer_dense: true,
        outer: weights,
        len: chunks,
    };
    let ([kh, kw], group_in) = (geometry.kernel, geometry.in_channels / geometry.conv.groups);
    let second = fold.add_chunks(context, label, (bindings, functions), scratch, |total| {
        format!(
            "    finish(o / {}, (o / {}) % {group_in}, (o / {kw}) % {kh}, o % {kw}, {total});\n",
            group_in * kh * kw,
            kh * kw,
        )
    });
    Assembled { launches: vec![first, second], scratch: vec![scratch.bytes()], ..Default::default() }
}
