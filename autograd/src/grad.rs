//! Reverse mode: from a loss to its gradients, as more expressions.
//!
//! The whole of differentiation is one walk ([`grad`]) and one table (`vector_jacobian`): for each
//! primitive, what its inputs' gradients are, given the gradient of its output. Because the result is
//! made of ordinary tensors, a gradient can be differentiated again.

use std::collections::{HashMap, HashSet};
use std::f64::consts::FRAC_2_SQRT_PI;

use crate::nodes::nodes;
use crate::scope::{self, BACKWARD, Scope};
use crate::tensor::{BinaryOp, DType, Op, ReduceOp, Tensor, UnaryOp};

/// Gradients of `loss` with respect to each of `wrt`, each shaped like its tensor; zeros where no
/// path leads from one to the other. A loss that is not a scalar is summed.
///
/// (Reverse accumulation: nodes are visited from the loss back, in decreasing id, which is a
/// reverse topological order; by the time a node is visited all of its users have contributed.)
#[track_caller]
pub fn grad(loss: &Tensor, wrt: &[Tensor]) -> Vec<Tensor> {
    let gradients = grad_where_any(loss, wrt);
    wrt.iter().zip(gradients).map(|(t, gradient)| gradient.unwrap_or_else(|| t.zeros_like())).collect()
}

/// As [`grad`], with `None` where no path leads from one to the other.
#[track_caller]
pub fn grad_where_any(loss: &Tensor, wrt: &[Tensor]) -> Vec<Option<Tensor>> {
    let order = ancestors_on_path(loss, wrt);
    let mut gradients: HashMap<u64, Tensor> = HashMap::new();
    gradients.insert(identity(loss), Tensor::full(loss.shape(), 1.0));
    for node in &order {
        let Some(upstream) = gradients.get(&identity(node)).cloned() else { continue };
        // Outside of layers the part stands for one: the loss.
        let Scope { part, layer } = node.scope().clone();
        let _scope = scope::enter(Scope {
            part: BACKWARD,
            layer: layer.or_else(|| (!part.is_empty()).then(|| part.into())),
        });
        let contributions = vector_jacobian(node, &upstream);
        for (input, contribution) in node.inputs().iter().zip(contributions) {
            let Some(contribution) = contribution else { continue };
            let total = match gradients.remove(&identity(input)) {
                Some(sum) => sum + contribution,
                None => contribution,
            };
            gradients.insert(identity(input), total);
        }
    }
    wrt.iter().map(|t| gradients.get(&identity(t)).cloned()).collect()
}

/// What makes two tensors the same in differentiation: the node, except that all mentions of a variable
/// are one. (Variables and nodes draw their ids from one counter.)
fn identity(t: &Tensor) -> u64 {
    match t.op() {
        Op::State(variable) => variable.id(),
        _ => t.id(),
    }
}

/// The nodes between `wrt` and `loss`, in decreasing id: only they need gradients.
fn ancestors_on_path(loss: &Tensor, wrt: &[Tensor]) -> Vec<Tensor> {
    let mut order = nodes([loss]);
    let goals: HashSet<u64> = wrt.iter().map(identity).collect();
    let mut leads: HashMap<u64, bool> = HashMap::new();
    for node in &order {
        let wanted = goals.contains(&identity(node));
        let through = node.inputs().iter().any(|t| leads[&t.id()]);
        leads.insert(node.id(), wanted || through);
    }
    order.retain(|node| leads[&node.id()]);
    order.reverse();
    order
}

/// The table: gradients of each input, given `g`, the gradient of the output. `None` is zero.
fn vector_jacobian(node: &Tensor, g: &Tensor) -> Vec<Option<Tensor>> {
    let input = |i: usize| &node.inputs()[i];
    let zero = || Tensor::scalar(0.0);
    match node.op() {
        Op::Invalid | Op::Input(_) | Op::State(_) | Op::Constant(_) | Op::Full(_) | Op::Iota(_) => vec![],
        // Piecewise constant, or cut on purpose.
        Op::Random { .. } => vec![None, None],
        Op::Detach | Op::ArgMax(_) => vec![None],
        Op::Cast if node.dtype() == DType::I32 || input(0).dtype() == DType::I32 => vec![None],
        Op::Cast => vec![Some(g.clone())],

        Op::Unary(op) => {
            let x = input(0);
            vec![match op {
                UnaryOp::Neg => Some(-g),
                UnaryOp::Exp => Some(g * node),
                UnaryOp::Log => Some(g / x),
                UnaryOp::Sqrt => Some(g * 0.5 / node),
                UnaryOp::Abs => Some(g * x.sign()),
                UnaryOp::Reciprocal => Some(-(g * node * node)),
                UnaryOp::Tanh => Some(g * (1.0 - node * node)),
                UnaryOp::Erf => Some(g * (-x.square()).exp() * FRAC_2_SQRT_PI),
                // `0 < relu(x)` rather than `0 < x`: the output is what later layers keep.
                UnaryOp::Relu => Some(zero().less(node).select(g, &zero())),
                UnaryOp::Sign | UnaryOp::Floor => None,
            }]
        }

        Op::Binary(op) => {
            let (a, b) = (input(0), input(1));
            match op {
                BinaryOp::Add => vec![Some(g.clone()), Some(g.clone())],
                BinaryOp::Sub => vec![Some(g.clone()), Some(-g)],
                BinaryOp::Mul => vec![Some(g * b), Some(g * a)],
                BinaryOp::Div => vec![Some(g / b), Some(-(g * node / b))],
                // Nothing for the operand that is not chosen; equals share.
                BinaryOp::Max | BinaryOp::Min => {
                    let (smaller, larger) = (a.less(b), b.less(a));
                    let (left, right) =
                        if *op == BinaryOp::Max { (smaller, larger) } else { (larger, smaller) };
                    let shared = a.equal(b).select(&(g * 0.5), g);
                    vec![Some(left.select(&zero(), &shared)), Some(right.select(&zero(), &shared))]
                }
                BinaryOp::Less | BinaryOp::LessEqual | BinaryOp::Equal => vec![None, None],
            }
        }
        Op::Select => {
            let condition = input(0);
            vec![None, Some(condition.select(g, &zero())), Some(condition.select(&zero(), g))]
        }

        Op::Reduce(ReduceOp::Sum, _) => vec![Some(g.broadcast_to(input(0).shape()))],
        Op::Reduce(ReduceOp::Max, axes) => {
            let (x, axis) = (input(0), axes[0]);
            let winner = Tensor::iota(x.shape(), axis).equal(&x.argmax(axis));
            vec![Some(winner.select(g, &zero()))]
        }
        Op::Reduce(ReduceOp::Variance, axes) => {
            // d/dx mean((x - m)^2) = 2 (x - m) / n; the part through m is zero.
            let x = input(0);
            let count: usize = axes.iter().map(|&a| x.dim(a)).product();
            vec![Some((x - x.mean(axes)) * (g * (2.0 / count as f64)))]
        }

        Op::Reshape => vec![Some(g.reshape(input(0).shape()))],
        Op::Permute(axes) => {
            let mut inverse = vec![0; axes.len()];
            axes.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
            vec![Some(g.permute(&inverse))]
        }
        Op::Slice { starts, steps } => {
            let shape = input(0).shape();
            let mut spread = g.clone();
            for axis in 0..shape.len() {
                spread = spread.unslice(axis, starts[axis], steps[axis], shape[axis]);
            }
            vec![Some(spread)]
        }
        Op::Pad { starts } => {
            let shape = input(0).shape();
            let mut inside = g.clone();
            for axis in 0..shape.len() {
                inside = inside.slice(axis, starts[axis], shape[axis], 1);
            }
            vec![Some(inside)]
        }
        Op::Broadcast => {
            let (from, to) = (input(0).shape(), node.shape());
            let stretched: Vec<usize> = (0..to.len()).filter(|&d| from[d] != to[d]).collect();
            vec![Some(g.sum(&stretched))]
        }
        Op::Concatenate(axis) => {
            let mut start = 0;
            let mut part = |t: &Tensor| {
                let piece = g.slice(*axis, start, t.dim(*axis), 1);
                start += t.dim(*axis);
                Some(piece)
            };
            node.inputs().iter().map(&mut part).collect()
        }

        Op::MatMul => {
            let (a, b) = (input(0), input(1));
            vec![Some(g.matmul(&b.transpose())), Some(a.transpose().matmul(g))]
        }
        // The three uses of a convolution are linear in each operand and transposes of one another,
        // so each one's gradients are the other two.
        Op::Convolution(conv) => {
            let (x, weight) = (input(0), input(1));
            vec![
                Some(g.conv2d_input_grad(weight, *conv, x.shape())),
                Some(x.conv2d_weight_grad(g, *conv, weight.shape())),
            ]
        }
        Op::ConvolutionInputGrad(conv) => {
            let (dy, weight) = (input(0), input(1));
            vec![Some(g.conv2d(weight, *conv)), Some(g.conv2d_weight_grad(dy, *conv, weight.shape()))]
        }
        Op::ConvolutionWeightGrad(conv) => {
            let (x, dy) = (input(0), input(1));
            vec![Some(dy.conv2d_input_grad(g, *conv, x.shape())), Some(x.conv2d(g, *conv))]
        }
        // Where the maximum lies is piecewise constant in x; `max_pool` passes x as the source too,
        // and that is the path its gradient takes.
        Op::MaxPoolGather(window) => vec![None, Some(input(0).max_pool_scatter(g, *window))],
        Op::MaxPoolScatter(window) => vec![None, Some(input(0).max_pool_gather(g, *window))],
        Op::AveragePool(window) => vec![Some(g.average_pool_transposed(*window, input(0).shape()))],
        Op::AveragePoolTransposed(window) => vec![Some(g.average_pool(*window))],
        // Every process's input is in every process's sum. What is differentiated is the sum of all
        // processes' losses.
        Op::AllReduce(transfer) => vec![Some(g.all_reduce(*transfer))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Variable;

    #[test]
    fn all_mentions_of_a_variable_are_one() {
        let v = Variable::full("v", &[2], 3.0);
        let loss = (v.tensor() * v.tensor()).sum_all();
        let gradient = &grad(&loss, &[v.tensor()])[0];
        assert!(matches!(gradient.op(), Op::Binary(BinaryOp::Add)), "{gradient:?}");
    }

    #[test]
    fn equals_share_the_gradient_of_a_maximum() -> crate::Result<()> {
        let x = Tensor::constant(&[4], vec![1.0, 2.0, 3.0, f32::NAN]);
        let y = Tensor::constant(&[4], vec![2.0, 2.0, 2.0, 2.0]);
        for (z, expected) in [(x.maximum(&y), [0.0, 0.5, 1.0, 1.0]), (x.minimum(&y), [1.0, 0.5, 0.0, 1.0])] {
            let gradients = grad(&z.sum_all(), &[x.clone(), y.clone()]);
            assert_eq!(gradients[0].evaluate()?, expected);
            // As PyTorch: a NaN, which is neither smaller nor larger, passes the gradient to both.
            let others = [1.0 - expected[0], 0.5, 1.0 - expected[2], 1.0];
            assert_eq!(gradients[1].evaluate()?, others);
        }
        Ok(())
    }
}
