//! Times a plain training step of resnet20 in burn, on its CPU backend `flex`, and prints the
//! median. With `--json`, the last line is the result in the form that `../versus_torch` reads.

mod resnet;

use std::time::Instant;

use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig, decay::WeightDecayConfig};
use burn::prelude::*;
use burn::tensor::{Distribution, Int};
use resnet::ResNet;

const CLASSES: usize = 100;
const LEARNING_RATE: f64 = 0.025;
const USAGE: &str = "usage: versus-burn [--batch 64] [--threads 2] [--iterations 10] [--json]";

struct Arguments {
    batch: usize,
    threads: usize,
    iterations: usize,
    json: bool,
}

impl Arguments {
    fn parse() -> Result<Self, String> {
        let mut parsed = Self { batch: 64, threads: 2, iterations: 10, json: false };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            if word == "--json" {
                parsed.json = true;
                continue;
            }
            let number = words.next().and_then(|value| value.parse().ok());
            let number = number.filter(|&value: &usize| value > 0);
            let number = number.ok_or_else(|| format!("{word} needs a number above 0\n{USAGE}"))?;
            match word.as_str() {
                "--batch" => parsed.batch = number,
                "--threads" => parsed.threads = number,
                "--iterations" => parsed.iterations = number,
                _ => return Err(format!("unknown argument {word}\n{USAGE}")),
            }
        }
        Ok(parsed)
    }
}

/// One step: forward, mean cross entropy, gradients, update. Returns the updated model.
fn step(
    model: ResNet,
    optimizer: &mut ModuleOptimizer,
    images: &Tensor<4>,
    labels: &Tensor<1, Int>,
    device: &Device,
) -> (ResNet, f32) {
    let logits = model.forward(images.clone());
    let loss = burn::nn::loss::CrossEntropyLossConfig::new().init(device).forward(logits, labels.clone());
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    let model = optimizer.step(LEARNING_RATE, model, gradients);
    (model, loss.into_scalar())
}

fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(arguments.threads)
        .build_global()
        .map_err(|error| format!("cannot start {} threads: {error}", arguments.threads))?;
    let device = Device::flex().autodiff();
    device.seed(0);
    let mut model = ResNet::new(3, CLASSES, &device);
    let mut optimizer = SgdConfig::new()
        .with_momentum(Some(MomentumConfig::new().with_dampening(0.0)))
        .with_weight_decay(Some(WeightDecayConfig::new(5e-4)))
        .init();
    let images = Tensor::random([arguments.batch, 3, 32, 32], Distribution::Normal(0.0, 1.0), &device);
    let labels: Vec<i32> = (0..arguments.batch).map(|i| (i * 37 % CLASSES) as i32).collect();
    let labels = Tensor::<1, Int>::from_ints(labels.as_slice(), &device);

    let warm_up = 2;
    let mut times = Vec::with_capacity(arguments.iterations);
    let mut losses = Vec::new();
    for iteration in 0..warm_up + arguments.iterations {
        let start = Instant::now();
        let (updated, loss) = step(model, &mut optimizer, &images, &labels, &device);
        let elapsed = start.elapsed().as_secs_f64() * 1e3;
        model = updated;
        losses.push(loss);
        if iteration >= warm_up {
            times.push(elapsed);
        }
    }
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    if !last.is_finite() || last >= first {
        return Err(format!("the loss went from {first} to {last} on one batch: this is not training"));
    }
    let least = times.iter().copied().fold(f64::INFINITY, f64::min);
    println!(
        "burn flex, resnet20, {} parameters, batch {}, {} threads: median {:.1} ms, minimum {least:.1} ms, \
         peak {:.0} MiB, loss {first:.3} -> {last:.3}",
        model.num_params(),
        arguments.batch,
        arguments.threads,
        median(&times),
        peak_bytes() as f64 / f64::from(1 << 20),
    );
    if arguments.json {
        let list: Vec<String> = times.iter().map(|time| format!("{time:.4}")).collect();
        println!(
            "{{\"times_ms\": [{}], \"peak_bytes\": {}, \"images\": {}}}",
            list.join(", "),
            peak_bytes(),
            arguments.batch
        );
    }
    Ok(())
}

fn main() {
    if let Err(message) = Arguments::parse().and_then(|arguments| run(&arguments)) {
        eprintln!("versus-burn: {message}");
        std::process::exit(1);
    }
}
