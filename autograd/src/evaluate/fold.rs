//! Reductions, argmax and the matrix product.

use crate::tensor::ReduceOp;

use super::array::{Array, dense_strides, for_each_position};

/// Folds `axes` to size 1.
pub fn reduce(op: ReduceOp, axes: &[usize], x: &Array) -> Array {
    let fold: fn(&[f64]) -> f64 = match op {
        ReduceOp::Sum => |values| values.iter().sum(),
        ReduceOp::Max => |values| values.iter().fold(f64::NEG_INFINITY, |a, &b| larger(a, b)),
        ReduceOp::Variance => variance,
    };
    gather(axes, x, fold)
}

/// The lowest position of the largest value along `axis` (size 1 after); the first NaN counts as largest.
pub fn argmax(axis: usize, x: &Array) -> Array {
    gather(&[axis], x, |values| {
        let mut best = 0;
        for (position, &value) in values.iter().enumerate() {
            if beats(value, values[best]) {
                best = position;
            }
        }
        best as f64
    })
}

/// Whether a later `value` displaces `best` as the largest so far: NaN displaces numbers, nothing
/// displaces NaN, ties do not.
pub fn beats(value: f64, best: f64) -> bool {
    !best.is_nan() && (value > best || value.is_nan())
}

/// `[.., m, k] x [.., k, n]`.
pub fn matmul(a: &Array, b: &Array) -> Array {
    let rank = a.shape.len();
    let (rows, inner, columns) = (a.shape[rank - 2], a.shape[rank - 1], b.shape[rank - 1]);
    let mut shape = a.shape.clone();
    shape[rank - 1] = columns;
    let mut data = Vec::with_capacity(shape.iter().product());
    for batch in 0..shape[..rank - 2].iter().product() {
        for row in 0..rows {
            let left = &a.data[(batch * rows + row) * inner..][..inner];
            for column in 0..columns {
                let right = |k: usize| b.data[(batch * inner + k) * columns + column];
                data.push(left.iter().enumerate().map(|(k, a)| a * right(k)).sum());
            }
        }
    }
    Array { shape, data }
}

/// `fold` of the values along `axes` (in row-major order), for every index of the other axes.
fn gather(axes: &[usize], x: &Array, fold: impl Fn(&[f64]) -> f64) -> Array {
    let mut shape = x.shape.clone();
    for &axis in axes {
        shape[axis] = 1;
    }
    let mut sorted: Vec<usize> = axes.to_vec();
    sorted.sort_unstable();
    let strides = dense_strides(&x.shape);
    let sizes: Vec<usize> = sorted.iter().map(|&axis| x.shape[axis]).collect();
    let steps: Vec<usize> = sorted.iter().map(|&axis| strides[axis]).collect();
    let (mut values, mut data) = (Vec::new(), Vec::with_capacity(shape.iter().product()));
    for_each_position(&shape, &strides, 0, |first| {
        values.clear();
        for_each_position(&sizes, &steps, first, |position| values.push(x.data[position]));
        data.push(fold(&values));
    });
    Array { shape, data }
}

fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// `mean((v - mean(v))^2)`.
fn variance(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(shape: &[usize], data: &[f64]) -> Array {
        Array { shape: shape.to_vec(), data: data.to_vec() }
    }

    #[test]
    fn folds_keep_the_other_axes() {
        let x = array(&[2, 3], &[1.0, 2.0, 6.0, 4.0, 5.0, 0.0]);
        assert_eq!(reduce(ReduceOp::Sum, &[0], &x), array(&[1, 3], &[5.0, 7.0, 6.0]));
        assert_eq!(reduce(ReduceOp::Max, &[1], &x), array(&[2, 1], &[6.0, 5.0]));
        assert_eq!(reduce(ReduceOp::Sum, &[1, 0], &x), array(&[1, 1], &[18.0]));
        // mean 3: squares 4, 1, 9 over 3.
        let variance = reduce(ReduceOp::Variance, &[1], &x);
        assert!((variance.data[0] - 14.0 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn argmax_takes_the_first_of_ties_and_the_first_nan() {
        let x = array(&[3, 4], &[1.0, 7.0, 7.0, 0.0, 5.0, f64::NAN, 9.0, f64::NAN, -1.0, -2.0, -1.0, -3.0]);
        assert_eq!(argmax(1, &x).data, [1.0, 1.0, 0.0]);
        assert!(reduce(ReduceOp::Max, &[1], &x).data[1].is_nan());
    }

    #[test]
    fn matmul_of_a_batch() {
        let a = array(&[2, 1, 2], &[1.0, 2.0, 3.0, 4.0]);
        let b = array(&[2, 2, 2], &[1.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(matmul(&a, &b), array(&[2, 1, 2], &[1.0, 2.0, 22.0, 29.0]));
    }
}
