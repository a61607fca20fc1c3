//! All launches of a schedule: operands packed before the kernels that read them.

use std::collections::BTreeMap;

use autograd::tensor::Conv2d;
use autograd::{Tensor, Variable, grad};
use schedule::Step;
use shaders::{Launch, Limits, Operands, Sequence, Storage, Target, assemble, precompute};

/// An adapter that binds so many buffers.
fn target(storage_buffers: u32) -> Target {
    Target { limits: Limits { storage_buffers, ..Limits::WEBGPU }, ..Target::WEBGPU }
}

/// The launches of a step.
fn sequence(step: &Step, target: &Target) -> Sequence {
    let schedule = step.schedule_with(target.schedule_options()).unwrap();
    let made = precompute(schedule, target);
    let (run, context) = (&made.schedule, made.context(target));
    let assembled = run.all_kernels().map(|kernel| assemble(context, kernel).unwrap()).collect();
    Sequence::new(context, run, assembled).unwrap()
}

/// Ten convolutions one after the other, which are trained or not.
fn convolutions(trained: bool) -> Step {
    let weights: Vec<Variable> =
        (0..10).map(|i| Variable::full(format!("w{i}"), &[4, 4, 3, 3], 0.1)).collect();
    let x = Tensor::input("x", &[2, 6, 6, 4]);
    let states: Vec<Tensor> = weights.iter().map(Variable::tensor).collect();
    let y = states.iter().fold(x, |x, w| x.conv2d(w, Conv2d::new(1, 1)).relu());
    let loss = y.sum_all();
    let step = Step::new().output("loss", &loss);
    if !trained {
        return step;
    }
    let gradients = grad(&loss, &states);
    let new = states.iter().zip(&gradients).map(|(w, gradient)| w - &(gradient * 0.1));
    step.updates(weights.into_iter().zip(new))
}

fn packing(launches: &[Launch]) -> Vec<&str> {
    launches.iter().map(|launch| &launch.label[..]).filter(|label| label.contains("packing")).collect()
}

/// Ten forward passes and nine input gradients read ten weights.
#[test]
fn trained_weights_are_packed_in_as_few_launches_as_bindings_allow() {
    let trained = convolutions(true);
    let one = sequence(&trained, &target(11));
    assert_eq!(packing(&one.call), ["packing for 19 products"]);
    assert_eq!(one.call[0].label, "packing for 19 products");
    assert_eq!((one.starts[0], one.packed.len(), packing(&one.prepare).len()), (1, 1, 0));
    let two = sequence(&trained, &target(10));
    assert_eq!((packing(&two.call).len(), two.packed.len(), two.starts[0]), (2, 2, 2));
}

#[test]
fn frozen_weights_are_packed_once() {
    let frozen = sequence(&convolutions(false), &target(64));
    assert_eq!((packing(&frozen.prepare), packing(&frozen.call)), (vec!["packing for 10 products"], vec![]));
}

/// What an earlier kernel of the call makes cannot be packed before it.
#[test]
fn products_of_what_a_call_makes_are_packed_in_place() {
    let [a, b, c] = ["a", "b", "c"].map(|name| Tensor::input(name, &[1, 20, 20]));
    let step = Step::new().output("product", &a.matmul(&b.matmul(&c)));
    let sequence = sequence(&step, &target(8));
    let labels: Vec<bool> = sequence.call.iter().map(|launch| launch.label.contains("packing")).collect();
    assert_eq!(labels, [true, false, true, false]);
    assert_eq!((sequence.starts, sequence.packed.len()), (vec![1, 2], 1));
}

#[test]
fn packed_operands_lie_apart() {
    // In 16 bits an operand of these takes four and a half times the alignment.
    let halves = Target { operands: Operands::F16, ..target(64) };
    let sequence = sequence(&convolutions(true), &halves);
    let packed = sequence.call.iter().skip(1).flat_map(|launch| &launch.bindings);
    let packed = packed.filter(|bound| bound.storage == Storage::Packed(0));
    let places: BTreeMap<u64, u64> = packed.map(|bound| (bound.offset, bound.bytes())).collect();
    assert_eq!(places.len(), 19);
    let ends = places.iter().map(|(offset, bytes)| offset + bytes);
    assert!(ends.clone().zip(places.keys().skip(1)).all(|(end, next)| end <= *next && next % 256 == 0));
    assert_eq!(ends.last(), Some(sequence.packed[0]));
}
