//! Elementwise and reducing kernels against a plain copy of the same tensor: gigabytes a second over
//! what each must at least read and write, and microseconds a kernel for small ones.

use std::time::Instant;

use autograd::{Result, Tensor};
use cpu::CpuDevice;
use schedule::{Device, Role, Step, Value};

/// Values of an input of this name and size.
fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i % 97) as f32 * 0.01 - 0.5).collect()
}

/// Seconds of a step's kernels, each the fastest of many calls, and their number. The copying of
/// inputs is not counted.
fn seconds(device: &CpuDevice, y: &Tensor) -> Result<(f64, usize)> {
    let mut run = device.compile(Step::new().output("y", y).schedule()?)?;
    let inputs: Vec<(String, Vec<f32>)> = run
        .schedule()
        .buffers
        .iter()
        .filter_map(|buffer| match &buffer.role {
            Role::Input { name, .. } => Some((name.clone(), values(buffer.len()))),
            _ => None,
        })
        .collect();
    let given: Vec<(&str, Value)> = inputs.iter().map(|(n, v)| (&n[..], Value::F32(v))).collect();
    run.call(&given)?;
    let start = Instant::now();
    let mut best = vec![f64::INFINITY; run.schedule().kernels.len()];
    let mut calls = 0;
    while calls < 5 || (start.elapsed().as_secs_f64() < 0.5 && calls < 2000) {
        for (best, (_, seconds)) in best.iter_mut().zip(run.profile()?) {
            *best = best.min(seconds);
        }
        calls += 1;
    }
    Ok((best.iter().sum(), best.len()))
}

/// Prints a step over `elements` elements that must read or write `tensors` tensors of that size.
fn report(device: &CpuDevice, name: &str, elements: usize, tensors: f64, y: Tensor) -> Result<()> {
    if std::env::args().nth(1).is_some_and(|wanted| !wanted.starts_with("--") && !name.contains(&wanted)) {
        return Ok(());
    }
    let (seconds, kernels) = seconds(device, &y)?;
    let rate = elements as f64 * 4.0 * tensors / seconds / 1e9;
    println!("{name:<34} {:>9.1} us {rate:>7.1} GB/s  {kernels} kernels", seconds * 1e6);
    Ok(())
}

fn main() -> Result<()> {
    for threads in [1, 2] {
        let device = CpuDevice::new(threads);
        println!("{}", device.name());
        large(&device)?;
        small(&device)?;
    }
    Ok(())
}

fn large(device: &CpuDevice) -> Result<()> {
    let shape = [64, 32, 32, 64];
    let len = shape.iter().product();
    let x = Tensor::input("x", &shape);
    let r = Tensor::input("r", &shape);
    let c: Vec<Tensor> = (0..4).map(|i| Tensor::input(format!("c{i}"), &[64])).collect();
    report(device, "copy (x + c)", len, 2.0, &x + 1.5)?;
    report(device, "scale + shift + relu", len, 2.0, (&x * &c[0] + &c[1]).relu())?;
    let normal = (&x - &c[0]) * (&c[1] + 2.0).sqrt().reciprocal() * &c[2] + &c[3];
    report(device, "batch norm + relu", len, 2.0, normal.relu())?;
    report(device, "batch norm + residual + relu", len, 3.0, (&normal + &r).relu())?;
    let zero = x.zeros_like();
    let masked = zero.less(&r).select(&x, &zero);
    let backward = (&masked - &c[0] - (&r - &c[1]) * &c[2]) * &c[3];
    report(device, "batch norm backward", len, 3.0, backward)?;
    report(device, "exp", len, 2.0, x.exp())?;
    report(device, "tanh", len, 2.0, x.tanh())?;
    report(device, "channel sums", len, 1.0, x.sum(&[0, 1, 2]))?;
    report(device, "channel sums of a product", len, 2.0, (&x * &r).sum(&[0, 1, 2]))?;
    report(device, "channel variance", len, 1.0, x.variance(&[0, 1, 2]))?;
    report(device, "sum of everything", len, 1.0, x.sum_all())?;
    report(device, "row maxima", len, 1.0, x.max(3))?;
    let narrow = Tensor::input("narrow", &[64, 32, 32, 16]);
    report(device, "channel variance, 16 channels", narrow.len(), 1.0, narrow.variance(&[0, 1, 2]))?;
    let images = Tensor::input("images", &[128, 3, 32, 32]);
    report(device, "NCHW to NHWC, 3 channels", images.len(), 2.0, images.permute(&[0, 2, 3, 1]))?;
    let planes = Tensor::input("planes", &[64, 64, 32, 32]);
    report(device, "NCHW to NHWC, 64 channels", len, 2.0, planes.permute(&[0, 2, 3, 1]))?;
    let rows = Tensor::input("rows", &[65536, 100]);
    report(device, "rows of 100: log softmax", rows.len(), 2.0, rows.log_softmax(1))
}

/// Many tiny kernels, each needing the one before.
fn small(device: &CpuDevice) -> Result<()> {
    let per_kernel = |name: &str, y: Tensor| -> Result<()> {
        let (seconds, kernels) = seconds(device, &y)?;
        println!("{name:<34} {:>9.2} us a kernel  {kernels} kernels", seconds * 1e6 / kernels as f64);
        Ok(())
    };
    let mut x = Tensor::input("x", &[64, 100]);
    for _ in 0..50 {
        x = x.softmax(1);
    }
    per_kernel("50 softmaxes of [64, 100]", x)?;
    let mut x = Tensor::input("x", &[64]);
    for _ in 0..100 {
        x = (&x * 0.5 + 0.1).sum_all().reshape(&[1]).broadcast_to(&[64]) * 0.01;
    }
    per_kernel("100 sums of 64", x)
}
