//! Every algorithm against plain f64 loops, on ragged shapes, with plain and fused operands.

use std::ops::Range;

use autograd::Conv2d;
use schedule::{ConvGeometry, ConvKind};

use super::plan::Algorithm;
use super::winograd::weights::WinogradWeights;
use super::*;
use crate::isa::Isa;

/// `[N, H, W, Cin]` images and square weights with padding `k / 2`, no dilation and one group: what residual
/// networks are made of.
fn same(n: usize, size: usize, cin: usize, cout: usize, k: usize, stride: usize) -> ConvGeometry {
    ConvGeometry::new([n, size, size, cin], [cout, cin, k, k], Conv2d::new(stride, k / 2))
}

fn len(shape: [usize; 4]) -> usize {
    shape.iter().product()
}

/// A pass in f64 as its definition reads: the forward pass from `x` and `w`, the input gradient from `w` and
/// `dy`, or the weight gradient from `x` and `dy`.
fn exact(kind: ConvKind, g: &ConvGeometry, x: &[f32], w: &[f32], dy: &[f32]) -> Vec<f64> {
    plain(kind, g, x, w, dy, |a, b, sum| sum + a as f64 * b as f64)
}

/// The same by plain loops in any precision, given how a product is added to a sum.
fn plain<T: Copy + Default>(
    kind: ConvKind,
    g: &ConvGeometry,
    x: &[f32],
    w: &[f32],
    dy: &[f32],
    add: impl Fn(f32, f32, T) -> T,
) -> Vec<T> {
    let [cout, ci, kh, kw] = g.weight_shape();
    let [stride, pad, dilation] = [g.conv.stride, g.conv.padding, g.conv.dilation];
    let mut out = vec![T::default(); result_len(kind, g)];
    for n in 0..g.batch {
        for (oy, ox) in (0..g.out_height).flat_map(|y| (0..g.out_width).map(move |x| (y, x))) {
            for (ky, kx) in (0..kh).flat_map(|y| (0..kw).map(move |x| (y, x))) {
                let row = (oy * stride[0] + ky * dilation[0]).wrapping_sub(pad[0]);
                let column = (ox * stride[1] + kx * dilation[1]).wrapping_sub(pad[1]);
                if row >= g.height || column >= g.width {
                    continue;
                }
                for o in 0..cout {
                    let yi = ((n * g.out_height + oy) * g.out_width + ox) * cout + o;
                    for i in 0..ci {
                        let group = o / (cout / g.conv.groups);
                        let xi = ((n * g.height + row) * g.width + column) * g.in_channels + group * ci + i;
                        let wi = ((o * ci + i) * kh + ky) * kw + kx;
                        match kind {
                            ConvKind::Forward => out[yi] = add(x[xi], w[wi], out[yi]),
                            ConvKind::InputGrad => out[xi] = add(dy[yi], w[wi], out[xi]),
                            ConvKind::WeightGrad => out[wi] = add(x[xi], dy[yi], out[wi]),
                        }
                    }
                }
            }
        }
    }
    out
}

fn result_len(kind: ConvKind, g: &ConvGeometry) -> usize {
    len(match kind {
        ConvKind::Forward => g.output_shape(),
        ConvKind::InputGrad => g.input_shape(),
        ConvKind::WeightGrad => g.weight_shape(),
    })
}

/// Numbers in [-1, 1), the same on every machine.
fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
        })
        .collect()
}

/// An operand that is only known row by row, scaled by two as it is fetched.
struct Twice<'a> {
    data: &'a [f32],
    images: usize,
    dims: [usize; 3],
}

impl Fetch for Twice<'_> {
    fn rows(&self, image: usize, rows: Range<usize>, out: &mut [f32]) {
        let [height, width, channels] = self.dims;
        let start = (image * height + rows.start) * width * channels;
        out.iter_mut().zip(&self.data[start..]).for_each(|(out, v)| *out = v * 2.0);
    }

    fn ahead(&self, image: usize, rows: Range<usize>, part: usize, parts: usize) {
        let [height, ..] = self.dims;
        assert!(image < self.images && rows.start <= rows.end && rows.end <= height, "{image} {rows:?}");
        assert!(part < parts);
    }
}

/// A sink that stores by itself, adds one, and notes which blocks came.
struct PlusOne<'a> {
    out: SharedSlice<'a>,
    dims: [usize; 3],
    in_place: bool,
    seen: std::sync::Mutex<Vec<(usize, usize, usize)>>,
}

impl Sink for PlusOne<'_> {
    fn target(&self) -> Option<SharedSlice<'_>> {
        self.in_place.then_some(self.out)
    }

    fn finish(&self, image: usize, rows: Range<usize>, tile: &mut [f32]) {
        let [h, w, c] = self.dims;
        assert_eq!(tile.len(), rows.len() * w * c);
        self.seen.lock().unwrap().push((image, rows.start, rows.end));
        tile.iter_mut().for_each(|v| *v += 1.0);
        if !self.in_place {
            let start = (image * h + rows.start) * w * c;
            // SAFETY: every block comes once.
            unsafe { self.out.range(start..start + tile.len()) }.copy_from_slice(tile);
        }
    }
}

/// A plan of either type, with what it is for.
struct Plan {
    kind: ConvKind,
    geometry: ConvGeometry,
    plan: EitherPlan,
}

#[derive(Debug)]
enum EitherPlan {
    Images(ImagePlan),
    Weights(WeightPlan),
}

impl Plan {
    fn new(kind: ConvKind, g: &ConvGeometry) -> Plan {
        let plan = match kind {
            ConvKind::Forward => EitherPlan::Images(ImagePlan::forward(g)),
            ConvKind::InputGrad => EitherPlan::Images(ImagePlan::input_grad(g)),
            ConvKind::WeightGrad => EitherPlan::Weights(WeightPlan::new(g)),
        };
        Plan { kind, geometry: g.clone(), plan }
    }

    /// Nothing stands for the direct algorithm.
    fn with(kind: ConvKind, g: &ConvGeometry, algorithm: Option<Algorithm>, isa: Isa) -> Option<Plan> {
        let adjoint = kind == ConvKind::InputGrad;
        let plan = match kind {
            ConvKind::WeightGrad => EitherPlan::Weights(match algorithm {
                Some(algorithm) => WeightPlan::with(g, algorithm, isa)?,
                None => WeightPlan::direct(g, isa),
            }),
            _ => EitherPlan::Images(match algorithm {
                Some(algorithm) => ImagePlan::with(g, adjoint, algorithm, isa)?,
                None => ImagePlan::direct(g, adjoint, isa),
            }),
        };
        Some(Plan { kind, geometry: g.clone(), plan })
    }

    /// Scratch memory full of left-over values, which must not matter.
    fn scratch(&self, threads: usize) -> Vec<f32> {
        let len = match &self.plan {
            EitherPlan::Images(plan) => plan.scratch_len(threads),
            EitherPlan::Weights(plan) => plan.scratch_len(threads),
        };
        vec![f32::NAN; len]
    }

    /// Runs it; for images, `finish` receives the result.
    fn run(&self, pool: &ThreadPool, [x, dy]: [Source; 2], w: &[f32], out: &mut dyn FnMut(Sinking)) {
        let mut scratch = self.scratch(pool.threads());
        match &self.plan {
            EitherPlan::Images(plan) => {
                let mut packed = vec![f32::NAN; plan.packed_len()];
                plan.pack(pool, w, &mut packed);
                let source = if self.kind == ConvKind::Forward { x } else { dy };
                out(Sinking::Images(&mut |sink| plan.run(pool, source, &packed, sink, &mut scratch)));
            }
            EitherPlan::Weights(plan) => {
                out(Sinking::Weights(&mut |dw| plan.run(pool, x, dy, dw, &mut scratch)));
            }
        }
    }

    /// Runs it on dense operands.
    fn run_dense(&self, pool: &ThreadPool, x: &[f32], w: &[f32], dy: &[f32]) -> Vec<f32> {
        let [x, dy] = [(x, self.geometry.input_shape()), (dy, self.geometry.output_shape())]
            .map(|(data, [_, dims @ ..])| Source::dense(data, dims));
        let mut out = vec![f32::NAN; result_len(self.kind, &self.geometry)];
        self.run(pool, [x, dy], w, &mut |run| match run {
            Sinking::Images(run) => run(&SharedSlice::new(&mut out)),
            Sinking::Weights(run) => run(&mut out),
        });
        out
    }
}

/// What is left to say of a call: where its result goes.
enum Sinking<'a> {
    Images(&'a mut dyn FnMut(&dyn Sink)),
    Weights(&'a mut dyn FnMut(&mut [f32])),
}

/// Checks a plan against f64, with dense and with fused operands, on one and on three threads.
fn check(plan: &Plan, tolerance: f64) {
    let g = &plan.geometry;
    let (x, w) = (noise(1, len(g.input_shape())), noise(2, len(g.weight_shape())));
    let dy = noise(3, len(g.output_shape()));
    let want = exact(plan.kind, g, &x, &w, &dy);
    let norm = (want.iter().map(|v| v * v).sum::<f64>() / want.len() as f64).sqrt().max(1e-3);
    let close = |got: &[f32], f: &dyn Fn(f64) -> f64, what: &str| {
        for (at, (&got, &want)) in got.iter().zip(&want).enumerate() {
            let want = f(want);
            assert!(
                (got as f64 - want).abs() <= tolerance * norm.max(1.0),
                "{what}: {:?} {:?} at {at}: {got}, should be {want}",
                plan.kind,
                plan.plan
            );
        }
    };
    let mut first: Option<Vec<f32>> = None;
    for threads in [1, 3] {
        let pool = ThreadPool::new(threads);
        let got = plan.run_dense(&pool, &x, &w, &dy);
        close(&got, &|v| v, "dense");
        let same = first.get_or_insert_with(|| got.clone());
        assert!(
            same.iter().zip(&got).all(|(a, b)| a.to_bits() == b.to_bits()),
            "{:?} depends on the number of threads",
            plan.plan
        );

        let [twice_x, twice_dy] = [(&x, g.input_shape()), (&dy, g.output_shape())]
            .map(|(data, [images, dims @ ..])| Twice { data, images, dims });
        let sources = [&twice_x, &twice_dy].map(|twice| Source::computed(twice, twice.dims));
        for in_place in [false, true] {
            let mut out = vec![f32::NAN; want.len()];
            let mut is_of_images = false;
            plan.run(&pool, sources, &w, &mut |run| match run {
                Sinking::Weights(run) => run(&mut out),
                Sinking::Images(run) => {
                    is_of_images = true;
                    let EitherPlan::Images(images) = &plan.plan else { return };
                    let (dims, rows) = (images.result(), images.tile_rows());
                    let sink =
                        PlusOne { out: SharedSlice::new(&mut out), dims, in_place, seen: Default::default() };
                    run(&sink);
                    let mut seen = sink.seen.into_inner().unwrap();
                    seen.sort_unstable();
                    let blocks: Vec<_> = (0..g.batch)
                        .flat_map(|n| {
                            (0..dims[0]).step_by(rows).map(move |y| (n, y, (y + rows).min(dims[0])))
                        })
                        .collect();
                    assert_eq!(seen, blocks, "{images:?}");
                }
            });
            let expected: &dyn Fn(f64) -> f64 = if is_of_images { &|v| 2.0 * v + 1.0 } else { &|v| 4.0 * v };
            close(&out, expected, "fused");
        }
    }
}

const KINDS: [ConvKind; 3] = [ConvKind::Forward, ConvKind::InputGrad, ConvKind::WeightGrad];

/// A convolution with everything given: images `[N, H, W, Cin]`, weights, stride, padding, dilation, groups.
fn odd(
    input: [usize; 4],
    weight: [usize; 4],
    [stride, padding, dilation]: [[usize; 2]; 3],
    groups: usize,
) -> ConvGeometry {
    ConvGeometry::new(input, weight, Conv2d { stride, padding, dilation, groups })
}

/// Shapes with every kind of raggedness: sizes, channels, strides, padding, dilation, groups.
fn ragged_shapes() -> Vec<ConvGeometry> {
    const ONE: [usize; 2] = [1, 1];
    vec![
        same(2, 7, 3, 5, 3, 1),
        same(1, 9, 16, 16, 3, 1),
        same(3, 8, 20, 33, 3, 1),
        same(2, 10, 16, 17, 3, 2),
        same(2, 9, 5, 48, 3, 2),
        same(2, 6, 24, 40, 1, 1),
        same(2, 7, 18, 20, 1, 2),
        depthwise(6, 2, 7, 3, 1),
        depthwise(20, 2, 8, 3, 2),
        depthwise(3, 2, 6, 3, 2),
        // Two results of each channel, and one of each two.
        odd([2, 6, 7, 5], [10, 1, 3, 3], [[2, 1], ONE, ONE], 5),
        odd([2, 6, 7, 10], [5, 2, 3, 3], [ONE, ONE, ONE], 5),
        odd([2, 5, 5, 24], [48, 8, 1, 1], [ONE, [0, 0], ONE], 3),
        odd([2, 6, 6, 6], [4, 3, 3, 3], [[2, 2], ONE, ONE], 2),
        odd([2, 9, 9, 4], [6, 4, 3, 3], [ONE, [0, 2], [1, 2]], 1),
        // Strided and dilated at once: with and without a common divisor, and more than the kernel.
        odd([2, 9, 11, 4], [6, 4, 3, 3], [[2, 2], [2, 2], [2, 3]], 1),
        odd([2, 13, 12, 4], [6, 4, 3, 2], [[3, 4], [2, 0], [2, 6]], 1),
        odd([2, 12, 12, 20], [20, 1, 3, 3], [[2, 2], [2, 2], [2, 3]], 20),
        odd([1, 8, 11, 7], [9, 7, 5, 2], [[3, 1], [2, 0], ONE], 1),
        odd([1, 1, 1, 2], [2, 2, 3, 3], [ONE, [2, 2], ONE], 1),
        odd([2, 9, 9, 3], [3, 3, 2, 2], [[4, 4], [0, 0], ONE], 1),
    ]
}

/// Checks every plan that an algorithm offers for the shapes.
fn check_algorithm(algorithm: Option<Algorithm>, shapes: &[ConvGeometry], tolerance: f64) {
    for &isa in Isa::available() {
        for kind in KINDS {
            let plans = shapes.iter().filter_map(|g| Plan::with(kind, g, algorithm, isa));
            assert!(plans.map(|plan| check(&plan, tolerance)).count() > 0, "{algorithm:?} {isa:?} {kind:?}");
        }
    }
}

#[test]
fn direct() {
    let more = [
        same(1, 32, 16, 16, 3, 1),
        same(2, 16, 48, 64, 3, 2),
        same(2, 8, 64, 48, 1, 1),
        same(2, 17, 3, 16, 3, 1),
        same(1, 64, 16, 40, 3, 2),
        odd([2, 9, 9, 16], [16, 16, 1, 1], [[2, 2], [0, 0], [1, 1]], 1),
        odd([1, 9, 9, 18], [16, 18, 3, 3], [[1, 1], [2, 2], [2, 2]], 1),
        odd([1, 12, 12, 3], [20, 3, 3, 7], [[2, 2], [1, 3], [1, 1]], 1),
    ];
    let shapes: Vec<_> = ragged_shapes().into_iter().chain(more).collect();
    check_algorithm(None, &shapes, 4e-5);
}

/// One channel a group, with padding `k / 2`.
fn depthwise(channels: usize, n: usize, size: usize, k: usize, stride: usize) -> ConvGeometry {
    let conv = Conv2d::new(stride, k / 2).groups(channels);
    ConvGeometry::new([n, size, size, channels], [channels, 1, k, k], conv)
}

#[test]
fn depthwise_shapes() {
    let shapes = [
        depthwise(16, 2, 8, 3, 1),
        depthwise(58, 2, 9, 3, 1),
        depthwise(20, 18, 10, 3, 2),
        depthwise(33, 2, 7, 5, 2),
        depthwise(8, 1, 2, 3, 1),
        depthwise(64, 1, 40, 3, 1),
        odd([2, 9, 9, 24], [24, 1, 3, 3], [[1, 1], [0, 2], [2, 1]], 24),
        odd([2, 9, 9, 18], [18, 1, 1, 1], [[3, 3], [0, 0], [1, 1]], 18),
        odd([2, 12, 12, 20], [20, 1, 3, 3], [[2, 2], [2, 2], [2, 3]], 20),
    ];
    check_algorithm(Some(Algorithm::Depthwise), &shapes, 4e-5);
}

/// Shapes with whole vectors of channels, images that are and are not whole tiles, groups of
/// several images with a remainder, and bands of one.
fn winograd_shapes() -> Vec<ConvGeometry> {
    let same = |n, size, cin, cout| same(n, size, cin, cout, 3, 1);
    let padded = |input, weight, padding| odd(input, weight, [[1, 1], padding, [1, 1]], 1);
    vec![
        same(1, 4, 16, 16),
        same(9, 8, 16, 32),
        same(7, 7, 32, 48),
        same(2, 5, 48, 16),
        same(2, 32, 16, 16),
        same(1, 30, 32, 64),
        same(3, 3, 16, 16),
        same(3, 6, 8, 24),
        same(2, 9, 4, 20),
        padded([2, 11, 19, 16], [32, 16, 3, 3], [1, 1]),
        padded([2, 10, 10, 16], [16, 16, 3, 3], [0, 0]),
        padded([2, 6, 6, 16], [16, 16, 3, 3], [2, 1]),
        padded([2, 2, 1, 32], [16, 32, 3, 3], [1, 1]),
    ]
}

#[test]
fn winograd() {
    check_algorithm(Some(Algorithm::Winograd), &winograd_shapes(), 1e-4);
}

/// The weight gradient's other way, one sum for all threads, in one group and in several.
#[test]
fn winograd_weights_with_a_shared_sum() {
    for geometry in winograd_shapes() {
        for &isa in Isa::available() {
            for floats in [1 << 22, 1] {
                if let Some(weights) = WinogradWeights::with_limits(&geometry, isa, 0, floats) {
                    let plan = WeightPlan { geometry: geometry.clone(), algorithm: Box::new(weights) };
                    let (kind, geometry) = (ConvKind::WeightGrad, geometry.clone());
                    check(&Plan { kind, geometry, plan: EitherPlan::Weights(plan) }, 1e-4);
                }
            }
        }
    }
}

/// Root mean square of the error against f64, over that of the exact result.
fn relative_error(got: &[f32], want: &[f64]) -> f64 {
    let error: f64 = got.iter().zip(want).map(|(&g, w)| (g as f64 - w).powi(2)).sum();
    (error / want.iter().map(|w| w * w).sum::<f64>()).sqrt()
}

/// The bound that decides whether Winograd's algorithm is used at all: at most four times the
/// rounding error of a direct convolution, for every shape of the CIFAR networks that it computes
/// (fewer images, since f64 is slow).
///
/// A direct forward pass or input gradient is one chain of fused multiply-adds for each result, as
/// in PyTorch's. Over all pixels of a batch such a chain would be a weak bound, so that the weight
/// gradient is compared with the direct algorithm here, which splits it up.
#[test]
fn winograd_rounds_at_most_four_times_as_much_as_direct() {
    println!("relative error against f64            chain    direct  winograd  over chain, direct");
    let isa = Isa::available()[0];
    // Images, height and width, channels in and out: residual networks, wide ones, and vgg.
    let shapes = [
        (16, 32, 16, 16),
        (16, 16, 32, 32),
        (64, 8, 64, 64),
        (2, 32, 16, 32),
        (2, 32, 32, 32),
        (2, 32, 32, 64),
        (1, 32, 64, 64),
        (4, 16, 64, 64),
        (2, 16, 64, 128),
        (2, 16, 128, 128),
        (32, 8, 128, 128),
        (32, 8, 128, 256),
        (32, 8, 256, 256),
        (2, 4, 256, 512),
        (1, 4, 512, 512),
    ];
    let check = |(n, size, inputs, outputs): (usize, usize, usize, usize)| {
        let shape = same(n, size, inputs, outputs, 3, 1);
        // Activations after a ReLU, and gradients of both signs.
        let x: Vec<f32> = noise(1, len(shape.input_shape())).iter().map(|v| v.max(0.0)).collect();
        let (w, dy) = (noise(2, len(shape.weight_shape())), noise(3, len(shape.output_shape())));
        for kind in KINDS {
            // The weight gradient of tiny images is more than four times worse, so it is not used there.
            let chosen = format!("{:?}", Plan::new(kind, &shape).plan);
            let tiny = kind == ConvKind::WeightGrad && size < 7;
            assert_eq!(chosen.contains("Direct"), tiny, "{kind:?} of {shape:?}: {chosen}");
            if tiny {
                continue;
            }
            let want = exact(kind, &shape, &x, &w, &dy);
            let error = |algorithm| {
                let plan = Plan::with(kind, &shape, algorithm, isa).unwrap();
                relative_error(&plan.run_dense(&ThreadPool::new(2), &x, &w, &dy), &want)
            };
            let (direct, winograd) = (error(None), error(Some(Algorithm::Winograd)));
            let chain = plain(kind, &shape, &x, &w, &dy, f32::mul_add);
            let chain = relative_error(&chain, &want);
            let what = format!("{inputs:>3} -> {outputs:<3} {size}x{size} {kind:?}");
            let ratios = [winograd / chain, winograd / direct];
            println!(
                "{what:34}  {chain:8.1e}  {direct:8.1e}  {winograd:8.1e}  {:5.2}  {:5.2}",
                ratios[0], ratios[1]
            );
            let ratio = if kind == ConvKind::WeightGrad { ratios[1] } else { ratios[0] };
            assert!(ratio <= 4.0, "{kind:?} of {shape:?}: {ratio}");
        }
    };
    // The sums in f64 take long: every shape on a thread of its own.
    std::thread::scope(|scope| {
        for shape in shapes {
            scope.spawn(move || check(shape));
        }
    });
}

#[test]
fn the_chosen_plan() {
    for shape in ragged_shapes().into_iter().chain(winograd_shapes()) {
        for kind in KINDS {
            check(&Plan::new(kind, &shape), 1e-4);
        }
    }
}
