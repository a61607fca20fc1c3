//! Ten steps of training are the same in a browser, on both of its devices, as natively on the CPU device.
//!
//! Natively this checks the numbers that the browser has to reach, `ten_steps.json`; in headless Chromium
//! (`scripts/web_test`) they are compared with what WebGPU and the CPU device give there.

use std::sync::Arc;

use cpu::CpuDevice;
use nn::Schedule;
use schedule::Device;
use sld::data::synthetic::{SyntheticConfig, generate};
use sld::distill::{Distiller, Kd, Sld, Vanilla};
use sld::training::Metric;
use web::learner::{Learner, Plan};
use web::networks;

/// The losses of every case, as the native CPU device gives them.
const EXPECTED: &str = include_str!("ten_steps.json");
/// How far the device may be from them, relative to the loss where that is over 1. (Distillation multiplies small
/// differences of logarithms by 16: of a loss of 0.2 the first step alone is 1e-6 to 5e-6 off in f32.)
const TOLERANCE: f64 = 1e-5;

/// Ten losses each of a perceptron that learns alone and of one that SLD teaches (two views, swaps, the gate open
/// from the second epoch), and of a convolutional network (batch norm) that learns with KD.
async fn losses(device: &dyn Device) -> Vec<(String, Vec<f64>)> {
    let config = SyntheticConfig { classes: 4, train: 64, test: 4, ..SyntheticConfig::default() };
    let train = Arc::new(generate(&config).expect("a task").train);
    let network = |name: &str, seed| networks::build(name, 4, seed).expect("a network");
    let cases: [(&str, &str, Box<dyn Distiller>); 3] = [
        ("perceptron16", "perceptron32", Box::new(Vanilla {})),
        ("perceptron16", "perceptron32", Box::new(Sld { gate_epoch: 1, ..Sld::default() })),
        ("convnet4", "convnet4", Box::new(Kd::default())),
    ];
    let mut all = Vec::new();
    for (student, teacher, method) in cases {
        let name = format!("{student}, {}", method.name());
        let rate = Schedule::multi_step(0.01, &[], 0.1);
        let plan = Plan { batch: 8, epochs: 2, rate, seed: 5 };
        let (student, teacher) = (network(student, 1), network(teacher, 2));
        let mut learner =
            Learner::new(device, student, Some(&teacher), method, &train, plan).expect("a step");
        let mut losses = Vec::new();
        for _ in 0..10 {
            let progress = learner.advance().await.expect("a step's answer");
            losses.push(f64::from(progress.get(Metric::Loss).expect("a loss")));
        }
        all.push((name, losses));
    }
    all
}

/// Compares the losses of a device with the expected ones.
fn compare(device: &str, found: &[(String, Vec<f64>)]) {
    let expected: Vec<(String, Vec<f64>)> = serde_json::from_str(EXPECTED).expect("a list of losses");
    assert_eq!(found.len(), expected.len());
    for ((name, found), (wanted, expected)) in found.iter().zip(&expected) {
        assert_eq!(name, wanted);
        let apart = |(a, b): (&f64, &f64)| (a - b).abs() / b.abs().max(1.0);
        let worst = found.iter().zip(expected).map(apart).fold(0.0, f64::max);
        assert!(
            found.len() == 10 && worst <= TOLERANCE,
            "{device}: {name} is {worst:.1e} off: {found:?} for {expected:?}"
        );
    }
}

#[cfg(not(target_family = "wasm"))]
mod native {
    use super::*;

    #[test]
    fn the_cpu_device_gives_the_numbers_that_a_browser_is_held_to() {
        let found =
            schedule::pending::wait::<_, autograd::Error>(async { Ok(losses(&CpuDevice::new(1)).await) });
        let found = found.expect("natively nothing is pending");
        if std::env::var_os("UPDATE").is_some() {
            let text = serde_json::to_string_pretty(&found).expect("numbers") + "\n";
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ten_steps.json"), text)
                .expect("written");
            return;
        }
        compare("the native CPU device", &found);
    }
}

#[cfg(target_family = "wasm")]
mod browser {
    use super::*;
    use gpu::GpuDevice;
    use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};

    wasm_bindgen_test_configure!(run_in_browser);

    #[wasm_bindgen_test]
    async fn the_cpu_device_trains_as_natively() {
        compare("the CPU device", &losses(&CpuDevice::new(1)).await);
    }

    #[wasm_bindgen_test]
    async fn webgpu_trains_as_the_native_cpu_device() {
        let adapters = gpu::adapters_async().await;
        let adapter = adapters.first().expect("a browser with WebGPU");
        let device = GpuDevice::with_adapter_async(adapter, gpu::Options::default()).await.expect("a device");
        compare("WebGPU", &losses(&device).await);
    }
}
