//! The slow, plain evaluator in `f64`: what every other way of running an expression is tested against.
//!
//! It walks the [`Tensor`] graph itself, one primitive at a time, with loops that read like the
//! primitive's definition. No schedule, no fusion, no threads, no tolerance for cleverness.

mod array;
mod convolution;
mod fold;
mod pool;
mod view;

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::nodes::nodes_down_to;
use crate::random;
use crate::tensor::{Op, Tensor};
use array::Array;

impl Tensor {
    /// The tensor's value in `f64`, row-major: what it is by definition, computed as slowly as that.
    /// Variables have their initial values; an expression with inputs needs [`evaluate`].
    ///
    /// ```
    /// use autograd::{Tensor, grad};
    ///
    /// let x = Tensor::constant(&[3], vec![1.0, 2.0, -3.0]);
    /// let loss = x.square().sum_all();
    /// assert_eq!(loss.evaluate()?, [14.0]);
    /// assert_eq!(grad(&loss, &[x])[0].evaluate()?, [2.0, 4.0, -6.0]);
    /// # Ok::<(), autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`evaluate`].
    pub fn evaluate(&self) -> Result<Vec<f64>> {
        let none = HashMap::new();
        Ok(evaluate(std::slice::from_ref(self), &HashMap::new(), &none, &none)?.remove(0))
    }
}

/// Evaluates `outputs` in `f64`, each row-major.
///
/// `inputs` are by name (labels as whole numbers), `state` by [`crate::Variable::id`]; a variable
/// that is not in `state` has its initial value. `overrides` replace the value of any node by its
/// [`Tensor::id`], so that a gradient can be checked in the middle of a graph.
///
/// # Errors
/// The first invalid expression's error; a missing or wrongly sized input, state or override.
pub fn evaluate(
    outputs: &[Tensor],
    inputs: &HashMap<String, Vec<f64>>,
    state: &HashMap<u64, Vec<f64>>,
    overrides: &HashMap<u64, Vec<f64>>,
) -> Result<Vec<Vec<f64>>> {
    evaluate_adjusted(outputs, inputs, state, overrides, |_, _| {})
}

/// The same, where `adjust` sees each node's value as soon as it is known, operands before users, and may change
/// it for all that follows. So a run can take the side of a kink that another took.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_adjusted(
    outputs: &[Tensor],
    inputs: &HashMap<String, Vec<f64>>,
    state: &HashMap<u64, Vec<f64>>,
    overrides: &HashMap<u64, Vec<f64>>,
    mut adjust: impl FnMut(&Tensor, &mut [f64]),
) -> Result<Vec<Vec<f64>>> {
    for output in outputs {
        output.check()?;
    }
    let mut values: HashMap<u64, Array> = HashMap::new();
    for tensor in nodes_down_to(outputs, |node| overrides.contains_key(&node.id())) {
        let mut value = match overrides.get(&tensor.id()) {
            Some(data) => sized(data, &tensor, |message| Error::Step(format!("override: {message}")))?,
            None => {
                let operands: Vec<&Array> = tensor.inputs().iter().map(|t| &values[&t.id()]).collect();
                apply(&tensor, &operands, inputs, state)?
            }
        };
        adjust(&tensor, &mut value.data);
        values.insert(tensor.id(), value);
    }
    Ok(outputs.iter().map(|t| values[&t.id()].data.clone()).collect())
}

/// `data` in the shape of `tensor`, or an error if it does not fit.
fn sized(data: &[f64], tensor: &Tensor, error: impl Fn(String) -> Error) -> Result<Array> {
    if data.len() != tensor.len() {
        let message = format!("{} values for shape {:?}", data.len(), tensor.shape());
        return Err(error(message));
    }
    Ok(Array { shape: tensor.shape().to_vec(), data: data.to_vec() })
}

/// One primitive.
fn apply(
    tensor: &Tensor,
    operands: &[&Array],
    inputs: &HashMap<String, Vec<f64>>,
    state: &HashMap<u64, Vec<f64>>,
) -> Result<Array> {
    let shape = tensor.shape();
    Ok(match tensor.op() {
        Op::Invalid => {
            tensor.check()?;
            return Err(Error::Step("an invalid expression without an error".into()));
        }
        Op::Input(name) => {
            let error = |message| Error::Input { name: name.clone(), message };
            let data = inputs.get(name).ok_or_else(|| error("is missing".into()))?;
            sized(data, tensor, error)?
        }
        Op::State(variable) => {
            let error = |message| Error::State { name: variable.name().to_string(), message };
            match state.get(&variable.id()) {
                Some(data) => sized(data, tensor, error)?,
                None => {
                    let initial: Vec<f64> = variable.initial().iter().map(|&v| v.into()).collect();
                    sized(&initial, tensor, error)?
                }
            }
        }
        Op::Constant(values) => {
            let values: Vec<f64> = values.iter().map(|&v| v.into()).collect();
            sized(&values, tensor, |message| Error::Step(format!("constant: {message}")))?
        }
        Op::Full(value) => Array::from_fn(shape, |_| *value),
        Op::Iota(axis) => Array::from_fn(shape, |index| index[*axis] as f64),
        Op::Random { stream } => {
            // The bits of a whole number as the generator takes them: -1 is `u32::MAX`.
            let [seed, step] = [0, 1].map(|i| operands[i].data[0] as i64 as u32);
            Array::map(shape, |i| random::uniform(seed, step, *stream, i as u32).into())
        }
        Op::Unary(op) => Array::map(shape, |i| op.value(operands[0].data[i])),
        Op::Binary(op) => Array::map(shape, |i| op.value(operands[0].data[i], operands[1].data[i])),
        Op::Select => Array::map(shape, |i| {
            let chosen = if operands[0].data[i] != 0.0 { operands[1] } else { operands[2] };
            chosen.data[i]
        }),
        Op::Cast | Op::Detach => operands[0].clone(),
        Op::Reduce(op, axes) => fold::reduce(*op, axes, operands[0]),
        Op::ArgMax(axis) => fold::argmax(*axis, operands[0]),
        Op::Reshape => Array { shape: shape.to_vec(), data: operands[0].data.clone() },
        Op::Permute(axes) => view::permute(axes, operands[0]),
        Op::Slice { starts, steps } => view::slice(shape, starts, steps, operands[0]),
        Op::Pad { starts } => view::pad(shape, starts, operands[0]),
        Op::Broadcast => view::broadcast(shape, operands[0]),
        Op::Concatenate(axis) => view::concatenate(shape, *axis, operands),
        Op::MatMul => fold::matmul(operands[0], operands[1]),
        Op::Convolution(conv) => convolution::forward(shape, conv, operands[0], operands[1]),
        Op::ConvolutionInputGrad(conv) => convolution::input_grad(shape, conv, operands[0], operands[1]),
        Op::ConvolutionWeightGrad(conv) => convolution::weight_grad(shape, conv, operands[0], operands[1]),
        Op::MaxPoolGather(window) => pool::max_gather(shape, window, operands[0], operands[1]),
        Op::MaxPoolScatter(window) => pool::max_scatter(window, operands[0], operands[1]),
        Op::AveragePool(window) => pool::average(shape, window, operands[0]),
        Op::AveragePoolTransposed(window) => pool::average_transposed(shape, window, operands[0]),
        // Here is one process.
        Op::AllReduce(_) => operands[0].clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Variable;

    fn none() -> (HashMap<String, Vec<f64>>, HashMap<u64, Vec<f64>>) {
        (HashMap::new(), HashMap::new())
    }

    #[test]
    fn leaves_and_overrides() -> Result<()> {
        let x = Tensor::input("x", &[2]);
        let variable = Variable::new("w", &[2], vec![5.0, 6.0])?;
        let w = variable.tensor();
        let iota = Tensor::iota(&[2, 3], 1);
        let inputs = HashMap::from([("x".to_string(), vec![1.0, 2.0])]);
        let outputs = [x.clone(), w.clone(), iota];
        let (_, no) = none();
        let values = evaluate(&outputs, &inputs, &no, &no)?;
        assert_eq!(values, [vec![1.0, 2.0], vec![5.0, 6.0], vec![0.0, 1.0, 2.0, 0.0, 1.0, 2.0]]);

        let state = HashMap::from([(variable.id(), vec![7.0, 8.0])]);
        let overrides = HashMap::from([(x.id(), vec![-1.0, -2.0])]);
        let values = evaluate(&[x, w], &HashMap::new(), &state, &overrides)?;
        assert_eq!(values, [vec![-1.0, -2.0], vec![7.0, 8.0]]);
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let (nothing, no) = none();
        let x = Tensor::input("x", &[2]);
        let missing = evaluate(std::slice::from_ref(&x), &nothing, &no, &no);
        assert!(matches!(missing, Err(Error::Input { name, .. }) if name == "x"));
        let short = HashMap::from([("x".to_string(), vec![1.0])]);
        assert!(matches!(evaluate(std::slice::from_ref(&x), &short, &no, &no), Err(Error::Input { .. })));
        let bad = Tensor::constant(&[3], vec![1.0]);
        assert!(matches!(evaluate(&[bad], &nothing, &no, &no), Err(Error::Expression { .. })));
        let overrides = HashMap::from([(x.id(), vec![1.0])]);
        assert!(matches!(evaluate(&[x], &nothing, &no, &overrides), Err(Error::Step(_))));
    }

    #[test]
    fn random_is_the_documented_hash() -> Result<()> {
        let [seed, step] = ["seed", "step"].map(|name| Tensor::input_i32(name, &[]));
        let inputs = HashMap::from([("seed".to_string(), vec![-1.0]), ("step".to_string(), vec![9.0])]);
        let (_, no) = none();
        let values = evaluate(&[Tensor::random(&[3], &seed, &step, 7)], &inputs, &no, &no)?;
        let expected = [0, 1, 2].map(|i| f64::from(random::uniform(u32::MAX, 9, 7, i)));
        assert_eq!(values[0], expected);
        Ok(())
    }
}
