//! Chapter 8: batch norm and its gradient.

use autograd::{Conv2d, Result, Tensor, Variable, grad};
use cpu::CpuDevice;
use schedule::{Device, Step, Value};

use crate::picture::{Axis, BLUE, Chart, GREY, ORANGE};

/// Numbers between -1 and 1 without a pattern, the same everywhere.
fn noise(seed: u32, count: usize) -> Vec<f32> {
    (0..count as u32).map(|i| 2.0 * autograd::random::uniform(seed, 0, 0, i) - 1.0).collect()
}

// ANCHOR: depth
/// How large the numbers are behind so many layers of 64 to 64, with and without normalising each.
fn spread_by_depth(scale: f32, normal: bool) -> Result<Vec<f64>> {
    let mut x = Tensor::constant(&[32, 64], noise(1, 32 * 64));
    let mut spread = Vec::new();
    for layer in 0..10 {
        let weights = noise(2 + layer, 64 * 64).into_iter().map(|v| v * scale).collect();
        x = x.matmul(&Tensor::constant(&[64, 64], weights));
        if normal {
            x = x.batch_norm(&Tensor::full(&[64], 1.0), &Tensor::full(&[64], 0.0), 1e-5, 1).output;
        }
        x = x.relu();
        spread.push(x.square().mean_all().sqrt().evaluate()?[0]);
    }
    Ok(spread)
}
// ANCHOR_END: depth

pub fn depth() -> Result<()> {
    println!("root mean square after layer      1          5         10");
    for (name, scale, normal) in [
        ("weights up to 0.1", 0.1, false),
        ("weights up to 0.4", 0.4, false),
        ("weights up to 0.1, normalised", 0.1, true),
        ("weights up to 0.4, normalised", 0.4, true),
    ] {
        let spread = spread_by_depth(scale, normal)?;
        println!("{name:<29} {:9.1e}  {:9.1e}  {:9.1e}", spread[0], spread[4], spread[9]);
    }
    Ok(())
}

// ANCHOR: by_hand
/// The gradient by `x` of a batch norm over the rows of `[N, C]`, written out.
pub fn by_hand(x: &Tensor, gamma: &Tensor, eps: f64, g: &Tensor) -> Tensor {
    let deviation = (x.variance(&[0]) + eps).sqrt();
    let normal = (x - x.mean(&[0])) / &deviation;
    (g - g.mean(&[0]) - &normal * (g * &normal).mean(&[0])) * gamma / deviation
}
// ANCHOR_END: by_hand

// ANCHOR: gradient
pub fn gradient() -> Result<()> {
    let (x, g) = (Tensor::constant(&[8, 3], noise(5, 24)), Tensor::constant(&[8, 3], noise(6, 24)));
    let gamma = Tensor::constant(&[3], vec![1.0, 2.0, 0.5]);
    let beta = Tensor::constant(&[3], vec![0.0, 1.0, -1.0]);
    let loss = (x.batch_norm(&gamma, &beta, 1e-5, 1).output * &g).sum_all();
    let derived = grad(&loss, std::slice::from_ref(&x)).remove(0);
    let hand = by_hand(&x, &gamma, 1e-5, &g);
    let worst = (&derived - &hand).abs().max_all().evaluate()?[0];
    println!("derived and by hand closer than 1e-12: {}", worst < 1e-12);

    let sums = derived.sum(&[0]).abs().max_all().evaluate()?[0];
    let along = (&derived * &x).sum(&[0]).abs().max_all().evaluate()?[0];
    println!("sum of each channel's gradient is zero: {}", sums < 1e-12);
    println!("so is its product with x, nearly:       {}", along < 1e-3);
    Ok(())
}
// ANCHOR_END: gradient

// ANCHOR: scale
/// A layer before a batch norm: its weights ten times as large.
pub fn scale() -> Result<()> {
    let x = Tensor::constant(&[1, 6, 6, 2], noise(7, 72));
    let goal = Tensor::constant(&[1, 6, 6, 4], noise(8, 144));
    for factor in [1.0, 10.0] {
        let weights = noise(9, 72).into_iter().map(|w| w * factor).collect();
        let weights = Tensor::constant(&[4, 2, 3, 3], weights);
        let pixels = x.conv2d(&weights, Conv2d::new(1, 1));
        let (one, zero) = (Tensor::full(&[4], 1.0), Tensor::full(&[4], 0.0));
        let loss = (pixels.batch_norm(&one, &zero, 1e-9, 1).output - &goal).square().mean_all();
        let slope = grad(&loss, &[weights])[0].square().sum_all().sqrt();
        println!(
            "weights x {factor:2}: loss {:.5}, gradient {:.6}",
            loss.evaluate()?[0],
            slope.evaluate()?[0]
        );
    }
    Ok(())
}
// ANCHOR_END: scale

// ANCHOR: variance
/// The variance of numbers around 1000 whose deviation is about 0.58, in f32, by two formulas.
pub fn variance() -> Result<()> {
    let values: Vec<f32> = noise(3, 4096).into_iter().map(|v| 1000.0 + v).collect();
    let mean = |of: &dyn Fn(f32) -> f32| values.iter().map(|&v| of(v)).sum::<f32>() / values.len() as f32;
    let average = mean(&|v| v);
    println!("mean of squares minus square of mean: {}", mean(&|v| v * v) - average * average);
    println!("mean of squared deviations:           {:.4}", mean(&|v| (v - average) * (v - average)));
    println!("in f64:                               {:.4}", {
        let x = Tensor::constant(&[4096], values.clone());
        x.variance(&[0]).evaluate()?[0]
    });
    Ok(())
}
// ANCHOR_END: variance

/// The loss of 60 steps of a small deep network, with and without batch norm.
fn losses(normal: bool, rate: f64) -> Result<Vec<f64>> {
    let (rows, width, depth) = (64, 24, 6);
    let x = Tensor::constant(&[rows, width], noise(20, rows * width));
    let labels = Tensor::constant(&[rows, 1], noise(21, rows)).less(&Tensor::scalar(0.0));
    let mut parameters = Vec::new();
    let mut hidden = x;
    for layer in 0..depth {
        let values = noise(30 + layer, width * width).into_iter().map(|v| 0.25 * v).collect();
        let weights = Variable::new(format!("weights{layer}"), &[width, width], values)?;
        hidden = hidden.matmul(&weights.tensor());
        if normal {
            let (one, zero) = (Tensor::full(&[width], 1.0), Tensor::full(&[width], 0.0));
            hidden = hidden.batch_norm(&one, &zero, 1e-5, 1).output;
        }
        hidden = hidden.relu();
        parameters.push(weights);
    }
    let last = Variable::new("last", &[width, 1], noise(29, width))?;
    let answer = hidden.matmul(&last.tensor()).sigmoid();
    parameters.push(last);
    let loss = (answer - labels).square().mean_all();
    let tensors: Vec<Tensor> = parameters.iter().map(Variable::tensor).collect();
    let gradients = grad(&loss, &tensors);
    let new = parameters.iter().zip(&gradients).map(|(p, g)| (p.clone(), p.tensor() - g * rate));
    let device = CpuDevice::new(1);
    let mut step = device.compile_step(&Step::new().output("loss", &loss).updates(new))?;
    let mut losses = Vec::new();
    for _ in 0..60 {
        step.call(&[] as &[(&str, Value)])?;
        losses.push(f64::from(step.output("loss")?[0]));
    }
    Ok(losses)
}

/// What a step of the same length does with and without.
pub fn picture() -> Result<String> {
    let mut chart = Chart::new(
        "Six layers of 24 learn 64 answers by heart",
        Axis::linear("step", 0.0, 60.0),
        Axis::linear("loss", 0.0, 0.4),
    );
    for (name, normal, rate, colour) in [
        ("without, rate 0.3", false, 0.3, GREY),
        ("without, rate 1", false, 1.0, ORANGE),
        ("batch norm, rate 0.3", true, 0.3, BLUE),
    ] {
        let points = losses(normal, rate)?.into_iter().enumerate().map(|(i, loss)| (i as f64, loss));
        chart.curve(name, colour, points.collect::<Vec<_>>());
    }
    Ok(chart.svg())
}
