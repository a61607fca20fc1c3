//! The inverted residuals of every MobileNetV2: Sandler et al., *MobileNetV2: Inverted Residuals and Linear
//! Bottlenecks* (CVPR 2018).

use autograd::Tensor;

use crate::layers::{ConvNorm, Forward};

/// Table 2 of the paper: expansion, channels at full width, blocks of each group. Strides differ by family.
const GROUPS: [(usize, usize, usize); 7] =
    [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)];
/// Channels of the stem at full width.
pub(super) const STEM: usize = 32;
/// Channels of the last convolution.
pub(super) const LAST: usize = 1280;

/// Where an inverted residual stands, and its widths.
#[derive(Clone, Copy)]
pub(super) struct BlockSpec {
    pub group: usize,
    /// Within the group, and in the whole network.
    pub block: usize,
    pub number: usize,
    /// In its group.
    pub blocks: usize,
    pub inputs: usize,
    pub hidden: usize,
    pub outputs: usize,
    pub stride: usize,
}

/// 1x1 expansion, 3x3 depthwise, 1x1 projection without activation, and the identity beside them where
/// the shapes allow it.
pub(super) struct InvertedResidual {
    /// None where the expansion is 1 and the family leaves it out.
    pub expand: Option<ConvNorm>,
    pub depthwise: ConvNorm,
    pub project: ConvNorm,
}

/// The seven groups of one family.
pub(super) struct Groups {
    groups: Vec<Vec<(InvertedResidual, BlockSpec)>>,
    /// After expansion and depthwise convolution.
    activation: fn(&Tensor) -> Tensor,
}

impl Groups {
    /// `strides` are those of each group's first block; `block` makes one.
    pub fn new(
        width: impl Fn(usize) -> usize,
        strides: [usize; 7],
        activation: fn(&Tensor) -> Tensor,
        mut block: impl FnMut(BlockSpec) -> InvertedResidual,
    ) -> Groups {
        let (mut inputs, mut number) = (width(STEM), 0);
        let mut groups = Vec::new();
        for (group, (expansion, channels, blocks)) in GROUPS.into_iter().enumerate() {
            let outputs = width(channels);
            let mut made = Vec::new();
            for index in 0..blocks {
                let stride = if index == 0 { strides[group] } else { 1 };
                let hidden = inputs * expansion;
                let spec = BlockSpec { group, block: index, number, blocks, inputs, hidden, outputs, stride };
                made.push((block(spec), spec));
                (inputs, number) = (outputs, number + 1);
            }
            groups.push(made);
        }
        Groups { groups, activation }
    }

    /// Channels of the last group's output.
    pub fn outputs(&self) -> usize {
        self.groups.iter().flatten().last().map_or(0, |(_, spec)| spec.outputs)
    }

    /// The last group's output; `after` gets each group's number and output. These are linear: there is no ReLU
    /// to be before or after.
    pub fn forward(
        &self,
        x: &Tensor,
        forward: &mut Forward,
        mut after: impl FnMut(usize, &Tensor),
    ) -> Tensor {
        let mut x = x.clone();
        for (index, group) in self.groups.iter().enumerate() {
            for (block, spec) in group {
                let expanded =
                    block.expand.as_ref().map(|expand| (self.activation)(&expand.forward(&x, forward)));
                let hidden = block.depthwise.forward(expanded.as_ref().unwrap_or(&x), forward);
                let output = block.project.forward(&(self.activation)(&hidden), forward);
                let residual = spec.stride == 1 && spec.inputs == spec.outputs;
                x = if residual { output + x } else { output };
            }
            after(index, &x);
        }
        x
    }
}
