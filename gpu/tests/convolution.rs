//! Convolutions, their gradients, matrix products and pooling against the interpreter.

mod common;

use autograd::tensor::{BinaryOp, Conv2d, UnaryOp, Window};
use common::build::{load, plain, store, strided};
use common::{Builder, check, check_mixed, check_unchecked_too, devices, run};
use schedule::*;

fn geometry(
    batch: usize,
    size: [usize; 2],
    channels: [usize; 2],
    kernel: [usize; 2],
    conv: Conv2d,
) -> ConvGeometry {
    let out = |d: usize| {
        (size[d] + 2 * conv.padding[d] - conv.dilation[d] * (kernel[d] - 1) - 1) / conv.stride[d] + 1
    };
    ConvGeometry {
        batch,
        height: size[0],
        width: size[1],
        in_channels: channels[0],
        out_channels: channels[1],
        kernel,
        out_height: out(0),
        out_width: out(1),
        conv,
    }
}

fn shapes(g: &ConvGeometry) -> ([usize; 4], [usize; 4], [usize; 4]) {
    let x = [g.batch, g.height, g.width, g.in_channels];
    let w = [g.out_channels, g.in_channels / g.conv.groups, g.kernel[0], g.kernel[1]];
    let y = [g.batch, g.out_height, g.out_width, g.out_channels];
    (x, w, y)
}

/// Stride, padding, dilation, groups, depthwise, 1x1, rectangular, ragged sizes, batch 1, many channels.
fn geometries() -> Vec<ConvGeometry> {
    let rectangular = Conv2d { stride: [2, 1], padding: [0, 2], dilation: [1, 2], groups: 1 };
    vec![
        geometry(2, [8, 8], [16, 16], [3, 3], Conv2d::new(1, 1)),
        geometry(3, [7, 5], [3, 16], [3, 3], Conv2d::new(1, 1)),
        geometry(2, [9, 8], [16, 32], [3, 3], Conv2d::new(2, 1)),
        geometry(2, [8, 8], [32, 64], [1, 1], Conv2d::new(2, 0)),
        geometry(1, [6, 6], [64, 64], [3, 3], Conv2d::new(1, 1)),
        geometry(2, [11, 7], [5, 6], [3, 2], rectangular),
        geometry(2, [9, 9], [8, 12], [3, 3], Conv2d::new(1, 2).dilation(2)),
        geometry(2, [6, 7], [12, 24], [3, 3], Conv2d::new(1, 1).groups(3)),
        geometry(2, [7, 6], [24, 24], [3, 3], Conv2d::new(2, 1).groups(24)),
        geometry(2, [5, 5], [16, 32], [3, 3], Conv2d::new(1, 1).groups(4)),
        geometry(2, [5, 6], [40, 36], [1, 1], Conv2d::new(1, 0)),
        geometry(1, [12, 12], [3, 7], [5, 5], Conv2d::new(3, 2)),
        geometry(2, [7, 7], [1, 6], [5, 5], Conv2d::new(1, 0)),
        geometry(1, [9, 9], [4, 16], [3, 3], Conv2d::new(1, 0).dilation(2)),
        geometry(2, [5, 5], [128, 70], [3, 3], Conv2d::new(1, 1)),
    ]
}

/// Several tiles of rows, the last not full, and several chunks of pixels; strides; groups; one image.
fn larger_geometries() -> Vec<ConvGeometry> {
    vec![
        geometry(5, [16, 16], [32, 16], [3, 3], Conv2d::new(1, 1)),
        geometry(5, [16, 16], [16, 64], [3, 3], Conv2d::new(2, 1)),
        geometry(9, [8, 8], [64, 64], [3, 3], Conv2d::new(1, 1).groups(2)),
        geometry(1, [30, 34], [3, 16], [3, 3], Conv2d::new(1, 1)),
        geometry(3, [16, 20], [32, 68], [1, 1], Conv2d::new(1, 0)),
    ]
}

#[test]
fn larger_geometries_plain() {
    for (number, g) in larger_geometries().into_iter().enumerate() {
        let mut b = Builder::new(500 + number as u32);
        let (xs, ws, ys) = shapes(&g);
        let (x, w, dy) = (b.random("x", &xs), b.random("w", &ws), b.random("dy", &ys));
        let (y, dx, dw) = (b.output("y", &ys), b.output("dx", &xs), b.output("dw", &ws));
        b.kernel(convolution(ConvKind::Forward, &g, b.operand(x), b.operand(w), plain(y, &ys)));
        b.kernel(convolution(ConvKind::InputGrad, &g, b.operand(dy), b.operand(w), plain(dx, &xs)));
        b.kernel(convolution(ConvKind::WeightGrad, &g, b.operand(x), b.operand(dy), plain(dw, &ws)));
        check(&b, 3e-6);
    }
}

fn convolution(kind: ConvKind, g: &ConvGeometry, lhs: Operand, rhs: Operand, epilogue: Epilogue) -> Body {
    Body::Convolution { kind, geometry: g.clone(), lhs, rhs, epilogue }
}

#[test]
fn every_geometry_plain() {
    for (number, g) in geometries().into_iter().enumerate() {
        let mut b = Builder::new(number as u32);
        let (xs, ws, ys) = shapes(&g);
        let (x, w, dy) = (b.random("x", &xs), b.random("w", &ws), b.random("dy", &ys));
        let (y, dx, dw) = (b.output("y", &ys), b.output("dx", &xs), b.output("dw", &ws));
        b.kernel(convolution(ConvKind::Forward, &g, b.operand(x), b.operand(w), plain(y, &ys)));
        b.kernel(convolution(ConvKind::InputGrad, &g, b.operand(dy), b.operand(w), plain(dx, &xs)));
        b.kernel(convolution(ConvKind::WeightGrad, &g, b.operand(x), b.operand(dy), plain(dw, &ws)));
        check(&b, 3e-6);
    }
}

/// The input and the weight gradient read one operand, which is computed once; after its source was
/// overwritten, it is computed again.
#[test]
fn gradients_share_an_operand_until_its_source_changes() {
    let g = geometry(2, [8, 8], [16, 16], [3, 3], Conv2d::new(1, 1));
    let (xs, ws, ys) = shapes(&g);
    let mut b = Builder::new(77);
    let (x, w, a, mask) = (b.random("x", &xs), b.random("w", &ws), b.random("a", &ys), b.random("mask", &ys));
    let dy = b.temporary(&ys, 0);
    let copy = |from: BufferId, scale: f32| {
        let instrs = vec![load(from, &ys), Instr::Constant(scale), Instr::Binary(BinaryOp::Mul, 0, 1)];
        Body::map(ys.to_vec(), Program { instrs }, vec![store(dy, &ys, 2)])
    };
    // Two tensors of the result's size: dear enough to be computed beforehand.
    let masked = |b: &Builder| {
        let instrs = vec![load(dy, &ys), load(mask, &ys), Instr::Binary(BinaryOp::Mul, 0, 1)];
        Operand { program: Program { instrs }, value: 2, shape: b.operand(mask).shape }
    };
    for (round, scale) in [1.0, -3.0].into_iter().enumerate() {
        b.kernel(copy(a, scale));
        let dx = b.output(&format!("dx {round}"), &xs);
        let dw = b.output(&format!("dw {round}"), &ws);
        b.kernel(convolution(ConvKind::InputGrad, &g, masked(&b), b.operand(w), plain(dx, &xs)));
        b.kernel(convolution(ConvKind::WeightGrad, &g, b.operand(x), masked(&b), plain(dw, &ws)));
    }
    check(&b, 3e-6);
}

/// Four units of rounding of a 16-bit float. Two rounded operands make an error of at most two units in
/// every term of a sum; in a sum of random terms those errors partly cancel, so that relative to the
/// largest result they stay below this.
const HALF: f64 = 4.0 / 2048.0;

#[test]
fn every_geometry_in_mixed_precision() {
    for (number, g) in geometries().into_iter().enumerate() {
        let mut b = Builder::new(300 + number as u32);
        let (xs, ws, ys) = shapes(&g);
        let (x, w) = (b.random("x", &xs), b.random("w", &ws));
        // As small as the gradients of a mean over a large batch: below what 16 bits can tell apart.
        let small: Vec<f32> =
            (0..ys.iter().product()).map(|i: usize| (i * 7919 % 1999) as f32 * 1e-9 - 1e-6).collect();
        let dy = b.input("dy", &ys, small);
        let (y, dx, dw) = (b.output("y", &ys), b.output("dx", &xs), b.output("dw", &ws));
        b.kernel(convolution(ConvKind::Forward, &g, b.operand(x), b.operand(w), plain(y, &ys)));
        b.kernel(convolution(ConvKind::InputGrad, &g, b.operand(dy), b.operand(w), plain(dx, &xs)));
        b.kernel(convolution(ConvKind::WeightGrad, &g, b.operand(x), b.operand(dy), plain(dw, &ws)));
        let Some(largest) = check_mixed(&b, HALF) else { return };
        // Too little in a group for the tile kernels: those stay in f32.
        let is_tiled = g.in_channels / g.conv.groups >= 8 || g.conv.groups == 1;
        assert!(!is_tiled || largest > 1e-5, "nothing was rounded: {g:?} differs by {largest}");
    }
}

/// A product of two tensors: dear enough to be computed beforehand.
fn product_of(a: BufferId, b: BufferId, shape: &[usize]) -> Operand {
    let instrs = vec![load(a, shape), load(b, shape), Instr::Binary(BinaryOp::Mul, 0, 1)];
    Operand { program: Program { instrs }, value: 2, shape: shape.to_vec() }
}

/// In mixed precision an operand computed beforehand is stored in 16 bits. That takes half the memory, and
/// changes nothing: it would be rounded the same way when it is multiplied.
#[test]
fn operands_stored_in_16_bits_change_nothing() {
    for (number, g) in geometries().into_iter().enumerate() {
        // Pointwise kernels read every element once and compute it there; small groups are not rounded.
        if g.kernel == [1, 1] || g.conv.groups > 1 {
            continue;
        }
        let (xs, ws, ys) = shapes(&g);
        // Computed as they are staged, or by kernels of their own, for the caller or for convolutions alone.
        let schedule = |way: usize| {
            let mut b = Builder::new(370 + number as u32);
            let (w, x1, x2) = (b.random("w", &ws), b.random("x1", &xs), b.random("x2", &xs));
            let (dy1, small) = (b.random("dy1", &ys), vec![1e-6; ys.iter().product()]);
            let dy2 = b.input("dy2", &ys, small);
            let mut operand = |name: &str, a, c, shape: &[usize]| {
                let computed = match way {
                    0 => return product_of(a, c, shape),
                    1 => b.output(name, shape),
                    _ => b.temporary(shape, b.schedule.slots.len()),
                };
                let Operand { shape, program, value } = product_of(a, c, shape);
                let stores = vec![store(computed, &shape, value)];
                b.kernel(Body::map(shape, program, stores));
                b.operand(computed)
            };
            let (x, dy) = (operand("x", x1, x2, &xs), operand("dy", dy1, dy2, &ys));
            let (y, dx, dw) = (b.output("y", &ys), b.output("dx", &xs), b.output("dw", &ws));
            b.kernel(convolution(ConvKind::Forward, &g, x.clone(), b.operand(w), plain(y, &ys)));
            b.kernel(convolution(ConvKind::InputGrad, &g, dy.clone(), b.operand(w), plain(dx, &xs)));
            b.kernel(convolution(ConvKind::WeightGrad, &g, x, dy, plain(dw, &ws)));
            b
        };
        let (stored, staged, alone) = (schedule(0), schedule(1), schedule(2));
        if check_mixed(&stored, HALF).is_none() || check_mixed(&alone, HALF).is_none() {
            return;
        }
        let Some(devices) = devices() else { return };
        let device = &devices.0[3].1;
        let halves = |b: &Builder| {
            let legal = shaders::precompute(b.schedule.clone(), device.target());
            legal.places.iter().filter(|place| place.element == shaders::Element::F16).count()
        };
        assert_eq!([&stored, &staged, &alone].map(halves), [2, 0, 2], "operands in 16 bits: {g:?}");
        let [stored, staged, alone] = [stored, staged, alone].map(|b| run(device, &b.schedule, &b.inputs));
        for (name, values) in stored.iter().chain(&alone) {
            let (_, expected) = staged.iter().find(|(other, _)| other == name).expect("the same outputs");
            assert!(values == expected, "{name} differs: {g:?}");
        }
    }
}

#[test]
fn matrix_products_in_mixed_precision() {
    for (number, [batch, m, n, k]) in
        [[1, 64, 100, 64], [2, 33, 17, 40], [1, 200, 130, 70], [3, 5, 9, 7]].into_iter().enumerate()
    {
        let mut b = Builder::new(350 + number as u32);
        let (left, right) = (b.random("left", &[batch, m, k]), b.random("right", &[batch, k, n]));
        let y = b.output("y", &[batch, m, n]);
        let (lhs, rhs) = (b.operand(left), b.operand(right));
        b.kernel(Body::MatMul { batch, m, n, k, lhs, rhs, epilogue: plain(y, &[batch, m, n]) });
        let Some(largest) = check_mixed(&b, HALF) else { return };
        assert!(largest > 1e-5, "nothing was rounded: {largest}");
    }
}

/// `relu(x * scale[c] + shift[c])` as an operand: a batch norm's apply, fused into the load.
fn normalised(x: BufferId, scale: BufferId, shift: BufferId, shape: &[usize]) -> Operand {
    let mut channel = vec![0; shape.len()];
    channel[shape.len() - 1] = 1;
    let instrs = vec![
        load(x, shape),
        strided(scale, 0, &channel),
        strided(shift, 0, &channel),
        Instr::Binary(BinaryOp::Mul, 0, 1),
        Instr::Binary(BinaryOp::Add, 3, 2),
        Instr::Unary(UnaryOp::Relu, 4),
    ];
    Operand { shape: shape.to_vec(), program: Program { instrs }, value: 5 }
}

#[test]
fn every_geometry_with_prologue_epilogue_and_statistics() {
    let all = geometries().into_iter().chain(larger_geometries().into_iter().skip(1).step_by(2));
    for (number, g) in all.enumerate() {
        for kind in [ConvKind::Forward, ConvKind::InputGrad, ConvKind::WeightGrad] {
            let mut b = Builder::new(100 + number as u32);
            let (xs, ws, ys) = shapes(&g);
            let (left, right, out) = match kind {
                ConvKind::Forward => (xs, ws, ys),
                ConvKind::InputGrad => (ys, ws, xs),
                ConvKind::WeightGrad => (xs, ys, ws),
            };
            let (l, r) = (b.random("left", &left), b.random("right", &right));
            let (scale, shift) = (b.random("scale", &[left[3]]), b.random("shift", &[left[3]]));
            let residual = b.random("residual", &out);
            let y = b.output("y", &out);
            let z = b.output("z", &out);
            let epilogue = Epilogue {
                shape: out.to_vec(),
                program: Program {
                    instrs: vec![
                        Instr::Accumulator(0),
                        load(residual, &out),
                        Instr::Binary(BinaryOp::Add, 0, 1),
                        Instr::Unary(UnaryOp::Relu, 2),
                    ],
                },
                stores: vec![store(y, &out, 2), store(z, &out, 3)],
                ..Default::default()
            };
            b.kernel(convolution(kind, &g, normalised(l, scale, shift, &left), b.operand(r), epilogue));
            check(&b, 5e-6);
        }
    }
}

/// Two views of B images as `[2, B, H, W, C]`: prologue and epilogue tell them apart.
#[test]
fn views_are_told_apart() {
    let g = geometry(6, [6, 5], [8, 16], [3, 3], Conv2d::new(1, 1));
    let mut b = Builder::new(1);
    let (xs, ws, ys) = shapes(&g);
    let (x, w) = (b.random("x", &xs), b.random("w", &ws));
    let split_x = [2, 3, xs[1], xs[2], xs[3]];
    let split_y = [2, 3, ys[1], ys[2], ys[3]];
    let shift = b.random("shift", &[2, 8]);
    let instrs =
        vec![load(x, &split_x), strided(shift, 0, &[8, 0, 0, 0, 1]), Instr::Binary(BinaryOp::Add, 0, 1)];
    let lhs = Operand { shape: split_x.to_vec(), program: Program { instrs }, value: 2 };
    let bias = b.random("bias", &[2, 16]);
    // Views that need not be told apart are walked as one batch.
    let together = b.output("together", &ys);
    let plain = plain(together, &split_y);
    b.kernel(convolution(ConvKind::Forward, &g, lhs.clone(), b.operand(w), plain));
    let y = b.output("y", &ys);
    let epilogue = Epilogue {
        shape: split_y.to_vec(),
        program: Program {
            instrs: vec![
                Instr::Accumulator(0),
                strided(bias, 0, &[16, 0, 0, 0, 1]),
                Instr::Binary(BinaryOp::Add, 0, 1),
            ],
        },
        stores: vec![store(y, &split_y, 2)],
        ..Default::default()
    };
    b.kernel(convolution(ConvKind::Forward, &g, lhs, b.operand(w), epilogue));
    check_unchecked_too(&b, 3e-6);
}

#[test]
fn matrix_products() {
    for [batch, m, n, k] in [
        [1, 4, 4, 4],
        [1, 64, 64, 64],
        [1, 65, 10, 64],
        [2, 33, 17, 5],
        [3, 7, 100, 30],
        [1, 1, 1, 1],
        [1, 130, 72, 200],
    ] {
        let mut b = Builder::new((m + n + k) as u32);
        let (left, right, out) = ([batch, m, k], [batch, k, n], [batch, m, n]);
        let (l, r) = (b.random("l", &left), b.random("r", &right));
        let (bias, y) = (b.random("bias", &[n]), b.output("y", &out));
        let epilogue = Epilogue {
            shape: out.to_vec(),
            program: Program {
                instrs: vec![
                    Instr::Accumulator(0),
                    strided(bias, 0, &[0, 0, 1]),
                    Instr::Binary(BinaryOp::Add, 0, 1),
                ],
            },
            stores: vec![store(y, &out, 2)],
            ..Default::default()
        };
        let (lhs, rhs) = (b.operand(l), b.operand(r));
        b.kernel(Body::MatMul { batch, m, n, k, lhs, rhs, epilogue });
        // The same with both operands read transposed, and one of them a program.
        let (lt, rt) = (b.random("lt", &[batch, k, m]), b.random("rt", &[batch, n, k]));
        let z = b.output("z", &out);
        let (mi, ni, ki) = (m as i64, n as i64, k as i64);
        let lhs = Operand {
            shape: left.to_vec(),
            program: Program {
                instrs: vec![strided(lt, 0, &[mi * ki, 1, mi]), Instr::Unary(UnaryOp::Relu, 0)],
            },
            value: 1,
        };
        let rhs = Operand {
            shape: right.to_vec(),
            program: Program { instrs: vec![strided(rt, 0, &[ni * ki, 1, ki])] },
            value: 0,
        };
        b.kernel(Body::MatMul { batch, m, n, k, lhs, rhs, epilogue: plain(z, &out) });
        check(&b, 3e-6);
    }
}

#[test]
fn every_pooling() {
    let windows = [
        Window::new(2, 2, 0),
        Window::new(3, 2, 1),
        Window::new(3, 1, 1).without_padding_in_divisor(),
        Window { size: [3, 2], stride: [1, 2], padding: [1, 0], count_padding: true },
    ];
    for (number, window) in windows.into_iter().enumerate() {
        for channels in [8, 5] {
            let (height, width) = (8, 7);
            let out = |d: usize, size: usize| {
                (size + 2 * window.padding[d] - window.size[d]) / window.stride[d] + 1
            };
            let g = PoolGeometry {
                batch: 2,
                height,
                width,
                channels,
                out_height: out(0, height),
                out_width: out(1, width),
                window,
            };
            let mut b = Builder::new(number as u32);
            let (xs, ys) = ([2, height, width, channels], [2, g.out_height, g.out_width, channels]);
            let x = b.random("x", &xs);
            // Ties: few distinct values. And a NaN.
            b.inputs[0].1.iter_mut().for_each(|v| *v = (*v * 2.0).floor());
            b.inputs[0].1[3] = f32::NAN;
            let clean = b.random("clean", &xs);
            let (source, dy) = (b.random("source", &xs), b.random("dy", &ys));
            let cases = [
                (PoolKind::MaxGather, vec![x, x], b.output("max", &ys)),
                (PoolKind::MaxGather, vec![x, source], b.output("gathered", &ys)),
                (PoolKind::MaxScatter, vec![x, dy], b.output("scattered", &xs)),
                (PoolKind::Average, vec![clean], b.output("average", &ys)),
                (PoolKind::AverageTransposed, vec![dy], b.output("spread", &xs)),
            ];
            for (kind, inputs, output) in cases {
                b.kernel(Body::Pool { kind, geometry: g.clone(), inputs, output });
            }
            check(&b, 1e-6);
        }
    }
}
