//! From graph nodes to kernels.
//!
//! Every materialised node becomes one kernel. What is not materialised is evaluated inside the
//! kernels that read it: [`Emitter`](expression::Emitter) walks the expression down to memory, composing
//! index arithmetic on the way, and leaves a [`Program`](crate::Program).
//!
//! Two things can stop such a walk. A reshape may need a finer iteration space: the kernel is started
//! again with one dim split. Or an expression cannot be inlined (an awkward reshape, an operand that a
//! kernel needs as plain memory, too many buffers): that node gets memory after all, and lowering
//! starts again with the partition it now knows better.

mod begin;
mod context;
mod expression;
mod heavy;
mod index;
mod map;
mod tails;

use std::collections::{HashMap, HashSet};

use autograd::tensor::Op;
use autograd::{Error, Result};

use crate::draft::Draft;
use crate::graph::{Graph, NodeId};
use crate::partition::{Class, class, is_long, partition};
use crate::step::Options;
use context::{Context, Stop};

/// Makes kernels of all materialised nodes.
pub fn lower(graph: &Graph, options: &Options) -> Result<Draft> {
    let mut forced = HashSet::new();
    let mut no_tail = HashSet::new();
    // Each round materialises at least one more node, so this ends.
    for _ in 0..=2 * graph.nodes.len() {
        match attempt(graph, options, &forced, &no_tail) {
            Ok(draft) => return Ok(draft),
            Err(Stop::Materialise(nodes)) if nodes.iter().any(|n| !forced.contains(n)) => {
                forced.extend(nodes)
            }
            Err(Stop::NoTail(node)) if no_tail.insert(node) => {}
            Err(stop) => {
                return Err(Error::Step(format!(
                    "lowering made no progress ({stop:?}); please report this step"
                )));
            }
        }
    }
    Err(Error::Step("lowering does not settle; please report this step".into()))
}

/// One round: `forced` nodes get memory, and `no_tail` nodes store their bare results.
fn attempt(
    graph: &Graph,
    options: &Options,
    forced: &HashSet<NodeId>,
    no_tail: &HashSet<NodeId>,
) -> Result<Draft, Stop> {
    let mut partition = partition(graph, options, forced);
    // For a node that a heavy node's kernel stores: that heavy node.
    let mut cores: HashMap<NodeId, NodeId> = HashMap::new();
    if options.fuse {
        for (core, tail) in tails::find_tails(graph, &partition, forced, no_tail) {
            partition.materialised[core] = false;
            partition.materialised[tail] = true;
            cores.insert(tail, core);
        }
    }
    let (mut draft, buffer_of) = begin::begin(graph, &partition, &cores);
    let context =
        Context { graph, options, partition: &partition, buffers: &draft.buffers, buffer_of: &buffer_of };
    for (id, node) in graph.nodes.iter().enumerate() {
        if !partition.materialised[id] || class(&node.op) == Class::Leaf {
            continue;
        }
        let made = match (cores.get(&id), &node.op) {
            (Some(&core), _) => vec![context.heavy(core, id)?],
            (None, op) if class(op) == Class::Heavy => vec![context.heavy(id, id)?],
            (None, Op::Concatenate(axis)) if is_long(node, options) => context.pieces(id, *axis)?,
            _ => vec![context.map(id)?],
        };
        if partition.frozen[id] { draft.prepare.extend(made) } else { draft.kernels.extend(made) }
    }
    Ok(draft)
}
