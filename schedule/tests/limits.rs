//! Every step settles under every limit of buffers, and keeps to it.

use autograd::{Conv2d, Error, Tensor, Variable, Window, grad};
use schedule::{ChannelFolds, Options, Step};

fn inputs(count: usize, shape: &[usize]) -> Vec<Tensor> {
    (0..count).map(|i| Tensor::input(format!("x{i}{shape:?}"), shape)).collect()
}

fn joined(parts: &[Tensor], axis: usize) -> Tensor {
    Tensor::concatenate(&parts.iter().collect::<Vec<_>>(), axis)
}

fn total(parts: &[Tensor]) -> Tensor {
    parts.iter().skip(1).fold(parts[0].clone(), |sum, x| sum + x)
}

/// The outputs of a step for each of the ways in which one expression can need many buffers.
fn expressions() -> Vec<(&'static str, Vec<Tensor>)> {
    let x = inputs(20, &[4, 6]);
    let scaled: Vec<Tensor> = x.iter().map(|x| x * 2.0 + 1.0).collect();
    let pairs: Vec<Tensor> = x.windows(2).map(|w| &w[0] * &w[1]).collect();
    let image = Tensor::input("image", &[2, 6, 6, 4]);
    let weight = Variable::full("weight", &[8, 4, 3, 3], 0.5);
    let biases = inputs(12, &[8]);
    let conv = image.conv2d(&weight.tensor(), Conv2d::new(1, 1));
    let after = biases.iter().fold(conv, |y, b| (y + b).relu());
    let vectors = inputs(12, &[4]).iter().fold(image.clone(), |y, b| (y * b).relu());
    let prologue = vectors.conv2d(&weight.tensor(), Conv2d::new(1, 1));
    let weighted = weight.tensor() * inputs(9, &[8, 1, 1, 1]).iter().fold(Tensor::scalar(1.0), |y, b| y * b);
    let condition = total(&x[..9]).less(&total(&x[9..]));
    let (seed, step) = (Tensor::input_i32("seed", &[]), Tensor::input_i32("step", &[]));
    let loss = (joined(&x, 1) * joined(&scaled, 1)).sum_all();
    let empty = x[0].slice(0, 0, 0, 1).reshape(&[3, 0]) + 1.0;
    vec![
        ("nothing", vec![empty.exp().reshape(&[0]), (&empty * 2.0).sum(&[1]) + 1.0]),
        ("concatenate", vec![joined(&x[..9], 0), joined(&x, 1)]),
        ("concatenate seven", vec![joined(&x[..7], 1)]),
        ("concatenate expressions", vec![joined(&scaled, 0), joined(&pairs, 1)]),
        ("concatenate inside an expression", vec![(joined(&x, 0) * 3.0).relu(), joined(&x, 1).sum(&[1])]),
        ("concatenate as an operand", vec![joined(&x, 0).matmul(&joined(&pairs, 0).transpose())]),
        ("concatenate views", vec![joined(&x.iter().map(Tensor::transpose).collect::<Vec<_>>(), 0)]),
        ("concatenate, differentiated", grad(&loss, &x)),
        ("sum", vec![total(&x)]),
        ("select", vec![condition.select(&total(&pairs), &total(&scaled))]),
        ("reduce", vec![total(&x).sum(&[1]), total(&pairs).max(0), total(&x).variance(&[0, 1])]),
        ("reduce and then", vec![x.iter().fold(total(&pairs).sum(&[0]), |y, x| y + x.slice(0, 1, 1, 1))]),
        ("argmax", vec![total(&x).argmax(1).float() * 2.0]),
        ("convolution, then many", vec![after.clone()]),
        ("many, then convolution", vec![prologue.clone()]),
        ("convolution by many", vec![image.conv2d(&weighted, Conv2d::new(2, 1))]),
        (
            "convolution, differentiated",
            grad(&(after * prologue).sum_all(), &[image.clone(), weight.tensor()]),
        ),
        ("pool", vec![vectors.max_pool(Window::new(2, 2, 0)), vectors.average_pool(Window::new(3, 2, 1))]),
        ("dropout", vec![total(&x).dropout(0.5, &seed, &step, 1)]),
    ]
}

fn step(outputs: &[Tensor]) -> Step {
    outputs.iter().enumerate().fold(Step::new(), |step, (i, y)| step.output(format!("y{i}"), y))
}

#[test]
fn every_expression_settles_within_the_limit() {
    let mut failures = Vec::new();
    for (name, outputs) in expressions() {
        for max_buffers in [4, 5, 6, 7, 8, 9, 16, 24, 64] {
            use ChannelFolds::{All, Dense, None};
            for (fuse, channel_folds) in [(true, All), (true, Dense), (true, None), (false, All)] {
                let options = Options { fuse, max_buffers, group_buffers: max_buffers, channel_folds };
                let schedule = match step(&outputs).schedule_with(options) {
                    Ok(schedule) => schedule,
                    Err(error) => {
                        failures.push(format!("{name}, {options:?}: {error}"));
                        continue;
                    }
                };
                for kernel in schedule.all_kernels() {
                    let touched = kernel.buffers().len();
                    if touched > max_buffers {
                        failures.push(format!("{name}, {options:?}: {touched} in `{}`", kernel.label));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn fewer_buffers_than_a_select_needs_are_an_error() {
    let options = Options { max_buffers: 3, ..Options::default() };
    let refused = Step::new().output("y", &(Tensor::input("x", &[2]) * 2.0)).schedule_with(options);
    assert!(matches!(refused, Err(Error::Step(message)) if message.contains("at least 4")));
}

/// A long concatenation moves each element once.
#[test]
fn long_concatenations_are_written_in_place() {
    let parts = inputs(40, &[3, 5]);
    let schedule = step(&[joined(&parts, 0)]).schedule().expect("schedules");
    let out = schedule.outputs[0].1;
    assert_eq!(schedule.buffers.len(), 41, "no temporaries");
    assert!(schedule.all_kernels().all(|kernel| kernel.writes() == [out]), "{}", schedule.table());
}

/// A stencil reads its input at three places: ten of them in one kernel would be evaluated 3^10 times, whether they are
/// of something in memory or of mere numbers.
#[test]
fn stencils_of_stencils_do_not_grow_into_one_kernel() {
    let stencil = |x: &Tensor| {
        let after = x.slice(0, 1, 15, 1).pad(0, 0, 1);
        let before = x.slice(0, 0, 15, 1).pad(0, 1, 0);
        x * 0.5 + after * 0.3 + before * 0.2
    };
    for x in [Tensor::input("x", &[16]), Tensor::iota(&[16], 0).float()] {
        let y = (0..10).fold(x, |x, _| stencil(&x));
        let schedule = step(&[y]).schedule().expect("schedules");
        let longest =
            schedule.all_kernels().flat_map(|kernel| kernel.programs()).map(|p| p.instrs.len()).max();
        assert!(longest < Some(150), "{longest:?}");
    }
}

/// An update whose pieces read the old value elsewhere must not overwrite it too early.
#[test]
fn a_rotated_variable_is_not_overwritten_while_it_is_read() {
    let v = Variable::full("v", &[10], 1.0);
    let parts: Vec<Tensor> = (0..10).map(|i| v.tensor().slice(0, (i + 3) % 10, 1, 1)).collect();
    let schedule = Step::new().update(&v, &joined(&parts, 0)).schedule().expect("schedules");
    let state = schedule.updated[0];
    let written: Vec<usize> =
        (0..schedule.kernels.len()).filter(|&k| schedule.kernels[k].writes().contains(&state)).collect();
    assert_eq!(written, [schedule.kernels.len() - 1], "{}", schedule.table());
}
