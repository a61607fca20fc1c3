//! Every row of the table of scalars at every special value: constants are folded, and the CPU device
//! computes, as the table says. (What a GPU is held to is in `gpu/tests/elementwise.rs`.)

use autograd::Tensor;
use autograd::tensor::{BinaryOp, UnaryOp};
use schedule::{Body, Device, Instr, Options, Schedule, Step};

/// Zeros, ones, halves, what overflows and underflows in some function, infinities, NaN.
const SPECIAL: [f32; 24] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    2.5,
    -2.5,
    1e-20,
    -1e-20,
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE,
    1e-42,
    -1e-42,
    f32::MAX,
    f32::MIN,
    90.0,
    -90.0,
    -104.5,
    1e20,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    -f32::NAN,
];

/// Two units in the last place of a result by Cephes' polynomials.
const UNITS: u32 = 2;

/// Whether a result is the table's: the same bits if `f32` has the function, near it otherwise.
fn agrees(actual: f32, expected: f64, units: u32) -> bool {
    let expected = expected as f32;
    let same_sign = actual.is_sign_negative() == expected.is_sign_negative();
    (actual.is_nan() && expected.is_nan())
        || same_sign && actual.to_bits().abs_diff(expected.to_bits()) <= units
}

/// The values of an expression on the CPU device, and its schedule.
fn run(tensor: &Tensor, options: Options) -> (Vec<f32>, Schedule) {
    let device = cpu::CpuDevice::new(1);
    let schedule = Step::new().output("y", tensor).schedule_with(options).expect("a good step");
    let mut executable = device.compile(schedule.clone()).expect("a good schedule");
    executable.call(&[]).expect("a good call");
    (executable.output("y").expect("an output"), schedule)
}

/// Checks a function of the operands at every combination of the special values: as `compute` makes it of
/// arrays of them, and of constants.
fn check(
    name: &str,
    operands: usize,
    units: u32,
    value: impl Fn(&[f64]) -> f64,
    compute: impl Fn(&[Tensor]) -> Tensor,
) {
    let count = SPECIAL.len().pow(operands as u32);
    let combination = |number: usize| -> Vec<f32> {
        (0..operands)
            .map(|operand| SPECIAL[number / SPECIAL.len().pow(operand as u32) % SPECIAL.len()])
            .collect()
    };
    let expected: Vec<f64> = (0..count)
        .map(|number| value(&combination(number).iter().map(|&v| v.into()).collect::<Vec<f64>>()))
        .collect();
    let arrays: Vec<Tensor> = (0..operands)
        .map(|operand| {
            Tensor::constant(&[count], (0..count).map(|number| combination(number)[operand]).collect())
        })
        .collect();
    for fuse in [true, false] {
        let (actual, schedule) = run(&compute(&arrays), Options { fuse, ..Options::default() });
        let computes = |instr: &Instr| matches!(instr, Instr::Unary(..) | Instr::Binary(..));
        assert!(instructions(&schedule).iter().any(computes), "{name} is computed by the device");
        for (number, (&actual, &expected)) in actual.iter().zip(&expected).enumerate() {
            let operands = combination(number);
            assert!(agrees(actual, expected, units), "{name} of {operands:?} is {actual}, not {expected}");
        }
    }
    let constants = (0..count).map(|number| {
        let operands: Vec<Tensor> =
            combination(number).iter().map(|&v| Tensor::full(&[1], v.into())).collect();
        compute(&operands)
    });
    let constants: Vec<Tensor> = constants.collect();
    let (folded, schedule) =
        run(&Tensor::concatenate(&constants.iter().collect::<Vec<_>>(), 0), Options::default());
    let is_known = |instr: &Instr| !matches!(instr, Instr::Unary(..) | Instr::Binary(..));
    assert!(instructions(&schedule).iter().all(is_known), "{name} of constants is folded");
    for (number, (&folded, &expected)) in folded.iter().zip(&expected).enumerate() {
        let operands = combination(number);
        assert!(agrees(folded, expected, 0), "{name} of constants {operands:?} is {folded}, not {expected}");
    }
}

fn instructions(schedule: &Schedule) -> Vec<Instr> {
    let kernels = schedule.prepare.iter().chain(&schedule.kernels);
    assert!(kernels.clone().all(|kernel| matches!(kernel.body, Body::Map { .. })));
    kernels.flat_map(|kernel| kernel.programs()).flat_map(|program| program.instrs.clone()).collect()
}

#[test]
fn unary_functions_mean_the_same_everywhere() {
    for op in UnaryOp::ALL {
        // IEEE 754 has one result for these.
        let exact = !op.is_dear() || matches!(op, UnaryOp::Sqrt | UnaryOp::Reciprocal);
        let units = if exact { 0 } else { UNITS };
        check(op.name(), 1, units, |x| op.value(x[0]), |x| x[0].unary(op));
    }
}

#[test]
fn binary_functions_mean_the_same_everywhere() {
    for op in BinaryOp::ALL {
        check(op.name(), 2, 0, |x| op.value(x[0], x[1]), |x| x[0].binary(op, &x[1]));
    }
}

/// A condition counts unless it is zero, of either sign; a NaN is not zero.
#[test]
fn selects_mean_the_same_everywhere() {
    let choose = |condition: f64| if condition != 0.0 { 3.0 } else { 5.0 };
    let (yes, no) = (Tensor::scalar(3.0), Tensor::scalar(5.0));
    for condition in SPECIAL {
        let expected = [choose(condition.into())];
        let array = Tensor::constant(&[1], vec![condition]).select(&yes, &no);
        let constant = Tensor::full(&[1], condition.into()).select(&yes, &no);
        for tensor in [array, constant] {
            assert_eq!(tensor.evaluate().expect("a value"), expected, "{condition}");
            assert_eq!(run(&tensor, Options::default()).0, expected.map(|v| v as f32), "{condition}");
        }
    }
}
