//! Every algorithm against plain f64 loops, on ragged shapes, with plain and fused operands.

use std::ops::Range;

use super::exact::plain;
use super::*;

/// Numbers in [-1, 1), the same on every machine.
pub(super) fn noise(seed: u64, len: usize) -> Vec<f32> {
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

/// A tensor that is only known row by row, scaled by two as it is fetched.
struct Twice<'a>(Dense<'a>, [usize; 2]);

impl Source for Twice<'_> {
    fn rows(&self, image: usize, rows: Range<usize>, out: &mut [f32]) {
        self.0.rows(image, rows, out);
        out.iter_mut().for_each(|v| *v *= 2.0);
    }

    fn ahead(&self, image: usize, rows: Range<usize>, part: usize, parts: usize) {
        let [images, height] = self.1;
        assert!(image < images && rows.start <= rows.end && rows.end <= height, "{image} {rows:?}");
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

/// Runs a plan on dense operands.
pub(super) fn run_dense(
    pool: &Pool,
    plan: &Plan,
    x: &[f32],
    w: &[f32],
    dy: &[f32],
    workspace: &mut Workspace,
) -> Vec<f32> {
    let s = plan.shape();
    let x = Dense::new(x, s.h, s.w, s.cin);
    let dy = Dense::new(dy, s.oh(), s.ow(), s.cout);
    let mut packed = vec![f32::NAN; plan.packed_len()];
    plan.pack(pool, w, &mut packed);
    let mut out;
    match plan.pass() {
        Pass::Forward => {
            out = vec![f32::NAN; s.output_len()];
            forward(pool, plan, &x, &packed, &Store::new(&mut out), workspace);
        }
        Pass::InputGrad => {
            out = vec![f32::NAN; s.input_len()];
            input_grad(pool, plan, &dy, &packed, &Store::new(&mut out), workspace);
        }
        Pass::WeightGrad => {
            out = vec![f32::NAN; s.weight_len()];
            weight_grad(pool, plan, &x, &dy, &mut out, workspace);
        }
    }
    out
}

/// Checks a plan against f64, with dense and with fused operands, on one and on three threads.
pub(super) fn check(plan: &Plan, tolerance: f64) {
    let s = plan.shape();
    let (x, w, dy) = (noise(1, s.input_len()), noise(2, s.weight_len()), noise(3, s.output_len()));
    let want = exact(plan.pass(), &s, &x, &w, &dy);
    let norm = (want.iter().map(|v| v * v).sum::<f64>() / want.len() as f64).sqrt().max(1e-3);
    let close = |got: &[f32], f: &dyn Fn(f64) -> f64, what: &str| {
        for (at, (&got, &want)) in got.iter().zip(&want).enumerate() {
            let want = f(want);
            assert!(
                (got as f64 - want).abs() <= tolerance * norm.max(1.0),
                "{what}: {plan:?} at {at}: {got}, should be {want}"
            );
        }
    };
    let mut first: Option<Vec<f32>> = None;
    for threads in [1, 3] {
        let pool = Pool::new(threads);
        // Left-over values must not matter.
        let mut workspace = Workspace::new();
        workspace.reserve(plan.workspace_len(threads));
        let len = workspace.len();
        workspace.get(len).fill(f32::NAN);
        let got = run_dense(&pool, plan, &x, &w, &dy, &mut workspace);
        assert_eq!(workspace.len(), len, "workspace_len is too small for {plan:?}");
        close(&got, &|v| v, "dense");
        let same = first.get_or_insert_with(|| got.clone());
        assert!(
            same.iter().zip(&got).all(|(a, b)| a.to_bits() == b.to_bits()),
            "{plan:?} depends on the number of threads"
        );

        let x_source = Twice(Dense::new(&x, s.h, s.w, s.cin), [s.n, s.h]);
        let dy_source = Twice(Dense::new(&dy, s.oh(), s.ow(), s.cout), [s.n, s.oh()]);
        if plan.pass() == Pass::WeightGrad {
            let mut out = vec![f32::NAN; s.weight_len()];
            weight_grad(&pool, plan, &x_source, &dy_source, &mut out, &mut workspace);
            close(&out, &|v| 4.0 * v, "fused");
            continue;
        }
        let mut packed = vec![f32::NAN; plan.packed_len()];
        plan.pack(&pool, &w, &mut packed);
        for in_place in [false, true] {
            let dims = match plan.pass() {
                Pass::Forward => [s.oh(), s.ow(), s.cout],
                _ => [s.h, s.w, s.cin],
            };
            let mut out = vec![f32::NAN; want.len()];
            let sink = PlusOne { out: SharedSlice::new(&mut out), dims, in_place, seen: Default::default() };
            match plan.pass() {
                Pass::Forward => {
                    forward(&pool, plan, &x_source, &packed, &sink, &mut workspace);
                }
                _ => input_grad(&pool, plan, &dy_source, &packed, &sink, &mut workspace),
            }
            let mut seen = sink.seen.into_inner().unwrap();
            seen.sort_unstable();
            let rows = plan.tile_rows();
            let blocks: Vec<_> = (0..s.n)
                .flat_map(|n| (0..dims[0]).step_by(rows).map(move |y| (n, y, (y + rows).min(dims[0]))))
                .collect();
            assert_eq!(seen, blocks, "{plan:?}");
            close(&out, &|v| 2.0 * v + 1.0, "fused");
        }
    }
}

const PASSES: [Pass; 3] = [Pass::Forward, Pass::InputGrad, Pass::WeightGrad];

/// Shapes with every kind of raggedness: sizes, channels, strides, padding, dilation, groups.
fn ragged_shapes() -> Vec<ConvShape> {
    let same = ConvShape::same;
    vec![
        same(2, 7, 3, 5, 3, 1),
        same(1, 9, 16, 16, 3, 1),
        same(3, 8, 20, 33, 3, 1),
        same(2, 10, 16, 17, 3, 2),
        same(2, 9, 5, 48, 3, 2),
        same(2, 6, 24, 40, 1, 1),
        same(2, 7, 18, 20, 1, 2),
        ConvShape { groups: 6, ..same(2, 7, 6, 6, 3, 1) },
        ConvShape { groups: 20, ..same(2, 8, 20, 20, 3, 2) },
        ConvShape { groups: 3, ..same(2, 5, 24, 48, 1, 1) },
        ConvShape { groups: 2, ..same(2, 6, 6, 4, 3, 2) },
        ConvShape { pad: [0, 2], dilation: [1, 2], ..same(2, 9, 4, 6, 3, 1) },
        ConvShape { w: 11, kh: 5, kw: 2, stride: [3, 1], pad: [2, 0], ..same(1, 8, 7, 9, 1, 1) },
        ConvShape { h: 1, w: 1, pad: [2, 2], ..same(1, 1, 2, 2, 3, 1) },
        ConvShape { pad: [0, 0], stride: [4, 4], ..same(2, 9, 3, 3, 2, 1) },
    ]
}

/// Checks every plan that an algorithm offers for the shapes; there must be some for each pass.
fn check_algorithm(algorithm: Algorithm, shapes: &[ConvShape], tolerance: f64) {
    for isa in Isa::available() {
        for pass in PASSES {
            let plans: Vec<Plan> =
                shapes.iter().filter_map(|&shape| Plan::with(pass, shape, algorithm, isa)).collect();
            for plan in plans {
                assert_eq!(plan.algorithm(), algorithm);
                check(&plan, tolerance);
            }
        }
    }
}

#[test]
fn general() {
    check_algorithm(Algorithm::General, &ragged_shapes(), 4e-5);
}

#[test]
fn direct() {
    let same = ConvShape::same;
    let more = [
        same(1, 32, 16, 16, 3, 1),
        same(2, 16, 48, 64, 3, 2),
        same(2, 8, 64, 48, 1, 1),
        same(2, 17, 3, 16, 3, 1),
        same(1, 64, 16, 40, 3, 2),
        ConvShape { pad: [0, 0], ..same(2, 9, 16, 16, 1, 2) },
        ConvShape { dilation: [2, 2], pad: [2, 2], ..same(1, 9, 18, 16, 3, 1) },
        ConvShape { kw: 7, pad: [1, 3], ..same(1, 12, 3, 20, 3, 2) },
    ];
    let shapes: Vec<_> = ragged_shapes().into_iter().chain(more).collect();
    check_algorithm(Algorithm::Direct, &shapes, 4e-5);
}

#[test]
fn depthwise() {
    let depthwise =
        |c, n, size, k, stride| ConvShape { groups: c, ..ConvShape::same(n, size, c, c, k, stride) };
    let shapes = [
        depthwise(16, 2, 8, 3, 1),
        depthwise(58, 2, 9, 3, 1),
        depthwise(20, 18, 10, 3, 2),
        depthwise(33, 2, 7, 5, 2),
        depthwise(8, 1, 2, 3, 1),
        depthwise(64, 1, 40, 3, 1),
        ConvShape { dilation: [2, 1], pad: [0, 2], ..depthwise(24, 2, 9, 3, 1) },
        ConvShape { pad: [0, 0], ..depthwise(18, 2, 9, 1, 3) },
    ];
    check_algorithm(Algorithm::Depthwise, &shapes, 4e-5);
}

/// Shapes with whole vectors of channels, images that are and are not whole tiles, groups of
/// several images with a remainder, and bands of one.
fn winograd_shapes() -> Vec<ConvShape> {
    let same = |n, size, cin, cout| ConvShape::same(n, size, cin, cout, 3, 1);
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
        ConvShape { w: 19, ..same(2, 11, 16, 32) },
        ConvShape { pad: [0, 0], ..same(2, 10, 16, 16) },
        ConvShape { pad: [2, 1], ..same(2, 6, 16, 16) },
        ConvShape { h: 2, w: 1, ..same(2, 1, 32, 16) },
    ]
}

#[test]
fn winograd() {
    check_algorithm(Algorithm::Winograd, &winograd_shapes(), 1e-4);
}

/// The weight gradient's other way, one sum for all threads, in one group and in several.
#[test]
fn winograd_weights_with_a_shared_sum() {
    use super::plan::Chosen;
    use super::winograd::weights::WinogradWeights;
    for shape in winograd_shapes() {
        for isa in Isa::available() {
            for floats in [1 << 22, 1] {
                if let Some(weights) = WinogradWeights::with_limits(&shape, isa, 0, floats) {
                    let chosen = Chosen::WinogradWeights(weights);
                    check(&Plan { pass: Pass::WeightGrad, shape, chosen }, 1e-4);
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
        let shape = ConvShape::same(n, size, inputs, outputs, 3, 1);
        // Activations after a ReLU, and gradients of both signs.
        let x: Vec<f32> = noise(1, shape.input_len()).iter().map(|v| v.max(0.0)).collect();
        let (w, dy) = (noise(2, shape.weight_len()), noise(3, shape.output_len()));
        for pass in PASSES {
            // The weight gradient of tiny images is more than four times worse, so it is not used there.
            let chosen = Plan::new(pass, shape).algorithm();
            let tiny = pass == Pass::WeightGrad && size < 7;
            assert_eq!(chosen == Algorithm::Direct, tiny, "{pass:?} of {shape:?}");
            if tiny {
                continue;
            }
            let want = exact(pass, &shape, &x, &w, &dy);
            let error = |algorithm| {
                let plan = Plan::with(pass, shape, algorithm, isa).unwrap();
                let got = run_dense(&Pool::new(2), &plan, &x, &w, &dy, &mut Workspace::new());
                relative_error(&got, &want)
            };
            let (direct, winograd) = (error(Algorithm::Direct), error(Algorithm::Winograd));
            let chain = plain(pass, &shape, &x, &w, &dy, f32::mul_add);
            let chain = relative_error(&chain, &want);
            let what = format!("{inputs:>3} -> {outputs:<3} {size}x{size} {pass:?}");
            let ratios = [winograd / chain, winograd / direct];
            println!(
                "{what:34}  {chain:8.1e}  {direct:8.1e}  {winograd:8.1e}  {:5.2}  {:5.2}",
                ratios[0], ratios[1]
            );
            let ratio = if pass == Pass::WeightGrad { ratios[1] } else { ratios[0] };
            assert!(ratio <= 4.0, "{pass:?} of {shape:?}: {ratio}");
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
        for pass in PASSES {
            check(&Plan::new(pass, shape), 1e-4);
        }
    }
}
