//! A short training, as each of the processes of a cluster makes it.

use autograd::Tensor;
use autograd::tensor::Transfer;
use nn::Schedule;
use nn::checkpoint::Checkpoint;
use nn::initialization::{Biases, Initialization, Initializer, Weights};
use nn::layers::{ConvSpec, Convolution, Linear};
use nn::{Features, Forward, Model, Output};
use sld::augment::{Mixing, Normalization};
use sld::cluster::Cluster;
use sld::data::Dataset;
use sld::distill::Distiller;
use sld::training::snapshot::Progress;
use sld::training::{
    Changed, EpochResult, Metric, Networks, Observer, RunData, Settings, Setup, StepResult, Team, Trainer,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub const CLASSES: usize = 4;

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
        let logits = self.classifier.forward(&pooled);
        Output { logits, features: Features { pooled, ..Features::none() } }
    }
}

pub fn plain(seed: u64) -> Model {
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
pub fn data(images: usize) -> Arc<Dataset> {
    let pixels = (0..images * 32 * 32 * 3)
        .map(|i| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as u8 ^ (i >> 7) as u8);
    let labels = (0..images).map(|i| (i * i % CLASSES) as u32).collect();
    let classes = (0..CLASSES).map(|class| class.to_string()).collect();
    let drawn = Dataset::new("drawn", (32, 32), pixels.collect(), labels, classes, Normalization::CIFAR10);
    Arc::new(drawn.unwrap())
}

/// Keeps what the last epoch measured and the state to go on from; stops after some step (several processes
/// agree on that during the next).
struct Watcher<'a> {
    stop: &'a AtomicBool,
    at: u64,
    train: Vec<(Metric, f64)>,
    latest: Option<Checkpoint>,
}

impl Observer for Watcher<'_> {
    fn step(&mut self, result: &StepResult) {
        self.stop.store(result.step >= self.at, Ordering::Relaxed);
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

/// How batches are computed.
#[derive(Clone, Copy)]
pub struct How {
    pub processes: usize,
    pub parts: usize,
    pub sync_batch_norm: bool,
    pub transfer: Transfer,
    pub rate: f64,
    /// Of a distillation-oriented optimizer.
    pub dot: Option<f64>,
    /// Whether labels are smoothed, and images mixed one way or the other.
    pub mixed: bool,
}

pub const ALONE: How = How {
    processes: 1,
    parts: 1,
    sync_batch_norm: false,
    transfer: Transfer::F32,
    rate: 0.1,
    dot: None,
    mixed: false,
};

/// Of two epochs in batches of 10.
pub fn settings(how: How) -> Settings {
    Settings {
        epochs: 2,
        batch_size: 10,
        accumulate: how.parts,
        transfer: how.transfer,
        sync_batch_norm: how.sync_batch_norm,
        test_batch_size: 10,
        schedule: Schedule::multi_step(how.rate, &[], 0.1),
        seed: 3,
        workers: 1,
        ..Settings::default()
    }
}

/// What is left of a training: the state at the end and the last epoch's metrics.
pub type Trained = (Checkpoint, Vec<(Metric, f64)>);

/// One process's part of two epochs of 23 images in batches of 10 (the last one has 3); from `latest`, if given, and
/// until step `until`. Rank 0 alone has something left.
pub fn trained_by(
    cluster: &dyn Cluster,
    make: impl Fn(u64) -> Model,
    method: &dyn Distiller,
    how: How,
    latest: Option<Checkpoint>,
    until: u64,
) -> Option<Trained> {
    let device = cpu::CpuDevice::new(1);
    // Only rank 0 starts as all will go on.
    let student = make(1 + cluster.rank() as u64);
    let teacher = method.needs_teacher().then(|| make(100));
    let mut setup = Setup { dot: how.dot, images: 23, ..Setup::default() };
    if how.mixed {
        (setup.smoothing, setup.mixing) = (0.1, Mixing::new(1.0, 1.0));
    }
    let networks = Networks::new(student, teacher, method, setup).unwrap();
    let stop = AtomicBool::new(false);
    let team = Team { cluster, device: &device, networks: &networks, method };
    let all = RunData::of(data(23), data(23));
    let mut trainer = Trainer::new(team, settings(how), all).unwrap().stop_when(&stop);
    if let Some(latest) = latest.filter(|_| cluster.leads()) {
        trainer.resume(latest, Path::new("latest"), Changed::Nothing).unwrap();
    }
    let mut watcher = Watcher { stop: &stop, at: until, train: vec![], latest: None };
    trainer.run(&mut watcher).unwrap();
    assert_eq!(watcher.latest.is_some(), cluster.leads(), "rank 0 alone saves");
    watcher.latest.map(|latest| (latest, watcher.train))
}

/// All numbers of a state: parameters and momenta, and batch norm's statistics.
pub fn numbers(state: &Checkpoint) -> Vec<f32> {
    let optimizer = state.optimizer.iter();
    let momenta = optimizer.flat_map(|o| o.momentum.values().chain(o.momentum_kd.values()));
    state.tensors.iter().chain(momenta).flat_map(|tensor| tensor.data.to_f32()).collect()
}

/// The largest difference of two states, as a share of their largest value.
pub fn distance(a: &Checkpoint, b: &Checkpoint) -> f32 {
    let (a, b) = (numbers(a), numbers(b));
    assert_eq!(a.len(), b.len());
    let largest = a.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    a.iter().zip(&b).fold(0.0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}
