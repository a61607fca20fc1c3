//! Exported models in the real onnxruntime: the checker of the `onnx` package accepts them, and they compute what
//! the CPU device does, for other numbers of images too.
//!
//! `ONNX_PYTHON` names a Python that has both packages (`scripts/onnx_test` makes one). Without it the tests say
//! that they were skipped; what a model consists of is tested in `nn` all the same.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use autograd::{Conv2d, Tensor, Variable, VariableStore, Window, nodes};
use nn::onnx::{self, BATCH};
use nn::{Forward, models};
use sld_tests::{Inputs, Program, formula, runners};

#[allow(dead_code, reason = "its `main` is not what is run")]
#[path = "../../sld/examples/whole_way.rs"]
mod whole_way;

/// Images that the models are tried with.
const IMAGES: usize = 3;

/// Values of variables by id, without a device.
#[derive(Default)]
struct Weights(HashMap<u64, Vec<f32>>);

impl VariableStore for Weights {
    fn write(&self, _: &Variable, _: &[f32]) -> autograd::Result<()> {
        unreachable!("a model is read from it")
    }
    fn read(&self, variable: &Variable) -> autograd::Result<Vec<f32>> {
        Ok(self.0.get(&variable.id()).map_or_else(|| variable.initial().to_vec(), Vec::clone))
    }
}

/// Writes a model of images of this shape (height, width, channels), its images, and what it is to give.
fn write(folder: &Path, weights: &Weights, shape: [usize; 3], network: &dyn Fn(&Tensor) -> Tensor) {
    let [height, width, channels] = shape;
    let images = |batch: usize| Tensor::input("images", &[batch, height, width, channels]);
    let model =
        onnx::expression("case", &[("logits", &network(&images(BATCH)))], weights, &[("made", "here")])
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("model.onnx"), model).unwrap();

    let stored = formula::values("onnx", IMAGES * channels * height * width, 0.0, 2.0);
    let given = nn::images::nhwc_from_nchw(&stored, [IMAGES, channels, height, width]);
    let output = network(&images(IMAGES));
    let variables = variables(&output);
    let mut runner = runners(&["cpu"]).remove(0);
    variables.iter().for_each(|variable| runner.write(variable, &weights.read(variable).unwrap()));
    let program = Program::new().output("logits", &output);
    let logits =
        runner.run(&program, &[Inputs::new().f32("images", given)]).remove(0).remove("logits").unwrap();
    let logits: Vec<f32> = logits.into_iter().map(|value| value as f32).collect();
    write_floats(&folder.join("images.f32"), &stored);
    write_floats(&folder.join("logits.f32"), &logits);
}

fn write_floats(path: &Path, values: &[f32]) {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    fs::write(path, bytes).unwrap();
}

fn variables(output: &Tensor) -> Vec<Variable> {
    let variable = |tensor: Tensor| match tensor.op() {
        autograd::tensor::Op::State(variable) => Some(variable.clone()),
        _ => None,
    };
    nodes([output]).into_iter().filter_map(variable).collect()
}

/// Runs the models in all folders of this one.
fn run(python: &str, folder: &Path) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/onnx_runtime.py");
    let done = Command::new(python).arg(script).arg(folder).status();
    assert!(done.unwrap_or_else(|error| panic!("{python}: {error}")).success(), "told above");
}

fn python() -> Option<String> {
    let python = std::env::var("ONNX_PYTHON").ok();
    if python.is_none() {
        eprintln!(
            "SKIPPED: exported models were not run; ONNX_PYTHON names no Python with onnx and onnxruntime"
        );
    }
    python
}

#[test]
fn every_network_gives_its_logits() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    for name in models::names() {
        let model = models::build(name, 10, 1).unwrap();
        let mut weights = Weights::default();
        for (entry, values) in model.state().iter().zip(formula::model_state("onnx", &model)) {
            weights.0.insert(entry.variable.id(), values);
        }
        let side = models::side(name);
        write(&folder.path().join(name.replace('/', "_")), &weights, [side, side, 3], &|images| {
            model.forward(images, &mut Forward::eval()).logits
        });
    }
    run(&python, folder.path());
}

#[test]
fn primitives_give_their_values() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let weight = |key: &str, shape: &[usize]| {
        Tensor::constant(shape, formula::values(key, shape.iter().product(), 0.1, 0.5))
    };
    let case = |name: &str, network: &dyn Fn(&Tensor) -> Tensor| {
        write(&folder.path().join(name), &Weights::default(), [6, 8, 4], network);
    };
    case("unary", &|x| {
        let positive = x.square() + 0.5;
        x.exp() + positive.log() + positive.sqrt() + x.tanh().abs() + x.erf() - x.sign() * x.floor()
            + x.relu()
            + positive.reciprocal()
    });
    case("binary", &|x| {
        let y = x.permute(&[0, 1, 2, 3]) * 0.5 + 0.25;
        x.maximum(&y) / (x.minimum(&y).square() + 1.0)
            + x.less(&y)
            + x.less_equal(&y) * 2.0
            + x.equal(x) * 3.0
            + Tensor::select(&x.less(&y), x, &(x * 7.0))
    });
    // Orders of dims: a permuted image beside one that is not, and one that becomes a matrix.
    case("orders", &|x| {
        let turned = x.permute(&[0, 2, 1, 3]).slice(1, 0, 6, 1);
        let matrix = (x.slice(2, 0, 6, 1) + turned).reshape(&[x.dim(0), 6 * 6 * 4]);
        matrix.matmul(&weight("orders", &[144, 5]))
    });
    case("shuffle", &|x| {
        let grouped = x.reshape(&[x.dim(0), 6, 8, 2, 2]).permute(&[0, 1, 2, 4, 3]);
        grouped.reshape(x.shape()) * weight("shuffle", &[4]).reshape(&[1, 1, 1, 4]).broadcast_to(x.shape())
    });
    case("folds", &|x| {
        let centred = x - x.mean(&[1, 2]).broadcast_to(x.shape());
        let largest = x.max(3).broadcast_to(x.shape());
        centred * x.variance(&[1, 3]).broadcast_to(x.shape())
            + largest
            + x.argmax(2).float().broadcast_to(x.shape())
    });
    // What is repeated over the images, where ONNX must be told.
    case("repeated", &|x| {
        let token = weight("token", &[1, 1, 8, 4]).broadcast_to(&[x.dim(0), 1, 8, 4]);
        let row = x.mean(&[1]).broadcast_to(&[x.dim(0), 2, 8, 4]);
        Tensor::concatenate(&[x, &token, &row], 1).slice(1, 1, 4, 2).pad(2, 1, 2)
    });
    case("attention", &|x| {
        let tokens = x.reshape(&[x.dim(0), 48, 4]);
        let keys = tokens.matmul(&weight("keys", &[1, 4, 4]).broadcast_to(&[x.dim(0), 4, 4]));
        tokens.attention(&keys, &tokens)
    });
    case("convolutions", &|x| {
        let grouped = x.conv2d(&weight("grouped", &[6, 2, 3, 3]), Conv2d::new(2, 1).groups(2));
        let biased = grouped + weight("bias", &[6]).reshape(&[1, 1, 1, 6]);
        let back = biased.conv2d_transposed(&weight("back", &[6, 4, 3, 3]), Conv2d::new(2, 1), 1);
        let wide = biased.conv2d_transposed(&weight("wide", &[6, 4, 5, 5]), Conv2d::new(2, 2), 1);
        // Read twice: its bias stays apart.
        let twice = x.conv2d(&weight("twice", &[4, 4, 1, 1]), Conv2d::default());
        back + wide + (&twice + weight("apart", &[4]).reshape(&[1, 1, 1, 4])) * twice
    });
    case("pools", &|x| {
        let window = Window::new(3, 2, 1);
        x.max_pool(window) + x.average_pool(window) * x.average_pool(window.without_padding_in_divisor())
    });
    case("norms", &|x| {
        let (gamma, beta) = (weight("gamma", &[4]), weight("beta", &[4]));
        x.group_norm(2, &gamma, &beta, 1e-5).gelu() + x.layer_norm(&gamma, &beta, 1e-5).hardswish()
    });
    run(&python, folder.path());
}

/// The program of sixty lines: its own network, of one channel, trained on the CPU and on a GPU's driver.
#[test]
fn what_a_program_trained_gives_its_logits() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let [images, logits] = whole_way::go(folder.path()).unwrap();
    write_floats(&folder.path().join("images.f32"), &images);
    write_floats(&folder.path().join("logits.f32"), &logits);
    run(&python, folder.path());
}
