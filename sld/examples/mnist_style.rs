//! Handwriting's little sister: digits that the program draws, 28x28 pixels of one channel, read by a small
//! convolutional network.
//!
//!     cargo run --release --example mnist_style

mod digits;

use digits::SIDE;
use nn::prelude::*;
use schedule::{Device, Step, Value};

const BATCH: usize = 64;

/// Two convolutions that halve the picture, an average, a classifier.
struct Reader {
    first: ConvNorm,
    second: ConvNorm,
    classifier: Linear,
}

impl Reader {
    fn new(b: &mut Builder) -> Reader {
        Reader {
            first: b.conv_norm("conv1", "bn1", ConvSpec::new(1, 12, 5).stride(2)),
            second: b.conv_norm("conv2", "bn2", ConvSpec::new(12, 24, 5).stride(2)),
            classifier: b.linear("fc", 24 * 7 * 7, 10),
        }
    }
}

impl Network for Reader {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        // 28x28x1 -> 14x14x12 -> 7x7x24
        let x = self.first.forward(images, forward).relu();
        let x = self.second.forward(&x, forward).relu();
        self.classifier.forward(&x.reshape(&[x.dim(0), 24 * 7 * 7])).into()
    }

    fn channels(&self) -> usize {
        1
    }
}

pub(crate) fn main() -> anyhow::Result<()> {
    let device = cpu::CpuDevice::new(2);
    let model = Model::new("reader", 10, Initializer::new(Initialization::PYTORCH, 1), Reader::new);
    println!("{model:?}");

    // Training: batch norm uses the batch's statistics, and its running ones move. They are updates of the step, as
    // the parameters are.
    let images = Tensor::input("images", &[BATCH, SIDE, SIDE, 1]);
    let labels = Tensor::input_i32("labels", &[BATCH]);
    let mut forward = Forward::train(1);
    let loss = loss::cross_entropy(&model.forward(&images, &mut forward).logits, &labels);
    let sgd = Sgd::new(&model.parameters(), Default::default());
    let gradients = grad(&loss, &sgd.tensors());
    let step = Step::new()
        .output("loss", &loss)
        .updates(sgd.updates(&gradients, &Tensor::input("rate", &[])))
        .updates(forward.into_updates());
    let mut step = device.compile_step(&step)?;

    // Evaluation is another program on the same state: running statistics, folded into the weights before.
    let logits = model.forward(&images, &mut Forward::eval()).logits;
    let mut exam = device.compile_step(&Step::new().output("right", &loss::accuracy(&logits, &labels, 1)))?;
    let mut examine = || -> anyhow::Result<f32> {
        let mut sum = 0.0;
        for number in 0..4 {
            let (pixels, answers) = digits::batch(1_000_000 + number, BATCH);
            exam.call(&[("images", Value::F32(&pixels)), ("labels", Value::I32(&answers))])?;
            sum += exam.output("right")?[0] / 4.0;
        }
        Ok(sum)
    };

    println!("before: {:.1}% of new digits right", 100.0 * examine()?);
    for number in 0..120 {
        let (pixels, answers) = digits::batch(number, BATCH);
        let rate = if number < 80 { 0.05 } else { 0.005 };
        let rate = ("rate", Value::F32(&[rate]));
        step.call(&[("images", Value::F32(&pixels)), ("labels", Value::I32(&answers)), rate])?;
        if number % 30 == 29 {
            println!("step {:>3}: loss {:.4}", number + 1, step.output("loss")?[0]);
        }
    }
    let right = examine()?;
    println!("after: {:.1}% of new digits right", 100.0 * right);
    anyhow::ensure!(right > 0.95, "the digits were not learned");
    Ok(())
}
