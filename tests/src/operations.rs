//! Every operation of the language on small cases: the one table that the operation tests share.
//!
//! A [`Case`] names an operation, its attributes and its inputs; [`express`] writes any case in the
//! language. Most cases come from the fixture `ops.safetensors` with results by PyTorch in float64;
//! [`own_cases`] adds what PyTorch has no counterpart of, gradients of gradients among it.

use std::collections::HashMap;

use autograd::tensor::{BinaryOp, Transfer, UnaryOp};
use autograd::{Conv2d, DType, Result, Tensor, Variable, Window, grad, nodes};
use schedule::{Device, Options, Step, Value};
use serde_json::{Value as Json, json};

use crate::{Fixture, formula};

/// One input of a case.
#[derive(Clone)]
pub struct Input {
    pub name: String,
    pub shape: Vec<usize>,
    pub dtype: DType,
    /// Row-major; whole numbers if the type is integer.
    pub values: Vec<f32>,
}

/// A named, dense result.
pub type Values = HashMap<String, Vec<f64>>;

/// One operation on given inputs.
#[derive(Clone)]
pub struct Case {
    pub name: String,
    pub op: String,
    pub attributes: Json,
    pub inputs: Vec<Input>,
    /// The gradient of the loss in each output that has one.
    pub upstream: HashMap<String, Vec<f32>>,
    /// What PyTorch found in float64; empty for our own cases.
    pub outputs: Values,
    pub gradients: Values,
    /// The inputs that a gradient is asked for, sorted.
    pub differentiable: Vec<String>,
}

/// A case in the language.
pub struct Expressed {
    pub inputs: Vec<(String, Tensor)>,
    pub outputs: Vec<(String, Tensor)>,
    /// Of the sum of upstream · output, by input.
    pub gradients: Vec<(String, Tensor)>,
}

impl Case {
    fn input(&self, name: &str) -> &Input {
        self.inputs
            .iter()
            .find(|i| i.name == name)
            .unwrap_or_else(|| panic!("{}: no input {name}", self.name))
    }

    /// The operation and its gradients on step inputs of the case's names. The upstream gradients are
    /// inputs too, named `up.OUTPUT`.
    pub fn express(&self) -> Expressed {
        let tensor = |input: &Input| match input.dtype {
            DType::F32 => Tensor::input(&input.name, &input.shape),
            DType::I32 => Tensor::input_i32(&input.name, &input.shape),
        };
        let inputs: Vec<(String, Tensor)> = self.inputs.iter().map(|i| (i.name.clone(), tensor(i))).collect();
        let outputs = express(&self.op, &self.attributes, &inputs);
        let loss = weighted_sum(&outputs, &self.upstream, |name, output| {
            Tensor::input(format!("up.{name}"), output.shape())
        });
        let wrt: Vec<Tensor> = self
            .differentiable
            .iter()
            .map(|name| inputs.iter().find(|(n, _)| n == name).expect("an input of the case").1.clone())
            .collect();
        let gradients = self.differentiable.iter().cloned().zip(grad(&loss, &wrt)).collect();
        Expressed { inputs, outputs, gradients }
    }

    /// The case as a step whose outputs are `out.OUTPUT` and `grad.INPUT`.
    pub fn step(&self) -> Step {
        Case::step_of(&self.express())
    }

    fn step_of(expressed: &Expressed) -> Step {
        let mut step = Step::new();
        for (name, output) in &expressed.outputs {
            step = step.output(format!("out.{name}"), &as_float(output));
        }
        for (name, gradient) in &expressed.gradients {
            step = step.output(format!("grad.{name}"), gradient);
        }
        step
    }

    /// Runs the case in `f64`: outputs, then gradients.
    pub fn reference(&self) -> (Values, Values) {
        let expressed = self.express();
        let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&v| v.into()).collect() };
        let mut inputs: HashMap<String, Vec<f64>> =
            self.inputs.iter().map(|i| (i.name.clone(), wide(&i.values))).collect();
        inputs.extend(self.upstream.iter().map(|(name, values)| (format!("up.{name}"), wide(values))));
        let evaluate = |named: &[(String, Tensor)]| -> Values {
            let tensors: Vec<Tensor> = named.iter().map(|(_, tensor)| as_float(tensor)).collect();
            let values = autograd::evaluate(&tensors, &inputs, &HashMap::new(), &HashMap::new())
                .unwrap_or_else(|error| panic!("{}: {error}", self.name));
            named.iter().map(|(name, _)| name.clone()).zip(values).collect()
        };
        (evaluate(&expressed.outputs), evaluate(&expressed.gradients))
    }

    /// Runs the case on a device, its schedule made with `options`: outputs, then gradients.
    pub fn run(&self, device: &dyn Device, options: Options) -> Result<(Values, Values)> {
        let expressed = self.express();
        let schedule = Case::step_of(&expressed).schedule_with(options)?;
        // A step that is constant in an input (a comparison's gradient, say) does not take it.
        let used: Vec<String> = used_inputs(&expressed);
        let mut executable = device.compile(schedule)?;
        let integers: Vec<(String, Vec<i32>)> = self
            .inputs
            .iter()
            .filter(|i| i.dtype == DType::I32)
            .map(|i| (i.name.clone(), i.values.iter().map(|&v| v as i32).collect()))
            .collect();
        let floats = self.inputs.iter().filter(|i| i.dtype == DType::F32);
        let upstream: Vec<(String, &Vec<f32>)> =
            self.upstream.iter().map(|(name, values)| (format!("up.{name}"), values)).collect();
        let mut given: Vec<(&str, Value)> = floats.map(|i| (&i.name[..], Value::F32(&i.values))).collect();
        given.extend(integers.iter().map(|(name, values)| (&name[..], Value::I32(values))));
        given.extend(upstream.iter().map(|(name, values)| (&name[..], Value::F32(values))));
        given.retain(|(name, _)| used.iter().any(|u| u == name));
        executable.call(&given)?;
        let mut read = |kind: &str, names: &[(String, Tensor)]| -> Result<Values> {
            names
                .iter()
                .map(|(name, _)| {
                    let values = executable.output(&format!("{kind}.{name}"))?;
                    Ok((name.clone(), values.into_iter().map(f64::from).collect()))
                })
                .collect()
        };
        Ok((read("out", &expressed.outputs)?, read("grad", &expressed.gradients)?))
    }
}

/// Σ over the outputs with an upstream gradient of (upstream · output).
pub fn weighted_sum(
    outputs: &[(String, Tensor)],
    upstream: &HashMap<String, Vec<f32>>,
    weight: impl Fn(&str, &Tensor) -> Tensor,
) -> Tensor {
    outputs
        .iter()
        .filter(|(name, _)| upstream.contains_key(name))
        .map(|(name, output)| (output * weight(name, output)).sum_all())
        .fold(Tensor::scalar(0.0), |sum, term| sum + term)
}

fn as_float(tensor: &Tensor) -> Tensor {
    if tensor.dtype() == DType::I32 { tensor.float() } else { tensor.clone() }
}

fn used_inputs(expressed: &Expressed) -> Vec<String> {
    let roots = expressed.outputs.iter().chain(&expressed.gradients).map(|(_, tensor)| tensor);
    let names = nodes(roots).into_iter().filter_map(|node| match node.op() {
        autograd::tensor::Op::Input(name) => Some(name.clone()),
        _ => None,
    });
    names.collect()
}

/// The cases of `ops.safetensors`.
pub fn fixture_cases() -> Vec<Case> {
    let fixture = Fixture::open("ops.safetensors").expect("a committed fixture");
    let names = fixture.names();
    let table = fixture.json("cases");
    let table = table.as_object().expect("an object");
    let case = |(name, description): (&String, &Json)| {
        let keys = |kind: &str| -> Vec<(String, String)> {
            let prefix = format!("{name}/{kind}.");
            let of_kind = names
                .iter()
                .filter_map(|key| key.strip_prefix(&prefix).map(|short| (short.to_string(), key.clone())));
            of_kind.collect()
        };
        let values = |kind: &str| -> Values {
            keys(kind).into_iter().map(|(short, key)| (short, fixture.values(&key))).collect()
        };
        let inputs = keys("in").into_iter().map(|(short, key)| Input {
            dtype: if fixture.is_integer(&key) { DType::I32 } else { DType::F32 },
            shape: fixture.shape(&key),
            values: fixture.f32(&key),
            name: short,
        });
        Case {
            name: name.clone(),
            op: description["op"].as_str().expect("an operation").to_string(),
            attributes: description["attrs"].clone(),
            inputs: inputs.collect(),
            upstream: keys("up").into_iter().map(|(short, key)| (short, fixture.f32(&key))).collect(),
            outputs: values("out"),
            gradients: values("grad"),
            differentiable: keys("grad").into_iter().map(|(short, _)| short).collect(),
        }
    };
    table.iter().map(case).collect()
}

/// Cases without a counterpart in the fixture. `second_order` cases have first gradients as outputs,
/// so their own gradients are of second order.
pub fn own_cases() -> Vec<Case> {
    let image: &[usize] = &[2, 5, 6, 4];
    let window = json!({"kernel": [3, 3], "stride": [2, 2], "padding": [1, 1]});
    let conv = json!({"stride": [2, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 2});
    let of = |op: &str, mut attributes: Json| {
        attributes["op"] = json!(op);
        attributes
    };
    let float = |name: &'static str, shape: &[usize]| (name, shape.to_vec());
    let mut cases: Vec<Case> = UnaryOp::ALL.into_iter().map(of_unary).collect();
    cases.extend(BinaryOp::ALL.into_iter().map(of_binary));
    cases.extend([
        own("dropout/half", "dropout", json!({"rate": 0.5}), vec![float("x", &[7, 9])]),
        own("to_integer/times", "to_integer_times", json!({}), vec![float("x", &[3, 7])]),
        own("all_reduce/times", "all_reduce_times", json!({}), vec![float("x", &[3, 5])]),
        own("constant/times", "constant_times", json!({}), vec![float("x", &[2, 3])]),
        own("variable/times", "variable_times", json!({}), vec![float("x", &[2, 3])]),
        own("reduce_variance/scalar", "reduce_variance", json!({"axes": []}), vec![float("x", &[])]),
        own(
            "second_order/conv2d",
            "gradient_of",
            of("conv2d", conv),
            vec![float("x", image), float("w", &[6, 2, 3, 3])],
        ),
        own(
            "second_order/matmul",
            "gradient_of",
            of("matmul", json!({})),
            vec![float("a", &[4, 5]), float("b", &[5, 3])],
        ),
        own(
            "second_order/max_pool2d",
            "gradient_of",
            of("max_pool2d", window.clone()),
            vec![float("x", image)],
        ),
        own(
            "second_order/avg_pool2d",
            "gradient_of",
            of("avg_pool2d", {
                let mut window = window;
                window["count_include_pad"] = json!(false);
                window
            }),
            vec![float("x", image)],
        ),
        own(
            "second_order/softmax",
            "gradient_of",
            of("softmax", json!({"axis": 1})),
            vec![float("x", &[4, 6])],
        ),
        own("second_order/tanh", "gradient_of", of("tanh", json!({})), vec![float("x", &[4, 6])]),
        own(
            "second_order/reduce_variance",
            "gradient_of",
            of("reduce_variance", json!({"axes": [0, 2], "keepdims": false})),
            vec![float("x", &[3, 2, 4])],
        ),
    ]);
    cases
}

/// A row of the table of scalars, on values of both signs where it is defined for both.
fn of_unary(op: UnaryOp) -> Case {
    let (name, function) = (format!("unary/{}", op.name()), json!({"function": op.name()}));
    let mut case = own(&name, "unary", function, vec![("x", vec![3, 7])]);
    case.inputs[0].values = mixed(&name);
    for x in &mut case.inputs[0].values {
        *x = if op.value((*x).into()).is_finite() { *x } else { -*x };
    }
    case
}

/// The same for two operands.
fn of_binary(op: BinaryOp) -> Case {
    let (name, function) = (format!("binary/{}", op.name()), json!({"function": op.name()}));
    let mut case = own(&name, "binary", function, vec![("x", vec![3, 7]), ("y", vec![3, 7])]);
    for input in &mut case.inputs {
        input.values = mixed(&format!("{name}/{}", input.name));
    }
    case
}

/// 21 values of sizes from 0.2 to 0.7, every second negative: clear of whole numbers, also after the
/// gradient check has moved them.
fn mixed(key: &str) -> Vec<f32> {
    let sizes = formula::values(key, 21, 0.45, 0.25).into_iter();
    sizes.enumerate().map(|(i, size)| if i % 2 == 0 { size } else { -size }).collect()
}

fn own(name: &str, op: &str, attributes: Json, shapes: Vec<(&'static str, Vec<usize>)>) -> Case {
    let mut inputs: Vec<Input> = shapes
        .into_iter()
        .map(|(input, shape)| Input {
            name: input.to_string(),
            dtype: DType::F32,
            values: formula::values(&format!("{name}/{input}"), shape.iter().product(), 0.0, 1.0),
            shape,
        })
        .collect();
    let differentiable: Vec<String> = inputs.iter().map(|input| input.name.clone()).collect();
    if op == "dropout" {
        for (input, value) in [("seed", 7.0), ("step", 3.0)] {
            let (name, shape) = (input.to_string(), vec![]);
            inputs.push(Input { name, shape, dtype: DType::I32, values: vec![value] });
        }
    }
    let mut case = Case {
        name: name.to_string(),
        op: op.to_string(),
        attributes,
        inputs,
        upstream: HashMap::new(),
        outputs: Values::new(),
        gradients: Values::new(),
        differentiable,
    };
    let upstream = case.express().outputs.into_iter().map(|(output, tensor)| {
        let key = format!("{name}/up.{output}");
        (output, formula::values(&key, tensor.len(), 0.0, 1.0))
    });
    case.upstream = upstream.collect();
    case
}

impl Case {
    /// The same case with smooth, distinct values of the order of one in place of its floats: no ties,
    /// no saturation, and inside each operation's domain.
    pub fn smooth(&self) -> Case {
        let mut case = self.clone();
        if ["unary", "binary"].contains(&&self.op[..]) {
            return case; // they are so already
        }
        let positive = ["log", "sqrt", "pow", "div", "recip"].contains(&&self.op[..]);
        for input in case.inputs.iter_mut().filter(|input| input.dtype == DType::F32) {
            let (off, scale) =
                if positive || input.name == "running_var" { (1.25, 0.75) } else { (0.0, 1.0) };
            let key = format!("{}/smooth.{}", self.name, input.name);
            input.values = formula::values(&key, input.values.len(), off, scale);
        }
        case
    }

    /// An input's values.
    pub fn values(&self, name: &str) -> &[f32] {
        &self.input(name).values
    }
}

/// The table: any operation in the language. Panics at an operation that it does not know.
pub fn express(op: &str, attributes: &Json, inputs: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    let input = |name: &str| -> Tensor {
        let found = inputs.iter().find(|(n, _)| n == name);
        found.unwrap_or_else(|| panic!("{op} has no input {name}")).1.clone()
    };
    let integer = |key: &str| attributes[key].as_u64().unwrap_or_else(|| panic!("{op}: no {key}")) as usize;
    let number = |key: &str| attributes[key].as_f64().unwrap_or_else(|| panic!("{op}: no {key}"));
    let list = |key: &str| -> Vec<usize> {
        let values = attributes[key].as_array().unwrap_or_else(|| panic!("{op}: no {key}"));
        values.iter().map(|v| v.as_u64().expect("a whole number") as usize).collect()
    };
    let pair = |key: &str| -> [usize; 2] { list(key).try_into().expect("a pair") };
    let window = |count_padding: bool| Window {
        size: pair("kernel"),
        stride: pair("stride"),
        padding: pair("padding"),
        count_padding,
    };
    let without = |t: Tensor, axes: &[usize]| {
        let kept = (0..t.rank()).filter(|d| !axes.contains(d)).map(|d| t.dim(d)).collect::<Vec<_>>();
        if attributes["keepdims"] == json!(true) { t } else { t.reshape(&kept) }
    };
    let (a, b, x) = (|| input("a"), || input("b"), || input("x"));

    let y = match op {
        "conv2d" => {
            let (stride, padding, dilation) = (pair("stride"), pair("padding"), pair("dilation"));
            x().conv2d(&input("w"), Conv2d { stride, padding, dilation, groups: integer("groups") })
        }
        "matmul" => a().matmul(&b()),
        "linear" => x().matmul(&input("w").transpose()) + b(),
        "max_pool2d" => x().max_pool(window(true)),
        "avg_pool2d" => x().average_pool(window(attributes["count_include_pad"] == json!(true))),
        "global_avg_pool" => x().global_average_pool(),

        "add" => a() + b(),
        "sub" => a() - b(),
        "mul" => a() * b(),
        "div" => a() / b(),
        "max" => a().maximum(&b()),
        "min" => a().minimum(&b()),
        "pow" => (a().log() * b()).exp(),
        "eq" => a().equal(&b()),
        "ne" => 1.0 - &a().equal(&b()),
        "lt" => a().less(&b()),
        "le" => a().less_equal(&b()),
        "gt" => a().greater(&b()),
        "ge" => b().less_equal(&a()),
        "neg" => -x(),
        "exp" => x().exp(),
        "log" => x().log(),
        "sqrt" => x().sqrt(),
        "relu" => x().relu(),
        "abs" => x().abs(),
        "recip" => x().reciprocal(),
        "tanh" => x().tanh(),
        "sigmoid" => x().sigmoid(),
        "where" => input("condition").float().select(&a(), &b()),

        "reduce_sum" => without(x().sum(&list("axes")), &list("axes")),
        "reduce_mean" => without(x().mean(&list("axes")), &list("axes")),
        "reduce_variance" => without(x().variance(&list("axes")), &list("axes")),
        // From the last axis to the first, so that of equal values the first in row-major order wins.
        "reduce_max" => {
            let axes = list("axes");
            without(axes.iter().rev().fold(x(), |t, &axis| t.max(axis)), &axes)
        }
        "argmax" => without(x().argmax(integer("axis")), &[integer("axis")]),

        "reshape" => x().reshape(&list("shape")),
        "broadcast" => x().broadcast_to(&list("shape")),
        "permute" => x().permute(&list("axes")),
        "slice" => {
            let (starts, stops, steps) = (list("starts"), list("stops"), list("steps"));
            (0..starts.len())
                .fold(x(), |t, d| t.slice(d, starts[d], (stops[d] - starts[d]).div_ceil(steps[d]), steps[d]))
        }
        "concatenate" => {
            let parts: Vec<&Tensor> = inputs.iter().map(|(_, tensor)| tensor).collect();
            Tensor::concatenate(&parts, integer("axis"))
        }
        "pad" => {
            let (before, after) = (list("before"), list("after"));
            let pad = |t: Tensor| (0..before.len()).fold(t, |t, d| t.pad(d, before[d], after[d]));
            let inside = pad(Tensor::full(x().shape(), 1.0));
            inside.select(&pad(x()), &Tensor::scalar(number("value")))
        }
        "channel_shuffle" => x().channel_shuffle(integer("groups")),
        "gather" => {
            let (axis, index) = (integer("axis"), input("index"));
            // The language picks one position at a time.
            let pick = |i| x().gather(axis, &index.slice(axis, i, 1, 1));
            let picked: Vec<Tensor> = (0..index.dim(axis)).map(pick).collect();
            Tensor::concatenate(&picked.iter().collect::<Vec<_>>(), axis)
        }
        "index_select" => {
            assert_eq!((integer("axis"), x().rank()), (0, 2), "rows of a matrix");
            input("index").one_hot(x().dim(0)).matmul(&x())
        }
        "one_hot" => input("index").one_hot(integer("classes")),
        "topk_accuracy" => {
            let correct = x().top_k_correct(&input("target"), integer("k"));
            let accuracy = correct.mean_all();
            return vec![("correct".into(), correct), ("accuracy".into(), accuracy)];
        }

        "softmax" => x().softmax(integer("axis")),
        "log_softmax" => x().log_softmax(integer("axis")),
        "cross_entropy" => {
            let rows = input("logits").cross_entropy(&input("target"));
            match attributes["reduction"].as_str() {
                Some("none") => rows,
                Some("mean") => rows.mean_all(),
                other => panic!("reduction {other:?}"),
            }
        }
        "kl_divergence" => {
            let scale = 1.0 / number("temperature");
            (input("logits") * scale).kl_divergence(&(input("target") * scale))
        }
        "batch_norm_train" => {
            let norm = x().batch_norm(&input("weight"), &input("bias"), number("eps"), 1);
            let momentum = number("momentum");
            let blend = |running: &str, batch: &Tensor, factor: f64| {
                let running = input(running);
                &running * (1.0 - momentum) + batch.reshape(running.shape()) * (momentum * factor)
            };
            let unbiased = norm.count as f64 / (norm.count as f64 - 1.0);
            let mean = blend("running_mean", &norm.mean, 1.0);
            let variance = blend("running_var", &norm.variance, unbiased);
            let y = norm.output;
            return vec![("y".into(), y), ("running_mean".into(), mean), ("running_var".into(), variance)];
        }
        "batch_norm_eval" => {
            let (mean, variance) = (input("running_mean"), input("running_var"));
            x().batch_norm_eval(&input("weight"), &input("bias"), &mean, &variance, number("eps"))
        }
        "sgd" => return sgd(attributes, inputs),

        "dropout" => x().dropout(number("rate"), &input("seed"), &input("step"), 5),
        // Times x + 2, so that all of these have gradients (x alone would undo the reciprocal).
        "unary" => {
            let op = UnaryOp::ALL.into_iter().find(|op| attributes["function"] == op.name());
            x().unary(op.expect("a row of the table")) * (x() + 2.0)
        }
        "binary" => {
            let op = BinaryOp::ALL.into_iter().find(|op| attributes["function"] == op.name());
            x().binary(op.expect("a row of the table"), &input("y")) * x()
        }
        "to_integer_times" => (x() * 3.0).to_integer().float() * x(),
        "all_reduce_times" => x().all_reduce(Transfer::F32) * x(),
        "constant_times" => {
            let values = formula::values("operations/constant", x().len(), 0.0, 1.0);
            x() * Tensor::constant(x().shape(), values)
        }
        "variable_times" => {
            let values = formula::values("operations/variable", x().len(), 0.0, 1.0);
            let variable = Variable::new("v", x().shape(), values).expect("as many values as elements");
            x() * variable.tensor()
        }
        // The gradients of Σ f² in every input of f. (Squared: else a linear f would have constant ones.)
        "gradient_of" => {
            let inner = attributes["op"].as_str().expect("an operation");
            let (_, y) = express(inner, attributes, inputs).remove(0);
            let wrt: Vec<Tensor> = inputs.iter().map(|(_, tensor)| tensor.clone()).collect();
            let gradients = grad(&y.square().sum_all(), &wrt);
            return inputs.iter().map(|(name, _)| name.clone()).zip(gradients).collect();
        }
        unknown => panic!("the table has no operation `{unknown}`"),
    };
    vec![("y".into(), y)]
}

/// Three steps of stochastic gradient descent, one after another in one expression.
fn sgd(attributes: &Json, inputs: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    let input = |name: &str| &inputs.iter().find(|(n, _)| n == name).expect("an input of sgd").1;
    let number = |value: &Json| value.as_f64().expect("a number");
    let (decay, momentum) = (number(&attributes["weight_decay"]), number(&attributes["momentum"]));
    let mut outputs = Vec::new();
    let mut parameter = input("parameter").clone();
    let mut velocity: Option<Tensor> = None;
    for (step, rate) in attributes["rates"].as_array().expect("rates").iter().enumerate() {
        let gradient = input(&format!("gradient{step}")) + &parameter * decay;
        let moved = match &velocity {
            Some(velocity) if momentum != 0.0 => velocity * momentum + gradient,
            _ => gradient,
        };
        parameter = parameter - &moved * number(rate);
        outputs.push((format!("parameter{}", step + 1), parameter.clone()));
        if momentum != 0.0 {
            outputs.push((format!("momentum{}", step + 1), moved.clone()));
        }
        velocity = Some(moved);
    }
    outputs
}
