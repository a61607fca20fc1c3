//! The trainer on images of one's own: shuffled, augmented, evaluated after every epoch, saved so that training can go
//! on where it stopped.
//!
//!     cargo run --release --example own_data

use std::path::Path;
use std::sync::Arc;

use nn::checkpoint::Checkpoint;
use nn::{Course, Rule, Schedule};
use sld::augment::Normalization;
use sld::data::Dataset;
use sld::distill::Vanilla;
use sld::training::{Changed, EpochResult, Networks, Observer, RunData, Settings, Setup, Team, Trainer};

const SIDE: usize = 32;

/// A picture of one of three patterns (stripes, checks, rings), in two colours, with noise: rows of red, green, blue.
fn picture(number: u32) -> (Vec<u8>, u32) {
    let random = |k: u32| (number * 7 + k).wrapping_mul(2_654_435_761) >> 24;
    let (class, width, phase) = (number % 3, 4 + random(1) % 4, random(2) % 8);
    let lit = |x: u32, y: u32| match class {
        0 => (x + phase) / width % 2 == 1,
        1 => ((x + phase) / width + (y + phase) / width) % 2 == 1,
        _ => (((x as f32 - 16.0).hypot(y as f32 - 16.0)) as u32 + phase) / width % 2 == 1,
    };
    let value = |i: u32| {
        let (pixel, channel) = (i / 3, i % 3);
        let on = lit(pixel % SIDE as u32, pixel / SIDE as u32);
        let colour = random(10 + channel + 3 * u32::from(on)) / 2 + if on { 96 } else { 0 };
        (colour + i.wrapping_mul(number + 1).wrapping_mul(2_246_822_519) % 32) as u8
    };
    ((0..3 * (SIDE * SIDE) as u32).map(value).collect(), class)
}

/// Any iterator of images and classes will do.
fn dataset(name: &str, numbers: std::ops::Range<u32>) -> anyhow::Result<Arc<Dataset>> {
    let classes = ["stripes", "checks", "rings"].map(String::from).to_vec();
    let normalization = Normalization { mean: [0.5; 3], std: [0.25; 3] };
    Ok(Arc::new(Dataset::collect(name, (SIDE, SIDE), numbers.map(picture), classes, normalization)?))
}

/// Is told of every epoch, and keeps the state that training goes on from.
#[derive(Default)]
struct Diary {
    epochs: Vec<EpochResult>,
    latest: Checkpoint,
}

impl Observer for Diary {
    fn epoch(
        &mut self,
        result: &EpochResult,
        latest: &Checkpoint,
        _student: &Checkpoint,
        is_best: bool,
    ) -> anyhow::Result<()> {
        let (loss, top1) = (result.train_loss(), result.test.top1());
        let best = if is_best { ", the best so far" } else { "" };
        println!("epoch {}: loss {loss:.4}, {top1:.1}% of the test images right{best}", result.epoch);
        self.epochs.push(result.clone());
        self.latest = latest.clone();
        Ok(())
    }
}

/// Trains a network from the registry (one of your own does as well) up to an epoch, from a state if there is one.
fn train(epochs: usize, from: Option<Checkpoint>) -> anyhow::Result<Diary> {
    let (images, test) = (dataset("patterns", 0..600)?, dataset("other patterns", 600..750)?);
    let device = cpu::CpuDevice::new(2);
    let method = Vanilla::default();
    let setup = Setup { rule: Some(Rule::adamw(0.01)), images: images.len(), ..Setup::default() };
    let networks = Networks::new(nn::models::build("resnet8", 3, 1)?, None, &method, setup)?;
    let settings = Settings {
        epochs,
        batch_size: 50,
        schedule: Schedule { base: 0.005, epochs: 4, warmup: 1, course: Course::Cosine },
        ..Settings::default()
    };
    let team = Team::alone(&device, &networks, &method);
    let mut trainer = Trainer::new(team, settings, RunData::of(images, test))?;
    if let Some(state) = from {
        trainer.resume(state, Path::new("the first part"), Changed::Nothing)?;
    }
    let mut diary = Diary::default();
    trainer.run(&mut diary)?;
    Ok(diary)
}

pub(crate) fn main() -> anyhow::Result<()> {
    let whole = train(4, None)?;
    let last = whole.epochs.last().map_or(0.0, |epoch| epoch.test.top1());
    anyhow::ensure!(last > 90.0, "only {last}% right");

    println!("once more, in two parts");
    let first = train(2, None)?;
    let second = train(4, Some(first.latest))?;
    anyhow::ensure!(second.latest == whole.latest, "the two parts end elsewhere");
    println!("the same weights, bit for bit");
    Ok(())
}
