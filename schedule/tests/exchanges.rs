//! Sums over processes in a schedule: where they begin, and what may happen meanwhile.

use autograd::tensor::Transfer;
use autograd::{Conv2d, Tensor, Variable, grad};
use schedule::{Body, Kernel, Schedule, Step};

/// Three convolutions, and the sums of their gradients: of each alone, the last first.
fn step() -> Schedule {
    let weights: Vec<Variable> =
        (0..3).map(|i| Variable::full(format!("w{i}"), &[4, 4, 3, 3], 0.1)).collect();
    let x = Tensor::input("x", &[2, 8, 8, 4]);
    let y = weights.iter().fold(x, |x, weight| x.conv2d(&weight.tensor(), Conv2d::new(1, 1)).relu());
    let gradients = grad(&y.sum_all(), &weights.iter().map(Variable::tensor).collect::<Vec<_>>());
    let updates = weights.iter().zip(gradients).rev().map(|(weight, gradient)| {
        let sum = gradient.reshape(&[gradient.len()]).all_reduce(Transfer::F32).reshape(weight.shape());
        (weight.clone(), weight.tensor() - sum)
    });
    Step::new().updates(updates).schedule().expect("a schedule")
}

/// The sum of the last layer's gradient begins before the first layer's is computed, and the first of the sums is
/// needed only behind everything that computes gradients.
#[test]
fn sums_begin_when_their_values_are_made_and_end_when_they_are_needed() {
    let schedule = step();
    let exchanges = schedule.exchanges();
    assert_eq!(exchanges.len(), 3);
    let is_heavy = |kernel: &Kernel| matches!(kernel.body, Body::Convolution { .. });
    let last = schedule.kernels.iter().rposition(is_heavy).expect("convolutions");
    assert!(exchanges[0].kernel < exchanges[1].kernel && exchanges[1].kernel < last);
    for exchange in &exchanges {
        assert!(exchange.needed > last, "{exchange:?}, the last convolution is {last}");
        // Its memory is nobody else's until then.
        let memories = schedule.memories();
        for kernel in &schedule.kernels[exchange.kernel + 1..exchange.needed] {
            assert!(kernel.buffers().iter().all(|&b| memories[b] != memories[exchange.output]));
        }
    }
    // They were written behind all of the backward pass.
    let between =
        schedule.kernels[exchanges[0].kernel..exchanges[2].kernel].iter().filter(|k| is_heavy(k)).count();
    assert!(between >= 2, "convolutions between the first sum and the last: {between}");
}

/// A sum may be of a sum, be asked for, and become a variable's value.
#[test]
fn a_sum_of_sums_is_two() {
    let v = Variable::full("v", &[3], 1.0);
    let sum = Tensor::input("x", &[3]).all_reduce(Transfer::F32);
    let again = sum.all_reduce(Transfer::Bf16);
    let schedule = Step::new().output("sum", &sum).update(&v, &again).schedule().expect("a schedule");
    let [first, second] = schedule.exchanges()[..] else { panic!("{:?}", schedule.exchanges()) };
    assert_eq!((first.needed, first.transfer), (second.kernel, Transfer::F32));
    assert_eq!((second.input, second.transfer), (first.output, Transfer::Bf16));
    assert!(schedule.variable(second.output).is_some(), "straight into the variable");
}
