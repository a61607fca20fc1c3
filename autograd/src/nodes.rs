//! The walk over an expression.

use std::borrow::Borrow;
use std::collections::HashMap;

use crate::tensor::Tensor;

/// Every node that these expressions need, themselves included: once each, operands before users.
///
/// ```
/// use autograd::{Tensor, nodes};
///
/// let x = Tensor::input("x", &[2]);
/// let names: Vec<&str> = nodes([&x * &x.exp()]).iter().map(|node| node.op().name()).collect();
/// assert_eq!(names, ["input", "exp", "mul"]);
/// ```
pub fn nodes<T: Borrow<Tensor>>(expressions: impl IntoIterator<Item = T>) -> Vec<Tensor> {
    nodes_down_to(expressions, |_| false)
}

/// The same, without what only nodes need whose value is known.
pub(crate) fn nodes_down_to<T: Borrow<Tensor>>(
    expressions: impl IntoIterator<Item = T>,
    known: impl Fn(&Tensor) -> bool,
) -> Vec<Tensor> {
    let mut found: HashMap<u64, Tensor> = HashMap::new();
    let mut pending: Vec<Tensor> = expressions.into_iter().map(|tensor| tensor.borrow().clone()).collect();
    while let Some(node) = pending.pop() {
        if found.insert(node.id(), node.clone()).is_none() && !known(&node) {
            pending.extend(node.inputs().iter().cloned());
        }
    }
    let mut nodes: Vec<Tensor> = found.into_values().collect();
    // Ids are a topological order.
    nodes.sort_by_key(Tensor::id);
    nodes
}
