//! Which nodes get memory of their own.
//!
//! Convolutions, products, folds and pools always do. An elementwise node is normally recomputed
//! inside every kernel that reads it, which is free when it is cheap (a batch norm's apply reads one
//! big tensor; so would a copy of it). It gets memory when several kernels need it and it is dear:
//! it reads two or more big tensors, or evaluates a function like `exp`.

use std::collections::{BTreeSet, HashSet};

use crate::graph::{Graph, Node, NodeId};
use crate::step::Options;
use autograd::tensor::Op;

/// What the partition decides about each node.
pub struct Partition {
    /// Has a buffer and a kernel (or is a leaf with a buffer).
    pub materialised: Vec<bool>,
    /// Depends only on constants and on state that the step does not update.
    pub frozen: Vec<bool>,
}

/// How an op takes part in fusion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Input, state, constant: has a buffer without a kernel.
    Leaf,
    /// Full, iota: no memory, no loads.
    Number,
    /// Arithmetic an element.
    Elementwise,
    /// Rearrangement without arithmetic.
    View,
    /// A kernel of its own.
    Heavy,
}

/// The class of a primitive.
pub fn class(op: &Op) -> Class {
    match op {
        Op::Input(_) | Op::State(_) | Op::Constant(_) => Class::Leaf,
        Op::Full(_) | Op::Iota(_) => Class::Number,
        Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Random { .. } => Class::Elementwise,
        Op::Concatenate(_)
        | Op::Reshape
        | Op::Permute(_)
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Broadcast => Class::View,
        Op::Reduce(..)
        | Op::ArgMax(_)
        | Op::MatMul
        | Op::Convolution(_)
        | Op::ConvolutionInputGrad(_)
        | Op::ConvolutionWeightGrad(_)
        | Op::MaxPoolGather(_)
        | Op::MaxPoolScatter(_)
        | Op::AveragePool(_)
        | Op::AveragePoolTransposed(_)
        | Op::AllReduce(_) => Class::Heavy,
        // The graph has none of these left: they were errors, or simplified away.
        Op::Invalid | Op::Cast | Op::Detach => Class::View,
    }
}

/// Whether evaluating the op costs far more than an addition.
fn is_dear(op: &Op) -> bool {
    match op {
        Op::Unary(op) => op.is_dear(),
        Op::Binary(op) => op.is_dear(),
        other => matches!(other, Op::Random { .. } | Op::Concatenate(_)),
    }
}

/// What is read through a slice or a padding, perhaps at several places at once, gets memory beyond this many
/// operations, however cheap each is: a stencil of a stencil of a stencil would grow without end.
const MOST_OPERATIONS: usize = 32;

/// A kernel that evaluates a concatenation looks at every part for each element; beyond this many parts
/// that is waste, whatever a kernel may bind.
const MOST_PARTS: usize = 16;

/// Whether the node joins too many parts for one kernel to look at. It gets memory, and each part is
/// written to its place there by a kernel of its own.
pub fn is_long(node: &Node, options: &Options) -> bool {
    let most = MOST_PARTS.min(options.max_buffers.saturating_sub(1));
    matches!(node.op, Op::Concatenate(_)) && node.inputs.len() > most
}

/// Decides for every node. `forced` must be materialised whatever its cost.
pub fn partition(graph: &Graph, options: &Options, forced: &HashSet<NodeId>) -> Partition {
    let frozen = frozen(graph);
    let mut materialised: Vec<bool> = graph
        .nodes
        .iter()
        .map(|n| {
            let inlines = matches!(class(&n.op), Class::Elementwise | Class::View | Class::Number);
            !inlines || is_long(n, options)
        })
        .collect();
    graph.outputs.iter().for_each(|o| materialised[o.1] = true);
    graph.updates.iter().for_each(|u| materialised[u.1] = true);
    forced.iter().for_each(|&id| materialised[id] = true);
    if !options.fuse {
        materialised.iter_mut().for_each(|m| *m = true);
        return Partition { materialised, frozen };
    }
    hoist(graph, &frozen, &mut materialised);
    keep_small(graph, &mut materialised);
    // Costs depend on decisions and decisions on costs: a few rounds settle it.
    let base = materialised.clone();
    for _ in 0..3 {
        let costs = costs(graph, &materialised);
        materialised = decide(graph, &base, &costs);
    }
    Partition { materialised, frozen }
}

fn frozen(graph: &Graph) -> Vec<bool> {
    let updated: HashSet<u64> = graph.updates.iter().map(|u| u.0.id()).collect();
    let mut frozen: Vec<bool> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let fixed = match &node.op {
            // What others add may change although nothing here does.
            Op::Input(_) | Op::AllReduce(_) => false,
            Op::State(variable) => !updated.contains(&variable.id()),
            _ => node.inputs.iter().all(|&i| frozen[i]),
        };
        frozen.push(fixed);
    }
    frozen
}

/// Gives memory to what can be computed once: where arithmetic on frozen state is read by something
/// that changes from call to call.
fn hoist(graph: &Graph, frozen: &[bool], materialised: &mut [bool]) {
    // Whether a node is frozen arithmetic on something in memory (an iota alone is cheaper remade).
    let mut has_leaf = vec![false; graph.nodes.len()];
    for (id, node) in graph.nodes.iter().enumerate() {
        has_leaf[id] = class(&node.op) == Class::Leaf || node.inputs.iter().any(|&i| has_leaf[i]);
    }
    let mut needed = vec![false; graph.nodes.len()];
    for (id, node) in graph.nodes.iter().enumerate() {
        if !frozen[id] {
            node.inputs.iter().for_each(|&i| needed[i] |= frozen[i]);
        }
    }
    for id in (0..graph.nodes.len()).rev() {
        if !needed[id] || !has_leaf[id] {
            continue;
        }
        match class(&graph.nodes[id].op) {
            Class::Elementwise => materialised[id] = true,
            Class::View if matches!(graph.nodes[id].op, Op::Concatenate(_)) => materialised[id] = true,
            Class::View => graph.nodes[id].inputs.iter().for_each(|&i| needed[i] = true),
            _ => {}
        }
    }
}

/// Gives memory to arithmetic on a small tensor that is then stretched over a big one (a batch norm's
/// per-channel scale): computed once an entry instead of once a pixel.
fn keep_small(graph: &Graph, materialised: &mut [bool]) {
    for node in &graph.nodes {
        if !matches!(node.op, Op::Broadcast) {
            continue;
        }
        let mut source = node.inputs[0];
        while matches!(graph.nodes[source].op, Op::Reshape | Op::Permute(_)) {
            source = graph.nodes[source].inputs[0];
        }
        let small = &graph.nodes[source];
        let stretched = small.len() * 8 <= node.len() && (is_dear(&small.op) || node.len() >= 1 << 14);
        if class(&small.op) == Class::Elementwise && stretched {
            materialised[source] = true;
        }
    }
}

/// What recomputing a node would read and evaluate.
#[derive(Clone, Default)]
struct Cost {
    /// Big tensors read (at most a handful are listed).
    loads: BTreeSet<NodeId>,
    dear: usize,
    /// Operations of all kinds, those that are met twice counted twice.
    operations: usize,
}

fn costs(graph: &Graph, materialised: &[bool]) -> Vec<Cost> {
    let mut costs: Vec<Cost> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let mut cost = Cost { dear: is_dear(&node.op) as usize, operations: 1, ..Cost::default() };
        // Per-channel vectors and scalars stay in cache; they do not count.
        let is_big = |id: &NodeId| graph.nodes[*id].len() * 8 >= node.len();
        for &input in &node.inputs {
            if materialised[input] {
                cost.loads.extend(Some(input).filter(is_big));
            } else {
                cost.dear += costs[input].dear;
                cost.operations = cost.operations.saturating_add(costs[input].operations);
                cost.loads.extend(costs[input].loads.iter().copied().filter(is_big).take(4));
            }
        }
        costs.push(cost);
    }
    costs
}

fn decide(graph: &Graph, base: &[bool], costs: &[Cost]) -> Vec<bool> {
    let mut materialised = base.to_vec();
    // The kernels that would evaluate each node (two are as good as many).
    let mut readers: Vec<BTreeSet<NodeId>> = vec![BTreeSet::new(); graph.nodes.len()];
    // Whether one may evaluate it for several places at once.
    let mut moved = vec![false; graph.nodes.len()];
    for id in (0..graph.nodes.len()).rev() {
        let node: &Node = &graph.nodes[id];
        let dear = costs[id].dear > 0 || costs[id].loads.len() > 1;
        let worth_it = class(&node.op) == Class::Elementwise || matches!(node.op, Op::Concatenate(_));
        let long = moved[id] && costs[id].operations > MOST_OPERATIONS;
        if worth_it && (readers[id].len() > 1 && dear || long) {
            materialised[id] = true;
        }
        let reads_as: Vec<NodeId> =
            if materialised[id] { vec![id] } else { readers[id].iter().copied().take(3).collect() };
        let moves = matches!(node.op, Op::Slice { .. } | Op::Pad { .. });
        for &input in &node.inputs {
            readers[input].extend(reads_as.iter());
            moved[input] |= moves || moved[id] && !materialised[id];
        }
    }
    materialised
}
