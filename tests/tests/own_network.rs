//! What somebody else writes with `nn`: a layer of one's own with parameters and running statistics, in a network
//! of one's own for images of one channel, is trained, evaluated, saved and loaded as the registry's are.

use autograd::{Tensor, Variable, grad};
use nn::checkpoint::{Checkpoint, NamedTensor, write_pth};
use nn::initialization::{Initialization, Initializer};
use nn::layers::{Builder, ConvNorm, ConvSpec, Forward, Kind, Linear, within};
use nn::models::{Model, Network, Output};
use nn::{Sgd, loss};
use schedule::{Device, Step, Value};

/// Divides each channel by a running mean of its size, times a learned gain.
struct Evener {
    gain: Variable,
    size: Variable,
}

impl Evener {
    fn new(b: &mut Builder, name: &str, channels: usize) -> Evener {
        let mut at = b.at(name);
        Evener {
            gain: at.parameter("weight", &[channels], |_| vec![1.0; channels]),
            size: at.add("running_size", &[channels], Kind::Variance, |_| vec![1.0; channels]),
        }
    }

    fn forward(&self, x: &Tensor, forward: &mut Forward) -> Tensor {
        let _layer = within(&self.gain);
        if forward.is_training() {
            let size = x.abs().mean(&[0, 1, 2]).reshape(self.size.shape()).detach();
            let next = forward.current(&self.size) * 0.5 + size * 0.5;
            forward.update(&self.size, next);
        }
        x * self.gain.tensor() / (self.size.tensor() + 1e-3)
    }
}

/// For images of one channel.
struct Small {
    stem: ConvNorm,
    evener: Evener,
    fc: Linear,
}

impl Network for Small {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        let x = self.evener.forward(&self.stem.forward(images, forward), forward).relu();
        self.fc.forward(&x.global_average_pool()).into()
    }
    fn channels(&self) -> usize {
        1
    }
}

fn small(seed: u64) -> Model {
    Model::new("small", 2, Initializer::new(Initialization::PYTORCH, seed), |b| Small {
        stem: b.conv_norm("stem", "bn", ConvSpec::new(1, 4, 3)),
        evener: Evener::new(b, "evener", 4),
        fc: b.linear("fc", 4, 2),
    })
}

const IMAGES: [usize; 4] = [8, 6, 6, 1];

/// Bright and dark images.
fn data() -> (Vec<f32>, Vec<i32>) {
    let noise = sld_tests::formula::values("own_network", IMAGES.iter().product(), 0.0, 0.5);
    let labels: Vec<i32> = (0..IMAGES[0] as i32).map(|i| i % 2).collect();
    let pixels = noise.iter().enumerate().map(|(i, v)| v + (i / 36 % 2) as f32).collect();
    (pixels, labels)
}

fn logits(model: &Model, device: &dyn Device, forward: &mut Forward) -> Vec<f32> {
    let logits = model.forward(&Tensor::input("images", &IMAGES), forward).logits;
    let mut run = device.compile_step(&Step::new().output("logits", &logits)).unwrap();
    run.call(&[("images", Value::F32(&data().0))]).unwrap();
    run.output("logits").unwrap()
}

#[test]
fn it_learns_and_is_saved_and_loaded() {
    let device = cpu::CpuDevice::new(2);
    let model = small(1);
    let names: Vec<String> = model.manifest().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[6..8], ["evener.weight", "evener.running_size"]);
    assert_eq!((model.parameters().len(), model.buffers().len()), (6, 4));
    assert_eq!(model.macs(6, 6).unwrap(), 36 * 9 * 4 + 4 * 2);

    let (pixels, labels) = data();
    let mut forward = Forward::train(1);
    let logits_in_training = model.forward(&Tensor::input("images", &IMAGES), &mut forward).logits;
    let loss = loss::cross_entropy(&logits_in_training, &Tensor::input_i32("labels", &IMAGES[..1]));
    let sgd = Sgd::new(&model.parameters(), Default::default());
    let gradients = grad(&loss, &sgd.tensors());
    let step = Step::new()
        .output("loss", &loss)
        .updates(sgd.updates(&gradients, &Tensor::scalar(0.1)))
        .updates(forward.into_updates());
    let mut step = device.compile_step(&step).unwrap();
    let mut losses = Vec::new();
    for _ in 0..40 {
        step.call(&[("images", Value::F32(&pixels)), ("labels", Value::I32(&labels))]).unwrap();
        losses.push(step.output("loss").unwrap()[0]);
    }
    assert!(losses[39] < 0.2 * losses[0], "{losses:?}");
    let expected = logits(&model, &device, &mut Forward::eval());
    let right = expected.chunks(2).zip(&labels).filter(|(row, label)| (row[1] > row[0]) == (**label == 1));
    assert_eq!(right.count(), 8);

    // A file of PyTorch's kind, and its tensors in another model of the kind: the same bits.
    let file = tempfile::tempdir().unwrap();
    let path = file.path().join("small.pth");
    let saved = model.save(&device).unwrap();
    write_pth(&path, &Checkpoint { tensors: saved, ..Default::default() }).unwrap();
    let read: Vec<NamedTensor> = nn::checkpoint::read(&path).unwrap().tensors;
    let (other, elsewhere) = (small(2), cpu::CpuDevice::new(1));
    assert_ne!(logits(&other, &elsewhere, &mut Forward::eval()), expected);
    other.load(&read, &elsewhere).unwrap();
    assert_eq!(logits(&other, &elsewhere, &mut Forward::eval()), expected);

    // Its own running statistic is held to what its kind says.
    let mut broken = read.clone();
    broken[7] = NamedTensor::f32("evener.running_size", &[4], vec![1.0, -1.0, 1.0, 1.0]);
    let error = other.load(&broken, &elsewhere).unwrap_err().to_string();
    assert!(error.contains("evener.running_size") && error.contains("negative"), "{error}");
    // What never varied has a variance of 0.
    broken[7] = NamedTensor::f32("evener.running_size", &[4], vec![1.0, 0.0, 1.0, 1.0]);
    other.load(&broken, &elsewhere).unwrap();
}

#[test]
fn mistakes_are_told() {
    let message = |model: &Model, shape: &[usize]| {
        let output = model.forward(&Tensor::input("images", shape), &mut Forward::eval());
        output.logits.check().unwrap_err().to_string()
    };
    let error = message(&small(1), &[8, 6, 6, 3]);
    assert!(error.contains("takes images [N, H, W, 1]"), "{error}");

    let initializer = || Initializer::new(Initialization::PYTORCH, 1);
    let twice = Model::new("twice", 2, initializer(), |b| Small {
        stem: b.conv_norm("stem", "bn", ConvSpec::new(1, 4, 3)),
        evener: Evener::new(b, "bn", 8),
        fc: b.linear("fc", 4, 2),
    });
    let error = message(&twice, &IMAGES);
    assert!(error.contains("twice") && error.contains("`bn.weight`"), "{error}");

    let narrow = Model::new("narrow", 3, initializer(), |b| Small {
        stem: b.conv_norm("stem", "bn", ConvSpec::new(1, 4, 3)),
        evener: Evener::new(b, "evener", 4),
        fc: b.linear("fc", 4, 2),
    });
    let error = message(&narrow, &IMAGES);
    assert!(error.contains("the logits of narrow are to be [8, 3]"), "{error}");
}
