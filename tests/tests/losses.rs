//! Every distillation loss against PyTorch in float64: values, gradients, the swap itself, and rows so
//! sure that a probability underflows.

use autograd::{Tensor, grad};
use nn::Schedule;
use nn::layers::Modules;
use sld::distill::{self, Batch, Distiller, Dkd, Kd, KdSwap, METHODS, Method, Mlkd, Sld, SwapStatistics};
use sld_tests::compare::{assert_close, norm, relative};
use sld_tests::{Fixture, Inputs, Program, fixture, runners};

const RUNNERS: &[&str] = &["reference", "cpu", "gpu"];

fn open(name: &str) -> Fixture {
    Fixture::open(&format!("loss/{name}.safetensors")).expect("the loss fixtures are committed")
}

/// The logits of one case, `[B, C]`, as inputs of both views.
struct Case {
    name: String,
    shape: [usize; 2],
    labels: Vec<i32>,
    /// In the order of `LOGITS`.
    values: [Vec<f32>; 4],
}

const LOGITS: [&str; 4] = ["student_weak", "student_strong", "teacher_weak", "teacher_strong"];

fn cases() -> Vec<Case> {
    let inputs = open("inputs");
    let names = inputs.json("cases");
    names
        .as_array()
        .unwrap()
        .iter()
        .map(|name| {
            let name = name.as_str().unwrap().to_string();
            let shape = inputs.shape(&format!("{name}/student_weak")).try_into().unwrap();
            let labels = inputs.i32(&format!("{name}/target"));
            let values = LOGITS.map(|key| inputs.f32(&format!("{name}/{key}")));
            Case { name, shape, labels, values }
        })
        .collect()
}

impl Case {
    fn logits(&self, key: &str) -> Tensor {
        Tensor::input(key, &self.shape)
    }
    fn labels(&self) -> Tensor {
        Tensor::input_i32("labels", &self.shape[..1])
    }
    /// The inputs of these views, and the factor if there is one.
    fn call(&self, views: &[&str], factor: Option<f32>) -> Inputs {
        let mut call = Inputs::new().i32("labels", self.labels.clone());
        for (key, values) in LOGITS.iter().zip(&self.values) {
            if views.iter().any(|view| key.ends_with(view)) {
                call = call.f32(key, values.clone());
            }
        }
        match factor {
            Some(factor) => call.f32("factor", vec![factor]),
            None => call,
        }
    }
    /// Both networks' logits, and the student's of each view, for gradients.
    fn both(&self) -> (Batch, [Tensor; 2]) {
        let of = |network: &str| ["weak", "strong"].map(|view| self.logits(&format!("{network}_{view}")));
        let [student, teacher] = [of("student"), of("teacher")];
        let stack = |views: &[Tensor; 2]| Tensor::concatenate(&[&views[0], &views[1]], 0);
        let factor = Tensor::input("factor", &[]);
        (Batch::of_logits(stack(&student), Some(stack(&teacher)), self.labels(), factor), student)
    }
}

/// Checks a method with one configuration on every case and epoch. `parts` sums terms into the
/// reference's: (its name, our names).
fn check(
    file: &str,
    config: &str,
    method: &dyn Distiller,
    epochs: &[usize],
    parts: &[(&str, &[&str])],
    first: bool,
) {
    let reference = open(file);
    for case in cases() {
        let (batch, student) = case.both();
        let loss = method.loss(&batch, &mut Modules::new(0));
        let gradients = grad(&loss.total, &student);
        let mut program = Program::new()
            .output("total", &loss.total)
            .output("grad_student_weak", &gradients[0])
            .output("grad_student_strong", &gradients[1]);
        for (name, term) in &loss.terms {
            program = program.output(*name, term);
        }
        for mut runner in runners(RUNNERS) {
            let tolerance: f64 = if runner.is_exact() { 1e-9 } else { 1e-5 };
            for &epoch in epochs {
                // A step has this input only if the method depends on it.
                let factor = method.factor(epoch).unwrap_or(1.0) as f32;
                let call = case.call(&["weak", "strong"], method.factor(epoch).map(|f| f as f32));
                let outputs = runner.run(&program, &[call]).remove(0);
                let key = |value: &str| format!("{}/{config}/e{epoch}/{value}", case.name);
                let what = |value: &str| format!("{file} {} {}", runner.name(), key(value));
                let total = reference.values(&key("total_f64"));
                // The factor is an input, rounded to f32.
                let tolerance = if factor.fract() == 0.0 { tolerance } else { tolerance.max(1e-7) };
                assert_close(&what("total"), &outputs["total"], &total, tolerance);
                for (name, ours) in parts {
                    let sum: f64 = ours.iter().map(|ours| outputs[*ours][0]).sum();
                    let expected = reference.values(&key(&format!("{name}_f64")));
                    let error = relative(&[sum], &expected, 1e-3 * total[0].abs());
                    assert!(
                        error <= tolerance,
                        "{}: {sum} for {}, off by {error:.1e}",
                        what(name),
                        expected[0]
                    );
                }
                for name in ["grad_student_weak", "grad_student_strong"] {
                    if !first {
                        continue;
                    }
                    let stored = key(&format!("{name}_f64"));
                    if !reference.has(&stored) {
                        assert_eq!(norm(&outputs[name]), 0.0, "{}: must not be used", what(name));
                        continue;
                    }
                    let expected = reference.values(&stored);
                    assert_close(&what(name), &outputs[name], &expected, tolerance.max(1e-7));
                }
            }
        }
    }
}

#[test]
fn sld_equals_the_reference() {
    for (config, ce_weight, kd_weight) in
        [("w0.1_0.9", 0.1, 0.9), ("w0.5_0.5", 0.5, 0.5), ("w1.0_0.5", 1.0, 0.5)]
    {
        let sld = Sld { ce_weight, kd_weight, ..Sld::default() };
        let parts: [(&str, &[&str]); 2] = [("loss_ce", &["ce"]), ("loss_kd", &["kd_teacher", "kd_student"])];
        check("SLD", config, &sld, &[1, 150, 151], &parts, config == "w0.1_0.9");
    }
}

#[test]
fn kd_equals_the_reference() {
    let parts: [(&str, &[&str]); 2] = [("loss_ce", &["ce"]), ("loss_kd", &["kd"])];
    check("KD_plain", "default", &Kd::default(), &[1], &parts, true);
    let imagenet = Kd { temperature: 1.0, ce_weight: 0.5, kd_weight: 0.5 };
    check("KD_plain", "imagenet", &imagenet, &[1], &parts, false);
}

#[test]
fn kd_with_swaps_equals_the_reference() {
    let parts: [(&str, &[&str]); 2] = [("loss_ce", &["ce"]), ("loss_kd", &["kd_teacher", "kd_student"])];
    check("KD_swap", "default", &KdSwap::default(), &[1, 150, 151], &parts, true);
    let imagenet = KdSwap { temperature: 1.0, ce_weight: 0.5, ..KdSwap::default() };
    check("KD_swap", "imagenet", &imagenet, &[1, 150, 151], &parts, false);
}

#[test]
fn mlkd_equals_the_reference() {
    let parts: [(&str, &[&str]); 4] =
        [("loss_ce", &["ce"]), ("loss_kd", &["kd"]), ("loss_cc", &["cc"]), ("loss_bc", &["bc"])];
    check("MLKD", "default", &Mlkd::default(), &[1], &parts, true);
}

#[test]
fn dkd_equals_the_reference() {
    let parts: [(&str, &[&str]); 2] = [("loss_ce", &["ce"]), ("loss_kd", &["tckd", "nckd"])];
    check("DKD", "default", &Dkd::default(), &[1, 10, 20, 151], &parts, true);
    let beta2 = Dkd { beta: 2.0, ..Dkd::default() };
    check("DKD", "beta2", &beta2, &[1, 10, 20, 151], &parts, false);
}

#[test]
fn swaps_move_values_and_count_themselves() {
    let reference = open("inputs");
    for case in cases() {
        let labels = case.labels();
        let mut program = Program::new();
        for key in LOGITS {
            let logits = case.logits(key);
            let statistics = SwapStatistics::new(&logits, &labels);
            program = program
                .output(format!("swapped_{key}"), &distill::swap(&logits, &labels))
                .output(format!("{key}/share"), &statistics.share)
                .output(format!("{key}/before"), &statistics.before)
                .output(format!("{key}/after"), &statistics.after);
        }
        for mut runner in runners(RUNNERS) {
            let call = case.call(&["weak", "strong"], None);
            let outputs = runner.run(&program, &[call]).remove(0);
            for key in LOGITS {
                let original = reference.values(&format!("{}/{key}", case.name));
                let swapped = reference.values(&format!("{}/swapped_{key}", case.name));
                assert_eq!(outputs[&format!("swapped_{key}")], swapped, "{} {key}", case.name);
                let [batch, classes] = case.shape;
                let target = reference.values(&format!("{}/target", case.name));
                let (mut share, mut before, mut after) = (0.0, 0.0, 0.0);
                for row in 0..batch {
                    let of = |values: &[f64]| values[row * classes..][..classes].to_vec();
                    let (z, label) = (of(&original), target[row] as usize);
                    let largest = z.iter().copied().fold(f64::MIN, f64::max);
                    let first = z.iter().position(|&v| v == largest).unwrap();
                    let sum: f64 = z.iter().map(|v| (v - largest).exp()).sum();
                    share += if first == label { 0.0 } else { 1.0 / batch as f64 };
                    before += (z[label] - largest).exp() / sum / batch as f64;
                    after += 1.0 / sum / batch as f64;
                }
                for (name, expected) in [("share", share), ("before", before), ("after", after)] {
                    let actual = outputs[&format!("{key}/{name}")][0];
                    assert!(
                        (actual - expected).abs() < 1e-5,
                        "{} {key} {name}: {actual} {expected}",
                        case.name
                    );
                }
            }
        }
    }
}

/// Where the reference's gradient becomes NaN in f32, ours stays at the truth.
#[test]
fn rows_that_underflow_stay_finite() {
    let reference = open("underflow");
    let s = Tensor::input("s", &[2, 10]);
    let labels = Tensor::input_i32("labels", &[2]);
    let teacher = (&s * 0.5).detach();
    let sum =
        distill::divergence(&s, &teacher, &[1.0]) + distill::student_swap_divergence(&s, &labels, &[1.0]);
    let loss = sum * 0.5;
    let program = Program::new().output("loss", &loss).output("grad", &grad(&loss, &[s])[0]);
    for mut runner in runners(RUNNERS) {
        for spread in ["s100", "s103", "s104", "s120"] {
            let logits = reference.f32(&format!("{spread}/logits"));
            let call = Inputs::new().f32("s", logits).i32("labels", vec![3, 9]);
            let outputs = runner.run(&program, &[call]).remove(0);
            for name in ["loss", "grad"] {
                let expected = reference.values(&format!("{spread}/{name}_f64"));
                assert_close(&format!("{spread} {name}"), &outputs[name], &expected, 1e-5);
            }
        }
    }
}

/// The student's own term at each temperature, against autograd through the reference's formula.
#[test]
fn the_closed_form_of_the_student_term() {
    let reference = open("terms_f64");
    for case in cases() {
        let labels = case.labels();
        for mut runner in runners(RUNNERS) {
            let tolerance = if runner.is_exact() { 1e-9 } else { 1e-5 };
            for view in ["weak", "strong"] {
                let student = case.logits(&format!("student_{view}"));
                let teacher = distill::swap(&case.logits(&format!("teacher_{view}")), &labels);
                let mut program = Program::new();
                let per_image = 1.0 / case.shape[0] as f64;
                for t in 1..=6 {
                    let own = distill::student_swap_divergence(&student, &labels, &[t as f64]) * per_image;
                    let plain = distill::divergence(&student, &distill::swap(&student, &labels), &[t as f64])
                        * per_image;
                    let from = distill::divergence(&student, &teacher, &[t as f64]) * per_image;
                    let own_gradient = &grad(&own, std::slice::from_ref(&student))[0];
                    let plain_gradient = &grad(&plain, std::slice::from_ref(&student))[0];
                    program = program
                        .output(format!("kl_student_swap_{view}_T{t}"), &own)
                        .output(format!("kl_teacher_swap_{view}_T{t}"), &from)
                        .output(format!("own{t}"), own_gradient)
                        .output(format!("plain{t}"), plain_gradient);
                }
                let outputs = runner.run(&program, &[case.call(&[view], None)]).remove(0);
                for t in 1..=6 {
                    for name in
                        [format!("kl_student_swap_{view}_T{t}"), format!("kl_teacher_swap_{view}_T{t}")]
                    {
                        let expected = reference.values(&format!("{}/{name}", case.name));
                        let error = relative(&outputs[&name], &expected, 1e-3);
                        assert!(error <= tolerance, "{} {name}: {error:.1e}", case.name);
                    }
                    if runner.is_exact() {
                        let error =
                            relative(&outputs[&format!("own{t}")], &outputs[&format!("plain{t}")], 1e-6);
                        assert!(error <= 1e-9, "{} {view} T{t}: {error:.1e}", case.name);
                    }
                }
            }
        }
    }
}

#[test]
fn learning_rates_equal_the_reference() {
    let schedules = fixture::json("misc/lr_schedule.json");
    let mut checked = 0;
    for (name, pieces) in schedules.as_object().unwrap() {
        let Some(pieces) = pieces.as_array() else { continue };
        let pieces: Vec<[f64; 3]> =
            pieces.iter().map(|piece| [0, 1, 2].map(|i| piece[i].as_f64().unwrap())).collect();
        let stages = pieces[..pieces.len() - 1].iter().map(|piece| piece[1] as usize).collect::<Vec<_>>();
        let schedule = Schedule::multi_step(pieces[0][2], &stages, 0.1);
        for [first, last, rate] in pieces {
            for epoch in first as usize..=last as usize {
                // The last bit of a number read from JSON is not certain.
                let ours = schedule.rate(epoch, 0, 1);
                assert!((ours - rate).abs() <= 4e-16 * rate, "{name}, epoch {epoch}: {ours} {rate}");
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 3 * 240 + 100);
}

#[test]
fn logits_that_do_not_fit_are_reported() {
    for method in METHODS.iter().map(Method::make) {
        let labels = || Tensor::input_i32("labels", &[4]);
        let error = |rows: usize| {
            let student = Tensor::input("s", &[rows, 10]);
            let batch = Batch::of_logits(student, None, labels(), Tensor::scalar(1.0));
            method.loss(&batch, &mut Modules::new(0)).total.check().unwrap_err().to_string()
        };
        let said = error(6);
        assert!(said.contains(method.name()) && said.contains("views"), "{said}");
        if method.needs_teacher() {
            let said = error(8);
            assert!(said.contains("teacher"), "{said}");
        }
    }
    let known = |name| Method::find(name).map(|method| method.make().name());
    assert_eq!(
        ["sld", "vanilla", "KD_ours", "slt"].map(known),
        [Some("SLD"), Some("NONE"), Some("MLKD"), None]
    );
}
