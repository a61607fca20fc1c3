//! MobileNetV2 at full width for Tiny-ImageNet's 64x64 images, as the distillation literature has it: Sandler
//! et al. (CVPR 2018) with ReLU6, biases in all convolutions, a 1x1 stem that pads the image by one pixel, three
//! strides instead of five, and a 1x1 convolution as classifier.

use autograd::Tensor;

use super::mobilenet_v2::InvertedResidual;
use super::model::{Features, Network, Output};
use crate::layers::{Builder, ConvNorm, ConvSpec, Convolution, Forward};

/// Expansion, channels, blocks, stride of the first, of the seven stages.
const SETTINGS: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 1),
    (6, 320, 1, 1),
];
/// Stages whose output is a feature, beside the stem's and the last convolution's.
const STAGE_ENDS: [usize; 3] = [1, 2, 3];
const LAST: usize = 1280;

fn block(
    b: &mut Builder,
    inputs: usize,
    outputs: usize,
    stride: usize,
    expansion: usize,
) -> InvertedResidual {
    let hidden = inputs * expansion;
    let mut b = b.at("residual");
    InvertedResidual {
        expand: Some(b.conv_norm("0", "1", ConvSpec::new(inputs, hidden, 1).with_bias())),
        depthwise: b.conv_norm("3", "4", ConvSpec::depthwise(hidden).stride(stride).with_bias()),
        project: b.conv_norm("6", "7", ConvSpec::new(hidden, outputs, 1).with_bias()),
        residual: stride == 1 && inputs == outputs,
        activation: Tensor::relu6,
    }
}

pub struct MobileNetV2 {
    stem: ConvNorm,
    stages: Vec<Vec<InvertedResidual>>,
    last: ConvNorm,
    classifier: Convolution,
    classes: usize,
}

impl MobileNetV2 {
    pub fn new(b: &mut Builder, classes: usize) -> MobileNetV2 {
        let mut inputs = 32;
        let stem = b.at("pre").conv_norm("0", "1", ConvSpec::new(3, inputs, 1).padding(1).with_bias());
        let mut stages = Vec::new();
        for (index, (expansion, channels, blocks, stride)) in SETTINGS.into_iter().enumerate() {
            let mut made = Vec::new();
            for i in 0..blocks {
                // A stage of one block is that block.
                let number = if blocks > 1 { format!(".{i}") } else { String::new() };
                let mut at = b.at(format!("stage{}{number}", index + 1));
                made.push(block(&mut at, inputs, channels, if i == 0 { stride } else { 1 }, expansion));
                inputs = channels;
            }
            stages.push(made);
        }
        MobileNetV2 {
            stem,
            stages,
            last: b.at("conv1").conv_norm("0", "1", ConvSpec::new(inputs, LAST, 1).with_bias()),
            classifier: b.convolution("conv2", ConvSpec::new(LAST, classes, 1).with_bias()),
            classes,
        }
    }
}

impl Network for MobileNetV2 {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        let before = self.stem.forward(images, forward);
        let mut x = before.relu6();
        let mut features = vec![(before, x.clone())];
        for (index, stage) in self.stages.iter().enumerate() {
            for block in stage {
                x = block.forward(&x, forward);
            }
            // Bottlenecks are linear: there is no ReLU to be before or after.
            if STAGE_ENDS.contains(&index) {
                features.push((x.clone(), x.clone()));
            }
        }
        let before = self.last.forward(&x, forward);
        let last = before.relu6();
        features.push((before, last.clone()));
        let pooled = last.global_average_pool();
        let batch = images.dim(0);
        let logits =
            self.classifier.forward(&pooled.reshape(&[batch, 1, 1, LAST])).reshape(&[batch, self.classes]);
        Output { logits, features: Features::new(features, pooled) }
    }
}
