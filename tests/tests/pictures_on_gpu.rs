//! What an ImageNet run is made of, on a GPU: pictures in a folder, networks for them, two views, the swap. Stopped in
//! the middle of an epoch it goes on to the same bits.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gpu::GpuDevice;
use nn::checkpoint::Checkpoint;
use nn::models;
use sld::augment::normalize::Normalization;
use sld::data::Dataset;
use sld::data::pictures::{self, Sight};
use sld::distill::Distiller;
use sld::setting::Choice;
use sld::training::snapshot::Progress;
use sld::training::{
    Changed, EpochResult, Networks, Observer, Outcome, RunData, Settings, Setup, StepResult, Team, Trainer,
};
use sld_tests::adapter::{self, Shared};

const SIDE: usize = 32;
/// Steps of two epochs, and the one at which a run is stopped.
const STEPS: u64 = 6;
const MIDDLE: u64 = 4;

/// Six pictures of two classes to train on, and two to test on, of several sizes.
fn photos(root: &Path) {
    for (part, count) in [("train", 6), ("val", 1)] {
        for (class, name) in ["ash", "birch"].into_iter().enumerate() {
            let folder = root.join(part).join(name);
            std::fs::create_dir_all(&folder).unwrap();
            for number in 0..count {
                let (width, height) = (30 + 9 * number, 60 - 5 * number);
                let mut file = format!("P6\n{width} {height}\n255\n").into_bytes();
                file.extend((0..width * height * 3).map(|i| (i * (number + 7 * class + 3) / 5) as u8));
                std::fs::write(folder.join(format!("{number}.ppm")), file).unwrap();
            }
        }
    }
}

/// Keeps the last state; stops after a step.
struct Watcher<'a> {
    stop: &'a AtomicBool,
    at: u64,
    latest: Option<Checkpoint>,
}

impl Observer for Watcher<'_> {
    fn step(&mut self, result: &StepResult) {
        self.stop.store(result.step == self.at, Ordering::Relaxed);
    }
    fn epoch(&mut self, _: &EpochResult, latest: &Checkpoint, _: &Checkpoint, _: bool) -> anyhow::Result<()> {
        self.latest = Some(latest.clone());
        Ok(())
    }
    fn interrupted(&mut self, _: &Progress, latest: &Checkpoint) -> anyhow::Result<()> {
        self.latest = Some(latest.clone());
        Ok(())
    }
}

/// The state of a run that begins with one and is stopped after a step, or at its end.
fn state(
    device: &GpuDevice,
    [train, test]: &[Arc<Dataset>; 2],
    from: Option<Checkpoint>,
    at: u64,
) -> Checkpoint {
    let method = <Box<dyn Distiller>>::named("SLD").unwrap();
    let network = |seed| models::build("imagenet/MobileNetV1_025", 2, seed).unwrap();
    let setup = Setup { size: [SIDE, SIDE], images: train.len(), ..Setup::default() };
    let networks = Networks::new(network(1), Some(network(2)), &*method, setup).unwrap();
    let settings = Settings { epochs: 2, batch_size: 4, test_batch_size: 2, ..Settings::default() };
    let stop = AtomicBool::new(false);
    let team = Team::alone(device, &networks, &*method);
    let trainer = Trainer::new(team, settings, RunData::of(Arc::clone(train), Arc::clone(test)));
    let mut trainer = trainer.unwrap().stop_when(&stop);
    if let Some(from) = from {
        let progress = trainer.resume(from, Path::new("latest"), Changed::Nothing).unwrap();
        // The next step may have been under way when the flag was raised.
        assert!((MIDDLE..STEPS).contains(&progress.steps), "{progress:?}");
    }
    let mut watcher = Watcher { stop: &stop, at, latest: None };
    let interrupted = trainer.run(&mut watcher).unwrap() == Outcome::Interrupted;
    assert_eq!(interrupted, at < STEPS);
    watcher.latest.unwrap()
}

#[test]
fn a_run_on_pictures_goes_on_to_the_same_bits() {
    let Some(Shared { device, .. }) = adapter::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path());
    let sight = Sight { side: SIDE, resize: 36, normalization: Normalization::IMAGENET };
    let found = pictures::open(folder.path(), sight, None).unwrap();
    let images = [found.train, found.test].map(|part| Arc::new(part.unwrap()));
    let whole = state(device, &images, None, STEPS);
    let middle = state(device, &images, None, MIDDLE);
    assert!(state(device, &images, Some(middle), STEPS) == whole, "the bits differ");
}
