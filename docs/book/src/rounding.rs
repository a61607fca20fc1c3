//! Chapter 11: numbers and rounding.

use autograd::{Conv2d, Result, Tensor, Variable, grad};
use cpu::CpuDevice;
use schedule::{Device, Step, Value};

use crate::picture::{Axis, BLUE, Chart, GREEN, ORANGE};

// ANCHOR: neighbours
/// How far from a number the next larger one is, in f32 and in 16 bits.
pub fn neighbours() -> Result<()> {
    println!("number       f32       16 bits");
    for value in [0.001, 1.0, 1000.0, 60000.0f32] {
        let next = f32::from_bits(value.to_bits() + 1) - value;
        // 10 binary digits after the leading one, 23 in f32.
        println!("{value:<8} {next:9.1e}  {:9.1e}", next * 8192.0);
    }
    Ok(())
}
// ANCHOR_END: neighbours

// ANCHOR: order
pub fn order() -> Result<()> {
    let (large, small) = (1e8f32, 1.0f32);
    println!("(1e8 + 1) - 1e8 = {}", (large + small) - large);
    println!("(1e8 - 1e8) + 1 = {}", (large - large) + small);
    Ok(())
}
// ANCHOR_END: order

// ANCHOR: sums
fn one_by_one(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |sum, v| sum + v)
}

/// Halves added up apart, then together.
fn tree(values: &[f32]) -> f32 {
    match values.len() {
        0 => 0.0,
        1 => values[0],
        n => tree(&values[..n / 2]) + tree(&values[n / 2..]),
    }
}

/// What each addition lost is kept aside and added in the next.
fn compensated(values: &[f32]) -> f32 {
    let (mut sum, mut lost) = (0.0f32, 0.0f32);
    for v in values {
        let v = v - lost;
        let next = sum + v;
        lost = (next - sum) - v;
        sum = next;
    }
    sum
}
// ANCHOR_END: sums

/// Relative errors of the three sums of so many numbers between 0 and 1.
fn errors(count: usize) -> [f64; 3] {
    let values: Vec<f32> = (0..count as u32).map(|i| autograd::random::uniform(4, 0, 0, i)).collect();
    let exact: f64 = values.iter().map(|&v| f64::from(v)).sum();
    [one_by_one(&values), tree(&values), compensated(&values)]
        .map(|sum| (f64::from(sum) - exact).abs() / exact)
}

pub fn summed() -> Result<()> {
    println!("numbers    one by one    in a tree   compensated");
    for count in [1000, 100_000, 10_000_000] {
        let [plain, tree, compensated] = errors(count);
        println!("{count:<9} {plain:11.0e}  {tree:11.0e}  {compensated:11.0e}");
    }
    Ok(())
}

// ANCHOR: threads
/// A training step on 1, 2 and 3 threads: the bits of the new weights.
pub fn threads() -> Result<()> {
    let noise = |seed: u32, count: u32, scale: f32| -> Vec<f32> {
        (0..count).map(|i| scale * (autograd::random::uniform(seed, 0, 0, i) - 0.5)).collect()
    };
    let weights = Variable::new("weights", &[16, 16, 3, 3], noise(1, 2304, 0.2))?;
    let images = Tensor::input("images", &[32, 16, 16, 16]);
    let y = images.conv2d(&weights.tensor(), Conv2d::new(1, 1)).relu();
    let loss = y.conv2d(&weights.tensor(), Conv2d::new(1, 1)).square().mean_all();
    let gradient = grad(&loss, &[weights.tensor()]).remove(0);
    let step = Step::new().output("loss", &loss).update(&weights, &(weights.tensor() - gradient * 0.1));
    let mut bits: Vec<Vec<u32>> = Vec::new();
    for threads in [1, 2, 3] {
        let device = CpuDevice::new(threads);
        let mut run = device.compile_step(&step)?;
        for _ in 0..3 {
            run.call(&[("images", Value::F32(&noise(2, 131_072, 2.0)))])?;
        }
        let values = autograd::VariableStore::read(&device, &weights)?;
        bits.push(values.into_iter().map(f32::to_bits).collect());
    }
    println!("2 threads give the bits of 1: {}", bits[1] == bits[0]);
    println!("3 threads give the bits of 1: {}", bits[2] == bits[0]);
    Ok(())
}
// ANCHOR_END: threads

// ANCHOR: kink
/// The slope of relu near its kink, by the rule and by a central difference of width 0.001.
pub fn kink() -> Result<()> {
    println!("x          rule   difference");
    for x in [-0.01, -0.0005, 0.0, 0.0005, 0.01f32] {
        let at = Tensor::constant(&[], vec![x]);
        let rule = grad(&at.relu(), &[at])[0].evaluate()?[0];
        let relu = |x: f64| x.max(0.0);
        let (x, h) = (f64::from(x), 0.001);
        println!("{x:<8.4} {rule:6.2} {:12.2}", (relu(x + h) - relu(x - h)) / (2.0 * h));
    }
    Ok(())
}
// ANCHOR_END: kink

// ANCHOR: large
pub fn large() -> Result<()> {
    let logits = [1000.0f32, 999.0];
    let plain: Vec<f32> =
        logits.iter().map(|z| z.exp() / logits.iter().map(|z| z.exp()).sum::<f32>()).collect();
    println!("softmax by its definition in f32: {plain:?}");
    let device = CpuDevice::new(1);
    let softmax = Tensor::constant(&[1, 2], logits.to_vec()).softmax(1);
    let mut run = device.compile_step(&Step::new().output("softmax", &softmax))?;
    run.call(&[])?;
    println!("after subtracting the largest:    {:.4?}", run.output("softmax")?);
    Ok(())
}
// ANCHOR_END: large

// ANCHOR: half
/// A number rounded to 16 bits: 10 binary digits after the leading one, to the nearest, ties to even.
/// (Of the range of `f16` from its smallest normal number up to 65,504.)
fn to_half(x: f32) -> f32 {
    f32::from_bits((x.to_bits() + 0xfff + (x.to_bits() >> 13 & 1)) & !0x1fff)
}

pub fn half() -> Result<()> {
    println!("0.1 becomes {}", to_half(0.1));
    println!("1000.4 becomes {}", to_half(1000.4));
    let (mut weight, mut rounded) = (1.0f32, 1.0f32);
    for _ in 0..1000 {
        weight -= 1e-4;
        rounded = to_half(rounded - 1e-4);
    }
    println!("1 less a thousand times 0.0001: {weight:.4} in f32, {rounded} if rounded each time");
    Ok(())
}
// ANCHOR_END: half

// ANCHOR: pair
/// A number as two of 16 bits: rounded, and 2048 times what that took off.
fn pair(x: f32) -> [f32; 2] {
    let large = to_half(x);
    [large, to_half((x - large) * 2048.0)]
}

pub fn pairs() -> Result<()> {
    let [a, b] = [0.1f32, 1000.4];
    let [[a, a_small], [b, b_small]] = [pair(a), pair(b)];
    println!("0.1 becomes {a} + {a_small} / 2048 = {}", a + a_small / 2048.0);
    println!("0.1 times 1000.4 is {} rounded to 16 bits", a * b);
    println!(
        "and {} with {a} and {b}, and what rounding took off",
        a * b + (a * b_small + a_small * b) / 2048.0
    );
    Ok(())
}
// ANCHOR_END: pair

/// The errors of sums by their length.
pub fn picture() -> Result<String> {
    let mut chart = Chart::new(
        "The error of a sum in f32, by how many numbers are added",
        Axis::logarithmic("numbers", 10.0, 1e7),
        Axis::logarithmic("relative error", 1e-9, 1e-1),
    );
    let counts: Vec<usize> = (2..=14).map(|i| 10f64.powf(f64::from(i) / 2.0) as usize).collect();
    let found: Vec<[f64; 3]> = counts.iter().map(|&count| errors(count)).collect();
    for (i, (name, colour)) in
        [("one by one", ORANGE), ("in a tree", BLUE), ("compensated", GREEN)].into_iter().enumerate()
    {
        chart.curve(name, colour, counts.iter().zip(&found).map(|(&n, e)| (n as f64, e[i].max(1e-9))));
    }
    Ok(chart.svg())
}
