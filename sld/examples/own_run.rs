//! A whole run of one's own, as `sld train` makes them, without a config: images from an iterator (of one channel here),
//! a network, a loss; checkpoints, logs and a report in a folder. The same program goes on where it was stopped.
//!
//!     cargo run --release --example own_run

mod digits;

use std::path::Path;

use anyhow::Context;
use digits::SIDE;
use nn::prelude::*;
use nn::{Course, Schedule};
use sld::data::Dataset;
use sld::distill::{About, Batch, Distiller, Loss};
use sld::experiment::{Experiment, Finished};
use sld::setting::settings;
use sld::training::{Networks, RunData, Settings, Setup, Team};

/// Two convolutions, an average, a classifier.
struct Reader(ConvNorm, ConvNorm, Linear);

impl Reader {
    fn new(b: &mut Builder) -> Reader {
        let first = b.conv_norm("conv1", "bn1", ConvSpec::new(1, 12, 5).stride(2));
        let second = b.conv_norm("conv2", "bn2", ConvSpec::new(12, 24, 5).stride(2));
        Reader(first, second, b.linear("fc", 24 * 7 * 7, 10))
    }
}

impl Network for Reader {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        let x = self.0.forward(images, forward).relu();
        let x = self.1.forward(&x, forward).relu();
        self.2.forward(&x.reshape(&[x.dim(0), 24 * 7 * 7])).into()
    }
    fn channels(&self) -> usize {
        1
    }
}

settings! {
    /// Cross entropy, and the squared distance of the probabilities from the label: Brier, *Verification of forecasts expressed in terms of
    /// probability* (1950).
    pub struct Brier {}
}

impl Distiller for Brier {
    fn about(&self) -> About {
        About { name: "BRIER", title: "Brier score", needs_teacher: false, ..About::DEFAULT }
    }
    fn equations(&self, batch: &Batch, _: &mut Modules) -> Result<Loss, Tensor> {
        let answer = batch.student_rows(self.about())?.softmax(1);
        let distance = (answer - batch.labels.one_hot(10)).square().sum(&[1]);
        // Named terms, which the log and the report show.
        let ce = batch.cross_entropy(self.about(), 1.0)?;
        Ok(Loss::sum(vec![("ce", ce), ("brier", distance.mean_all())]))
    }
}

/// Any iterator of images, rows of pixels of floats, and classes will do.
fn dataset(name: &str, seed: u64, count: usize) -> anyhow::Result<Dataset> {
    let (pixels, labels) = digits::batch(seed, count);
    let images =
        pixels.chunks(SIDE * SIDE).map(<[f32]>::to_vec).zip(labels.iter().map(|&label| label as u32));
    let classes = (0..10).map(|digit: u32| digit.to_string()).collect();
    Ok(Dataset::of_values(name, [SIDE, SIDE, 1], images, classes)?)
}

/// The run of so many epochs in `folder`, or what is left of it.
fn train(folder: &Path, epochs: usize) -> anyhow::Result<Finished> {
    // Lighter or darker, for every image and epoch anew; a function of seed, epoch and image.
    let train = dataset("digits", 1, 1000)?.augmented(|pixels, random, _strong| {
        let light = random.range(0.7, 1.3) as f32;
        pixels.iter_mut().for_each(|pixel| *pixel *= light);
    });
    let (method, device) = (Brier::default(), cpu::CpuDevice::new(2));
    let model = Model::new("reader", 10, Initializer::new(Initialization::PYTORCH, 1), Reader::new);
    let setup = Setup { size: [SIDE, SIDE], images: train.len(), ..Setup::default() };
    let networks = Networks::new(model, None, &method, setup)?;
    let schedule = Schedule { base: 0.05, epochs: 4, warmup: 0, course: Course::Cosine };
    let settings = Settings { epochs, batch_size: 50, schedule, ..Settings::default() };
    let data = RunData::of(train, dataset("other digits", 2, 300)?);
    let experiment = Experiment::new(Team::alone(&device, &networks, &method), settings, data);
    experiment.train_in(folder)?.context("stopped")
}

pub(crate) fn main() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("own_run_{}", std::process::id()));
    let (whole, parts) = (folder.join("whole"), folder.join("parts"));
    let finished = train(&whole, 4)?;
    println!("{finished}");
    anyhow::ensure!(finished.top1 > 90.0, "the digits were not learned");

    println!("once more, in two parts");
    train(&parts, 2)?;
    train(&parts, 4)?;
    let latest = |run: &Path| std::fs::read(run.join("latest"));
    anyhow::ensure!(latest(&whole)? == latest(&parts)?, "the two parts end elsewhere");
    sld::report::write(&[&whole, &parts], &folder.join("report.html"))?;
    println!("the same, byte for byte; both in {}", folder.join("report.html").display());
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
