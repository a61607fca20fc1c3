//! The convolution and its two gradients: one walk over all products, three places to add them.
//!
//! `y[n, i, j, o] = sum x[n, i*s + a*d - p, j*s + b*d - p, group(o), c] * w[o, c, a, b]` is a sum of
//! products x·w; each gradient is the same sum with another factor as the result. Channels `c` lie side by
//! side in x and, here, in w as well, so that a network's training step takes seconds and not minutes.

use std::ops::Range;

use crate::tensor::Conv2d;

use super::array::{Array, for_each_index};
use super::view;

/// From `[Cout, channels, kh, kw]` to `[kh, kw, Cout, channels]`, and back.
const TURNED: [usize; 4] = [2, 3, 0, 1];

/// x `[N,H,W,Cin]`, weight `[Cout,Cin/groups,kh,kw]` to `[N,Ho,Wo,Cout]`.
pub fn forward(shape: &[usize], conv: &Conv2d, x: &Array, weight: &Array) -> Array {
    let (mut y, w) = (zeros(shape), view::permute(&TURNED, weight));
    for_each_product(conv, &x.shape, &weight.shape, shape, |xs, ws, yi| {
        y.data[yi] += dot(&x.data[xs], &w.data[ws]);
    });
    y
}

/// dy `[N,Ho,Wo,Cout]`, weight to dx `[N,H,W,Cin]`.
pub fn input_grad(shape: &[usize], conv: &Conv2d, dy: &Array, weight: &Array) -> Array {
    let (mut dx, w) = (zeros(shape), view::permute(&TURNED, weight));
    for_each_product(conv, shape, &weight.shape, &dy.shape, |xs, ws, yi| {
        add_scaled(&mut dx.data[xs], dy.data[yi], &w.data[ws]);
    });
    dx
}

/// x, dy to dw `[Cout,Cin/groups,kh,kw]`.
pub fn weight_grad(shape: &[usize], conv: &Conv2d, x: &Array, dy: &Array) -> Array {
    let mut dw = zeros(&TURNED.map(|axis| shape[axis]));
    for_each_product(conv, &x.shape, shape, &dy.shape, |xs, ws, yi| {
        add_scaled(&mut dw.data[ws], dy.data[yi], &x.data[xs]);
    });
    view::permute(&TURNED, &dw)
}

fn zeros(shape: &[usize]) -> Array {
    Array::from_fn(shape, |_| 0.0)
}

/// The sum of products, in eight sums that a processor adds to at the same time.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

fn add_scaled(to: &mut [f64], factor: f64, values: &[f64]) {
    for (to, value) in to.iter_mut().zip(values) {
        *to += factor * value;
    }
}

/// Visits every product of the sum, the channels of a group at once, by its positions in x, in the weight
/// `[kh, kw, Cout, channels]` and in y.
fn for_each_product(
    conv: &Conv2d,
    x: &[usize],
    weight: &[usize],
    y: &[usize],
    mut visit: impl FnMut(Range<usize>, Range<usize>, usize),
) {
    let (channels, outputs) = (weight[1], weight[0] / conv.groups);
    let mut pixel = 0;
    for_each_index(&y[..3], |index| {
        let &[n, i, j] = index else { return };
        for a in 0..weight[2] {
            let Some(row) = source(i, a, x[1], conv, 0) else { continue };
            for b in 0..weight[3] {
                let Some(column) = source(j, b, x[2], conv, 1) else { continue };
                let at_x = ((n * x[1] + row) * x[2] + column) * x[3];
                for o in 0..weight[0] {
                    let in_x = at_x + o / outputs * channels;
                    let in_w = ((a * weight[3] + b) * weight[0] + o) * channels;
                    visit(in_x..in_x + channels, in_w..in_w + channels, pixel * weight[0] + o);
                }
            }
        }
        pixel += 1;
    });
}

/// The input row (or column) that tap `tap` of output row `i` reads, if it is not padding.
fn source(i: usize, tap: usize, size: usize, conv: &Conv2d, axis: usize) -> Option<usize> {
    let padded = i * conv.stride[axis] + tap * conv.dilation[axis];
    padded.checked_sub(conv.padding[axis]).filter(|&position| position < size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(shape: &[usize], seed: usize) -> Array {
        let mut next = seed;
        Array::from_fn(shape, |_| {
            next = (next * 37 + 11) % 101;
            next as f64 - 50.0
        })
    }

    #[test]
    fn by_hand() {
        // One row of three pixels, kernel [1, 2], padding 1: [0, 1, 2, 3, 0] against taps (10, 1).
        let conv = Conv2d { padding: [0, 1], ..Conv2d::default() };
        let x = Array { shape: vec![1, 1, 3, 1], data: vec![1.0, 2.0, 3.0] };
        let w = Array { shape: vec![1, 1, 1, 2], data: vec![10.0, 1.0] };
        assert_eq!(forward(&[1, 1, 4, 1], &conv, &x, &w).data, [1.0, 12.0, 23.0, 30.0]);
        // Stride 2 takes every second; dilation 2 pairs a pixel with the one after the next.
        let strided = Conv2d { stride: [1, 2], ..conv };
        assert_eq!(forward(&[1, 1, 2, 1], &strided, &x, &w).data, [1.0, 23.0]);
        let dilated = Conv2d { dilation: [1, 2], padding: [0, 0], ..conv };
        assert_eq!(forward(&[1, 1, 1, 1], &dilated, &x, &w).data, [13.0]);
        // Depthwise: each channel sees only its own weight.
        let x = Array { shape: vec![1, 1, 1, 2], data: vec![3.0, 5.0] };
        let w = Array { shape: vec![2, 1, 1, 1], data: vec![2.0, 7.0] };
        assert_eq!(forward(&[1, 1, 1, 2], &Conv2d::default().groups(2), &x, &w).data, [6.0, 35.0]);
    }

    #[test]
    fn gradients_are_transposes() {
        // <dy, conv(x, w)> is linear in x and in w: it equals <x, dx> and <w, dw>.
        let conv = Conv2d { stride: [2, 1], padding: [1, 2], dilation: [1, 2], groups: 2 };
        let (x, w) = (pattern(&[2, 5, 6, 4], 1), pattern(&[6, 2, 3, 2], 2));
        let shape = [2, 3, 8, 6];
        let dy = pattern(&shape, 3);
        let dot = |a: &Array, b: &Array| a.data.iter().zip(&b.data).map(|(a, b)| a * b).sum::<f64>();
        let expected = dot(&dy, &forward(&shape, &conv, &x, &w));
        assert_ne!(expected, 0.0);
        assert_eq!(dot(&x, &input_grad(&x.shape, &conv, &dy, &w)), expected);
        assert_eq!(dot(&w, &weight_grad(&w.shape, &conv, &x, &dy)), expected);
    }
}
