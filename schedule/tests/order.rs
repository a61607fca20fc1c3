//! Kernels find what they read.

use autograd::{Conv2d, Tensor, Variable, grad};
use schedule::{Body, ChannelFolds, Instr, Kernel, Options, Schedule, Step};

/// The gradient of a batch norm's scale sums over the convolution's result and its mean. Where the
/// gradient above is known beforehand, nothing but the mean keeps that sum from joining the convolution.
#[test]
fn a_sum_that_needs_the_mean_waits_for_it() {
    let x = Tensor::input("x", &[2, 4, 4, 3]);
    let weight = Variable::full("weight", &[8, 3, 3, 3], 0.1);
    let [gamma, beta] = ["gamma", "beta"].map(|name| Variable::full(name, &[8], 0.5).tensor());
    let y = x.conv2d(&weight.tensor(), Conv2d::new(1, 1)).batch_norm(&gamma, &beta, 1e-5, 1).output;
    let loss = (&y * Tensor::input("upstream", y.shape())).sum_all();
    let gradient = grad(&loss, &[gamma]).remove(0);
    let schedule = Step::new().output("gradient", &gradient).schedule().expect("schedules");
    for kernel in &schedule.kernels {
        let (reads, writes) = (kernel.reads(), kernel.writes());
        let is_map = matches!(kernel.body, Body::Map { .. });
        assert!(is_map || reads.iter().all(|b| !writes.contains(b)), "{}", schedule.table());
    }
}

/// Statistics join the convolution only where the device can make them there.
#[test]
fn a_device_that_cannot_fold_in_convolutions_need_not() {
    let x = Tensor::input("x", &[2, 4, 4, 3]);
    let weight = Variable::full("weight", &[8, 3, 3, 3], 0.1);
    let [gamma, beta] = ["gamma", "beta"].map(|name| Variable::full(name, &[8], 0.5).tensor());
    let norm = x.conv2d(&weight.tensor(), Conv2d::new(1, 1)).batch_norm(&gamma, &beta, 1e-5, 1);
    let step = Step::new().output("y", &norm.output);
    let joined = |schedule: &Schedule| {
        let has = |kernel: &&Kernel| match &kernel.body {
            Body::Convolution { epilogue, .. } => epilogue.fold.is_some(),
            _ => false,
        };
        schedule.kernels.iter().filter(has).count()
    };
    assert_eq!(joined(&step.schedule().expect("schedules")), 1);
    let options = Options { channel_folds: ChannelFolds::None, ..Options::default() };
    assert_eq!(joined(&step.schedule_with(options).expect("schedules")), 0);
}

/// What does not depend on the pixel is computed once a channel.
#[test]
fn a_batch_norm_is_a_product_and_a_sum_an_element() {
    let x = Tensor::input("x", &[2, 32, 32, 16]);
    let [gamma, beta] = ["gamma", "beta"].map(|name| Variable::full(name, &[16], 0.5).tensor());
    let norm = x.batch_norm(&gamma, &beta, 1e-5, 2);
    let schedule = Step::new().output("y", &norm.output).schedule().expect("schedules");
    let is_binary = |instr: &&Instr| matches!(instr, Instr::Binary(..));
    let arithmetic = |kernel: &Kernel| match &kernel.body {
        Body::Map { parts } => parts.iter().flat_map(|part| &part.program.instrs).filter(is_binary).count(),
        _ => 0,
    };
    assert_eq!(schedule.kernels.last().map(arithmetic), Some(2), "{}", schedule.table());
}
