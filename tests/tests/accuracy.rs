//! Single operations and their gradients are as near to float64 as PyTorch's own f32.

use autograd::{Conv2d, Tensor, grad};
use serde_json::Value;
use sld_tests::compare::norm;
use sld_tests::runner::Reference;
use sld_tests::{Inputs, Program, Runner, fixture, formula, runners};

/// Draws of the inputs that an error is over.
const DRAWS: usize = 3;

/// An operation as a program whose inputs are `x`, `w`, `b` and the upstream gradient `g`.
struct Case {
    name: String,
    program: Program,
    /// Name and shape of each input; images as PyTorch has them.
    inputs: Vec<(&'static str, Vec<usize>)>,
    operation: String,
    /// What PyTorch is off by.
    errors: Value,
}

impl Case {
    fn new(entry: &Value) -> Case {
        let operation = entry["operation"].as_str().unwrap().to_string();
        let numbers: Vec<usize> = serde_json::from_value(entry["case"].clone()).unwrap();
        let input = |name: &str, shape: &[usize]| Tensor::input(name, shape);
        let (program, inputs) = match (operation.as_str(), numbers.as_slice()) {
            ("convolution", &[n, side, from, to, window, stride, groups]) => {
                let (x, w) = (input("x", &[n, side, side, from]), [to, from / groups, window, window]);
                let weight = input("w", &w);
                let y = x.conv2d(&weight, Conv2d::new(stride, window / 2).groups(groups));
                let g = input("g", y.shape());
                let gradients = grad(&(&y * &g).sum_all(), &[x, weight]);
                let program = Program::new().output("y", &y);
                let program = program.output("dx", &gradients[0]).output("dw", &gradients[1]);
                let g = vec![n, to, y.dim(1), y.dim(2)];
                (program, vec![("x", vec![n, from, side, side]), ("w", w.to_vec()), ("g", g)])
            }
            ("batch_norm", &[n, side, channels]) => {
                let x = input("x", &[n, side, side, channels]);
                let [w, b] = ["w", "b"].map(|name| input(name, &[channels]));
                let norm = x.batch_norm(&w, &b, 1e-5, 1);
                let gradients = grad(&(&norm.output * input("g", x.shape())).sum_all(), &[x, w, b]);
                let program = Program::new()
                    .output("y", &norm.output)
                    .output("mean", &norm.mean)
                    .output("variance", &norm.variance)
                    .output("dx", &gradients[0])
                    .output("dw", &gradients[1])
                    .output("db", &gradients[2]);
                let images = vec![n, channels, side, side];
                let vector = || vec![channels];
                (program, vec![("x", images.clone()), ("w", vector()), ("b", vector()), ("g", images)])
            }
            ("linear", &[rows, from, to]) => {
                let (x, w) = (input("x", &[rows, from]), input("w", &[to, from]));
                let y = x.matmul(&w.permute(&[1, 0]));
                let gradients = grad(&(&y * input("g", y.shape())).sum_all(), &[x, w]);
                let program = Program::new().output("y", &y);
                let program = program.output("dx", &gradients[0]).output("dw", &gradients[1]);
                (program, vec![("x", vec![rows, from]), ("w", vec![to, from]), ("g", vec![rows, to])])
            }
            other => panic!("no operation {other:?}"),
        };
        let name = format!("{operation} {}", entry["name"].as_str().unwrap());
        Case { name, program, inputs, operation, errors: entry["errors"].clone() }
    }

    /// The formula's inputs, as the fixture's script draws them.
    fn call(&self, draw: usize) -> Inputs {
        let key = format!("accuracy/{}/{draw}", self.name.replacen(' ', "/", 1));
        let is_norm = self.operation == "batch_norm";
        self.inputs.iter().fold(Inputs::new(), |call, (name, shape)| {
            let fan = shape.iter().skip(1).product::<usize>() as f64;
            let (off, scale) = match (*name, is_norm, shape.len()) {
                ("x", true, _) => (0.5, 1.7),
                ("x", false, _) => (0.0, 2.0),
                ("w", true, _) => (0.6, 0.3),
                ("w", false, 4) => (0.0, (6.0 / fan).sqrt()),
                ("w", false, _) => (0.0, (3.0 / fan).sqrt()),
                ("b", ..) => (0.0, 0.2),
                (_, true, _) => (0.1, 1.0),
                _ => (0.0, 1.0),
            };
            let values = formula::values(&format!("{key}/{name}"), shape.iter().product(), off, scale);
            // Positive, as after a ReLU.
            let positive = *name == "x" && !is_norm;
            let values: Vec<f32> =
                values.into_iter().map(|v| if positive { v.max(0.0) } else { v }).collect();
            let values = match (*name, shape.as_slice()) {
                ("x" | "g", &[n, c, h, w]) => nn::images::nhwc_from_nchw(&values, [n, c, h, w]),
                _ => values,
            };
            call.f32(name, values)
        })
    }

    /// The relative error of each result over all draws.
    fn errors(&self, runner: &mut dyn Runner) -> Vec<(String, f64)> {
        let mut squares = vec![0.0; self.program.outputs.len()];
        for draw in 0..DRAWS {
            let call = self.call(draw);
            let exact = Reference::default().run(&self.program, std::slice::from_ref(&call)).remove(0);
            let found = runner.run(&self.program, &[call]).remove(0);
            for (square, (name, _)) in squares.iter_mut().zip(&self.program.outputs) {
                let (exact, found) = (&exact[name], &found[name]);
                let difference: Vec<f64> = exact.iter().zip(found).map(|(a, b)| a - b).collect();
                *square += (norm(&difference) / norm(exact)).powi(2) / DRAWS as f64;
            }
        }
        let names = self.program.outputs.iter().map(|output| output.0.clone());
        names.zip(squares.into_iter().map(f64::sqrt)).collect()
    }
}

/// The most that an error may be of PyTorch's.
fn limit(device: &str, case: &str, part: &str) -> f64 {
    match (device, case, part) {
        // Winograd's algorithm has fewer multiplications and larger numbers on the way.
        ("cpu", "convolution 3x3 16" | "convolution 3x3 64" | "convolution 3x3 256", _) => 5.0,
        _ => 1.1,
    }
}

/// Prints the table of `docs/measurements.md`; PyTorch is taken as it computes by default.
fn check(device: &str) {
    let cases = fixture::json("accuracy.json");
    for mut runner in runners(&[device]) {
        let mut missed = Vec::new();
        for case in cases.as_array().unwrap().iter().map(Case::new) {
            for (part, error) in case.errors(runner.as_mut()) {
                let of = |variant: &str| case.errors[&part][variant].as_f64().unwrap();
                let (pytorch, name) = (of("contiguous"), &case.name);
                println!("| {name} | {part} | {error:.2e} | {pytorch:.2e} | {:.2} |", error / pytorch);
                let most = limit(device, name, &part) * pytorch;
                if error > most {
                    missed.push(format!("{name}: {part}: {error:.2e} over {most:.2e}"));
                }
            }
        }
        assert!(missed.is_empty(), "{}:\n{}", runner.name(), missed.join("\n"));
    }
}

#[test]
fn the_cpu_is_as_accurate_as_pytorch() {
    check("cpu");
}

#[test]
fn the_gpu_is_as_accurate_as_pytorch() {
    check("gpu");
}
