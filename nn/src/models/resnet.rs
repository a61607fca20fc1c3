//! Residual networks for CIFAR: He, Zhang, Ren, Sun, *Deep Residual Learning for Image Recognition*
//! (CVPR 2016), section 4.2, and the four times wider ones of the distillation literature.

use autograd::Tensor;

use super::model::{Features, Network, Output};
use crate::initialization::{Biases, Initialization, Weights};
use crate::layers::{BatchNorm, Builder, ConvNorm, ConvSpec, Forward, Linear, pool_to_vector};

pub const INITIALIZATION: Initialization = Initialization {
    convolution: Weights::NormalFanOut,
    convolution_bias: Biases::Zero,
    linear: Weights::UniformFanIn,
    linear_bias: Biases::UniformFanIn,
};

/// Channels of the stem and of the three stages.
pub const THIN: [usize; 4] = [16, 16, 32, 64];
/// The same of the `x4` networks. Their stem is only twice as wide, so that their first stage, too,
/// begins with a projection.
pub const WIDE: [usize; 4] = [32, 64, 128, 256];

/// Two 3x3 convolutions and a shortcut.
pub struct BasicBlock {
    first: ConvNorm,
    second: ConvNorm,
    shortcut: Option<ConvNorm>,
}

impl BasicBlock {
    /// `shortcut` names the projection's submodule.
    pub fn new(b: &mut Builder, inputs: usize, outputs: usize, stride: usize, shortcut: &str) -> Self {
        BasicBlock {
            first: b.conv_norm("conv1", "bn1", ConvSpec::new(inputs, outputs, 3).stride(stride)),
            second: b.conv_norm("conv2", "bn2", ConvSpec::new(outputs, outputs, 3)),
            shortcut: projection(b, inputs, outputs, stride, shortcut),
        }
    }

    /// The batch norm before the shortcut is added.
    pub fn last_norm(&self) -> &BatchNorm {
        &self.second.norm
    }

    /// Before the last ReLU.
    pub fn forward(&self, x: &Tensor, forward: &mut Forward) -> Tensor {
        let hidden = self.first.forward(x, forward).relu();
        let residual = self.second.forward(&hidden, forward);
        match &self.shortcut {
            Some(projection) => residual + projection.forward(x, forward),
            None => residual + x,
        }
    }
}

/// The shortcut where shapes differ: a strided 1x1 convolution with batch norm.
pub fn projection(
    b: &mut Builder,
    inputs: usize,
    outputs: usize,
    stride: usize,
    name: &str,
) -> Option<ConvNorm> {
    let spec = ConvSpec::new(inputs, outputs, 1).stride(stride);
    (stride != 1 || inputs != outputs).then(|| b.at(name).conv_norm("0", "1", spec))
}

/// Depth `6n + 2`: a stem, three stages of `n` basic blocks, the second and third at half the
/// resolution of the one before, an 8x8 average and a classifier.
pub struct ResNet {
    stem: ConvNorm,
    stages: Vec<Vec<BasicBlock>>,
    fc: Linear,
}

impl ResNet {
    pub fn new(b: &mut Builder, depth: usize, channels: [usize; 4], classes: usize) -> ResNet {
        let blocks = (depth - 2) / 6;
        let stem = b.conv_norm("conv1", "bn1", ConvSpec::new(3, channels[0], 3));
        let mut stages = Vec::new();
        for stage in 1..=3 {
            let mut at = b.at(format!("layer{stage}"));
            let outputs = channels[stage];
            let block = |i: usize| {
                let first = i == 0;
                let inputs = if first { channels[stage - 1] } else { outputs };
                let stride = if first && stage > 1 { 2 } else { 1 };
                BasicBlock::new(&mut at.at(i.to_string()), inputs, outputs, stride, "downsample")
            };
            stages.push((0..blocks).map(block).collect());
        }
        ResNet { stem, stages, fc: b.linear("fc", channels[3], classes) }
    }
}

impl Network for ResNet {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        let mut x = self.stem.forward(images, forward).relu();
        let mut stages = vec![(x.clone(), x.clone())];
        for stage in &self.stages {
            let mut before = x.clone();
            for block in stage {
                before = block.forward(&x, forward);
                x = before.relu();
            }
            stages.push((before, x.clone()));
        }
        let pooled = pool_to_vector(&x, 8);
        let logits = self.fc.forward(&pooled);
        let norms = self.stages.iter().flat_map(|stage| stage.last()).map(BasicBlock::last_norm);
        Output { logits, features: Features::new(stages, pooled).with_norms(norms) }
    }
}
