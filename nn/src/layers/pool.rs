//! From a last feature map to a vector.

use autograd::Tensor;

/// `[N, H, W, C] -> [N, C]` by one average-pooling window of `side x side`, as the networks with a fixed
/// window do it: of a larger map that still holds only one window, the rest is ignored, and a map that
/// holds none or several is an error, because the classifier would not fit.
#[track_caller]
pub fn pool_to_vector(x: &Tensor, side: usize) -> Tensor {
    let &[_, h, w, _] = x.shape() else {
        return Tensor::invalid("average_pool", &[x], "takes an image [N,H,W,C]".into());
    };
    if [h, w].iter().any(|&size| size / side != 1) {
        let message = format!(
            "the image is too small or too large: the last feature map must hold one {side}x{side} window"
        );
        return Tensor::invalid("average_pool", &[x], message);
    }
    x.slice(1, 0, side, 1).slice(2, 0, side, 1).global_average_pool()
}

/// `[N, H, W, C] -> [N, n, n, C]`: cell `i` averages rows `floor(i H / n)` to `ceil((i + 1) H / n)`,
/// columns alike, as PyTorch's `adaptive_avg_pool2d`. A smaller map is repeated.
#[track_caller]
pub fn adaptive_average_pool(x: &Tensor, n: usize) -> Tensor {
    resample(x, n, |i, size| (i * size / n)..((i + 1) * size).div_ceil(n))
}

/// `[N, H, W, C] -> [N, n, n, C]`: cell `i` is row `floor(i H / n)`, columns alike, as PyTorch's
/// `interpolate` in mode `nearest`.
#[track_caller]
pub fn resize_nearest(x: &Tensor, n: usize) -> Tensor {
    resample(x, n, |i, size| (i * size / n)..(i * size / n + 1))
}

/// Each cell the mean over a range of rows and of columns, a function of its index and their number.
#[track_caller]
fn resample(x: &Tensor, n: usize, range: impl Fn(usize, usize) -> std::ops::Range<usize>) -> Tensor {
    let &[batch, h, w, c] = x.shape() else {
        return Tensor::invalid("resample", &[x], "takes an image [N,H,W,C]".into());
    };
    if n == 0 || x.is_empty() {
        return Tensor::invalid("resample", &[x], "from an image to one, neither empty".into());
    }
    if [h, w] == [n, n] {
        return x.clone();
    }
    let means = |size: usize| {
        let row = |i: usize| {
            let cells = range(i, size);
            (0..size).map(move |j| if cells.contains(&j) { 1.0 / cells.len() as f32 } else { 0.0 })
        };
        Tensor::constant(&[n, size], (0..n).flat_map(row).collect())
    };
    let rows = means(h).matmul(&x.reshape(&[batch, h, w * c])).reshape(&[batch, n, w, c]);
    means(w).matmul(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_those_of_the_definitions() -> autograd::Result<()> {
        let image = Tensor::constant(&[1, 5, 5, 1], (0..25).map(|i| i as f32).collect());
        // Rows 0-1, 1-3, 3-4 of five: means 0.5, 2, 3.5.
        let rows = [0.5, 2.0, 3.5];
        let expected: Vec<f64> = rows.iter().flat_map(|r| rows.map(|c| 5.0 * r + c)).collect();
        let pooled = adaptive_average_pool(&image, 3).evaluate()?;
        assert!(pooled.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{pooled:?}");
        let picked: Vec<f64> = [0, 1, 3].iter().flat_map(|r| [0, 1, 3].map(|c| (5 * r + c) as f64)).collect();
        assert_eq!(resize_nearest(&image, 3).evaluate()?, picked);
        // Larger: repeated, by both.
        let small = image.slice(1, 0, 2, 1).slice(2, 0, 2, 1);
        for grown in [adaptive_average_pool(&small, 4), resize_nearest(&small, 4)] {
            assert_eq!(grown.evaluate()?[..8], [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
        }
        assert!(adaptive_average_pool(&image, 0).check().is_err());
        Ok(())
    }
}
