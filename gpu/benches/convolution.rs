//! Convolution speed: forward, input gradient and weight gradient of the shapes that the trained
//! networks spend their time in, in GFLOP/s of the direct algorithm.
//!
//! `cargo bench -p gpu --bench gpu_convolution [-- SHAPES]`: arguments choose shapes by a part of their name;
//! the environment variable `SLD_ADAPTER` chooses the adapter, `SLD_BATCH` the batch, `SLD_PRECISION`
//! `f32`, `mixed` or `split`.

mod timing;

use autograd::Error;
use autograd::tensor::Conv2d;
use gpu::{GpuDevice, Options};
use schedule::*;
use timing::least_seconds;

/// Name, image size, channels in and out, kernel.
const SHAPES: [(&str, usize, usize, usize, usize); 6] = [
    ("3x3 16->16 @32", 32, 16, 16, 3),
    ("3x3 32->32 @16", 16, 32, 32, 3),
    ("3x3 64->64 @8", 8, 64, 64, 3),
    ("3x3 64->64 @16", 16, 64, 64, 3),
    ("3x3 256->256 @8", 8, 256, 256, 3),
    ("1x1 64->256 @16", 16, 64, 256, 1),
];

fn main() -> Result<(), Error> {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wanted = std::env::var("SLD_ADAPTER").ok();
    let precision = std::env::var("SLD_PRECISION").ok().map_or(Ok(Default::default()), |p| p.parse());
    let options = Options { checked: false, precision: precision?, ..Options::default() };
    let batch = std::env::var("SLD_BATCH").ok().and_then(|b| b.parse().ok()).unwrap_or(64);
    let device = GpuDevice::open(wanted.as_deref(), options)?;
    println!("{}, batch {batch}, {}, GFLOP/s", device.name(), device.multiplies_in());
    println!("{:16} {:>9} {:>11} {:>12}", "", "forward", "input grad", "weight grad");
    for (name, size, channels_in, channels_out, kernel) in SHAPES {
        if !chosen.is_empty() && !chosen.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let geometry = ConvGeometry {
            batch,
            height: size,
            width: size,
            in_channels: channels_in,
            out_channels: channels_out,
            kernel: [kernel, kernel],
            out_height: size,
            out_width: size,
            conv: Conv2d::new(1, kernel / 2),
        };
        print!("{name:16}");
        for (kind, width) in [(ConvKind::Forward, 9), (ConvKind::InputGrad, 11), (ConvKind::WeightGrad, 12)] {
            let seconds = time(&device, &geometry, kind)?;
            print!(" {:width$.1}", geometry.flops() as f64 / seconds * 1e-9);
        }
        println!();
    }
    Ok(())
}

/// Seconds of one convolution, the best of a few runs of several.
fn time(device: &GpuDevice, g: &ConvGeometry, kind: ConvKind) -> Result<f64, Error> {
    let x = vec![g.batch, g.height, g.width, g.in_channels];
    let w = vec![g.out_channels, g.in_channels, g.kernel[0], g.kernel[1]];
    let y = vec![g.batch, g.out_height, g.out_width, g.out_channels];
    let (left, right, out) = match kind {
        ConvKind::Forward => (x, w, y),
        ConvKind::InputGrad => (y, w, x),
        ConvKind::WeightGrad => (x, y, w),
    };
    let role = |name: &str| Role::Input { name: name.into(), integer: false };
    let buffer = |shape: &Vec<usize>, role| Buffer {
        shape: shape.clone(),
        role,
        label: "bench".into(),
        scope: Default::default(),
    };
    let operand = |buffer, shape: &Vec<usize>| Operand {
        shape: shape.clone(),
        program: Program { instrs: vec![Instr::Load { buffer, view: View::dense(shape) }] },
        value: 0,
    };
    let epilogue = Epilogue {
        shape: out.clone(),
        program: Program { instrs: vec![Instr::Accumulator(0)] },
        stores: vec![Store { buffer: 2, view: View::dense(&out), value: 0 }],
        ..Default::default()
    };
    let (lhs, rhs) = (operand(0, &left), operand(1, &right));
    let body = Body::Convolution { kind, geometry: g.clone(), lhs, rhs, epilogue };
    let repeats = 4;
    let kernels = vec![Kernel { label: "convolution".into(), body }; repeats];
    let schedule = Schedule {
        buffers: vec![buffer(&left, role("left")), buffer(&right, role("right")), buffer(&out, Role::Output)],
        kernels,
        outputs: vec![("out".into(), 2)],
        ..Default::default()
    };
    let values = |shape: &[usize]| -> Vec<f32> {
        (0..shape.iter().product()).map(|i: usize| (i * 7919 % 1000) as f32 * 1e-3 - 0.5).collect()
    };
    let (left, right) = (values(&left), values(&right));
    let inputs = [("left", Value::F32(&left)), ("right", Value::F32(&right))];
    let seconds = least_seconds(device, &mut *device.compile(schedule)?, &inputs)?;
    Ok(seconds / repeats as f64)
}
