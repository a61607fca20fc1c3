//! Which algorithm computes which convolution: the one place where that is decided.

use super::shape::ConvShape;
use super::{Pool, general};

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// `x, w -> y`
    Forward,
    /// `dy, w -> dx`
    InputGrad,
    /// `x, dy -> dw`
    WeightGrad,
}

/// How it is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// Plain loops; any shape.
    General,
}

/// A convolution pass with its algorithm chosen and its memory needs known.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) pass: Pass,
    pub(super) shape: ConvShape,
    pub(super) algorithm: Algorithm,
}

impl Plan {
    /// Chooses the algorithm that is fastest for this shape on this machine.
    ///
    /// # Panics
    /// If the shape is not [valid](ConvShape::is_valid).
    pub fn new(pass: Pass, shape: ConvShape) -> Plan {
        assert!(shape.is_valid(), "not a convolution: {shape:?}");
        Plan { pass, shape, algorithm: Algorithm::General }
    }

    /// The same with a given algorithm, or nothing if that does not handle this shape.
    ///
    /// # Panics
    /// If the shape is not [valid](ConvShape::is_valid).
    pub fn with(pass: Pass, shape: ConvShape, algorithm: Algorithm) -> Option<Plan> {
        assert!(shape.is_valid(), "not a convolution: {shape:?}");
        Some(Plan { pass, shape, algorithm })
    }

    /// What it computes.
    pub fn pass(&self) -> Pass {
        self.pass
    }

    /// The convolution it is for.
    pub fn shape(&self) -> ConvShape {
        self.shape
    }

    /// The algorithm chosen.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Floats of the packed weights; 0 for a weight gradient, which takes none.
    pub fn packed_len(&self) -> usize {
        match self.pass {
            Pass::WeightGrad => 0,
            _ => general::packed_len(&self.shape),
        }
    }

    /// Lays out weights `[Cout, Cin / groups, kh, kw]` for this plan.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn pack(&self, pool: &Pool, weights: &[f32], packed: &mut [f32]) {
        assert_eq!(weights.len(), self.shape.weight_len(), "weights of {:?}", self.shape);
        assert_eq!(packed.len(), self.packed_len(), "packed weights of {:?}", self.shape);
        if self.pass != Pass::WeightGrad {
            general::pack(pool, &self.shape, self.pass, weights, packed);
        }
    }

    /// Floats of scratch memory that a call on `threads` threads needs.
    pub fn workspace_len(&self, threads: usize) -> usize {
        match self.pass {
            Pass::WeightGrad => general::weight_grad_workspace(&self.shape, threads),
            pass => general::workspace(&self.shape, pass, threads),
        }
    }

    /// Rows of the result in one [`Sink`](super::Sink) call (the last call of an image may have
    /// fewer). Does not depend on the number of threads.
    pub fn tile_rows(&self) -> usize {
        general::tile_rows(&self.shape, self.pass)
    }
}
