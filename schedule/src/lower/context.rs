//! What the makers of kernels share: the graph, its partition, and the buffers of its nodes.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::index::{Index, Obstacle};
use crate::graph::{Graph, NodeId};
use crate::ir::{Buffer, BufferId, Program};
use crate::partition::{Class, Partition, class};
use crate::step::Options;

/// All dims of an iteration space may be split, see [`Context::refined`].
pub const ALL_DIMS: usize = usize::MAX / 2;
/// Most dims that a space is split into.
const MOST_DIMS: usize = 12;
/// Most instructions of a program that a kernel begins with.
const MOST_INSTRUCTIONS: usize = 256;

/// Why lowering starts again.
#[derive(Debug)]
pub enum Stop {
    /// These nodes need memory after all.
    Materialise(Vec<NodeId>),
    /// This heavy node's tail does not fit into its kernel.
    NoTail(NodeId),
    /// The current kernel needs this iteration dim split into `[size / inner, inner]`.
    Refine { dim: usize, inner: usize },
}

impl From<Obstacle> for Stop {
    fn from(obstacle: Obstacle) -> Stop {
        match obstacle {
            Obstacle::Refine { dim, inner } => Stop::Refine { dim, inner },
            Obstacle::Opaque => Stop::Materialise(vec![]),
        }
    }
}

pub struct Context<'a> {
    pub graph: &'a Graph,
    pub options: &'a Options,
    pub partition: &'a Partition,
    pub buffers: &'a [Buffer],
    /// The buffer of each materialised node.
    pub buffer_of: &'a HashMap<NodeId, BufferId>,
}

impl Context<'_> {
    pub fn shape(&self, id: NodeId) -> &[usize] {
        &self.graph.nodes[id].shape
    }

    /// Runs `build` on finer and finer iteration spaces until nothing asks for more. Dims in
    /// `allowed` (counted from the front, growing with each split) may be split.
    pub fn refined<T>(
        &self,
        mut space: Vec<usize>,
        mut allowed: usize,
        fallback: &[NodeId],
        mut build: impl FnMut(&[usize]) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        loop {
            match build(&space) {
                Err(Stop::Refine { dim, inner }) if dim < allowed && space.len() < MOST_DIMS => {
                    let outer = space[dim] / inner;
                    space.splice(dim..=dim, [outer, inner]);
                    allowed += 1;
                }
                Err(Stop::Refine { .. }) => return Err(Stop::Materialise(fallback.to_vec())),
                done => return done,
            }
        }
    }

    /// The nodes directly below `id` that are computed in place, for giving them memory instead. If
    /// all are in memory already there is nothing to give.
    pub fn inlined_inputs(&self, id: NodeId) -> Vec<NodeId> {
        let mut found = Vec::new();
        for &input in &self.graph.nodes[id].inputs {
            match class(&self.graph.nodes[input].op) {
                _ if self.partition.materialised[input] => {}
                Class::Elementwise => found.push(input),
                Class::Heavy => found.extend(self.inlined_inputs(input)),
                Class::View => {
                    let below = self.inlined_inputs(input);
                    found.extend(if below.is_empty() { vec![input] } else { below });
                }
                Class::Leaf | Class::Number => {}
            }
        }
        found
    }

    /// If a program reads too many buffers, stops with the sub-expression that reads most of them.
    pub fn limit_buffers(&self, root: NodeId, program: &Program, stores: usize) -> Result<(), Stop> {
        let buffers: BTreeSet<BufferId> = program.buffers().collect();
        if buffers.len() + stores <= self.options.max_buffers && program.instrs.len() <= MOST_INSTRUCTIONS {
            return Ok(());
        }
        let mut at = root;
        loop {
            let total = self.buffers_below(at).len();
            let inputs = self.inlined_inputs(at);
            let largest = inputs.iter().copied().max_by_key(|&i| self.buffers_below(i).len());
            match largest {
                Some(input)
                    if self.buffers_below(input).len() < total || self.inlined_inputs(input).is_empty() =>
                {
                    return Err(Stop::Materialise(vec![input]));
                }
                Some(input) => at = input,
                None => return Err(Stop::Materialise(vec![])),
            }
        }
    }

    /// The materialised nodes that computing `id` in place reads.
    fn buffers_below(&self, id: NodeId) -> BTreeSet<NodeId> {
        let mut found = BTreeSet::new();
        let mut pending = self.graph.nodes[id].inputs.clone();
        let mut seen = HashSet::new();
        while let Some(node) = pending.pop() {
            if self.partition.materialised[node] {
                found.insert(node);
            } else if seen.insert(node) {
                pending.extend(&self.graph.nodes[node].inputs);
            }
        }
        found
    }
}

/// The index of a node of `shape` in an iteration space that is `shape` with some dims split.
pub fn node_index(shape: &[usize], space: &[usize]) -> Result<Index, Stop> {
    let identity = Index::identity(space);
    if shape == space {
        return Ok(identity);
    }
    identity.reshape(space, shape, space).map_err(Stop::from)
}
