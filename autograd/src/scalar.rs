//! The scalar operations: one table of what each is called, what it computes, and how WGSL writes it.
//!
//! This is the meaning that all agree on: constants are folded by it, the evaluator computes by it, and the
//! devices' own code is tested against it at every special value. Gradients are in [`crate::grad()`].
//!
//! * Everything is as in IEEE 754, and where PyTorch says more, as in PyTorch: `sign(NaN)` is 0, a NaN
//!   operand makes `max` and `min` NaN, comparisons with NaN are false.
//! * PyTorch leaves open which of two zeros `max` and `min` give: here it is the left operand, as of all
//!   equals. A zero keeps its sign in `relu`.
//! * A simplification of whole expressions may lose the sign of a zero (`x + 0` becomes `x`).
//! * WGSL lets a driver assume that there is no NaN and no infinity, ignore the sign of a zero and flush
//!   subnormal numbers. What the GPU must keep all the same, because training shows by it that it has failed,
//!   is the NaN in `relu`, `max`, `min` and `tanh` (and in the folds): those functions look at the bits.
//!   The rest of the special values is right on every driver tested, and promised by none.

/// An operation's row: its variant, name, cost, WGSL with operands in braces, value in `f64`.
///
/// In the WGSL `{4}` is `4` where values are `vec4<f32>` and nothing where they are `f32`, and `{f32}` is
/// that type; names that end in `_{4}` are functions of `shaders/wgsl/prelude.wgsl`.
macro_rules! table {
    ($(#[$about:meta])* $Op:ident($($x:ident),+) {
        $($(#[$doc:meta])* $variant:ident $name:literal $cost:ident $wgsl:literal $value:expr;)+
    }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $Op {
            $($(#[$doc])* $variant,)+
        }

        impl $Op {
            /// Every operation of the table.
            pub const ALL: [$Op; [$($name),+].len()] = [$($Op::$variant),+];

            /// As errors and tables print it.
            pub fn name(self) -> &'static str {
                match self {
                    $($Op::$variant => $name,)+
                }
            }

            /// What it computes.
            pub fn value(self, $($x: f64),+) -> f64 {
                match self {
                    $($Op::$variant => $value,)+
                }
            }

            /// Whether it costs far more than an addition.
            pub fn is_dear(self) -> bool {
                match self {
                    $($Op::$variant => Cost::$cost == Cost::Dear,)+
                }
            }

            /// The WGSL of the operation on these operands.
            pub fn wgsl(self, $($x: &str,)+ is_vector: bool) -> String {
                let template = match self {
                    $($Op::$variant => $wgsl,)+
                };
                let (four, float) = if is_vector { ("4", "vec4<f32>") } else { ("", "f32") };
                template
                    .replace("{4}", four)
                    .replace("{f32}", float)
                    $(.replace(concat!("{", stringify!($x), "}"), $x))+
            }
        }
    };
}

#[derive(PartialEq)]
enum Cost {
    Cheap,
    Dear,
}

table! {
    /// One-operand elementwise functions.
    UnaryOp(x) {
        /// `-x`.
        Neg        "neg"        Cheap "-{x}"           -x;
        /// `e^x`.
        Exp        "exp"        Dear  "exp({x})"       x.exp();
        /// The natural logarithm.
        Log        "log"        Dear  "log({x})"       x.ln();
        /// The square root; NaN below 0.
        Sqrt       "sqrt"       Dear  "sqrt({x})"      x.sqrt();
        /// `|x|`; its gradient at 0 is 0.
        Abs        "abs"        Cheap "abs({x})"       x.abs();
        /// `1 / x`.
        Reciprocal "reciprocal" Dear  "1.0 / {x}"      1.0 / x;
        /// The hyperbolic tangent.
        Tanh       "tanh"       Dear  "tanh_{4}({x})"  x.tanh();
        /// The error function, `2 / sqrt(pi)` times the integral of `exp(-t^2)` from 0 to x.
        Erf        "erf"        Dear  "erf_{4}({x})"   erf(x);
        /// `max(x, 0)`; its gradient at 0 is 0.
        Relu       "relu"       Cheap "relu_{4}({x})"  if x < 0.0 { 0.0 } else { x };
        /// -1, 0 or 1; no gradient.
        Sign       "sign"       Cheap "sign_{4}({x})"  truth(x > 0.0) - truth(x < 0.0);
        /// The largest whole number that is not larger; no gradient.
        Floor      "floor"      Cheap "floor({x})"     x.floor();
    }
}

table! {
    /// Two-operand elementwise functions. Comparisons give 1.0 or 0.0.
    BinaryOp(a, b) {
        /// `a + b`.
        Add       "add"        Cheap "{a} + {b}"              a + b;
        /// `a - b`.
        Sub       "sub"        Cheap "{a} - {b}"              a - b;
        /// `a * b`.
        Mul       "mul"        Cheap "{a} * {b}"              a * b;
        /// `a / b`.
        Div       "div"        Dear  "{a} / {b}"              a / b;
        /// The larger; equals share the gradient.
        Max       "maximum"    Cheap "maximum_{4}({a}, {b})"  if a >= b || a.is_nan() { a } else { b };
        /// The smaller; equals share the gradient.
        Min       "minimum"    Cheap "minimum_{4}({a}, {b})"  if a <= b || a.is_nan() { a } else { b };
        /// Whether `a < b`; no gradient, as all comparisons.
        Less      "less"       Cheap "{f32}({a} < {b})"       truth(a < b);
        /// Whether `a <= b`.
        LessEqual "less_equal" Cheap "{f32}({a} <= {b})"      truth(a <= b);
        /// Whether `a == b`.
        Equal     "equal"      Cheap "{f32}({a} == {b})"      truth(a == b);
    }
}

impl BinaryOp {
    /// Whether it gives truth values, and takes integers too.
    pub fn is_comparison(self) -> bool {
        matches!(self, BinaryOp::Less | BinaryOp::LessEqual | BinaryOp::Equal)
    }
}

/// The error function by its series `2 / sqrt(pi) exp(-x^2) sum of 2^n x^(2n+1) / (1 3 .. (2n+1))`, whose terms
/// all have one sign, to some ten units in the last place. Beyond 6 it is 1 in `f64`.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > 1e-17 * sum.abs() {
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    (std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum).clamp(-1.0, 1.0)
}

fn truth(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_pytorch_has_a_say() {
        let nan = f64::NAN;
        assert!(UnaryOp::Relu.value(nan).is_nan());
        assert!(UnaryOp::Relu.value(-0.0).is_sign_negative());
        assert_eq!([nan, -0.0, -2.0, 3.0].map(|x| UnaryOp::Sign.value(x)), [0.0, 0.0, -1.0, 1.0]);
        for op in [BinaryOp::Max, BinaryOp::Min] {
            assert!(op.value(nan, 1.0).is_nan() && op.value(1.0, nan).is_nan());
            assert!(op.value(-0.0, 0.0).is_sign_negative() && op.value(0.0, -0.0).is_sign_positive());
        }
        for op in BinaryOp::ALL.into_iter().filter(|op| op.is_comparison()) {
            assert_eq!(op.value(nan, nan), 0.0);
        }
        assert_eq!(BinaryOp::Equal.value(0.0, -0.0), 1.0);
    }

    #[test]
    fn the_error_function_is_the_tables() {
        // From Python's math.erf.
        for (x, expected) in [
            (0.0, 0.0),
            (0.1, 0.1124629160182849),
            (0.5, 0.5204998778130465),
            (-1.0, -0.8427007929497149),
            (2.5, 0.999593047982555),
            (5.9, 1.0),
            (f64::NEG_INFINITY, -1.0),
        ] {
            assert!((UnaryOp::Erf.value(x) - expected).abs() < 4e-15, "{x}");
        }
        assert!(UnaryOp::Erf.value(f64::NAN).is_nan());
        assert!(UnaryOp::Erf.value(-0.0).is_sign_negative());
    }

    #[test]
    fn wgsl_of_both_widths() {
        assert_eq!(UnaryOp::Tanh.wgsl("v3", false), "tanh_(v3)");
        assert_eq!(BinaryOp::Max.wgsl("a", "b", true), "maximum_4(a, b)");
        assert_eq!(BinaryOp::Less.wgsl("v1", "v2", true), "vec4<f32>(v1 < v2)");
    }
}
