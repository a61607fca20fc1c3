//! Two moons, told apart by a network of two layers: all that training is, in a page.
//!
//!     cargo run --release --example mlp

use nn::prelude::*;
use schedule::{Device, Step, Value};

const POINTS: usize = 200;

pub(crate) fn main() -> anyhow::Result<()> {
    let device = cpu::CpuDevice::new(2);

    // Layers are made by a builder, which names their parameters and draws initial values from a seed.
    let initializer = Initializer::new(Initialization::PYTORCH, 1);
    let ((hidden, last), state) =
        Builder::build(initializer, |b| (b.linear("hidden", 2, 32), b.linear("last", 32, 2)));
    let parameters: Vec<_> =
        state.into_iter().filter(|entry| entry.kind == Kind::Parameter).map(|entry| entry.variable).collect();

    // The network is a formula. Writing it computes nothing; its shapes are checked.
    let network = |points: &Tensor| last.forward(&hidden.forward(points).tanh());
    let points = Tensor::input("points", &[POINTS, 2]);
    let moons = Tensor::input_i32("moons", &[POINTS]);
    let logits = network(&points);
    let loss = loss::cross_entropy(&logits, &moons);
    let right = loss::accuracy(&logits, &moons, 1);

    // So is its gradient, and the step that goes a little against it.
    let sgd = Sgd::new(&parameters, SgdOptions { momentum: 0.9, weight_decay: 0.0, ..Default::default() });
    let gradients = grad(&loss, &sgd.tensors());
    let step = Step::new()
        .output("loss", &loss)
        .output("right", &right)
        .updates(sgd.updates(&gradients, &Tensor::scalar(0.1)));

    // Compiled once, called again and again.
    let mut step = device.compile_step(&step)?;
    let (positions, labels) = two_moons();
    for number in 0..=400 {
        step.call(&[("points", Value::F32(&positions)), ("moons", Value::I32(&labels))])?;
        if number % 100 == 0 {
            let (loss, right) = (step.output("loss")?[0], step.output("right")?[0]);
            println!("step {number:>3}: loss {loss:.4}, {:.1}% right", 100.0 * right);
        }
    }
    anyhow::ensure!(step.output("right")?[0] > 0.99, "the moons were not told apart");

    // What it makes of the plane: another program on the same parameters.
    let (rows, columns) = (16, 48);
    let everywhere: Vec<f32> = (0..rows * columns)
        .flat_map(|i| {
            let (x, y) = ((i % columns) as f32 / columns as f32, (i / columns) as f32 / rows as f32);
            [3.5 * x - 1.25, 1.25 - 2.0 * y]
        })
        .collect();
    let answer = network(&Tensor::input("plane", &[rows * columns, 2])).argmax(1).float();
    let mut plane = device.compile_step(&Step::new().output("answer", &answer))?;
    plane.call(&[("plane", Value::F32(&everywhere))])?;
    for row in plane.output("answer")?.chunks(columns) {
        println!("{}", row.iter().map(|&moon| if moon == 0.0 { '.' } else { '#' }).collect::<String>());
    }
    Ok(())
}

/// Points of two half circles that reach into each other, and which each is of.
fn two_moons() -> (Vec<f32>, Vec<i32>) {
    let labels: Vec<i32> = (0..POINTS as i32).map(|i| i % 2).collect();
    let point = |(i, &moon): (usize, &i32)| {
        let angle = std::f32::consts::PI * i as f32 / POINTS as f32;
        // Something that looks like noise.
        let noise = |k: f32| 0.1 * (k * i as f32).sin();
        let (x, y) =
            if moon == 0 { (angle.cos(), angle.sin()) } else { (1.0 - angle.cos(), 0.5 - angle.sin()) };
        [x + noise(12.9898), y + noise(78.233)]
    };
    (labels.iter().enumerate().flat_map(point).collect(), labels)
}
