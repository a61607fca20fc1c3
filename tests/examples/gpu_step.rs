//! A training step of a network on the GPU device: checked against the native device, timed, and
//! profiled by kernel: `cargo run --release -p sld-tests --example gpu_step -- [MODEL] [BATCH] [profile]`.

use std::collections::BTreeMap;
use std::time::Instant;

use autograd::{Tensor, VariableStore, grad};
use nn::{Forward, Sgd, loss, models};
use schedule::{Device, Step, Value};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().map_or("resnet20", String::as_str);
    let batch: usize = arguments.get(1).map_or(Ok(64), |b| b.parse())?;
    let student = models::build(name, 100, 1)?;
    let images = Tensor::input("images", &[batch, 32, 32, 3]);
    let labels = Tensor::input_i32("labels", &[batch]);
    let lr = Tensor::input("lr", &[]);
    let mut forward = Forward::train(1);
    let logits = student.forward(&images, &mut forward).logits;
    let loss = loss::cross_entropy(&logits, &labels);
    let sgd = Sgd::new(&student.parameters(), Default::default());
    let gradients = grad(&loss, &sgd.tensors());
    let step = Step::new()
        .output("loss", &loss)
        .updates(sgd.updates(&gradients, &lr))
        .updates(forward.into_updates());

    let pixels: Vec<f32> =
        (0..batch * 32 * 32 * 3).map(|i| autograd::random::uniform(1, 2, 3, i as u32) * 4.0 - 2.0).collect();
    let targets: Vec<i32> = (0..batch as i32).map(|i| i * 37 % 100).collect();
    let inputs =
        [("images", Value::F32(&pixels)), ("labels", Value::I32(&targets)), ("lr", Value::F32(&[0.05]))];

    let gpu = gpu::GpuDevice::open(None, gpu::Options { checked: false, ..Default::default() })?;
    println!("{}", gpu.name());
    let start = Instant::now();
    let mut run = gpu.compile_step(&step)?;
    println!(
        "compiled {} kernels in {:.2} s, {} MiB",
        run.schedule().kernels.len(),
        start.elapsed().as_secs_f64(),
        run.bytes() >> 20
    );
    let start = Instant::now();
    run.call(&inputs)?;
    println!("first call: loss {:?}, {:.2} s", run.output("loss")?, start.elapsed().as_secs_f64());
    if arguments.iter().any(|a| a == "check") {
        let cpu = cpu::CpuDevice::new(0);
        let mut reference = cpu.compile_step(&step)?;
        reference.call(&inputs)?;
        println!("native:     loss {:?}", reference.output("loss")?);
        let mut differences = Vec::new();
        for entry in student.state() {
            let (a, b) = (gpu.read(&entry.variable)?, cpu.read(&entry.variable)?);
            let norm = b.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-6);
            let difference = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
            differences.push((difference / norm, norm, entry.variable.name().to_string()));
        }
        differences.sort_by(|a, b| b.0.total_cmp(&a.0));
        println!("largest differences in the new state, relative to its norm:");
        for (difference, norm, name) in differences.iter().take(5) {
            println!("  {difference:.2e} of {norm:.2e}: {name}");
        }
    }
    for _ in 0..2 {
        let (start, cpu) = (Instant::now(), processor_seconds());
        run.call(&inputs)?;
        gpu.wait()?;
        println!(
            "step: {:.1} ms, {:.1} ms of processor time",
            start.elapsed().as_secs_f64() * 1e3,
            (processor_seconds() - cpu) * 1e3
        );
    }
    if arguments.iter().any(|a| a == "profile") {
        let mut by_label: BTreeMap<String, (usize, f64)> = BTreeMap::new();
        let profile = run.profile()?;
        for (label, seconds) in &profile {
            let entry = by_label.entry(label.clone()).or_default();
            entry.0 += 1;
            entry.1 += seconds;
        }
        let mut rows: Vec<_> = by_label.into_iter().collect();
        rows.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
        println!("{} dispatches, {:.1} ms", profile.len(), profile.iter().map(|p| p.1).sum::<f64>() * 1e3);
        for (label, (count, seconds)) in rows.iter().take(40) {
            println!("{:9.2} ms {count:4} x {label}", seconds * 1e3);
        }
    }
    Ok(())
}

/// Processor time of all threads of this process so far; 0 where the system does not tell.
fn processor_seconds() -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0.0 };
    let nanoseconds = tasks.flatten().filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() * 1e-9
}
