//! Speed of the convolution kernels, beside the matrix-product rate of the `gemm` crate and beside
//! their arithmetic limit, measured in the same run: `cargo bench -p cpu --bench convolution`.
//!
//! GFLOP/s count a direct convolution's operations, whatever the algorithm does. Times are the
//! least of many repeats. Arguments after `--` choose shapes by a part of their name; `--threads N`
//! sets the number of threads (2).

use std::time::Instant;

use autograd::Conv2d;
use cpu::kernels::{ImagePlan, SharedSlice, Source, ThreadPool, WeightPlan};
use schedule::ConvGeometry;

/// Least seconds of a call, over a fifth of a second of calls.
fn best(mut call: impl FnMut()) -> f64 {
    call();
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    while start.elapsed().as_secs_f64() < 0.2 {
        let begin = Instant::now();
        call();
        best = best.min(begin.elapsed().as_secs_f64());
    }
    best
}

fn noise(len: usize) -> Vec<f32> {
    let mut state = 1u32;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn gemm_rate(threads: usize) -> f64 {
    const SIZE: usize = 1024;
    let (a, b, mut c) = (noise(SIZE * SIZE), noise(SIZE * SIZE), vec![0.0f32; SIZE * SIZE]);
    let parallelism = match threads {
        1 => gemm::Parallelism::None,
        _ => gemm::Parallelism::Rayon(threads),
    };
    let (size, row) = (SIZE, SIZE as isize);
    let seconds = best(|| {
        // SAFETY: three square matrices of that size, row by row.
        unsafe {
            gemm::gemm(
                size,
                size,
                size,
                c.as_mut_ptr(),
                1,
                row,
                false,
                a.as_ptr(),
                1,
                row,
                b.as_ptr(),
                1,
                row,
                0.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
    });
    2.0 * (SIZE * SIZE * SIZE) as f64 / seconds / 1e9
}

/// Calls `f` with so many floats that start on a cache line.
fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut memory = vec![0.0; len + 16];
    let skip = memory.as_ptr().align_offset(64);
    f(&mut memory[skip..][..len])
}

fn len(shape: [usize; 4]) -> usize {
    shape.iter().product()
}

fn image_seconds(pool: &ThreadPool, g: &ConvGeometry, plan: &ImagePlan) -> f64 {
    let images = |dims: [usize; 3]| g.batch * dims.iter().product::<usize>();
    let (operand, w) = (noise(images(plan.operand())), noise(len(g.weight_shape())));
    let (mut packed, mut result) = (vec![0.0; plan.packed_len()], vec![0.0; images(plan.result())]);
    plan.pack(pool, &w, &mut packed);
    with_scratch(plan.scratch_len(pool.threads()), |scratch| {
        let source = Source::dense(&operand, plan.operand());
        let sink = SharedSlice::new(&mut result);
        best(|| plan.run(pool, source, &packed, &sink, scratch))
    })
}

fn weight_seconds(pool: &ThreadPool, g: &ConvGeometry) -> f64 {
    let plan = WeightPlan::new(g);
    let (x, dy) = (noise(len(g.input_shape())), noise(len(g.output_shape())));
    let mut dw = vec![0.0; len(g.weight_shape())];
    let x = Source::dense(&x, [g.height, g.width, g.in_channels]);
    let dy = Source::dense(&dy, [g.out_height, g.out_width, g.out_channels]);
    with_scratch(plan.scratch_len(pool.threads()), |scratch| best(|| plan.run(pool, x, dy, &mut dw, scratch)))
}

fn pack_seconds(pool: &ThreadPool, g: &ConvGeometry, plan: &ImagePlan) -> f64 {
    let w = noise(len(g.weight_shape()));
    let mut packed = vec![0.0; plan.packed_len()];
    best(|| plan.pack(pool, &w, &mut packed))
}

fn main() {
    let mut threads = 2;
    let mut wanted = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--threads" => match args.next().and_then(|n| n.parse().ok()) {
                Some(n) if n > 0 => threads = n,
                _ => {
                    eprintln!("--threads needs a number from 1");
                    std::process::exit(2);
                }
            },
            "--bench" => {}
            _ => wanted.push(arg),
        }
    }
    let pool = ThreadPool::new(threads);
    let grouped = |size: usize, cin: usize, cout: usize, k: usize, stride: usize, groups: usize| {
        let conv = Conv2d::new(stride, k / 2).groups(groups);
        ConvGeometry::new([64, size, size, cin], [cout, cin / groups, k, k], conv)
    };
    let same = |size, cin, cout, k, stride| grouped(size, cin, cout, k, stride, 1);
    let shapes = [
        ("3x3 16->16@32", same(32, 16, 16, 3, 1)),
        ("3x3 32->32@16", same(16, 32, 32, 3, 1)),
        ("3x3 64->64@8", same(8, 64, 64, 3, 1)),
        ("3x3 64->64@16", same(16, 64, 64, 3, 1)),
        ("3x3 256->256@8", same(8, 256, 256, 3, 1)),
        ("1x1 64->256@16", same(16, 64, 256, 1, 1)),
        ("3x3 32->32@32", same(32, 32, 32, 3, 1)),
        ("3x3 128->128@8", same(8, 128, 128, 3, 1)),
        ("3x3/2 16->32@32", same(32, 16, 32, 3, 2)),
        ("3x3/2 32->64@16", same(16, 32, 64, 3, 2)),
        ("3x3/2 128->256@16", same(16, 128, 256, 3, 2)),
        ("1x1/2 32->64@16", same(16, 32, 64, 1, 2)),
        ("1x1/2 128->256@16", same(16, 128, 256, 1, 2)),
        ("3x3 3->16@32", same(32, 3, 16, 3, 1)),
        ("3x3 3->32@32", same(32, 3, 32, 3, 1)),
        ("depthwise 58@16", grouped(16, 58, 58, 3, 1, 58)),
        ("depthwise/2 96@16", grouped(16, 96, 96, 3, 2, 96)),
        ("grouped 1x1 240->60@16", grouped(16, 240, 60, 1, 1, 3)),
    ];
    let peak = gemm_rate(threads);
    println!("gemm 1024^3: {:.0} GFLOP/s on one thread, {peak:.0} on {threads}", gemm_rate(1));
    println!("batch 64, {threads} threads; GFLOP/s (share of gemm's rate) and microseconds\n");
    println!("{:24} {:>22} {:>22} {:>22} {:>8}", "", "forward", "input gradient", "weight gradient", "pack");
    for (name, shape) in shapes {
        if !wanted.is_empty() && !wanted.iter().any(|w| name.contains(w.as_str())) {
            continue;
        }
        print!("{name:24}");
        let (forward, backward) = (ImagePlan::forward(&shape), ImagePlan::input_grad(&shape));
        let images = [&forward, &backward].map(|plan| image_seconds(&pool, &shape, plan));
        for seconds in [images[0], images[1], weight_seconds(&pool, &shape)] {
            let rate = shape.flops() as f64 / seconds / 1e9;
            print!(" {rate:7.1} ({:4.2}) {:6.0}us", rate / peak, seconds * 1e6);
        }
        let pack = pack_seconds(&pool, &shape, &forward);
        println!(" {:6.0}us", pack * 1e6);
    }
}
