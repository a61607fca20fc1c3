//! Chapter 9: training.

use autograd::{Result, Tensor, Variable, grad};
use cpu::CpuDevice;
use schedule::{Device, Step, Value};

use crate::picture::{Axis, BLUE, Chart, GREEN, GREY, ORANGE};

// ANCHOR: softmax
pub fn softmax() -> Result<()> {
    let logits = Tensor::constant(&[1, 3], vec![2.0, 1.0, -1.0]);
    let label = Tensor::constant(&[1], vec![1.0]).to_integer();
    let probabilities = logits.softmax(1);
    let loss = logits.cross_entropy(&label).mean_all();
    let gradient = grad(&loss, &[logits]).remove(0);
    println!("probabilities {:.4?}", probabilities.evaluate()?);
    println!("loss          {:.4}, which is -log of the second", loss.evaluate()?[0]);
    println!("gradient      {:.4?}", gradient.evaluate()?);
    Ok(())
}
// ANCHOR_END: softmax

// ANCHOR: data
/// `n` points on two arms of a spiral, from the arm's `first` on, and which arm each is on.
fn spiral(n: usize, first: f32) -> (Vec<f32>, Vec<i32>) {
    let point = |i: usize| {
        let (arm, t) = ((i % 2) as f32, (i as f32 + first) / n as f32);
        let angle = 7.0 * t + arm * std::f32::consts::PI;
        [2.0 * t * angle.cos(), 2.0 * t * angle.sin()]
    };
    ((0..n).flat_map(point).collect(), (0..n).map(|i| (i % 2) as i32).collect())
}
// ANCHOR_END: data

/// How the parameters are moved.
#[derive(Clone, Copy)]
struct Descent {
    rate: f32,
    momentum: f64,
    decay: f64,
}

// ANCHOR: network
/// Two layers: the logits of some points.
fn logits(points: &Tensor, parameters: &[Variable]) -> Tensor {
    let [w1, b1, w2, b2] = [0, 1, 2, 3].map(|i| parameters[i].tensor());
    (points.matmul(&w1) + b1).tanh().matmul(&w2) + b2
}
// ANCHOR_END: network

fn parameters() -> Result<Vec<Variable>> {
    let noise = |seed: u32, n: u32, scale: f32| {
        (0..n).map(|i| scale * (2.0 * autograd::random::uniform(seed, 0, 0, i) - 1.0)).collect()
    };
    Ok(vec![
        Variable::new("w1", &[2, 32], noise(1, 64, 3.0))?,
        Variable::new("b1", &[32], noise(2, 32, 2.0))?,
        Variable::new("w2", &[32, 2], noise(3, 64, 0.3))?,
        Variable::full("b2", &[2], 0.0),
    ])
}

// ANCHOR: step
/// A training step on batches of so many points.
fn step(parameters: &[Variable], batch: usize, descent: Descent) -> Result<Step> {
    let points = Tensor::input("points", &[batch, 2]);
    let labels = Tensor::input_i32("labels", &[batch]);
    let loss = logits(&points, parameters).cross_entropy(&labels).mean_all();

    let tensors: Vec<Tensor> = parameters.iter().map(Variable::tensor).collect();
    let mut step = Step::new().output("loss", &loss);
    let rate = Tensor::input("rate", &[]);
    for (parameter, gradient) in parameters.iter().zip(grad(&loss, &tensors)) {
        let velocity = Variable::full("velocity", parameter.shape(), 0.0);
        let p = parameter.tensor();
        let v = velocity.tensor() * descent.momentum + gradient + &p * descent.decay;
        step = step.update(parameter, &(p - &rate * &v)).update(&velocity, &v);
    }
    Ok(step)
}
// ANCHOR_END: step

// ANCHOR: run
/// Trains on the whole spiral at once. Gives the loss of each step.
fn train(descent: Descent, steps: usize) -> Result<Vec<f64>> {
    let device = CpuDevice::new(1);
    let (points, labels) = spiral(200, 0.0);
    let mut run = device.compile_step(&step(&parameters()?, 200, descent)?)?;
    let mut losses = Vec::new();
    for _ in 0..steps {
        let rate = [descent.rate];
        run.call(&[
            ("points", Value::F32(&points)),
            ("labels", Value::I32(&labels)),
            ("rate", Value::F32(&rate)),
        ])?;
        losses.push(f64::from(run.output("loss")?[0]));
    }
    Ok(losses)
}
// ANCHOR_END: run

pub fn descent() -> Result<()> {
    println!("                          step 0   step 100   step 400");
    for (name, descent) in settings() {
        let losses = train(descent, 401)?;
        println!("{name:<25} {:6.3}   {:8.3}   {:8.3}", losses[0], losses[100], losses[400]);
    }
    Ok(())
}

fn settings() -> [(&'static str, Descent); 4] {
    let plain = |rate| Descent { rate, momentum: 0.0, decay: 0.0 };
    [
        ("rate 0.01", plain(0.01)),
        ("rate 0.1", plain(0.1)),
        ("rate 0.1, momentum 0.9", Descent { momentum: 0.9, ..plain(0.1) }),
        ("the same, decay 0.01", Descent { momentum: 0.9, decay: 0.01, ..plain(0.1) }),
    ]
}

// ANCHOR: held_out
/// Learns few points, and is asked about others of the same arms.
pub fn held_out() -> Result<()> {
    println!("points learnt   right of these   right of others");
    for n in [8, 24, 200] {
        let device = CpuDevice::new(1);
        let parameters = parameters()?;
        let (points, labels) = spiral(n, 0.0);
        let descent = Descent { rate: 0.1, momentum: 0.9, decay: 0.0 };
        let mut run = device.compile_step(&step(&parameters, n, descent)?)?;
        for _ in 0..1500 {
            let call = [
                ("points", Value::F32(&points)),
                ("labels", Value::I32(&labels)),
                ("rate", Value::F32(&[0.1])),
            ];
            run.call(&call)?;
        }
        let right = |(points, labels): (Vec<f32>, Vec<i32>)| -> Result<f32> {
            let count = labels.len();
            let input = Tensor::input("points", &[count, 2]);
            let answers = Tensor::input_i32("labels", &[count]);
            let right = logits(&input, &parameters).top_k_correct(&answers, 1).mean_all();
            // The same device: its memory has the parameters that were trained.
            let mut ask = device.compile_step(&Step::new().output("right", &right))?;
            ask.call(&[("points", Value::F32(&points)), ("labels", Value::I32(&labels))])?;
            Ok(ask.output("right")?[0])
        };
        let (own, other) = (right((points.clone(), labels.clone()))?, right(spiral(500, 0.5))?);
        println!("{n:13}   {own:14.2}   {other:15.2}");
    }
    Ok(())
}
// ANCHOR_END: held_out

/// The loss by step for the four settings.
pub fn picture() -> Result<String> {
    let mut chart = Chart::new(
        "The loss on 200 points of a spiral, step by step",
        Axis::linear("step", 0.0, 400.0),
        Axis::linear("loss", 0.0, 0.8),
    );
    for ((name, descent), colour) in settings().into_iter().zip([GREY, ORANGE, BLUE, GREEN]) {
        let losses = train(descent, 401)?.into_iter().enumerate();
        let points: Vec<(f64, f64)> = losses.map(|(i, loss)| (i as f64, loss)).step_by(4).collect();
        chart.curve(name, colour, points);
    }
    Ok(chart.svg())
}
