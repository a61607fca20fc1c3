//! A gradient in the loss: a critic whose slope is held to one. Gulrajani et al., *Improved Training of Wasserstein
//! GANs* (2017), add to a critic's loss the penalty `(|d critic / d x| - 1)^2`; training then differentiates a gradient.
//!
//!     cargo run --release --example second_order

use nn::prelude::*;
use schedule::{Device, Step, Value};

const POINTS: usize = 64;

pub(crate) fn main() -> anyhow::Result<()> {
    let device = cpu::CpuDevice::new(1);
    let (left, right) = (cloud(-1.5, 0.0), cloud(1.5, 7.0));
    println!("weight  slope  expected  difference of two clouds 3 apart");
    for weight in [1.0, 10.0] {
        let (difference, slope) = critic(&device, weight, &left, &right)?;
        // A critic of slope `s` everywhere gains `3 s` and pays `weight (s - 1)^2`: best is where the derivative,
        // `3 - 2 weight (s - 1)`, is zero.
        let expected = 1.0 + 3.0 / (2.0 * weight as f32);
        println!("{weight:>6}  {slope:.3}  {expected:>8.3}  {difference:.2}");
        anyhow::ensure!((slope / expected - 1.0).abs() < 0.1, "the slope is not held");
        anyhow::ensure!((difference / (3.0 * expected) - 1.0).abs() < 0.1, "the clouds are not told apart");
    }
    Ok(())
}

/// Trains a critic to be large on the right cloud and small on the left: its difference, and its slope between them.
fn critic(device: &dyn Device, weight: f64, left: &[f32], right: &[f32]) -> anyhow::Result<(f32, f32)> {
    let initializer = Initializer::new(Initialization::PYTORCH, 3);
    let ((first, second), state) =
        Builder::build(initializer, |b| (b.linear("first", 2, 32), b.linear("second", 32, 1)));
    let parameters: Vec<_> = state.into_iter().map(|entry| entry.variable).collect();
    // Smooth, so that its gradient has a gradient.
    let critic = |x: &Tensor| second.forward(&first.forward(x).silu());

    let [left_points, right_points] = ["left", "right"].map(|name| Tensor::input(name, &[POINTS, 2]));
    let between = Tensor::input("between", &[POINTS, 2]);
    let difference = critic(&right_points).mean_all() - critic(&left_points).mean_all();

    // The critic's gradient by its input: an expression as any other. (Of the sum, because no point's value depends on
    // another point.)
    let slope = grad(&critic(&between).sum_all(), std::slice::from_ref(&between)).remove(0);
    let slope = (slope.square().sum(&[1]) + 1e-12).sqrt();
    let penalty = (&slope - 1.0).square().mean_all();
    let loss = &penalty * weight - &difference;

    let sgd = Sgd::new(&parameters, SgdOptions { weight_decay: 0.0, ..Default::default() });
    // Through the gradient, once more.
    let gradients = grad(&loss, &sgd.tensors());
    let step = Step::new()
        .output("difference", &difference)
        .output("slope", &slope.mean_all())
        .updates(sgd.updates(&gradients, &Tensor::scalar(0.003)));
    let mut step = device.compile_step(&step)?;
    for number in 0..600 {
        // A new place on the way from one cloud to the other, for each pair.
        let way = |i: usize| (0.618_034 * (number * POINTS + i / 2) as f32).fract();
        let places: Vec<f32> = (0..2 * POINTS).map(|i| left[i] + way(i) * (right[i] - left[i])).collect();
        step.call(&[
            ("left", Value::F32(left)),
            ("right", Value::F32(right)),
            ("between", Value::F32(&places)),
        ])?;
    }
    Ok((step.output("difference")?[0], step.output("slope")?[0]))
}

/// Points around `(x, 0)`.
fn cloud(x: f32, phase: f32) -> Vec<f32> {
    (0..POINTS)
        .flat_map(|i| {
            let angle = phase + 2.4 * i as f32;
            let radius = 0.3 * (i as f32 / POINTS as f32).sqrt();
            [x + radius * angle.cos(), radius * angle.sin()]
        })
        .collect()
}
