//! The sizes of convolutions and pools, and which of their uses a kernel is.

use autograd::tensor::{Conv2d, Window};

/// The three uses of a convolution. Images are `[N, H, W, C]`, weights `[Cout, Cin/groups, kh, kw]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConvKind {
    /// lhs = x `[N,H,W,Cin]`, rhs = weight, result `[N,Ho,Wo,Cout]`.
    Forward,
    /// lhs = dy `[N,Ho,Wo,Cout]`, rhs = weight, result dx `[N,H,W,Cin]`.
    InputGrad,
    /// lhs = x, rhs = dy, result dw `[Cout,Cin/groups,kh,kw]`. Its epilogue only stores.
    WeightGrad,
}

impl ConvKind {
    /// Which operand, left and right, is a gradient itself.
    pub fn gradients(self) -> [bool; 2] {
        [self == ConvKind::InputGrad, self == ConvKind::WeightGrad]
    }
}

/// Sizes of a convolution, the same for all three uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConvGeometry {
    /// Images, N.
    pub batch: usize,
    /// Rows of an image of x, H.
    pub height: usize,
    /// Pixels of a row, W.
    pub width: usize,
    /// Channels of x, in all groups.
    pub in_channels: usize,
    /// Channels of y, in all groups.
    pub out_channels: usize,
    /// Taps, `[kh, kw]`.
    pub kernel: [usize; 2],
    /// Rows of an image of y.
    pub out_height: usize,
    /// Pixels of a row of y.
    pub out_width: usize,
    /// Stride, padding, dilation and groups.
    pub conv: Conv2d,
}

impl ConvGeometry {
    /// A convolution of images `[N, H, W, Cin]` with weights `[Cout, Cin / groups, kh, kw]`. The kernel must
    /// fit into the padded image.
    pub fn new(input: [usize; 4], weight: [usize; 4], conv: Conv2d) -> ConvGeometry {
        let extent = |i: usize| {
            let covered = conv.dilation[i] * (weight[2 + i] - 1) + 1;
            (input[1 + i] + 2 * conv.padding[i]).saturating_sub(covered) / conv.stride[i] + 1
        };
        ConvGeometry {
            batch: input[0],
            height: input[1],
            width: input[2],
            in_channels: input[3],
            out_channels: weight[0],
            kernel: [weight[2], weight[3]],
            out_height: extent(0),
            out_width: extent(1),
            conv,
        }
    }

    /// Whether this describes a convolution: nothing zero but the padding, channels divisible by the
    /// groups, a kernel that fits into the padded image, and a result of the size that follows.
    pub fn is_valid(&self) -> bool {
        let (conv, groups) = (&self.conv, self.conv.groups);
        let sizes = [self.batch, self.height, self.width, self.in_channels, self.out_channels, groups];
        let positive =
            sizes.iter().chain(&self.kernel).chain(&conv.stride).chain(&conv.dilation).all(|&v| v > 0);
        positive
            && self.in_channels.is_multiple_of(groups)
            && self.out_channels.is_multiple_of(groups)
            && conv.dilation[0] * (self.kernel[0] - 1) < self.height + 2 * conv.padding[0]
            && conv.dilation[1] * (self.kernel[1] - 1) < self.width + 2 * conv.padding[1]
            && *self == ConvGeometry::new(self.input_shape(), self.weight_shape(), self.conv)
    }

    /// `[N, H, W, Cin]`
    pub fn input_shape(&self) -> [usize; 4] {
        [self.batch, self.height, self.width, self.in_channels]
    }

    /// `[Cout, Cin / groups, kh, kw]`
    pub fn weight_shape(&self) -> [usize; 4] {
        [self.out_channels, self.in_channels / self.conv.groups, self.kernel[0], self.kernel[1]]
    }

    /// `[N, Ho, Wo, Cout]`
    pub fn output_shape(&self) -> [usize; 4] {
        [self.batch, self.out_height, self.out_width, self.out_channels]
    }

    /// Floating point operations of the direct algorithm (two a multiply-add), for any of the three uses.
    pub fn flops(&self) -> u64 {
        let [kh, kw] = self.kernel;
        2 * (self.batch * self.out_height * self.out_width * self.out_channels) as u64
            * (self.in_channels / self.conv.groups * kh * kw) as u64
    }
}

/// What a pooling kernel computes. Images are `[N, H, W, C]`; ties of a maximum go to the first
/// position in row-major window order; padding never wins a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// inputs = (x, source), both `[N,H,W,C]`: output `[N,Ho,Wo,C]` is `source` at the position of
    /// each window's maximum of `x`. Max pooling is `source = x`.
    MaxGather,
    /// inputs = (x `[N,H,W,C]`, dy `[N,Ho,Wo,C]`): output `[N,H,W,C]` adds each `dy` at the position
    /// of its window's maximum of `x`.
    MaxScatter,
    /// inputs = (x,): output the mean of each window; see [`Window::count_padding`].
    Average,
    /// inputs = (dy `[N,Ho,Wo,C]`,): output `[N,H,W,C]`, the transpose of `Average`.
    AverageTransposed,
}

/// Sizes of a pooling kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolGeometry {
    /// Images, N.
    pub batch: usize,
    /// Rows of an image of x, H.
    pub height: usize,
    /// Pixels of a row, W.
    pub width: usize,
    /// Channels, of x and of y.
    pub channels: usize,
    /// Rows of an image of y.
    pub out_height: usize,
    /// Pixels of a row of y.
    pub out_width: usize,
    /// Size, stride and padding of the window.
    pub window: Window,
}
