//! MobileNetV2 at full width for Tiny-ImageNet's 64x64 images, as the distillation literature has it: Sandler
//! et al. (CVPR 2018) with ReLU6, biases in all convolutions, a 1x1 stem that pads the image by one pixel, three
//! strides instead of five, and a 1x1 convolution as classifier.

use autograd::Tensor;

use super::inverted_residual::{Groups, InvertedResidual, LAST, STEM};
use super::model::{Features, Network, Output};
use crate::layers::{Builder, ConvNorm, ConvSpec, Convolution, Forward};

/// Stages whose output is a feature, beside the stem's and the last convolution's.
const STAGE_ENDS: [usize; 3] = [1, 2, 3];

pub struct MobileNetV2 {
    stem: ConvNorm,
    groups: Groups,
    last: ConvNorm,
    classifier: Convolution,
    classes: usize,
}

impl MobileNetV2 {
    pub fn new(b: &mut Builder, classes: usize) -> MobileNetV2 {
        let stem = b.at("pre").conv_norm("0", "1", ConvSpec::new(3, STEM, 1).padding(1).with_bias());
        let groups = Groups::new(
            |channels| channels,
            [1, 2, 2, 2, 1, 1, 1],
            Tensor::relu6,
            |spec| {
                // A stage of one block is that block.
                let number = if spec.blocks > 1 { format!(".{}", spec.block) } else { String::new() };
                let mut b = b.at(format!("stage{}{number}.residual", spec.group + 1));
                let depthwise = ConvSpec::depthwise(spec.hidden).stride(spec.stride).with_bias();
                InvertedResidual {
                    expand: Some(b.conv_norm(
                        "0",
                        "1",
                        ConvSpec::new(spec.inputs, spec.hidden, 1).with_bias(),
                    )),
                    depthwise: b.conv_norm("3", "4", depthwise),
                    project: b.conv_norm("6", "7", ConvSpec::new(spec.hidden, spec.outputs, 1).with_bias()),
                }
            },
        );
        MobileNetV2 {
            stem,
            last: b.at("conv1").conv_norm("0", "1", ConvSpec::new(groups.outputs(), LAST, 1).with_bias()),
            groups,
            classifier: b.convolution("conv2", ConvSpec::new(LAST, classes, 1).with_bias()),
            classes,
        }
    }
}

impl Network for MobileNetV2 {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        let before = self.stem.forward(images, forward);
        let stem = before.relu6();
        let mut features = vec![(before, stem.clone())];
        let x = self.groups.forward(&stem, forward, |group, x| {
            if STAGE_ENDS.contains(&group) {
                features.push((x.clone(), x.clone()));
            }
        });
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
