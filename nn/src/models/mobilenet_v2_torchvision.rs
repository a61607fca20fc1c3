//! MobileNetV2 at full width for ImageNet, as torchvision has it: Sandler et al. (CVPR 2018), table 2, with
//! ReLU6 and no expansion in the first block. (Torchvision trains it with dropout before the classifier, which is
//! not here: in evaluation both are the same function.)

use autograd::Tensor;

use super::inverted_residual::{BlockSpec, Groups, InvertedResidual, LAST, STEM};
use super::model::{Features, Network, Output};
use crate::layers::{Builder, ConvNorm, ConvSpec, Forward, Linear};

/// Groups after which a stage's features are taken.
const STAGE_ENDS: [usize; 4] = [1, 2, 4, 6];

fn block(mut b: Builder, spec: BlockSpec) -> InvertedResidual {
    let mut number = 0;
    // Convolutions with an activation are submodules of their own, the last is not.
    let mut next = |b: &mut Builder, spec| {
        number += 1;
        b.at((number - 1).to_string()).conv_norm("0", "1", spec)
    };
    InvertedResidual {
        expand: (spec.hidden > spec.inputs).then(|| next(&mut b, ConvSpec::new(spec.inputs, spec.hidden, 1))),
        depthwise: next(&mut b, ConvSpec::depthwise(spec.hidden).stride(spec.stride)),
        project: b.conv_norm(
            &number.to_string(),
            &(number + 1).to_string(),
            ConvSpec::new(spec.hidden, spec.outputs, 1),
        ),
    }
}

/// A stem with stride 2, seven groups of inverted residuals, a 1x1 convolution, a global average and a
/// classifier.
pub struct MobileNetV2 {
    stem: ConvNorm,
    groups: Groups,
    last: ConvNorm,
    classifier: Linear,
}

impl MobileNetV2 {
    pub fn new(b: &mut Builder, classes: usize) -> MobileNetV2 {
        let mut features = b.at("features");
        let stem = features.at("0").conv_norm("0", "1", ConvSpec::new(3, STEM, 3).stride(2));
        let groups = Groups::new(
            |channels| channels,
            [1, 2, 2, 2, 1, 2, 1],
            Tensor::relu6,
            |spec| block(features.at(format!("{}.conv", spec.number + 1)), spec),
        );
        let last = features.at("18").conv_norm("0", "1", ConvSpec::new(groups.outputs(), LAST, 1));
        MobileNetV2 { stem, groups, last, classifier: b.linear("classifier.1", LAST, classes) }
    }
}

impl Network for MobileNetV2 {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        let before = self.stem.forward(images, forward);
        let stem = before.relu6();
        let mut stages = vec![(before, stem.clone())];
        let x = self.groups.forward(&stem, forward, |group, x| {
            if STAGE_ENDS.contains(&group) {
                stages.push((x.clone(), x.clone()));
            }
        });
        let pooled = self.last.forward(&x, forward).relu6().global_average_pool();
        Output { logits: self.classifier.forward(&pooled), features: Features::new(stages, pooled) }
    }
}
