//! What is done with a fold's results is done where they are finished.

use autograd::{Tensor, Variable, grad};
use schedule::{Body, Options, Schedule, Step};

const VIEWS: usize = 2;

/// A batch norm of two views between tensors in memory, its gradients and its running mean.
fn batch_norm() -> Step {
    let x = Tensor::input("x", &[VIEWS * 4, 8, 8, 6]);
    let [gamma, beta] = ["gamma", "beta"].map(|name| Variable::full(name, &[6], 0.5));
    let norm = x.batch_norm(&gamma.tensor(), &beta.tensor(), 1e-5, VIEWS);
    let mean = Variable::full("mean", norm.mean.shape(), 0.0);
    let y = norm.output.relu();
    let loss = (&y * Tensor::input("dy", y.shape())).sum_all();
    let gradients = grad(&loss, &[x, gamma.tensor(), beta.tensor()]);
    let step = Step::new().output("y", &y).output("dx", &gradients[0]);
    let step = step
        .update(&gamma, &(gamma.tensor() - &gradients[1]))
        .update(&beta, &(beta.tensor() - &gradients[2]));
    step.update(&mean, &(mean.tensor() * 0.9 + norm.mean * 0.1))
}

fn folds_and_maps(schedule: &Schedule) -> [usize; 2] {
    let count =
        |is: &dyn Fn(&Body) -> bool| schedule.kernels.iter().filter(|kernel| is(&kernel.body)).count();
    [count(&|body| matches!(body, Body::Reduce { .. })), count(&|body| matches!(body, Body::Map { .. }))]
}

/// Two folds finish scale, shift and what the gradient needs of its sums; the two views' sums of a parameter are
/// added where it is updated. Left are the maps of the result, of both gradients and of the updates.
#[test]
fn a_batch_norm_is_two_folds_and_five_maps() {
    let schedule = batch_norm().schedule().unwrap();
    assert_eq!(folds_and_maps(&schedule), [2, 5], "{}", schedule.table());
}

/// Where a kernel can bind few buffers, scale and shift are a map again.
#[test]
fn a_fold_finishes_no_more_than_it_can_bind() {
    for group_buffers in 4..12 {
        let schedule = batch_norm()
            .schedule_with(Options { max_buffers: 4, group_buffers, ..Options::default() })
            .unwrap();
        let most = schedule.all_kernels().map(|kernel| kernel.buffers().len()).max();
        assert!(most <= Some(group_buffers), "{}", schedule.table());
    }
    let few = batch_norm()
        .schedule_with(Options { max_buffers: 4, group_buffers: 4, ..Options::default() })
        .unwrap();
    assert!(folds_and_maps(&few)[1] > 5, "{}", few.table());
}

/// A new value of a variable is not written before others have read the old one.
#[test]
fn variables_are_not_updated_where_a_fold_ends() {
    let v = Variable::full("v", &[5], 1.0);
    let x = Tensor::input("x", &[7, 5]);
    let total = x.sum(&[0]).reshape(&[5]);
    let old = (&x * &v.tensor()).exp();
    let schedule = Step::new().update(&v, &(v.tensor() + total)).output("old", &old).schedule().unwrap();
    let state = schedule.updated[0];
    let last = schedule.kernels.last().expect("three kernels");
    assert!(last.writes() == [state] && last.reads().contains(&state), "no copy: {}", schedule.table());
}

/// Neither a sum of three values nor one of many pairs is an addition.
#[test]
fn sums_of_two_values_are_additions() {
    let kernels = |shape: &[usize]| {
        let schedule = Step::new().output("sum", &Tensor::input("x", shape).sum(&[0])).schedule().unwrap();
        folds_and_maps(&schedule)
    };
    assert_eq!(kernels(&[2, 50]), [0, 1]);
    assert_eq!(kernels(&[3, 50]), [1, 0]);
    assert_eq!(kernels(&[2, 50_000]), [1, 0]);
}

#[test]
fn equal_constants_are_one_and_so_is_what_is_made_of_them() {
    let x = Tensor::input("x", &[3, 40]);
    let sums = |factors: [f32; 3]| (&x * Tensor::constant(&[3, 1], factors.to_vec())).exp().sum(&[1]);
    let [first, second, third] = [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, -0.0]].map(sums);
    let step = Step::new().output("a", &(first * second)).output("b", &third);
    let schedule = step.schedule().unwrap();
    let constants = schedule.buffers.iter().filter(|b| matches!(b.role, schedule::Role::Constant(_))).count();
    assert_eq!(constants, 2);
}
