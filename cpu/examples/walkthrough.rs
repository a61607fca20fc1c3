//! Reverse-mode differentiation, end to end, in a page: `cargo run --release -p cpu --example walkthrough`.

use autograd::{Tensor, Variable, grad};
use schedule::{Device, Step, Value};

fn main() -> autograd::Result<()> {
    let device = cpu::CpuDevice::new(1);

    // 1. A scalar function. Writing it computes nothing: it builds a graph of expressions.
    let x = Tensor::input("x", &[]);
    let y = (&x * &x + 1.0).log();

    // 2. Its gradient is another expression, made by walking that graph from y back to x and applying
    //    the chain rule at each node. By hand: dy/dx = 2x / (x^2 + 1).
    let dy = grad(&y, std::slice::from_ref(&x)).remove(0);
    let plain = schedule::Options { fuse: false, ..device.options() };
    let step = Step::new().output("y", &y).output("dy", &dy);
    let operations = step.schedule_with(plain)?;
    println!("y = log(x^2 + 1) and its gradient, a kernel an operation:\n{}", operations.table());
    println!("As a graph (paste it into https://mermaid.live):\n{}", operations.mermaid());
    println!("The same, fused:\n{}", step.schedule_with(device.options())?.table());

    // 3. A gradient is an ordinary expression, so it has a gradient.
    let ddy = grad(&dy, std::slice::from_ref(&x)).remove(0);
    let mut run = device.compile_step(&step.output("ddy", &ddy))?;
    for value in [0.0_f32, 0.5, 2.0] {
        run.call(&[("x", Value::F32(&[value]))])?;
        let [y, dy, ddy] = ["y", "dy", "ddy"].map(|name| run.output(name));
        println!("x = {value}: y = {:.4}, dy/dx = {:.4}, d2y/dx2 = {:.4}", y?[0], dy?[0], ddy?[0]);
    }

    // 4. The same three calls train a network of two layers: two spiral arms, told apart by 48 neurons.
    let (points, labels) = spiral(200);
    let inputs = Tensor::input("points", &[200, 2]);
    let answers = Tensor::input_i32("labels", &[200]);
    let noise =
        |n: usize, scale: f32| (0..n).map(|i| scale * ((i * 7919 % 997) as f32 / 498.5 - 1.0)).collect();
    let parameters = [
        Variable::new("w1", &[2, 48], noise(96, 4.0))?,
        Variable::new("b1", &[48], noise(48, 3.0))?,
        Variable::new("w2", &[48, 2], noise(96, 0.3))?,
        Variable::full("b2", &[2], 0.0),
    ];
    let [w1, b1, w2, b2] = parameters.each_ref().map(Variable::tensor);
    let hidden = (inputs.matmul(&w1) + &b1).tanh();
    let logits = hidden.matmul(&w2) + &b2;
    let loss = logits.cross_entropy(&answers).mean_all();
    let right = logits.top_k_correct(&answers, 1).mean_all();

    // One training step is a value: outputs to read, and new values for the parameters.
    let gradients = grad(&loss, &[w1, b1, w2, b2]);
    let updates = parameters.iter().zip(&gradients).map(|(p, g)| (p.clone(), p.tensor() - g * 0.5));
    let step = Step::new().output("loss", &loss).output("right", &right).updates(updates);
    let mut train = device.compile_step(&step)?;
    println!("\nfitting a spiral: {} kernels a step", train.schedule().kernels.len());
    for epoch in 0..=3000 {
        train.call(&[("points", Value::F32(&points)), ("labels", Value::I32(&labels))])?;
        if epoch % 500 == 0 {
            let (loss, right) = (train.output("loss")?[0], train.output("right")?[0]);
            println!("step {epoch:>4}: loss {loss:.4}, {:.1}% right", 100.0 * right);
        }
    }
    Ok(())
}

/// `n` points on two interleaved spiral arms, and which arm each is on.
fn spiral(n: usize) -> (Vec<f32>, Vec<i32>) {
    let point = |i: usize| {
        let (arm, t) = ((i % 2) as f32, i as f32 / n as f32);
        let angle = 7.0 * t + arm * std::f32::consts::PI;
        [2.0 * t * angle.cos(), 2.0 * t * angle.sin()]
    };
    ((0..n).flat_map(point).collect(), (0..n).map(|i| (i % 2) as i32).collect())
}
