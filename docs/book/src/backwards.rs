//! Chapter 3: the walk backwards.

use std::collections::HashMap;

use autograd::{Result, Tensor, evaluate, grad};

use crate::node::{draw, nodes};

// ANCHOR: tape
/// What one entry was made of. Operands are places of earlier entries.
#[derive(Clone, Copy)]
pub enum Made {
    Input,
    Add(usize, usize),
    Mul(usize, usize),
    Log(usize),
}

/// A calculation as it was done, entry after entry.
#[derive(Default)]
pub struct Tape {
    pub entries: Vec<(Made, f64)>,
}

impl Tape {
    /// Does one operation, writes it down, gives its place.
    pub fn push(&mut self, made: Made) -> usize {
        let value = |at: usize| self.entries[at].1;
        let result = match made {
            Made::Input => unreachable!("inputs have their own method"),
            Made::Add(a, b) => value(a) + value(b),
            Made::Mul(a, b) => value(a) * value(b),
            Made::Log(a) => value(a).ln(),
        };
        self.entries.push((made, result));
        self.entries.len() - 1
    }

    pub fn input(&mut self, value: f64) -> usize {
        self.entries.push((Made::Input, value));
        self.entries.len() - 1
    }
}
// ANCHOR_END: tape

// ANCHOR: backward
/// The gradient of the last entry with respect to every entry.
pub fn backward(tape: &Tape) -> Vec<f64> {
    let mut gradient = vec![0.0; tape.entries.len()];
    gradient[tape.entries.len() - 1] = 1.0;
    for (at, (made, _)) in tape.entries.iter().enumerate().rev() {
        let g = gradient[at];
        let value = |at: usize| tape.entries[at].1;
        match *made {
            Made::Input => {}
            Made::Add(a, b) => {
                gradient[a] += g;
                gradient[b] += g;
            }
            Made::Mul(a, b) => {
                gradient[a] += g * value(b);
                gradient[b] += g * value(a);
            }
            Made::Log(a) => gradient[a] += g / value(a),
        }
    }
    gradient
}
// ANCHOR_END: backward

/// The calculation of the chapter, x y + log(x): x is used twice.
fn example() -> Tape {
    let mut tape = Tape::default();
    let (x, y) = (tape.input(2.0), tape.input(5.0));
    let product = tape.push(Made::Mul(x, y));
    let log = tape.push(Made::Log(x));
    tape.push(Made::Add(product, log));
    tape
}

// ANCHOR: run_tape
pub fn tape() -> Result<()> {
    let mut tape = Tape::default();
    let (x, y) = (tape.input(2.0), tape.input(5.0));
    let product = tape.push(Made::Mul(x, y));
    let log = tape.push(Made::Log(x));
    tape.push(Made::Add(product, log));

    let gradient = backward(&tape);
    let names = ["x", "y", "x y", "log x", "sum"];
    println!("entry     value  gradient");
    for (at, name) in names.iter().enumerate() {
        println!("{name:<6} {:8.4} {:9.4}", tape.entries[at].1, gradient[at]);
    }
    Ok(())
}
// ANCHOR_END: run_tape

// ANCHOR: grad
pub fn by_the_engine() -> Result<()> {
    let (x, y) = (Tensor::input("x", &[]), Tensor::input("y", &[]));
    let sum = &x * &y + x.log();
    let gradients = grad(&sum, &[x, y]);

    let values = HashMap::from([("x".to_string(), vec![2.0]), ("y".to_string(), vec![5.0])]);
    let numbers = evaluate(&gradients, &values, &HashMap::new(), &HashMap::new())?;
    println!("d/dx = {:.4}, d/dy = {:.4}", numbers[0][0], numbers[1][0]);
    println!("d/dx is the expression:");
    for node in nodes(&gradients[0]) {
        println!("  {:?} of {:?}", node, node.inputs());
    }
    Ok(())
}
// ANCHOR_END: grad

// ANCHOR: network
/// Two layers that tell 3 classes apart: the loss of 4 points, and what it depends on.
fn network() -> (Tensor, Vec<Tensor>) {
    let wavy = |count: usize| (0..count).map(|i| ((i * 37 % 23) as f32 - 11.0) / 12.0).collect();
    let points = Tensor::constant(&[4, 2], wavy(8));
    let weights = [[2, 5], [5, 3]].map(|shape| Tensor::constant(&shape, wavy(shape[0] * shape[1])));
    let hidden = points.matmul(&weights[0]).tanh();
    let labels = Tensor::iota(&[4], 0);
    (hidden.matmul(&weights[1]).cross_entropy(&labels).mean_all(), weights.to_vec())
}
// ANCHOR_END: network

// ANCHOR: check
pub fn check() -> Result<()> {
    let (loss, weights) = network();
    let none = HashMap::new();
    let mut worst: f64 = 0.0;
    for (weight, gradient) in weights.iter().zip(grad(&loss, &weights)) {
        let (values, gradient) = (weight.evaluate()?, gradient.evaluate()?);
        for i in 0..values.len() {
            // The loss with this one number moved.
            let moved = |by: f64| {
                let mut values = values.clone();
                values[i] += by;
                let instead = HashMap::from([(weight.id(), values)]);
                evaluate(std::slice::from_ref(&loss), &HashMap::new(), &none, &instead)
            };
            let h = 1e-5;
            let difference = (moved(h)?[0][0] - moved(-h)?[0][0]) / (2.0 * h);
            worst = worst.max((difference - gradient[i]).abs());
        }
        println!("{:?}: {} numbers compared", weight.shape(), values.len());
    }
    println!("all closer than 1e-9: {}", worst < 1e-9);
    Ok(())
}
// ANCHOR_END: check

// ANCHOR: price
/// x1 x2 ... xn, and how many operations its value and its n slopes take.
pub fn price() -> Result<()> {
    println!("inputs  the value   value and all slopes");
    for n in [2, 10, 100, 1000] {
        let inputs: Vec<Tensor> = (0..n).map(|i| Tensor::input(format!("x{i}"), &[])).collect();
        let product = inputs.iter().skip(1).fold(inputs[0].clone(), |product, x| product * x);
        let mut everything = grad(&product, &inputs);
        everything.push(product.clone());
        let operations = |of: &[Tensor]| {
            let ids = of.iter().flat_map(nodes).filter(|n| !n.inputs().is_empty()).map(|n| n.id());
            ids.collect::<std::collections::HashSet<u64>>().len()
        };
        println!("{n:6} {:10} {:10}", operations(&[product]), operations(&everything));
    }
    Ok(())
}
// ANCHOR_END: price

/// The calculation with values and gradients.
pub fn picture() -> Result<String> {
    let tape = example();
    let gradient = backward(&tape);
    let (x, y) = (Tensor::input("x", &[]), Tensor::input("y", &[]));
    let (product, log) = (&x * &y, x.log());
    let sum = &product + &log;
    let order = [x, y, product, log, sum.clone()];
    let title = "x y + log(x) at x = 2, y = 5: values forwards, gradients backwards";
    Ok(draw(&sum, title, |node| {
        let at = order.iter().position(|other| other.id() == node.id()).expect("one of the five");
        vec![format!("= {:.3}", tape.entries[at].1), format!("gradient {:.3}", gradient[at])]
    }))
}
