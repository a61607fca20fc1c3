//! What the device tests share: the devices, a comparison with what a schedule means, and test schedules.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod build;

use std::io::Write;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use gpu::{GpuDevice, Options, Precision};
use reference::evaluate;
use schedule::{Device, Role, Schedule, Value};

pub use build::Builder;

/// The device in the configurations that kernels must work in, for one test alone.
pub struct Devices(pub Vec<(&'static str, MutexGuard<'static, GpuDevice>)>);

/// The configuration that only adapters with matrix units have. `gpu/src/emulated.rs` tests it on others.
const SPLIT: &str = "pairs of 16-bit floats";

/// A device by name, which one test at a time has.
type Member = (&'static str, Mutex<GpuDevice>);

/// The devices, or none (said loudly) where this machine has no adapter. With `CI` in the environment that is a failure.
/// Made once: software drivers do not bear devices being created at the same time.
fn members() -> &'static [Member] {
    static MEMBERS: OnceLock<Vec<Member>> = OnceLock::new();
    MEMBERS.get_or_init(|| {
        let everything = Options { checked: true, ..Options::default() };
        let configurations = [
            ("all features", everything),
            ("WebGPU limits", Options { webgpu_limits: true, ..everything }),
            ("unchecked shaders", Options { checked: false, ..everything }),
            ("mixed precision", Options { precision: Precision::Mixed, ..everything }),
            (SPLIT, Options { precision: Precision::Split, ..everything }),
        ];
        let mut members = Vec::new();
        for (name, options) in configurations {
            match GpuDevice::open(std::env::var("SLD_TEST_ADAPTER").ok().as_deref(), options) {
                // Without matrix units it would be the first once more.
                Ok(device) if name == SPLIT && device.precision() != Precision::Split => {}
                Ok(device) => members.push((name, Mutex::new(device))),
                Err(error) => {
                    assert!(std::env::var_os("CI").is_none(), "CI must have an adapter: {error}");
                    // Not `eprintln`, which the test harness hides.
                    let _ = writeln!(std::io::stderr(), "\n*** GPU TESTS SKIPPED: {error} ***\n");
                    return Vec::new();
                }
            }
        }
        members
    })
}

fn lock(device: &Mutex<GpuDevice>) -> MutexGuard<'_, GpuDevice> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All of them, or `None` where this machine has no adapter.
pub fn devices() -> Option<Devices> {
    let members: Vec<_> = members().iter().map(|(name, device)| (*name, lock(device))).collect();
    (!members.is_empty()).then_some(Devices(members))
}

/// Runs the builder's schedule with and without optional features (with bounds checks in the shaders),
/// and compares all outputs with [`evaluate`]: each value within `tolerance` of the reference,
/// relative to the largest magnitude of its tensor.
pub fn check(builder: &Builder, tolerance: f64) {
    check_on(builder, tolerance, 2);
}

/// The same, and without bounds checks as well.
pub fn check_unchecked_too(builder: &Builder, tolerance: f64) {
    check_on(builder, tolerance, 3);
}

/// Runs the builder's schedule in mixed precision and compares all outputs with [`evaluate`], each value
/// within `tolerance` of the reference relative to the largest magnitude of its tensor. Returns the
/// largest difference, or `None` where the adapter has no 16-bit floats.
pub fn check_mixed(builder: &Builder, tolerance: f64) -> Option<f64> {
    let expected = evaluate(&builder.schedule, &builder.inputs);
    let (name, device) = members().get(3)?;
    let device = &lock(device);
    if device.precision() != Precision::Mixed {
        eprintln!("\n*** MIXED PRECISION NOT TESTED: no 16-bit floats ***\n");
        return None;
    }
    let mut largest = 0.0f64;
    for (output, expected) in run(device, &builder.schedule, &builder.inputs).iter().zip(&expected) {
        compare(name, output, expected, tolerance);
        let scale = expected.iter().fold(1e-30, |m: f64, v| m.max(f64::from(v.abs())));
        let differences = output.1.iter().zip(expected).map(|(&g, e)| f64::from((g - e).abs()) / scale);
        largest = differences.fold(largest, f64::max);
    }
    Some(largest)
}

fn check_on(builder: &Builder, tolerance: f64, configurations: usize) {
    let expected = evaluate(&builder.schedule, &builder.inputs);
    // Side by side: a software driver compiles a kernel at its first dispatch, on one thread.
    let split = members().iter().filter(|(name, _)| *name == SPLIT);
    let chosen = members().iter().take(configurations).chain(split);
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let mut running = Vec::new();
        for (name, device) in chosen {
            running.push((*name, scope.spawn(|| run(&lock(device), &builder.schedule, &builder.inputs))));
        }
        running.into_iter().map(|(name, run)| (name, run.join())).collect()
    });
    for (name, outputs) in outputs {
        let outputs = outputs.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        for (output, expected) in outputs.iter().zip(&expected) {
            compare(name, output, expected, tolerance);
        }
    }
}

/// Values in [-1, 1) for all inputs.
pub fn inputs(schedule: &Schedule, seed: u32) -> Vec<(String, Vec<f32>)> {
    let named = schedule.buffers.iter().filter_map(|buffer| match &buffer.role {
        Role::Input { name, .. } => Some((name.clone(), buffer.len())),
        _ => None,
    });
    let values = |(stream, (name, len))| {
        let value = |i| autograd::random::uniform(seed, 0, stream as u32, i as u32) * 2.0 - 1.0;
        (name, (0..len).map(value).collect())
    };
    named.enumerate().map(values).collect()
}

/// All outputs after one call.
pub fn run(
    device: &GpuDevice,
    schedule: &Schedule,
    inputs: &[(String, Vec<f32>)],
) -> Vec<(String, Vec<f32>)> {
    let mut executable = device.compile(schedule.clone()).unwrap();
    let integer: Vec<Vec<i32>> =
        inputs.iter().map(|(_, values)| values.iter().map(|&v| v as i32).collect()).collect();
    let given: Vec<(&str, Value)> = inputs
        .iter()
        .zip(&integer)
        .map(|((name, values), integer)| {
            let value = if name.starts_with("int") { Value::I32(integer) } else { Value::F32(values) };
            (name.as_str(), value)
        })
        .collect();
    executable.call(&given).unwrap();
    let names: Vec<String> = schedule.outputs.iter().map(|(name, _)| name.clone()).collect();
    names.into_iter().map(|name| (name.clone(), executable.output(&name).unwrap())).collect()
}

fn compare(device: &str, (name, got): &(String, Vec<f32>), expected: &[f32], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{device}: size of `{name}`");
    let scale = expected.iter().filter(|v| v.is_finite()).fold(1e-30, |m: f64, v| m.max(f64::from(v.abs())));
    for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
        let same = if e.is_nan() {
            g.is_nan()
        } else if e.is_infinite() {
            g == e
        } else {
            f64::from((g - e).abs()) <= tolerance * scale
        };
        assert!(same, "{device}: `{name}`[{i}] is {g}, expected {e} (largest {scale})");
    }
}
