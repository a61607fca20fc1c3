//! A method of distillation of one's own, written outside of the project and trained by its step: *logit matching*
//! (Ba and Caruana, *Do Deep Nets Really Need to be Deep?*, 2014), where a small student imitates its teacher's logits.
//!
//!     cargo run --release --example own_distiller

mod digits;

use digits::SIDE;
use nn::prelude::*;
use schedule::Device;
use sld::distill::{About, Batch, Distiller, Loss, Vanilla};
use sld::setting::{check::not_negative, settings};
use sld::training::{Metric, Networks, Scalars, Setup, TrainStep};

const BATCH: usize = 64;

settings! {
    /// `ce_weight CE(s, y) + weight mean |s - t|^2`.
    pub struct LogitMatching {
        /// Weight of the cross entropy with the labels.
        "LOGITS.CE_WEIGHT": ce_weight: f64 = 0.1, not_negative;
        /// Weight of the squared distance.
        "LOGITS.WEIGHT": weight: f64 = 0.2, not_negative;
    }
}

impl Distiller for LogitMatching {
    fn about(&self) -> About {
        About { name: "LOGITS", title: "Logit matching", ..About::DEFAULT }
    }

    fn equations(&self, batch: &Batch, _: &mut Modules) -> Result<Loss, Tensor> {
        // Both networks' logits; no gradient flows into the teacher's.
        let (s, t) = batch.pair(self.about())?;
        Ok(Loss::sum(vec![
            ("ce", batch.cross_entropy(self.about(), self.ce_weight)?),
            ("match", (&s - &t).square().mean_all() * self.weight),
        ]))
    }
}

/// Two strided convolutions, an average, a classifier.
struct Reader {
    first: ConvNorm,
    second: ConvNorm,
    classifier: Linear,
}

impl Reader {
    fn new(b: &mut Builder, channels: usize) -> Reader {
        Reader {
            first: b.conv_norm("conv1", "bn1", ConvSpec::new(1, channels, 5).stride(2)),
            second: b.conv_norm("conv2", "bn2", ConvSpec::new(channels, 2 * channels, 5).stride(2)),
            classifier: b.linear("fc", 2 * channels, 10),
        }
    }
}

impl Network for Reader {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        let x = self.first.forward(images, forward).relu();
        let x = self.second.forward(&x, forward).relu();
        self.classifier.forward(&x.global_average_pool()).into()
    }

    fn channels(&self) -> usize {
        1
    }
}

fn reader(name: &str, channels: usize, seed: u64) -> Model {
    let initializer = Initializer::new(Initialization::PYTORCH, seed);
    Model::new(name, 10, initializer, |b| Reader::new(b, channels))
}

pub(crate) fn main() -> anyhow::Result<()> {
    let device = cpu::CpuDevice::new(2);
    let teacher = reader("teacher", 32, 1);
    println!("{teacher:?} learns from the labels");
    train(&device, teacher.clone(), None, &Vanilla::default(), 200)?;

    let student = reader("student", 8, 2);
    println!("{student:?} learns from the teacher");
    let last = train(&device, student, Some(teacher), &LogitMatching::default(), 200)?;
    anyhow::ensure!(last > 0.7, "the student did not learn");
    Ok(())
}

/// Trains a student; the share of the last batches that it had right.
fn train(
    device: &dyn Device,
    student: Model,
    teacher: Option<Model>,
    method: &dyn Distiller,
    steps: u64,
) -> anyhow::Result<f32> {
    let setup = Setup { size: [SIDE, SIDE], images: BATCH * steps as usize, ..Setup::default() };
    // Writes the method's equations once for these two: networks that do not fit it are refused here.
    let networks = Networks::new(student, teacher, method, setup)?;
    let mut step = TrainStep::compile(device, &networks, method, BATCH, setup.size)?;
    let mut right = 0.0;
    for number in 0..steps {
        let (pixels, labels) = digits::batch(number, BATCH);
        let metrics = step.run(&pixels, &labels, Scalars::new(0.05, None), &[])?;
        let value = |wanted: Metric| metrics[step.metrics().iter().position(|m| *m == wanted).unwrap_or(0)];
        right = 0.9 * right + 0.1 * value(Metric::Top1);
        if number % 50 == 49 {
            let named = step.metrics().iter().zip(&metrics);
            let told: Vec<String> =
                named.map(|(metric, value)| format!("{} {value:.3}", metric.name())).collect();
            println!("  step {:>3}: {}", number + 1, told.join(", "));
        }
    }
    Ok(right)
}
