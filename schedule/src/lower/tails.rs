//! What a kernel computes of its result before it stores it.

use std::collections::{BTreeSet, HashMap, HashSet};

use autograd::tensor::Op;

use crate::graph::{Graph, NodeId};
use crate::partition::{Class, Partition, class};

/// For each convolution, product and fold whose result only feeds a chain of elementwise nodes: the
/// last node of that chain. The kernel stores that node instead of the raw result.
pub fn find_tails(
    graph: &Graph,
    partition: &Partition,
    forced: &HashSet<NodeId>,
    no_tail: &HashSet<NodeId>,
) -> HashMap<NodeId, NodeId> {
    let mut users: Vec<BTreeSet<NodeId>> = vec![BTreeSet::new(); graph.nodes.len()];
    for (id, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|&i| {
            users[i].insert(id);
        });
    }
    let mut wanted: HashSet<NodeId> = forced.clone();
    wanted.extend(graph.outputs.iter().map(|o| o.1));
    wanted.extend(graph.updates.iter().map(|u| u.1));

    let mut tails = HashMap::new();
    let mut taken = HashSet::new();
    for (core, node) in graph.nodes.iter().enumerate() {
        let fusable = match &node.op {
            // A fold over leading dims may join the kernel that makes its input (see `merge`), which
            // takes the bare sum only.
            Op::Reduce(_, axes) => {
                let input = &graph.nodes[node.inputs[0]].shape;
                axes.iter().any(|axis| axis + 1 == input.len()) && input.len() <= 3
            }
            Op::MatMul | Op::Convolution(_) | Op::ConvolutionInputGrad(_) => true,
            _ => false,
        };
        if !fusable || no_tail.contains(&core) {
            continue;
        }
        let mut tail = core;
        while !wanted.contains(&tail) && users[tail].len() == 1 {
            let user = *users[tail].first().unwrap_or(&tail);
            let joins = class(&graph.nodes[user].op) == Class::Elementwise
                && partition.frozen[user] == partition.frozen[core]
                && graph.nodes[user].shape == node.shape
                && !taken.contains(&user);
            if !joins {
                break;
            }
            tail = user;
        }
        // Two cores may meet at one node (a sum of two convolutions); the first takes it, the other
        // is one of its loads.
        if tail != core && taken.insert(tail) {
            tails.insert(core, tail);
        }
    }
    tails
}
