//! Whole training steps of methods that read features, and of the distillation-oriented trainer, against the
//! reference's trainer in float64: resnet20 teaches resnet8, batch 4.

use std::cell::RefCell;

use nn::layers::Kind;
use nn::{Dot, Model, SgdOptions, models};
use schedule::Device;
use serde_json::Value;
use sld::distill::{Distiller, Method, Own, crd};
use sld::setting::Given;
use sld::training::{Metric, Networks, Scalars, Setup, TrainStep};
use sld_tests::compare::{assert_close, norm};
use sld_tests::{Fixture, Inputs, Program, adapter, formula, runners};

const BATCH: usize = 4;

/// The method with the constants of the fixture.
fn configured(name: &str, constants: &Value) -> Box<dyn Distiller> {
    let mut method = Method::find(name).unwrap().make();
    for (key, value) in constants.as_object().unwrap() {
        if let Some(set) = method.set(key, &Given::Word(value.to_string().into())) {
            set.unwrap();
        }
    }
    method
}

struct Run<'a> {
    name: &'a str,
    fixture: &'a Fixture,
    method: Box<dyn Distiller>,
    networks: Networks,
    misses: RefCell<Vec<String>>,
}

impl<'a> Run<'a> {
    fn new(name: &'a str, fixture: &'a Fixture) -> Run<'a> {
        let method = configured(&fixture.metadata("distiller"), &fixture.json("config"));
        let build = |name| models::build(name, 100, 0).unwrap();
        let setup = Setup {
            options: SgdOptions::default(),
            dot: name.starts_with("dot").then_some(0.075),
            images: fixture.json("num_data").as_u64().unwrap() as usize,
            ..Setup::default()
        };
        let networks = Networks::new(build("resnet8"), Some(build("resnet20")), &*method, setup).unwrap();
        Run { name, fixture, method, networks, misses: RefCell::default() }
    }

    /// Every parameter's name as the fixture has it, in the optimizer's order.
    fn names(&self) -> Vec<String> {
        let of_student = self.networks.student.parameters().len();
        let parameters = self.networks.optimizer.parameters();
        let named = parameters.iter().enumerate().map(|(i, p)| match i < of_student {
            true => format!("student.{}", p.name()),
            false => p.name().to_owned(),
        });
        named.collect()
    }

    fn load(&self, device: &dyn Device) {
        let write = |salt: &str, model: &Model| {
            for (entry, values) in model.state().iter().zip(formula::model_state(salt, model)) {
                device.write(&entry.variable, &values).unwrap();
            }
        };
        write("features/student", &self.networks.student);
        write("features/teacher", self.networks.teacher.as_ref().unwrap());
        let salt = format!("features/steps/{}", self.name);
        let names: Vec<&str> = self.networks.modules.iter().map(|e| e.variable.name()).collect();
        for entry in &self.networks.modules {
            let (name, shape) = (entry.variable.name(), entry.variable.shape());
            let is_norm = names.contains(&name.replace(".bias", ".running_mean").as_str());
            let values = match entry.kind {
                Kind::Memory if name == "contrast.params" => continue,
                Kind::Memory => {
                    let scale = (3.0 / shape[1] as f64).sqrt();
                    formula::values(&format!("{salt}/{name}"), entry.variable.len(), 0.0, scale)
                }
                _ if name.ends_with(".bias") && !is_norm => {
                    formula::layer_bias(&salt, name, entry.variable.len())
                }
                _ => formula::state(&salt, name, shape),
            };
            device.write(&entry.variable, &values).unwrap();
        }
    }

    /// The inputs of CRD that the reference drew.
    fn own(&self, step: usize) -> Vec<(&'static str, Own)> {
        let key = |part: &str| format!("step{step}/{part}");
        if !self.fixture.has(&key("contrastive_index")) {
            return Vec::new();
        }
        let drawn = self.fixture.i32(&key("contrastive_index"));
        let width = self.fixture.shape(&key("contrastive_index"))[1];
        let rows = || drawn.chunks(width);
        let negatives: Vec<Vec<u32>> =
            rows().map(|row| row[1..].iter().map(|&i| i as u32).collect()).collect();
        vec![
            (crd::INPUTS[0], Own::I32(self.fixture.i32(&key("index")))),
            (crd::INPUTS[1], Own::I32(rows().map(|row| row[0]).collect())),
            (crd::INPUTS[2], Own::F32(crd::counts(&negatives, self.networks.images))),
        ]
    }

    /// Compares a tensor with what the fixture has of it: all, or sum, length and a sample.
    fn compare(&self, what: &str, key: &str, actual: &[f64], tolerance: f64, floor: f64) {
        let close = |part: &str, is: &[f64], wanted: &[f64], scale: f64| {
            let distance = norm(&is.iter().zip(wanted).map(|(a, b)| a - b).collect::<Vec<_>>());
            assert_eq!(is.len(), wanted.len(), "{what} {part}");
            let scale = norm(wanted).max(scale).max(floor);
            if distance > tolerance * scale {
                let shown = |values: &[f64]| format!("{:?}", &values[..values.len().min(4)]);
                let off = distance / scale;
                let line = format!("{what} {part}: off by {off:.1e}: {} {}", shown(is), shown(wanted));
                self.misses.borrow_mut().push(line);
            }
        };
        if self.fixture.has(key) {
            return close("", actual, &self.fixture.values(key), 0.0);
        }
        let stats = self.fixture.values(&format!("{key}#stats"));
        close("length", &[norm(actual)], &stats[1..], 0.0);
        // A sum may cancel, a sample may be small: beside the whole.
        close("sum", &[actual.iter().sum()], &stats[..1], stats[1] * (actual.len() as f64).sqrt());
        let n = actual.len();
        let sample: Vec<f64> = (0..32).map(|j| actual[j * (n - 1) / 31]).collect();
        let share = (32.0 / n as f64).sqrt();
        close("sample", &sample, &self.fixture.values(&format!("{key}#sample")), stats[1] * share);
    }

    fn check(&self, device: &dyn Device) {
        let names = self.names();
        let stored: Vec<String> = serde_json::from_value(self.fixture.json("params")).unwrap();
        assert_eq!(names, stored, "{}: the optimizer's order", self.name);
        self.load(device);
        let mut step = TrainStep::compile(device, &self.networks, &*self.method, BATCH, [32, 32]).unwrap();
        let floors = self.fixture.json("f32_vs_f64");
        // Twice what PyTorch's own f32 misses, but not less than 1e-5.
        let tolerance = |kind: &str| (2.0 * floors[kind].as_f64().unwrap()).max(1e-5);
        let steps = self.fixture.json("losses").as_array().unwrap().len();
        for number in 1..=steps {
            let key = |part: &str| format!("step{number}/{part}");
            let what = |part: &str| format!("{} on {}, step {number}: {part}", self.name, device.name());
            let salt =
                self.fixture.json("salts")["image"].as_str().unwrap().replace("<step>", &number.to_string());
            let images = formula::images(&salt, BATCH);
            let labels = self.fixture.i32(&key("target"));
            let factor = self.method.factor(1).map(|f| f as f32);
            let values = step.run(&images, &labels, Scalars::new(0.05, factor), &self.own(number)).unwrap();
            let metrics: Vec<(Metric, f64)> =
                step.metrics().iter().copied().zip(values.into_iter().map(f64::from)).collect();
            let terms: Vec<f64> =
                metrics.iter().filter(|m| matches!(m.0, Metric::Term(_))).map(|m| m.1).collect();
            let losses = [terms[0], terms[1..].iter().sum()];
            for (part, is) in ["loss_ce", "loss_kd"].into_iter().zip(losses) {
                let expected = self.fixture.values(&key(part));
                let sum = self.fixture.values(&key("loss_ce"))[0] + self.fixture.values(&key("loss_kd"))[0];
                let error = (is - expected[0]).abs() / expected[0].abs().max(1e-2 * sum);
                assert!(error <= tolerance("losses"), "{}: {is} {}, {error:.1e}", what(part), expected[0]);
            }
            let saved = self.networks.optimizer.save(0.05, device).unwrap();
            let group =
                |kind: &str| if kind == "momentum_buffer" { &saved.momentum } else { &saved.momentum_kd };
            let bias_scale = |name: &str| match name == "conv_reg.conv.bias" {
                // Batch norm cancels its gradient: beside the weight's.
                true => {
                    self.fixture.values(&key("momentum_buffer/conv_reg.conv.weight#stats")).get(1).copied()
                }
                false => None,
            };
            for (position, (name, parameter)) in
                names.iter().zip(self.networks.optimizer.parameters()).enumerate()
            {
                let values: Vec<f64> = device.read(&parameter).unwrap().into_iter().map(f64::from).collect();
                self.compare(&what(name), &key(&format!("param/{name}")), &values, tolerance("params"), 0.0);
                for kind in ["momentum_buffer", "momentum_kd_buffer"] {
                    let stored = key(&format!("{kind}/{name}"));
                    let is_there = self.fixture.has(&stored) || self.fixture.has(&format!("{stored}#stats"));
                    let Some(buffer) = group(kind).get(&position) else {
                        assert!(!is_there, "{}: {kind} is missing", what(name));
                        continue;
                    };
                    assert!(is_there, "{}: no {kind} in the reference", what(name));
                    if kind == "momentum_kd_buffer" && name == "conv_reg.conv.bias" {
                        continue;
                    }
                    let floor = if kind == "momentum_buffer" && !self.name.starts_with("dot") {
                        bias_scale(name).unwrap_or(0.0)
                    } else {
                        0.0
                    };
                    let values = buffer.data.to_f64();
                    self.compare(&what(&stored), &stored, &values, tolerance("gradients"), floor);
                }
            }
            let teacher = self.networks.learning_teacher().into_iter().flat_map(|t| t.state());
            let entries = (self.networks.student.state().iter().map(|e| (e, "student.")))
                .chain(teacher.map(|e| (e, "teacher.")))
                .chain(self.networks.modules.iter().map(|e| (e, "")));
            for (entry, prefix) in entries.filter(|(entry, _)| entry.kind != Kind::Parameter) {
                let name = format!("{prefix}{}", entry.variable.name());
                let values: Vec<f64> =
                    device.read(&entry.variable).unwrap().into_iter().map(f64::from).collect();
                self.compare(
                    &what(&name),
                    &key(&format!("buffer/{name}")),
                    &values,
                    tolerance("buffers"),
                    1e-3,
                );
            }
        }
        let misses = self.misses.borrow();
        assert!(misses.is_empty(), "{} misses:\n{}", misses.len(), misses.join("\n"));
    }
}

fn check(name: &str) {
    let fixture = Fixture::open(&format!("features/steps/{name}.safetensors")).expect("committed");
    Run::new(name, &fixture).check(&cpu::CpuDevice::new(2));
    if let Some(gpu) = adapter::shared() {
        let _turn = adapter::turn();
        Run::new(name, &fixture).check(gpu);
    }
}

macro_rules! steps {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*
    };
}

steps! { fitnet at nst pkt kdsvd ofd vid sp crd reviewkd dot_kd dot_fitnet dot_crd }

/// The loss and its gradients to the features agree with float64 (`features.rs`). Of the student's first step the
/// biases before the first ReLUs do not, by 4e-4, and all else does: as if one ReLU input that is nearly 0 had the
/// other sign. Not shown yet: it wants the rule of `tests/src/kinks.rs` in these trajectories.
#[test]
#[ignore = "off by 4e-4 in the first biases, probably a ReLU input on the other side of 0"]
fn rkd() {
    check("rkd");
}

/// Five parameters with every pattern of gradients that are and are not there, and a rate that changes.
#[test]
fn two_momenta_are_the_references() {
    let fixture = Fixture::open("features/dot.safetensors").expect("committed");
    let number = |key: &str| fixture.json(key).as_f64().unwrap();
    let names: Vec<String> = serde_json::from_value(fixture.json("params")).unwrap();
    let rates: Vec<f64> = serde_json::from_value(fixture.json("lr")).unwrap();
    let options = SgdOptions {
        momentum: number("momentum"),
        weight_decay: number("weight_decay"),
        ..Default::default()
    };
    for mut runner in runners(&["reference", "cpu", "gpu"]) {
        let initial = |name: &String| {
            let key = format!("init/{name}");
            autograd::Variable::new(name, &fixture.shape(&key), fixture.f32(&key)).unwrap()
        };
        let parameters: Vec<autograd::Variable> = names.iter().map(initial).collect();
        let dot = Dot::with_gradients(&parameters, vec![[true, true]; 5], options, number("delta"));
        let tolerance = if runner.is_exact() { 1e-6 } else { 1e-5 };
        for (step, rate) in rates.iter().enumerate() {
            let step = step + 1;
            let mut call = Inputs::new().f32("rate", vec![*rate as f32]);
            let mut gradients = Vec::new();
            for name in &names {
                gradients.push(["grad_task", "grad_kd"].map(|kind| {
                    let key = format!("step{step}/{kind}/{name}");
                    fixture.has(&key).then(|| {
                        call = std::mem::take(&mut call).f32(&key, fixture.f32(&key));
                        autograd::Tensor::input(&key, &fixture.shape(&key))
                    })
                }));
            }
            let updates = dot.step(&gradients, &autograd::Tensor::input("rate", &[]));
            runner.run(&Program::new().updates(updates), std::slice::from_ref(&call));
            for ((name, parameter), buffers) in names.iter().zip(&parameters).zip(dot.momenta()) {
                let kinds =
                    [("p", parameter), ("momentum_buffer", &buffers[0]), ("momentum_kd_buffer", &buffers[1])];
                for (kind, variable) in kinds {
                    let key = format!("step{step}/{kind}/{name}");
                    if fixture.has(&key) {
                        let what = format!("{}: {key}", runner.name());
                        assert_close(&what, &runner.read(variable), &fixture.values(&key), tolerance);
                    }
                }
            }
        }
    }
}
