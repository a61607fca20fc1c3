//! What a replayed step costs the host: microseconds a kernel, of a step of 500 small kernels.
//!
//! `cargo bench -p gpu --bench overhead`; the environment variable `SLD_ADAPTER` chooses the adapter.
//! Measured is the time inside `call`, which encodes and submits; the device works meanwhile and is
//! waited for before the next call. Where the system tells a thread's processor time, that is printed
//! as well: other programs disturb it less.

use std::time::Instant;

use autograd::schedule::ir::*;
use autograd::tensor::UnaryOp;
use autograd::{Device, Error, Schedule, Value};
use gpu::{GpuDevice, Options};

const KERNELS: usize = 500;
const ELEMENTS: usize = 256;
const CALLS: usize = 50;

fn main() -> Result<(), Error> {
    let wanted = std::env::var("SLD_ADAPTER").ok();
    let options = Options { checked: false, ..Options::default() };
    let device = GpuDevice::open(wanted.as_deref(), options)?;
    let mut executable = device.compile(schedule())?;
    let values = vec![0.5f32; ELEMENTS];
    let (mut wall, mut processor) = (Vec::new(), Vec::new());
    for call in 0..CALLS + 5 {
        let start = (Instant::now(), thread_seconds());
        executable.call(&[("x", Value::F32(&values))])?;
        let seconds = start.0.elapsed().as_secs_f64();
        let busy = thread_seconds().zip(start.1).map(|(now, before)| now - before);
        device.wait()?;
        // The first calls still create things.
        if call >= 5 {
            wall.push(seconds);
            processor.extend(busy);
        }
    }
    let us = |times: &mut Vec<f64>| -> Option<(f64, f64)> {
        times.sort_by(f64::total_cmp);
        let scale = 1e6 / KERNELS as f64;
        Some((times.get(times.len() / 2)? * scale, times.first()? * scale))
    };
    println!("{}: a step of {KERNELS} small kernels", device.name());
    if let Some((median, least)) = us(&mut wall) {
        println!("host time a kernel: median {median:.2} us, least {least:.2} us");
    }
    if let Some((median, least)) = us(&mut processor) {
        println!("of which processor time: median {median:.2} us, least {least:.2} us");
    }
    Ok(())
}

/// A chain of elementwise kernels of four kinds.
fn schedule() -> Schedule {
    let shape = vec![ELEMENTS];
    let buffer = |role, label: &str| Buffer { shape: shape.clone(), role, label: label.into() };
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
        let body = Body::Map {
            shape: shape.clone(),
            program: Program { instrs: vec![load, operation] },
            stores: vec![Store { buffer: number + 1, view, value: 1 }],
        };
        kernels.push(Kernel { label: "small".into(), body });
    }
    let slots = vec![ELEMENTS; 2];
    Schedule { buffers, kernels, slots, outputs: vec![("y".into(), KERNELS)], ..Default::default() }
}

/// Processor time of this thread so far, where the system tells.
fn thread_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? * 1e-9)
}
