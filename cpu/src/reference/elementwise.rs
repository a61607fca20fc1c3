//! Elementwise functions and the counter-based generator.

use autograd::random;
use autograd::tensor::{BinaryOp, UnaryOp};

use super::Array;

pub fn unary(op: UnaryOp, x: &Array) -> Array {
    Array { shape: x.shape.clone(), data: x.data.iter().map(|&v| unary_value(op, v)).collect() }
}

pub fn binary(op: BinaryOp, a: &Array, b: &Array) -> Array {
    let data = a.data.iter().zip(&b.data).map(|(&a, &b)| binary_value(op, a, b)).collect();
    Array { shape: a.shape.clone(), data }
}

pub fn select(condition: &Array, yes: &Array, no: &Array) -> Array {
    let choices = yes.data.iter().zip(&no.data);
    let pick = |(&c, (&yes, &no)): (&f64, (&f64, &f64))| if c != 0.0 { yes } else { no };
    Array { shape: condition.shape.clone(), data: condition.data.iter().zip(choices).map(pick).collect() }
}

/// Uniform in [0, 1) by row-major position; `seed` and `step` are integer scalars.
pub fn random(shape: &[usize], stream: u32, seed: &Array, step: &Array) -> Array {
    let (seed, step) = (integer(seed.data[0]), integer(step.data[0]));
    let value = |index| random::uniform(seed, step, stream, index as u32).into();
    Array { shape: shape.to_vec(), data: (0..shape.iter().product()).map(value).collect() }
}

/// The bits of a whole number as the generator takes them: -1 is `u32::MAX`.
fn integer(value: f64) -> u32 {
    value as i64 as u32
}

fn unary_value(op: UnaryOp, v: f64) -> f64 {
    match op {
        UnaryOp::Neg => -v,
        UnaryOp::Exp => v.exp(),
        UnaryOp::Log => v.ln(),
        UnaryOp::Sqrt => v.sqrt(),
        UnaryOp::Abs => v.abs(),
        UnaryOp::Reciprocal => 1.0 / v,
        UnaryOp::Tanh => v.tanh(),
        // Written so that NaN stays NaN.
        UnaryOp::Relu if v < 0.0 => 0.0,
        UnaryOp::Relu => v,
        UnaryOp::Sign if v > 0.0 => 1.0,
        UnaryOp::Sign if v < 0.0 => -1.0,
        UnaryOp::Sign => 0.0,
        UnaryOp::Floor => v.floor(),
    }
}

fn binary_value(op: BinaryOp, a: f64, b: f64) -> f64 {
    let truth = |holds: bool| if holds { 1.0 } else { 0.0 };
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        // A NaN on either side gives NaN, as in PyTorch's `maximum`.
        BinaryOp::Max | BinaryOp::Min if a.is_nan() || b.is_nan() => f64::NAN,
        BinaryOp::Max => a.max(b),
        BinaryOp::Min => a.min(b),
        BinaryOp::Less => truth(a < b),
        BinaryOp::LessEqual => truth(a <= b),
        BinaryOp::Equal => truth(a == b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corners() {
        assert_eq!(unary_value(UnaryOp::Relu, -3.0), 0.0);
        assert!(unary_value(UnaryOp::Relu, f64::NAN).is_nan());
        let signs = [-2.0, 0.0, 3.0].map(|v| unary_value(UnaryOp::Sign, v));
        assert_eq!(signs, [-1.0, 0.0, 1.0]);
        assert_eq!(unary_value(UnaryOp::Floor, -0.5), -1.0);
        assert!(binary_value(BinaryOp::Max, f64::NAN, 1.0).is_nan());
        assert!(binary_value(BinaryOp::Min, 1.0, f64::NAN).is_nan());
        assert_eq!(binary_value(BinaryOp::Less, 1.0, 1.0), 0.0);
        assert_eq!(binary_value(BinaryOp::LessEqual, 1.0, 1.0), 1.0);
        assert_eq!(binary_value(BinaryOp::Equal, f64::NAN, f64::NAN), 0.0);
    }

    #[test]
    fn random_is_the_documented_hash() {
        let scalar = |v| Array { shape: vec![], data: vec![v] };
        let values = random(&[3], 7, &scalar(5.0), &scalar(9.0));
        let expected: Vec<f64> = (0..3).map(|i| random::uniform(5, 9, 7, i).into()).collect();
        assert_eq!(values.data, expected);
        assert!(values.data.iter().all(|v| (0.0..1.0).contains(v)));
    }
}
