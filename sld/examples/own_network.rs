//! A network of one's own, in the manner of MobileNetV3: trained, saved as PyTorch's `.pth`, loaded again.
//!
//!     cargo run --release --example own_network

mod digits;

use digits::SIDE;
use nn::checkpoint::{self, Checkpoint};
use nn::prelude::*;
use schedule::{Device, Step, Value};

const BATCH: usize = 64;

/// A depthwise convolution, squeeze and excitation, a 1x1 convolution; the input is added where shapes agree.
struct Block {
    depthwise: ConvNorm,
    excitation: SqueezeExcitation,
    project: ConvNorm,
    residual: bool,
}

impl Block {
    fn new(b: &mut Builder, inputs: usize, outputs: usize, stride: usize) -> Block {
        let mut excitation = b.squeeze_excitation("se", inputs, inputs / 4);
        excitation.gate = Tensor::hardsigmoid;
        Block {
            depthwise: b.conv_norm("dw", "bn1", ConvSpec::depthwise(inputs).stride(stride)),
            excitation,
            project: b.conv_norm("pw", "bn2", ConvSpec::new(inputs, outputs, 1)),
            residual: stride == 1 && inputs == outputs,
        }
    }

    fn forward(&self, x: &Tensor, forward: &mut Forward) -> Tensor {
        let y = self.depthwise.forward(x, forward).hardswish();
        let y = self.project.forward(&self.excitation.forward(&y), forward);
        if self.residual { x + y } else { y }
    }
}

struct Small {
    stem: ConvNorm,
    blocks: Vec<Block>,
    classifier: Linear,
}

impl Small {
    fn new(b: &mut Builder) -> Small {
        let stem = b.conv_norm("stem", "bn", ConvSpec::new(1, 16, 3).stride(2));
        // Inputs, outputs, stride of each.
        let blocks = [(16, 32, 2), (32, 32, 1), (32, 64, 2)];
        let block = |(i, (inputs, outputs, stride))| {
            Block::new(&mut b.at(format!("blocks.{i}")), inputs, outputs, stride)
        };
        let blocks = blocks.into_iter().enumerate().map(block).collect();
        Small { stem, blocks, classifier: b.linear("fc", 64, 10) }
    }
}

impl Network for Small {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        let mut x = self.stem.forward(images, forward).hardswish();
        let mut stages = vec![(x.clone(), x.clone())];
        for block in &self.blocks {
            x = block.forward(&x, forward);
            stages.push((x.clone(), x.clone()));
        }
        let pooled = x.global_average_pool();
        // Methods that distil from features read the stages and the pooled vector; what nobody reads is not computed.
        Output { logits: self.classifier.forward(&pooled), features: Features::new(stages, pooled) }
    }

    fn channels(&self) -> usize {
        1
    }
}

fn small(seed: u64) -> Model {
    Model::new("small", 10, Initializer::new(Initialization::PYTORCH, seed), Small::new)
}

pub(crate) fn main() -> anyhow::Result<()> {
    let device = cpu::CpuDevice::new(2);
    let model = small(1);
    println!("{model:?}, {} multiply-accumulates an image", model.macs(SIDE, SIDE)?);
    train(&model, &device)?;
    let expected = answers(&model, &device)?;

    // A checkpoint is a list of named tensors, here in a file that `torch.load` reads.
    let path = std::env::temp_dir().join(format!("own_network_{}.pth", std::process::id()));
    checkpoint::write_pth(&path, &Checkpoint { tensors: model.save(&device)?, ..Default::default() })?;
    let read = checkpoint::read(&path)?;
    println!("{} tensors, the first is {}", read.tensors.len(), read.tensors[0].name);
    std::fs::remove_file(&path)?;

    // Another model, on another device, with the file's weights: the same answers.
    let (other, elsewhere) = (small(2), cpu::CpuDevice::new(1));
    other.load(&read.tensors, &elsewhere)?;
    anyhow::ensure!(answers(&other, &elsewhere)? == expected, "the file has other weights");
    println!("loaded: the same logits, bit for bit");
    Ok(())
}

fn train(model: &Model, device: &dyn Device) -> anyhow::Result<()> {
    let images = Tensor::input("images", &[BATCH, SIDE, SIDE, 1]);
    let labels = Tensor::input_i32("labels", &[BATCH]);
    let mut forward = Forward::train(1);
    let logits = model.forward(&images, &mut forward).logits;
    let loss = loss::cross_entropy(&logits, &labels);
    let sgd = Sgd::new(&model.parameters(), Default::default());
    let gradients = grad(&loss, &sgd.tensors());
    let step = Step::new()
        .output("loss", &loss)
        .output("right", &loss::accuracy(&logits, &labels, 1))
        .updates(sgd.updates(&gradients, &Tensor::scalar(0.1)))
        .updates(forward.into_updates());
    let mut step = device.compile_step(&step)?;
    let mut right = 0.0;
    for number in 0..100 {
        let (pixels, answers) = digits::batch(number, BATCH);
        step.call(&[("images", Value::F32(&pixels)), ("labels", Value::I32(&answers))])?;
        right = 0.9 * right + 0.1 * step.output("right")?[0];
        if number % 25 == 24 {
            println!("step {:>3}: loss {:.4}", number + 1, step.output("loss")?[0]);
        }
    }
    println!("of the last batches {:.1}% right", 100.0 * right);
    anyhow::ensure!(right > 0.8, "the digits were not learned");
    Ok(())
}

/// The logits of a batch that was not trained on.
fn answers(model: &Model, device: &dyn Device) -> anyhow::Result<Vec<f32>> {
    let images = Tensor::input("images", &[BATCH, SIDE, SIDE, 1]);
    let logits = model.forward(&images, &mut Forward::eval()).logits;
    let mut program = device.compile_step(&Step::new().output("logits", &logits))?;
    program.call(&[("images", Value::F32(&digits::batch(1_000_000, BATCH).0))])?;
    Ok(program.output("logits")?)
}
