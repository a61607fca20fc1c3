//! An answer to each exercise.

use std::collections::HashMap;

use autograd::{Conv2d, Tensor, evaluate, grad};

use crate::backwards::{Made, Tape};
use crate::derivative::Dual;
use crate::exercises::Norm;

/// The errors of two central differences, `h` and `2 h` wide, are as one to four: this mixture has neither.
pub fn fourth_order(f: fn(f64) -> f64, x: f64, h: f64) -> f64 {
    let central = |h: f64| (f(x + h) - f(x - h)) / (2.0 * h);
    (4.0 * central(h) - central(2.0 * h)) / 3.0
}

pub fn dual_quotient(a: Dual, b: Dual) -> Dual {
    let value = a.value / b.value;
    Dual { value, slope: (a.slope - value * b.slope) / b.value }
}

pub fn sigmoid_rule(y: &Tensor, g: &Tensor) -> Tensor {
    g * y * (1.0 - y)
}

/// A stretched number is one number read many times: what flows back to each reading is added up.
pub fn unstretch(g: &Tensor, from: &[usize]) -> Tensor {
    let stretched: Vec<usize> = (0..from.len()).filter(|&axis| from[axis] != g.dim(axis)).collect();
    g.sum(&stretched)
}

/// The places of an entry's operands.
fn operands(made: Made) -> Vec<usize> {
    match made {
        Made::Input => vec![],
        Made::Add(a, b) | Made::Mul(a, b) => vec![a, b],
        Made::Log(a) => vec![a],
    }
}

pub fn uses(tape: &Tape) -> Vec<usize> {
    let mut uses = vec![0; tape.entries.len()];
    tape.entries.iter().flat_map(|(made, _)| operands(*made)).for_each(|operand| uses[operand] += 1);
    uses
}

pub fn forward(tape: &Tape, at: usize) -> f64 {
    let mut slopes = vec![0.0; tape.entries.len()];
    for (place, (made, _)) in tape.entries.iter().enumerate() {
        let value = |at: usize| tape.entries[at].1;
        slopes[place] = match *made {
            _ if place == at => 1.0,
            Made::Input => 0.0,
            Made::Add(a, b) => slopes[a] + slopes[b],
            Made::Mul(a, b) => slopes[a] * value(b) + value(a) * slopes[b],
            Made::Log(a) => slopes[a] / value(a),
        };
    }
    slopes.pop().unwrap_or(0.0)
}

pub fn newton_root(f: fn(&Tensor) -> Tensor, start: f64) -> f64 {
    let x = Tensor::input("x", &[]);
    let y = f(&x);
    let both = [y.clone(), grad(&y, &[x]).remove(0)];
    let none = HashMap::new();
    let mut place = start;
    for _ in 0..50 {
        let inputs = HashMap::from([("x".to_string(), vec![place])]);
        let Ok(values) = evaluate(&both, &inputs, &none, &none) else { return f64::NAN };
        place -= values[0][0] / values[1][0];
    }
    place
}

pub fn hessian_product(loss: &Tensor, x: &Tensor, direction: &Tensor) -> Tensor {
    let gradient = grad(loss, std::slice::from_ref(x)).remove(0);
    grad(&(gradient * direction).sum_all(), std::slice::from_ref(x)).remove(0)
}

pub fn slots(temporaries: &[(usize, usize, usize)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..temporaries.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(temporaries[i].2));
    let mut taken: Vec<Vec<(usize, usize)>> = Vec::new();
    let mut slots = vec![0; temporaries.len()];
    for i in order {
        let (first, last, _) = temporaries[i];
        let free = |lives: &Vec<(usize, usize)>| lives.iter().all(|&(from, to)| last < from || to < first);
        // Later slots are smaller, because the largest came first.
        let slot = taken.iter().rposition(free).unwrap_or_else(|| {
            taken.push(vec![]);
            taken.len() - 1
        });
        taken[slot].push((first, last));
        slots[i] = slot;
    }
    slots
}

pub fn inlined_cost(elements: u64, operations: u64) -> (u64, u64) {
    let once = 4 * 2 * elements;
    (once * operations, once)
}

/// Each of the tiles reads its rows of the one matrix and its columns of the other. The squarer, the fewer.
pub fn tile_reads(m: u64, k: u64, n: u64, rows: u64, columns: u64) -> u64 {
    (m / rows) * (n / columns) * (rows + columns) * k
}

pub fn tree_sum(mut values: Vec<f32>) -> f32 {
    while values.len() > 1 {
        let half = values.len() / 2;
        for i in 0..half {
            values[i] += values[i + half];
        }
        values.truncate(half);
    }
    values[0]
}

/// A weight that took a pixel to its lower right takes the gradient back to its upper left: the kernel is
/// turned by half a turn, and the channels change sides.
pub fn input_gradient(dy: &Tensor, weights: &Tensor) -> Tensor {
    let reversed = |t: &Tensor, axis: usize| {
        let taps: Vec<Tensor> = (0..3).rev().map(|tap| t.slice(axis, tap, 1, 1)).collect();
        Tensor::concatenate(&taps.iter().collect::<Vec<_>>(), axis)
    };
    let turned = reversed(&reversed(weights, 2), 3).permute(&[1, 0, 2, 3]);
    dy.conv2d(&turned, Conv2d::new(1, 1))
}

pub fn convolution_cost(
    [h, w]: [usize; 2],
    c: usize,
    o: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> (usize, usize) {
    let size = |extent: usize| (extent + 2 * padding - kernel) / stride + 1;
    (size(h), size(h) * size(w) * o * c * kernel * kernel)
}

pub fn folded(weights: &Tensor, norm: &Norm) -> (Tensor, Tensor) {
    let scale = &norm.gamma / (&norm.variance + norm.eps).sqrt();
    let shift = &norm.beta - &norm.mean * &scale;
    (weights * scale.reshape(&[weights.dim(0), 1, 1, 1]), shift)
}

pub fn running_statistics(running: (f64, f64), batch: &[f64], momentum: f64) -> (f64, f64) {
    let count = batch.len() as f64;
    let mean = batch.iter().sum::<f64>() / count;
    let unbiased = batch.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (count - 1.0);
    let moved = |old: f64, new: f64| (1.0 - momentum) * old + momentum * new;
    (moved(running.0, mean), moved(running.1, unbiased))
}

pub fn momentum_update(
    parameter: &Tensor,
    velocity: &Tensor,
    gradient: &Tensor,
    rate: f64,
    momentum: f64,
) -> (Tensor, Tensor) {
    let velocity = velocity * momentum + gradient;
    (parameter - &velocity * rate, velocity)
}

pub fn cross_entropy_gradient(logits: &Tensor, labels: &Tensor) -> Tensor {
    (logits.softmax(1) - labels.one_hot(logits.dim(1))) * (1.0 / logits.dim(0) as f64)
}

/// The place of the largest entry, the first of equals.
fn largest(row: &[f64]) -> usize {
    (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

pub fn swap_row(logits: &[f64], label: usize) -> Vec<f64> {
    let mut swapped = logits.to_vec();
    swapped.swap(largest(logits), label);
    swapped
}

/// Only the entries m and y differ: `p_m = q_y` and `p_y = q_m`. What is left of the sum of p (log p - log q)
/// is (q_m - q_y)(log q_m - log q_y), and the difference of the logarithms is that of the logits over T.
pub fn swapped_divergence(logits: &[f64], label: usize, temperature: f64) -> f64 {
    let top = largest(logits);
    let exp: Vec<f64> = logits.iter().map(|z| ((z - logits[top]) / temperature).exp()).collect();
    let gap = (exp[top] - exp[label]) / exp.iter().sum::<f64>();
    temperature * gap * (logits[top] - logits[label])
}

pub fn log_sum_exp(values: &[f32]) -> f32 {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter().map(|v| (v - largest).exp()).sum::<f32>().ln() + largest
}

/// A new number moves the mean by its distance over the count; the squares grow by its distances from the old and
/// from the new mean, multiplied.
pub fn one_pass_variance(values: &mut dyn Iterator<Item = f32>) -> f32 {
    let (mut count, mut mean, mut squares) = (0.0f32, 0.0f32, 0.0f32);
    for value in values {
        count += 1.0;
        let distance = value - mean;
        mean += distance / count;
        squares += distance * (value - mean);
    }
    squares / count
}

/// For large x it is nearly x, for very negative x nearly 0: `max(x, 0)` and a logarithm between 0 and log 2.
pub fn softplus(x: &Tensor) -> Tensor {
    x.relu() + ((-x.abs()).exp() + 1.0).log()
}

/// Taylor's series: `x - x³/3! + x⁵/5! - x⁷/7! + x⁹/9!`, from the inside.
pub fn sine_series(x: f32) -> f32 {
    let square = x * x;
    let mut sum = 1.0 / 362_880.0;
    for coefficient in [-1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0, 1.0] {
        sum = sum * square + coefficient;
    }
    x * sum
}
