//! Elementwise functions, with broadcasting as in NumPy: dims align from the right, 1 stretches.

use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::tensor::{BinaryOp, DType, Op, Tensor, UnaryOp};

/// The common shape of two operands, if there is one.
pub fn broadcast_shapes(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let dim = |s: &[usize], d: usize| if d + s.len() < rank { 1 } else { s[d + s.len() - rank] };
    (0..rank)
        .map(|d| match (dim(a, d), dim(b, d)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

impl Tensor {
    /// One operation of the table on every element, of an `f32` tensor of any shape; the result has that shape.
    #[track_caller]
    pub fn unary(&self, op: UnaryOp) -> Tensor {
        if self.dtype() != DType::F32 {
            return Tensor::invalid(Op::Unary(op).name(), &[self], "takes f32; use `.float()` first".into());
        }
        Tensor::make(Op::Unary(op), vec![self.clone()], self.shape().to_vec(), DType::F32)
    }

    /// One operation of the table on two operands that broadcast: both `f32`, or both integer for a comparison.
    /// The result is `f32` of the common shape.
    #[track_caller]
    pub fn binary(&self, op: BinaryOp, other: &Tensor) -> Tensor {
        let name = Op::Binary(op).name();
        if self.dtype() != other.dtype() {
            return Tensor::invalid(
                name,
                &[self, other],
                "one is integer, one is not; use `.float()`".into(),
            );
        }
        if self.dtype() == DType::I32 && !op.is_comparison() {
            return Tensor::invalid(
                name,
                &[self, other],
                "integers only compare; use `.float()` first".into(),
            );
        }
        let Some(shape) = broadcast_shapes(self.shape(), other.shape()) else {
            return Tensor::invalid(name, &[self, other], "shapes do not broadcast together".into());
        };
        let inputs = vec![self.broadcast_to(&shape), other.broadcast_to(&shape)];
        Tensor::make(Op::Binary(op), inputs, shape, DType::F32)
    }

    /// `e^x`; infinite above 88.7, where `f32` ends.
    #[track_caller]
    pub fn exp(&self) -> Tensor {
        self.unary(UnaryOp::Exp)
    }
    /// Natural logarithm.
    #[track_caller]
    pub fn log(&self) -> Tensor {
        self.unary(UnaryOp::Log)
    }
    /// The square root; NaN below 0, and its gradient at 0 is infinite.
    #[track_caller]
    pub fn sqrt(&self) -> Tensor {
        self.unary(UnaryOp::Sqrt)
    }
    /// `|x|`, with gradient 0 at 0.
    #[track_caller]
    pub fn abs(&self) -> Tensor {
        self.unary(UnaryOp::Abs)
    }
    /// `1 / x`.
    #[track_caller]
    pub fn reciprocal(&self) -> Tensor {
        self.unary(UnaryOp::Reciprocal)
    }
    /// The hyperbolic tangent.
    #[track_caller]
    pub fn tanh(&self) -> Tensor {
        self.unary(UnaryOp::Tanh)
    }
    /// The error function: `2 / sqrt(pi)` times the integral of `exp(-t^2)` from 0 to x.
    #[track_caller]
    pub fn erf(&self) -> Tensor {
        self.unary(UnaryOp::Erf)
    }
    /// `max(x, 0)`, with gradient 0 at 0.
    #[track_caller]
    pub fn relu(&self) -> Tensor {
        self.unary(UnaryOp::Relu)
    }
    /// `min(max(x, 0), 6)` (Krizhevsky, *Convolutional Deep Belief Networks on CIFAR-10*, 2010).
    #[track_caller]
    pub fn relu6(&self) -> Tensor {
        self.relu().minimum(&Tensor::scalar(6.0))
    }
    /// -1, 0 or 1, and 0 of NaN; no gradient.
    #[track_caller]
    pub fn sign(&self) -> Tensor {
        self.unary(UnaryOp::Sign)
    }
    /// The largest whole number that is not larger; no gradient.
    #[track_caller]
    pub fn floor(&self) -> Tensor {
        self.unary(UnaryOp::Floor)
    }
    /// `x * x`.
    #[track_caller]
    pub fn square(&self) -> Tensor {
        self * self
    }
    /// `1 / (1 + exp(-x))`, written with tanh, which does not overflow.
    #[track_caller]
    pub fn sigmoid(&self) -> Tensor {
        (self * 0.5).tanh() * 0.5 + 0.5
    }
    /// `x^exponent` for `x > 0`.
    #[track_caller]
    pub fn pow(&self, exponent: f64) -> Tensor {
        (self.log() * exponent).exp()
    }
    /// The larger of two, elementwise.
    #[track_caller]
    pub fn maximum(&self, other: &Tensor) -> Tensor {
        self.binary(BinaryOp::Max, other)
    }
    /// The smaller of two, elementwise.
    #[track_caller]
    pub fn minimum(&self, other: &Tensor) -> Tensor {
        self.binary(BinaryOp::Min, other)
    }
    /// 1 where `self < other`, else 0; no gradient. Also for integers.
    #[track_caller]
    pub fn less(&self, other: &Tensor) -> Tensor {
        self.binary(BinaryOp::Less, other)
    }
    /// 1 where `self <= other`, else 0; no gradient. Also for integers.
    #[track_caller]
    pub fn less_equal(&self, other: &Tensor) -> Tensor {
        self.binary(BinaryOp::LessEqual, other)
    }
    /// 1 where `self > other`, else 0; no gradient. Also for integers.
    #[track_caller]
    pub fn greater(&self, other: &Tensor) -> Tensor {
        other.binary(BinaryOp::Less, self)
    }
    /// 1 where `self == other`, else 0; no gradient. Also for integers.
    #[track_caller]
    pub fn equal(&self, other: &Tensor) -> Tensor {
        self.binary(BinaryOp::Equal, other)
    }

    /// Where `self` (the condition) is not 0: `yes`, else `no`. All three broadcast.
    #[track_caller]
    pub fn select(&self, yes: &Tensor, no: &Tensor) -> Tensor {
        let operands = [self, yes, no];
        if operands.iter().any(|t| t.dtype() != DType::F32) {
            return Tensor::invalid("select", &operands, "takes f32 operands".into());
        }
        let shape =
            broadcast_shapes(self.shape(), yes.shape()).and_then(|s| broadcast_shapes(&s, no.shape()));
        let Some(shape) = shape else {
            return Tensor::invalid("select", &operands, "shapes do not broadcast together".into());
        };
        let inputs = operands.iter().map(|t| t.broadcast_to(&shape)).collect();
        Tensor::make(Op::Select, inputs, shape, DType::F32)
    }

    /// Integer to `f32`.
    #[track_caller]
    pub fn float(&self) -> Tensor {
        match self.dtype() {
            DType::F32 => self.clone(),
            DType::I32 => Tensor::make(Op::Cast, vec![self.clone()], self.shape().to_vec(), DType::F32),
        }
    }
    /// `f32` to integer, rounding down.
    #[track_caller]
    pub fn to_integer(&self) -> Tensor {
        match self.dtype() {
            DType::I32 => self.clone(),
            DType::F32 => Tensor::make(Op::Cast, vec![self.floor()], self.shape().to_vec(), DType::I32),
        }
    }
    /// The same value, through which no gradient flows.
    #[track_caller]
    pub fn detach(&self) -> Tensor {
        Tensor::make(Op::Detach, vec![self.clone()], self.shape().to_vec(), self.dtype())
    }
}

/// Implements one operator for every mix of owned and borrowed tensors, and numbers on either side.
macro_rules! operator {
    ($trait:ident, $method:ident, $op:expr) => {
        impl $trait<&Tensor> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor {
                self.binary($op, other)
            }
        }
        impl $trait<Tensor> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor {
                self.binary($op, &other)
            }
        }
        impl $trait<&Tensor> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor {
                self.binary($op, other)
            }
        }
        impl $trait<Tensor> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor {
                self.binary($op, &other)
            }
        }
        impl $trait<f64> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: f64) -> Tensor {
                self.binary($op, &Tensor::scalar(other))
            }
        }
        impl $trait<f64> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: f64) -> Tensor {
                self.binary($op, &Tensor::scalar(other))
            }
        }
        impl $trait<&Tensor> for f64 {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor {
                Tensor::scalar(self).binary($op, other)
            }
        }
        impl $trait<Tensor> for f64 {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor {
                Tensor::scalar(self).binary($op, &other)
            }
        }
    };
}

operator!(Add, add, BinaryOp::Add);
operator!(Sub, sub, BinaryOp::Sub);
operator!(Mul, mul, BinaryOp::Mul);
operator!(Div, div, BinaryOp::Div);

impl Neg for &Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        self.unary(UnaryOp::Neg)
    }
}
impl Neg for Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        self.unary(UnaryOp::Neg)
    }
}
