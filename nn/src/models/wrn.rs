//! Wide residual networks: Zagoruyko and Komodakis, *Wide Residual Networks* (BMVC 2016), with
//! pre-activation blocks (He et al., ECCV 2016) and without dropout.
//!
//! In the published training code a network in training mode computes its pre-activation features by
//! running three batch norms again on the input they have already seen: the first of the second and
//! third group, and the last. Their running statistics therefore move twice a pass, which changes what
//! the trained network answers in evaluation. It is reproduced here;
//! [`Forward::without_repeated_updates`] turns it off.

use autograd::Tensor;

use super::model::{Features, Network, Output};
use crate::initialization::{Biases, Initialization, Weights};
use crate::layers::{BatchNorm, Builder, ConvNorm, ConvSpec, Convolution, Forward, Linear, pool_to_vector};

pub const INITIALIZATION: Initialization = Initialization {
    convolution: Weights::NormalFanOut,
    convolution_bias: Biases::Zero,
    linear: Weights::UniformFanIn,
    linear_bias: Biases::Zero,
};

/// BN-ReLU-conv, twice. Where the width changes, the shortcut is a 1x1 convolution of the activated
/// input; elsewhere the input itself.
struct Block {
    bn1: BatchNorm,
    /// `conv1` with `bn2`, which follows it.
    first: ConvNorm,
    conv2: Convolution,
    shortcut: Option<Convolution>,
    /// How often the reference runs `bn1` in a training pass.
    repeats: usize,
}

impl Block {
    fn new(b: &mut Builder, inputs: usize, outputs: usize, stride: usize, repeats: usize) -> Block {
        let shortcut = ConvSpec::new(inputs, outputs, 1).stride(stride);
        Block {
            bn1: b.batch_norm("bn1", inputs),
            first: b.conv_norm("conv1", "bn2", ConvSpec::new(inputs, outputs, 3).stride(stride)),
            conv2: b.convolution("conv2", ConvSpec::new(outputs, outputs, 3)),
            shortcut: (inputs != outputs).then(|| b.convolution("convShortcut", shortcut)),
            repeats,
        }
    }

    /// The block's output, and its input after `bn1`, before the ReLU.
    fn forward(&self, x: &Tensor, forward: &mut Forward) -> (Tensor, Tensor) {
        let normalized = self.bn1.forward_repeated(x, forward, self.repeats);
        let activated = normalized.relu();
        let hidden = self.first.forward(&activated, forward).relu();
        let residual = self.conv2.forward(&hidden);
        let output = match &self.shortcut {
            Some(shortcut) => residual + shortcut.forward(&activated),
            None => residual + x,
        };
        (output, normalized)
    }
}

/// Depth `6n + 4`: a stem without batch norm, three groups of `n` blocks of `16k`, `32k` and `64k`
/// channels, a last batch norm, an 8x8 average and a classifier.
pub struct WideResNet {
    conv1: Convolution,
    groups: Vec<Vec<Block>>,
    bn1: BatchNorm,
    fc: Linear,
}

impl WideResNet {
    pub fn new(b: &mut Builder, depth: usize, widen: usize, classes: usize) -> WideResNet {
        let blocks = (depth - 4) / 6;
        let channels = [16, 16 * widen, 32 * widen, 64 * widen];
        let conv1 = b.convolution("conv1", ConvSpec::new(3, channels[0], 3));
        let mut groups = Vec::new();
        for group in 1..=3 {
            let mut at = b.at(format!("block{group}.layer"));
            let outputs = channels[group];
            let block = |i: usize| {
                let first = i == 0;
                let inputs = if first { channels[group - 1] } else { outputs };
                let (stride, repeats) = if first && group > 1 { (2, 2) } else { (1, 1) };
                Block::new(&mut at.at(i.to_string()), inputs, outputs, stride, repeats)
            };
            groups.push((0..blocks).map(block).collect());
        }
        let bn1 = b.batch_norm("bn1", channels[3]);
        WideResNet { conv1, groups, bn1, fc: b.linear("fc", channels[3], classes) }
    }
}

impl Network for WideResNet {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        let stem = self.conv1.forward(images);
        // A group ends with an addition, without a ReLU; what is before the ReLU that follows is made by
        // the first batch norm of the next group, or by the last one.
        let (mut stages, mut before) = (vec![stem.clone()], vec![stem.clone()]);
        let mut x = stem;
        for (index, group) in self.groups.iter().enumerate() {
            for (i, block) in group.iter().enumerate() {
                let (output, normalized) = block.forward(&x, forward);
                if i == 0 && index > 0 {
                    before.push(normalized);
                }
                x = output;
            }
            stages.push(x.clone());
        }
        let normalized = self.bn1.forward_repeated(&x, forward, 2);
        before.push(normalized.clone());
        let pooled = pool_to_vector(&normalized.relu(), 8);
        let logits = self.fc.forward(&pooled);
        let norms = self.groups[1..].iter().map(|group| &group[0].bn1).chain([&self.bn1]);
        let features = Features::new(before.into_iter().zip(stages).collect(), pooled);
        Output { logits, features: features.with_norms(norms) }
    }
}
