//! Chapter 4: a gradient of a gradient.

use std::collections::HashMap;

use autograd::{Result, Tensor, evaluate, grad};

use crate::node::nodes;
use crate::picture::{Axis, BLUE, Chart, GREEN, ORANGE};

/// The values of some expressions of `x` at a place.
fn at(x: f64, expressions: &[Tensor]) -> Result<Vec<f64>> {
    let inputs = HashMap::from([("x".to_string(), vec![x])]);
    let values = evaluate(expressions, &inputs, &HashMap::new(), &HashMap::new())?;
    Ok(values.into_iter().map(|value| value[0]).collect())
}

// ANCHOR: derivatives
/// `f` and as many of its derivatives.
fn derivatives(f: Tensor, x: &Tensor, count: usize) -> Vec<Tensor> {
    let mut all = vec![f];
    for order in 0..count {
        all.push(grad(&all[order], std::slice::from_ref(x)).remove(0));
    }
    all
}
// ANCHOR_END: derivatives

// ANCHOR: sizes
pub fn sizes() -> Result<()> {
    let x = Tensor::input("x", &[]);
    let powers = derivatives(x.square() * x.square(), &x, 5);
    println!("x^4 at x = 2: {:?}", at(2.0, &powers)?);

    let bend = derivatives(x.tanh(), &x, 5);
    let sizes: Vec<usize> = bend.iter().map(|f| nodes(f).len()).collect();
    println!("nodes of tanh and its derivatives: {sizes:?}");
    Ok(())
}
// ANCHOR_END: sizes

// ANCHOR: newton
/// Looks for the lowest place of x^4 - 3 x + 1 from x = 2, in two ways.
pub fn newton() -> Result<()> {
    let x = Tensor::input("x", &[]);
    let f = derivatives(x.square() * x.square() - &x * 3.0 + 1.0, &x, 2);
    let (mut slow, mut fast) = (2.0, 2.0);
    println!("step   down the slope     slope over bend");
    for step in 0..=6 {
        println!("{step:4}   {slow:14.10}   {fast:17.10}");
        let (here, there) = (at(slow, &f)?, at(fast, &f)?);
        slow -= 0.05 * here[1];
        fast -= there[1] / there[2];
    }
    Ok(())
}
// ANCHOR_END: newton

// ANCHOR: penalty
/// A penalty on a slope, and its gradient with respect to a weight.
pub fn penalty() -> Result<()> {
    let (w, x) = (Tensor::constant(&[], vec![1.5]), Tensor::constant(&[], vec![0.4]));
    let output = (&w * &x).tanh();
    let slope = grad(&output, std::slice::from_ref(&x)).remove(0);
    let penalty = slope.square();
    let by_weight = grad(&penalty, std::slice::from_ref(&w)).remove(0);

    // By hand: slope = w (1 - y²), so d slope / d w = (1 - y²)(1 - 2 w x y).
    let (w, x) = (1.5_f64, f64::from(0.4_f32));
    let y = (w * x).tanh();
    let by_hand = 2.0 * w * (1.0 - y * y) * (1.0 - y * y) * (1.0 - 2.0 * w * x * y);
    println!("slope {:.6}", slope.evaluate()?[0]);
    println!("gradient of its square {:.6}, by hand {by_hand:.6}", by_weight.evaluate()?[0]);
    Ok(())
}
// ANCHOR_END: penalty

// ANCHOR: product
/// The Hessian of a loss times a direction, without the Hessian.
pub fn product() -> Result<()> {
    let x = Tensor::constant(&[3], vec![0.5, -1.0, 2.0]);
    let direction = Tensor::constant(&[3], vec![1.0, 0.0, -2.0]);
    let loss = x.square().sum_all().square() * 0.25;
    let gradient = grad(&loss, std::slice::from_ref(&x)).remove(0);
    let along = grad(&(gradient * direction).sum_all(), std::slice::from_ref(&x)).remove(0);
    println!("{:?}", along.evaluate()?);
    Ok(())
}
// ANCHOR_END: product

/// tanh and two derivatives.
pub fn picture() -> Result<String> {
    let x = Tensor::input("x", &[]);
    let all = derivatives(x.tanh(), &x, 2);
    let mut chart = Chart::new(
        "tanh, its derivative, and the derivative of that",
        Axis::linear("x", -3.0, 3.0),
        Axis::linear("", -1.0, 1.0),
    );
    let names = [("tanh x", BLUE), ("1 − tanh² x", ORANGE), ("−2 tanh x (1 − tanh² x)", GREEN)];
    for (f, (name, colour)) in all.iter().zip(names) {
        let mut points = Vec::new();
        for i in -60..=60 {
            let x = f64::from(i) / 20.0;
            points.push((x, at(x, std::slice::from_ref(f))?[0]));
        }
        chart.curve(name, colour, points);
    }
    Ok(chart.svg())
}
