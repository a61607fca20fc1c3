//! MobileNetV2 at half width for CIFAR: Sandler et al., *MobileNetV2: Inverted Residuals and Linear
//! Bottlenecks* (CVPR 2018), as the distillation literature uses it: plain ReLU, an expansion also in
//! the first block, and a last layer that is not halved.

use autograd::Tensor;

use super::model::{Features, Network, Output};
use crate::layers::{Builder, ConvNorm, ConvSpec, Forward, Linear, pool_to_vector};

/// Table 2 of the paper: expansion, channels at full width, blocks, stride of the first.
const SETTINGS: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];

/// Groups of blocks after which a stage's features are taken.
const STAGE_ENDS: [usize; 4] = [1, 2, 4, 6];

/// 1x1 expansion, 3x3 depthwise, 1x1 projection without activation, and the identity beside them where
/// the shapes allow it.
pub struct InvertedResidual {
    /// None where the expansion is 1 and the family leaves it out.
    pub expand: Option<ConvNorm>,
    pub depthwise: ConvNorm,
    pub project: ConvNorm,
    pub residual: bool,
    /// After the first two.
    pub activation: fn(&Tensor) -> Tensor,
}

impl InvertedResidual {
    fn new(b: &mut Builder, inputs: usize, outputs: usize, stride: usize, expansion: usize) -> Self {
        let hidden = inputs * expansion;
        let mut b = b.at("conv");
        InvertedResidual {
            expand: Some(b.conv_norm("0", "1", ConvSpec::new(inputs, hidden, 1))),
            depthwise: b.conv_norm("3", "4", ConvSpec::depthwise(hidden).stride(stride)),
            project: b.conv_norm("6", "7", ConvSpec::new(hidden, outputs, 1)),
            residual: stride == 1 && inputs == outputs,
            activation: Tensor::relu,
        }
    }

    pub fn forward(&self, x: &Tensor, forward: &mut Forward) -> Tensor {
        let expanded = self.expand.as_ref().map(|expand| (self.activation)(&expand.forward(x, forward)));
        let hidden = self.depthwise.forward(expanded.as_ref().unwrap_or(x), forward);
        let output = self.project.forward(&(self.activation)(&hidden), forward);
        if self.residual { output + x } else { output }
    }
}

/// A stem with stride 2, seven groups of inverted residuals, a 1x1 convolution, a 2x2 average and a
/// classifier.
pub struct MobileNetV2 {
    stem: ConvNorm,
    groups: Vec<Vec<InvertedResidual>>,
    last: ConvNorm,
    classifier: Linear,
}

impl MobileNetV2 {
    pub fn new(b: &mut Builder, classes: usize) -> MobileNetV2 {
        let half = |channels: usize| channels / 2;
        let mut inputs = half(32);
        let stem = b.at("conv1").conv_norm("0", "1", ConvSpec::new(3, inputs, 3).stride(2));
        let mut groups = Vec::new();
        for (group, (expansion, channels, blocks, stride)) in SETTINGS.into_iter().enumerate() {
            let mut at = b.at(format!("blocks.{group}"));
            let mut made = Vec::new();
            for i in 0..blocks {
                let stride = if i == 0 { stride } else { 1 };
                let mut at = at.at(i.to_string());
                made.push(InvertedResidual::new(&mut at, inputs, half(channels), stride, expansion));
                inputs = half(channels);
            }
            groups.push(made);
        }
        MobileNetV2 {
            stem,
            groups,
            last: b.at("conv2").conv_norm("0", "1", ConvSpec::new(inputs, 1280, 1)),
            classifier: b.linear("classifier.0", 1280, classes),
        }
    }
}

impl Network for MobileNetV2 {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        let mut x = self.stem.forward(images, forward).relu();
        let mut stages = vec![x.clone()];
        for (index, group) in self.groups.iter().enumerate() {
            for block in group {
                x = block.forward(&x, forward);
            }
            if STAGE_ENDS.contains(&index) {
                stages.push(x.clone());
            }
        }
        let pooled = pool_to_vector(&self.last.forward(&x, forward).relu(), 2);
        let logits = self.classifier.forward(&pooled);
        // Bottlenecks are linear: there is no ReLU to be before.
        Output { logits, features: Features { stages, ..Features::new(vec![], pooled) } }
    }
}
