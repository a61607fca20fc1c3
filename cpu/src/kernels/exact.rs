//! Convolution in f64, as its definition reads: what the kernels' errors are measured against.

use super::{ConvShape, Pass};

/// A pass computed in f64 by plain loops: the forward pass from `x` and `w`, the input gradient from
/// `w` and `dy`, or the weight gradient from `x` and `dy`; the operand not needed may be empty.
/// Layouts are those of [`forward`](super::forward) and its gradients.
///
/// # Panics
/// If an operand that is needed is too short.
pub fn exact(pass: Pass, shape: &ConvShape, x: &[f32], w: &[f32], dy: &[f32]) -> Vec<f64> {
    let s = shape;
    let mut out = match pass {
        Pass::Forward => vec![0.0; s.output_len()],
        Pass::InputGrad => vec![0.0; s.input_len()],
        Pass::WeightGrad => vec![0.0; s.weight_len()],
    };
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
                            Pass::Forward => out[yi] += x[xi] as f64 * w[wi] as f64,
                            Pass::InputGrad => out[xi] += dy[yi] as f64 * w[wi] as f64,
                            Pass::WeightGrad => out[wi] += x[xi] as f64 * dy[yi] as f64,
                        }
                    }
                }
            }
        }
    }
    out
}
