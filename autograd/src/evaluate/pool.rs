//! Pooling and its transposes over images `[N, H, W, C]`.

use crate::tensor::Window;

use super::array::{Array, for_each_index};
use super::fold;

/// `source` at the position of the maximum of each window of `x`; 0 for a window of padding alone.
pub fn max_gather(shape: &[usize], window: &Window, x: &Array, source: &Array) -> Array {
    Array::from_fn(shape, |index| best(index, window, x).map_or(0.0, |position| source.data[position]))
}

/// Adds each `dy` at the position of the maximum of its window of `x`.
pub fn max_scatter(window: &Window, x: &Array, dy: &Array) -> Array {
    let mut result = Array::from_fn(&x.shape, |_| 0.0);
    for_each_index(&dy.shape, |index| {
        if let Some(position) = best(index, window, x) {
            result.data[position] += dy.at(index);
        }
    });
    result
}

/// The mean of each window.
pub fn average(shape: &[usize], window: &Window, x: &Array) -> Array {
    Array::from_fn(shape, |index| {
        let pixels = pixels(index, window, &x.shape);
        let sum: f64 = pixels.iter().map(|&[row, column]| x.at(&[index[0], row, column, index[3]])).sum();
        sum / divisor(window, pixels.len())
    })
}

/// The transpose of [`average`]: spreads each `dy` evenly over its window.
pub fn average_transposed(shape: &[usize], window: &Window, dy: &Array) -> Array {
    let mut result = Array::from_fn(shape, |_| 0.0);
    for_each_index(&dy.shape, |index| {
        let pixels = pixels(index, window, shape);
        for &[row, column] in &pixels {
            let position = result.position(&[index[0], row, column, index[3]]);
            result.data[position] += dy.at(index) / divisor(window, pixels.len());
        }
    });
    result
}

fn divisor(window: &Window, pixels: usize) -> f64 {
    // A window without a real pixel has sum 0 and must not become 0/0.
    let count = if window.count_padding { window.size[0] * window.size[1] } else { pixels.max(1) };
    count as f64
}

/// Position in `x` of the maximum of the window at output `index`: the first in row-major order of
/// equals, the first NaN before any number.
fn best(index: &[usize], window: &Window, x: &Array) -> Option<usize> {
    let mut best: Option<usize> = None;
    for [row, column] in pixels(index, window, &x.shape) {
        let position = x.position(&[index[0], row, column, index[3]]);
        if best.is_none_or(|best| fold::beats(x.data[position], x.data[best])) {
            best = Some(position);
        }
    }
    best
}

/// The real pixels (row, column) of the window at output `index`, in row-major order.
fn pixels(index: &[usize], window: &Window, shape: &[usize]) -> Vec<[usize; 2]> {
    let range = |axis: usize| {
        let start = index[1 + axis] * window.stride[axis];
        let end = start + window.size[axis];
        let padding = window.padding[axis];
        start.saturating_sub(padding)..end.saturating_sub(padding).min(shape[1 + axis])
    };
    let mut found = Vec::new();
    for row in range(0) {
        found.extend(range(1).map(|column| [row, column]));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(data: &[f64]) -> Array {
        Array { shape: vec![1, 1, data.len(), 1], data: data.to_vec() }
    }

    fn window(count_padding: bool) -> Window {
        Window { size: [1, 3], stride: [1, 2], padding: [0, 1], count_padding }
    }

    #[test]
    fn maximum_takes_the_first_of_ties_and_never_padding() {
        let x = row(&[-1.0, -1.0, -5.0, 4.0, f64::NAN]);
        let source = row(&[10.0, 20.0, 30.0, 40.0, 50.0]);
        let picked = max_gather(&[1, 1, 3, 1], &window(true), &x, &source);
        assert_eq!(picked.data, [10.0, 40.0, 50.0]);
        let scattered = max_scatter(&window(true), &x, &row(&[1.0, 2.0, 3.0]));
        assert_eq!(scattered.data, [1.0, 0.0, 0.0, 2.0, 3.0]);
    }

    #[test]
    fn averages_divide_as_asked() {
        let x = row(&[3.0, 6.0, 9.0]);
        assert_eq!(average(&[1, 1, 2, 1], &window(true), &x).data, [3.0, 5.0]);
        assert_eq!(average(&[1, 1, 2, 1], &window(false), &x).data, [4.5, 7.5]);
        for count in [true, false] {
            let dy = row(&[2.0, -6.0]);
            let dot = |a: &Array, b: &Array| a.data.iter().zip(&b.data).map(|(a, b)| a * b).sum::<f64>();
            let forward = dot(&dy, &average(&[1, 1, 2, 1], &window(count), &x));
            let backward = dot(&x, &average_transposed(&x.shape, &window(count), &dy));
            assert!((forward - backward).abs() < 1e-12);
        }
    }
}
