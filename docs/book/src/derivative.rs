//! Chapter 1: what a derivative is to a program.

use autograd::Result;

use crate::picture::{Axis, BLUE, Chart, ORANGE};

// ANCHOR: function
fn f(x: f64) -> f64 {
    x * x * x
}
// ANCHOR_END: function

// ANCHOR: differences
/// The slope of a line through two points of the curve, `h` apart.
fn one_sided(f: impl Fn(f64) -> f64, x: f64, h: f64) -> f64 {
    (f(x + h) - f(x)) / h
}

/// The same with the two points on either side of `x`.
fn central(f: impl Fn(f64) -> f64, x: f64, h: f64) -> f64 {
    (f(x + h) - f(x - h)) / (2.0 * h)
}
// ANCHOR_END: differences

/// How wrong both are at 1.5, whose slope is 3 · 1.5² = 6.75.
fn mistakes(h: f64) -> (f64, f64) {
    ((one_sided(f, 1.5, h) - 6.75).abs(), (central(f, 1.5, h) - 6.75).abs())
}

// ANCHOR: errors
pub fn errors() -> Result<()> {
    println!("     h   one-sided     central");
    for exponent in [1, 3, 5, 7, 9, 11, 13] {
        let (one_sided, central) = mistakes(10f64.powi(-exponent));
        println!("1e-{exponent:02}   {one_sided:9.1e}   {central:9.1e}");
    }
    Ok(())
}
// ANCHOR_END: errors

// ANCHOR: dual
/// A number that knows its slope: how fast it changes as the input does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dual {
    pub value: f64,
    pub slope: f64,
}

impl std::ops::Add for Dual {
    type Output = Dual;
    fn add(self, other: Dual) -> Dual {
        Dual { value: self.value + other.value, slope: self.slope + other.slope }
    }
}

impl std::ops::Mul for Dual {
    type Output = Dual;
    fn mul(self, other: Dual) -> Dual {
        Dual { value: self.value * other.value, slope: self.slope * other.value + self.value * other.slope }
    }
}
// ANCHOR_END: dual

// ANCHOR: run_dual
pub fn dual() -> Result<()> {
    let x = Dual { value: 1.5, slope: 1.0 };
    let y = x * x * x;
    println!("value {}, slope {}", y.value, y.slope);

    // Two inputs: one pass tells about one of them, the one whose slope is 1.
    let product = |a: Dual, b: Dual| a * a * b + b;
    let (a, b) = (3.0, 2.0);
    let moving = |value| Dual { value, slope: 1.0 };
    let still = |value| Dual { value, slope: 0.0 };
    println!("as a moves: {}", product(moving(a), still(b)).slope);
    println!("as b moves: {}", product(still(a), moving(b)).slope);
    Ok(())
}
// ANCHOR_END: run_dual

/// The error of both differences for many h.
pub fn picture() -> Result<String> {
    let mut chart = Chart::new(
        "The error of a difference, as the step h shrinks",
        Axis::logarithmic("h", 1e-15, 1e-1),
        Axis::logarithmic("error", 1e-13, 1e1),
    );
    let steps = || (4..=48).map(|k| 0.5f64.powi(k) * 1.3);
    chart.curve("one-sided", ORANGE, steps().map(|h| (h, mistakes(h).0.max(1e-13))));
    chart.curve("central", BLUE, steps().map(|h| (h, mistakes(h).1.max(1e-13))));
    Ok(chart.svg())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dual_number_has_the_exact_slope() {
        let x = Dual { value: -0.5, slope: 1.0 };
        assert_eq!(x * x + x, Dual { value: -0.25, slope: 0.0 });
    }
}
