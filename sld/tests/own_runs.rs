//! Runs of programs, without a config: images of floats of any number of channels, and the folder.

mod small;

use autograd::Tensor;
use nn::initialization::{Initialization, Initializer};
use nn::layers::{Forward, Linear};
use nn::{Model, Network, Output};
use sld::data::loader::{Batch, Loader, LoaderConfig, Parts, Position, Views};
use sld::data::{Dataset, split};
use sld::distill::Vanilla;
use sld::experiment::{Experiment, Finished};
use sld::random::{Purpose, Stream};
use sld::training::{
    EpochResult, Expected, Networks, Observer, RunData, Settings, Setup, StepResult, Team, Trainer,
};
use std::path::Path;
use std::sync::Arc;

/// Logits as sums over pixels.
struct Sums(Linear, usize);

impl Network for Sums {
    fn forward(&self, images: &Tensor, _: &mut Forward) -> Output {
        self.0.forward(&images.global_average_pool()).into()
    }
    fn channels(&self) -> usize {
        self.1
    }
}

fn sums(channels: usize) -> Model {
    let initializer = Initializer::new(Initialization::PYTORCH, 1);
    Model::new("sums", 2, initializer, |b| Sums(b.linear("fc", channels, 2), channels))
}

/// Images of 3x4 pixels of two channels, of which the larger one is the class.
fn images(count: u32) -> impl Iterator<Item = (Vec<f32>, u32)> {
    (0..count).map(|i| {
        let mut random = Stream::new(1, Purpose::Synthetic, 0, i.into());
        let class = i % 2;
        let value = |k: u32| random.unit() as f32 + if k % 2 == class { 0.5 } else { 0.0 };
        ((0..24).map(value).collect(), class)
    })
}

fn dataset(count: u32) -> Dataset {
    Dataset::of_values("two", [3, 4, 2], images(count), vec!["a".into(), "b".into()]).unwrap()
}

/// Networks of two channels for such images.
fn networks() -> Networks {
    let setup = Setup { size: [3, 4], images: 30, ..Setup::default() };
    Networks::new(sums(2), None, &Vanilla {}, setup).unwrap()
}

fn settings() -> Settings {
    Settings { epochs: 2, batch_size: 8, workers: 1, ..Settings::default() }
}

fn train(folder: &Path, settings: Settings, data: RunData) -> anyhow::Result<Option<Finished>> {
    let (device, networks) = (cpu::CpuDevice::new(1), networks());
    Experiment::new(Team::alone(&device, &networks, &Vanilla {}), settings, data).train_in(folder)
}

#[test]
fn images_of_floats_are_checked_and_delivered_as_they_are() {
    let of = |images: Vec<(Vec<f32>, u32)>| {
        Dataset::of_values("two", [3, 4, 2], images, vec!["a".into(), "b".into()])
    };
    let why = of(vec![(vec![0.0; 24], 0), (vec![0.0; 12], 1)]).unwrap_err().to_string();
    assert!(
        why.contains("image 1 (from 0) has 12 values, one of [3, 4, 2]") && why.contains("has 24"),
        "{why}"
    );
    assert!(of(vec![(vec![0.0; 24], 2)]).is_err());
    let why = Dataset::of_values("none", [3, 4, 2], images(1), Vec::new()).unwrap_err().to_string();
    assert!(why.contains("there are no classes"), "{why}");

    let all = dataset(10);
    assert_eq!((all.shape(), all.image_len(), all.values(10)), ([3, 4, 2], 24, None));
    let expected: Vec<f32> = images(10).flat_map(|image| image.0).collect();
    let batches: Vec<Batch> =
        Loader::evaluate(Arc::new(all.clone()), 4, 1).unwrap().map(Result::unwrap).collect();
    assert_eq!(batches.iter().flat_map(|batch| batch.images.clone()).collect::<Vec<_>>(), expected);
    // A part of them has the same values; other values have another checksum.
    let (kept, held) = split::hold_out(&all, 0.5, 1).unwrap();
    let values =
        |set: &Dataset| (0..set.len()).map(|i| set.values(i).unwrap()[0].to_bits()).collect::<Vec<_>>();
    let mut both = [values(&kept), values(&held)].concat();
    both.sort_unstable();
    let mut whole = values(&all);
    whole.sort_unstable();
    assert_eq!(both, whole);
    assert!(kept.digest() != held.digest() && dataset(10).digest() == all.digest());
}

/// What changes an image is drawn for each image and epoch, whatever the threads do; the weak view first.
#[test]
fn own_augmentation_is_a_function_of_seed_epoch_and_image() {
    let train = Arc::new(dataset(10).augmented(|image, random, strong| {
        let add = random.unit() as f32 + if strong { 10.0 } else { 0.0 };
        image.iter_mut().for_each(|value| *value += add);
    }));
    let load = |threads, views| {
        let parts = Parts::WHOLE;
        let config =
            LoaderConfig { batch_size: 4, parts, views, mixing: None, seed: 5, threads, prefetch: 3 };
        let loader = Loader::train(train.clone(), config, Position { epoch: 1, batch: 0 }).unwrap();
        loader.take(6).map(Result::unwrap).collect::<Vec<Batch>>()
    };
    let batches = load(1, Views::WeakAndStrong);
    assert!(batches == load(3, Views::WeakAndStrong));
    for (batch, weak) in batches.iter().zip(load(1, Views::Weak)) {
        let half = batch.images.len() / 2;
        assert_eq!(batch.images[..half], weak.images);
        for (place, &index) in batch.indices.iter().enumerate() {
            let mut random = Stream::new(5, Purpose::View, batch.epoch, index.into());
            let plain = train.values(index as usize).unwrap();
            for (view, more) in [(0, 0.0), (half, 10.0)] {
                let add = random.unit() as f32 + more;
                let wanted: Vec<f32> = plain.iter().map(|value| value + add).collect();
                assert_eq!(batch.images[view + 24 * place..][..24], wanted);
            }
        }
    }
}

#[test]
fn a_program_s_run_leaves_a_folder_and_is_not_mixed_up_with_another() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let data = || RunData::of(dataset(30), dataset(12));
    let finished = train(&run, settings(), data()).unwrap().unwrap();
    assert_eq!((finished.epochs, finished.folder.as_path()), (2, run.as_path()));
    for name in ["report.html", "student_best", "latest", "metrics.jsonl", "evaluation.json", "run.json"] {
        assert!(run.join(name).exists(), "{name}");
    }
    assert!(!run.join("config.yaml").exists(), "there is no config");
    let info = small::json(&run.join("run.json"));
    assert!(info["distiller"] == "NONE" && info["student"]["name"] == "sums" && info["dataset"] == "two");

    let before = small::contents(&run);
    let others = [
        ("training images", settings(), RunData::of(dataset(31), dataset(12))),
        ("test images", settings(), RunData::of(dataset(30), dataset(13))),
        ("batch size", Settings { batch_size: 9, ..settings() }, data()),
        ("settings", Settings { accumulate: 2, ..settings() }, data()),
        ("settings", Settings { sync_batch_norm: true, ..settings() }, data()),
        ("seed", Settings { seed: 1, ..settings() }, data()),
        ("settings", Settings { schedule: nn::Schedule::multi_step(1.0, &[], 1.0), ..settings() }, data()),
    ];
    for (what, settings, data) in others {
        let why = train(&run, settings, data).unwrap_err().to_string();
        assert!(why.contains(&format!("has another {what}")) && why.contains("nothing was changed"), "{why}");
    }
    assert!(small::contents(&run) == before);
    // Longer it may become.
    assert_eq!(train(&run, Settings { epochs: 3, ..settings() }, data()).unwrap().unwrap().epochs, 3);
}

#[test]
fn networks_and_images_that_do_not_fit_are_refused() {
    let (device, networks) = (cpu::CpuDevice::new(1), networks());
    let team = Team::alone(&device, &networks, &Vanilla {});
    let refused = |train: Dataset, test: Dataset| {
        let made = Trainer::new(team, settings(), RunData::of(train, test));
        made.err().expect("refused").to_string()
    };
    let of = |shape: [usize; 3]| {
        let image = (vec![0.0; shape.iter().product()], 0);
        Dataset::of_values("other", shape, [image], vec!["a".into(), "b".into()]).unwrap()
    };
    let why = refused(of([3, 4, 1]), of([3, 4, 1]));
    assert!(why.contains("sums takes images of 2 channels, the data have 1"), "{why}");
    let why = refused(dataset(8), of([4, 3, 2]));
    assert!(why.contains("the images of other are [4, 3, 2], those to train on [3, 4, 2]"), "{why}");
}

/// Before the first step it is told how long evaluations and all steps take; a run at its end measures nothing.
#[test]
fn the_time_of_evaluations_is_known_before_the_first_step() {
    #[derive(Default)]
    struct Told(Vec<Expected>, u64);
    impl Observer for Told {
        fn begins(&mut self, expected: Expected) {
            assert_eq!(self.1, 0, "after a step");
            self.0.push(expected);
        }
        fn step(&mut self, result: &StepResult) {
            self.1 = result.step;
        }
        fn epoch(
            &mut self,
            _: &EpochResult,
            _: &nn::checkpoint::Checkpoint,
            _: &nn::checkpoint::Checkpoint,
            _: bool,
        ) -> anyhow::Result<()> {
            Ok(())
        }
    }
    let (device, networks) = (cpu::CpuDevice::new(1), networks());
    let team = Team::alone(&device, &networks, &Vanilla {});
    let mut trainer = Trainer::new(team, settings(), RunData::of(dataset(30), dataset(500))).unwrap();
    let mut told = Told::default();
    trainer.run(&mut told).unwrap();
    let [Expected { evaluation, all }] = told.0[..] else { panic!("told {} times", told.0.len()) };
    assert!(evaluation > 0.0 && evaluation < 60.0, "{evaluation}");
    // 500 images are evaluated once an epoch, 30 trained on, which is worth three evaluations of them.
    let wanted = settings().epochs as f64 * evaluation * (1.0 + 3.0 * 30.0 / 500.0);
    assert!((all - wanted).abs() < 1e-9 * wanted, "{all} for {wanted}");
    let mut again = Told::default();
    trainer.run(&mut again).unwrap();
    assert!(again.0.is_empty());
}
