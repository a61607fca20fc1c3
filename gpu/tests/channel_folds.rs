//! Folds over a convolution's pixels, made where its tiles are.

mod common;

use autograd::tensor::Conv2d;
use autograd::{Tensor, grad};
use common::{devices, inputs, run};
use reference::evaluate;
use schedule::{Body, Device, Schedule, Step};

/// A convolution of two views of images, normalised with the statistics of each, and the gradients of both.
fn step(size: usize, [channels, features]: [usize; 2]) -> Step {
    let x = Tensor::input("x", &[4, size, size, channels]);
    let w = Tensor::input("w", &[features, channels, 3, 3]);
    let v = Tensor::input("v", &[features, features, 3, 3]);
    let [gamma, beta] = ["gamma", "beta"].map(|name| Tensor::input(name, &[features]));
    let norm = x.conv2d(&w, Conv2d::new(1, 1)).batch_norm(&gamma, &beta, 1e-5, 2);
    let y = norm.output.relu().conv2d(&v, Conv2d::new(1, 1));
    let loss = (&y * Tensor::input("dy", y.shape())).sum_all();
    let gradients = grad(&loss, &[x, gamma, beta]);
    let step = Step::new().output("mean", &norm.mean).output("variance", &norm.variance).output("y", &y);
    ["dx", "dgamma", "dbeta"].iter().zip(&gradients).fold(step, |step, (name, g)| step.output(*name, g))
}

fn folded(schedule: &Schedule) -> usize {
    let is_folded =
        |body: &Body| matches!(body, Body::Convolution { epilogue, .. } if epilogue.fold.is_some());
    schedule.kernels.iter().filter(|kernel| is_folded(&kernel.body)).count()
}

/// Nothing but the fold is asked for, so that the convolution stores nothing.
#[test]
fn a_fold_needs_no_convolution_in_memory() {
    let Some(devices) = devices() else { return };
    let x = Tensor::input("x", &[2, 8, 8, 8]);
    let y = x.conv2d(&Tensor::input("w", &[12, 8, 3, 3]), Conv2d::new(1, 1));
    let step = Step::new().output("sums", &y.sum(&[0, 1, 2])).output("spread", &y.variance(&[0, 1, 2]));
    for (name, device) in &devices.0 {
        let schedule = step.schedule_with(device.options()).unwrap();
        let expected = evaluate(&schedule, &inputs(&schedule, 1));
        let tolerance = if device.precision() == gpu::Precision::Mixed { 3e-3 } else { 2e-6 };
        for ((output, found), expected) in run(device, &schedule, &inputs(&schedule, 1)).iter().zip(&expected)
        {
            let off = off(found, expected);
            assert!(off < tolerance, "{name}: `{output}` is off by {off}");
        }
    }
}

/// The largest difference over the largest value.
fn off(found: &[f32], expected: &[f32]) -> f32 {
    let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let off = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs());
    off.fold(0.0, f32::max) / largest
}

/// Views that end within a tile and ones that do not, columns that fill one and ones that do not, and sums over k so long
/// that they are cut.
#[test]
fn statistics_are_those_of_the_convolution() {
    let Some(devices) = devices() else { return };
    for (size, channels) in [(7, [12, 20]), (8, [16, 16]), (5, [96, 36])] {
        for (name, device) in &devices.0 {
            let schedule = step(size, channels).schedule_with(device.options()).unwrap();
            let expected = evaluate(&schedule, &inputs(&schedule, 7));
            let has_room = device.target().limits.workgroup_bytes >= 32 << 10;
            assert_eq!(folded(&schedule), if has_room { 2 } else { 0 }, "{name}: {}", schedule.table());
            let tolerance = if device.precision() == gpu::Precision::Mixed { 3e-3 } else { 2e-6 };
            for ((output, found), expected) in
                run(device, &schedule, &inputs(&schedule, 7)).iter().zip(&expected)
            {
                let off = off(found, expected);
                println!("{name}, {size}, {channels:?}, `{output}`: {off:.1e}");
                assert!(off < tolerance, "{name}, {channels:?}: `{output}` is off by {off}");
            }
        }
    }
}
