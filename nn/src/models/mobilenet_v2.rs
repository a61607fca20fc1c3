//! MobileNetV2 at half width for CIFAR: Sandler et al. (CVPR 2018), as the distillation literature uses it: plain
//! ReLU, an expansion also in the first block, and a last layer that is not halved.

use autograd::Tensor;

use super::inverted_residual::{Groups, InvertedResidual, LAST, STEM};
use super::model::{Features, Network, Output};
use crate::layers::{Builder, ConvNorm, ConvSpec, Forward, Linear, pool_to_vector};

/// Groups after which a stage's features are taken.
const STAGE_ENDS: [usize; 4] = [1, 2, 4, 6];

/// A stem with stride 2, seven groups of inverted residuals, a 1x1 convolution, a 2x2 average and a
/// classifier.
pub struct MobileNetV2 {
    stem: ConvNorm,
    groups: Groups,
    last: ConvNorm,
    classifier: Linear,
}

impl MobileNetV2 {
    pub fn new(b: &mut Builder, classes: usize) -> MobileNetV2 {
        let half = |channels: usize| channels / 2;
        let stem = b.at("conv1").conv_norm("0", "1", ConvSpec::new(3, half(STEM), 3).stride(2));
        let groups = Groups::new(half, [1, 1, 2, 2, 1, 2, 1], Tensor::relu, |spec| {
            let mut b = b.at(format!("blocks.{}.{}.conv", spec.group, spec.block));
            InvertedResidual {
                expand: Some(b.conv_norm("0", "1", ConvSpec::new(spec.inputs, spec.hidden, 1))),
                depthwise: b.conv_norm("3", "4", ConvSpec::depthwise(spec.hidden).stride(spec.stride)),
                project: b.conv_norm("6", "7", ConvSpec::new(spec.hidden, spec.outputs, 1)),
            }
        });
        MobileNetV2 {
            stem,
            last: b.at("conv2").conv_norm("0", "1", ConvSpec::new(groups.outputs(), LAST, 1)),
            groups,
            classifier: b.linear("classifier.0", LAST, classes),
        }
    }
}

impl Network for MobileNetV2 {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        let stem = self.stem.forward(images, forward).relu();
        let mut stages = vec![stem.clone()];
        let x = self.groups.forward(&stem, forward, |group, x| {
            if STAGE_ENDS.contains(&group) {
                stages.push(x.clone());
            }
        });
        let pooled = pool_to_vector(&self.last.forward(&x, forward).relu(), 2);
        let logits = self.classifier.forward(&pooled);
        Output { logits, features: Features { stages, ..Features::new(vec![], pooled) } }
    }
}
