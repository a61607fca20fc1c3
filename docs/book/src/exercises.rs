//! Yours to write. Each test is run with
//! `cargo test --release -p book --test exercises NAME::yours -- --ignored`; `checks.rs` says what is asked of an
//! answer, `solutions.rs` has one.

// Parameters are unused until you use them.
#![allow(unused_variables)]

use autograd::Tensor;

use crate::backwards::Tape;
use crate::derivative::Dual;

/// Chapter 1: a slope whose error shrinks with the fourth power of `h`, from four values of `f`.
pub fn fourth_order(f: fn(f64) -> f64, x: f64, h: f64) -> f64 {
    todo!()
}

/// Chapter 1: the quotient of two numbers that know their slopes.
pub fn dual_quotient(a: Dual, b: Dual) -> Dual {
    todo!()
}

/// Chapter 2: the gradient of `sigmoid(x)`'s input, from the output `y` and its gradient `g`. Without `exp`.
pub fn sigmoid_rule(y: &Tensor, g: &Tensor) -> Tensor {
    todo!()
}

/// Chapter 2: the gradient of the operand of shape `from` that was stretched to the shape of `g`. Both
/// shapes have as many dims.
pub fn unstretch(g: &Tensor, from: &[usize]) -> Tensor {
    todo!()
}

/// Chapter 3: for each entry of a tape, how many others its result goes into directly.
pub fn uses(tape: &Tape) -> Vec<usize> {
    todo!()
}

/// Chapter 3: the slope of the last entry as the entry `at` moves, computed forwards along the tape.
pub fn forward(tape: &Tape, at: usize) -> f64 {
    todo!()
}

/// Chapter 4: a place where `f` is zero, near `start`. `f` makes an expression from an expression of shape
/// `[]`.
pub fn newton_root(f: fn(&Tensor) -> Tensor, start: f64) -> f64 {
    todo!()
}

/// Chapter 4: the Hessian of `loss` with respect to `x`, times `direction`, which is shaped like `x`.
pub fn hessian_product(loss: &Tensor, x: &Tensor, direction: &Tensor) -> Tensor {
    todo!()
}

/// Chapter 5: a slot for each temporary, given (first use, last use, size). Slots count from 0; give them to the
/// largest first.
pub fn slots(temporaries: &[(usize, usize, usize)]) -> Vec<usize> {
    todo!()
}

/// Chapter 5: bytes moved by a chain of `operations` elementwise operations of one operand on `elements` `f32`:
/// if each is a kernel, and if all are one.
pub fn inlined_cost(elements: u64, operations: u64) -> (u64, u64) {
    todo!()
}

/// Chapter 6: numbers read from far memory by a product of `[m, k]` with `[k, n]` in tiles of `rows` by
/// `columns`, which divide `m` and `n`.
pub fn tile_reads(m: u64, k: u64, n: u64, rows: u64, columns: u64) -> u64 {
    todo!()
}

/// Chapter 6: the sum of as many numbers as a power of two: in each round, the first half adds the second half
/// to itself, place by place.
pub fn tree_sum(values: Vec<f32>) -> f32 {
    todo!()
}

/// Chapter 7: the gradient by the image of a 3x3 convolution with stride 1 and padding 1, written as another
/// convolution. `dy` is `[N, H, W, O]`, `weights` is `[O, C, 3, 3]`.
pub fn input_gradient(dy: &Tensor, weights: &Tensor) -> Tensor {
    todo!()
}

/// Chapter 7: the output height of a convolution, and the multiplications it takes for one image of `h` by
/// `w` with `c` channels to `o` channels, with a square kernel. The width follows as the height does.
pub fn convolution_cost(
    [h, w]: [usize; 2],
    c: usize,
    o: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> (usize, usize) {
    todo!()
}

/// An evaluation-mode batch norm: each `[C]`.
pub struct Norm {
    pub gamma: Tensor,
    pub beta: Tensor,
    pub mean: Tensor,
    pub variance: Tensor,
    pub eps: f64,
}

/// Chapter 8: the weights `[O, C, 3, 3]` and the shift `[O]` of a convolution that does what one without a shift
/// and the norm behind it do.
pub fn folded(weights: &Tensor, norm: &Norm) -> (Tensor, Tensor) {
    todo!()
}

/// Chapter 8: the running mean and variance after a batch of one channel, of which they take the share
/// `momentum`.
pub fn running_statistics(running: (f64, f64), batch: &[f64], momentum: f64) -> (f64, f64) {
    todo!()
}

/// Chapter 9: the new parameter and the new velocity, given both, the gradient, the rate and the momentum.
pub fn momentum_update(
    parameter: &Tensor,
    velocity: &Tensor,
    gradient: &Tensor,
    rate: f64,
    momentum: f64,
) -> (Tensor, Tensor) {
    todo!()
}

/// Chapter 9: the gradient of the mean cross entropy of logits `[N, C]` and integer labels `[N]` by the logits.
pub fn cross_entropy_gradient(logits: &Tensor, labels: &Tensor) -> Tensor {
    todo!()
}

/// Chapter 10: the logits of one picture with the largest and the label's exchanged.
pub fn swap_row(logits: &[f64], label: usize) -> Vec<f64> {
    todo!()
}

/// Chapter 10: `T² KL(softmax(swap(s) / T) || softmax(s / T))` of one row of logits, in its short form.
pub fn swapped_divergence(logits: &[f64], label: usize, temperature: f64) -> f64 {
    todo!()
}

/// Chapter 11: `log(exp(a) + exp(b) + ...)`, in f32.
pub fn log_sum_exp(values: &[f32]) -> f32 {
    todo!()
}

/// Chapter 11: the biased variance, in f32, in one pass.
pub fn one_pass_variance(values: &mut dyn Iterator<Item = f32>) -> f32 {
    todo!()
}

/// Chapter 12: `log(1 + exp(x))`, elementwise.
pub fn softplus(x: &Tensor) -> Tensor {
    todo!()
}

/// Chapter 12: the sine of an angle between -π/2 and π/2, as a polynomial.
pub fn sine_series(x: f32) -> f32 {
    todo!()
}
