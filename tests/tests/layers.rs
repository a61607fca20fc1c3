//! Each layer and activation against PyTorch in float64: names and shapes of its parameters, its result, and the
//! gradients of its input and of every parameter; these also against central differences.

use std::collections::{BTreeSet, HashMap};

use autograd::{Tensor, Variable, grad};
use nn::initialization::{Initialization, Initializer};
use nn::layers::{Builder, ConvSpec};
use sld_tests::compare::{assert_close, relative};
use sld_tests::{Fixture, Inputs, Program, formula, runners};

type Apply = Box<dyn Fn(&Tensor) -> Tensor>;

/// Makes the layer of a case under the name `layer`.
fn make(case: &str, b: &mut Builder) -> Apply {
    let spec = |outputs, kernel| ConvSpec::new(6, outputs, kernel).with_bias();
    let l = "layer";
    match case {
        "layer_norm" => on(b.layer_norm(l, 6), |layer, x| layer.forward(x)),
        "layer_norm_offset" => {
            let mut layer = b.layer_norm(l, 6);
            layer.epsilon = 1e-6;
            on(layer, |layer, x| layer.forward(x))
        }
        "group_norm" => on(b.group_norm(l, 3, 6), |layer, x| layer.forward(x)),
        "group_norm_one" => on(b.group_norm(l, 1, 6), |layer, x| layer.forward(x)),
        "embedding" => on(b.embedding(l, 5, 4), |layer, x| layer.forward(x)),
        "depthwise" => on(b.convolution(l, ConvSpec::depthwise(6)), |layer, x| layer.forward(x)),
        "dilated" => on(b.convolution(l, spec(4, 3).dilation(2).padding(2)), |layer, x| layer.forward(x)),
        "transposed" | "transposed_extra" | "transposed_groups" | "transposed_dilated" => {
            let spec = match case {
                "transposed" => spec(4, 2).stride(2).padding(0),
                "transposed_extra" => spec(4, 3).stride(2),
                "transposed_groups" => ConvSpec::new(6, 4, 3).groups(2),
                _ => spec(4, 3).stride(2).padding(2).dilation(2),
            };
            let mut layer = b.transposed_convolution(l, spec);
            layer.extra = usize::from(case == "transposed_extra");
            on(layer, |layer, x| layer.forward(x))
        }
        "attention" => on(b.attention(l, 6, 2), |layer, x| layer.forward(x)),
        "attention_memory" => on(b.attention(l, 6, 3), |layer, x| layer.forward_to(&x.slice(1, 0, 3, 1), x)),
        "squeeze_excitation" => on(b.squeeze_excitation(l, 6, 3), |layer, x| layer.forward(x)),
        "squeeze_excitation_hardsigmoid" => {
            let mut layer = b.squeeze_excitation(l, 6, 3);
            (layer.activation, layer.gate) = (Tensor::silu, Tensor::hardsigmoid);
            on(layer, |layer, x| layer.forward(x))
        }
        "linear_tokens" => on(b.linear(l, 6, 4), |layer, x| layer.forward(x)),
        "gelu" => Box::new(Tensor::gelu),
        "silu" => Box::new(Tensor::silu),
        "hardsigmoid" => Box::new(Tensor::hardsigmoid),
        "hardswish" => Box::new(Tensor::hardswish),
        "relu6" => Box::new(Tensor::relu6),
        unknown => panic!("no layer for the case {unknown}"),
    }
}

fn on<L: 'static>(layer: L, forward: impl Fn(&L, &Tensor) -> Tensor + 'static) -> Apply {
    Box::new(move |x| forward(&layer, x))
}

/// A case: its layer on its input, and everything's gradient.
struct Case {
    name: String,
    parameters: Vec<Variable>,
    output: Tensor,
    loss: Tensor,
    /// Of the input, if it has one, and of the parameters: by the name in the fixture.
    gradients: Vec<(String, Tensor)>,
    floats: Vec<(String, Vec<f32>)>,
    integers: Vec<(String, Vec<i32>)>,
}

impl Case {
    fn new(fixture: &Fixture, name: &str) -> Case {
        let key = |part: &str| format!("{name}/{part}");
        let shape = fixture.shape(&key("in.x"));
        let (mut floats, mut integers) = (vec![(key("up"), fixture.f32(&key("up")))], Vec::new());
        let integer = fixture.is_integer(&key("in.x"));
        let x = if integer {
            integers.push((key("x"), fixture.i32(&key("in.x"))));
            Tensor::input_i32(key("x"), &shape)
        } else {
            floats.push((key("x"), fixture.f32(&key("in.x"))));
            Tensor::input(key("x"), &shape)
        };
        let (apply, state) = Builder::build(Initializer::new(Initialization::PYTORCH, 1), |b| make(name, b));
        let parameters: Vec<Variable> = state.into_iter().map(|entry| entry.variable).collect();
        let output = apply(&x);
        output.check().unwrap_or_else(|error| panic!("{name}: {error}"));
        let loss = (&output * Tensor::input(key("up"), output.shape())).sum_all();
        let names = parameters.iter().map(|p| p.name().strip_prefix("layer.").expect("a name").to_string());
        let mut wrt: Vec<(String, Tensor)> = names.zip(parameters.iter().map(Variable::tensor)).collect();
        if !integer {
            wrt.push(("x".into(), x));
        }
        let (names, wrt): (Vec<String>, Vec<Tensor>) = wrt.into_iter().unzip();
        let gradients = names.into_iter().zip(grad(&loss, &wrt)).collect();
        Case { name: name.into(), parameters, output, loss, gradients, floats, integers }
    }

    fn state(&self, fixture: &Fixture) -> Vec<Vec<f32>> {
        let entry = |p: &Variable| {
            let key = p.name().replacen("layer.", &format!("{}/state.", self.name), 1);
            assert_eq!(fixture.shape(&key), p.shape(), "{key}");
            fixture.f32(&key)
        };
        self.parameters.iter().map(entry).collect()
    }
}

fn cases() -> (Fixture, Vec<Case>) {
    let fixture = Fixture::open("layers/layers.safetensors").expect("committed");
    let names: BTreeSet<String> =
        fixture.names().iter().filter_map(|key| Some(key.split_once('/')?.0.to_string())).collect();
    assert!(names.len() > 20);
    let cases = names.iter().map(|name| Case::new(&fixture, name)).collect();
    (fixture, cases)
}

#[test]
fn layers_agree_with_pytorch() {
    let (fixture, cases) = cases();
    // One program of all, so that a GPU's pipelines are compiled side by side.
    let (mut program, mut call) = (Program::new(), Inputs::new());
    for case in &cases {
        program = program.output(format!("{}/out", case.name), &case.output);
        for (name, gradient) in &case.gradients {
            program = program.output(format!("{}/grad.{name}", case.name), gradient);
        }
        for (name, values) in &case.floats {
            call = call.f32(name, values.clone());
        }
        for (name, values) in &case.integers {
            call = call.i32(name, values.clone());
        }
    }
    let is_result = |key: &String| key.ends_with("/out") || key.contains("/grad.");
    let expected: BTreeSet<String> = fixture.names().into_iter().filter(is_result).collect();
    for mut runner in runners(&["reference", "cpu", "gpu"]) {
        for case in &cases {
            for (parameter, values) in case.parameters.iter().zip(case.state(&fixture)) {
                runner.write(parameter, &values);
            }
        }
        let outputs = runner.run(&program, std::slice::from_ref(&call)).remove(0);
        assert_eq!(expected, outputs.keys().cloned().collect::<BTreeSet<_>>());
        for (what, values) in &outputs {
            // PyTorch's gradient of the hard sigmoid has a sixth rounded to float32, whatever the type.
            let tolerance = match (runner.is_exact(), what.contains("hardsigmoid")) {
                (true, false) => 1e-12,
                (true, true) => 1e-7,
                (false, _) => 3e-6,
            };
            let title = format!("{}, {what}", runner.name());
            assert_close(&title, values, &fixture.values(what), tolerance);
        }
    }
}

/// Along a random direction of each tensor, with a random upstream gradient.
#[test]
fn gradients_are_those_of_central_differences() {
    let (fixture, cases) = cases();
    let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&v| v.into()).collect() };
    for case in &cases {
        let mut inputs: HashMap<String, Vec<f64>> =
            case.floats.iter().map(|(name, values)| (name.clone(), wide(values))).collect();
        for (name, values) in &case.integers {
            inputs.insert(name.clone(), values.iter().map(|&v| f64::from(v)).collect());
        }
        let state: HashMap<u64, Vec<f64>> =
            case.parameters.iter().zip(case.state(&fixture)).map(|(p, v)| (p.id(), wide(&v))).collect();
        let evaluate = |tensor: &Tensor, inputs: &_, state: &_| {
            autograd::evaluate(std::slice::from_ref(tensor), inputs, state, &HashMap::new())
                .unwrap_or_else(|error| panic!("{}: {error}", case.name))
                .remove(0)
        };
        for (name, gradient) in &case.gradients {
            let exact = evaluate(gradient, &inputs, &state);
            let direction = wide(&formula::values(&format!("{}/{name}", case.name), exact.len(), 0.0, 1.0));
            let at = |step: f64| {
                let (mut inputs, mut state) = (inputs.clone(), state.clone());
                let parameter = case.parameters.iter().find(|p| p.name() == format!("layer.{name}"));
                let moved = match parameter {
                    Some(parameter) => state.get_mut(&parameter.id()).expect("its value"),
                    None => inputs.get_mut(&format!("{}/x", case.name)).expect("the input"),
                };
                moved.iter_mut().zip(&direction).for_each(|(value, d)| *value += step * d);
                evaluate(&case.loss, &inputs, &state)[0]
            };
            let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
            let exact: f64 = exact.iter().zip(&direction).map(|(g, d)| g * d).sum();
            let error = relative(&[exact], &[numeric], 1e-2);
            assert!(error < 1e-7, "{} {name}: {exact} or {numeric}, {error:.1e} apart", case.name);
        }
    }
}
