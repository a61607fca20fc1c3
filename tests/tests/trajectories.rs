//! Whole training steps against the reference's trainer: wrn_16_2 teaches wrn_16_1 by SLD, batch 8.

use autograd::{Tensor, grad};
use nn::layers::Modules;
use nn::{Forward, Model, MultiStep, Sgd, SgdOptions, models};
use sld::distill::{Batch, Distiller, Sld};
use sld_tests::compare::{assert_close, norm};
use sld_tests::kinks::{assert_beyond_kinks, misses};
use sld_tests::runner::Reference;
use sld_tests::{Fixture, Inputs, Program, Runner, formula, runners};

const BATCH: usize = 8;

/// The reference's step as one program.
struct Setup {
    teacher: Model,
    student: Model,
    sgd: Sgd,
    student_logits: Tensor,
    gradients: Vec<Tensor>,
    program: Program,
}

impl Setup {
    /// With `separate`, the student sees the views in two passes, as the reference does; else stacked.
    fn new(separate: bool, gradients_as_outputs: bool) -> Setup {
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
        Setup { teacher, student, sgd, student_logits, gradients, program }
    }

    fn load(&self, runner: &mut dyn Runner) {
        for model in [&self.teacher, &self.student] {
            let values = formula::model_state(&format!("traj/{}", model.name()), model);
            for (entry, values) in model.state().iter().zip(values) {
                runner.write(&entry.variable, &values);
            }
        }
    }

    fn call(&self, epoch: usize, step: usize, labels: Vec<i32>, rate: f64) -> Inputs {
        Inputs::new()
            .f32("weak", formula::images(&format!("traj/weak/{step}"), BATCH))
            .f32("strong", formula::images(&format!("traj/strong/{step}"), BATCH))
            .i32("labels", labels)
            .f32("lr", vec![rate as f32])
            .f32("factor", vec![Sld::default().factor(epoch).unwrap() as f32])
    }
}

/// Eight steps: losses, logits, and where parameters, momentum-driven, and statistics end up.
fn check_trajectory(name: &str, wanted: &[&str]) {
    let Some(reference) = Fixture::open(&format!("traj/{name}.safetensors")) else { return };
    let report = reference.json("report");
    let schedule: Vec<[usize; 2]> = serde_json::from_value(reference.json("schedule")).unwrap();
    let losses: Vec<f64> = serde_json::from_value(report["loss_total_f64"].clone()).unwrap();
    let rates: Vec<f64> = serde_json::from_value(report["lr"].clone()).unwrap();
    let targets = reference.i32("target");
    for mut runner in runners(wanted) {
        let setup = Setup::new(false, false);
        setup.load(runner.as_mut());
        let lr = MultiStep { base: rates[0], stages: vec![150, 180, 210], factor: 0.1 };
        let calls: Vec<Inputs> = schedule
            .iter()
            .zip(&rates)
            .map(|(&[epoch, step], &rate)| {
                if name == "boundary" {
                    assert!((lr.lr_at(epoch) - rate).abs() < 1e-15);
                }
                setup.call(epoch, step, targets[step * BATCH..][..BATCH].to_vec(), rate)
            })
            .collect();
        let outputs = runner.run(&setup.program, &calls);
        let what = |part: &str| format!("{name}, {}: {part}", runner.name());
        // In f64 what differs is the rounding of the learning rate to f32 alone.
        let (loss_tolerance, parameter_tolerance) = if runner.is_exact() {
            (1e-6, 1e-5)
        } else {
            (3e-4, 2.0 * report["worst_param_rel_f32_vs_f64"].as_f64().unwrap())
        };
        let weak = reference.values("student_weak_logits_f64");
        let rows = weak.len() / losses.len();
        for (step, expected) in losses.iter().enumerate() {
            let total = &outputs[step]["total"];
            assert_close(&what(&format!("loss of step {step}")), total, &[*expected], loss_tolerance);
            let expected = &weak[step * rows..][..rows];
            let tolerance = loss_tolerance.max(parameter_tolerance);
            assert_close(
                &what(&format!("logits of step {step}")),
                &outputs[step]["student_weak"],
                expected,
                tolerance,
            );
        }
        let norms = reference.values("final_param_l2_f64");
        for (i, parameter) in setup.sgd.parameters().iter().enumerate() {
            let values = runner.read(parameter);
            assert_close(&what(parameter.name()), &[norm(&values)], &norms[i..=i], parameter_tolerance);
            let n = values.len();
            let count = n.min(32);
            let sample: Vec<f64> =
                (0..count).map(|j| if n <= 32 { values[j] } else { values[j * (n - 1) / 31] }).collect();
            let expected = reference.values(&format!("final_sample_f64/{}", parameter.name()));
            assert_close(&what(parameter.name()), &sample, &expected, 2.0 * parameter_tolerance);
        }
        for buffer in setup.student.buffers() {
            // These are of the reference's f32 run, which strays as far as its parameters do.
            let expected = reference.values(&format!("final/{}", buffer.name()));
            let tolerance = 2.0 * report["worst_param_rel_f32_vs_f64"].as_f64().unwrap();
            assert_close(&what(buffer.name()), &runner.read(&buffer), &expected, tolerance);
            if buffer.name().ends_with("num_batches_tracked") {
                assert_eq!(runner.read(&buffer), expected, "{}", what(buffer.name()));
            }
        }
        for (entry, values) in
            setup.teacher.state().iter().zip(formula::model_state("traj/wrn_16_2", &setup.teacher))
        {
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
        let setup = Setup::new(separate, true);
        setup.load(runner.as_mut());
        let call = setup.call(epoch, 0, targets[..BATCH].to_vec(), 0.025);
        let outputs = runner.run(&setup.program, std::slice::from_ref(&call)).remove(0);
        let name = runner.name();
        let what = |part: &str| format!("epoch {epoch}, {name}: {part}");
        let tolerance = if runner.is_exact() { 1e-6 } else { 3e-5 };
        let names: Vec<String> = setup.sgd.parameters().iter().map(|p| p.name().to_string()).collect();
        let actual: Vec<&Vec<f64>> = names.iter().map(|name| &outputs[name]).collect();
        let expected: Vec<Vec<f64>> =
            names.iter().map(|name| reference.values(&format!("grad/{name}"))).collect();
        let missed = misses(&names, &actual, &expected, tolerance);
        for buffer in setup.student.buffers() {
            let expected = reference.values(&format!("after/{}", buffer.name()));
            let tolerance = if runner.is_exact() { 1e-12 } else { 1e-6 };
            assert_close(&what(buffer.name()), &runner.read(&buffer), &expected, tolerance);
        }
        if !missed.is_empty() && !runner.is_exact() {
            // The other side of a kink, if there is one, must fit as well as the fixture's would.
            let mut exact = Reference::default();
            setup.load(&mut exact);
            setup.load(runner.as_mut());
            assert_beyond_kinks(
                &what(&missed.join(", ")),
                &setup.student_logits,
                &setup.gradients,
                &names,
                &actual,
                runner.as_mut(),
                &exact,
                &call,
                tolerance,
            );
        } else {
            assert!(missed.is_empty(), "{}", what(&missed.join(", ")));
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

#[test]
fn eight_steps_of_epoch_1() {
    check_trajectory("epoch1", &["cpu", "gpu"]);
}

#[test]
fn eight_steps_of_epoch_151() {
    check_trajectory("epoch151_lr025", &["cpu", "gpu"]);
}

#[test]
fn eight_steps_across_the_gate_and_the_first_decay() {
    check_trajectory("boundary", &["cpu", "gpu"]);
}
