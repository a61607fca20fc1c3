//! Independent maps run as one launch: which, and that nothing else changes.

use std::collections::HashSet;

use autograd::{Conv2d, Tensor, Variable, grad};
use schedule::{Body, BufferId, Kernel, Map, Options, Role, Schedule, Step};

/// Two convolutions with batch norm and a linear layer: eight parameters of seven shapes, and statistics.
fn training_step(images: usize) -> (Step, usize) {
    let x = Tensor::input("x", &[images, 8, 8, 3]);
    let shapes: [&[usize]; 8] = [&[4, 3, 3, 3], &[4], &[4], &[8, 4, 3, 3], &[8], &[8], &[10, 8], &[10]];
    let parameters: Vec<Variable> =
        shapes.iter().enumerate().map(|(i, shape)| Variable::full(format!("p{i}"), shape, 0.1)).collect();
    let p: Vec<Tensor> = parameters.iter().map(Variable::tensor).collect();
    let mut step = Step::new();
    let mut y = x;
    for (weight, gamma, beta) in [(&p[0], &p[1], &p[2]), (&p[3], &p[4], &p[5])] {
        let norm = y.conv2d(weight, Conv2d::new(1, 1)).batch_norm(gamma, beta, 1e-5, 1);
        let mean = Variable::full("mean", gamma.shape(), 0.0);
        let value = mean.tensor() * 0.9 + norm.mean.reshape(gamma.shape()) * 0.1;
        step = step.update(&mean, &value);
        y = norm.output.relu();
    }
    let logits = y.global_average_pool().matmul(&p[6].transpose()) + &p[7];
    let loss = logits.cross_entropy(&Tensor::input_i32("labels", &[images])).mean_all();
    let rate = Tensor::input("rate", &[]);
    for (parameter, gradient) in parameters.iter().zip(grad(&loss, &p)) {
        let momentum = Variable::full("momentum", parameter.shape(), 0.0);
        let velocity = momentum.tensor() * 0.9 + gradient;
        step = step.update(parameter, &(parameter.tensor() - &velocity * &rate)).update(&momentum, &velocity);
    }
    (step.output("loss", &loss), 2 + 2 * parameters.len())
}

fn schedule(step: &Step, group_buffers: usize) -> Schedule {
    step.schedule_with(Options { group_buffers, ..Options::default() }).expect("schedules")
}

/// How many variables a kernel writes.
fn states(schedule: &Schedule, kernel: &Kernel) -> usize {
    kernel.writes().iter().filter(|&&b| matches!(schedule.buffers[b].role, Role::State(_))).count()
}

/// No part of a group touches what another writes.
fn assert_independent(schedule: &Schedule) {
    let memories = schedule.memories();
    for kernel in schedule.all_kernels() {
        let Body::Map { parts } = &kernel.body else { continue };
        let writes =
            |part: &Map| -> HashSet<usize> { part.stores.iter().map(|s| memories[s.buffer]).collect() };
        for (i, part) in parts.iter().enumerate() {
            let touched: HashSet<usize> =
                part.program.buffers().map(|b| memories[b]).chain(writes(part)).collect();
            for (j, other) in parts.iter().enumerate() {
                assert!(i == j || touched.is_disjoint(&writes(other)), "{i} and {j} of `{}`", kernel.label);
            }
        }
    }
}

#[test]
fn all_updates_are_one_launch() {
    let (step, updates) = training_step(2);
    let grouped = schedule(&step, usize::MAX);
    let writing: Vec<&Kernel> = grouped.kernels.iter().filter(|k| states(&grouped, k) > 0).collect();
    assert_eq!(writing.len(), 1, "{}", grouped.table());
    assert_eq!(states(&grouped, writing[0]), updates, "{}", grouped.table());
    assert!(grouped.table().contains("parts"), "{}", grouped.table());
    assert_independent(&grouped);
}

#[test]
fn groups_keep_to_their_limit() {
    let (step, _) = training_step(2);
    let apart = schedule(&step, 0);
    assert!(!apart.kernels.iter().any(|k| matches!(&k.body, Body::Map { parts } if parts.len() > 1)));
    let mut kernels = apart.kernels.len();
    for most in [8, 16, 63] {
        let grouped = schedule(&step, most);
        assert!(grouped.kernels.iter().all(|k| k.buffers().len() <= most));
        assert!(grouped.kernels.len() < kernels, "{} kernels with {most} buffers", grouped.kernels.len());
        kernels = grouped.kernels.len();
        assert_independent(&grouped);
    }
}

/// Waiting would keep the activations that a map reads.
#[test]
fn grouping_takes_no_memory() {
    let (step, _) = training_step(64);
    let (apart, grouped) = (schedule(&step, 0), schedule(&step, usize::MAX));
    let small = 4 * 1000;
    assert!(grouped.working_bytes() <= apart.working_bytes() + small, "{}", grouped.table());
}

/// Old values are read before they are overwritten, or from a copy.
#[test]
fn variables_that_need_each_other() {
    let [a, b, c] = ["a", "b", "c"].map(|name| Variable::full(name, &[5], 1.0));
    let larger = Variable::full("larger", &[7, 5], 1.0);
    let step = Step::new()
        .update(&a, &(b.tensor() * 2.0))
        .update(&b, &(a.tensor() + 1.0))
        .update(&larger, &(larger.tensor() * c.tensor()))
        .update(&c, &(c.tensor() - 1.0));
    let grouped = schedule(&step, usize::MAX);
    assert_independent(&grouped);
    // `larger` reads the old `c`, so it comes before.
    let writer = |v: &Variable| {
        let is_state = |&b: &BufferId| matches!(&grouped.buffers[b].role, Role::State(s) if s == v);
        grouped.kernels.iter().position(|k| k.writes().iter().any(is_state)).expect("is written")
    };
    assert!(writer(&larger) < writer(&c), "{}", grouped.table());
}
