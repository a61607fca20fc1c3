//! MobileNetV2 at full width for ImageNet, as torchvision has it: Sandler et al. (CVPR 2018), table 2, with
//! ReLU6 and no expansion in the first block. (Torchvision trains it with dropout before the classifier, which is
//! not here: in evaluation both are the same function.)

use autograd::Tensor;

use super::mobilenet_v2::InvertedResidual;
use super::model::{Features, Network, Output};
use crate::layers::{Builder, ConvNorm, ConvSpec, Forward, Linear};

/// Table 2 of the paper: expansion, channels, blocks, stride of the first.
const SETTINGS: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];
/// Groups of blocks after which a stage's features are taken.
const STAGE_ENDS: [usize; 4] = [1, 2, 4, 6];
const LAST: usize = 1280;

fn block(
    b: &mut Builder,
    inputs: usize,
    outputs: usize,
    stride: usize,
    expansion: usize,
) -> InvertedResidual {
    let hidden = inputs * expansion;
    let mut b = b.at("conv");
    let mut number = 0;
    // Convolutions with an activation are submodules of their own, the last is not.
    let mut next = |b: &mut Builder, spec| {
        number += 1;
        b.at((number - 1).to_string()).conv_norm("0", "1", spec)
    };
    InvertedResidual {
        expand: (expansion > 1).then(|| next(&mut b, ConvSpec::new(inputs, hidden, 1))),
        depthwise: next(&mut b, ConvSpec::depthwise(hidden).stride(stride)),
        project: b.conv_norm(
            &number.to_string(),
            &(number + 1).to_string(),
            ConvSpec::new(hidden, outputs, 1),
        ),
        residual: stride == 1 && inputs == outputs,
        activation: Tensor::relu6,
    }
}

/// A stem with stride 2, seven groups of inverted residuals, a 1x1 convolution, a global average and a
/// classifier.
pub struct MobileNetV2 {
    stem: ConvNorm,
    groups: Vec<Vec<InvertedResidual>>,
    last: ConvNorm,
    classifier: Linear,
}

impl MobileNetV2 {
    pub fn new(b: &mut Builder, classes: usize) -> MobileNetV2 {
        let mut inputs = 32;
        let mut features = b.at("features");
        let stem = features.at("0").conv_norm("0", "1", ConvSpec::new(3, inputs, 3).stride(2));
        let mut number = 1;
        let mut groups = Vec::new();
        for (expansion, channels, blocks, stride) in SETTINGS {
            let mut made = Vec::new();
            for i in 0..blocks {
                let stride = if i == 0 { stride } else { 1 };
                made.push(block(&mut features.at(number.to_string()), inputs, channels, stride, expansion));
                number += 1;
                inputs = channels;
            }
            groups.push(made);
        }
        let last = features.at(number.to_string()).conv_norm("0", "1", ConvSpec::new(inputs, LAST, 1));
        MobileNetV2 { stem, groups, last, classifier: b.linear("classifier.1", LAST, classes) }
    }
}

impl Network for MobileNetV2 {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        let before = self.stem.forward(images, forward);
        let mut x = before.relu6();
        let mut stages = vec![(before, x.clone())];
        for (index, group) in self.groups.iter().enumerate() {
            for block in group {
                x = block.forward(&x, forward);
            }
            // Bottlenecks are linear: there is no ReLU to be before or after.
            if STAGE_ENDS.contains(&index) {
                stages.push((x.clone(), x.clone()));
            }
        }
        let pooled = self.last.forward(&x, forward).relu6().global_average_pool();
        Output { logits: self.classifier.forward(&pooled), features: Features::new(stages, pooled) }
    }
}
