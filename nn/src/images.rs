//! Image layouts. Inside, an image batch is `[N, H, W, C]`, channels last; PyTorch's is `[N, C, H, W]`.

/// Reorders row-major values from `[N, C, H, W]` to `[N, H, W, C]`.
///
/// # Panics
/// If `values` does not have `n * c * h * w` elements.
pub fn nhwc_from_nchw<T: Copy>(values: &[T], [n, c, h, w]: [usize; 4]) -> Vec<T> {
    assert_eq!(values.len(), n * c * h * w, "[{n}, {c}, {h}, {w}] does not fit the number of values");
    let mut out = Vec::with_capacity(values.len());
    for image in values.chunks_exact((c * h * w).max(1)) {
        for pixel in 0..h * w {
            out.extend((0..c).map(|channel| image[channel * h * w + pixel]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_move_last() {
        let values: Vec<usize> = (0..2 * 3 * 2 * 4).collect();
        let out = nhwc_from_nchw(&values, [2, 3, 2, 4]);
        for (n, y, x, c) in [(0, 0, 0, 0), (0, 0, 0, 2), (1, 1, 3, 1), (1, 0, 2, 2)] {
            assert_eq!(out[((n * 2 + y) * 4 + x) * 3 + c], values[((n * 3 + c) * 2 + y) * 4 + x]);
        }
    }
}
