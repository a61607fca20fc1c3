//! Residual networks for ImageNet (He et al., CVPR 2016, table 1) with torchvision's names: a 7x7 stem
//! with stride 2 and a 3x3 max-pool, then the stages of [`super::resnet_wide_stem`].

use autograd::{Tensor, Window};

use super::model::{Features, Network, Output};
use super::resnet_wide_stem::{Block, stages};
use crate::layers::{Builder, ConvNorm, ConvSpec, Forward, Linear};

pub struct ResNet {
    stem: ConvNorm,
    stages: Vec<Vec<Block>>,
    fc: Linear,
}

impl ResNet {
    pub fn resnet18(b: &mut Builder, classes: usize) -> ResNet {
        ResNet::new(b, [2, 2, 2, 2], false, classes)
    }
    pub fn resnet34(b: &mut Builder, classes: usize) -> ResNet {
        ResNet::new(b, [3, 4, 6, 3], false, classes)
    }
    pub fn resnet50(b: &mut Builder, classes: usize) -> ResNet {
        ResNet::new(b, [3, 4, 6, 3], true, classes)
    }
    pub fn resnet101(b: &mut Builder, classes: usize) -> ResNet {
        ResNet::new(b, [3, 4, 23, 3], true, classes)
    }
    fn new(b: &mut Builder, blocks: [usize; 4], bottleneck: bool, classes: usize) -> ResNet {
        let stem = b.conv_norm("conv1", "bn1", ConvSpec::new(3, 64, 7).stride(2));
        let (stages, channels) = stages(b, blocks, bottleneck, "downsample");
        ResNet { stem, stages, fc: b.linear("fc", channels, classes) }
    }
}

impl Network for ResNet {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        let after = self.stem.forward(images, forward).relu();
        let mut stages = vec![(after.clone(), after.clone())];
        let mut x = after.max_pool(Window::new(3, 2, 1));
        for stage in &self.stages {
            let mut before = x.clone();
            for block in stage {
                before = block.forward(&x, forward);
                x = before.relu();
            }
            stages.push((before, x.clone()));
        }
        let pooled = x.global_average_pool();
        let logits = self.fc.forward(&pooled);
        let norms = self.stages.iter().flat_map(|stage| stage.last()).map(Block::last_norm);
        Output { logits, features: Features::new(stages, pooled).with_norms(norms) }
    }
}
