//! From a file of weights to answers: which network it holds, its classes' probabilities for images, and the time that
//! takes.
//!
//!     cargo run --release --example inference -- FILE.pth
//!
//! Without a file, one with the initial weights of a network is written first.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use autograd::Tensor;
use nn::checkpoint::{self, Checkpoint, Role};
use nn::{Forward, models};
use schedule::{Device, Step, Value};

const BATCH: usize = 8;

pub(crate) fn main() -> anyhow::Result<()> {
    match std::env::args_os().nth(1) {
        Some(path) => answer(&PathBuf::from(path)),
        None => demonstrate(),
    }
}

/// Answers of a network with its initial weights.
pub fn demonstrate() -> anyhow::Result<()> {
    let path = std::env::temp_dir().join(format!("inference_{}.safetensors", std::process::id()));
    let (model, device) = (models::build("resnet8x4", 100, 1)?, cpu::CpuDevice::new(1));
    let checkpoint = Checkpoint { tensors: model.save(&device)?, ..Default::default() };
    checkpoint::write_safetensors(&path, &checkpoint)?;
    let answered = answer(&path);
    std::fs::remove_file(path)?;
    answered
}

fn answer(path: &Path) -> anyhow::Result<()> {
    // Files of PyTorch (.pth, whatever the version) and of safetensors; nothing in them is executed.
    let read = checkpoint::read_network(path, Role::Student)?;
    // Names and shapes of the tensors tell which of the registry's networks this is.
    let (names, classes) = nn::identify(&read.tensors);
    let name = names.first().with_context(|| format!("{} holds none of the networks", path.display()))?;
    let model = models::outline(name, classes)?;
    println!("{model:?}");

    let device = cpu::CpuDevice::new(2);
    model.load(&read.tensors, &device)?;

    // In evaluation the batch norms are folded into the convolutions before them, once for all calls.
    let side = models::side(name);
    let images = Tensor::input("images", &[BATCH, side, side, model.channels()]);
    let logits = model.forward(&images, &mut Forward::eval()).logits;
    let step = Step::new().output("probabilities", &logits.softmax(1));
    let mut program = device.compile_step(&step)?;

    // Stripes of different widths, normalised: photographs are read and cut by `sld predict`.
    let pixels: Vec<f32> = (0..BATCH * side * side * model.channels())
        .map(|i| {
            let (image, column) = (i / (side * side * 3), i / 3 % side);
            (column as f32 * (image + 1) as f32 * 0.3).sin()
        })
        .collect();
    program.call(&[("images", Value::F32(&pixels))])?;
    let started = Instant::now();
    for _ in 0..10 {
        program.call(&[("images", Value::F32(&pixels))])?;
    }
    let probabilities = program.output("probabilities")?;
    println!("{:.2} ms an image", started.elapsed().as_secs_f64() * 1e3 / (10 * BATCH) as f64);
    for (image, row) in probabilities.chunks(classes).enumerate() {
        let mut order: Vec<usize> = (0..classes).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        let best: Vec<String> =
            order.iter().take(3).map(|&class| format!("class {class} {:.1}%", 100.0 * row[class])).collect();
        println!("image {image}: {}", best.join(", "));
        anyhow::ensure!((row.iter().sum::<f32>() - 1.0).abs() < 1e-4, "probabilities sum to one");
    }
    Ok(())
}
