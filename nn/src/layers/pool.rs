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
