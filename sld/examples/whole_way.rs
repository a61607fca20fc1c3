//! The whole way in sixty lines: a network of one's own on images of one channel, trained on the CPU, loaded on a GPU (a
//! software driver will do) and trained on there, and exported for other programs.
//!
//!     cargo run --release --example whole_way

mod digits;

use digits::SIDE;
use nn::prelude::*;
use nn::{checkpoint, onnx};
use sld::data::Dataset;
use sld::distill::Vanilla;
use sld::experiment::Experiment;
use sld::training::{Evaluator, Networks, RunData, Settings, Setup, Team};
use std::path::Path;

struct Small(ConvNorm, Linear);

impl Network for Small {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        let x = self.0.forward(images, forward).relu();
        self.1.forward(&x.reshape(&[x.dim(0), 8 * 14 * 14])).into()
    }
    fn channels(&self) -> usize {
        1
    }
}

fn small(seed: u64) -> Model {
    Model::new("small", 10, Initializer::new(Initialization::PYTORCH, seed), |b| {
        Small(b.conv_norm("conv", "bn", ConvSpec::new(1, 8, 5).stride(2)), b.linear("fc", 8 * 14 * 14, 10))
    })
}

fn dataset(seed: u64, count: usize) -> anyhow::Result<Dataset> {
    let (pixels, labels) = digits::batch(seed, count);
    let images = pixels.chunks(SIDE * SIDE).map(<[f32]>::to_vec).zip(labels.into_iter().map(|l| l as u32));
    let classes = (0..10).map(|digit: u32| digit.to_string()).collect();
    Ok(Dataset::of_values("digits", [SIDE, SIDE, 1], images, classes)?)
}

/// Trains for two epochs. Beside much else the folder holds `student_latest` then.
fn train(model: &Model, device: &dyn schedule::Device, folder: &Path) -> anyhow::Result<()> {
    let setup = Setup { size: [SIDE, SIDE], images: 2000, ..Setup::default() };
    let networks = Networks::new(model.clone(), None, &Vanilla {}, setup)?;
    let settings = Settings { epochs: 2, ..Settings::default() };
    let data = RunData::of(dataset(1, 2000)?, dataset(2, 300)?);
    let experiment = Experiment::new(Team::alone(device, &networks, &Vanilla {}), settings, data);
    Ok(println!("{}: {:?}", device.name(), experiment.train_in(folder)?))
}

/// Leaves the network in a folder; gives three images, and its logits for them.
pub(crate) fn go(folder: &Path) -> anyhow::Result<[Vec<f32>; 2]> {
    let (cpu, gpu) = (cpu::CpuDevice::new(2), gpu::GpuDevice::open(None, Default::default())?);
    train(&small(1), &cpu, &folder.join("cpu"))?;
    let model = small(2);
    model.load(&checkpoint::read(&folder.join("cpu/student_latest"))?.tensors, &gpu)?;
    train(&model, &gpu, &folder.join("gpu"))?;
    std::fs::write(
        folder.join("model.onnx"),
        onnx::network(&model, [SIDE, SIDE], &gpu, &[("made", "here")])?,
    )?;
    let pixels = digits::batch(3, 3).0;
    let mut evaluator = Evaluator::compile(&gpu, &model, 3, [SIDE, SIDE])?;
    Ok([pixels.clone(), evaluator.logits(&mut pixels.clone(), "digits", &[0, 1, 2])?])
}

pub(crate) fn main() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("whole_way_{}", std::process::id()));
    println!("{:.2?}", go(&folder)?[1]);
    Ok(std::fs::remove_dir_all(&folder)?)
}
