//! A small vision transformer: Dosovitskiy et al., *An Image Is Worth 16x16 Words* (ICLR 2021). Pictures are cut into
//! patches, patches become tokens, and tokens look at one another.
//!
//!     cargo run --release --example vit

mod digits;

use digits::SIDE;
use nn::prelude::*;
use nn::{Adaptive, Course, Rule, Schedule, clip_by_norm};
use schedule::{Device, Step, Value};

const BATCH: usize = 64;
const PATCH: usize = 7;
const CHANNELS: usize = 32;
const HEADS: usize = 4;
const BLOCKS: usize = 2;
/// The patches, and one more that the answer is read from.
const TOKENS: usize = (SIDE / PATCH) * (SIDE / PATCH) + 1;

/// Attention, then a perceptron for each token by itself; both are added to what came in.
struct Block {
    norm1: LayerNorm,
    attention: MultiHeadAttention,
    norm2: LayerNorm,
    grow: Linear,
    shrink: Linear,
}

impl Block {
    fn new(mut b: Builder) -> Block {
        Block {
            norm1: b.layer_norm("ln_1", CHANNELS),
            attention: b.attention("self_attention", CHANNELS, HEADS),
            norm2: b.layer_norm("ln_2", CHANNELS),
            grow: b.linear("mlp.0", CHANNELS, 2 * CHANNELS),
            shrink: b.linear("mlp.3", 2 * CHANNELS, CHANNELS),
        }
    }

    /// `[N, T, C] -> [N, T, C]`.
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.attention.forward(&self.norm1.forward(x));
        let hidden = self.grow.forward(&self.norm2.forward(&x)).gelu();
        &x + self.shrink.forward(&hidden)
    }
}

/// Names are those of torchvision's `VisionTransformer`.
struct VisionTransformer {
    class: Variable,
    patches: Convolution,
    positions: Variable,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

impl VisionTransformer {
    fn new(b: &mut Builder) -> VisionTransformer {
        let class = b.parameter("class_token", &[1, 1, CHANNELS], |_| vec![0.0; CHANNELS]);
        // A convolution whose windows do not overlap: one vector a patch.
        let patches = ConvSpec::new(1, CHANNELS, PATCH).stride(PATCH).padding(0).with_bias();
        let patches = b.convolution("conv_proj", patches);
        let mut encoder = b.at("encoder");
        // Attention does not know where a token is from; what is added here tells.
        let positions = encoder
            .parameter("pos_embedding", &[1, TOKENS, CHANNELS], |draw| draw.normal(TOKENS * CHANNELS, 0.02));
        let blocks =
            (0..BLOCKS).map(|i| Block::new(encoder.at(format!("layers.encoder_layer_{i}")))).collect();
        let norm = encoder.layer_norm("ln", CHANNELS);
        VisionTransformer {
            class,
            patches,
            positions,
            blocks,
            norm,
            head: b.linear("heads.head", CHANNELS, 10),
        }
    }
}

impl Network for VisionTransformer {
    fn forward(&self, images: &Tensor, _: &mut Forward) -> Output {
        let batch = images.dim(0);
        let patches = self.patches.forward(images).reshape(&[batch, TOKENS - 1, CHANNELS]);
        let class = self.class.tensor().broadcast_to(&[batch, 1, CHANNELS]);
        let mut x = Tensor::concatenate(&[&class, &patches], 1) + self.positions.tensor();
        for block in &self.blocks {
            x = block.forward(&x);
        }
        let answer = self.norm.forward(&x).slice(1, 0, 1, 1).reshape(&[batch, CHANNELS]);
        self.head.forward(&answer).into()
    }

    fn channels(&self) -> usize {
        1
    }
}

pub(crate) fn main() -> anyhow::Result<()> {
    let device = cpu::CpuDevice::new(2);
    let initializer = Initializer::new(Initialization::PYTORCH, 1);
    let model = Model::new("vit", 10, initializer, VisionTransformer::new);
    println!("{model:?}, {TOKENS} tokens an image");

    let images = Tensor::input("images", &[BATCH, SIDE, SIDE, 1]);
    let labels = Tensor::input_i32("labels", &[BATCH]);
    let logits = model.forward(&images, &mut Forward::train(1)).logits;
    let loss = loss::cross_entropy(&logits, &labels);
    let adam = Adaptive::new(&model.parameters(), Rule::adamw(0.01));
    let parameters: Vec<Tensor> = model.parameters().iter().map(Variable::tensor).collect();
    let gradients = clip_by_norm(&grad(&loss, &parameters), 1.0);
    let step = Step::new()
        .output("loss", &loss)
        .output("right", &loss::accuracy(&logits, &labels, 1))
        .updates(adam.updates(&gradients, &Tensor::input("rate", &[])));
    let mut step = device.compile_step(&step)?;

    // Transformers want their first steps small: up, and down again, in ten epochs of 30 batches.
    let schedule = Schedule { base: 0.005, epochs: 10, warmup: 0, course: Course::OneCycle };
    let mut right = 0.1;
    for number in 0..300 {
        let (pixels, answers) = digits::batch(number as u64, BATCH);
        let rate = [schedule.rate(number / 30 + 1, number % 30, 30) as f32];
        let rate = ("rate", Value::F32(&rate));
        step.call(&[("images", Value::F32(&pixels)), ("labels", Value::I32(&answers)), rate])?;
        right = 0.95 * right + 0.05 * step.output("right")?[0];
        if number % 50 == 49 {
            let loss = step.output("loss")?[0];
            println!("step {:>3}: loss {loss:.4}, lately {:.1}% right", number + 1, 100.0 * right);
        }
    }
    anyhow::ensure!(right > 0.8, "the digits were not learned");
    Ok(())
}
