//! What networks, optimizer and checkpoints do together, beyond the reference's numbers.

use autograd::{Tensor, Variable, VariableStore, grad};
use cpu::CpuDevice;
use nn::Optimizer;
use nn::checkpoint::{self, NamedTensor, Role, TensorData};
use nn::layers::Kind;
use nn::{Error, Forward, Model, ParameterGroup, Sgd, SgdOptions, models};
use sld_tests::compare::{assert_close, relative};
use sld_tests::{Inputs, Program, Runner, available, formula, runners};

fn build(name: &str) -> Model {
    models::build(name, 100, 11).unwrap()
}

/// A state dict of formula values.
fn state_dict(salt: &str, model: &Model) -> Vec<NamedTensor> {
    let values = formula::model_state(salt, model);
    let tensor = |(entry, values): (&nn::layers::StateEntry, Vec<f32>)| {
        NamedTensor::f32(entry.variable.name(), entry.variable.shape(), values)
    };
    model.state().iter().zip(values).map(tensor).collect()
}

#[test]
fn a_state_dict_goes_to_a_device_and_back() {
    let (model, device) = (build("wrn_16_1"), CpuDevice::new(1));
    let mut tensors = state_dict("there", &model);
    tensors.reverse();
    model.load(&tensors, &device).unwrap();
    let saved = model.save(&device).unwrap();
    assert_eq!(saved.len(), model.state().len());
    for (tensor, entry) in saved.iter().zip(model.state()) {
        assert_eq!(tensor.name, entry.variable.name());
        let given = tensors.iter().find(|t| t.name == tensor.name).unwrap();
        assert_eq!(tensor.shape, given.shape);
        assert_eq!(tensor.data.to_f64(), given.data.to_f64());
        assert_eq!(matches!(tensor.data, TensorData::I64(_)), entry.kind == Kind::Counter, "{}", tensor.name);
    }

    // Old files have no counters.
    tensors.retain(|t| !t.name.ends_with("num_batches_tracked"));
    model.load(&tensors, &device).unwrap();
    let counter = &model.buffers()[2];
    assert_eq!(counter.name(), "block1.layer.0.bn1.num_batches_tracked");
    assert_eq!(device.read(counter).unwrap(), [0.0]);
}

#[test]
fn what_does_not_fit_is_listed_and_nothing_is_written() {
    let (model, device) = (build("resnet8"), CpuDevice::new(1));
    let untouched = model.save(&device).unwrap();

    let other = models::build("resnet14", 10, 0).unwrap();
    let error = model.load(&state_dict("other", &other), &device).unwrap_err();
    let Error::Mismatch { mismatch, .. } = &error else { panic!("{error}") };
    assert!(mismatch.missing.is_empty());
    assert!(mismatch.unexpected.iter().any(|(name, _)| name == "layer1.1.conv1.weight"));
    assert_eq!(
        mismatch.misshapen.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(),
        ["fc.weight", "fc.bias"]
    );
    let nearest = mismatch.nearest.as_ref().unwrap();
    assert_eq!((nearest.model.as_str(), nearest.differences), ("resnet14", 0));
    let text = error.to_string();
    for part in ["layer1.1.conv1.weight", "fc.weight is [10, 64], should be [100, 64]", "resnet14", "resnet8"]
    {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }

    let mut damaged = state_dict("damaged", &model);
    damaged.last_mut().unwrap().data = TensorData::F32(vec![f32::NAN; 100]);
    let error = model.load(&damaged, &device).unwrap_err();
    assert!(matches!(&error, Error::NotFinite { name, index: 0, .. } if name == "fc.bias"), "{error}");
    damaged.pop();
    let error = model.load(&damaged, &device).unwrap_err();
    assert!(
        matches!(&error, Error::Mismatch { mismatch, .. } if mismatch.missing[0].0 == "fc.bias"),
        "{error}"
    );
    assert_eq!(model.save(&device).unwrap(), untouched);
}

/// Every published form of a teacher's file gives the network the same answers.
#[test]
fn reference_checkpoints_load_into_networks() {
    let (Some(files), Some(trainer)) = (available("ckpt/resnet8_vanilla"), available("ckpt/trainer")) else {
        return;
    };
    let model = build("resnet8");
    let expected = state_dict("ckpt/resnet8", &model);
    let mut loaded = 0;
    for file in std::fs::read_dir(files).unwrap() {
        let path = file.unwrap().path();
        let device = CpuDevice::new(1);
        let checkpoint =
            checkpoint::read_network(&path, Role::Teacher).unwrap_or_else(|error| panic!("{error}"));
        let views = path.to_string_lossy().contains("odd_views");
        model
            .load(&checkpoint.tensors, &device)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if views {
            continue; // Other values, whose sums the checkpoint tests know.
        }
        for (entry, tensor) in model.state().iter().zip(&expected) {
            let values = device.read(&entry.variable).unwrap();
            assert_eq!(values, tensor.data.to_f32(), "{}: {}", path.display(), tensor.name);
        }
        loaded += 1;
    }
    assert!(loaded >= 7);

    // The trainer's own: two networks and an optimizer.
    let mut checkpoint = checkpoint::read(&trainer.join("latest_epoch151")).unwrap();
    let device = CpuDevice::new(1);
    let networks: Vec<String> = checkpoint.tensors.iter().map(|t| t.name.clone()).collect();
    let student = checkpoint.take_submodule("student");
    assert!(!student.is_empty(), "{networks:?}");
    let fits = models::names()
        .filter(|name| models::side(name) == 32)
        .map(|name| models::build(name, 100, 0).unwrap())
        .find(|model| model.load(&student, &device).is_ok())
        .expect("one of the networks is the student");
    let sgd = Sgd::new(&fits.parameters(), SgdOptions::default());
    let optimizer = checkpoint.optimizer.unwrap();
    sgd.load(&optimizer, &device).unwrap();
    assert_eq!(sgd.momenta().len(), optimizer.momentum.len());
    for (position, momentum) in sgd.momenta().iter().enumerate() {
        assert_eq!(device.read(momentum).unwrap(), optimizer.momentum[&position].data.to_f32());
    }
}

#[test]
fn an_optimizers_state_goes_there_and_back() {
    let device = CpuDevice::new(1);
    let (a, b) = (Variable::full("a", &[2], 0.0), Variable::full("b", &[3, 1], 0.0));
    let no_decay = SgdOptions { weight_decay: 0.0, rate_factor: 2.0, ..SgdOptions::default() };
    let sgd = Sgd::with_groups(vec![
        ParameterGroup { parameters: vec![a.clone()], options: SgdOptions::default() },
        ParameterGroup { parameters: vec![b.clone()], options: no_decay },
    ]);
    device.write(&sgd.momenta()[0], &[1.0, 2.0]).unwrap();
    let state = sgd.save(0.1, &device).unwrap();
    assert_eq!(state.momentum[&0].data.to_f32(), [1.0, 2.0]);
    assert_eq!(state.param_groups.iter().map(|g| g.params.clone()).collect::<Vec<_>>(), [vec![0], vec![1]]);
    assert_eq!(state.param_groups[1].number("lr"), Some(0.2));
    assert_eq!(state.param_groups[1].number("weight_decay"), Some(0.0));

    device.write(&sgd.momenta()[0], &[9.0, 9.0]).unwrap();
    sgd.load(&state, &device).unwrap();
    assert_eq!(device.read(&sgd.momenta()[0]).unwrap(), [1.0, 2.0]);
    let other = Sgd::new(&[b], SgdOptions::default());
    assert!(matches!(other.load(&state, &device), Err(Error::Optimizer(_))));
}

/// Three steps by hand, with different settings for two groups.
#[test]
fn sgd_follows_its_formula() {
    let (a, b) = (Variable::full("a", &[1], 2.0), Variable::full("b", &[1], -1.0));
    let options = SgdOptions { momentum: 0.5, weight_decay: 0.1, rate_factor: 0.25, ..Default::default() };
    let sgd = Sgd::with_groups(vec![
        ParameterGroup { parameters: vec![a.clone()], options: SgdOptions::default() },
        ParameterGroup { parameters: vec![b.clone()], options },
    ]);
    let loss = (a.tensor() * b.tensor()).sum_all();
    let gradients = grad(&loss, &sgd.tensors());
    let updates = sgd.updates(&gradients, &Tensor::input("lr", &[]));
    let program = Program::new().output("loss", &loss).updates(updates);
    for mut runner in runners(&["reference", "cpu"]) {
        let rates = [0.5f32, 0.25, 0.125];
        let calls: Vec<Inputs> = rates.iter().map(|&rate| Inputs::new().f32("lr", vec![rate])).collect();
        let outputs = runner.run(&program, &calls);
        let (mut p, mut m) = ([2.0f64, -1.0], [0.0f64; 2]);
        for (rate, outputs) in rates.iter().zip(&outputs) {
            assert_close("loss", &outputs["loss"], &[p[0] * p[1]], 1e-6);
            let g = [p[1] + 5e-4 * p[0], p[0] + 0.1 * p[1]];
            m = [0.9 * m[0] + g[0], 0.5 * m[1] + g[1]];
            let rate = f64::from(*rate);
            p = [p[0] - rate * m[0], p[1] - 0.25 * rate * m[1]];
        }
        assert_close("a", &runner.read(&a), &p[..1], 1e-6);
        assert_close("b", &runner.read(&b), &p[1..], 1e-6);
        assert_close("momentum of b", &runner.read(&sgd.momenta()[1]), &m[1..], 1e-6);
    }
    let wrong = sgd.updates(&gradients[..1], &Tensor::scalar(0.1));
    assert!(wrong[0].1.check().unwrap_err().to_string().contains("1 gradients for 2 parameters"));
}

/// Running statistics of a network after a training pass, by name.
fn statistics(model: &Model, mut forward: Forward, runner: &mut dyn Runner) -> Vec<(String, Vec<f64>)> {
    let images = Tensor::input("images", &[4, 32, 32, 3]);
    let logits = model.forward(&images, &mut forward).logits;
    let program = Program::new().output("logits", &logits).updates(forward.into_updates());
    for entry in model.state() {
        runner.write(&entry.variable, entry.variable.initial());
    }
    let call = Inputs::new().f32("images", formula::images("networks", 4));
    runner.run(&program, &[call]);
    model.buffers().iter().map(|buffer| (buffer.name().to_string(), runner.read(buffer))).collect()
}

/// The second update that wide residual networks make can be switched off; it touches three layers.
#[test]
fn repeated_updates_can_be_switched_off() {
    let model = build("wrn_16_1");
    let twice = ["block2.layer.0.bn1", "block3.layer.0.bn1", "bn1"];
    let mut runner = runners(&["cpu"]).remove(0);
    let repeated = statistics(&model, Forward::train(1), runner.as_mut());
    let single = statistics(&model, Forward::train(1).without_repeated_updates(), runner.as_mut());
    for ((name, repeated), (_, single)) in repeated.iter().zip(&single) {
        let (layer, field) = name.rsplit_once('.').unwrap();
        let is_repeated = twice.contains(&layer);
        match field {
            "num_batches_tracked" => {
                assert_eq!((repeated[0], single[0]), (if is_repeated { 2.0 } else { 1.0 }, 1.0), "{name}");
            }
            // From mean 0: 0.19 of the batch's against 0.1 of it.
            "running_mean" => {
                let factor = if is_repeated { 1.9 } else { 1.0 };
                let expected: Vec<f64> = single.iter().map(|v| v * factor).collect();
                assert_close(name, repeated, &expected, 1e-6);
            }
            _ => assert_eq!(repeated == single, !is_repeated, "{name}"),
        }
    }
}

/// Two views in one batch do what two passes do: the same logits and statistics.
#[test]
fn stacked_views_equal_two_passes() {
    for name in ["wrn_16_1", "MobileNetV2"] {
        let model = build(name);
        let [weak, strong] = ["weak", "strong"].map(|view| Tensor::input(view, &[2, 32, 32, 3]));
        let (mut one, mut two) = (Forward::train(2), Forward::train(1));
        let stacked = model.forward(&Tensor::concatenate(&[&weak, &strong], 0), &mut one).logits;
        let passes = [&weak, &strong].map(|view| model.forward(view, &mut two).logits);
        let separate = Tensor::concatenate(&[&passes[0], &passes[1]], 0);
        let (one, two) = (one.into_updates(), two.into_updates());
        assert_eq!(one.len(), model.buffers().len());
        let mut program = Program::new().output("stacked", &stacked).output("separate", &separate);
        for (kind, updates) in [("one", &one), ("two", &two)] {
            for (variable, value) in updates {
                program = program.output(format!("{kind} {}", variable.name()), value);
            }
        }
        let call = Inputs::new()
            .f32("weak", formula::images("views/weak", 2))
            .f32("strong", formula::images("views/strong", 2));
        for mut runner in runners(&["reference", "cpu"]) {
            let tolerance = if runner.is_exact() { 1e-10 } else { 1e-4 };
            let outputs = runner.run(&program, std::slice::from_ref(&call)).remove(0);
            assert_close(name, &outputs["stacked"], &outputs["separate"], tolerance);
            for (variable, _) in &one {
                let [one, two] = ["one", "two"].map(|kind| &outputs[&format!("{kind} {}", variable.name())]);
                let error = relative(one, two, 1e-3);
                assert!(error <= tolerance, "{name} {}: {error:.1e}", variable.name());
            }
        }
    }
}

/// Parameters and multiply-accumulates (millions) that torchvision and the MobileNet paper state.
#[test]
fn imagenet_networks_have_the_published_size() {
    for (name, parameters, macs) in [
        ("ResNet18", 11_689_512, 1814),
        ("ResNet34", 21_797_672, 3664),
        ("ResNet50", 25_557_032, 4089),
        ("ResNet101", 44_549_160, 7801),
        ("MobileNetV1", 4_231_976, 569),
        // TensorFlow's list of its own: 0.47 million parameters and 41 million.
        ("MobileNetV1_025", 470_072, 41),
        ("mobilenet_v2", 3_504_872, 301),
    ] {
        let model = models::build(&format!("imagenet/{name}"), 1000, 0).unwrap();
        assert_eq!(model.parameter_count(), parameters, "{name}");
        assert_eq!((model.macs(224, 224).unwrap() as f64 / 1e6).round(), f64::from(macs), "{name}");
    }
    assert!(models::build("imagenet/MobileNetV2", 1000, 0).is_ok());
}

#[test]
fn image_sizes_are_those_of_the_reference() {
    let logits = |name: &str, side: usize| {
        let images = Tensor::input("images", &[1, side, side, 3]);
        build(name).forward(&images, &mut Forward::eval()).logits
    };
    for name in models::names().filter(|name| models::side(name) == 32) {
        assert_eq!(logits(name, 32).check().unwrap().shape(), [1, 100], "{name}");
    }
    for name in ["vgg8", "vgg19", "ResNet18", "ShuffleV2", "tiny_imagenet/MobileNetV2"] {
        assert_eq!(logits(name, 64).check().unwrap().shape(), [1, 100], "{name}");
    }
    // At 64 pixels the fourth pool is there: the last block works at 4x4, as at 32.
    let vgg = build("vgg8");
    for side in [32, 64] {
        let images = Tensor::input("images", &[1, side, side, 3]);
        let stages = vgg.forward(&images, &mut Forward::eval()).features.stages;
        assert_eq!(stages.last().unwrap().shape(), [1, 4, 4, 512], "{side}");
    }
    for (name, side) in
        [("resnet8", 64), ("resnet8", 16), ("wrn_16_1", 64), ("MobileNetV2", 64), ("ShuffleV1", 64)]
    {
        let error = logits(name, side).check().unwrap_err().to_string();
        assert!(error.contains("too small or too large"), "{name}: {error}");
    }
    let planes = Tensor::input("images", &[1, 3, 32, 32]);
    let error =
        build("resnet8").forward(&planes, &mut Forward::eval()).logits.check().unwrap_err().to_string();
    assert!(error.contains("channels last"), "{error}");
}

#[test]
fn dropout_drops_its_share_in_training_only() {
    let x = Tensor::full(&[100, 100], 1.0);
    let [seed, step] = ["seed", "step"].map(|name| Tensor::input_i32(name, &[]));
    let mut train = Forward::train(1).with_randomness(&seed, &step);
    let (first, second) = (train.dropout(&x, 0.3), train.dropout(&x, 0.3));
    let program = Program::new().output("first", &first).output("second", &second);
    for mut runner in runners(&["reference", "cpu"]) {
        let call = |step| Inputs::new().i32("seed", vec![5]).i32("step", vec![step]);
        let outputs = runner.run(&program, &[call(1), call(1), call(2)]);
        let dropped = outputs[0]["first"].iter().filter(|&&v| v == 0.0).count();
        assert!((2800..3200).contains(&dropped), "{dropped}");
        assert!(outputs[0]["first"].iter().all(|&v| v == 0.0 || (v - 1.0 / 0.7).abs() < 1e-6));
        assert_eq!(outputs[0], outputs[1]);
        assert_ne!(outputs[0]["first"], outputs[0]["second"]);
        assert_ne!(outputs[0]["first"], outputs[2]["first"]);
    }
    assert_eq!(Forward::eval().dropout(&x, 0.3).id(), x.id());
    let error = Forward::train(1).dropout(&x, 0.3).check().unwrap_err().to_string();
    assert!(error.contains("with_randomness"), "{error}");
}

#[test]
fn batch_norm_of_one_value_a_channel_is_an_error() {
    let model = build("MobileNetV2");
    let images = Tensor::input("images", &[1, 8, 8, 3]);
    let logits = model.forward(&images, &mut Forward::train(1)).logits;
    let error = logits.check().unwrap_err().to_string();
    assert!(error.contains("one value a channel"), "{error}");
    let two = Tensor::input("images", &[3, 32, 32, 3]);
    let error = model.forward(&two, &mut Forward::train(2)).logits.check().unwrap_err().to_string();
    assert!(error.contains("2 equal views"), "{error}");
}
