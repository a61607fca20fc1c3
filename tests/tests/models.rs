//! Every network against PyTorch: names, shapes, order, cost, evaluation, and a training pass with all
//! its gradients and running statistics.

use std::collections::HashSet;

use autograd::{Tensor, Variable, grad};
use nn::layers::Kind;
use nn::{Forward, Model, loss, models};
use sld_tests::compare::{assert_close, norm, relative};
use sld_tests::kinks::{Follower, Rounding, misses};
use sld_tests::runner::Reference;
use sld_tests::{Fixture, Inputs, Program, Runner, fixture, formula, runners};

fn build(name: &str, classes: usize) -> Model {
    models::build(name, classes, 7).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn names_shapes_order_and_cost_equal_the_manifest() {
    let manifest = fixture::json("misc/model_manifest.json");
    let manifest = manifest.as_object().unwrap();
    assert_eq!(manifest.len(), 23);
    for (name, expected) in manifest {
        let model = build(name, 100);
        let actual: Vec<(String, Vec<usize>, &str)> = model
            .state()
            .iter()
            .map(|entry| {
                let dtype = if entry.kind == Kind::Counter { "int64" } else { "float32" };
                (entry.variable.name().to_string(), entry.variable.shape().to_vec(), dtype)
            })
            .collect();
        let wanted: Vec<(String, Vec<usize>, &str)> = expected["state"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                let shape =
                    entry[1].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect();
                (entry[0].as_str().unwrap().to_string(), shape, entry[2].as_str().unwrap())
            })
            .collect();
        assert_eq!(actual, wanted, "{name}");
        let learnable: Vec<&str> =
            expected["learnable_order"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
        let parameters = model.parameters();
        assert_eq!(parameters.iter().map(Variable::name).collect::<Vec<_>>(), learnable, "{name}");
        assert_eq!(model.parameter_count() as u64, expected["params"].as_u64().unwrap(), "{name}");
        assert_eq!(model.macs(32, 32).unwrap(), expected["macs_32x32"].as_u64().unwrap(), "{name}");
    }
    let known: HashSet<&str> = models::names().filter(|name| models::side(name) == 32).collect();
    let listed: HashSet<&str> = manifest.keys().map(String::as_str).collect();
    assert_eq!(known, listed.union(&HashSet::from(["vgg13"])).copied().collect());
}

/// Writes the fixture's formula values, and returns them.
fn write_state(model: &Model, reference: &Fixture, runner: &mut dyn Runner) -> Vec<Vec<f32>> {
    let values = formula::model_state(&reference.metadata("salt"), model);
    for (entry, values) in model.state().iter().zip(&values) {
        runner.write(&entry.variable, values);
    }
    values
}

/// The logits that a fixture has.
fn logits(reference: &Fixture) -> &'static str {
    if reference.has("eval.logits_f64") { "eval.logits_f64" } else { "train.logits_f64" }
}

/// Images of a fixture, and their height and width.
fn size(reference: &Fixture) -> [usize; 2] {
    let side = if reference.has_metadata("side") { reference.metadata("side").parse().unwrap() } else { 32 };
    [reference.shape(logits(reference))[0], side]
}

/// A model whose variables have the fixture's formula values, after checking those against its sums. Behind a
/// network's name the fixture's may tell the size of the images, or a number of other weights.
fn load(name: &str, reference: &Fixture, runner: &mut dyn Runner) -> Model {
    let name = match name.strip_prefix("weights/") {
        Some(numbered) => numbered.rsplit_once('_').unwrap().0,
        None => name.strip_suffix("_64").unwrap_or(name),
    };
    let model = build(name, reference.shape(logits(reference))[1]);
    let values = write_state(&model, reference, runner);
    if !reference.has("weight_sum") {
        return model;
    }
    let (sums, heads) = (reference.values("weight_sum"), reference.values("weight_head"));
    assert_eq!(sums.len(), values.len(), "{name}");
    for (i, (entry, values)) in model.state().iter().zip(&values).enumerate() {
        let what = format!("{name}: {}", entry.variable.name());
        let sum: f64 = values.iter().map(|&v| f64::from(v)).sum();
        assert!((sum - sums[i]).abs() <= 1e-9 * values.len() as f64, "{what}: {sum} {}", sums[i]);
        for (j, &value) in values.iter().take(4).enumerate() {
            assert_eq!(f64::from(value), heads[4 * i + j], "{what}");
        }
    }
    model
}

fn inputs(reference: &Fixture) -> Inputs {
    let [batch, side] = size(reference);
    let images = formula::square_images(&reference.metadata("input_salt"), batch, side);
    Inputs::new().f32("images", images).i32("labels", reference.i32("target"))
}

fn images(reference: &Fixture) -> Tensor {
    let [batch, side] = size(reference);
    Tensor::input("images", &[batch, side, side, 3])
}

/// Evaluation: logits, folded and not, pooled features, and the norm of every stage's.
fn check_evaluation(name: &str, runner: &mut dyn Runner) {
    let Some(reference) = Fixture::open(&format!("models/{name}.safetensors")) else { return };
    let model = load(name, &reference, runner);
    let [batch, side] = size(&reference);
    let values = formula::square_images(&reference.metadata("input_salt"), batch, side);
    let (images, call) = (images(&reference), Inputs::new().f32("images", values));
    let tolerance = if runner.is_exact() { 1e-9 } else { 1e-5 };
    let expected = reference.values("eval.logits_f64");

    let folded = model.forward(&images, &mut Forward::eval()).logits;
    let program = Program::new().output("logits", &folded);
    let outputs = runner.run(&program, std::slice::from_ref(&call)).remove(0);
    assert_close(
        &format!("{name} {}: folded logits", runner.name()),
        &outputs["logits"],
        &expected,
        tolerance,
    );

    let plain = model.forward(&images, &mut Forward::eval_unfolded());
    let mut program = Program::new().output("logits", &plain.logits).output("pooled", &plain.features.pooled);
    for (i, stage) in plain.features.stages.iter().enumerate() {
        program = program.output(format!("stage{i}"), &(stage * stage).sum_all().sqrt());
    }
    let outputs = runner.run(&program, &[call]).remove(0);
    let what = |part: &str| format!("{name} {}: {part}", runner.name());
    assert_close(&what("logits"), &outputs["logits"], &expected, tolerance);
    // Stored as f32.
    let pooled = reference.values("eval.pooled_feat");
    assert_close(&what("pooled features"), &outputs["pooled"], &pooled, tolerance.max(1e-6));
    let norms = reference.values("eval.feat_l2");
    assert_eq!(norms.len(), plain.features.stages.len(), "{name}");
    for (i, expected) in norms.iter().enumerate() {
        let stage = format!("stage{i}");
        assert_close(&what(&stage), &outputs[&stage], &[*expected], tolerance);
    }
}

/// The elements that fixtures keep of a large tensor, so many at most.
fn sampled(values: &[f64], most: usize) -> Vec<f64> {
    match values.len() {
        n if n <= most => values.to_vec(),
        n => (0..most).map(|j| values[j * (n - 1) / (most - 1)]).collect(),
    }
}

/// A training pass: logits, loss, every parameter's gradient, running statistics.
fn check_training(name: &str, runner: &mut dyn Runner) {
    let Some(reference) = Fixture::open(&format!("models/{name}.safetensors")) else { return };
    let model = load(name, &reference, runner);
    let labels = Tensor::input_i32("labels", &[size(&reference)[0]]);
    let mut forward = Forward::train(1);
    let logits = model.forward(&images(&reference), &mut forward).logits;
    let loss = loss::cross_entropy(&logits, &labels);
    let parameters = model.parameters();
    let gradients = grad(&loss, &parameters.iter().map(Variable::tensor).collect::<Vec<_>>());
    let mut program = Program::new().output("logits", &logits).output("loss", &loss);
    for (parameter, gradient) in parameters.iter().zip(&gradients) {
        program = program.output(parameter.name(), gradient);
    }
    let program = program.updates(forward.into_updates());
    let call = inputs(&reference);
    let outputs = runner.run(&program, std::slice::from_ref(&call)).remove(0);
    let what = |part: &str| format!("{name} {}: {part}", runner.name());

    // PyTorch's own f32 error beyond the kinks is the scale of what f32 can do on this network.
    let rounding = match reference.has_metadata("rounding") {
        true => Rounding::new(&reference.json("rounding")),
        false => Rounding::of(name),
    };
    let is_exact = runner.is_exact();
    let logits_tolerance = if is_exact { 1e-9 } else { rounding.logits_tolerance() };
    let gradient_tolerance =
        |parameter: &str| if is_exact { 1e-6 } else { rounding.gradient_tolerance(parameter) };
    let expected = reference.values("train.logits_f64");
    assert_close(&what("train logits"), &outputs["logits"], &expected, logits_tolerance);
    assert_close(&what("loss"), &outputs["loss"], &reference.values("train.ce_f64"), logits_tolerance);

    let norms = reference.values("train.grad_l2_f64");
    let sums = reference.values("train.grad_sum_f64");
    // Gradients that are 0 in exact arithmetic are bounded by the whole gradient's size.
    let smallest = 1e-4 * norm(&norms);
    // With other weights a few elements are kept of each, one after the other.
    let mut few = reference.has("samples").then(|| reference.values("samples"));
    let mut missed = Vec::new();
    for (i, parameter) in parameters.iter().enumerate() {
        let actual = &outputs[parameter.name()];
        let mut check = |part: &str, actual: &[f64], expected: &[f64], floor: f64| {
            let error = relative(actual, expected, floor);
            let tolerance = gradient_tolerance(parameter.name());
            if error > tolerance {
                missed.push(format!("{}: {part}: {error:.2e} over {tolerance:.1e}", parameter.name()));
            }
        };
        check("gradient's norm", &[norm(actual)], &norms[i..=i], smallest);
        // The sum's rounding goes with the size of what is summed.
        let magnitude = norms[i].max(smallest) * (actual.len() as f64).sqrt();
        check("gradient's sum", &[actual.iter().sum()], &sums[i..=i], magnitude);
        let full = format!("grad/{}", parameter.name());
        if reference.has(&full) {
            check("gradient", actual, &reference.values(&full), smallest);
        } else {
            let (picked, expected) = match &mut few {
                Some(few) => {
                    let picked = sampled(actual, 8);
                    let rest = few.split_off(picked.len());
                    (picked, std::mem::replace(few, rest))
                }
                None => (sampled(actual, 32), reference.values(&format!("grad_sample/{}", parameter.name()))),
            };
            let share = (picked.len() as f64 / actual.len() as f64).sqrt();
            check("gradient's sample", &picked, &expected, norms[i].max(smallest) * share);
        }
    }
    for buffer in model.buffers().iter().filter(|_| few.is_none()) {
        let (full, values) = (format!("after/{}", buffer.name()), runner.read(buffer));
        let (values, expected) = match reference.has(&full) {
            true => (values, reference.values(&full)),
            false => (sampled(&values, 32), reference.values(&format!("after_sample/{}", buffer.name()))),
        };
        // Written by PyTorch in f32.
        let tolerance = 1e-6f64.max(4.0 * rounding.logits);
        assert_close(&what(buffer.name()), &values, &expected, tolerance);
    }
    if missed.is_empty() {
        return;
    }
    let missed = what(&missed.join(", "));
    assert!(!is_exact, "{missed}");
    // Beyond the kinks all must fit, in every element.
    let mut exact = Reference::default();
    write_state(&model, &reference, &mut exact);
    write_state(&model, &reference, runner);
    let names: Vec<String> = parameters.iter().map(|p| p.name().to_string()).collect();
    let mut follower = Follower::new(&program, exact, rounding.clone());
    let expected = follower.step(runner, &call);
    let beyond = misses(&names, &outputs, &expected, gradient_tolerance).join(", ");
    assert!(beyond.is_empty(), "{missed}; with {:?}: {beyond}", follower.turned);
}

macro_rules! model_tests {
    ($($test:ident: $name:literal, $check:ident, $runners:expr;)*) => {
        $(#[test]
        fn $test() {
            for mut runner in runners($runners) {
                $check($name, runner.as_mut());
            }
        })*
    };
}

// Every network on the CPU device; some of the small ones in f64, too, where nothing is rounded, and on
// the GPU device.
model_tests! {
    resnet8_evaluates: "resnet8", check_evaluation, &["cpu", "reference", "gpu"];
    resnet8_trains: "resnet8", check_training, &["cpu", "reference", "gpu"];
    resnet20_evaluates: "resnet20", check_evaluation, &["cpu"];
    resnet20_trains: "resnet20", check_training, &["cpu"];
    resnet32_evaluates: "resnet32", check_evaluation, &["cpu"];
    resnet32_trains: "resnet32", check_training, &["cpu"];
    resnet56_evaluates: "resnet56", check_evaluation, &["cpu"];
    resnet110_evaluates: "resnet110", check_evaluation, &["cpu"];
    resnet8x4_evaluates: "resnet8x4", check_evaluation, &["cpu"];
    resnet8x4_trains: "resnet8x4", check_training, &["cpu"];
    resnet32x4_evaluates: "resnet32x4", check_evaluation, &["cpu"];
    resnet50_evaluates: "ResNet50", check_evaluation, &["cpu"];
    wrn_16_1_evaluates: "wrn_16_1", check_evaluation, &["cpu", "reference", "gpu"];
    wrn_16_1_trains: "wrn_16_1", check_training, &["cpu", "reference", "gpu"];
    wrn_16_2_evaluates: "wrn_16_2", check_evaluation, &["cpu"];
    wrn_16_2_trains: "wrn_16_2", check_training, &["cpu"];
    wrn_40_1_evaluates: "wrn_40_1", check_evaluation, &["cpu"];
    wrn_40_1_trains: "wrn_40_1", check_training, &["cpu"];
    wrn_40_2_evaluates: "wrn_40_2", check_evaluation, &["cpu"];
    vgg8_evaluates: "vgg8", check_evaluation, &["cpu", "gpu"];
    vgg8_trains: "vgg8", check_training, &["cpu", "gpu"];
    vgg13_evaluates: "vgg13", check_evaluation, &["cpu"];
    mobilenet_v2_evaluates: "MobileNetV2", check_evaluation, &["cpu", "reference", "gpu"];
    mobilenet_v2_trains: "MobileNetV2", check_training, &["cpu", "reference", "gpu"];
    shuffle_v1_evaluates: "ShuffleV1", check_evaluation, &["cpu", "gpu"];
    shuffle_v1_trains: "ShuffleV1", check_training, &["cpu", "gpu"];
    shuffle_v2_evaluates: "ShuffleV2", check_evaluation, &["cpu", "reference", "gpu"];
    shuffle_v2_trains: "ShuffleV2", check_training, &["cpu", "reference", "gpu"];
}

// With other weights, images and labels.
model_tests! {
    resnet8_trains_with_weights_1: "weights/resnet8_1", check_training, &["cpu", "reference", "gpu"];
    resnet8_trains_with_weights_2: "weights/resnet8_2", check_training, &["cpu", "gpu"];
    resnet8_trains_with_weights_3: "weights/resnet8_3", check_training, &["cpu", "gpu"];
    wrn_16_1_trains_with_weights_1: "weights/wrn_16_1_1", check_training, &["cpu", "gpu"];
    wrn_16_1_trains_with_weights_2: "weights/wrn_16_1_2", check_training, &["cpu", "gpu"];
    vgg8_trains_with_weights_1: "weights/vgg8_1", check_training, &["cpu", "gpu"];
    vgg8_trains_with_weights_2: "weights/vgg8_2", check_training, &["cpu", "gpu"];
    mobilenet_v2_trains_with_weights_1: "weights/MobileNetV2_1", check_training, &["cpu", "gpu"];
    mobilenet_v2_trains_with_weights_2: "weights/MobileNetV2_2", check_training, &["cpu", "gpu"];
    shuffle_v1_trains_with_weights_1: "weights/ShuffleV1_1", check_training, &["cpu", "gpu"];
    shuffle_v1_trains_with_weights_2: "weights/ShuffleV1_2", check_training, &["cpu", "gpu"];
    shuffle_v2_trains_with_weights_1: "weights/ShuffleV2_1", check_training, &["cpu", "gpu"];
    shuffle_v2_trains_with_weights_2: "weights/ShuffleV2_2", check_training, &["cpu", "gpu"];
}

// ImageNet's networks at their own size, where f32 lands on the other side of some kinks whoever computes, and at
// a size where f64 tells whether gradients are PyTorch's.
model_tests! {
    imagenet_resnet18_evaluates: "imagenet/ResNet18", check_evaluation, &["cpu"];
    imagenet_resnet18_trains: "imagenet/ResNet18", check_training, &["cpu"];
    imagenet_resnet18_trains_at_64: "imagenet/ResNet18_64", check_training, &["cpu", "reference", "gpu"];
    imagenet_resnet34_evaluates: "imagenet/ResNet34", check_evaluation, &["cpu"];
    imagenet_resnet34_trains: "imagenet/ResNet34", check_training, &["cpu"];
    imagenet_resnet34_trains_at_64: "imagenet/ResNet34_64", check_training, &["cpu"];
    imagenet_resnet50_evaluates: "imagenet/ResNet50", check_evaluation, &["cpu"];
    imagenet_resnet50_trains: "imagenet/ResNet50", check_training, &["cpu"];
    imagenet_resnet50_trains_at_64: "imagenet/ResNet50_64", check_training, &["reference"];
    imagenet_resnet101_evaluates: "imagenet/ResNet101", check_evaluation, &["cpu"];
    imagenet_resnet101_trains: "imagenet/ResNet101", check_training, &["cpu"];
    imagenet_mobilenet_v1_evaluates: "imagenet/MobileNetV1", check_evaluation, &["cpu"];
    imagenet_mobilenet_v1_trains: "imagenet/MobileNetV1", check_training, &["cpu"];
    imagenet_mobilenet_v1_trains_at_64: "imagenet/MobileNetV1_64", check_training, &["reference"];
    torchvision_mobilenet_v2_evaluates: "imagenet/mobilenet_v2", check_evaluation, &["cpu"];
    torchvision_mobilenet_v2_trains: "imagenet/mobilenet_v2", check_training, &["cpu"];
    torchvision_mobilenet_v2_trains_at_64: "imagenet/mobilenet_v2_64", check_training, &["reference"];
}
