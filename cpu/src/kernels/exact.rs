//! Convolution as its definition reads; in f64, it is what the kernels' errors are measured against.

use super::{ConvShape, Pass};

/// A pass computed in f64: the forward pass from `x` and `w`, the input gradient from `w` and `dy`, or
/// the weight gradient from `x` and `dy`; the operand not needed may be empty. Layouts are those of
/// [`forward`](super::forward) and its gradients.
///
/// # Panics
/// If an operand that is needed is too short.
pub fn exact(pass: Pass, shape: &ConvShape, x: &[f32], w: &[f32], dy: &[f32]) -> Vec<f64> {
    plain(pass, shape, x, w, dy, |a, b, sum| sum + a as f64 * b as f64)
}

/// The same by plain loops in any precision, given how a product is added to a sum.
pub(super) fn plain<T: Copy + Default>(
    pass: Pass,
    shape: &ConvShape,
    x: &[f32],
    w: &[f32],
    dy: &[f32],
    add: impl Fn(f32, f32, T) -> T,
) -> Vec<T> {
    let s = shape;
    let len = match pass {
        Pass::Forward => s.output_len(),
        Pass::InputGrad => s.input_len(),
        Pass::WeightGrad => s.weight_len(),
    };
    let mut out = vec![T::default(); len];
    let (ci, co) = (s.cin_per_group(), s.cout_per_group());
    for n in 0..s.n {
        for (oy, ox) in (0..s.oh()).flat_map(|y| (0..s.ow()).map(move |x| (y, x))) {
            for (ky, kx) in (0..s.kh).flat_map(|y| (0..s.kw).map(move |x| (y, x))) {
                let row = (oy * s.stride[0] + ky * s.dilation[0]).wrapping_sub(s.pad[0]);
                let column = (ox * s.stride[1] + kx * s.dilation[1]).wrapping_sub(s.pad[1]);
                if row >= s.h || column >= s.w {
                    continue;
                }
                for o in 0..s.cout {
                    let yi = ((n * s.oh() + oy) * s.ow() + ox) * s.cout + o;
                    for i in 0..ci {
                        let xi = ((n * s.h + row) * s.w + column) * s.cin + o / co * ci + i;
                        let wi = ((o * ci + i) * s.kh + ky) * s.kw + kx;
                        match pass {
                            Pass::Forward => out[yi] = add(x[xi], w[wi], out[yi]),
                            Pass::InputGrad => out[xi] = add(dy[yi], w[wi], out[xi]),
                            Pass::WeightGrad => out[wi] = add(x[xi], dy[yi], out[wi]),
                        }
                    }
                }
            }
        }
    }
    out
}
