//! Batches computed in parts: the same step as in one, odd last batches and continuing included.

use autograd::Tensor;
use nn::checkpoint::Checkpoint;
use nn::initialization::{Biases, Initialization, Initializer, Weights};
use nn::layers::{ConvSpec, Convolution, Linear};
use nn::optimizer::MultiStep;
use nn::{Forward, Model, Output};
use schedule::Device;
use sld::augment::Normalization;
use sld::data::Dataset;
use sld::distill::{Distiller, Kd, Sld, Vanilla};
use sld::training::snapshot::Progress;
use sld::training::{Changed, EpochResult, Metric, Networks, Observer, Settings, Setup, StepResult, Trainer};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const CLASSES: usize = 4;

/// A network without batch norm: two convolutions and a linear layer.
struct Plain {
    first: Convolution,
    second: Convolution,
    classifier: Linear,
}

impl nn::models::Network for Plain {
    fn forward(&self, images: &Tensor, _: &mut Forward) -> Output {
        let x = self.first.forward(images).relu();
        let pooled = self.second.forward(&x).relu().global_average_pool();
        self.classifier.forward(&pooled).into()
    }
}

fn plain(seed: u64) -> Model {
    let initialization = Initialization {
        convolution: Weights::NormalFanOut,
        convolution_bias: Biases::Zero,
        linear: Weights::Normal(0.3),
        linear_bias: Biases::Zero,
    };
    Model::new("plain", CLASSES, Initializer::new(initialization, seed), |b| Plain {
        first: b.convolution("first", ConvSpec::new(3, 8, 3).with_bias()),
        second: b.convolution("second", ConvSpec::new(8, 12, 3)),
        classifier: b.linear("classifier", 12, CLASSES),
    })
}

/// So many images of 32x32.
fn data(images: usize) -> Arc<Dataset> {
    let pixels = (0..images * 32 * 32 * 3)
        .map(|i| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as u8 ^ (i >> 7) as u8);
    let labels = (0..images).map(|i| (i * i % CLASSES) as u32).collect();
    let classes = (0..CLASSES).map(|class| class.to_string()).collect();
    let drawn = Dataset::new("drawn", (32, 32), pixels.collect(), labels, classes, Normalization::CIFAR10);
    Arc::new(drawn.unwrap())
}

/// Keeps what the last epoch measured and the state to go on from; stops after some step.
struct Watcher<'a> {
    stop: &'a AtomicBool,
    at: u64,
    train: Vec<(Metric, f64)>,
    latest: Option<Checkpoint>,
}

impl Observer for Watcher<'_> {
    fn step(&mut self, result: &StepResult) {
        self.stop.store(result.step == self.at, Ordering::Relaxed);
    }
    fn epoch(
        &mut self,
        result: &EpochResult,
        latest: &Checkpoint,
        _: &Checkpoint,
        _: bool,
    ) -> anyhow::Result<()> {
        self.train = result.train.clone();
        self.latest = Some(latest.clone());
        Ok(())
    }
    fn interrupted(&mut self, _: &Progress, latest: &Checkpoint) -> anyhow::Result<()> {
        self.latest = Some(latest.clone());
        Ok(())
    }
}

/// Two epochs of 23 images in batches of 10 (the last one has 3), each in so many parts; from `latest`, if
/// given, and until step `until`. Gives the state at the end and the last epoch's metrics.
fn trained(
    make: impl Fn(u64) -> Model,
    method: &dyn Distiller,
    accumulate: usize,
    latest: Option<Checkpoint>,
    until: u64,
) -> (Checkpoint, Vec<(Metric, f64)>) {
    let device = cpu::CpuDevice::new(2);
    let student = make(1);
    let teacher = method.needs_teacher().then(|| make(2));
    let networks = Networks::new(student, teacher, method, Setup::default()).unwrap();
    let settings = Settings {
        epochs: 2,
        batch_size: 10,
        accumulate,
        test_batch_size: 10,
        schedule: MultiStep { base: 0.1, stages: vec![], factor: 0.1 },
        seed: 3,
        workers: 2,
    };
    let stop = AtomicBool::new(false);
    let images = data(23);
    let mut trainer = Trainer::new(&device, &networks, method, settings, images.clone(), images, None)
        .unwrap()
        .stop_when(&stop);
    if let Some(latest) = latest {
        trainer.resume(latest, Path::new("latest"), Changed::Nothing).unwrap();
    }
    let mut watcher = Watcher { stop: &stop, at: until, train: vec![], latest: None };
    trainer.run(&mut watcher).unwrap();
    let name = Device::name(&device);
    (watcher.latest.unwrap_or_else(|| panic!("{name}: nothing was saved")), watcher.train)
}

/// All numbers of a state: parameters and momenta.
fn numbers(state: &Checkpoint) -> Vec<f32> {
    let momenta = state.optimizer.iter().flat_map(|optimizer| optimizer.momentum.values());
    state.tensors.iter().chain(momenta).flat_map(|tensor| tensor.data.to_f32()).collect()
}

/// The largest difference of two states, as a share of their largest value.
fn distance(a: &Checkpoint, b: &Checkpoint) -> f32 {
    let (a, b) = (numbers(a), numbers(b));
    assert_eq!(a.len(), b.len());
    let largest = a.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    a.iter().zip(&b).fold(0.0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

/// Losses that are means over images: in any number of parts the same.
#[test]
fn parts_make_the_same_step_without_batch_norm() {
    let methods: [&dyn Distiller; 3] = [&Vanilla {}, &Kd::default(), &Sld::default()];
    for method in methods {
        let (whole, metrics) = trained(plain, method, 1, None, u64::MAX);
        // Parts of equal size; of sizes 4, 3 and 3; of one image, where the last batch has empty ones.
        for parts in [2, 3, 10] {
            let (in_parts, same) = trained(plain, method, parts, None, u64::MAX);
            let apart = distance(&whole, &in_parts);
            assert!(apart < 2e-6, "{} in {parts} parts is {apart:e} away", method.name());
            for ((metric, a), (other, b)) in metrics.iter().zip(&same) {
                assert_eq!(metric, other);
                assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{metric:?} is {b} and not {a}");
            }
        }
    }
}

/// Batch norm sees the parts, so that the result is another, but a definite one: it is the same after a stop
/// between any two steps.
#[test]
fn a_run_in_parts_goes_on_bit_for_bit() {
    let make = |seed| nn::models::build("resnet8", CLASSES, seed).unwrap();
    let method = Kd::default();
    let (whole, _) = trained(make, &method, 1, None, u64::MAX);
    let (in_parts, metrics) = trained(make, &method, 3, None, u64::MAX);
    assert!(distance(&whole, &in_parts) > 1e-4, "batch norm sees the parts");
    for step in [2, 4] {
        let (stopped, _) = trained(make, &method, 3, None, step);
        let (resumed, same) = trained(make, &method, 3, Some(stopped), u64::MAX);
        assert!(numbers(&resumed) == numbers(&in_parts), "stopped after step {step}");
        assert_eq!(metrics, same);
    }
}
