//! ImageNet's residual networks (He et al., CVPR 2016, table 1) at CIFAR's size: a 3x3 stem of 64
//! channels without max-pool. Bottlenecks stride in their 3x3 convolution.

use autograd::Tensor;

use super::model::{Features, Network, Output};
use super::resnet::{BasicBlock, projection};
use crate::layers::{BatchNorm, Builder, ConvNorm, ConvSpec, Forward, Linear};

/// 1x1, 3x3 and 1x1 to four times the width, and a shortcut.
pub struct Bottleneck {
    reduce: ConvNorm,
    spatial: ConvNorm,
    expand: ConvNorm,
    shortcut: Option<ConvNorm>,
}

impl Bottleneck {
    /// `shortcut` names the projection's submodule.
    pub fn new(b: &mut Builder, inputs: usize, width: usize, stride: usize, shortcut: &str) -> Self {
        Bottleneck {
            reduce: b.conv_norm("conv1", "bn1", ConvSpec::new(inputs, width, 1)),
            spatial: b.conv_norm("conv2", "bn2", ConvSpec::new(width, width, 3).stride(stride)),
            expand: b.conv_norm("conv3", "bn3", ConvSpec::new(width, 4 * width, 1)),
            shortcut: projection(b, inputs, 4 * width, stride, shortcut),
        }
    }

    /// Before the last ReLU.
    pub fn forward(&self, x: &Tensor, forward: &mut Forward) -> Tensor {
        let reduced = self.reduce.forward(x, forward).relu();
        let spatial = self.spatial.forward(&reduced, forward).relu();
        let residual = self.expand.forward(&spatial, forward);
        match &self.shortcut {
            Some(projection) => residual + projection.forward(x, forward),
            None => residual + x,
        }
    }
}

/// Either kind of block.
pub enum Block {
    Basic(BasicBlock),
    Bottleneck(Bottleneck),
}

impl Block {
    /// The batch norm before the shortcut is added.
    pub fn last_norm(&self) -> &BatchNorm {
        match self {
            Block::Basic(block) => block.last_norm(),
            Block::Bottleneck(block) => &block.expand.norm,
        }
    }

    /// Before the last ReLU.
    pub fn forward(&self, x: &Tensor, forward: &mut Forward) -> Tensor {
        match self {
            Block::Basic(block) => block.forward(x, forward),
            Block::Bottleneck(block) => block.forward(x, forward),
        }
    }
}

/// The four stages, of 64, 128, 256 and 512 channels (times four for bottlenecks), strides 1, 2, 2, 2.
/// Returns them with the channels of the last.
pub fn stages(
    b: &mut Builder,
    blocks: [usize; 4],
    bottleneck: bool,
    shortcut: &str,
) -> (Vec<Vec<Block>>, usize) {
    let mut channels = 64;
    let mut stages = Vec::new();
    for (stage, count) in blocks.into_iter().enumerate() {
        let mut at = b.at(format!("layer{}", stage + 1));
        let width = 64 << stage;
        let mut blocks = Vec::new();
        for i in 0..count {
            let stride = if i == 0 && stage > 0 { 2 } else { 1 };
            let mut at = at.at(i.to_string());
            if bottleneck {
                let block = Bottleneck::new(&mut at, channels, width, stride, shortcut);
                blocks.push(Block::Bottleneck(block));
                channels = 4 * width;
            } else {
                blocks.push(Block::Basic(BasicBlock::new(&mut at, channels, width, stride, shortcut)));
                channels = width;
            }
        }
        stages.push(blocks);
    }
    (stages, channels)
}

/// A CIFAR stem, four stages, a global average and a classifier.
pub struct ResNet {
    stem: ConvNorm,
    stages: Vec<Vec<Block>>,
    linear: Linear,
}

impl ResNet {
    pub fn resnet18(b: &mut Builder, classes: usize) -> ResNet {
        ResNet::new(b, [2, 2, 2, 2], false, classes)
    }
    pub fn resnet50(b: &mut Builder, classes: usize) -> ResNet {
        ResNet::new(b, [3, 4, 6, 3], true, classes)
    }
    fn new(b: &mut Builder, blocks: [usize; 4], bottleneck: bool, classes: usize) -> ResNet {
        let stem = b.conv_norm("conv1", "bn1", ConvSpec::new(3, 64, 3));
        let (stages, channels) = stages(b, blocks, bottleneck, "shortcut");
        ResNet { stem, stages, linear: b.linear("linear", channels, classes) }
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
        let pooled = x.global_average_pool();
        let logits = self.linear.forward(&pooled);
        let norms = self.stages.iter().flat_map(|stage| stage.last()).map(Block::last_norm);
        Output { logits, features: Features::new(stages, pooled).with_norms(norms) }
    }
}
