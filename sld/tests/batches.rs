//! Batches computed in parts, and in several processes: the same step as in one, odd last batches and continuing
//! included. The processes are threads here.

use autograd::Tensor;
use autograd::tensor::Transfer;
use nn::checkpoint::Checkpoint;
use nn::initialization::{Biases, Initialization, Initializer, Weights};
use nn::layers::{ConvSpec, Convolution, Linear};
use nn::optimizer::MultiStep;
use nn::{Forward, Model, Output};
use schedule::{Alone, Communicator, PendingSum};
use sld::augment::Normalization;
use sld::cluster::Cluster;
use sld::data::Dataset;
use sld::distill::{Crd, Distiller, FitNet, Kd, Ofd, Sld, Vanilla};
use sld::training::snapshot::Progress;
use sld::training::{
    Changed, EpochResult, Memory, Metric, Networks, Observer, Settings, Setup, StepResult, Trainer,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

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

/// Where the members of a cluster meet: threads of this process.
struct Hub {
    size: usize,
    meeting: Mutex<Meeting>,
    changed: Condvar,
}

#[derive(Default)]
struct Meeting {
    given: BTreeMap<usize, Vec<u8>>,
    /// What all gave, while they take it; how many still have to.
    complete: Vec<Vec<u8>>,
    left: usize,
}

impl Hub {
    fn new(size: usize) -> Arc<Hub> {
        Arc::new(Hub { size, meeting: Mutex::default(), changed: Condvar::new() })
    }

    fn gather(&self, rank: usize, bytes: Vec<u8>) -> Vec<Vec<u8>> {
        let mut meeting = self.changed.wait_while(self.meeting.lock().unwrap(), |m| m.left > 0).unwrap();
        meeting.given.insert(rank, bytes);
        if meeting.given.len() == self.size {
            meeting.complete = std::mem::take(&mut meeting.given).into_values().collect();
            meeting.left = self.size;
            self.changed.notify_all();
        }
        let mut meeting = self.changed.wait_while(meeting, |m| m.left == 0).unwrap();
        let all = meeting.complete.clone();
        meeting.left -= 1;
        self.changed.notify_all();
        all
    }
}

/// A process of a cluster that are threads.
struct Member {
    hub: Arc<Hub>,
    rank: usize,
}

struct Sum(Vec<f32>);

impl PendingSum for Sum {
    fn finish(self: Box<Self>) -> autograd::Result<Vec<f32>> {
        Ok(self.0)
    }
}

impl Communicator for Member {
    fn begin_sum(&self, values: Vec<f32>, transfer: Transfer) -> autograd::Result<Box<dyn PendingSum>> {
        let rounded = |v: f32| match transfer {
            Transfer::F32 => v,
            Transfer::Bf16 => f32::from_bits((v.to_bits() + 0x8000) & 0xffff_0000),
        };
        let bytes = values.iter().flat_map(|&v| rounded(v).to_le_bytes()).collect();
        let mut sum = vec![0.0; values.len()];
        for given in self.hub.gather(self.rank, bytes) {
            let (words, _) = given.as_chunks::<4>();
            assert_eq!(words.len(), sum.len(), "all begin the same sums");
            sum.iter_mut().zip(words).for_each(|(sum, word)| *sum += f32::from_le_bytes(*word));
        }
        Ok(Box::new(Sum(sum)))
    }
}

impl Cluster for Member {
    fn rank(&self) -> usize {
        self.rank
    }
    fn size(&self) -> usize {
        self.hub.size
    }
    fn sum(&self, values: &mut [f64]) -> anyhow::Result<()> {
        let all = self.hub.gather(self.rank, values.iter().flat_map(|v| v.to_le_bytes()).collect());
        for (at, value) in values.iter_mut().enumerate() {
            let number = |given: &Vec<u8>| f64::from_le_bytes(given.as_chunks::<8>().0[at]);
            *value = all.iter().map(number).sum();
        }
        Ok(())
    }
    fn broadcast(&self, bytes: Vec<u8>) -> anyhow::Result<Vec<u8>> {
        Ok(self.hub.gather(self.rank, bytes).swap_remove(0))
    }
    fn gather(&self, bytes: Vec<u8>) -> anyhow::Result<Vec<Vec<u8>>> {
        Ok(self.hub.gather(self.rank, bytes))
    }
    fn communicator(&self) -> &dyn Communicator {
        self
    }
    fn neighbours(&self) -> Vec<usize> {
        (0..self.hub.size).collect()
    }
    fn abandon(&self) {}
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
struct How {
    processes: usize,
    parts: usize,
    sync_batch_norm: bool,
    transfer: Transfer,
    rate: f64,
    /// Of a distillation-oriented optimizer.
    dot: Option<f64>,
}

const ALONE: How =
    How { processes: 1, parts: 1, sync_batch_norm: false, transfer: Transfer::F32, rate: 0.1, dot: None };

/// Of two epochs in batches of 10.
fn settings(how: How) -> Settings {
    Settings {
        epochs: 2,
        batch_size: 10,
        accumulate: how.parts,
        transfer: how.transfer,
        sync_batch_norm: how.sync_batch_norm,
        test_batch_size: 10,
        schedule: MultiStep { base: how.rate, stages: vec![], factor: 0.1 }.into(),
        seed: 3,
        workers: 1,
    }
}

/// Two epochs of 23 images in batches of 10 (the last one has 3); from `latest`, if given, and until step
/// `until`. Gives the state at the end and the last epoch's metrics, as rank 0 has them.
fn trained(
    make: impl Fn(u64) -> Model + Sync,
    method: &dyn Distiller,
    how: How,
    latest: Option<Checkpoint>,
    until: u64,
) -> (Checkpoint, Vec<(Metric, f64)>) {
    let hub = Hub::new(how.processes);
    let process = |cluster: &dyn Cluster| {
        let device = cpu::CpuDevice::new(1);
        // Only rank 0 starts as all will go on.
        let student = make(1 + cluster.rank() as u64);
        let teacher = method.needs_teacher().then(|| make(100));
        let networks =
            Networks::new(student, teacher, method, Setup { dot: how.dot, ..Setup::default() }).unwrap();
        let stop = AtomicBool::new(false);
        let images = Some(data(23));
        let all = [images.clone(), images, None];
        let mut trainer =
            Trainer::among(cluster, &device, &networks, method, settings(how), all).unwrap().stop_when(&stop);
        if let Some(latest) = latest.clone().filter(|_| cluster.leads()) {
            trainer.resume(latest, Path::new("latest"), Changed::Nothing).unwrap();
        }
        let mut watcher = Watcher { stop: &stop, at: until, train: vec![], latest: None };
        trainer.run(&mut watcher).unwrap();
        assert_eq!(watcher.latest.is_some(), cluster.leads(), "rank 0 alone saves");
        watcher.latest.map(|latest| (latest, watcher.train))
    };
    match how.processes {
        1 => process(&Alone),
        _ => std::thread::scope(|scope| {
            let process = &process;
            let member = |rank| Member { hub: hub.clone(), rank };
            let threads: Vec<_> =
                (0..how.processes).map(|rank| scope.spawn(move || process(&member(rank)))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).next().flatten()
        }),
    }
    .expect("something was saved")
}

/// All numbers of a state: parameters and momenta, and batch norm's statistics.
fn numbers(state: &Checkpoint) -> Vec<f32> {
    let optimizer = state.optimizer.iter();
    let momenta = optimizer.flat_map(|o| o.momentum.values().chain(o.momentum_kd.values()));
    state.tensors.iter().chain(momenta).flat_map(|tensor| tensor.data.to_f32()).collect()
}

/// The largest difference of two states, as a share of their largest value.
fn distance(a: &Checkpoint, b: &Checkpoint) -> f32 {
    let (a, b) = (numbers(a), numbers(b));
    assert_eq!(a.len(), b.len());
    let largest = a.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    a.iter().zip(&b).fold(0.0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

fn assert_same_metrics(a: &[(Metric, f64)], b: &[(Metric, f64)], tolerance: f64) {
    for ((metric, a), (other, b)) in a.iter().zip(b) {
        assert_eq!(metric, other);
        assert!((a - b).abs() <= tolerance * a.abs().max(1.0), "{metric:?} is {b} and not {a}");
    }
}

fn resnet(seed: u64) -> Model {
    nn::models::build("resnet8", CLASSES, seed).unwrap()
}

/// Losses that are means over images: the same however batches are shared out, also by an optimizer that wants
/// the gradients of two.
#[test]
fn however_batches_are_shared_out_the_step_is_the_same_without_batch_norm() {
    let methods: [(&dyn Distiller, Option<f64>); 4] =
        [(&Vanilla {}, None), (&Kd::default(), None), (&Kd::default(), Some(0.075)), (&Sld::default(), None)];
    for (method, dot) in methods {
        let alone = How { dot, ..ALONE };
        let (whole, metrics) = trained(plain, method, alone, None, u64::MAX);
        // Parts of equal size; of sizes 4, 3 and 3; of one image, where the last batch has empty ones.
        for (processes, parts) in [(1, 2), (1, 3), (1, 10), (2, 1), (3, 1), (5, 1), (2, 2), (3, 2), (2, 5)] {
            let (shared, same) = trained(plain, method, How { processes, parts, ..alone }, None, u64::MAX);
            let apart = distance(&whole, &shared);
            assert!(apart < 2e-6, "{}: {processes}x{parts} parts are {apart:e} away", method.name());
            assert_same_metrics(&metrics, &same, 1e-5);
        }
    }
}

/// Batch norm sees the parts, so that the result is another, but a definite one: it is the same after a stop
/// between any two steps.
#[test]
fn a_run_in_parts_goes_on_bit_for_bit() {
    let method = Kd::default();
    let (whole, _) = trained(resnet, &method, ALONE, None, u64::MAX);
    for how in [How { parts: 3, ..ALONE }, How { processes: 2, ..ALONE }] {
        let (in_parts, metrics) = trained(resnet, &method, how, None, u64::MAX);
        assert!(distance(&whole, &in_parts) > 1e-4, "batch norm sees the parts");
        for step in [2, 4] {
            let (stopped, _) = trained(resnet, &method, how, None, step);
            let (resumed, same) = trained(resnet, &method, how, Some(stopped), u64::MAX);
            assert!(numbers(&resumed) == numbers(&in_parts), "stopped after step {step}");
            assert_eq!(metrics, same);
        }
    }
}

/// With statistics of all processes' images a network with batch norm is trained as by one process, also where
/// a process has no image of its own, by two views, and by another number of processes after a stop. So are a
/// method's own layers, and a teacher whose statistics move.
#[test]
fn synchronized_batch_norm_is_that_of_one_process() {
    let hints = FitNet { feat_weight: 1.0, ..FitNet::default() };
    let methods: [&dyn Distiller; 4] = [&Kd::default(), &Sld::default(), &hints, &Ofd::default()];
    for method in methods {
        // Slowly, or rounding errors grow from step to step.
        let alone = How { rate: 0.002, ..ALONE };
        let (whole, metrics) = trained(resnet, method, alone, None, u64::MAX);
        let (apart, _) = trained(resnet, method, How { processes: 2, ..alone }, None, u64::MAX);
        let own_statistics = distance(&whole, &apart);
        // (A value near a kink, ReLU's or OFD's margin, may fall on its other side: in some runs a small step away.)
        let near = own_statistics / 50.0;
        for processes in [3, 5] {
            let how = How { processes, sync_batch_norm: true, ..alone };
            let (shared, same) = trained(resnet, method, how, None, u64::MAX);
            let apart = distance(&whole, &shared);
            assert!(apart < near, "{}: {processes} processes are {apart:e} away", method.name());
            assert_same_metrics(&metrics, &same, 1e-3);
            let (stopped, _) = trained(resnet, method, how, None, 2);
            let other = How { processes: 7 - processes, ..how };
            let (resumed, _) = trained(resnet, method, other, Some(stopped), u64::MAX);
            let apart = distance(&whole, &resumed);
            assert!(apart < near, "{} by {} processes: {apart:e} away", method.name(), other.processes);
        }
    }
}

/// What is remembered of every image would be another memory in every process.
#[test]
fn a_method_with_a_memory_is_refused_to_several_processes() {
    let method = Crd { student_dim: 64, teacher_dim: 64, negatives: 4, ..Crd::default() };
    let two = Member { hub: Hub::new(2), rank: 0 };
    let device = cpu::CpuDevice::new(1);
    let setup = Setup { images: 23, ..Setup::default() };
    let networks = Networks::new(resnet(1), Some(resnet(2)), &method, setup).unwrap();
    let images = [Some(data(23)), Some(data(23)), None];
    let made = Trainer::among(&two, &device, &networks, &method, settings(ALONE), images);
    let why = format!("{:#}", made.err().expect("refused"));
    assert!(why.contains("CRD remembers every training image") && why.contains("2 processes"), "{why}");
}

/// Gradients of 16 bits: near, and not the same.
#[test]
fn gradients_may_travel_in_16_bits() {
    let (whole, _) = trained(plain, &Vanilla {}, ALONE, None, u64::MAX);
    let half = How { processes: 2, transfer: Transfer::Bf16, ..ALONE };
    let (rounded, _) = trained(plain, &Vanilla {}, half, None, u64::MAX);
    let apart = distance(&whole, &rounded);
    assert!((1e-6..1e-2).contains(&apart), "{apart:e} away");
}

/// A device that refuses a batch for want of memory: the message proposes parts that fit, and they do.
#[test]
fn what_does_not_fit_is_told_with_the_parts_that_do() {
    let images = data(64);
    let begin = |most_bytes: Option<u64>, accumulate: usize| {
        let device = cpu::CpuDevice::with_memory(1, most_bytes);
        let student = resnet(1);
        let networks = Networks::new(student, None, &Vanilla {}, Setup::default()).unwrap();
        let settings = Settings { batch_size: 64, ..settings(How { parts: accumulate, ..ALONE }) };
        let memory = Memory::of_training(&device, &networks, &Vanilla {}, 64, accumulate, [32, 32]).unwrap();
        let trainer =
            Trainer::new(&device, &networks, &Vanilla {}, settings, images.clone(), images.clone(), None);
        (memory, trainer.map(|_| ()).map_err(|why| format!("{why:#}")))
    };
    let (whole, made) = begin(None, 1);
    made.unwrap();
    let (quarter, _) = begin(None, 4);
    assert!(quarter.step < whole.step / 3, "{quarter:?} and {whole:?}");
    // Room for a quarter of the batch, not for a half.
    let room = quarter.step + quarter.step / 4;
    let (_, refused) = begin(Some(room), 1);
    let why = refused.unwrap_err();
    assert!(why.contains("SOLVER.ACCUMULATE 4 fits") && why.contains("out of memory: a step needs"), "{why}");
    begin(Some(room), 4).1.unwrap();
    assert!(begin(Some(1 << 16), 1).1.unwrap_err().contains("in however many parts"));
}
