//! Whole steps on the CPU device, fused and unfused, on one thread and on three, compared with the
//! plain `f64` reference.

use std::collections::HashMap;

use autograd::{Conv2d, Result, Tensor, Variable, Window, grad};
use cpu::CpuDevice;
use schedule::{Device, Options, Step, Value};

/// Values in [-1, 1), a different sequence for each seed.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn variable(name: &str, shape: &[usize], seed: u64) -> Variable {
    Variable::new(name, shape, values(shape.iter().product(), seed)).expect("lengths agree")
}

fn input(shape: &[usize]) -> Tensor {
    Tensor::input("x", shape)
}

fn labels(count: usize) -> Tensor {
    Tensor::input_i32("labels", &[count])
}

/// The outputs of `step` must agree with the reference: within `tolerance` of the tensor's norm.
fn check(name: &str, outputs: &[Tensor], tolerance: f64) -> Result<()> {
    let mut step = Step::new();
    for (number, output) in outputs.iter().enumerate() {
        step = step.output(format!("y{number}"), output);
    }
    let floats = |shape: &[usize]| values(shape.iter().product(), 99);
    let integers = |shape: &[usize]| -> Vec<i32> {
        (0..shape.iter().product::<usize>()).map(|i| (i * 7 % 5) as i32).collect()
    };
    let mut given: HashMap<String, (Vec<f32>, Option<Vec<i32>>)> = HashMap::new();
    for tensor in autograd::nodes(outputs) {
        if let autograd::tensor::Op::Input(name) = tensor.op() {
            let entry = match tensor.dtype() {
                autograd::DType::F32 => (floats(tensor.shape()), None),
                autograd::DType::I32 => (vec![], Some(integers(tensor.shape()))),
            };
            given.insert(name.clone(), entry);
        }
    }
    let exact: HashMap<String, Vec<f64>> = given
        .iter()
        .map(|(name, (floats, integers))| match integers {
            Some(integers) => (name.clone(), integers.iter().map(|&v| v.into()).collect()),
            None => (name.clone(), floats.iter().map(|&v| v.into()).collect()),
        })
        .collect();
    let expected = autograd::evaluate(outputs, &exact, &HashMap::new(), &HashMap::new())?;
    let inputs: Vec<(&str, Value)> = given
        .iter()
        .map(|(name, (floats, integers))| match integers {
            Some(integers) => (&name[..], Value::I32(integers)),
            None => (&name[..], Value::F32(floats)),
        })
        .collect();
    for fuse in [true, false] {
        let mut bits: Option<Vec<Vec<f32>>> = None;
        for threads in [1, 3] {
            let device = CpuDevice::new(threads);
            let schedule = step.schedule_with(Options { fuse, ..Options::default() })?;
            let mut run = device.compile(schedule)?;
            run.call(&inputs)?;
            run.call(&inputs)?;
            let mut results = Vec::new();
            for (number, expected) in expected.iter().enumerate() {
                let result = run.output(&format!("y{number}"))?;
                let norm = expected.iter().map(|v| v * v).sum::<f64>().sqrt();
                let error =
                    result.iter().zip(expected).map(|(&r, &e)| (r as f64 - e).powi(2)).sum::<f64>().sqrt();
                assert!(
                    error <= tolerance * norm.max(1e-3) && result.len() == expected.len(),
                    "{name}, output {number}, fuse {fuse}, {threads} threads: error {error:.2e} of {norm:.2e}\n{:?}\n{:?}\n{:#?}",
                    &result[..result.len().min(8)],
                    &expected[..expected.len().min(8)],
                    run.schedule().kernels.iter().map(|k| &k.label).collect::<Vec<_>>()
                );
                results.push(result);
            }
            match &bits {
                Some(single) => assert_eq!(*single, results, "{name}: threads change the result"),
                None => bits = Some(results),
            }
        }
    }
    Ok(())
}

/// `y` and the gradient of a weighted sum of it with respect to `wrt`.
fn with_gradients(y: &Tensor, wrt: &[Tensor]) -> Vec<Tensor> {
    let weights = Tensor::constant(y.shape(), values(y.len(), 5));
    let loss = (y * &weights).sum_all();
    let mut all = vec![y.clone()];
    all.extend(grad(&loss, wrt));
    all
}

#[test]
fn elementwise() -> Result<()> {
    let x = input(&[7, 30]);
    let b = variable("b", &[30], 2).tensor();
    let y = ((&x * &b).exp() + x.tanh() * 0.5).relu() - (x.square() + 1.5).log().sqrt();
    check("elementwise", &with_gradients(&y, &[x.clone(), b]), 1e-5)?;
    let y =
        x.maximum(&x.permute(&[1, 0]).reshape(&[7, 30])).minimum(&Tensor::full(&[7, 30], 0.3)).abs().floor();
    check("min max", &[y, x.sign(), x.reciprocal(), x.less(&Tensor::full(&[7, 30], 0.1)).float()], 1e-5)
}

#[test]
fn rearrangements() -> Result<()> {
    let x = input(&[4, 6, 5]);
    let y = Tensor::concatenate(&[&x.slice(1, 1, 2, 2), &x.pad(1, 1, 2).slice(1, 0, 9, 1)], 1);
    check("concatenate", &with_gradients(&y, std::slice::from_ref(&x)), 1e-5)?;
    let y = x.permute(&[2, 0, 1]).reshape(&[10, 12]).transpose().reshape(&[2, 60]) * 2.0;
    check("permute", &with_gradients(&y, std::slice::from_ref(&x)), 1e-5)?;
    let image = input(&[2, 3, 3, 8]);
    check("shuffle", &with_gradients(&image.channel_shuffle(4), std::slice::from_ref(&image)), 1e-5)
}

#[test]
fn reductions() -> Result<()> {
    let x = input(&[3, 17, 9, 24]);
    let y = x.mean(&[0, 1, 2]) + x.variance(&[0, 1, 2]).sqrt();
    check("channels", &with_gradients(&y, std::slice::from_ref(&x)), 1e-5)?;
    let y = x.max(3) + x.sum(&[3]);
    check("rows", &with_gradients(&y, std::slice::from_ref(&x)), 1e-5)?;
    check("all", &[x.sum_all(), x.mean_all(), x.max_all(), x.argmax(3).float(), x.argmax(1).float()], 1e-5)
}

#[test]
fn large_reduction_is_accurate() -> Result<()> {
    let x = input(&[64, 32, 32, 16]) + 100.0;
    check("statistics", &[x.mean(&[0, 1, 2]), x.variance(&[0, 1, 2]), x.sum_all()], 2e-6)
}

#[test]
fn losses() -> Result<()> {
    let x = input(&[16, 100]);
    let teacher = variable("teacher", &[16, 100], 3).tensor();
    let loss = x.cross_entropy(&labels(16));
    check("cross entropy", &with_gradients(&loss, std::slice::from_ref(&x)), 1e-5)?;
    let p = (&x * 3.0).log_softmax(1);
    let q = (&teacher * 4.0).softmax(1);
    let y = p.kl_divergence(&q);
    check("kl", &with_gradients(&y, &[x.clone(), teacher]), 1e-5)?;
    let y = x.gather(1, &labels(16).reshape(&[16, 1]));
    check("gather", &with_gradients(&y, std::slice::from_ref(&x)), 1e-5)?;
    check("top k", &[x.top_k_correct(&labels(16), 5), labels(16).one_hot(7).float()], 1e-5)
}

#[test]
fn products() -> Result<()> {
    let x = input(&[33, 65]);
    let w = variable("w", &[65, 10], 4).tensor();
    let b = variable("b", &[10], 5).tensor();
    let y = (x.relu().matmul(&w) + &b).tanh();
    check("linear", &with_gradients(&y, &[x, w, b]), 1e-5)?;
    let x = input(&[3, 5, 8]);
    let y = x.matmul(&x.permute(&[0, 2, 1]));
    check("batched", &with_gradients(&y, &[x]), 1e-5)?;
    let x = input(&[200, 180]);
    let w = variable("w", &[300, 180], 6).tensor();
    check("large", &with_gradients(&x.matmul(&w.transpose()), &[x, w]), 1e-5)
}

#[test]
fn pooling() -> Result<()> {
    let x = input(&[2, 7, 9, 5]);
    for (name, window) in [
        ("2x2", Window::new(2, 2, 0)),
        ("3x3 overlapping", Window::new(3, 1, 1)),
        ("3x3/2", Window::new(3, 2, 1)),
        ("no padding in divisor", Window::new(3, 2, 1).without_padding_in_divisor()),
    ] {
        check(name, &with_gradients(&x.max_pool(window), std::slice::from_ref(&x)), 1e-5)?;
        check(name, &with_gradients(&x.average_pool(window), std::slice::from_ref(&x)), 1e-5)?;
    }
    check("global", &with_gradients(&x.global_average_pool(), std::slice::from_ref(&x)), 1e-5)?;
    // Ties: a plateau after relu.
    let y = x.relu().max_pool(Window::new(3, 2, 1));
    check("ties", &with_gradients(&y, std::slice::from_ref(&x)), 1e-5)
}

#[test]
fn convolutions() -> Result<()> {
    let cases = [
        ([2, 8, 8, 16], [16, 16, 3, 3], Conv2d::new(1, 1)),
        ([2, 9, 7, 5], [6, 5, 3, 3], Conv2d::new(2, 1)),
        ([1, 8, 8, 8], [12, 8, 1, 1], Conv2d::new(2, 0)),
        ([2, 6, 6, 8], [8, 1, 3, 3], Conv2d::new(1, 1).groups(8)),
        ([2, 6, 5, 8], [12, 4, 3, 3], Conv2d::new(1, 2).groups(2).dilation(2)),
        ([3, 11, 11, 3], [20, 3, 5, 5], Conv2d::new(2, 2)),
    ];
    for (number, (x, w, conv)) in cases.into_iter().enumerate() {
        let x = input(&x);
        let w = variable("w", &w, 7).tensor();
        check(
            &format!("convolution {number}"),
            &with_gradients(&x.conv2d(&w, conv), &[x.clone(), w.clone()]),
            1e-5,
        )?;
        // A prologue, and an epilogue with a residual.
        let y = (&x * 0.7 + 0.1).relu().conv2d(&(&w * 2.0), conv);
        let y = (&y + &variable("r", y.shape(), 8).tensor()).relu();
        check(&format!("fused {number}"), &with_gradients(&y, &[x, w]), 1e-5)?;
    }
    Ok(())
}

/// Two residual blocks with batch norm in training, over one and two views.
#[test]
fn residual_network() -> Result<()> {
    for views in [1, 2] {
        let x = input(&[4, 8, 8, 3]);
        let mut parameters = Vec::new();
        let mut parameter = |name: &str, shape: &[usize], offset: f32| {
            let initial = values(shape.iter().product(), parameters.len() as u64 + 20);
            let initial = initial.iter().map(|v| v * 0.5 + offset).collect();
            let variable = Variable::new(name, shape, initial).expect("lengths agree");
            parameters.push(variable.tensor());
            variable.tensor()
        };
        let mut norm = |y: &Tensor, statistics: &mut Vec<Tensor>| {
            let c = y.dim(3);
            let (gamma, beta) = (parameter("gamma", &[c], 1.0), parameter("beta", &[c], 0.0));
            let bn = y.batch_norm(&gamma, &beta, 1e-5, views);
            statistics.extend([bn.mean.clone(), bn.variance.clone()]);
            bn.output
        };
        let mut statistics = Vec::new();
        let w = |name: &str, shape: &[usize], seed| variable(name, shape, seed).tensor();
        let weights = [
            w("w0", &[16, 3, 3, 3], 11),
            w("w1", &[16, 16, 3, 3], 12),
            w("w2", &[16, 16, 3, 3], 13),
            w("w3", &[32, 16, 3, 3], 14),
            w("w4", &[32, 16, 1, 1], 15),
            w("w5", &[10, 32], 16),
        ];
        let stem = norm(&x.conv2d(&weights[0], Conv2d::new(1, 1)), &mut statistics).relu();
        let inside = norm(&stem.conv2d(&weights[1], Conv2d::new(1, 1)), &mut statistics).relu();
        let first = (norm(&inside.conv2d(&weights[2], Conv2d::new(1, 1)), &mut statistics) + &stem).relu();
        let down = norm(&first.conv2d(&weights[3], Conv2d::new(2, 1)), &mut statistics);
        let skip = norm(&first.conv2d(&weights[4], Conv2d::new(2, 0)), &mut statistics);
        let features = (down + skip).relu().global_average_pool();
        let features = features.reshape(&[4, 32]);
        let logits = features.matmul(&weights[5].transpose());
        let loss = logits.cross_entropy(&labels(4)).mean_all();
        let mut wrt = weights.to_vec();
        wrt.extend(parameters.iter().cloned());
        let mut outputs = vec![loss.clone(), logits];
        outputs.extend(grad(&loss, &wrt));
        outputs.extend(statistics);
        // Batch norm over four small images magnifies rounding.
        check(&format!("network, {views} views"), &outputs, 5e-5)?;
    }
    Ok(())
}

/// More parts than one kernel looks at: each is written to its place by itself.
#[test]
fn long_concatenations() -> Result<()> {
    let x = input(&[3, 4]);
    let parts: Vec<Tensor> = (0..30)
        .map(|i| match i % 3 {
            0 => &x * i as f64,
            1 => x.slice(0, i % 2, 2, 1).exp(),
            _ => x.slice(1, i % 4, 1, 1).transpose().pad(1, 0, 1),
        })
        .collect();
    let joined = Tensor::concatenate(&parts.iter().collect::<Vec<_>>(), 0);
    let loss = (&joined * joined.slice(0, 0, joined.dim(0), 1)).sum_all();
    let gradient = grad(&loss, std::slice::from_ref(&x)).remove(0);
    check("long concatenation", &[joined.clone(), joined.relu().sum(&[0]), gradient], 1e-6)
}
