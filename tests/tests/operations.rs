//! Every operation of the language: that the table has them all, their gradients in `f64`, PyTorch's
//! results on the CPU device, fused and unfused.

use std::collections::{BTreeSet, HashMap};

use autograd::{DType, Tensor, grad, nodes};
use schedule::{Device, Options};
use sld_tests::compare::relative;
use sld_tests::operations::{Case, express, fixture_cases, own_cases, weighted_sum};
use sld_tests::{compare, formula, primitives};

#[test]
fn every_primitive_is_in_a_case() {
    let mut found: BTreeSet<usize> = BTreeSet::new();
    for case in fixture_cases().iter().chain(&own_cases()) {
        let expressed = case.express();
        for (name, tensor) in expressed.outputs.iter().chain(&expressed.gradients) {
            tensor.check().unwrap_or_else(|error| panic!("{} {name}: {error}", case.name));
        }
        let roots = expressed.outputs.into_iter().chain(expressed.gradients).map(|(_, tensor)| tensor);
        found.extend(nodes(roots).iter().map(|node| primitives::number(node.op())));
    }
    // All but `Invalid`, which no case may hold.
    let expected: BTreeSet<usize> = (1..primitives::COUNT).collect();
    let missing: Vec<&usize> = expected.difference(&found).collect();
    assert_eq!(found, expected, "primitives without a case, by `number`: {missing:?}");
}

/// Most elements of one input that are moved; the one with the largest gradient is among them.
const SAMPLES: usize = 24;

/// Central differences of Σ (random · f(x_mid)), with x_mid a node inside the graph.
fn check_gradient(case: &Case) {
    let case = case.smooth();
    let mut values: HashMap<String, Vec<f64>> = HashMap::new();
    let mut leaves = Vec::new();
    for input in &case.inputs {
        values.insert(input.name.clone(), input.values.iter().map(|&v| v.into()).collect());
        leaves.push(match input.dtype {
            DType::F32 => (input.name.clone(), Tensor::input(&input.name, &input.shape) * 1.25 + 0.1),
            DType::I32 => (input.name.clone(), Tensor::input_i32(&input.name, &input.shape)),
        });
    }
    let outputs = express(&case.op, &case.attributes, &leaves);
    let loss = weighted_sum(&outputs, &case.upstream, |name, output| {
        let key = format!("{}/random.{name}", case.name);
        Tensor::constant(output.shape(), formula::values(&key, output.len(), 0.0, 1.0))
    });
    let middle: Vec<(String, Tensor)> =
        leaves.into_iter().filter(|(name, _)| case.differentiable.contains(name)).collect();
    let wrt: Vec<Tensor> = middle.iter().map(|(_, tensor)| tensor.clone()).collect();
    let gradients = grad(&loss, &wrt);
    let none = HashMap::new();
    let evaluate = |tensors: &[Tensor], overrides: &HashMap<u64, Vec<f64>>| {
        autograd::evaluate(tensors, &values, &none, overrides)
            .unwrap_or_else(|error| panic!("{}: {error}", case.name))
    };
    let points = evaluate(&wrt, &none);
    let gradients = evaluate(&gradients, &none);
    for (((name, node), point), gradient) in middle.iter().zip(&points).zip(&gradients) {
        let largest = (0..gradient.len()).max_by(|&i, &j| gradient[i].abs().total_cmp(&gradient[j].abs()));
        let stride = gradient.len().div_ceil(SAMPLES);
        let mut sampled: BTreeSet<usize> = (0..gradient.len()).step_by(stride).collect();
        sampled.extend(largest);
        let difference = |&i: &usize| {
            let h = 1e-5;
            let at = |offset: f64| {
                let mut moved = point.clone();
                moved[i] += offset;
                evaluate(std::slice::from_ref(&loss), &HashMap::from([(node.id(), moved)]))[0][0]
            };
            (at(h) - at(-h)) / (2.0 * h)
        };
        let numeric: Vec<f64> = sampled.iter().map(difference).collect();
        let exact: Vec<f64> = sampled.iter().map(|&i| gradient[i]).collect();
        // The floor is for gradients that are zero (the variance of one element).
        let error = relative(&exact, &numeric, 1e-3);
        assert!(error < 1e-6, "{} {name}: relative error {error:.2e}\n{exact:?}\n{numeric:?}", case.name);
    }
}

#[test]
fn gradients_are_those_of_central_differences() {
    let cases: Vec<Case> = fixture_cases().into_iter().chain(own_cases()).collect();
    let differentiable: Vec<&Case> = cases.iter().filter(|case| !case.differentiable.is_empty()).collect();
    assert!(differentiable.len() > 200, "only {} cases have gradients", differentiable.len());
    for case in differentiable {
        check_gradient(case);
    }
}

fn check_parity(device: &dyn Device, options: Options) {
    let cases = fixture_cases();
    assert!(cases.len() >= 240, "only {} cases", cases.len());
    let mut failures = Vec::new();
    for case in &cases {
        let (outputs, gradients) =
            case.run(device, options).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let tables = [("out", &outputs, &case.outputs), ("grad", &gradients, &case.gradients)];
        for (kind, actual, expected) in tables {
            let names = |values: &HashMap<String, Vec<f64>>| values.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(names(actual), names(expected), "{} {kind}", case.name);
            for (name, expected) in expected {
                let error = relative(&actual[name], expected, 0.0);
                if error > 1e-5 {
                    failures.push(format!(
                        "{} {kind}.{name}: {error:.2e} (norm {:.2e})",
                        case.name,
                        compare::norm(expected)
                    ));
                }
            }
        }
    }
    assert!(failures.is_empty(), "over 1e-5 of float64:\n{}", failures.join("\n"));
}

#[test]
fn the_cpu_device_agrees_with_pytorch() {
    let device = cpu::CpuDevice::new(2);
    check_parity(&device, device.options());
}

#[test]
fn the_cpu_device_agrees_with_pytorch_without_fusion() {
    let device = cpu::CpuDevice::new(2);
    check_parity(&device, Options { fuse: false, ..device.options() });
}
