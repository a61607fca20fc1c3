//! Which algorithm computes which convolution: the one place where that is decided.

use schedule::ConvGeometry;

use super::algorithm::{ImageAlgorithm, WeightAlgorithm};
use super::depthwise::{Depthwise, DepthwiseWeights};
use super::direct::Direct;
use super::direct::weights::DirectWeights;
use super::stream::{Sink, Source};
use super::threads::ThreadPool;
use super::winograd::Winograd;
use super::winograd::weights::WinogradWeights;
use crate::isa::Isa;

/// How some shapes are computed faster than by the direct algorithm, which computes all: a matrix product of
/// all taps that is never written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Algorithm {
    /// F(4x4, 3x3): 3x3, stride 1, one group, whole vectors of channels.
    Winograd,
    /// One channel a group, at least a vector of channels.
    Depthwise,
}

/// What the fastest algorithm for a shape makes of it: the first that `special` has, else `direct`. The wider
/// instruction set comes first, but a narrower one that fits the channels before a slower algorithm.
fn fastest<P>(special: impl Fn(Algorithm, Isa) -> Option<P>, direct: impl FnOnce(Isa) -> P) -> P {
    let algorithms = [Algorithm::Winograd, Algorithm::Depthwise];
    let pairs = algorithms.into_iter().flat_map(|a| Isa::available().iter().map(move |&isa| (a, isa)));
    let mut found = pairs.filter_map(|(algorithm, isa)| special(algorithm, isa));
    found.next().unwrap_or_else(|| direct(Isa::best()))
}

fn check(geometry: &ConvGeometry, isa: Isa) {
    assert!(geometry.is_valid(), "not a convolution: {geometry:?}");
    assert!(Isa::available().contains(&isa), "this machine does not have {isa:?}");
}

/// A forward pass or an input gradient with its algorithm chosen and its memory needs known.
#[derive(Debug)]
pub struct ImagePlan {
    algorithm: Box<dyn ImageAlgorithm>,
}

impl ImagePlan {
    /// `y = conv(x, w)`: the operand `x` is `[n, h, w, cin]`, the result `[n, oh, ow, cout]`. The fastest
    /// algorithm for this shape on this machine.
    ///
    /// # Panics
    /// If the geometry is not [valid](ConvGeometry::is_valid).
    pub fn forward(geometry: &ConvGeometry) -> ImagePlan {
        ImagePlan::fastest(geometry, false)
    }

    /// The gradient of a forward pass with respect to `x`: the operand `dy` is `[n, oh, ow, cout]`, the
    /// result `[n, h, w, cin]`.
    ///
    /// # Panics
    /// If the geometry is not [valid](ConvGeometry::is_valid).
    pub fn input_grad(geometry: &ConvGeometry) -> ImagePlan {
        ImagePlan::fastest(geometry, true)
    }

    fn fastest(g: &ConvGeometry, adjoint: bool) -> ImagePlan {
        fastest(
            |algorithm, isa| ImagePlan::with(g, adjoint, algorithm, isa),
            |isa| ImagePlan::direct(g, adjoint, isa),
        )
    }

    pub(super) fn direct(g: &ConvGeometry, adjoint: bool, isa: Isa) -> ImagePlan {
        check(g, isa);
        ImagePlan { algorithm: Box::new(Direct::new(g, adjoint, isa)) }
    }

    /// A forward pass or, `adjoint`, an input gradient by a given algorithm; nothing if that does not
    /// compute this shape.
    pub(super) fn with(g: &ConvGeometry, adjoint: bool, algorithm: Algorithm, isa: Isa) -> Option<ImagePlan> {
        check(g, isa);
        let algorithm: Box<dyn ImageAlgorithm> = match algorithm {
            Algorithm::Winograd => Box::new(Winograd::new(g, adjoint, isa)?),
            Algorithm::Depthwise => Box::new(Depthwise::new(g, adjoint, isa)?),
        };
        Some(ImagePlan { algorithm })
    }

    /// Rows, columns and channels of an image of the operand.
    pub fn operand(&self) -> [usize; 3] {
        self.algorithm.bands().geometry.from
    }

    /// Rows, columns and channels of an image of the result.
    pub fn result(&self) -> [usize; 3] {
        self.algorithm.bands().geometry.to
    }

    /// Rows of the result in one [`Sink`] call (the last call of an image may have fewer). Does not
    /// depend on the number of threads.
    pub fn tile_rows(&self) -> usize {
        self.algorithm.bands().rows
    }

    /// Floats of the packed weights.
    pub fn packed_len(&self) -> usize {
        self.algorithm.packed_len()
    }

    /// Lays out weights `[cout, cin / groups, kh, kw]` for this plan.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn pack(&self, pool: &ThreadPool, weights: &[f32], packed: &mut [f32]) {
        let g = &self.algorithm.bands().geometry;
        assert_eq!(weights.len(), g.from[2] * g.group_channels[1] * g.taps(), "weights of {self:?}");
        assert_eq!(packed.len(), self.packed_len(), "packed weights of {self:?}");
        self.algorithm.pack(pool, weights, packed);
    }

    /// Floats of scratch memory that a call on so many threads needs.
    pub fn scratch_len(&self, threads: usize) -> usize {
        threads * self.algorithm.scratch_len()
    }

    /// Computes it.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn run(
        &self,
        pool: &ThreadPool,
        source: Source,
        packed: &[f32],
        sink: &dyn Sink,
        scratch: &mut [f32],
    ) {
        let bands = self.algorithm.bands();
        let g = &bands.geometry;
        source.check(g.images, g.from);
        if let Some(target) = sink.target() {
            assert_eq!(target.len(), g.images * g.to.iter().product::<usize>(), "result of {self:?}");
        }
        assert_eq!(packed.len(), self.packed_len(), "packed weights of {self:?}");
        let scratch = &mut scratch[..self.scratch_len(pool.threads())];
        bands.run(&*self.algorithm, pool, source, packed, sink, scratch);
    }
}

/// A weight gradient with its algorithm chosen and its memory needs known.
#[derive(Debug)]
pub struct WeightPlan {
    pub(super) geometry: ConvGeometry,
    pub(super) algorithm: Box<dyn WeightAlgorithm>,
}

impl WeightPlan {
    /// The gradient of `conv(x, w)` with respect to `w`, by the fastest algorithm for this shape on this
    /// machine.
    ///
    /// # Panics
    /// If the geometry is not [valid](ConvGeometry::is_valid).
    pub fn new(geometry: &ConvGeometry) -> WeightPlan {
        let special = |algorithm, isa| {
            // Winograd's rounding error should be at most four times a direct convolution's. That of tiny
            // images is not: a direct sum over so few pixels is very accurate (4x4: 4.1 to 6.8 times,
            // 6x6: 4.3 times, 7x7: 3.6 times).
            let is_accurate = geometry.out_height.min(geometry.out_width) >= 7;
            let fits = algorithm != Algorithm::Winograd || is_accurate;
            fits.then(|| WeightPlan::with(geometry, algorithm, isa))?
        };
        fastest(special, |isa| WeightPlan::direct(geometry, isa))
    }

    pub(super) fn direct(g: &ConvGeometry, isa: Isa) -> WeightPlan {
        check(g, isa);
        WeightPlan { geometry: g.clone(), algorithm: Box::new(DirectWeights::new(g, isa)) }
    }

    /// The same by a given algorithm; nothing if that does not compute this shape.
    pub(super) fn with(g: &ConvGeometry, algorithm: Algorithm, isa: Isa) -> Option<WeightPlan> {
        check(g, isa);
        let algorithm: Box<dyn WeightAlgorithm> = match algorithm {
            Algorithm::Winograd => Box::new(WinogradWeights::new(g, isa)?),
            Algorithm::Depthwise => Box::new(DepthwiseWeights::new(g, isa)?),
        };
        Some(WeightPlan { geometry: g.clone(), algorithm })
    }

    /// Floats of scratch memory that a call on so many threads needs.
    pub fn scratch_len(&self, threads: usize) -> usize {
        self.algorithm.scratch_len(threads)
    }

    /// Computes it, as PyTorch lays it out, `[cout, cin / groups, kh, kw]`: `x` is `[n, h, w, cin]`, `dy` is
    /// `[n, oh, ow, cout]`.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn run(&self, pool: &ThreadPool, x: Source, dy: Source, dw: &mut [f32], scratch: &mut [f32]) {
        let g = &self.geometry;
        x.check(g.batch, [g.height, g.width, g.in_channels]);
        dy.check(g.batch, [g.out_height, g.out_width, g.out_channels]);
        assert_eq!(dw.len(), g.weight_shape().iter().product::<usize>(), "weight gradient of {g:?}");
        let scratch = &mut scratch[..self.scratch_len(pool.threads())];
        self.algorithm.run(pool, x, dy, dw, scratch);
    }
}
