//! The ways to compute a product.

use std::collections::BTreeSet;

use autograd::tensor::Conv2d;
use autograd::{Tensor, grad};
use schedule::Step;
use shaders::{Context, Limits, Operands, Target, assemble, candidates, precompute};

/// A convolution of so many channels with both gradients, and a matrix product.
fn step(channels: usize) -> Step {
    let x = Tensor::input("x", &[8, 8, 8, channels]);
    let w = Tensor::input("w", &[channels, channels, 3, 3]);
    let y = x.conv2d(&w, Conv2d::new(1, 1));
    let loss = (&y * &Tensor::input("dy", y.shape())).sum_all();
    let gradients = grad(&loss, &[x, w]);
    let [a, b] = ["a", "b"].map(|name| Tensor::input(name, &[1, channels, 100]));
    let product = a.matmul(&b.permute(&[0, 2, 1]));
    Step::new()
        .output("y", &y)
        .output("sums", &y.sum(&[0, 1, 2]))
        .output("variances", &y.variance(&[0, 1, 2]))
        .output("dx", &gradients[0])
        .output("dw", &gradients[1])
        .output("product", &product)
}

/// Bytes of workgroup memory that a module declares.
fn workgroup_bytes(source: &str) -> usize {
    let arrays = source.lines().filter_map(|line| line.strip_prefix("var<workgroup> "));
    arrays
        .map(|array| {
            let inside = array.split_once("array<").unwrap().1.strip_suffix(">;").unwrap();
            let (element, count) = inside.rsplit_once(", ").unwrap();
            let bytes = match element {
                "f16" => 2,
                "f32" => 4,
                "vec4<f16>" => 8,
                "vec4<f32>" => 16,
                other => panic!("{other}"),
            };
            bytes * count.parse::<usize>().unwrap()
        })
        .sum()
}

/// What a card with so much workgroup memory would be given.
fn target(operands: Operands, workgroup_bytes: u32) -> Target {
    let limits = Limits { workgroup_bytes, ..Limits::WEBGPU };
    Target { lanes: 32, operands, limits }
}

/// Checks the ways of all kernels, and gives the kernels that can be loaded ahead.
fn check(target: &Target, channels: usize) -> BTreeSet<String> {
    let made = precompute(step(channels).schedule_with(target.schedule_options()).unwrap(), target);
    let context = made.context(target);
    let mut ahead = BTreeSet::new();
    for kernel in made.schedule.all_kernels() {
        for (number, choice) in candidates(context, kernel).into_iter().enumerate() {
            let what = format!("{target:?}, {channels} channels, `{}`, {choice}", kernel.label);
            let launches = assemble(Context { choice: Some(choice), ..context }, kernel).unwrap().launches;
            let bytes = launches.iter().map(|launch| workgroup_bytes(&launch.source)).max().unwrap();
            assert!(bytes <= target.limits.workgroup_bytes as usize, "{what}: {bytes} bytes");
            if choice.to_string().contains("loaded ahead") {
                assert!(number > 0, "{what}: without measuring");
                ahead.insert(kernel.label.clone());
            }
        }
    }
    ahead
}

#[test]
fn every_way_fits_the_workgroup_memory() {
    for operands in [Operands::F32, Operands::F16, Operands::Matrix, Operands::Split] {
        for channels in [12, 16, 32, 64, 100] {
            if operands != Operands::Split {
                check(&target(operands, 16 << 10), channels);
            }
            for kilobytes in [32, 48] {
                let ahead = check(&target(operands, kilobytes << 10), channels);
                assert_eq!(ahead.len(), 4, "{operands:?}, {channels} channels: {ahead:?}");
            }
        }
    }
}
