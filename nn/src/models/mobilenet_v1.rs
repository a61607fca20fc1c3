//! MobileNet: Howard et al., *MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
//! Applications* (2017), for ImageNet. (The distillation literature's ImageNet pair "ResNet50 to
//! MobileNetV2" uses this network under that name.)

use autograd::Tensor;

use super::model::{Features, Network, Output};
use crate::layers::{Builder, ConvNorm, ConvSpec, Forward, Linear};

/// How a published network of this kind calls its layers (the stem is layer 0, the blocks follow), and by what its
/// channels are fewer than the paper's.
pub struct Form {
    name: fn(usize) -> String,
    divisor: usize,
}

/// The distillation literature's.
pub const WHOLE: Form = Form { name: |layer| format!("model.{layer}"), divisor: 1 };
/// A quarter of the channels: published weights on which many face detectors begin (biubug6/Pytorch_Retinaface).
pub const QUARTER: Form = Form {
    name: |layer| match layer {
        0..6 => format!("stage1.{layer}"),
        6..12 => format!("stage2.{}", layer - 6),
        _ => format!("stage3.{}", layer - 12),
    },
    divisor: 4,
};

/// Channels of the stem and of the first block.
const STEM: usize = 32;
const FIRST: usize = 64;
/// Table 1 of the paper: output channels and stride of the thirteen depthwise-separable blocks.
const BLOCKS: [(usize, usize); 13] = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
];

/// A 3x3 depthwise and a 1x1 convolution, each with batch norm and ReLU.
struct Separable {
    depthwise: ConvNorm,
    pointwise: ConvNorm,
    stride: usize,
}

pub struct MobileNetV1 {
    /// Channels of the first block.
    first: usize,
    stem: ConvNorm,
    blocks: Vec<Separable>,
    fc: Linear,
}

impl MobileNetV1 {
    pub fn new(b: &mut Builder, form: Form, classes: usize) -> MobileNetV1 {
        let mut inputs = STEM / form.divisor;
        let stem = b.at((form.name)(0)).conv_norm("0", "1", ConvSpec::new(3, inputs, 3).stride(2));
        let mut blocks = Vec::new();
        for (i, (outputs, stride)) in BLOCKS.into_iter().enumerate() {
            let outputs = outputs / form.divisor;
            let mut at = b.at((form.name)(i + 1));
            blocks.push(Separable {
                depthwise: at.conv_norm("0", "1", ConvSpec::depthwise(inputs).stride(stride)),
                pointwise: at.conv_norm("3", "4", ConvSpec::new(inputs, outputs, 1)),
                stride,
            });
            inputs = outputs;
        }
        MobileNetV1 { first: FIRST / form.divisor, stem, blocks, fc: b.linear("fc", inputs, classes) }
    }
}

impl Network for MobileNetV1 {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        let mut before = self.stem.forward(images, forward);
        let mut x = before.relu();
        let mut stages = Vec::new();
        for block in &self.blocks {
            // A stage ends where the resolution falls; the first, of one block, counts with the stem.
            if block.stride > 1 && x.dim(3) > self.first {
                stages.push((before.clone(), x.clone()));
            }
            let hidden = block.depthwise.forward(&x, forward).relu();
            before = block.pointwise.forward(&hidden, forward);
            x = before.relu();
        }
        stages.push((before, x.clone()));
        // At 224x224 the literature's average over 7x7.
        let pooled = x.global_average_pool();
        Output { logits: self.fc.forward(&pooled), features: Features::new(stages, pooled) }
    }
}
