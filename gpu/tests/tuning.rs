//! Kernels that can be computed in several ways: all are right, and a choice is kept.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use autograd::{Tensor, grad, tensor::Conv2d};
use gpu::{Choices, GpuDevice, Measuring, Options, Precision, Tune};
use reference::evaluate;
use schedule::{Device, Schedule, Step, Value};

/// `None`, said past the capture of the test harness, where this machine has no adapter.
fn open(options: Options) -> Option<GpuDevice> {
    // Software drivers do not bear devices being made at the same time.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    match GpuDevice::open(std::env::var("SLD_TEST_ADAPTER").ok().as_deref(), options) {
        Ok(device) => Some(device),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "CI must have an adapter: {error}");
            let _ = writeln!(std::io::stderr(), "\n*** GPU TESTS SKIPPED: {error} ***\n");
            None
        }
    }
}

/// Convolutions with their gradients, a matrix product, and folds along rows and columns.
fn step() -> Step {
    let mut step = Step::new();
    for (number, (channels, [size, kernel], conv)) in
        [([64, 72], [6, 3], Conv2d::new(1, 1)), ([20, 16], [9, 1], Conv2d::new(2, 0))].into_iter().enumerate()
    {
        let [inputs, outputs] = channels;
        let x = Tensor::input(format!("x{number}"), &[5, size, size, inputs]);
        let w = Tensor::input(format!("w{number}"), &[outputs, inputs, kernel, kernel]);
        let y = x.conv2d(&w, conv);
        let loss = (&y * &Tensor::input(format!("dy{number}"), y.shape())).sum_all();
        let gradients = grad(&loss, &[x, w]);
        step = step
            .output(format!("y{number}"), &y)
            .output(format!("dx{number}"), &gradients[0])
            .output(format!("dw{number}"), &gradients[1]);
    }
    let a = Tensor::input("a", &[2, 90, 100]);
    let values = Tensor::input("values", &[60, 48, 24]);
    step.output("product", &a.matmul(&Tensor::input("b", &[2, 100, 30])))
        .output("columns", &values.variance(&[0, 1]))
        .output("rows", &values.sum(&[1, 2]))
}

fn inputs(schedule: &Schedule) -> Vec<(String, Vec<f32>)> {
    let inputs = schedule.buffers.iter().filter_map(|buffer| match &buffer.role {
        schedule::Role::Input { name, .. } => Some((name.to_string(), buffer.len())),
        _ => None,
    });
    let value =
        |stream: usize, i: usize| autograd::random::uniform(1, 0, stream as u32, i as u32) * 2.0 - 1.0;
    let named = |(stream, (name, len)): (usize, (String, usize))| {
        (name, (0..len).map(|i| value(stream, i)).collect())
    };
    inputs.enumerate().map(named).collect()
}

/// The values of all outputs.
fn run(device: &GpuDevice, schedule: &Schedule, inputs: &[(String, Vec<f32>)]) -> Vec<Vec<f32>> {
    let mut executable = device.compile(schedule.clone()).unwrap();
    let given: Vec<_> = inputs.iter().map(|(name, values)| (&name[..], Value::F32(values))).collect();
    executable.call(&given).unwrap();
    schedule.outputs.iter().map(|(name, _)| executable.output(name).unwrap()).collect()
}

/// Runs the step in every way that its kernels have, and gives the number of ways.
fn check_every_way(precision: Precision, tolerance: f64) -> usize {
    let options =
        |number| Options { checked: true, precision, tune: Tune::Number(number), ..Options::default() };
    let Some(first) = open(options(0)) else { return usize::MAX };
    if first.precision() != precision {
        let _ = writeln!(
            std::io::stderr(),
            "\n*** {precision} PRECISION NOT TESTED: this adapter has none ***\n"
        );
        return usize::MAX;
    }
    assert_eq!(Device::precision(&first), precision.to_string());
    let schedule = step().schedule_with(first.options()).unwrap();
    let inputs = inputs(&schedule);
    let expected = evaluate(&schedule, &inputs);
    for number in 0.. {
        let device = open(options(number)).unwrap();
        let outputs = run(&device, &schedule, &inputs);
        for (((name, _), output), expected) in schedule.outputs.iter().zip(&outputs).zip(&expected) {
            let scale = expected.iter().fold(1e-30, |m: f64, v| m.max(f64::from(v.abs())));
            let off = output.iter().zip(expected).map(|(&a, &b)| f64::from((a - b).abs()) / scale);
            let off = off.fold(0.0, f64::max);
            assert!(off < tolerance, "way {number}: `{name}` is off by {off}");
        }
        let chosen = Choices::parse(&device.choices()).unwrap();
        if number > 0 && chosen.kernels.values().all(|chosen| chosen.choice.is_none()) {
            return number;
        }
    }
    0
}

#[test]
fn every_way_is_right() {
    let ways = check_every_way(Precision::F32, 3e-6);
    assert!(ways > 8, "{ways}");
}

#[test]
fn every_way_is_right_in_mixed_precision() {
    let ways = check_every_way(Precision::Mixed, 4.0 / 2048.0);
    assert!(ways > 8, "{ways}");
}

#[test]
fn every_way_is_right_in_pairs() {
    let ways = check_every_way(Precision::Split, 3e-6);
    assert!(ways > 8, "{ways}");
}

#[test]
fn a_choice_that_is_given_is_taken() {
    let options = |tune| Options { tune, ..Options::default() };
    let Some(tuned) = open(options(Tune::Number(4))) else { return };
    let schedule = step().schedule_with(tuned.options()).unwrap();
    let inputs = inputs(&schedule);
    let bits = |device: &GpuDevice| -> Vec<u32> {
        run(device, &schedule, &inputs).concat().into_iter().map(f32::to_bits).collect()
    };
    let expected = bits(&tuned);
    let fixed = open(options(Tune::Fixed)).unwrap();
    let without = bits(&fixed);
    assert_ne!(without, expected, "the ways differ in their last bits");
    fixed.choose(&tuned.choices()).unwrap();
    assert!(expected == bits(&fixed));
    assert_eq!(fixed.choices(), tuned.choices());
    // A way that there is not is not taken, and what is no choice is refused.
    let other = tuned.choices().replace("\"chunks\": ", "\"chunks\": 7");
    let device = open(options(Tune::Number(4))).unwrap();
    device.choose(&other).unwrap();
    assert!(without == bits(&device));
    assert!(device.choose("{}").unwrap_err().to_string().contains("no choices of kernels"));
}

#[test]
fn what_was_measured_is_kept_in_a_file() {
    let options = Options { tune: Tune::Measured, ..Options::default() };
    let Some(device) = open(options) else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kernels").join("adapter.json");
    device.remember(file.clone());
    let told = Arc::new(Mutex::new(Vec::new()));
    let watch = |device: &GpuDevice| {
        let told = Arc::clone(&told);
        device.watch(move |Measuring { done, all }| told.lock().unwrap().push([done, all]));
    };
    watch(&device);
    let step = Step::new().output("sums", &Tensor::input("x", &[64, 40, 24]).sum(&[0, 1]));
    let schedule = step.schedule_with(device.options()).unwrap();
    let inputs = inputs(&schedule);
    let first = run(&device, &schedule, &inputs);
    let chosen = Choices::parse(&device.choices()).unwrap();
    let measured: Vec<_> = chosen.kernels.values().filter_map(|chosen| chosen.measured).collect();
    if measured.is_empty() {
        let _ = writeln!(std::io::stderr(), "\n*** NOTHING MEASURED: no timestamps ***\n");
        return;
    }
    assert!(measured.iter().all(|m| m.ways > 1 && 0.0 < m.best && m.best <= m.fixed), "{measured:?}");
    assert_eq!(Choices::parse(&std::fs::read_to_string(&file).unwrap()).unwrap(), chosen);
    assert_eq!(told.lock().unwrap()[..], [[0, 1], [1, 1]]);
    // Times are never the same twice: nothing is measured again.
    let again = open(options).unwrap();
    again.remember(file.clone());
    watch(&again);
    assert!(first == run(&again, &schedule, &inputs));
    assert_eq!(again.choices(), device.choices());
    assert_eq!(told.lock().unwrap().len(), 2);
    // A damaged file is written anew.
    std::fs::write(&file, "{").unwrap();
    let fresh = open(options).unwrap();
    fresh.remember(file.clone());
    run(&fresh, &schedule, &inputs);
    assert_eq!(Choices::parse(&std::fs::read_to_string(&file).unwrap()).unwrap().kernels.len(), 1);
}
