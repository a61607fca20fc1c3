//! ShuffleNet V2 (1x) for CIFAR: Ma, Zhang, Zheng, Sun, *ShuffleNet V2: Practical Guidelines for
//! Efficient CNN Architecture Design* (ECCV 2018), with a 1x1 stem at full resolution.

use autograd::Tensor;

use super::model::{Features, Network, Output};
use crate::layers::{Builder, ConvNorm, ConvSpec, Forward, Linear};

const STEM: usize = 24;
const LAST: usize = 1024;
/// Channels and units of the three stages.
const STAGES: [(usize, usize); 3] = [(116, 4), (232, 8), (464, 4)];

/// 1x1, 3x3 depthwise, 1x1: the branch both units have.
struct Branch {
    first: ConvNorm,
    depthwise: ConvNorm,
    last: ConvNorm,
}

impl Branch {
    /// `numbers` of its layers.
    fn new(b: &mut Builder, numbers: [usize; 3], inputs: usize, channels: usize, stride: usize) -> Branch {
        let mut layer =
            |i: usize, spec| b.conv_norm(&format!("conv{}", numbers[i]), &format!("bn{}", numbers[i]), spec);
        Branch {
            first: layer(0, ConvSpec::new(inputs, channels, 1)),
            depthwise: layer(1, ConvSpec::depthwise(channels).stride(stride)),
            last: layer(2, ConvSpec::new(channels, channels, 1)),
        }
    }

    /// Before the last ReLU.
    fn forward(&self, x: &Tensor, forward: &mut Forward) -> Tensor {
        let hidden = self.first.forward(x, forward).relu();
        let hidden = self.depthwise.forward(&hidden, forward);
        self.last.forward(&hidden, forward)
    }
}

enum Unit {
    /// Half of the channels pass, the others go through the branch (figure 3c).
    Basic { branch: Branch },
    /// All channels go through both paths, at half the resolution (figure 3d).
    Down { depthwise: ConvNorm, pointwise: ConvNorm, branch: Branch },
}

impl Unit {
    fn basic(b: &mut Builder, channels: usize) -> Unit {
        Unit::Basic { branch: Branch::new(b, [1, 2, 3], channels / 2, channels / 2, 1) }
    }

    fn down(b: &mut Builder, inputs: usize, outputs: usize) -> Unit {
        Unit::Down {
            depthwise: b.conv_norm("conv1", "bn1", ConvSpec::depthwise(inputs).stride(2)),
            pointwise: b.conv_norm("conv2", "bn2", ConvSpec::new(inputs, outputs / 2, 1)),
            branch: Branch::new(b, [3, 4, 5], inputs, outputs / 2, 2),
        }
    }

    /// The two halves before their last ReLU and shuffle (the passed half as it is), and the output.
    fn forward(&self, x: &Tensor, forward: &mut Forward) -> (Tensor, Tensor) {
        let join = |left: &Tensor, right: &Tensor| Tensor::concatenate(&[left, right], 3);
        match self {
            Unit::Basic { branch } => {
                let half = x.dim(3) / 2;
                let (passed, rest) = (x.slice(3, 0, half, 1), x.slice(3, half, half, 1));
                let right = branch.forward(&rest, forward);
                (join(&passed, &right), join(&passed, &right.relu()).channel_shuffle(2))
            }
            Unit::Down { depthwise, pointwise, branch } => {
                let left = pointwise.forward(&depthwise.forward(x, forward), forward);
                let right = branch.forward(x, forward);
                let before = join(&left, &right);
                (before.clone(), before.relu().channel_shuffle(2))
            }
        }
    }
}

pub struct ShuffleNetV2 {
    stem: ConvNorm,
    stages: Vec<Vec<Unit>>,
    last: ConvNorm,
    linear: Linear,
}

impl ShuffleNetV2 {
    pub fn new(b: &mut Builder, classes: usize) -> ShuffleNetV2 {
        let stem = b.conv_norm("conv1", "bn1", ConvSpec::new(3, STEM, 1));
        let mut inputs = STEM;
        let mut stages = Vec::new();
        for (stage, (outputs, count)) in STAGES.into_iter().enumerate() {
            let mut at = b.at(format!("layer{}", stage + 1));
            let mut units = vec![Unit::down(&mut at.at("0"), inputs, outputs)];
            units.extend((1..count).map(|i| Unit::basic(&mut at.at(i.to_string()), outputs)));
            stages.push(units);
            inputs = outputs;
        }
        ShuffleNetV2 {
            stem,
            stages,
            last: b.conv_norm("conv2", "bn2", ConvSpec::new(inputs, LAST, 1)),
            linear: b.linear("linear", LAST, classes),
        }
    }
}

impl Network for ShuffleNetV2 {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        let mut x = self.stem.forward(images, forward).relu();
        let mut stages = vec![(x.clone(), x.clone())];
        for stage in &self.stages {
            let mut before = x.clone();
            for unit in stage {
                (before, x) = unit.forward(&x, forward);
            }
            stages.push((before, x.clone()));
        }
        // At 32x32 the literature's average over 4x4, which does not fit Tiny-ImageNet's 64x64, though its configs
        // ask for that.
        let pooled = self.last.forward(&x, forward).relu().global_average_pool();
        Output { logits: self.linear.forward(&pooled), features: Features::new(stages, pooled) }
    }
}
