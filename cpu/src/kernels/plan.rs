//! Which algorithm computes which convolution: the one place where that is decided.

use super::depthwise::Depthwise;
use super::direct::Direct;
use super::direct::weights::DirectWeights;
use super::shape::ConvShape;
use super::simd::Isa;
use super::winograd::Winograd;
use super::winograd::weights::WinogradWeights;
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
    /// A matrix product for every tap and row of pixels; any shape.
    General,
    /// One channel a group, at least a vector of channels.
    Depthwise,
    /// A matrix product of all taps that is never written out: any shape but depthwise ones, and
    /// input gradients that are strided and dilated at once.
    Direct,
    /// F(4x4, 3x3): 3x3, stride 1, one group, whole vectors of channels.
    Winograd,
}

#[derive(Clone, Debug)]
pub(super) enum Chosen {
    General,
    Depthwise(Depthwise),
    Direct(Direct),
    DirectWeights(DirectWeights),
    Winograd(Winograd),
    WinogradWeights(WinogradWeights),
}

/// Whether Winograd's rounding error is at most four times a direct convolution's. Only the weight
/// gradient of tiny images is worse: a direct sum over so few pixels is very accurate (4x4: 4.1 to 6.8
/// times, 6x6: 4.3 times, 7x7: 3.6 times).
fn winograd_is_accurate(pass: Pass, shape: &ConvShape) -> bool {
    pass != Pass::WeightGrad || shape.oh().min(shape.ow()) >= 7
}

/// A convolution pass with its algorithm chosen and its memory needs known.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) pass: Pass,
    pub(super) shape: ConvShape,
    pub(super) chosen: Chosen,
}

impl Plan {
    /// Chooses the algorithm that is fastest for this shape on this machine.
    ///
    /// # Panics
    /// If the shape is not [valid](ConvShape::is_valid).
    pub fn new(pass: Pass, shape: ConvShape) -> Plan {
        let isas = Isa::available();
        // By decreasing speed; the wider instruction set first, but a narrower one that fits the
        // channels before a slower algorithm.
        [Algorithm::Winograd, Algorithm::Depthwise, Algorithm::Direct]
            .into_iter()
            .filter(|&algorithm| algorithm != Algorithm::Winograd || winograd_is_accurate(pass, &shape))
            .flat_map(|algorithm| isas.iter().map(move |&isa| (algorithm, isa)))
            .find_map(|(algorithm, isa)| Plan::with(pass, shape, algorithm, isa))
            .unwrap_or(Plan { pass, shape, chosen: Chosen::General })
    }

    /// The same with a given algorithm and instruction set, or nothing if the algorithm does not
    /// handle this shape or the machine does not have the instructions.
    ///
    /// # Panics
    /// If the shape is not [valid](ConvShape::is_valid).
    pub fn with(pass: Pass, shape: ConvShape, algorithm: Algorithm, isa: Isa) -> Option<Plan> {
        assert!(shape.is_valid(), "not a convolution: {shape:?}");
        if !Isa::available().contains(&isa) {
            return None;
        }
        let chosen = match algorithm {
            Algorithm::General => Chosen::General,
            Algorithm::Depthwise => Chosen::Depthwise(Depthwise::new(pass, &shape, isa)?),
            Algorithm::Direct if pass == Pass::WeightGrad => {
                Chosen::DirectWeights(DirectWeights::new(&shape, isa)?)
            }
            Algorithm::Direct => Chosen::Direct(Direct::new(pass, &shape, isa)?),
            Algorithm::Winograd if pass == Pass::WeightGrad => {
                Chosen::WinogradWeights(WinogradWeights::new(&shape, isa)?)
            }
            Algorithm::Winograd => Chosen::Winograd(Winograd::new(pass, &shape, isa)?),
        };
        Some(Plan { pass, shape, chosen })
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
        match self.chosen {
            Chosen::General => Algorithm::General,
            Chosen::Depthwise(_) => Algorithm::Depthwise,
            Chosen::Direct(_) | Chosen::DirectWeights(_) => Algorithm::Direct,
            Chosen::Winograd(_) | Chosen::WinogradWeights(_) => Algorithm::Winograd,
        }
    }

    /// Floats of the packed weights; 0 for a weight gradient, which takes none.
    pub fn packed_len(&self) -> usize {
        match &self.chosen {
            Chosen::General if self.pass == Pass::WeightGrad => 0,
            Chosen::General => general::packed_len(&self.shape),
            Chosen::Depthwise(_) if self.pass == Pass::WeightGrad => 0,
            Chosen::Depthwise(plan) => plan.packed_len(),
            Chosen::Direct(plan) => plan.packed_len(),
            Chosen::Winograd(plan) => plan.packed_len(),
            Chosen::DirectWeights(_) | Chosen::WinogradWeights(_) => 0,
        }
    }

    /// Lays out weights `[Cout, Cin / groups, kh, kw]` for this plan.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn pack(&self, pool: &Pool, weights: &[f32], packed: &mut [f32]) {
        assert_eq!(weights.len(), self.shape.weight_len(), "weights of {:?}", self.shape);
        assert_eq!(packed.len(), self.packed_len(), "packed weights of {:?}", self.shape);
        match &self.chosen {
            Chosen::General if self.pass == Pass::WeightGrad => {}
            Chosen::General => general::pack(pool, &self.shape, self.pass, weights, packed),
            Chosen::Depthwise(_) if self.pass == Pass::WeightGrad => {}
            Chosen::Depthwise(plan) => plan.pack(weights, packed),
            Chosen::Direct(plan) => plan.pack(pool, weights, packed),
            Chosen::Winograd(plan) => plan.pack(pool, weights, packed),
            Chosen::DirectWeights(_) | Chosen::WinogradWeights(_) => {}
        }
    }

    /// Floats of scratch memory that a call on `threads` threads needs.
    pub fn workspace_len(&self, threads: usize) -> usize {
        match &self.chosen {
            Chosen::General if self.pass == Pass::WeightGrad => {
                general::weight_grad_workspace(&self.shape, threads)
            }
            Chosen::General => general::workspace(&self.shape, self.pass, threads),
            Chosen::Depthwise(plan) if self.pass == Pass::WeightGrad => plan.weights_workspace(threads),
            Chosen::Depthwise(plan) => plan.workspace(threads),
            Chosen::Direct(plan) => plan.workspace(threads),
            Chosen::Winograd(plan) => plan.workspace(threads),
            Chosen::DirectWeights(plan) => plan.workspace(threads),
            Chosen::WinogradWeights(plan) => plan.workspace(threads),
        }
    }

    /// Rows of the result in one [`Sink`](super::Sink) call (the last call of an image may have
    /// fewer). Does not depend on the number of threads.
    pub fn tile_rows(&self) -> usize {
        match &self.chosen {
            Chosen::Depthwise(plan) => plan.tile_rows(),
            Chosen::Direct(plan) => plan.tile_rows(),
            Chosen::Winograd(plan) => plan.tile_rows(),
            _ => general::tile_rows(&self.shape, self.pass),
        }
    }
}
