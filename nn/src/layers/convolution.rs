//! Convolution.

use super::scope::within;
use autograd::{Conv2d, Tensor, Variable};

/// A square convolution, or a transposed one, to be made. Padding is `kernel / 2`, which keeps the size at
/// stride 1, unless another is given.
#[derive(Clone, Copy, Debug)]
pub struct ConvSpec {
    /// Channels that go in.
    pub inputs: usize,
    /// Channels that come out.
    pub outputs: usize,
    /// Taps in each direction.
    pub kernel: usize,
    /// Pixels from one position to the next.
    pub stride: usize,
    /// Zeros on every side.
    pub padding: usize,
    /// Pixels from one tap to the next.
    pub dilation: usize,
    /// Into how many parts the channels fall, each convolved by itself.
    pub groups: usize,
    /// Whether each channel that comes out has a number added.
    pub bias: bool,
}

impl ConvSpec {
    /// `kernel x kernel`, stride 1, padding `kernel / 2`, which keeps the size, one group, no bias.
    pub fn new(inputs: usize, outputs: usize, kernel: usize) -> Self {
        ConvSpec {
            inputs,
            outputs,
            kernel,
            stride: 1,
            padding: kernel / 2,
            dilation: 1,
            groups: 1,
            bias: false,
        }
    }
    /// Each channel on its own, 3x3 (depthwise).
    pub fn depthwise(channels: usize) -> Self {
        ConvSpec::new(channels, channels, 3).groups(channels)
    }
    /// With so many pixels from one position to the next, which divides the size. (The padding stays as it is.)
    pub fn stride(self, stride: usize) -> Self {
        ConvSpec { stride, ..self }
    }
    /// With so many zeros on every side.
    pub fn padding(self, padding: usize) -> Self {
        ConvSpec { padding, ..self }
    }
    /// With the kernel's taps so many pixels apart. (The padding stays as it is.)
    pub fn dilation(self, dilation: usize) -> Self {
        ConvSpec { dilation, ..self }
    }
    /// With channels in so many groups; both counts must be divisible by it.
    pub fn groups(self, groups: usize) -> Self {
        ConvSpec { groups, ..self }
    }
    /// With a number added to each channel that comes out.
    pub fn with_bias(self) -> Self {
        ConvSpec { bias: true, ..self }
    }
    pub(super) fn weight_shape(&self) -> [usize; 4] {
        [self.outputs, self.inputs / self.groups, self.kernel, self.kernel]
    }
    pub(super) fn conv(&self) -> Conv2d {
        Conv2d::new(self.stride, self.padding).groups(self.groups).dilation(self.dilation)
    }
}

/// A convolution with weight `[Cout, Cin/groups, k, k]` and perhaps a bias `[Cout]`.
///
/// ```
/// # use autograd::Tensor;
/// # use nn::{initialization::{Initialization, Initializer}, layers::*};
/// # let initializer = Initializer::new(Initialization::PYTORCH, 1);
/// let (depthwise, state) = Builder::build(initializer, |b| b.convolution("dw", ConvSpec::depthwise(8)));
/// assert_eq!(depthwise.forward(&Tensor::input("x", &[2, 5, 5, 8])).shape(), [2, 5, 5, 8]);
/// assert_eq!(state[0].variable.shape(), [8, 1, 3, 3]);
/// ```
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

/// A transposed convolution with weight `[Cin, Cout/groups, k, k]` and perhaps a bias `[Cout]`.
///
/// ```
/// # use autograd::Tensor;
/// # use nn::{initialization::{Initialization, Initializer}, layers::*};
/// # let initializer = Initializer::new(Initialization::PYTORCH, 1);
/// let spec = ConvSpec::new(8, 4, 2).stride(2).padding(0).with_bias();
/// let (up, _) = Builder::build(initializer, |b| b.transposed_convolution("up", spec));
/// assert_eq!(up.forward(&Tensor::input("x", &[2, 5, 5, 8])).shape(), [2, 10, 10, 4]);
/// ```
pub struct TransposedConvolution {
    pub(super) weight: Variable,
    pub(super) bias: Option<Variable>,
    pub(super) conv: Conv2d,
    /// Pixels that the output has in addition, on one side: 0, unless another is given (PyTorch's
    /// `output_padding`).
    pub extra: usize,
}

impl TransposedConvolution {
    /// `[N, H, W, Cin] -> [N, Ho, Wo, Cout]`; see [`Tensor::conv2d_transposed`].
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let _layer = within(&self.weight);
        let y = x.conv2d_transposed(&self.weight.tensor(), self.conv, self.extra);
        match &self.bias {
            Some(bias) => y + bias.tensor(),
            None => y,
        }
    }
}
