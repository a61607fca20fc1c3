//! Optimizers, learning rates, clipping and averages against PyTorch's trajectories; and that an optimizer that was
//! saved and loaded goes on bit for bit.

use autograd::{Tensor, Variable, VariableStore};
use nn::checkpoint::{self, Checkpoint, NamedTensor};
use nn::initialization::{Initialization, Initializer};
use nn::layers::Builder;
use nn::models::{Model, Network, Output};
use nn::{Adaptive, Average, Course, Forward, Optimizer, Rule, Schedule, Sgd, SgdOptions, clip_by_norm};
use schedule::{Device, Step, Value};
use sld_tests::compare::{assert_close, norm};
use sld_tests::{Fixture, Inputs, Program, runners};

const STEPS: usize = 6;
const RATE: f32 = 0.03125;

fn fixture() -> Fixture {
    Fixture::open("optimizers/optimizers.safetensors").expect("committed")
}

fn parameters(fixture: &Fixture) -> Vec<Variable> {
    let parameter = |i: usize| {
        let key = format!("start.{i}");
        Variable::new(format!("p{i}"), &fixture.shape(&key), fixture.f32(&key)).unwrap()
    };
    (0..2).map(parameter).collect()
}

fn gradients(parameters: &[Variable]) -> Vec<Tensor> {
    parameters.iter().map(|p| Tensor::input(format!("gradient of {}", p.name()), p.shape())).collect()
}

/// The optimizer of a case of the fixture, and the kinds of its state that PyTorch has too.
fn make(name: &str, parameters: &[Variable]) -> (Box<dyn Optimizer>, &'static [&'static str]) {
    let sgd = |nesterov| {
        let options = SgdOptions { momentum: 0.9, weight_decay: 0.1, nesterov, ..Default::default() };
        Box::new(Sgd::new(parameters, options))
    };
    let adaptive = |rule| Box::new(Adaptive::new(parameters, rule));
    let moments = &["exp_avg", "exp_avg_sq"];
    match name {
        "sgd" => (sgd(false), &["momentum_buffer"]),
        "nesterov" => (sgd(true), &["momentum_buffer"]),
        "adam" => (adaptive(Rule::adam(0.1)), moments),
        "adamw" => (adaptive(Rule::adamw(0.1)), moments),
        "lamb" => (adaptive(Rule::lamb(0.1)), moments),
        "rms_prop" => (adaptive(Rule::rms_prop(0.9, 0.1)), &["momentum_buffer", "square_avg"]),
        "rms_prop_plain" => (adaptive(Rule::rms_prop(0.0, 0.0)), &["square_avg"]),
        unknown => panic!("no optimizer {unknown}"),
    }
}

const NAMES: [&str; 7] = ["sgd", "nesterov", "adam", "adamw", "rms_prop", "rms_prop_plain", "lamb"];

#[test]
fn trajectories_are_pytorchs() {
    let fixture = fixture();
    for mut runner in runners(&["reference", "cpu", "gpu"]) {
        let tolerance = if runner.is_exact() { 1e-12 } else { 1e-6 };
        let (mut program, mut made) = (Program::new(), Vec::new());
        for name in NAMES {
            let parameters = parameters(&fixture);
            let (optimizer, kinds) = make(name, &parameters);
            let updates = optimizer.updates(&gradients(&parameters), &Tensor::input("rate", &[]));
            for (variable, value) in &updates {
                program = program.output(format!("{name}/{}", variable.name()), value);
            }
            program = program.updates(updates);
            made.push((name, kinds));
        }
        let call = |t: usize| {
            (0..2).fold(Inputs::new().f32("rate", vec![RATE]), |call, i| {
                call.f32(&format!("gradient of p{i}"), fixture.f32(&format!("gradient.{t}.{i}")))
            })
        };
        let outputs = runner.run(&program, &(1..=STEPS).map(call).collect::<Vec<_>>());
        for (name, kinds) in made {
            for i in 0..2 {
                for t in 1..=STEPS {
                    let what = format!("{name}/{t}.{i}");
                    let found = &outputs[t - 1][&format!("{name}/p{i}")];
                    assert_close(
                        &format!("{}: {what}", runner.name()),
                        found,
                        &fixture.values(&what),
                        tolerance,
                    );
                }
                for kind in kinds {
                    let own = if kind == &"momentum_buffer" && !name.starts_with("rms") {
                        "momentum"
                    } else {
                        kind
                    };
                    let found = &outputs[STEPS - 1][&format!("{name}/p{i}.{own}")];
                    let what = format!("{name}/state.{kind}.{i}");
                    assert_close(
                        &format!("{}: {what}", runner.name()),
                        found,
                        &fixture.values(&what),
                        tolerance,
                    );
                }
            }
        }
    }
}

/// A run of its own: parameters, optimizer and compiled step on a new device.
struct Run {
    device: cpu::CpuDevice,
    parameters: Vec<Variable>,
    optimizer: Box<dyn Optimizer>,
    step: Box<dyn schedule::Executable>,
}

impl Run {
    fn new(fixture: &Fixture, name: &str) -> Run {
        let device = cpu::CpuDevice::new(1);
        let parameters = parameters(fixture);
        let (optimizer, _) = make(name, &parameters);
        let updates = optimizer.updates(&gradients(&parameters), &Tensor::input("rate", &[]));
        let step = device.compile_step(&Step::new().updates(updates)).unwrap();
        Run { device, parameters, optimizer, step }
    }

    fn steps(&mut self, fixture: &Fixture, steps: std::ops::RangeInclusive<usize>) {
        for t in steps {
            let [a, b] = [0, 1].map(|i| fixture.f32(&format!("gradient.{t}.{i}")));
            let call = [("gradient of p0", Value::F32(&a)), ("gradient of p1", Value::F32(&b))];
            self.step.call(&[&call[..], &[("rate", Value::F32(&[RATE]))]].concat()).unwrap();
        }
    }

    fn values(&self) -> Vec<Vec<f32>> {
        self.parameters.iter().map(|p| self.device.read(p).unwrap()).collect()
    }
}

#[test]
fn going_on_from_a_file_is_never_having_stopped() {
    let fixture = fixture();
    let folder = tempfile::tempdir().unwrap();
    for name in NAMES {
        let mut whole = Run::new(&fixture, name);
        whole.steps(&fixture, 1..=3);
        let optimizer = Some(whole.optimizer.save(f64::from(RATE), &whole.device).unwrap());
        let halfway = whole.values();
        let tensors: Vec<NamedTensor> = whole
            .parameters
            .iter()
            .zip(&halfway)
            .map(|(p, values)| NamedTensor::f32(p.name(), p.shape(), values.clone()))
            .collect();
        whole.steps(&fixture, 4..=STEPS);
        for ending in ["pth", "safetensors"] {
            let path = folder.path().join(format!("{name}.{ending}"));
            let saved =
                Checkpoint { tensors: tensors.clone(), optimizer: optimizer.clone(), ..Default::default() };
            match ending {
                "pth" => checkpoint::write_pth(&path, &saved).unwrap(),
                _ => checkpoint::write_safetensors(&path, &saved).unwrap(),
            }
            let read = checkpoint::read(&path).unwrap().optimizer.unwrap();
            assert_eq!(Some(&read), optimizer.as_ref(), "{name}");
            let mut second = Run::new(&fixture, name);
            assert_eq!(second.optimizer.lacks(&read, 0..2), None, "{name}");
            second.optimizer.load(&read, &second.device).unwrap();
            second.optimizer.check(&second.device).unwrap();
            for (parameter, values) in second.parameters.iter().zip(&halfway) {
                second.device.write(parameter, values).unwrap();
            }
            second.steps(&fixture, 4..=STEPS);
            assert_eq!(second.values(), whole.values(), "{name}");
        }
    }
}

#[test]
fn the_state_of_another_optimizer_is_refused() {
    let fixture = fixture();
    let saved = |name: &str| {
        let mut run = Run::new(&fixture, name);
        run.steps(&fixture, 1..=1);
        run.optimizer.save(0.1, &run.device).unwrap()
    };
    for (own, other, told) in [
        ("sgd", "adam", "exp_avg"),
        ("adam", "sgd", "momentum_buffer"),
        ("adam", "rms_prop", "momentum_buffer"),
        ("rms_prop", "adam", "exp_avg"),
    ] {
        let run = Run::new(&fixture, own);
        let error = run.optimizer.load(&saved(other), &run.device).unwrap_err().to_string();
        assert!(error.contains(told), "{own} {other}: {error}");
        assert!(run.optimizer.lacks(&saved(other), 0..2).is_some(), "{own} {other}");
    }
}

#[test]
fn learning_rates_are_pytorchs() {
    let fixture = fixture();
    for (name, course) in [
        ("multi_step", Course::MultiStep { stages: vec![3, 7], factor: 0.1 }),
        ("step", Course::Step { every: 4, factor: 0.5 }),
        ("cosine", Course::Cosine),
        ("one_cycle", Course::OneCycle),
        ("warmup", Course::MultiStep { stages: vec![], factor: 0.1 }),
    ] {
        let warmup = if name == "warmup" { 3 } else { 0 };
        let schedule = Schedule { base: 0.8, epochs: 12, warmup, course };
        let found: Vec<f64> = (0..60).map(|step| schedule.rate(step / 5 + 1, step % 5, 5)).collect();
        for (step, (a, b)) in found.iter().zip(fixture.values(&format!("rates/{name}"))).enumerate() {
            assert!((a - b).abs() < 1e-12, "{name}, step {step}: {a} or {b}");
        }
    }
}

#[test]
fn clipping_is_pytorchs() {
    let fixture = fixture();
    for most in [1.0, 100.0] {
        let given: Vec<Tensor> = (0..2)
            .map(|i| {
                let key = format!("gradient.1.{i}");
                Tensor::constant(&fixture.shape(&key), fixture.f32(&key))
            })
            .collect();
        let clipped = clip_by_norm(&given, most);
        let mut all = Vec::new();
        for (i, tensor) in clipped.iter().enumerate() {
            let found = tensor.evaluate().unwrap();
            assert_close(&format!("{i}"), &found, &fixture.values(&format!("clip/{most:.0}.{i}")), 1e-12);
            all.extend(found);
        }
        assert!(most == 100.0 || (norm(&all) - 1.0).abs() < 1e-6, "{}", norm(&all));
    }
    assert!(clip_by_norm(&[], 1.0).is_empty());
}

struct One(Variable);

impl Network for One {
    fn forward(&self, images: &Tensor, _: &mut Forward) -> Output {
        let rows = images.reshape(&[images.dim(0), 3]);
        rows.matmul(&self.0.tensor()).into()
    }
}

#[test]
fn averages_are_pytorchs() {
    let fixture = fixture();
    let model = |b: &mut Builder| One(b.parameter("p", &[3, 4], |_| fixture.f32("start.0")));
    let initializer = || Initializer::new(Initialization::PYTORCH, 1);
    let [trained, average] = ["trained", "average"].map(|name| Model::new(name, 4, initializer(), model));
    let kept = Average::new(&trained, &average, 0.75).unwrap();
    let sgd = Sgd::new(
        &trained.parameters(),
        SgdOptions { momentum: 0.9, weight_decay: 0.1, ..Default::default() },
    );
    let mut updates = sgd.updates(&[Tensor::input("g", &[3, 4])], &Tensor::scalar(RATE.into()));
    updates.extend(kept.updates(&updates));
    let program = Program::new().updates(updates);
    for mut runner in runners(&["reference", "cpu"]) {
        let tolerance = if runner.is_exact() { 1e-12 } else { 1e-6 };
        for t in 1..=STEPS {
            runner.run(&program, &[Inputs::new().f32("g", fixture.f32(&format!("gradient.{t}.0")))]);
            let found = runner.read(&average.parameters()[0]);
            assert_close(&format!("step {t}"), &found, &fixture.values(&format!("average/{t}.0")), tolerance);
        }
    }
    let other = Model::new("other", 4, initializer(), |b| One(b.parameter("q", &[3, 4], |_| vec![0.0; 12])));
    let error = Average::new(&trained, &other, 0.5).err().expect("refused").to_string();
    assert!(error.contains("average of trained") && error.contains('p'), "{error}");
}
