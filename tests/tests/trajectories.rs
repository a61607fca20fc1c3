//! Whole training steps against the reference's trainer: wrn_16_2 teaches wrn_16_1 by SLD, batch 8.

use autograd::{Tensor, grad};
use nn::layers::Modules;
use nn::{Forward, Model, Schedule, Sgd, SgdOptions, models};
use serde_json::Value as Json;
use sld::distill::{Batch, Distiller, Sld};
use sld_tests::compare::{assert_close, norm};
use sld_tests::kinks::{Follower, Rounding, misses};
use sld_tests::runner::Reference;
use sld_tests::{Fixture, Inputs, Program, Runner, fixture, formula, runners};

const BATCH: usize = 8;

/// The reference's step as one program.
struct Setup {
    /// What the keys of weights and images begin with.
    salt: String,
    teacher: Model,
    student: Model,
    sgd: Sgd,
    program: Program,
}

impl Setup {
    /// With `separate`, the student sees the views in two passes, as the reference does; else stacked.
    fn new(name: &str, separate: bool, gradients_as_outputs: bool) -> Setup {
        let salt =
            name.strip_prefix("weights_").map_or("traj".to_string(), |number| format!("traj/{number}"));
        let teacher = models::build("wrn_16_2", 100, 1).unwrap();
        let student = models::build("wrn_16_1", 100, 2).unwrap();
        let [weak, strong] = ["weak", "strong"].map(|view| Tensor::input(view, &[BATCH, 32, 32, 3]));
        let stacked = Tensor::concatenate(&[&weak, &strong], 0);
        let mut train = Forward::train(if separate { 1 } else { 2 });
        let student_logits = if separate {
            let [w, s] = [weak, strong].map(|view| student.forward(&view, &mut train).logits);
            Tensor::concatenate(&[&w, &s], 0)
        } else {
            student.forward(&stacked, &mut train).logits
        };
        let batch = Batch::of_logits(
            student_logits,
            Some(teacher.forward(&stacked, &mut Forward::eval()).logits),
            Tensor::input_i32("labels", &[BATCH]),
            Tensor::input("factor", &[]),
        );
        let student_logits = batch.student.logits.clone();
        let loss = Sld::default().loss(&batch, &mut Modules::new(0));
        let sgd = Sgd::new(&student.parameters(), SgdOptions::default());
        let gradients = grad(&loss.total, &sgd.tensors());
        let mut program =
            Program::new().output("total", &loss.total).output("student_weak", &batch.weak(&student_logits));
        for (name, term) in &loss.terms {
            program = program.output(*name, term);
        }
        if gradients_as_outputs {
            for (parameter, gradient) in sgd.parameters().iter().zip(&gradients) {
                program = program.output(parameter.name(), gradient);
            }
        }
        let updates = sgd.updates(&gradients, &Tensor::input("lr", &[]));
        let program = program.updates(updates).updates(train.into_updates());
        Setup { salt, teacher, student, sgd, program }
    }

    fn load(&self, runner: &mut dyn Runner) {
        for model in [&self.teacher, &self.student] {
            let values = formula::model_state(&format!("{}/{}", self.salt, model.name()), model);
            for (entry, values) in model.state().iter().zip(values) {
                runner.write(&entry.variable, &values);
            }
        }
    }

    fn images(&self, view: &str, step: usize) -> Vec<f32> {
        formula::images(&format!("{}/{view}/{step}", self.salt), BATCH)
    }

    fn call(&self, epoch: usize, step: usize, labels: Vec<i32>, rate: f64) -> Inputs {
        Inputs::new()
            .f32("weak", self.images("weak", step))
            .f32("strong", self.images("strong", step))
            .i32("labels", labels)
            .f32("lr", vec![rate as f32])
            .f32("factor", vec![Sld::default().factor(epoch).unwrap() as f32])
    }
}

/// A trajectory as PyTorch computed it in float64.
struct Recorded {
    fixture: Fixture,
    calls: Vec<Inputs>,
    /// What PyTorch's own f32 is off by at the end.
    rounding: Json,
}

impl Recorded {
    fn open(name: &'static str, setup: &Setup) -> Option<Recorded> {
        let fixture = Fixture::open(&format!("traj/{name}.safetensors"))?;
        let schedule: Vec<[usize; 2]> = serde_json::from_value(fixture.json("schedule")).unwrap();
        let rates: Vec<f64> = serde_json::from_value(fixture.json("report")["lr"].clone()).unwrap();
        let targets = fixture.i32("target");
        let of_step = |(&[epoch, step], &rate): (&[usize; 2], &f64)| {
            setup.call(epoch, step, targets[step * BATCH..][..BATCH].to_vec(), rate)
        };
        let calls = schedule.iter().zip(&rates).map(of_step).collect();
        if name == "boundary" {
            let lr = Schedule::multi_step(rates[0], &[150, 180, 210], 0.1);
            let ours = |epoch| lr.rate(epoch, 0, 1);
            schedule.iter().zip(&rates).for_each(|(s, rate)| assert!((ours(s[0]) - rate).abs() < 1e-15));
        }
        let rounding = fixture::json("traj/rounding.json")[name].clone();
        Some(Recorded { fixture, calls, rounding })
    }

    /// Twice what PyTorch's worst variant is off by, and a plain tolerance where all of them were lucky.
    fn tolerance(&self, kind: &str) -> f64 {
        1e-5f64.max(2.0 * self.rounding[kind].as_f64().unwrap())
    }
}

/// Eight steps of the evaluator in f64 against PyTorch's: losses, logits, and where parameters and statistics end up.
fn check_against_pytorch(name: &'static str) {
    let setup = Setup::new(name, false, false);
    let Some(recorded) = Recorded::open(name, &setup) else { return };
    let fixture = &recorded.fixture;
    let mut exact = Reference::default();
    setup.load(&mut exact);
    let losses: Vec<f64> = serde_json::from_value(fixture.json("report")["loss_total_f64"].clone()).unwrap();
    let weak = fixture.values("student_weak_logits_f64");
    let rows = weak.len() / losses.len();
    // What differs is the rounding of the learning rate to f32 alone.
    for (step, outputs) in exact.run(&setup.program, &recorded.calls).iter().enumerate() {
        let what = |part: &str| format!("{name}: {part} of step {step}");
        assert_close(&what("loss"), &outputs["total"], &losses[step..=step], 1e-6);
        assert_close(&what("logits"), &outputs["student_weak"], &weak[step * rows..][..rows], 1e-5);
    }
    let norms = fixture.values("final_param_l2_f64");
    for (i, parameter) in setup.sgd.parameters().iter().enumerate() {
        let (values, what) = (exact.read(parameter), format!("{name}: {}", parameter.name()));
        assert_close(&what, &[norm(&values)], &norms[i..=i], 1e-5);
        let n = values.len();
        let sample: Vec<f64> = match n {
            0..=32 => values,
            _ => (0..32).map(|j| values[j * (n - 1) / 31]).collect(),
        };
        let expected = fixture.values(&format!("final_sample_f64/{}", parameter.name()));
        assert_close(&what, &sample, &expected, 2e-5);
    }
    // The reference's are of its f32 run, which strays as far as its parameters do.
    let strays =
        fixture.json("report")["worst_param_rel_f32_vs_f64"].as_f64().map_or(1e-5, |worst| 2.0 * worst);
    for buffer in setup.student.buffers() {
        let (values, expected) = (exact.read(&buffer), fixture.values(&format!("final/{}", buffer.name())));
        assert_close(&format!("{name}: {}", buffer.name()), &values, &expected, strays);
        if buffer.name().ends_with("num_batches_tracked") {
            assert_eq!(values, expected, "{name}: {}", buffer.name());
        }
    }
}

/// Eight steps of a device beside the evaluator in f64, which takes the device's side of every kink: outputs of each
/// step, and all state after them.
fn check_device(name: &'static str, device: &str) {
    for mut runner in runners(&[device]) {
        let setup = Setup::new(name, false, false);
        let Some(recorded) = Recorded::open(name, &setup) else { return };
        let mut exact = Reference::default();
        setup.load(&mut exact);
        setup.load(runner.as_mut());
        let mut follower = Follower::new(&setup.program, exact, Rounding::new(&recorded.rounding));
        let device = runner.name();
        for (step, call) in recorded.calls.iter().enumerate() {
            let expected = follower.step(runner.as_mut(), call);
            let outputs = runner.run(&setup.program, std::slice::from_ref(call)).remove(0);
            for (output, expected) in &expected {
                let kind = if expected.len() == 1 { "losses" } else { "logits" };
                let what = format!("{name}, {device}: {output} of step {step}");
                assert_close(&what, &outputs[output], expected, recorded.tolerance(kind));
            }
        }
        for (kind, variables) in [
            ("parameters", setup.sgd.parameters()),
            ("parameters", setup.sgd.momenta()),
            ("buffers", setup.student.buffers()),
        ] {
            for variable in variables {
                let what = format!("{name}, {device}: {}", variable.name());
                let (values, expected) = (runner.read(&variable), follower.exact().read(&variable));
                assert_close(&what, &values, &expected, recorded.tolerance(kind));
            }
        }
        let given = formula::model_state(&format!("{}/wrn_16_2", setup.salt), &setup.teacher);
        for (entry, values) in setup.teacher.state().iter().zip(given) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            assert_eq!(runner.read(&entry.variable), values, "the teacher's {}", entry.variable.name());
        }
    }
}

/// One step: every gradient and running statistic.
fn check_one_step(epoch: usize, wanted: &[&str], separate: bool) {
    let Some(reference) = Fixture::open(&format!("traj/onestep_e{epoch}.safetensors")) else { return };
    let targets = Fixture::open("traj/epoch1.safetensors").unwrap().i32("target");
    for mut runner in runners(wanted) {
        let setup = Setup::new("epoch1", separate, true);
        setup.load(runner.as_mut());
        let call = setup.call(epoch, 0, targets[..BATCH].to_vec(), 0.025);
        let outputs = runner.run(&setup.program, std::slice::from_ref(&call)).remove(0);
        let name = runner.name();
        let what = |part: &str| format!("epoch {epoch}, {name}: {part}");
        let tolerance = if runner.is_exact() { 1e-6 } else { 3e-5 };
        let names: Vec<String> = setup.sgd.parameters().iter().map(|p| p.name().to_string()).collect();
        let of_fixture = |name: &String| (name.clone(), reference.values(&format!("grad/{name}")));
        let expected = names.iter().map(of_fixture).collect();
        let missed = misses(&names, &outputs, &expected, |_| tolerance).join(", ");
        for buffer in setup.student.buffers() {
            let expected = reference.values(&format!("after/{}", buffer.name()));
            let tolerance = if runner.is_exact() { 1e-12 } else { 1e-6 };
            assert_close(&what(buffer.name()), &runner.read(&buffer), &expected, tolerance);
        }
        if !missed.is_empty() && !runner.is_exact() {
            // Beyond the kinks all must fit.
            let mut exact = Reference::default();
            setup.load(&mut exact);
            setup.load(runner.as_mut());
            let mut follower = Follower::new(&setup.program, exact, Rounding::of("wrn_16_1"));
            let expected = follower.step(runner.as_mut(), &call);
            let beyond = misses(&names, &outputs, &expected, |_| tolerance).join(", ");
            assert!(beyond.is_empty(), "{}; with {:?}: {beyond}", what(&missed), follower.turned);
        } else {
            assert!(missed.is_empty(), "{}", what(&missed));
        }
    }
}

#[test]
fn the_first_step_without_the_students_own_term() {
    check_one_step(1, &["cpu", "reference", "gpu"], false);
}

#[test]
fn the_first_step_with_the_students_own_term() {
    check_one_step(151, &["cpu", "reference", "gpu"], false);
}

#[test]
fn two_passes_equal_one_stacked_pass() {
    check_one_step(151, &["cpu"], true);
}

macro_rules! trajectories {
    ($($test:ident: $check:ident($name:literal $(, $device:literal)?);)*) => {
        $(#[test]
        fn $test() {
            $check($name $(, $device)?);
        })*
    };
}

// Before the gate opens, after it, across it and the first decay; and the last with other weights.
trajectories! {
    epoch_1_in_f64: check_against_pytorch("epoch1");
    epoch_151_in_f64: check_against_pytorch("epoch151_lr025");
    boundary_in_f64: check_against_pytorch("boundary");
    weights_1_in_f64: check_against_pytorch("weights_1");
    weights_2_in_f64: check_against_pytorch("weights_2");
    epoch_1_on_the_cpu: check_device("epoch1", "cpu");
    epoch_151_on_the_cpu: check_device("epoch151_lr025", "cpu");
    boundary_on_the_cpu: check_device("boundary", "cpu");
    weights_1_on_the_cpu: check_device("weights_1", "cpu");
    weights_2_on_the_cpu: check_device("weights_2", "cpu");
    boundary_on_the_gpu: check_device("boundary", "gpu");
    weights_1_on_the_gpu: check_device("weights_1", "gpu");
}
