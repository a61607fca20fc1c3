//! What a replayed step costs the host: microseconds a kernel, of a step of 500 small kernels.
//!
//! `cargo bench -p gpu --bench overhead`; the environment variable `SLD_ADAPTER` chooses the adapter.
//! Measured is the time inside `call`, which encodes and submits; the device works meanwhile and is
//! waited for before the next call. The least is what other programs disturb the least.

use std::time::Instant;

use autograd::Error;
use autograd::tensor::UnaryOp;
use gpu::{GpuDevice, Options};
use schedule::*;

const KERNELS: usize = 500;
const ELEMENTS: usize = 256;
const CALLS: usize = 50;

fn main() -> Result<(), Error> {
    let wanted = std::env::var("SLD_ADAPTER").ok();
    let options = Options { checked: false, ..Options::default() };
    let device = GpuDevice::open(wanted.as_deref(), options)?;
    let mut executable = device.compile(schedule())?;
    let values = vec![0.5f32; ELEMENTS];
    let mut times = Vec::new();
    for call in 0..CALLS + 5 {
        let start = Instant::now();
        executable.call(&[("x", Value::F32(&values))])?;
        let seconds = start.elapsed().as_secs_f64();
        device.wait()?;
        // The first calls still create things.
        if call >= 5 {
            times.push(seconds * 1e6 / KERNELS as f64);
        }
    }
    times.sort_by(f64::total_cmp);
    println!("{}: a step of {KERNELS} small kernels", device.name());
    println!("host time a kernel: median {:.2} us, least {:.2} us", times[CALLS / 2], times[0]);
    Ok(())
}

/// A chain of elementwise kernels of four kinds.
fn schedule() -> Schedule {
    let shape = vec![ELEMENTS];
    let buffer = |role, label: &str| Buffer {
        shape: shape.clone(),
        role,
        label: label.into(),
        scope: Default::default(),
    };
    let mut buffers = vec![buffer(Role::Input { name: "x".into(), integer: false }, "x")];
    let mut kernels = Vec::new();
    let operations = [UnaryOp::Tanh, UnaryOp::Neg, UnaryOp::Exp, UnaryOp::Floor];
    for number in 0..KERNELS {
        let is_last = number + 1 == KERNELS;
        let role = if is_last { Role::Output } else { Role::Temporary { slot: number % 2 } };
        buffers.push(buffer(role, "value"));
        let view = View::dense(&shape);
        let load = Instr::Load { buffer: number, view: view.clone() };
        let operation = Instr::Unary(operations[number % operations.len()], 0);
        let stores = vec![Store { buffer: number + 1, view, value: 1 }];
        let body = Body::map(shape.clone(), Program { instrs: vec![load, operation] }, stores);
        kernels.push(Kernel { label: "small".into(), body });
    }
    let slots = vec![ELEMENTS; 2];
    Schedule { buffers, kernels, slots, outputs: vec![("y".into(), KERNELS)], ..Default::default() }
}
