//! ReLU inputs so near to 0 that their sign is lost in the rounding of `f32`: there the derivative from
//! either side is right, and a network's gradients jump from one to the other.

use std::collections::HashMap;

use autograd::Tensor;
use autograd::tensor::{Op, UnaryOp};

use crate::compare::{norm, relative};
use crate::operations::nodes;
use crate::runner::Reference;
use crate::{Inputs, Program, Runner};

/// Kinks that one pass may have on its other side, or something else is wrong.
const MOST: usize = 4;
/// How far the inputs of a ReLU may be from those of `f64`, as a share of their norm: what PyTorch's own
/// `f32` is off by at most in the deepest networks here. Its channels_last variant misses the worst ReLU
/// input of MobileNetV2 by 2.83e-5 and of ShuffleV1 by 4.30e-5 (its plain one by 1.84e-5 and 1.76e-5).
const ERROR: f64 = 4.3e-5;

/// What of the gradients is over the tolerance; one that is small is measured by the whole.
pub fn misses(names: &[String], actual: &[&Vec<f64>], expected: &[Vec<f64>], tolerance: f64) -> Vec<String> {
    let whole = expected.iter().map(|gradient| norm(gradient).powi(2)).sum::<f64>().sqrt();
    let errors =
        actual.iter().zip(expected).map(|(actual, expected)| relative(actual, expected, 1e-4 * whole));
    names
        .iter()
        .zip(errors)
        .filter(|(_, error)| *error > tolerance)
        .map(|(name, error)| format!("{name}: {error:.2e}"))
        .collect()
}

/// Panics unless gradients that missed the expected ones fit as well to those of `f64` on this device's
/// side of the kinks: with the signs that the device finds for the inputs of the ReLUs that `output` is
/// made of.
///
/// Both `runner` and `exact` have the state that the gradients were computed with.
#[allow(clippy::too_many_arguments)]
pub fn assert_beyond_kinks(
    missed: &str,
    output: &Tensor,
    gradients: &[Tensor],
    names: &[String],
    actual: &[&Vec<f64>],
    runner: &mut dyn Runner,
    exact: &Reference,
    call: &Inputs,
    tolerance: f64,
) {
    let relus = nodes([output.clone()]);
    let relus = relus.iter().filter(|node| matches!(node.op(), Op::Unary(UnaryOp::Relu)));
    let inputs: Vec<Tensor> = relus.map(|node| node.inputs()[0].clone()).collect();
    let name = |i: usize| format!("input of ReLU {i}");
    let program =
        inputs.iter().enumerate().fold(Program::new(), |program, (i, input)| program.output(name(i), input));
    let found = runner.run(&program, std::slice::from_ref(call)).remove(0);

    let mut overrides: HashMap<u64, Vec<f64>> = HashMap::new();
    let mut turned = 0;
    for (i, values) in exact.evaluate(&inputs, call, &HashMap::new()).into_iter().enumerate() {
        let found = &found[&name(i)];
        let error = relative(found, &values, 0.0);
        assert!(error < ERROR, "{missed}; {}: {error:.2e}", name(i));
        for (position, (&value, &found)) in values.iter().zip(found).enumerate() {
            if (value > 0.0) != (found > 0.0) {
                turned += 1;
                overrides.entry(inputs[i].id()).or_insert_with(|| values.clone())[position] = -value;
            }
        }
    }
    assert!((1..=MOST).contains(&turned), "{missed}; {turned} ReLU inputs of the other sign");
    let missed = misses(names, actual, &exact.evaluate(gradients, call, &overrides), tolerance);
    assert!(missed.is_empty(), "with {turned} signs turned: {}", missed.join(", "));
}
