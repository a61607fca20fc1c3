//! The kernels for matrix units, as far as they can be checked where no adapter has any: every module is
//! valid, translates to SPIR-V, and multiplies on the matrix units.

use autograd::tensor::Conv2d;
use naga::back::spv;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use schedule::*;
use shaders::{Assembled, Context, Element, Limits, Operands, Place, Target, assemble};

/// A card with 16x16x16 matrices, with roomy limits or the least that WebGPU guarantees.
fn card(operands: Operands, lanes: u32, roomy: bool) -> Target {
    let limits = Limits { workgroup_bytes: 48 << 10, invocations: 1024, ..Limits::WEBGPU };
    Target { lanes, operands, limits: if roomy { limits } else { Limits::WEBGPU } }
}

fn dense(buffer: BufferId, shape: &[usize]) -> Operand {
    let program = Program { instrs: vec![Instr::Load { buffer, view: View::dense(shape) }] };
    Operand { shape: shape.to_vec(), program, value: 0 }
}

/// The kernel's launches: operands are buffers 0 and 1, the result is buffer 2.
fn launches(
    target: &Target,
    shapes: [&[usize]; 3],
    body: impl Fn(Operand, Operand, Epilogue) -> Body,
) -> Assembled {
    let place = |(memory, shape): (usize, &[usize])| {
        let len = shape.iter().product();
        Place { memory, len, element: Element::F32 }
    };
    let places: Vec<Place> = shapes.into_iter().enumerate().map(place).collect();
    let epilogue = Epilogue {
        shape: shapes[2].to_vec(),
        program: Program { instrs: vec![Instr::Accumulator(0)] },
        stores: vec![Store { buffer: 2, view: View::dense(shapes[2]), value: 0 }],
        ..Default::default()
    };
    let kernel =
        Kernel { label: "kernel".into(), body: body(dense(0, shapes[0]), dense(1, shapes[1]), epilogue) };
    let context = Context { places: &places, frozen: &[false; 3], target, choice: None, tight: false };
    assemble(context, &kernel).unwrap()
}

/// Validates and translates all modules; at least one must use the matrix units.
fn check(what: &str, assembled: &Assembled) {
    let mut multiplies = false;
    for launch in &assembled.launches {
        let text = &launch.source;
        let module = naga::front::wgsl::parse_str(text)
            .unwrap_or_else(|e| panic!("{what}: {}\n{text}", e.emit_to_string(text)));
        let capabilities =
            Capabilities::SHADER_FLOAT16 | Capabilities::COOPERATIVE_MATRIX | Capabilities::SUBGROUP;
        let mut validator = Validator::new(ValidationFlags::all(), capabilities);
        let info = validator
            .validate(&module)
            .unwrap_or_else(|e| panic!("{what}: {}\n{text}", e.emit_to_string(text)));
        let options = spv::Options { lang_version: (1, 4), ..Default::default() };
        let words = spv::write_vec(&module, &info, &options, None).unwrap_or_else(|e| panic!("{what}: {e}"));
        // The opcode of OpCooperativeMatrixMulAddKHR, in the low half of an instruction's first word.
        multiplies |= instructions(&words).any(|opcode| opcode == 4459);
    }
    assert!(multiplies, "{what} does not use the matrix units");
}

/// The opcodes of a SPIR-V module.
fn instructions(words: &[u32]) -> impl Iterator<Item = u32> + '_ {
    let mut at = 5;
    std::iter::from_fn(move || {
        let first = *words.get(at)?;
        at += (first >> 16).max(1) as usize;
        Some(first & 0xffff)
    })
}

#[test]
fn convolutions_use_the_matrix_units() {
    for (channels, size, kernel, stride) in [
        ([3, 16], 32, 3, 1),
        ([16, 16], 32, 3, 1),
        ([16, 32], 32, 3, 2),
        ([32, 64], 16, 1, 2),
        ([64, 64], 8, 3, 1),
        ([40, 70], 7, 3, 1),
        ([256, 256], 8, 3, 1),
    ] {
        let [in_channels, out_channels] = channels;
        let conv = Conv2d::new(stride, kernel / 2);
        let out = (size + 2 * (kernel / 2) - kernel) / stride + 1;
        let geometry = ConvGeometry {
            batch: 4,
            height: size,
            width: size,
            in_channels,
            out_channels,
            kernel: [kernel, kernel],
            out_height: out,
            out_width: out,
            conv,
        };
        let x: &[usize] = &[4, size, size, in_channels];
        let w: &[usize] = &[out_channels, in_channels, kernel, kernel];
        let y: &[usize] = &[4, out, out, out_channels];
        let cards = [32, 64, 8].into_iter().flat_map(|lanes| {
            [Operands::Matrix, Operands::Split].map(|operands| card(operands, lanes, true))
        });
        for target in cards.chain([card(Operands::Matrix, 32, false)]) {
            for (kind, shapes) in [
                (ConvKind::Forward, [x, w, y]),
                (ConvKind::InputGrad, [y, w, x]),
                (ConvKind::WeightGrad, [x, y, w]),
            ] {
                let geometry = geometry.clone();
                let assembled = launches(&target, shapes, |lhs, rhs, epilogue| Body::Convolution {
                    kind,
                    geometry: geometry.clone(),
                    lhs,
                    rhs,
                    epilogue,
                });
                check(&format!("{kind:?} {geometry:?} on {target:?}"), &assembled);
            }
        }
    }
}

#[test]
fn matrix_products_use_the_matrix_units() {
    for [batch, m, n, k] in [[1, 64, 100, 64], [2, 33, 17, 40], [1, 200, 130, 70]] {
        let shapes: [&[usize]; 3] = [&[batch, m, k], &[batch, k, n], &[batch, m, n]];
        for operands in [Operands::Matrix, Operands::Split] {
            let body = |lhs, rhs, epilogue| Body::MatMul { batch, m, n, k, lhs, rhs, epilogue };
            let assembled = launches(&card(operands, 32, true), shapes, body);
            check(&format!("{m}x{n}x{k} of {operands:?}"), &assembled);
        }
    }
}
