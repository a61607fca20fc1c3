//! The same seed on the same device gives the same bits, step after step.

use autograd::{Tensor, Variable, Window, grad};
use nn::initialization::{Biases, Initialization, Initializer, Weights};
use nn::layers::{Builder, ConvNorm, ConvSpec, Forward, Linear, StateEntry};
use nn::{Sgd, SgdOptions, loss};
use schedule::{Device, Executable, Step, Value};
use sld_tests::{adapter, formula};

const STEPS: usize = 20;
const BATCH: usize = 16;
const CLASSES: usize = 10;
const RULES: Initialization = Initialization {
    convolution: Weights::NormalFanOut,
    convolution_bias: Biases::Zero,
    linear: Weights::UniformFanIn,
    linear_bias: Biases::Zero,
};

/// A small network with one of each: 3x3, strided, depthwise and 1x1 convolutions, batch norm, max
/// pooling, dropout.
struct Net {
    stem: ConvNorm,
    strided: ConvNorm,
    depthwise: ConvNorm,
    pointwise: ConvNorm,
    fc: Linear,
}

impl Net {
    fn new(seed: u64) -> (Net, Vec<StateEntry>) {
        Builder::build(Initializer::new(RULES, seed), |b| Net {
            stem: b.conv_norm("stem", "bn0", ConvSpec::new(3, 16, 3)),
            strided: b.conv_norm("strided", "bn1", ConvSpec::new(16, 32, 3).stride(2)),
            depthwise: b.conv_norm("depthwise", "bn2", ConvSpec::depthwise(32)),
            pointwise: b.conv_norm("pointwise", "bn3", ConvSpec::new(32, 48, 1)),
            fc: b.linear("fc", 48, CLASSES),
        })
    }

    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Tensor {
        let x = self.stem.forward(images, forward).relu();
        let x = self.strided.forward(&x, forward).relu().max_pool(Window::new(2, 2, 0));
        let x = self.depthwise.forward(&x, forward).relu();
        let x = self.pointwise.forward(&x, forward).relu().global_average_pool();
        let x = forward.dropout(&x, 0.25);
        self.fc.forward(&x)
    }
}

/// The bits of every loss and of all state after [`STEPS`] steps from the seed.
fn train(device: &dyn Device, seed: u64) -> (Vec<u32>, Vec<(String, Vec<u32>)>) {
    let (net, state) = Net::new(seed);
    let parameters: Vec<Variable> =
        state.iter().filter(|e| e.kind == nn::layers::Kind::Parameter).map(|e| e.variable.clone()).collect();
    let sgd = Sgd::new(&parameters, SgdOptions::default());
    let labels = Tensor::input_i32("labels", &[BATCH]);
    let (key, step) = (Tensor::input_i32("seed", &[]), Tensor::input_i32("step", &[]));
    let mut forward = Forward::train(1).with_randomness(&key, &step);
    let logits = net.forward(&Tensor::input("images", &[BATCH, 16, 16, 3]), &mut forward);
    let loss = loss::cross_entropy(&logits, &labels);
    let gradients = grad(&loss, &sgd.tensors());
    let program = Step::new()
        .output("loss", &loss)
        .updates(sgd.updates(&gradients, &Tensor::input("rate", &[])))
        .updates(forward.into_updates());
    let mut executable: Box<dyn Executable> = device.compile_step(&program).unwrap();
    let mut losses = Vec::new();
    for step in 0..STEPS {
        let images = formula::values(&format!("determinism/{step}"), BATCH * 16 * 16 * 3, 0.0, 1.0);
        let labels: Vec<i32> = (0..BATCH).map(|i| ((i * 7 + step) % CLASSES) as i32).collect();
        executable
            .call(&[
                ("images", Value::F32(&images)),
                ("labels", Value::I32(&labels)),
                ("seed", Value::I32(&[seed as i32])),
                ("step", Value::I32(&[step as i32])),
                ("rate", Value::F32(&[0.05])),
            ])
            .unwrap();
        losses.push(executable.output("loss").unwrap()[0].to_bits());
    }
    let bits = |variable: &Variable| {
        let values = device.read(variable).unwrap();
        (variable.name().to_string(), values.into_iter().map(f32::to_bits).collect())
    };
    let kept = state.iter().map(|entry| entry.variable.clone()).chain(sgd.momenta());
    (losses, kept.map(|variable| bits(&variable)).collect())
}

fn assert_equal_bits(
    what: &str,
    first: &(Vec<u32>, Vec<(String, Vec<u32>)>),
    second: &(Vec<u32>, Vec<(String, Vec<u32>)>),
) {
    assert_eq!(first.0, second.0, "{what}: losses");
    for ((name, first), (_, second)) in first.1.iter().zip(&second.1) {
        let differing = first.iter().zip(second).filter(|(a, b)| a != b).count();
        assert_eq!(differing, 0, "{what}: {differing} of {} values of {name} differ", first.len());
    }
}

/// Two runs from one seed agree in every bit; one from another seed does not.
fn check_device(device: &dyn Device) -> (Vec<u32>, Vec<(String, Vec<u32>)>) {
    let first = train(device, 1);
    assert_equal_bits(&device.name(), &first, &train(device, 1));
    assert_ne!(first.0, train(device, 2).0, "{}", device.name());
    let losses: Vec<f32> = first.0.iter().map(|&bits| f32::from_bits(bits)).collect();
    assert!(losses.iter().all(|l| l.is_finite()), "{losses:?}");
    first
}

/// The same bits as well with another number of threads: work is cut by shape alone.
#[test]
fn twenty_steps_on_the_cpu_are_bit_identical() {
    let two = check_device(&cpu::CpuDevice::new(2));
    for threads in [1, 3] {
        let other = train(&cpu::CpuDevice::new(threads), 1);
        assert_equal_bits(&format!("2 threads and {threads}"), &two, &other);
    }
}

#[test]
fn twenty_steps_on_the_gpu_are_bit_identical() {
    let Some(shared) = adapter::shared() else { return };
    check_device(&shared.device);
}
