//! The device itself: state, preparation, limits, misuse, determinism, the profile.

mod common;

use autograd::tensor::{BinaryOp, Conv2d};
use autograd::{Error, Variable, VariableStore};
use common::Builder;
use common::build::{load, plain, store, strided};
use gpu::{GpuDevice, Options};
use schedule::*;

fn map(n: usize, instrs: Vec<Instr>, stores: Vec<Store>) -> Body {
    Body::map(vec![n], Program { instrs }, stores)
}

/// `v = v + x` on a variable of `n` elements; the output is the new value.
fn accumulate(variable: &Variable) -> Builder {
    let n = variable.len();
    let mut b = Builder::new(1);
    let x = b.random("x", &[n]);
    let v = b.state(variable);
    let y = b.output("y", &[n]);
    let instrs = vec![load(x, &[n]), load(v, &[n]), Instr::Binary(BinaryOp::Add, 0, 1)];
    b.kernel(map(n, instrs, vec![store(v, &[n], 2), store(y, &[n], 2)]));
    b.schedule.updated = vec![v];
    b
}

fn first_device() -> Option<GpuDevice> {
    common::devices().map(|devices| devices.0[0].1.clone())
}

#[test]
fn state_is_shared_and_lives_between_calls() {
    let Some(device) = first_device() else { return };
    let variable = Variable::new("v", &[5], vec![1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
    assert_eq!(device.read(&variable).unwrap(), variable.initial(), "before anything touched it");
    let b = accumulate(&variable);
    let mut first = device.compile(b.schedule.clone()).unwrap();
    let mut second = device.compile(b.schedule.clone()).unwrap();
    let x = [("x", Value::F32(&[1.0, 1.0, 1.0, 1.0, 10.0][..]))];
    first.call(&x).unwrap();
    second.call(&x).unwrap();
    first.call(&x).unwrap();
    let expected = vec![4.0, 5.0, 6.0, 7.0, 35.0];
    assert_eq!(first.output("y").unwrap(), expected);
    assert_eq!(device.read(&variable).unwrap(), expected);
    device.write(&variable, &[0.0; 5]).unwrap();
    second.call(&x).unwrap();
    assert_eq!(device.read(&variable).unwrap(), [1.0, 1.0, 1.0, 1.0, 10.0]);
}

#[test]
fn prepared_buffers_follow_the_state_they_depend_on() {
    let Some(device) = first_device() else { return };
    let variable = Variable::full("scale", &[4], 2.0);
    let mut b = Builder::new(1);
    let x = b.input("x", &[4], vec![1.0, 2.0, 3.0, 4.0]);
    let scale = b.state(&variable);
    let squared = b.prepared(&[4]);
    let y = b.output("y", &[4]);
    let square =
        map(4, vec![load(scale, &[4]), Instr::Binary(BinaryOp::Mul, 0, 0)], vec![store(squared, &[4], 1)]);
    b.schedule.prepare.push(Kernel { label: "square".into(), body: square });
    let times = vec![load(x, &[4]), load(squared, &[4]), Instr::Binary(BinaryOp::Mul, 0, 1)];
    b.kernel(map(4, times, vec![store(y, &[4], 2)]));
    let mut run = device.compile(b.schedule.clone()).unwrap();
    let x = [("x", Value::F32(&[1.0, 2.0, 3.0, 4.0][..]))];
    for _ in 0..2 {
        run.call(&x).unwrap();
        assert_eq!(run.output("y").unwrap(), [4.0, 8.0, 12.0, 16.0]);
    }
    device.write(&variable, &[3.0; 4]).unwrap();
    run.call(&x).unwrap();
    assert_eq!(run.output("y").unwrap(), [9.0, 18.0, 27.0, 36.0]);
    // Another step that updates the variable counts as well.
    let mut other = device.compile(accumulate(&variable).schedule).unwrap();
    other.call(&[("x", Value::F32(&[-2.0; 4]))]).unwrap();
    run.call(&x).unwrap();
    assert_eq!(run.output("y").unwrap(), [1.0, 2.0, 3.0, 4.0]);
}

/// A frozen weight is packed once for the tile kernels; writing it must pack it again.
#[test]
fn packed_weights_follow_the_state() {
    let Some(device) = first_device() else { return };
    let geometry = ConvGeometry {
        batch: 1,
        height: 4,
        width: 4,
        in_channels: 8,
        out_channels: 8,
        kernel: [1, 1],
        out_height: 4,
        out_width: 4,
        conv: Conv2d::new(1, 0),
    };
    let weight = Variable::full("w", &[8, 8, 1, 1], 0.5);
    let mut b = Builder::new(3);
    let x = b.input("x", &[1, 4, 4, 8], vec![1.0; 128]);
    let w = b.state(&weight);
    let y = b.output("y", &[1, 4, 4, 8]);
    let (lhs, rhs) = (b.operand(x), b.operand(w));
    let epilogue = plain(y, &[1, 4, 4, 8]);
    b.kernel(Body::Convolution { kind: ConvKind::Forward, geometry, lhs, rhs, epilogue });
    let mut run = device.compile(b.schedule.clone()).unwrap();
    let x = [("x", Value::F32(&[1.0; 128][..]))];
    run.call(&x).unwrap();
    assert_eq!(run.output("y").unwrap(), [4.0; 128]);
    device.write(&weight, &[1.0; 64]).unwrap();
    run.call(&x).unwrap();
    assert_eq!(run.output("y").unwrap(), [8.0; 128]);
}

#[test]
fn misuse_is_an_error_and_the_device_stays_usable() {
    let Some(device) = first_device() else { return };
    let variable = Variable::full("v", &[3], 1.0);
    let mut run = device.compile(accumulate(&variable).schedule).unwrap();
    let good = [("x", Value::F32(&[1.0, 2.0, 3.0][..]))];
    let input = |result: Result<(), Error>, part: &str| match result {
        Err(Error::Input { name, message }) => {
            assert!(format!("{name}: {message}").contains(part), "{name}: {message}")
        }
        other => panic!("expected an input error with `{part}`, got {other:?}"),
    };
    assert!(matches!(run.output("y"), Err(Error::Step(_))), "no call yet");
    input(run.call(&[]), "missing");
    input(run.call(&[("x", Value::F32(&[1.0]))]), "3 elements");
    input(run.call(&[("x", Value::I32(&[1, 2, 3]))]), "F32");
    input(run.call(&[good[0], ("z", Value::F32(&[1.0]))]), "no such input");
    input(run.call(&[good[0], good[0]]), "twice");
    assert!(matches!(run.output("nothing"), Err(Error::Step(_))));
    for values in [&[1.0, 2.0][..], &[1.0, f32::NAN, 2.0], &[f32::INFINITY, 0.0, 0.0]] {
        assert!(matches!(device.write(&variable, values), Err(Error::State { .. })), "{values:?}");
    }
    assert_eq!(device.read(&variable).unwrap(), [1.0; 3], "nothing changed");
    run.call(&good).unwrap();
    assert_eq!(run.output("y").unwrap(), [2.0, 3.0, 4.0]);

    let mut b = Builder::new(1);
    let label = b.input("int label", &[2], vec![0.0; 2]);
    let y = b.output("y", &[2]);
    b.kernel(map(2, vec![load(label, &[2])], vec![store(y, &[2], 0)]));
    let mut run = device.compile(b.schedule.clone()).unwrap();
    input(run.call(&[("int label", Value::I32(&[1, -(1 << 24) - 1]))]), "2^24");
    input(run.call(&[("int label", Value::F32(&[1.0, 2.0]))]), "I32");
    run.call(&[("int label", Value::I32(&[-5, 1 << 24]))]).unwrap();
    assert_eq!(run.output("y").unwrap(), [-5.0, 16_777_216.0]);
}

#[test]
fn a_buffer_over_the_limit_is_a_typed_error() {
    let Some(devices) = common::devices() else { return };
    let (_, device) = devices.0.iter().find(|(name, _)| name.contains("WebGPU")).unwrap();
    let n = (300 << 20) / 4;
    let mut b = Builder::new(1);
    let y = b.output("y", &[n]);
    b.kernel(map(n, vec![Instr::Constant(1.0)], vec![store(y, &[n], 0)]));
    match device.compile(b.schedule.clone()) {
        Err(Error::Limit(message)) => assert!(message.contains("batch"), "{message}"),
        Err(other) => panic!("expected a limit, got {other}"),
        Ok(_) => panic!("300 MiB fit into a 256 MiB buffer"),
    }
    // And the device is still usable.
    let mut b = Builder::new(1);
    let y = b.output("y", &[4]);
    b.kernel(map(4, vec![Instr::Constant(1.0)], vec![store(y, &[4], 0)]));
    assert_eq!(common::run(device, &b.schedule, &[])[0].1, [1.0; 4]);
}

#[test]
fn an_unknown_adapter_says_what_there_is() {
    if common::devices().is_none() {
        return;
    }
    for wanted in ["no such card", "99"] {
        match GpuDevice::open(Some(wanted), Options::default()) {
            Err(Error::NoDevice(message)) => {
                assert!(message.contains(wanted) && message.contains("0: "), "{message}")
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("`{wanted}` was found"),
        }
    }
    let listed = gpu::adapters();
    assert!(!listed.is_empty() && listed.iter().all(|a| !a.name.is_empty()));
    println!("{}", listed[0]);
}

/// A kernel of more buffers than the adapter binds is refused, and the error says which and how many.
#[test]
fn more_buffers_than_bindings() {
    let Some(device) = first_device() else { return };
    let mut b = Builder::new(1);
    let count = device.target().limits.storage_buffers as usize + 1;
    let mut instrs: Vec<Instr> = (0..count).map(|i| load(b.random(&format!("x{i}"), &[4]), &[4])).collect();
    for i in 1..count {
        let sum = if i == 1 { 0 } else { instrs.len() - 1 };
        instrs.push(Instr::Binary(BinaryOp::Add, sum, i));
    }
    let (y, value) = (b.output("y", &[4]), instrs.len() - 1);
    b.kernel(map(4, instrs, vec![store(y, &[4], value)]));
    let refused = device.compile(b.schedule).err();
    assert!(
        matches!(&refused, Some(Error::Limit(message)) if message.contains("storage buffers")),
        "{refused:?}"
    );
}

/// A step with every order-sensitive kernel gives the same bits every time.
#[test]
fn twenty_steps_twice_are_bit_identical() {
    let Some(devices) = common::devices() else { return };
    for (name, device) in &devices.0 {
        let runs: Vec<Vec<Vec<f32>>> = (0..2)
            .map(|_| {
                let g = ConvGeometry {
                    batch: 4,
                    height: 12,
                    width: 12,
                    in_channels: 8,
                    out_channels: 16,
                    kernel: [3, 3],
                    out_height: 12,
                    out_width: 12,
                    conv: Conv2d::new(1, 1),
                };
                let (xs, ws, ys) = ([4, 12, 12, 8], [16, 8, 3, 3], [4, 12, 12, 16]);
                let initial = (0..1152).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.004).collect();
                let weight = Variable::new("w", &ws, initial).unwrap();
                let mut b = Builder::new(5);
                let x = b.random("x", &xs);
                let w = b.state(&weight);
                let (y, dw) = (b.output("y", &ys), b.temporary(&ws, 0));
                let (mean, variance) = (b.output("mean", &[16]), b.output("variance", &[16]));
                let epilogue = plain(y, &ys);
                let (lhs, rhs) = (b.operand(x), b.operand(w));
                b.kernel(Body::Convolution {
                    kind: ConvKind::Forward,
                    geometry: g.clone(),
                    lhs,
                    rhs,
                    epilogue,
                });
                b.kernel(Body::Reduce {
                    shape: vec![16, 576],
                    outer: 1,
                    program: Program { instrs: vec![strided(y, 0, &[1, 16])] },
                    accumulators: vec![(ReduceKind::Sum, 0), (ReduceKind::Variance, 0)],
                    finish: Program { instrs: vec![Instr::Accumulator(0), Instr::Accumulator(1)] },
                    stores: vec![store(mean, &[16], 0), store(variance, &[16], 1)],
                });
                let (lhs, rhs) = (b.operand(x), b.operand(y));
                let epilogue = plain(dw, &ws);
                b.kernel(Body::Convolution { kind: ConvKind::WeightGrad, geometry: g, lhs, rhs, epilogue });
                let instrs = vec![
                    load(w, &[1152]),
                    load(dw, &[1152]),
                    Instr::Constant(-1e-3),
                    Instr::Binary(BinaryOp::Mul, 1, 2),
                    Instr::Binary(BinaryOp::Add, 0, 3),
                ];
                b.kernel(map(1152, instrs, vec![store(w, &[1152], 4)]));
                b.schedule.updated = vec![w];
                let mut run = device.compile(b.schedule.clone()).unwrap();
                let mut seen = Vec::new();
                for _ in 0..20 {
                    run.call(&[("x", Value::F32(&b.inputs[0].1))]).unwrap();
                    seen.push(run.output("variance").unwrap());
                    seen.push(run.output("mean").unwrap());
                }
                seen.push(device.read(&weight).unwrap());
                seen
            })
            .collect();
        let bits = |run: &Vec<Vec<f32>>| -> Vec<u32> { run.iter().flatten().map(|v| v.to_bits()).collect() };
        assert!(runs[0].iter().flatten().all(|v| v.is_finite()), "{name}");
        assert_ne!(runs[0][0], runs[0][2], "{name}: the weight moved");
        assert!(bits(&runs[0]) == bits(&runs[1]), "{name}: two runs differ");
    }
}

#[test]
fn the_profile_names_every_dispatch() {
    let Some(device) = first_device() else { return };
    let variable = Variable::full("v", &[1 << 16], 1.0);
    let b = accumulate(&variable);
    let mut run = device.compile(b.schedule.clone()).unwrap();
    run.call(&[("x", Value::F32(&b.inputs[0].1))]).unwrap();
    match run.profile() {
        Ok(profile) => {
            assert_eq!(profile.len(), 1);
            assert_eq!(profile[0].0, "kernel 0");
            assert!(profile[0].1 > 0.0 && profile[0].1 < 1.0, "{profile:?}");
        }
        Err(error) => assert!(error.to_string().contains("timestamp"), "{error}"),
    }
    assert!(run.bytes() >= (2 * 4) << 16);
}
