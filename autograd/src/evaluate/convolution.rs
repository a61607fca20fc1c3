//! The convolution and its two gradients: one walk over all products, three places to add them.
//!
//! `y[n, i, j, o] = sum x[n, i*s + a*d - p, j*s + b*d - p, group(o), c] * w[o, c, a, b]` is a sum of
//! products x·w; each gradient is the same sum with another factor as the result.

use crate::tensor::Conv2d;

use super::array::{Array, for_each_index};

/// x `[N,H,W,Cin]`, weight `[Cout,Cin/groups,kh,kw]` to `[N,Ho,Wo,Cout]`.
pub fn forward(shape: &[usize], conv: &Conv2d, x: &Array, weight: &Array) -> Array {
    let mut y = Array::from_fn(shape, |_| 0.0);
    for_each_product(conv, &x.shape, &weight.shape, shape, |xi, wi, yi| {
        y.data[yi] += x.data[xi] * weight.data[wi];
    });
    y
}

/// dy `[N,Ho,Wo,Cout]`, weight to dx `[N,H,W,Cin]`.
pub fn input_grad(shape: &[usize], conv: &Conv2d, dy: &Array, weight: &Array) -> Array {
    let mut dx = Array::from_fn(shape, |_| 0.0);
    for_each_product(conv, shape, &weight.shape, &dy.shape, |xi, wi, yi| {
        dx.data[xi] += dy.data[yi] * weight.data[wi];
    });
    dx
}

/// x, dy to dw `[Cout,Cin/groups,kh,kw]`.
pub fn weight_grad(shape: &[usize], conv: &Conv2d, x: &Array, dy: &Array) -> Array {
    let mut dw = Array::from_fn(shape, |_| 0.0);
    for_each_product(conv, &x.shape, shape, &dy.shape, |xi, wi, yi| {
        dw.data[wi] += x.data[xi] * dy.data[yi];
    });
    dw
}

/// Visits every product of the sum by its positions in x, in the weight and in y.
fn for_each_product(
    conv: &Conv2d,
    x: &[usize],
    weight: &[usize],
    y: &[usize],
    mut visit: impl FnMut(usize, usize, usize),
) {
    let (channels, outputs) = (weight[1], weight[0] / conv.groups);
    let taps = weight[2] * weight[3];
    let mut pixel = 0;
    for_each_index(&y[..3], |index| {
        let &[n, i, j] = index else { return };
        for a in 0..weight[2] {
            let Some(row) = source(i, a, x[1], conv, 0) else { continue };
            for b in 0..weight[3] {
                let Some(column) = source(j, b, x[2], conv, 1) else { continue };
                let at_x = ((n * x[1] + row) * x[2] + column) * x[3];
                let at_tap = a * weight[3] + b;
                for o in 0..weight[0] {
                    let (first, at_y) = (at_x + o / outputs * channels, pixel * weight[0] + o);
                    for c in 0..channels {
                        visit(first + c, (o * channels + c) * taps + at_tap, at_y);
                    }
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
