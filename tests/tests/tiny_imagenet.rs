//! The networks of Tiny-ImageNet at 64x64 against PyTorch's float64: evaluation, and a training pass; gradients in
//! float64 alone.

use autograd::{Tensor, Variable, grad};
use nn::{Forward, loss, models};
use sld_tests::compare::{assert_close, norm, relative};
use sld_tests::{Fixture, Inputs, Program, Runner, formula, runners};

const CLASSES: usize = 200;
const BATCH: usize = 2;
const SIDE: usize = 64;

/// One network's part of the fixture.
struct Recorded {
    fixture: Fixture,
    name: &'static str,
}

impl Recorded {
    fn values(&self, key: &str) -> Vec<f64> {
        self.fixture.values(&format!("{}/{key}", self.name))
    }

    /// Whether these are a tensor's values: all of a small one's, of others a sample, the sum and the norm.
    fn error(&self, key: &str, actual: &[f64], floor: f64) -> f64 {
        if self.fixture.has(&format!("{}/{key}", self.name)) {
            return relative(actual, &self.values(key), floor);
        }
        let n = actual.len();
        let sampled: Vec<f64> = (0..32).map(|j| actual[j * (n - 1) / 31]).collect();
        let stats = self.values(&format!("{key}#stats"));
        let size = stats[1].max(floor);
        let sample =
            relative(&sampled, &self.values(&format!("{key}#sample")), size * (32.0 / n as f64).sqrt());
        let sum = (actual.iter().sum::<f64>() - stats[0]).abs() / (size * (n as f64).sqrt());
        sample.max(sum).max((norm(actual) - stats[1]).abs() / size)
    }
}

/// `model` is the registry's name of the fixture's network.
fn check(name: &'static str, model: &str, runner: &mut dyn Runner) {
    let Some(fixture) = Fixture::open("features/tiny_models.safetensors") else { return };
    let about = fixture.json(name);
    let recorded = Recorded { fixture, name };
    let text = |key: &str| about[key].as_str().unwrap();
    let number = |key: &str| about[key].as_f64().unwrap();
    let model = models::build(model, CLASSES, 0).unwrap();
    let manifest: Vec<serde_json::Value> =
        model.manifest().iter().map(|(name, shape)| serde_json::json!([name, shape])).collect();
    assert_eq!(serde_json::Value::Array(manifest), about["state"], "{name}");
    assert_eq!(model.parameter_count() as u64, about["params"].as_u64().unwrap(), "{name}");
    for (entry, values) in model.state().iter().zip(formula::model_state(text("salt"), &model)) {
        runner.write(&entry.variable, &values);
    }
    let images = Tensor::input("images", &[BATCH, SIDE, SIDE, 3]);
    let values = formula::square_images(text("input"), BATCH, SIDE);
    let labels = about["target"].as_array().unwrap().iter().map(|l| l.as_i64().unwrap() as i32).collect();
    let call = Inputs::new().f32("images", values.clone()).i32("labels", labels);
    let what = |part: &str| format!("{name} {}: {part}", runner.name());

    let plain = model.forward(&images, &mut Forward::eval_unfolded());
    let mut program = Program::new()
        .output("plain", &plain.logits)
        .output("folded", &model.forward(&images, &mut Forward::eval()).logits)
        .output("pooled", &plain.features.pooled);
    for (i, stage) in plain.features.stages.iter().enumerate() {
        program = program.output(format!("stage{i}"), &(stage * stage).sum_all().sqrt());
    }
    let whats = ["folded", "plain", "pooled"].map(&what);
    let outputs = runner.run(&program, &[Inputs::new().f32("images", values)]).remove(0);
    let tolerance = if runner.is_exact() { 1e-9 } else { 1e-5 };
    for (key, what) in ["folded", "plain"].iter().zip(&whats) {
        assert_close(what, &outputs[*key], &recorded.values("eval/logits"), tolerance);
    }
    assert_close(&whats[2], &outputs["pooled"], &recorded.values("eval/pooled_feat"), tolerance);
    for i in 0..plain.features.stages.len() {
        let expected = recorded.values(&format!("eval/feats/{i}#stats"))[1];
        assert_close(&format!("{name}: stage {i}"), &outputs[&format!("stage{i}")], &[expected], tolerance);
    }

    let labels = Tensor::input_i32("labels", &[BATCH]);
    let mut forward = Forward::train(1);
    let logits = model.forward(&images, &mut forward).logits;
    let loss = loss::cross_entropy(&logits, &labels);
    let parameters = model.parameters();
    let gradients = grad(&loss, &parameters.iter().map(Variable::tensor).collect::<Vec<_>>());
    let mut program = Program::new().output("logits", &logits).output("loss", &loss);
    for (parameter, gradient) in parameters.iter().zip(&gradients) {
        program = program.output(parameter.name(), gradient);
    }
    let outputs = runner.run(&program.updates(forward.into_updates()), &[call]).remove(0);
    let logits_tolerance = if runner.is_exact() { 1e-9 } else { 1e-5f64.max(4.0 * number("train_rel_f32")) };
    assert_close(name, &outputs["logits"], &recorded.values("train/logits"), logits_tolerance);
    assert_close(name, &outputs["loss"], &recorded.values("train/ce"), logits_tolerance);
    let whole = parameters.iter().map(|p| norm(&outputs[p.name()]).powi(2)).sum::<f64>().sqrt();
    // In f32 a few ReLUs are on the other side of their kinks, which says nothing about gradients.
    for parameter in parameters.iter().filter(|_| runner.is_exact()) {
        // Gradients that are 0 in exact arithmetic are bounded by the whole gradient's size.
        let key = format!("train/grad/{}", parameter.name());
        let error = recorded.error(&key, &outputs[parameter.name()], 1e-4 * whole);
        assert!(error <= 1e-6, "{name} {}: {key}: {error:.1e}", runner.name());
    }
    let running =
        model.buffers().into_iter().filter(|buffer| !buffer.name().ends_with("num_batches_tracked"));
    for buffer in running {
        let key = format!("after/{}", buffer.name());
        let error = recorded.error(&key, &runner.read(&buffer), 0.0);
        assert!(error <= logits_tolerance.max(1e-6), "{name} {}: {key}: {error:.1e}", runner.name());
    }
}

#[test]
fn mobilenet_v2_is_the_references() {
    for mut runner in runners(&["cpu", "reference"]) {
        check("MobileNetV2", "tiny_imagenet/MobileNetV2", runner.as_mut());
    }
}

#[test]
fn resnet18_of_cifar_takes_64_pixels() {
    for mut runner in runners(&["cpu"]) {
        check("ResNet18", "ResNet18", runner.as_mut());
    }
}
