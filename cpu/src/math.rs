//! `exp`, `ln`, `tanh` and `erf` without branches or tables, so that loops over them become vector code.
//!
//! The polynomials are those of S. L. Moshier's Cephes library (`expf`, `logf`, `tanhf`), those of `erf`
//! fitted for the least relative error; argument reduction and the special cases are arranged for selects instead of branches. Largest errors, over
//! all arguments: see the tests (2 units in the last place).

/// log2(e).
const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 in two parts; multiples of the first by exponents are exact.
const LN_2_HIGH: f32 = 0.693_359_375;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// 1.5 * 2^23: adding it rounds a small number to an integer, in the lowest bits of the sum.
const ROUNDER: f32 = 12_582_912.0;
/// Bits of sqrt(1/2).
const SQRT_HALF: u32 = 0x3f35_04f3;

/// e^x; overflows to infinity, underflows gradually to 0, NaN stays NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Beyond these the result is infinite or 0 anyway; comparisons let NaN through.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let rounded = x * LOG2_E + ROUNDER;
    let n = rounded - ROUNDER;
    let exponent = (rounded.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32);
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut p = 1.987_569_2e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5e-1;
    let value = (p * (r * r) + r) + 1.0;
    // 2^exponent in two factors, each a normal number.
    let half = exponent >> 1;
    value * power_of_two(half) * power_of_two(exponent.wrapping_sub(half))
}

/// The natural logarithm; -infinity at 0, NaN below.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    let tiny = x < f32::MIN_POSITIVE;
    let normal = if tiny { x * 8_388_608.0 } else { x };
    let bits = normal.to_bits().wrapping_sub(SQRT_HALF);
    let exponent = ((bits as i32) >> 23) as f32 - if tiny { 23.0 } else { 0.0 };
    // In [sqrt(1/2), sqrt(2)), less 1.
    let m = f32::from_bits((bits & 0x007f_ffff) + SQRT_HALF) - 1.0;
    let z = m * m;
    let mut p = 7.037_683_6e-2;
    p = p * m - 1.151_461e-1;
    p = p * m + 1.167_699_9e-1;
    p = p * m - 1.242_014_1e-1;
    p = p * m + 1.424_932_3e-1;
    p = p * m - 1.666_805_7e-1;
    p = p * m + 2.000_071_5e-1;
    p = p * m - 2.499_999_4e-1;
    p = p * m + 3.333_333e-1;
    let y = p * m * z + exponent * LN_2_LOW - 0.5 * z;
    let value = (m + y) + exponent * LN_2_HIGH;
    let value = if x < f32::INFINITY { value } else { x };
    let value = if x > 0.0 { value } else { f32::NAN };
    if x == 0.0 { f32::NEG_INFINITY } else { value }
}

/// The hyperbolic tangent; NaN stays NaN, -0 stays -0.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let z = x * x;
    let mut p = -5.704_988_7e-3;
    p = p * z + 2.063_908_8e-2;
    p = p * z - 5.373_971_6e-2;
    p = p * z + 1.333_144_2e-1;
    p = p * z - 3.333_328_2e-1;
    let small = p * z * x + x;
    let size = x.abs();
    let large = 1.0 - 2.0 / (exp(size + size) + 1.0);
    (if size < 0.625 { small } else { large }).copysign(x)
}

/// The error function; NaN stays NaN, -0 stays -0.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let z = x * x;
    let mut p = -6.090_464_3e-4;
    p = p * z + 5.011_986_5e-3;
    p = p * z - 2.677_892_9e-2;
    p = p * z + 1.128_214_15e-1;
    p = p * z - 3.761_252_5e-1;
    p = p * z + 1.283_791_5e-1;
    let small = p * x + x;
    // -ln(1 - erf(size)), a polynomial; beyond 4 the result is 1.
    let size = x.abs();
    let bounded = if size > 4.0 { 4.0 } else { size };
    let mut q = -2.145_954_3e-4;
    q = q * bounded + 3.219_978_7e-3;
    q = q * bounded - 2.290_604_1e-2;
    q = q * bounded + 1.052_868_66e-1;
    q = q * bounded + 6.356_993_3e-1;
    q = q * bounded + 1.128_52;
    let large = 1.0 - exp(-(q * bounded));
    if size < 0.9 { small } else { large.copysign(x) }
}

/// The larger, the left of equals; NaN if either is NaN.
#[inline(always)]
pub fn maximum(a: f32, b: f32) -> f32 {
    if a >= b || a.is_nan() { a } else { b }
}

/// The smaller, the left of equals; NaN if either is NaN.
#[inline(always)]
pub fn minimum(a: f32, b: f32) -> f32 {
    if a <= b || a.is_nan() { a } else { b }
}

#[inline(always)]
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits((exponent.wrapping_add(127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error over a sweep of all finite bit patterns, in units in the last place of the
    /// exact result.
    fn worst(f: fn(f32) -> f32, exact: fn(f64) -> f64, domain: impl Fn(f32) -> bool) -> f64 {
        let mut worst = 0.0f64;
        for step in 0..=(u32::MAX / 1021) {
            let x = f32::from_bits(step * 1021);
            if !x.is_finite() || !domain(x) {
                continue;
            }
            let truth = exact(x as f64);
            let value = f(x);
            if truth.abs() > f32::MAX as f64 {
                continue;
            }
            let near = (truth.abs() as f32).max(f32::MIN_POSITIVE);
            let ulp = (near.next_up() - near) as f64;
            worst = worst.max((value as f64 - truth).abs() / ulp);
        }
        worst
    }

    #[test]
    fn errors_are_within_two_units_in_the_last_place() {
        for (name, error) in [
            ("exp", worst(exp, f64::exp, |_| true)),
            ("ln", worst(ln, f64::ln, |x| x > 0.0)),
            ("tanh", worst(tanh, f64::tanh, |_| true)),
            ("erf", worst(erf, |x| autograd::tensor::UnaryOp::Erf.value(x), |_| true)),
        ] {
            println!("{name}: {error:.2}");
            assert!(error < 2.0, "{name}: {error}");
        }
    }

    #[test]
    fn special_values() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(100.0), f32::INFINITY);
        assert!(exp(88.7).is_finite() && exp(-100.0) > 0.0);
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(ln(1.0), 0.0);
        assert_eq!(ln(0.0), f32::NEG_INFINITY);
        assert_eq!(ln(-0.0), f32::NEG_INFINITY);
        assert_eq!(ln(f32::INFINITY), f32::INFINITY);
        assert!(ln(-1.0).is_nan() && ln(f32::NAN).is_nan() && ln(f32::NEG_INFINITY).is_nan());
        assert_eq!(tanh(f32::INFINITY), 1.0);
        assert_eq!(tanh(f32::NEG_INFINITY), -1.0);
        assert_eq!(tanh(0.0), 0.0);
        assert!(tanh(f32::NAN).is_nan());
        assert_eq!([0.0, 5.0, f32::INFINITY, f32::NEG_INFINITY].map(erf), [0.0, 1.0, 1.0, -1.0]);
        assert!(erf(f32::NAN).is_nan() && erf(-0.0).is_sign_negative());
        assert!(maximum(f32::NAN, 1.0).is_nan() && maximum(1.0, f32::NAN).is_nan());
        assert!(minimum(f32::NAN, 1.0).is_nan() && minimum(1.0, f32::NAN).is_nan());
        assert_eq!((maximum(1.0, 2.0), minimum(1.0, 2.0)), (2.0, 1.0));
    }
}
