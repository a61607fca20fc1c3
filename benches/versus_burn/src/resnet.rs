//! The CIFAR residual network of depth 6n+2 (He et al., 2016, section 4.2) in burn's layers.

use burn::module::Initializer;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::activation::relu;

fn convolution(inputs: usize, outputs: usize, kernel: usize, stride: usize, device: &Device) -> Conv2d {
    let p = kernel / 2;
    Conv2dConfig::new([inputs, outputs], [kernel, kernel])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(p, p, p, p))
        .with_bias(false)
        .with_initializer(Initializer::KaimingNormal { gain: std::f64::consts::SQRT_2, fan_out_only: true })
        .init(device)
}

/// A convolution and its batch norm.
#[derive(Module, Debug)]
struct Normalized {
    conv: Conv2d,
    norm: BatchNorm,
}

impl Normalized {
    fn new(inputs: usize, outputs: usize, kernel: usize, stride: usize, device: &Device) -> Self {
        Self {
            conv: convolution(inputs, outputs, kernel, stride, device),
            norm: BatchNormConfig::new(outputs).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.conv.forward(x))
    }
}

/// Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes.
#[derive(Module, Debug)]
struct Block {
    first: Normalized,
    second: Normalized,
    shortcut: Option<Normalized>,
}

impl Block {
    fn new(inputs: usize, outputs: usize, stride: usize, device: &Device) -> Self {
        let changes = stride != 1 || inputs != outputs;
        Self {
            first: Normalized::new(inputs, outputs, 3, stride, device),
            second: Normalized::new(outputs, outputs, 3, 1, device),
            shortcut: changes.then(|| Normalized::new(inputs, outputs, 1, stride, device)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shortcut = match &self.shortcut {
            Some(layer) => layer.forward(x.clone()),
            None => x.clone(),
        };
        relu(self.second.forward(relu(self.first.forward(x))) + shortcut)
    }
}

/// Stem, three stages of `n` blocks with 16, 32 and 64 channels, global average, linear head.
#[derive(Module, Debug)]
pub struct ResNet {
    stem: Normalized,
    blocks: Vec<Block>,
    head: Linear,
}

impl ResNet {
    /// The network with `n` blocks a stage: depth 6n+2.
    pub fn new(n: usize, classes: usize, device: &Device) -> Self {
        let mut blocks = Vec::with_capacity(3 * n);
        let mut inputs = 16;
        for (stage, outputs) in [16, 32, 64].into_iter().enumerate() {
            for index in 0..n {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                blocks.push(Block::new(inputs, outputs, stride, device));
                inputs = outputs;
            }
        }
        Self {
            stem: Normalized::new(3, 16, 3, 1, device),
            blocks,
            head: LinearConfig::new(inputs, classes).init(device),
        }
    }

    /// Logits [N, classes] of images [N, 3, H, W].
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = relu(self.stem.forward(images));
        for block in &self.blocks {
            x = block.forward(x);
        }
        let [count, channels, height, width] = x.dims();
        let pooled = x.reshape([count, channels, height * width]).mean_dim(2);
        self.head.forward(pooled.reshape([count, channels]))
    }
}
