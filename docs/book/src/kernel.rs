//! Chapter 6: what a kernel is.

use std::cell::Cell;

use autograd::{Result, Tensor};
use schedule::Step;

use crate::picture::{Axis, BLUE, Chart, ORANGE};

// ANCHOR: shader
/// The WGSL of a small step, for a card that can do no more than it must.
pub fn shader() -> Result<()> {
    let (x, shift) = (Tensor::input("x", &[999]), Tensor::input("shift", &[999]));
    let y = (x * 2.0 + shift).relu();
    let schedule = Step::new().output("y", &y).schedule_with(gpu::webgpu_options())?;
    let source = gpu::webgpu_source(&schedule, &schedule.kernels[0])?;
    // Before this come functions that every kernel has.
    let begin = source.find("struct Params").unwrap_or(0);
    print!("{}", &source[begin..]);
    Ok(())
}
// ANCHOR_END: shader

// ANCHOR: memory
/// A matrix in the card's large memory, `size` by `size`. It counts how often it is read.
struct Far {
    values: Vec<f32>,
    size: usize,
    reads: Cell<usize>,
}

impl Far {
    fn read(&self, row: usize, column: usize) -> f32 {
        self.reads.set(self.reads.get() + 1);
        self.values[row * self.size + column]
    }
}
// ANCHOR_END: memory

fn matrix(size: usize, seed: usize) -> Far {
    let value = |i: usize| ((i * 7 + seed) % 11) as f32 - 5.0;
    Far { values: (0..size * size).map(value).collect(), size, reads: Cell::new(0) }
}

// ANCHOR: naive
/// A thread a result: each fetches a row of `a` and a column of `b`.
fn naive(a: &Far, b: &Far) -> Vec<f32> {
    let mut results = vec![0.0; a.size * a.size];
    for (thread, result) in results.iter_mut().enumerate() {
        let (row, column) = (thread / a.size, thread % a.size);
        for k in 0..a.size {
            *result += a.read(row, k) * b.read(k, column);
        }
    }
    results
}
// ANCHOR_END: naive

// ANCHOR: tiled
/// A workgroup a square of `tile` by `tile` results: its threads fetch together what all of them need.
fn tiled(a: &Far, b: &Far, tile: usize) -> Vec<f32> {
    let mut results = vec![0.0; a.size * a.size];
    let across = a.size / tile;
    for group in 0..across * across {
        let (top, left) = (group / across * tile, group % across * tile);
        for base in (0..a.size).step_by(tile) {
            // Each thread fetches one number of either matrix. Then all wait for each other.
            let fetch = |of: &dyn Fn(usize, usize) -> f32| -> Vec<f32> {
                (0..tile * tile).map(|thread| of(thread / tile, thread % tile)).collect()
            };
            let near_a = fetch(&|i, j| a.read(top + i, base + j));
            let near_b = fetch(&|i, j| b.read(base + i, left + j));
            // Each thread goes on with its own result, from near memory alone.
            for thread in 0..tile * tile {
                let (row, column) = (thread / tile, thread % tile);
                let products = (0..tile).map(|k| near_a[row * tile + k] * near_b[k * tile + column]);
                results[(top + row) * a.size + left + column] += products.sum::<f32>();
            }
        }
    }
    results
}
// ANCHOR_END: tiled

// ANCHOR: counted
pub fn counted() -> Result<()> {
    let size = 64;
    let multiplications = size * size * size;
    let (a, b) = (matrix(size, 0), matrix(size, 3));
    let expected = naive(&a, &b);
    let reads = a.reads.get() + b.reads.get();
    println!("naive    {reads:6} reads, {:.2} a multiplication", reads as f64 / multiplications as f64);
    for tile in [4, 8, 16, 32] {
        let (a, b) = (matrix(size, 0), matrix(size, 3));
        assert_eq!(tiled(&a, &b, tile), expected);
        let reads = a.reads.get() + b.reads.get();
        println!(
            "tile {tile:2}  {reads:6} reads, {:.4} a multiplication",
            reads as f64 / multiplications as f64
        );
    }
    Ok(())
}
// ANCHOR_END: counted

// ANCHOR: bounds
/// What an H200 can do at most, and what was measured (docs/measurements.md).
pub fn bounds() -> Result<()> {
    let bytes_a_second = 4.3e12;
    for reuse in [1.0, 4.0, 16.0, 24.0, 64.0, 128.0] {
        // A multiplication and an addition, for two numbers of four bytes each, of which many share.
        let operations_a_second = 2.0 * bytes_a_second / (8.0 / reuse);
        println!("each number used {reuse:3} times: at most {:6.1} TFLOP/s", operations_a_second / 1e12);
    }
    println!("measured for 4096 x 4096 x 4096:   25.9 TFLOP/s");
    Ok(())
}
// ANCHOR_END: bounds

/// Seconds by the memory's speed and by the reuse.
pub fn picture() -> Result<String> {
    let mut chart = Chart::new(
        "What memory allows a product on an H200, by how often each number is used",
        Axis::logarithmic("times each number is used once it was fetched", 1.0, 1000.0),
        Axis::logarithmic("TFLOP/s", 1.0, 10000.0),
    );
    let reuse = || (0..=40).map(|i| 10f64.powf(f64::from(i) * 3.0 / 40.0));
    chart.curve("memory's limit, 4.3 TB/s", BLUE, reuse().map(|r| (r, 2.0 * 4.3 * r / 8.0)));
    chart.curve("measured, 25.9 TFLOP/s", ORANGE, reuse().map(|r| (r, 25.9)));
    Ok(chart.svg())
}
