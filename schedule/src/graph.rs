//! The step's expressions as a compact graph, simplified as it is built.
//!
//! Nodes are hash-consed: an expression written twice is one node. The rules of [`Builder::add`] are
//! the whole of the algebra; each keeps the value up to rounding.

use std::collections::HashMap;

use crate::step::Step;
use autograd::scope::Scope;
use autograd::tensor::{BinaryOp, DType, Op, ReduceOp, UnaryOp, Variable};
use autograd::{Error, Result};

/// A sum of two values each is an addition for its reader where there are at most so many.
const SMALL: usize = 1 << 14;

/// A constant of at most so many values is known by them, a longer one by where it lies.
const LISTED: usize = 256;

/// Index of a node in [`Graph::nodes`].
pub type NodeId = usize;

/// A node; inputs have smaller ids.
#[derive(Clone, Debug)]
pub struct Node {
    pub op: Op,
    pub inputs: Vec<NodeId>,
    pub shape: Vec<usize>,
    /// Whether the language sees integers (matters for inputs only).
    pub integer: bool,
    /// Of the first expression that it stands for.
    pub scope: Scope,
}

impl Node {
    #[allow(clippy::len_without_is_empty)] // the elements of a tensor, not of a collection
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The simplified step.
pub struct Graph {
    pub nodes: Vec<Node>,
    pub outputs: Vec<(String, NodeId)>,
    pub updates: Vec<(Variable, NodeId)>,
}

impl Graph {
    /// Translates the step's expressions, simplifying; only what the step needs remains.
    pub fn build(step: &Step) -> Result<Graph> {
        let mut builder = Builder::default();
        let mut translated: HashMap<u64, NodeId> = HashMap::new();
        for tensor in &step.nodes() {
            let inputs: Vec<NodeId> = tensor.inputs().iter().map(|t| translated[&t.id()]).collect();
            if matches!(tensor.op(), Op::Invalid) {
                tensor.check()?;
                return Err(Error::Step("an invalid expression without an error".into()));
            }
            builder.scope = tensor.scope().clone();
            let integer = tensor.dtype() == DType::I32;
            let id = builder.add_typed(tensor.op().clone(), inputs, tensor.shape().to_vec(), integer);
            translated.insert(tensor.id(), id);
        }
        let outputs = step.outputs.iter().map(|(name, t)| (name.clone(), translated[&t.id()])).collect();
        let updates = step.updates.iter().map(|(v, t)| (v.clone(), translated[&t.id()])).collect();
        Ok(Graph { nodes: builder.nodes, outputs, updates }.without_dead_nodes())
    }

    fn without_dead_nodes(self) -> Graph {
        let mut alive = vec![false; self.nodes.len()];
        self.outputs.iter().for_each(|o| alive[o.1] = true);
        self.updates.iter().for_each(|u| alive[u.1] = true);
        for id in (0..self.nodes.len()).rev() {
            if alive[id] {
                self.nodes[id].inputs.iter().for_each(|&i| alive[i] = true);
            }
        }
        let mut renamed = vec![usize::MAX; self.nodes.len()];
        let mut nodes = Vec::new();
        for (id, node) in self.nodes.into_iter().enumerate() {
            if alive[id] {
                renamed[id] = nodes.len();
                let inputs = node.inputs.iter().map(|&i| renamed[i]).collect();
                nodes.push(Node { inputs, ..node });
            }
        }
        let outputs = self.outputs.into_iter().map(|(n, i)| (n, renamed[i])).collect();
        let updates = self.updates.into_iter().map(|(v, i)| (v, renamed[i])).collect();
        Graph { nodes, outputs, updates }
    }
}

#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
    /// Nodes by a hash of their description, for common subexpressions.
    known: HashMap<Key, NodeId>,
    /// Of the expression at hand.
    scope: Scope,
}

/// What makes two nodes the same. `Op` has floating point in it, so it goes in by its debug text
/// (and constants and variables by identity).
#[derive(PartialEq, Eq, Hash)]
struct Key(String, Vec<NodeId>, Vec<usize>);

impl Builder {
    fn full(&self, id: NodeId) -> Option<f64> {
        match self.nodes[id].op {
            Op::Full(value) => Some(value),
            _ => None,
        }
    }

    fn shape(&self, id: NodeId) -> Vec<usize> {
        self.nodes[id].shape.clone()
    }

    fn intern(&mut self, op: Op, inputs: Vec<NodeId>, shape: Vec<usize>, integer: bool) -> NodeId {
        let text = match &op {
            Op::Constant(values) if values.len() <= LISTED => format!("constant {values:?}"),
            Op::Constant(values) => format!("constant {:p}", std::sync::Arc::as_ptr(values)),
            Op::State(variable) => format!("state {}", variable.id()),
            Op::Full(value) => format!("full {:x}", value.to_bits()),
            other => format!("{other:?}"),
        };
        let key = Key(text, inputs.clone(), shape.clone());
        if let Some(&id) = self.known.get(&key) {
            return id;
        }
        self.nodes.push(Node { op, inputs, shape, integer, scope: self.scope.clone() });
        self.known.insert(key, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn add(&mut self, op: Op, inputs: Vec<NodeId>, shape: Vec<usize>) -> NodeId {
        self.add_typed(op, inputs, shape, false)
    }

    fn constant(&mut self, value: f64, shape: Vec<usize>) -> NodeId {
        self.intern(Op::Full(value), vec![], shape, false)
    }

    /// Adds a node, or finds an equal or simpler one.
    fn add_typed(&mut self, op: Op, mut inputs: Vec<NodeId>, shape: Vec<usize>, integer: bool) -> NodeId {
        let simpler = match &op {
            Op::Cast | Op::Detach => Some(inputs[0]),
            Op::Reshape | Op::Permute(_) | Op::Slice { .. } | Op::Broadcast => {
                self.simplify_view(&op, inputs[0], &shape)
            }
            Op::Unary(unary) => self.simplify_unary(*unary, inputs[0], &shape),
            Op::Binary(binary) => self.simplify_binary(*binary, inputs[0], inputs[1], &shape),
            Op::Select => match self.full(inputs[0]) {
                Some(condition) => Some(inputs[if condition != 0.0 { 1 } else { 2 }]),
                None if inputs[1] == inputs[2] => Some(inputs[1]),
                None => None,
            },
            Op::Reduce(ReduceOp::Sum, axes) => self.simplify_sum(axes, inputs[0], &shape),
            Op::Reduce(ReduceOp::Max, axes) => {
                axes.iter().all(|&a| self.nodes[inputs[0]].shape[a] == 1).then_some(inputs[0])
            }
            _ => None,
        };
        if let Some(id) = simpler {
            return id;
        }
        if matches!(op, Op::Binary(BinaryOp::Add | BinaryOp::Mul | BinaryOp::Equal)) {
            inputs.sort_unstable();
        }
        self.intern(op, inputs, shape, integer)
    }

    fn simplify_view(&mut self, op: &Op, input: NodeId, shape: &[usize]) -> Option<NodeId> {
        if let Some(value) = self.full(input) {
            return Some(self.constant(value, shape.to_vec()));
        }
        if self.nodes[input].shape == shape && !matches!(op, Op::Permute(_)) {
            return Some(input);
        }
        let inner = self.nodes[input].clone();
        match (op, &inner.op) {
            (Op::Reshape, Op::Reshape) => Some(self.add(Op::Reshape, inner.inputs, shape.to_vec())),
            (Op::Broadcast, Op::Broadcast) => Some(self.add(Op::Broadcast, inner.inputs, shape.to_vec())),
            (Op::Permute(outer_axes), Op::Permute(inner_axes)) => {
                let axes: Vec<usize> = outer_axes.iter().map(|&a| inner_axes[a]).collect();
                if axes.iter().copied().eq(0..axes.len()) {
                    return Some(inner.inputs[0]);
                }
                Some(self.add(Op::Permute(axes), inner.inputs, shape.to_vec()))
            }
            _ => None,
        }
    }

    fn simplify_unary(&mut self, op: UnaryOp, input: NodeId, shape: &[usize]) -> Option<NodeId> {
        if let Some(x) = self.full(input) {
            return Some(self.constant(op.value(x), shape.to_vec()));
        }
        let inner = self.nodes[input].clone();
        match (op, &inner.op) {
            (UnaryOp::Neg, Op::Unary(UnaryOp::Neg)) => Some(inner.inputs[0]),
            (UnaryOp::Relu, Op::Unary(UnaryOp::Relu)) => Some(input),
            // Compute first, stretch later.
            (_, Op::Broadcast) => {
                let small = self.shape(inner.inputs[0]);
                let computed = self.add(Op::Unary(op), inner.inputs, small);
                Some(self.add(Op::Broadcast, vec![computed], shape.to_vec()))
            }
            _ => None,
        }
    }

    fn simplify_binary(&mut self, op: BinaryOp, a: NodeId, b: NodeId, shape: &[usize]) -> Option<NodeId> {
        use BinaryOp::*;
        let (x, y) = (self.full(a), self.full(b));
        if let (Some(x), Some(y)) = (x, y) {
            return Some(self.constant(op.value(x, y), shape.to_vec()));
        }
        match (op, x, y) {
            (Add, Some(0.0), _) => return Some(b),
            (Add | Sub, _, Some(0.0)) => return Some(a),
            (Sub, Some(0.0), _) => return Some(self.add(Op::Unary(UnaryOp::Neg), vec![b], shape.to_vec())),
            (Mul, Some(1.0), _) => return Some(b),
            (Mul | Div, _, Some(1.0)) => return Some(a),
            (Mul, Some(-1.0), _) => return Some(self.add(Op::Unary(UnaryOp::Neg), vec![b], shape.to_vec())),
            (Mul, _, Some(-1.0)) => return Some(self.add(Op::Unary(UnaryOp::Neg), vec![a], shape.to_vec())),
            _ => {}
        }
        let (left, right) = (self.nodes[a].clone(), self.nodes[b].clone());
        let is_neg = |node: &Node| matches!(node.op, Op::Unary(UnaryOp::Neg));
        match op {
            Add if is_neg(&right) => {
                return Some(self.add(Op::Binary(Sub), vec![a, right.inputs[0]], shape.to_vec()));
            }
            Add if is_neg(&left) => {
                return Some(self.add(Op::Binary(Sub), vec![b, left.inputs[0]], shape.to_vec()));
            }
            Sub if is_neg(&right) => {
                return Some(self.add(Op::Binary(Add), vec![a, right.inputs[0]], shape.to_vec()));
            }
            _ => {}
        }
        if op == Add
            && let Some(line) = self.line(a, b, shape).or_else(|| self.line(b, a, shape))
        {
            return Some(line);
        }
        // (x * c) * d = x * (c d), whatever the order.
        let scaled = match (op, x, y) {
            (Mul, Some(number), None) => Some((number, &right)),
            (Mul, None, Some(number)) => Some((number, &left)),
            _ => None,
        };
        if let Some((number, Node { op: Op::Binary(Mul), inputs, .. })) = scaled {
            let (p, q) = (inputs[0], inputs[1]);
            if let Some((c, rest)) = self.full(p).map(|c| (c, q)).or(self.full(q).map(|c| (c, p))) {
                let product = self.constant(c * number, shape.to_vec());
                return Some(self.add(Op::Binary(Mul), vec![rest, product], shape.to_vec()));
            }
        }
        // Compute first, stretch later: both stretched from one shape, or one of them constant.
        let source = |node: &Node| matches!(node.op, Op::Broadcast).then(|| node.inputs[0]);
        let small = match (source(&left), source(&right), x, y) {
            (Some(p), Some(q), ..) if self.nodes[p].shape == self.nodes[q].shape => Some((p, q)),
            (Some(p), _, _, Some(number)) => {
                let number = self.constant(number, self.shape(p));
                Some((p, number))
            }
            (_, Some(q), Some(number), _) => {
                let number = self.constant(number, self.shape(q));
                Some((number, q))
            }
            _ => None,
        };
        small.map(|(p, q)| {
            let small_shape = self.shape(p);
            let computed = self.add(Op::Binary(op), vec![p, q], small_shape);
            self.add(Op::Broadcast, vec![computed], shape.to_vec())
        })
    }

    /// `(x - m) * s + b` as `x * s + (b - m * s)`, where all but x are stretched: a batch norm's apply. It is one
    /// operation an element less, and rounds once less.
    fn line(&mut self, scaled: NodeId, b: NodeId, shape: &[usize]) -> Option<NodeId> {
        let source = |builder: &Builder, id: NodeId| match &builder.nodes[id] {
            Node { op: Op::Broadcast, inputs, .. } => Some(inputs[0]),
            _ => None,
        };
        let b = source(self, b)?;
        let Node { op: Op::Binary(BinaryOp::Mul), inputs, .. } = &self.nodes[scaled] else { return None };
        let (s, apart) = match (source(self, inputs[0]), source(self, inputs[1])) {
            (Some(s), None) => (s, inputs[1]),
            (None, Some(s)) => (s, inputs[0]),
            _ => return None,
        };
        let Node { op: Op::Binary(BinaryOp::Sub), inputs, .. } = &self.nodes[apart] else { return None };
        let (x, m) = (inputs[0], source(self, inputs[1])?);
        let small = self.shape(m);
        let stretched = |builder: &mut Builder, id: NodeId| {
            let from = builder.shape(id);
            let fits = from.iter().rev().zip(small.iter().rev()).all(|(from, to)| *from == 1 || from == to);
            (from.len() <= small.len() && fits).then(|| builder.add(Op::Broadcast, vec![id], small.clone()))
        };
        let (s, b) = (stretched(self, s)?, stretched(self, b)?);
        let binary = |builder: &mut Builder, op, inputs, shape: &[usize]| {
            builder.add(Op::Binary(op), inputs, shape.to_vec())
        };
        let moved = binary(self, BinaryOp::Mul, vec![m, s], &small);
        let shift = binary(self, BinaryOp::Sub, vec![b, moved], &small);
        let shift = self.add(Op::Broadcast, vec![shift], shape.to_vec());
        let s = self.add(Op::Broadcast, vec![s], shape.to_vec());
        let product = binary(self, BinaryOp::Mul, vec![x, s], shape);
        Some(binary(self, BinaryOp::Add, vec![product, shift], shape))
    }

    fn simplify_sum(&mut self, axes: &[usize], input: NodeId, shape: &[usize]) -> Option<NodeId> {
        let node = self.nodes[input].clone();
        let folded: usize = axes.iter().map(|&a| node.shape[a]).product();
        if folded == 1 {
            return Some(input);
        }
        if folded == 0 {
            return Some(self.constant(0.0, shape.to_vec()));
        }
        if let Some(value) = self.full(input) {
            return Some(self.constant(value * folded as f64, shape.to_vec()));
        }
        let sum = |axes: &[usize]| Op::Reduce(ReduceOp::Sum, axes.to_vec());
        // Two sums (of two views of a batch) are added by whoever needs that.
        if let (2, true, Some(axis)) =
            (folded, node.len() <= SMALL, axes.iter().find(|&&axis| node.shape[axis] == 2))
        {
            let one = |builder: &mut Builder, at: usize| {
                let (mut starts, steps) = (vec![0; shape.len()], vec![1; shape.len()]);
                starts[*axis] = at;
                builder.add(Op::Slice { starts, steps }, vec![input], shape.to_vec())
            };
            let parts = vec![one(self, 0), one(self, 1)];
            return Some(self.add(Op::Binary(BinaryOp::Add), parts, shape.to_vec()));
        }
        // What does not vary along the folded axes comes out of the sum.
        let constant_along = |builder: &Builder, id: NodeId| match &builder.nodes[id] {
            Node { op: Op::Full(_), .. } => true,
            Node { op: Op::Broadcast, inputs, .. } => {
                axes.iter().all(|&a| builder.nodes[inputs[0]].shape[a] == 1)
            }
            _ => false,
        };
        match &node.op {
            Op::Unary(UnaryOp::Neg) => {
                let total = self.add(sum(axes), node.inputs.clone(), shape.to_vec());
                Some(self.add(Op::Unary(UnaryOp::Neg), vec![total], shape.to_vec()))
            }
            Op::Binary(BinaryOp::Mul) => {
                let (a, b) = (node.inputs[0], node.inputs[1]);
                let (factor, rest) = match (constant_along(self, a), constant_along(self, b)) {
                    (true, _) => (a, b),
                    (_, true) => (b, a),
                    _ => return None,
                };
                let total = self.add(sum(axes), vec![rest], shape.to_vec());
                let small = match self.full(factor) {
                    Some(value) => self.constant(value, shape.to_vec()),
                    None => {
                        let source = self.nodes[factor].inputs[0];
                        self.add(Op::Broadcast, vec![source], shape.to_vec())
                    }
                };
                Some(self.add(Op::Binary(BinaryOp::Mul), vec![total, small], shape.to_vec()))
            }
            Op::Broadcast if constant_along(self, input) => {
                let small = self.add(Op::Broadcast, node.inputs.clone(), shape.to_vec());
                let count = self.constant(folded as f64, shape.to_vec());
                Some(self.add(Op::Binary(BinaryOp::Mul), vec![small, count], shape.to_vec()))
            }
            _ => None,
        }
    }
}
