//! Numbers that are none end an evaluation and a training with the first culprit's name, and never become
//! an accuracy.

mod small;

use nn::Schedule;
use nn::checkpoint::TensorData;
use schedule::Device;
use sld::augment::Normalization;
use sld::data::Dataset;
use sld::distill::Vanilla;
use sld::training::snapshot::Progress;
use sld::training::{
    EpochResult, Evaluator, Networks, NotFinite, Observer, RunData, Settings, Setup, StepResult, Team,
    Trainer,
};
use small::{refused, run, sld, text, train};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A checkpoint of a resnet8 with one value of one tensor replaced.
fn with(path: &Path, name: &str, index: usize, value: f32) {
    small::checkpoint(path, "resnet8", |tensors| {
        let tensor = tensors.iter_mut().find(|tensor| tensor.name == name).expect("a tensor");
        let mut values = tensor.data.to_f32();
        values[index] = value;
        tensor.data = TensorData::F32(values);
    });
}

#[test]
fn a_checkpoint_with_an_impossible_value_is_refused_before_anything_is_computed() {
    let folder = small::folder();
    let path = folder.path().join("bad.pth");
    for (name, index, value) in [
        ("bn1.running_var", 3, -0.5),
        ("layer3.0.bn2.running_var", 0, f32::NEG_INFINITY),
        ("bn1.running_mean", 1, f32::NAN),
        ("conv1.weight", 5, f32::INFINITY),
        ("fc.bias", 99, f32::NAN),
    ] {
        with(&path, name, index, value);
        for more in [&[][..], &["--json"]] {
            let mut command = sld(&["eval", "-m", "resnet8", "--device", "cpu", "-c"]);
            command.arg(&path).arg("--data").arg(folder.path().join("data")).args(more);
            refused(&mut command, &[name, &format!("element {index} is {value}")]);
            assert_eq!(text(&run(&mut command).stdout), "");
        }
        let teacher = ["--teacher", path.to_str().unwrap()];
        let keys = ["DISTILLER.TEACHER", "resnet8", "SOLVER.EPOCHS", "1"];
        refused(&mut train(folder.path(), "kd", &teacher, &keys), &["the teacher resnet8", name]);
        assert!(!folder.path().join("run").exists());
    }
    // A negative mean or weight is none of this.
    with(&path, "bn1.running_mean", 3, -0.5);
    small::succeeds(
        sld(&["eval", "-m", "resnet8", "--device", "cpu", "-c"])
            .arg(&path)
            .arg("--data")
            .arg(folder.path().join("data")),
    );
}

#[test]
fn outputs_that_overflow_are_no_accuracy() {
    let folder = small::folder();
    let (path, logits) = (folder.path().join("huge.pth"), folder.path().join("logits.safetensors"));
    // Of one class only: 64 features of it, each times the largest number.
    small::checkpoint(&path, "resnet8", |tensors| {
        let weight = tensors.iter_mut().find(|tensor| tensor.name == "fc.weight").expect("a tensor");
        let mut values = weight.data.to_f32();
        values[17 * 64..18 * 64].fill(f32::MAX);
        weight.data = TensorData::F32(values);
    });
    for more in [&[][..], &["--json"], &["--train-split"], &["--batch", "7"]] {
        let mut command = sld(&["eval", "-m", "resnet8", "--device", "cpu", "-c"]);
        command
            .arg(&path)
            .arg("--data")
            .arg(folder.path().join("data"))
            .arg("--logits")
            .arg(&logits)
            .args(more);
        refused(
            &mut command,
            &["the outputs of resnet8 are not finite numbers: for image 0 ", "class 17 gets inf"],
        );
        assert!(!logits.exists() && text(&run(&mut command).stdout).is_empty());
    }
    let teacher = ["--teacher", path.to_str().unwrap()];
    let keys = ["DISTILLER.TEACHER", "resnet8", "SOLVER.EPOCHS", "1"];
    refused(&mut train(folder.path(), "kd", &teacher, &keys), &["the teacher: the outputs of resnet8"]);
    assert!(!folder.path().join("run").exists());
}

/// Makes a resnet8's outputs `by` times as large: half the way by its last features, so that no weight
/// overflows.
fn enlarge(tensors: &mut [nn::checkpoint::NamedTensor], by: f64) {
    let half = by.sqrt();
    for tensor in tensors {
        let factor = match tensor.name.as_str() {
            "fc.bias" => 0.0,
            "fc.weight" => by / half,
            name if name.starts_with("layer3.0.bn2.") || name.starts_with("layer3.0.downsample.1.") => {
                match name.ends_with("weight") || name.ends_with("bias") {
                    true => half,
                    false => continue,
                }
            }
            _ => continue,
        };
        tensor.data = TensorData::F32(tensor.data.to_f64().iter().map(|v| (v * factor) as f32).collect());
    }
}

/// The largest output of a resnet8 on images.
fn largest(path: &Path, images: &Arc<Dataset>) -> f32 {
    let (device, model) = (cpu::CpuDevice::new(1), nn::models::build("resnet8", 100, 0).unwrap());
    model.load(&nn::checkpoint::read(path).unwrap().tensors, &device).unwrap();
    let mut most = 0f32;
    let mut evaluator = Evaluator::compile(&device, &model, 50, [32, 32]).unwrap();
    evaluator.run(images, 1, |logits, _| most = logits.iter().fold(most, |m, l| m.max(l.abs()))).unwrap();
    most
}

/// A teacher whose outputs are finite for every test image and infinite for the training images: it is
/// named, not the student.
#[test]
fn a_teacher_that_fails_on_training_images_is_to_blame() {
    let folder = small::folder();
    let data = folder.path().join("data");
    // Test images of nearly one colour, training images of black and white.
    small::data_set(&data, |split, _, byte| match split {
        "test" => 128 + byte % 2,
        _ if byte % 2 == 0 => 0,
        _ => 255,
    });
    let path = folder.path().join("teacher.pth");
    let scaled = |by: f64| small::checkpoint(&path, "resnet8", |tensors| enlarge(tensors, by));
    scaled(1.0);
    let splits = sld::data::cifar::load(&data, Default::default()).expect("it loads").splits;
    let (train_most, test_most) =
        (largest(&path, &Arc::new(splits.train)), largest(&path, &Arc::new(splits.test)));
    assert!(train_most > 1.2 * test_most, "{train_most} {test_most}");
    scaled(f64::from(f32::MAX) / f64::from((train_most * test_most).sqrt()));
    let teacher = ["--teacher", path.to_str().unwrap()];
    for method in ["kd", "sld/res56_res20"] {
        let keys = ["DISTILLER.TEACHER", "resnet8", "SOLVER.EPOCHS", "1"];
        refused(
            &mut train(folder.path(), method, &teacher, &keys),
            &["epoch 1, step 1", "the teacher is to blame", "the outputs of resnet8", "class "],
        );
        let run = folder.path().join("run");
        assert!(!run.join("best").exists() && !run.join("latest").exists());
        assert_eq!(std::fs::read(run.join("metrics.jsonl")).unwrap(), b"", "no epoch was logged");
        std::fs::remove_dir_all(run).unwrap();
    }
}

#[test]
fn a_loss_that_overflows_at_once_is_not_put_on_the_learning_rate() {
    let folder = small::folder();
    let path = folder.path().join("teacher.pth");
    small::checkpoint(&path, "resnet8", |_| ());
    let teacher = ["--teacher", path.to_str().unwrap()];
    let keys = ["DISTILLER.TEACHER", "resnet8", "SOLVER.EPOCHS", "1", "KD.TEMPERATURE", "1e-38"];
    let said = refused(
        &mut train(folder.path(), "kd", &teacher, &keys),
        &["epoch 1, step 1", "kd ", "before anything was learned", "temperatures"],
    );
    assert!(!said.contains("smaller SOLVER.LR") && !said.contains("to blame"), "{said}");
}

#[test]
fn a_rate_too_large_is_named() {
    let folder = small::folder();
    let keys = ["SOLVER.EPOCHS", "3", "SOLVER.LR", "1e30"];
    refused(&mut train(folder.path(), "vanilla", &[], &keys), &["diverged", "a smaller SOLVER.LR"]);
    let run = folder.path().join("run");
    assert!(run.join("diverged").is_file() && !run.join("best").exists() && !run.join("latest").exists());
}

/// Puts values into the student's state when a step is done, and counts what it is told.
struct Meddler<'a> {
    device: &'a dyn Device,
    networks: &'a Networks,
    tensor: &'static str,
    value: Option<f32>,
    /// After this step it happens, and this is raised.
    at: u64,
    stop: &'a AtomicBool,
    interrupt: bool,
    told: Vec<&'static str>,
}

impl Observer for Meddler<'_> {
    fn step(&mut self, result: &StepResult) {
        if result.step == self.at {
            let mut state = self.networks.student.state().iter();
            let entry = state.find(|entry| entry.variable.name() == self.tensor).unwrap();
            if let Some(value) = self.value {
                self.device.write(&entry.variable, &vec![value; entry.variable.len()]).unwrap();
            }
            self.stop.store(self.interrupt, Ordering::Relaxed);
        }
    }
    fn epoch(
        &mut self,
        _: &EpochResult,
        _: &nn::checkpoint::Checkpoint,
        _: &nn::checkpoint::Checkpoint,
        _: bool,
    ) -> anyhow::Result<()> {
        self.told.push("epoch");
        Ok(())
    }
    fn interrupted(&mut self, _: &Progress, _: &nn::checkpoint::Checkpoint) -> anyhow::Result<()> {
        self.told.push("interrupted");
        Ok(())
    }
    fn diverged(&mut self, _: &str, _: &nn::checkpoint::Checkpoint) -> anyhow::Result<()> {
        self.told.push("diverged");
        Ok(())
    }
}

/// Trains `at` steps of an epoch of `batches`, puts `value` into the state, and gives the error and what
/// the observer was told.
fn meddled(
    rate: f64,
    at: u64,
    tensor: &'static str,
    value: Option<f32>,
    batches: usize,
    interrupt: bool,
) -> (anyhow::Error, Vec<&'static str>) {
    let device = cpu::CpuDevice::new(1);
    let student = nn::models::build("resnet8", 2, 0).unwrap();
    let networks = Networks::new(student, None, &Vanilla {}, Setup::default()).unwrap();
    let images = (0..batches * 4 * 3072).map(|i| (i * 2_654_435_761 >> 13) as u8).collect();
    let labels = (0..batches * 4).map(|i| i as u32 % 2).collect();
    let classes = vec!["a".into(), "b".into()];
    let data =
        Arc::new(Dataset::new("drawn", (32, 32), images, labels, classes, Normalization::CIFAR10).unwrap());
    let settings = Settings {
        epochs: 2,
        batch_size: 4,
        test_batch_size: 4,
        schedule: Schedule::multi_step(rate, &[], 0.1),
        workers: 1,
        ..Settings::default()
    };
    let stop = AtomicBool::new(false);
    let team = Team::alone(&device, &networks, &Vanilla {});
    let trainer = Trainer::new(team, settings, RunData::of(data.clone(), data));
    let mut meddler = Meddler {
        at,
        device: &device,
        networks: &networks,
        tensor,
        value,
        stop: &stop,
        interrupt,
        told: vec![],
    };
    let why = trainer.unwrap().stop_when(&stop).run(&mut meddler).expect_err("the state cannot go on");
    (why, meddler.told)
}

/// A state that becomes impossible while every loss is finite: training reads batch statistics only, and
/// the last step's update is read by none.
#[test]
fn a_state_that_cannot_go_on_takes_no_good_ones_place() {
    for (batches, interrupt) in [(2, false), (4, true)] {
        let (why, told) = meddled(0.01, 2, "bn1.running_var", Some(-1.0), batches, interrupt);
        assert!(why.to_string().contains("`bn1.running_var`: element 0 is -1"), "{why}");
        assert_eq!(told, ["diverged"], "{interrupt}");
    }
    // Of several batches the second has begun before the first is told of, and meets that state.
    for (batches, interrupt, part) in
        [(1, false, "`conv1.weight`: element 0 is "), (4, true, "after 2 steps the loss became")]
    {
        let (why, told) = meddled(1e39, 1, "fc.weight", None, batches, interrupt);
        assert!(why.to_string().contains(part), "{why}");
        assert_eq!(told, ["diverged"], "{interrupt}");
    }
}

/// A finite state whose outputs are not, as the evaluation after the epoch finds.
#[test]
fn an_epoch_whose_evaluation_is_not_finite_is_no_epoch() {
    let (why, told) = meddled(0.01, 2, "fc.weight", Some(f32::MAX), 2, false);
    assert!(why.to_string().contains("the outputs of resnet8 are not finite numbers: for image 0"), "{why}");
    assert_eq!(told, ["diverged"]);
}

#[test]
fn the_first_image_is_named_whatever_the_batch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("network.pth");
    // All images are alike but the sixth; which of the two kinds gives larger outputs is up to the weights.
    let data = |black: usize| {
        let mut images = vec![0u8; 8 * 3072];
        for (at, byte) in images.iter_mut().enumerate() {
            *byte = if (at / 3072 == 6) == (black == 6) { 0 } else { (at % 2 * 255) as u8 };
        }
        let names = (0..100).map(|class| class.to_string()).collect();
        Arc::new(Dataset::new("drawn", (32, 32), images, vec![0; 8], names, Normalization::CIFAR10).unwrap())
    };
    // Weights of one sign: no partial sum is larger than its output.
    let enlarged = |by: f64| {
        small::checkpoint(&path, "resnet8", |tensors| {
            enlarge(tensors, by);
            let weight = tensors.iter_mut().find(|tensor| tensor.name == "fc.weight").unwrap();
            weight.data = TensorData::F32(weight.data.to_f32().iter().map(|v| v.abs()).collect());
        });
    };
    enlarged(1.0);
    let kinds = [data(6), data(0)];
    let most = |data: &Arc<Dataset>, image| largest(&path, &Arc::new(data.subset("drawn", &[image])));
    let data = kinds.iter().find(|data| most(data, 6) > 1.2 * most(data, 0)).expect("one is larger");
    let by = f64::from(f32::MAX) / f64::from((most(data, 6) * most(data, 0)).sqrt());
    enlarged(by);
    let (device, model) = (cpu::CpuDevice::new(1), nn::models::build("resnet8", 100, 0).unwrap());
    model.load(&nn::checkpoint::read(&path).unwrap().tensors, &device).unwrap();
    for batch in [8, 5, 1] {
        let mut evaluator = Evaluator::compile(&device, &model, batch, [32, 32]).unwrap();
        let why = evaluator.run(data, 1, |_, _| ()).unwrap_err();
        let why = why.downcast_ref::<NotFinite>().unwrap_or_else(|| panic!("{why}"));
        assert_eq!((why.image, why.images.as_str()), (6, "drawn"));
    }
}
