//! Methods that read features against the reference in float64: the whole loss on given features, its
//! gradients by features, logits and what the method trains, and what a step changes of the method's state.

use std::collections::BTreeMap;

use autograd::{Tensor, grad};
use nn::layers::{Kind, Modules};
use nn::{Features, Output};
use serde_json::Value;
use sld::distill::{Batch, Crd, Distiller, Method, crd, kdsvd, ofd};
use sld::setting::Given;
use sld_tests::compare::{assert_close, norm};
use sld_tests::{Fixture, Inputs, Program, fixture, runners};

const RUNNERS: &[&str] = &["reference", "cpu", "gpu"];

fn open(method: &str) -> Fixture {
    Fixture::open(&format!("features/{method}.safetensors")).expect("committed")
}

/// The method with constants of a case's metadata, whose keys lack the method's own section.
fn configured(name: &str, constants: &Value) -> Box<dyn Distiller> {
    let mut method = Method::find(name).unwrap().make();
    let keys: Vec<&str> = method.keys().iter().map(|key| key.path).collect();
    for (key, value) in constants.as_object().unwrap() {
        let Some(path) = keys.iter().find(|path| path.ends_with(&format!(".{key}"))) else { continue };
        let word = value.to_string().trim_matches('"').to_owned();
        method.set(path, &Given::Word(word.into())).unwrap().unwrap();
    }
    method
}

/// A case's features of one side as inputs of a program, in the layout of this project.
struct Side<'a> {
    fixture: &'a Fixture,
    case: &'a str,
    side: &'static str,
    /// By name, each once.
    inputs: BTreeMap<String, Tensor>,
}

/// A tensor of a fixture, images with their channels last.
fn values(fixture: &Fixture, key: &str) -> Vec<f64> {
    let values = fixture.values(key);
    match fixture.shape(key).try_into() {
        Ok(shape) => nn::images::nhwc_from_nchw(&values, shape),
        Err(_) => values,
    }
}

impl<'a> Side<'a> {
    fn new(fixture: &'a Fixture, case: &'a str, side: &'static str) -> Self {
        let prefix = format!("{case}/{side}/");
        let names = fixture.names();
        let own = names.iter().filter_map(|name| name.strip_prefix(&prefix));
        let input = |name: &str| {
            let shape = match *fixture.shape(&format!("{prefix}{name}")) {
                [n, c, h, w] => vec![n, h, w, c],
                ref other => other.to_vec(),
            };
            (name.to_owned(), Tensor::input(&format!("{side}/{name}"), &shape))
        };
        Side { fixture, case, side, inputs: own.map(input).collect() }
    }

    fn values(&self, feature: &str) -> Vec<f32> {
        let values = values(self.fixture, &format!("{}/{}/{feature}", self.case, self.side));
        values.into_iter().map(|v| v as f32).collect()
    }

    fn input(&self, feature: &str) -> Option<Tensor> {
        self.inputs.get(feature).cloned()
    }

    fn list(&self, kind: &str) -> Vec<Tensor> {
        (0..).map_while(|i| self.input(&format!("{kind}/{i}"))).collect()
    }

    fn features(&self) -> Features {
        Features {
            stages: self.list("feats"),
            before_relu: self.list("preact_feats"),
            pooled: self.input("pooled_feat").unwrap_or_else(|| Features::none().pooled),
            norms: (0..)
                .map_while(|i| {
                    Some((self.input(&format!("bn/{i}.weight"))?, self.input(&format!("bn/{i}.bias"))?))
                })
                .collect(),
        }
    }
}

/// The tolerance of a gradient that is 0 in exact arithmetic, against that of the layer's weight.
fn assert_cancels(what: &str, gradient: &[f64], of_weight: &[f64]) {
    let (is, scale) = (norm(gradient), norm(of_weight));
    assert!(is <= 1e-5 * scale, "{what}: {is:.1e} is not nothing beside the weight's {scale:.1e}");
}

/// All cases of a method.
fn check(name: &str, tolerance: f64) {
    let fixture = open(&name.to_lowercase());
    for (case, constants) in fixture.json("cases").as_object().unwrap() {
        // The margins' table is a case of its own kind.
        if !fixture.has(&format!("{case}/logits")) {
            continue;
        }
        let method = configured(name, constants);
        let epoch = constants.get("epoch").and_then(Value::as_u64).unwrap_or(1) as usize;
        let side = |side| Side::new(&fixture, case, side);
        let [student, teacher] = ["student", "teacher"].map(side);
        let key = |part: &str| format!("{case}/{part}");
        let logits = Tensor::input("logits", &fixture.shape(&key("logits")));
        let batch = Batch::new(
            Output { logits: logits.clone(), features: student.features() },
            Some(Output { logits: logits.detach(), features: teacher.features() }),
            Tensor::input_i32("labels", &fixture.shape(&key("target"))),
            method.factor(1).map_or(Tensor::scalar(1.0), |_| Tensor::input("factor", &[])),
            0,
        );
        let mut modules = Modules::new(1);
        let loss = method.loss(&batch, &mut modules);
        let state = modules.state().to_vec();
        let stored: Vec<String> =
            fixture.names().into_iter().filter(|name| name.starts_with(&key("extra/"))).collect();
        assert_eq!(stored.len(), state.len(), "{name} {case}: {stored:?} {state:?}");

        let mut wanted = vec![("logits".to_owned(), logits)];
        wanted.extend(student.inputs.clone());
        let parameters =
            state.iter().filter(|entry| entry.kind == Kind::Parameter).map(|entry| &entry.variable);
        wanted.extend(parameters.map(|v| (format!("extra/{}", v.name()), v.tensor())));
        let gradients = grad(&loss.total, &wanted.iter().map(|w| w.1.clone()).collect::<Vec<_>>());
        let mut program = Program::new().output("loss_ce", &loss.terms[0].1).output("total", &loss.total);
        for ((name, _), gradient) in wanted.iter().zip(&gradients) {
            program = program.output(name, gradient);
        }
        let program = program.updates(modules.into_updates());

        let mut call = Inputs::new()
            .i32("labels", fixture.i32(&key("target")))
            .f32("logits", fixture.f32(&key("logits")));
        for side in [&student, &teacher] {
            for feature in side.inputs.keys() {
                call = call.f32(&format!("{}/{feature}", side.side), side.values(feature));
            }
        }
        if let Some(factor) = method.factor(epoch) {
            call = call.f32("factor", vec![factor as f32]);
        }
        for mut runner in runners(RUNNERS) {
            // Constants, such as a mean's weights and the factor, are rounded to f32 also where all else is f64.
            let tolerance = if runner.is_exact() { 1e-6 } else { tolerance };
            let mut outputs = {
                let runner_name = runner.name();
                for entry in &state {
                    let key = key(&format!("extra/{}", entry.variable.name()));
                    assert_eq!(fixture.shape(&key), entry.variable.shape(), "{runner_name}: {key}");
                    runner.write(&entry.variable, &fixture.f32(&key));
                }
                runner.run(&program, std::slice::from_ref(&call)).remove(0)
            };
            let what = |part: &str| format!("{name} {case}, {}: {part}", runner.name());
            let distilled = outputs["total"][0] - outputs["loss_ce"][0];
            outputs.insert("loss_kd".into(), vec![distilled]);
            for part in ["loss_ce", "loss_kd"] {
                let expected = fixture.values(&key(part));
                // The smaller part is known to the precision of the sum.
                let sum = fixture.values(&key("loss_ce"))[0] + fixture.values(&key("loss_kd"))[0];
                let error = (outputs[part][0] - expected[0]).abs() / expected[0].abs().max(1e-2 * sum);
                assert!(error <= tolerance, "{}: {} for {}", what(part), outputs[part][0], expected[0]);
            }
            for (part, _) in &wanted {
                let stored = key(&format!("grad/{part}"));
                let of_feature = !part.starts_with("extra");
                let expected = if of_feature { values(&fixture, &stored) } else { fixture.values(&stored) };
                match part.strip_suffix("conv_reg.conv.bias") {
                    Some(_) => {
                        assert_cancels(&what(part), &outputs[part], &outputs["extra/conv_reg.conv.weight"])
                    }
                    None => {
                        let mut actual = outputs[part].clone();
                        if part.starts_with("feats") && norm(&expected) == 0.0 {
                            assert_eq!(norm(&actual), 0.0, "{}: must not be used", what(part));
                            actual.clone_from(&expected);
                        }
                        assert_close(&what(part), &actual, &expected, tolerance);
                    }
                }
            }
            for entry in &state {
                let name = entry.variable.name();
                let after = key(&format!("after/extra/{name}"));
                assert_eq!(fixture.has(&after), entry.kind != Kind::Parameter, "{after}");
                if fixture.has(&after) {
                    assert_close(
                        &what(&after),
                        &runner.read(&entry.variable),
                        &fixture.values(&after),
                        tolerance,
                    );
                }
            }
        }
    }
}

#[test]
fn attention_transfer() {
    check("AT", 1e-5);
}

#[test]
fn similarity_preserving() {
    check("SP", 1e-5);
}

#[test]
fn hints() {
    check("FITNET", 1e-5);
}

#[test]
fn neuron_selectivity() {
    check("NST", 1e-5);
}

#[test]
fn probabilistic_transfer() {
    check("PKT", 1e-5);
}

#[test]
fn relations() {
    check("RKD", 1e-5);
}

#[test]
fn variational_information() {
    check("VID", 1e-5);
}

#[test]
fn overhaul() {
    check("OFD", 1e-5);
}

#[test]
fn knowledge_review() {
    check("REVIEWKD", 1e-5);
}

#[test]
fn margins_are_the_means_of_negative_parts() {
    let fixture = open("ofd");
    let [scale, shift] = ["weight", "bias"].map(|name| Tensor::input(name, &[64]));
    let program = Program::new().output("margin", &ofd::margin(&scale, &shift));
    let expected = fixture.values("margin_table/margin");
    let call = ["weight", "bias"]
        .into_iter()
        .fold(Inputs::new(), |call, name| call.f32(name, fixture.f32(&format!("margin_table/{name}"))));
    for mut runner in runners(RUNNERS) {
        let outputs = runner.run(&program, std::slice::from_ref(&call)).remove(0);
        // Stored as f32. Each of them, not only all together.
        for (i, (is, wanted)) in outputs["margin"].iter().zip(&expected).enumerate() {
            let error = (is - wanted).abs() / wanted.abs();
            assert!(
                error <= if runner.is_exact() { 2e-7 } else { 1e-5 },
                "{} {i}: {is} {wanted}",
                runner.name()
            );
        }
    }
}

/// Two calls: the first sets the normalisers and writes the memories that the second reads.
#[test]
fn contrast() {
    let fixture = open("crd");
    for (case, constants) in fixture.json("cases").as_object().unwrap() {
        let number = |key: &str| constants[key].as_u64().unwrap();
        let n = number("num_data") as usize;
        let [student, teacher] = ["student", "teacher"].map(|side| Side::new(&fixture, case, side));
        let (s, t) = (student.input("pooled_feat").unwrap(), teacher.input("pooled_feat").unwrap());
        let method = Crd {
            negatives: number("K") as u32,
            dim: number("DIM") as u32,
            student_dim: s.dim(1) as u32,
            teacher_dim: t.dim(1) as u32,
            ..Crd::default()
        };
        let key = |part: &str| format!("{case}/{part}");
        let logits = Tensor::input("logits", &fixture.shape(&key("logits")));
        let output = |logits: Tensor, side: &Side| Output { logits, features: side.features() };
        let batch = Batch::new(
            output(logits.clone(), &student),
            Some(output(logits.detach(), &teacher)),
            Tensor::input_i32("labels", &fixture.shape(&key("target"))),
            Tensor::scalar(1.0),
            n,
        );
        let mut modules = Modules::new(1);
        let loss = method.loss(&batch, &mut modules);
        let state = modules.state().to_vec();
        let parameters = state.iter().filter(|entry| entry.kind == Kind::Parameter);
        let mut wanted = vec![("logits".to_owned(), logits), ("pooled_feat".to_owned(), s)];
        wanted.extend(parameters.map(|e| (format!("extra/{}", e.variable.name()), e.variable.tensor())));
        let gradients = grad(&loss.total, &wanted.iter().map(|w| w.1.clone()).collect::<Vec<_>>());
        let mut program = Program::new();
        for (name, term) in &loss.terms {
            program = program.output(*name, term);
        }
        for ((name, _), gradient) in wanted.iter().zip(&gradients) {
            program = program.output(name, gradient);
        }
        let program = program.updates(modules.into_updates());
        let calls = ["step1", "step2"].map(|step| {
            let drawn = fixture.i32(&key(&format!("{step}/contrastive_index")));
            let width = method.negatives as usize + 1;
            let negatives: Vec<Vec<u32>> =
                drawn.chunks(width).map(|row| row[1..].iter().map(|&i| i as u32).collect()).collect();
            Inputs::new()
                .i32("labels", fixture.i32(&key("target")))
                .f32("logits", fixture.f32(&key("logits")))
                .f32("student/pooled_feat", student.values("pooled_feat"))
                .f32("teacher/pooled_feat", teacher.values("pooled_feat"))
                .i32(crd::INPUTS[0], fixture.i32(&key(&format!("{step}/index"))))
                .i32(crd::INPUTS[1], drawn.chunks(width).map(|row| row[0]).collect())
                .f32(crd::INPUTS[2], crd::counts(&negatives, n))
        });
        for mut runner in runners(RUNNERS) {
            let tolerance = if runner.is_exact() { 2e-7 } else { 1e-5 };
            for entry in state.iter().filter(|entry| entry.variable.name() != "contrast.params") {
                let stored = fixture.f32(&key(&format!("extra/{}", entry.variable.name())));
                runner.write(&entry.variable, &stored);
            }
            for (step, call) in ["step1", "step2"].into_iter().zip(&calls) {
                let outputs = runner.run(&program, std::slice::from_ref(call)).remove(0);
                let what = |part: &str| format!("CRD {case} {step}, {}: {part}", runner.name());
                let expected = |part: &str| fixture.values(&key(&format!("{step}/{part}")));
                assert_close(&what("loss_ce"), &outputs["ce"], &expected("loss_ce"), tolerance);
                let distilled = [outputs["contrast_s"][0] + outputs["contrast_t"][0]];
                assert_close(&what("loss_kd"), &distilled, &expected("loss_kd"), tolerance);
                for (part, _) in &wanted {
                    assert_close(&what(part), &outputs[part], &expected(&format!("grad/{part}")), tolerance);
                }
                for entry in state.iter().filter(|entry| entry.kind == Kind::Memory) {
                    let name = entry.variable.name();
                    let after = expected(&format!("after/extra/{name}"));
                    assert_close(&what(name), &runner.read(&entry.variable), &after, tolerance);
                }
            }
        }
    }
}

/// Where the reference's signs are the rule's, the method itself; else with the reference's signs.
#[test]
fn singular_vectors() {
    let fixture = open("kdsvd");
    for (case, constants) in fixture.json("cases").as_object().unwrap() {
        let k = constants["K"].as_u64().unwrap() as usize;
        let [student, teacher] = ["student", "teacher"].map(|side| Side::new(&fixture, case, side));
        let (s, t) = (student.features(), teacher.features());
        let key = |part: &str| format!("{case}/{part}");
        let reference = |stage: usize| {
            let stored = key(&format!("teacher_v/{stage}"));
            Tensor::constant(&fixture.shape(&stored), fixture.f32(&stored))
        };
        let stages = |own_rule: bool| -> Vec<kdsvd::Vectors> {
            let pairs = s.stages.iter().zip(&t.stages).enumerate().skip(1);
            let stage = |(i, (s, t)): (usize, (&Tensor, &Tensor))| {
                kdsvd::Vectors::new(s, t, k, |v| match own_rule {
                    true => kdsvd::not_positive(v),
                    false => (v * reference(i)).sum(&[1]).sign(),
                })
            };
            pairs.map(stage).collect()
        };
        let given = stages(false);
        let loss = kdsvd::distance(&given);
        let wanted: Vec<(String, Tensor)> = student.inputs.clone().into_iter().collect();
        let gradients = grad(&loss, &wanted.iter().map(|w| w.1.clone()).collect::<Vec<_>>());
        let mut program =
            Program::new().output("loss_kd", &loss).output("by rule", &kdsvd::distance(&stages(true)));
        for (i, vectors) in given.iter().enumerate() {
            program = program.output(format!("v{i}"), &vectors.teacher);
        }
        for ((name, _), gradient) in wanted.iter().zip(&gradients) {
            program = program.output(name, gradient);
        }
        let call = [&student, &teacher].into_iter().fold(Inputs::new(), |call, side| {
            side.inputs.keys().fold(call, |call, feature| {
                call.f32(&format!("{}/{feature}", side.side), side.values(feature))
            })
        });
        for mut runner in runners(RUNNERS) {
            let device = runner.name();
            let what = |part: &str| format!("KDSVD {case}, {device}: {part}");
            let tolerance = if runner.is_exact() { 1e-6 } else { 1e-5 };
            let outputs = runner.run(&program, std::slice::from_ref(&call)).remove(0);
            assert_close(&what("loss"), &outputs["loss_kd"], &fixture.values(&key("loss_kd")), tolerance);
            if constants["signs_equal_across_stages"] == true {
                assert_close(
                    &what("by rule"),
                    &outputs["by rule"],
                    &fixture.values(&key("loss_kd")),
                    tolerance,
                );
            }
            for (part, _) in &wanted {
                let expected = values(&fixture, &key(&format!("grad/{part}")));
                if norm(&expected) == 0.0 {
                    assert_eq!(norm(&outputs[part]), 0.0, "{}: must not be used", what(part));
                    continue;
                }
                assert_close(&what(part), &outputs[part], &expected, tolerance);
            }
        }
    }
}

/// Every network's features have the reference's shapes, and those before a ReLU are where it has them.
#[test]
fn features_have_the_references_shapes() {
    let shapes = fixture::json("features/feature_shapes.json");
    let mut checked = 0;
    for (name, expected) in shapes.as_object().unwrap() {
        let (folder, model) = name.split_once('/').unwrap();
        let (model, side) = match folder {
            "cifar" => (model.to_owned(), 32),
            "imagenet" => (name.clone(), 224),
            // Networks of Tiny-ImageNet's own are elsewhere.
            _ => continue,
        };
        let model = nn::models::build(&model, 10, 0).unwrap_or_else(|why| panic!("{name}: {why}"));
        let images = Tensor::input("images", &[1, side, side, 3]);
        let features = model.forward(&images, &mut nn::Forward::eval()).features;
        let of = |tensors: &[Tensor]| -> Vec<Vec<usize>> {
            tensors.iter().map(|t| vec![t.dim(3), t.dim(1), t.dim(2)]).collect()
        };
        let wanted = |key: &str| -> Vec<Vec<usize>> {
            serde_json::from_value(expected[key].clone()).unwrap_or_default()
        };
        assert_eq!(of(&features.stages), wanted("feats"), "{name}");
        assert_eq!(of(&features.before_relu), wanted("preact_feats"), "{name}");
        assert_eq!(
            features.pooled.shape()[1..],
            serde_json::from_value::<Vec<usize>>(expected["pooled_feat"].clone()).unwrap(),
            "{name}"
        );
        checked += 1;
    }
    assert!(checked >= 20, "{checked}");
}

/// What a method makes for resnet32x4 -> resnet8x4, by name, shape and order.
#[test]
fn modules_have_the_references_names() {
    let states = fixture::json("features/extra_state.json");
    for (name, expected) in states.as_object().unwrap() {
        let Some(method) = Method::find(name) else { continue };
        let build = |name| nn::models::build(name, 100, 0).unwrap();
        let networks = sld::training::Networks::new(
            build("resnet8x4"),
            Some(build("resnet32x4")),
            &*method.make(),
            // As many images as the fixture's memories are of.
            sld::training::Setup { images: 50, ..Default::default() },
        );
        let networks = networks.unwrap_or_else(|why| panic!("{name}: {why}"));
        let mut position = networks.student.parameters().len();
        let state = networks.modules.iter().map(|entry| {
            let learned = entry.kind == Kind::Parameter;
            position += usize::from(learned);
            serde_json::json!([entry.variable.name(), entry.variable.shape(), learned.then(|| position - 1)])
        });
        assert_eq!(Value::Array(state.collect()), expected["state"], "{name}");
        assert_eq!(expected["optimizer_entries"], position, "{name}");
        assert_eq!(expected["extra_parameters_reported"], networks.extra_values(), "{name}");
    }
}

/// Which pairs each method takes, and how much it trains for them. Where the reference fails for want of a
/// list of channels that is known here, the pair is taken.
#[test]
fn methods_take_the_pairs_that_the_reference_takes() {
    let pairs = fixture::json("features/pairs.json");
    let (mut taken, mut refused) = (0, 0);
    for (pair, methods) in pairs.as_object().unwrap() {
        let (teacher, student) = pair.split_once('>').unwrap();
        for (name, expected) in methods.as_object().unwrap() {
            let (name, layer) =
                name.split_once('/').map_or((name.as_str(), None), |(n, layer)| (n, Some(layer)));
            let mut method = configured(name, expected);
            if let Some(layer) = layer {
                method.set("FITNET.HINT_LAYER", &Given::Word(layer.into())).unwrap().unwrap();
            }
            let build = |name| nn::models::build(name, 10, 0).unwrap();
            let setup = sld::training::Setup { images: 20, ..Default::default() };
            let what = format!("{name} {layer:?} {pair}");
            let more = name == "OFD"
                && (student == "ShuffleV1" || teacher == "ResNet50")
                && student != "MobileNetV2";
            match sld::training::Networks::new(build(student), Some(build(teacher)), &*method, setup) {
                Ok(_) if more => assert_eq!(expected["runs"], false, "{what}"),
                Ok(networks) => {
                    assert_eq!(expected["runs"], true, "{what}");
                    let learned = networks.modules.iter().filter(|entry| entry.kind == Kind::Parameter);
                    let count: usize = learned.map(|entry| entry.variable.len()).sum();
                    assert_eq!(expected["extra"], count, "{what}");
                    taken += 1;
                }
                Err(why) => {
                    assert_eq!(expected["runs"], false, "{what}: {why}");
                    let why = why.to_string();
                    let says = [
                        format!("{teacher} -> {student}"),
                        "students it takes".into(),
                        "teachers it takes".into(),
                    ];
                    assert!(says.iter().all(|part| why.contains(part)), "{why}");
                    refused += 1;
                }
            }
        }
    }
    assert!(taken > 150 && refused > 20, "{taken} {refused}");
}
