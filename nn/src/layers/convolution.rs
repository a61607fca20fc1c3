//! Convolution.

use super::scope::within;
use autograd::{Conv2d, Tensor, Variable};

/// A square convolution to be made. Padding is `kernel / 2`, which keeps the size at stride 1, unless
/// another is given.
#[derive(Clone, Copy, Debug)]
pub struct ConvSpec {
    pub inputs: usize,
    pub outputs: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
    pub groups: usize,
    pub bias: bool,
}

impl ConvSpec {
    /// `kernel x kernel`, stride 1, padding `kernel / 2`, which keeps the size, one group, no bias.
    pub fn new(inputs: usize, outputs: usize, kernel: usize) -> Self {
        ConvSpec { inputs, outputs, kernel, stride: 1, padding: kernel / 2, groups: 1, bias: false }
    }
    /// Each channel on its own, 3x3.
    pub fn depthwise(channels: usize) -> Self {
        ConvSpec::new(channels, channels, 3).groups(channels)
    }
    pub fn stride(self, stride: usize) -> Self {
        ConvSpec { stride, ..self }
    }
    pub fn padding(self, padding: usize) -> Self {
        ConvSpec { padding, ..self }
    }
    pub fn groups(self, groups: usize) -> Self {
        ConvSpec { groups, ..self }
    }
    pub fn with_bias(self) -> Self {
        ConvSpec { bias: true, ..self }
    }
    pub(super) fn weight_shape(&self) -> [usize; 4] {
        [self.outputs, self.inputs / self.groups, self.kernel, self.kernel]
    }
    pub(super) fn conv(&self) -> Conv2d {
        Conv2d::new(self.stride, self.padding).groups(self.groups)
    }
}

/// A convolution with weight `[Cout, Cin/groups, k, k]` and perhaps a bias `[Cout]`.
pub struct Convolution {
    pub(super) weight: Variable,
    pub(super) bias: Option<Variable>,
    pub(super) conv: Conv2d,
}

impl Convolution {
    /// `[N, H, W, Cin] -> [N, Ho, Wo, Cout]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let _layer = within(&self.weight);
        let y = x.conv2d(&self.weight.tensor(), self.conv);
        match &self.bias {
            Some(bias) => y + bias.tensor(),
            None => y,
        }
    }
}

/// A transposed convolution with weight `[Cin, Cout, k, k]` and bias `[Cout]`.
pub struct TransposedConvolution {
    pub(super) weight: Variable,
    pub(super) bias: Variable,
    pub(super) conv: Conv2d,
}

impl TransposedConvolution {
    /// `[N, H, W, Cin] -> [N, Ho, Wo, Cout]`; see [`Tensor::conv2d_transposed`].
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let _layer = within(&self.weight);
        x.conv2d_transposed(&self.weight.tensor(), self.conv) + self.bias.tensor()
    }
}
