//! ShuffleNet for CIFAR: Zhang, Zhou, Lin, Sun, *ShuffleNet: An Extremely Efficient Convolutional
//! Neural Network for Mobile Devices* (CVPR 2018), three groups, with a 1x1 stem at full resolution and
//! a ReLU after the depthwise convolution, as the distillation literature uses it.

use autograd::{Tensor, Window};

use super::model::{Features, Network, Output};
use crate::initialization::Initialization;
use crate::layers::{Builder, ConvNorm, ConvSpec, Forward, Linear, pool_to_vector};

pub const INITIALIZATION: Initialization = Initialization::PYTORCH;

const GROUPS: usize = 3;
const STEM: usize = 24;
/// Channels and blocks of the three stages.
const STAGES: [(usize, usize); 3] = [(240, 4), (480, 8), (960, 4)];

/// Grouped 1x1, shuffle, 3x3 depthwise, grouped 1x1. With stride 1 the input is added, with stride 2 its
/// 3x3 average is concatenated.
struct Unit {
    reduce: ConvNorm,
    depthwise: ConvNorm,
    expand: ConvNorm,
    shuffle: usize,
    stride: usize,
}

impl Unit {
    /// `outputs` of the unit; with stride 2 the input's channels are among them.
    fn new(b: &mut Builder, inputs: usize, outputs: usize, stride: usize) -> Unit {
        let branch = if stride == 2 { outputs - inputs } else { outputs };
        let hidden = branch / 4;
        // The stem's 24 channels are too few for groups.
        let groups = if inputs == STEM { 1 } else { GROUPS };
        Unit {
            reduce: b.conv_norm("conv1", "bn1", ConvSpec::new(inputs, hidden, 1).groups(groups)),
            depthwise: b.conv_norm("conv2", "bn2", ConvSpec::depthwise(hidden).stride(stride)),
            expand: b.conv_norm("conv3", "bn3", ConvSpec::new(hidden, branch, 1).groups(GROUPS)),
            shuffle: groups,
            stride,
        }
    }

    /// Before the last ReLU.
    fn forward(&self, x: &Tensor, forward: &mut Forward) -> Tensor {
        let hidden = self.reduce.forward(x, forward).relu().channel_shuffle(self.shuffle);
        let hidden = self.depthwise.forward(&hidden, forward).relu();
        let branch = self.expand.forward(&hidden, forward);
        if self.stride == 2 {
            // The border's zeros count in the average.
            let shortcut = x.average_pool(Window::new(3, 2, 1));
            Tensor::concatenate(&[&branch, &shortcut], 3)
        } else {
            branch + x
        }
    }
}

pub struct ShuffleNetV1 {
    stem: ConvNorm,
    stages: Vec<Vec<Unit>>,
    linear: Linear,
}

impl ShuffleNetV1 {
    pub fn new(b: &mut Builder, classes: usize) -> ShuffleNetV1 {
        let stem = b.conv_norm("conv1", "bn1", ConvSpec::new(3, STEM, 1));
        let mut inputs = STEM;
        let mut stages = Vec::new();
        for (stage, (outputs, count)) in STAGES.into_iter().enumerate() {
            let mut at = b.at(format!("layer{}", stage + 1));
            let mut units = Vec::new();
            for i in 0..count {
                let stride = if i == 0 { 2 } else { 1 };
                units.push(Unit::new(&mut at.at(i.to_string()), inputs, outputs, stride));
                inputs = outputs;
            }
            stages.push(units);
        }
        ShuffleNetV1 { stem, stages, linear: b.linear("linear", inputs, classes) }
    }
}

impl Network for ShuffleNetV1 {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        let mut x = self.stem.forward(images, forward).relu();
        let mut stages = vec![(x.clone(), x.clone())];
        for stage in &self.stages {
            let mut before = x.clone();
            for unit in stage {
                before = unit.forward(&x, forward);
                x = before.relu();
            }
            stages.push((before, x.clone()));
        }
        let pooled = pool_to_vector(&x, 4);
        Output { logits: self.linear.forward(&pooled), features: Features::new(stages, pooled) }
    }
}
