//! The walk over an expression.

use std::collections::HashMap;

use crate::tensor::Tensor;

/// Every node that these expressions need, themselves included: once each, operands before users.
///
/// ```
/// use autograd::{Tensor, nodes};
///
/// let x = Tensor::input("x", &[2]);
/// let names: Vec<&str> = nodes(&[&x * &x.exp()]).iter().map(|node| node.op().name()).collect();
/// assert_eq!(names, ["input", "exp", "mul"]);
/// ```
pub fn nodes(expressions: &[Tensor]) -> Vec<Tensor> {
    let mut found: HashMap<u64, Tensor> = HashMap::new();
    let mut pending = expressions.to_vec();
    while let Some(node) = pending.pop() {
        if found.insert(node.id(), node.clone()).is_none() {
            pending.extend(node.inputs().iter().cloned());
        }
    }
    let mut nodes: Vec<Tensor> = found.into_values().collect();
    // Ids are a topological order.
    nodes.sort_by_key(Tensor::id);
    nodes
}
