//! Matrix products and convolutions. Images are `[N, H, W, C]`, convolution weights
//! `[Cout, Cin/groups, kh, kw]` (PyTorch's order, so that checkpoints need no rearranging).

use crate::tensor::{Conv2d, DType, Op, Tensor};

/// Output size of one image dim: `floor((size + 2 pad - dilation (kernel - 1) - 1) / stride) + 1`.
fn output_size(size: usize, kernel: usize, stride: usize, padding: usize, dilation: usize) -> Option<usize> {
    let span = dilation * kernel.checked_sub(1)? + 1;
    Some((size + 2 * padding).checked_sub(span)? / stride + 1)
}

impl Tensor {
    /// `[.., m, k] x [.., k, n] -> [.., m, n]`. Leading dims broadcast.
    #[track_caller]
    pub fn matmul(&self, other: &Tensor) -> Tensor {
        let operands = [self, other];
        if operands.iter().any(|t| t.dtype() != DType::F32 || t.rank() < 2) {
            return Tensor::invalid("matmul", &operands, "takes f32 with at least two dims".into());
        }
        let (a, b) = (self.shape(), other.shape());
        let (m, k, n) = (a[a.len() - 2], a[a.len() - 1], b[b.len() - 1]);
        if b[b.len() - 2] != k {
            let message = format!("inner dims differ: {k} and {}", b[b.len() - 2]);
            return Tensor::invalid("matmul", &operands, message);
        }
        let batch = super::elementwise::broadcast_shapes(&a[..a.len() - 2], &b[..b.len() - 2]);
        let Some(batch) = batch else {
            return Tensor::invalid("matmul", &operands, "leading dims do not broadcast together".into());
        };
        let with = |tail: [usize; 2]| [&batch[..], &tail[..]].concat();
        let inputs = vec![self.broadcast_to(&with([m, k])), other.broadcast_to(&with([k, n]))];
        Tensor::make(Op::MatMul, inputs, with([m, n]), DType::F32)
    }

    /// 2-d cross-correlation (what networks call convolution): self `[N,H,W,Cin]`, weight
    /// `[Cout,Cin/groups,kh,kw]`, result `[N,Ho,Wo,Cout]`.
    #[track_caller]
    pub fn conv2d(&self, weight: &Tensor, conv: Conv2d) -> Tensor {
        let operands = [self, weight];
        let fail = |message: String| Tensor::invalid("convolution", &operands, message);
        if operands.iter().any(|t| t.dtype() != DType::F32 || t.rank() != 4) {
            return fail("takes an image [N,H,W,C] and a weight [Cout,Cin/groups,kh,kw], both f32".into());
        }
        let (&[n, h, w, cin], &[cout, per_group, kh, kw]) = (self.shape(), weight.shape()) else {
            unreachable!()
        };
        let Conv2d { stride, padding, dilation, groups } = conv;
        if groups == 0 || stride.contains(&0) || dilation.contains(&0) {
            return fail(format!("stride, dilation and groups are at least 1, got {conv:?}"));
        }
        if cin % groups != 0 || cout % groups != 0 || cin / groups != per_group {
            return fail(format!("{cin} input channels in {groups} groups do not fit the weight"));
        }
        let ho = output_size(h, kh, stride[0], padding[0], dilation[0]);
        let wo = output_size(w, kw, stride[1], padding[1], dilation[1]);
        let (Some(ho), Some(wo)) = (ho, wo) else {
            return fail(format!("the kernel does not fit into the padded image ({conv:?})"));
        };
        Tensor::make(
            Op::Convolution(conv),
            vec![self.clone(), weight.clone()],
            vec![n, ho, wo, cout],
            DType::F32,
        )
    }

    /// A transposed convolution, as PyTorch's `conv_transpose2d`: self `[N,H,W,Cin]`, weight
    /// `[Cin,Cout/groups,kh,kw]`, result `[N,Ho,Wo,Cout]` with
    /// `Ho = (H-1) stride - 2 padding + dilation (kh-1) + 1 + extra`, `Wo` alike. It is the gradient of the
    /// convolution with that weight by its image. A strided convolution gives images of several sizes the same
    /// size: `extra`, less than the stride, says which of them is meant (PyTorch's `output_padding`).
    #[track_caller]
    pub fn conv2d_transposed(&self, weight: &Tensor, conv: Conv2d, extra: usize) -> Tensor {
        let operands = [self, weight];
        let fail = |message: &str| Tensor::invalid("transposed convolution", &operands, message.into());
        let (&[n, h, w, cin], &[inputs, per_group, kh, kw]) = (self.shape(), weight.shape()) else {
            return fail("takes an image [N,H,W,C] and a weight [Cin,Cout/groups,kh,kw]");
        };
        let Conv2d { stride, padding, dilation, groups } = conv;
        if operands.iter().any(|t| t.dtype() != DType::F32 || t.is_empty()) || inputs != cin {
            return fail("the weight's first dim is the image's channels, both f32 and not empty");
        }
        if groups == 0 || stride.contains(&0) || dilation.contains(&0) || cin % groups != 0 {
            return fail("stride, dilation and groups are at least 1, and the groups share the channels");
        }
        if stride.iter().any(|&stride| extra >= stride) {
            return fail("what the output has in addition is less than the stride");
        }
        let size = |size: usize, kernel: usize, d: usize| {
            let reached = (size - 1) * stride[d] + dilation[d] * (kernel - 1) + 1 + extra;
            reached.checked_sub(2 * padding[d]).filter(|&size| size > 0)
        };
        match (size(h, kh, 0), size(w, kw, 1)) {
            (Some(height), Some(width)) => {
                self.conv2d_input_grad(weight, conv, &[n, height, width, per_group * groups])
            }
            _ => fail("the padding leaves nothing of the result"),
        }
    }

    /// The convolution's transpose in its image: self is dy `[N,Ho,Wo,Cout]`, result `x_shape`.
    #[track_caller]
    pub(crate) fn conv2d_input_grad(&self, weight: &Tensor, conv: Conv2d, x_shape: &[usize]) -> Tensor {
        let inputs = vec![self.clone(), weight.clone()];
        Tensor::make(Op::ConvolutionInputGrad(conv), inputs, x_shape.to_vec(), DType::F32)
    }

    /// The convolution's transpose in its weight: self is x `[N,H,W,Cin]`, result `weight_shape`.
    #[track_caller]
    pub(crate) fn conv2d_weight_grad(&self, dy: &Tensor, conv: Conv2d, weight_shape: &[usize]) -> Tensor {
        let inputs = vec![self.clone(), dy.clone()];
        Tensor::make(Op::ConvolutionWeightGrad(conv), inputs, weight_shape.to_vec(), DType::F32)
    }
}
