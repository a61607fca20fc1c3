//! Where nodes lie: the buffers of a step, of its results, and of its variables.

use std::collections::HashMap;

use autograd::scope::Scope;
use autograd::tensor::Op;

use crate::draft::Draft;
use crate::graph::{Graph, NodeId};
use crate::ir::{Buffer, BufferId, Kernel, Role};
use crate::partition::{Class, Partition, class};

/// A draft with the step's buffers, outputs and updates, and the buffer of each materialised node, which
/// belongs where the node's core does (`cores`: of those that have one). Its
/// only kernels are copies of leaves (inputs, state, constants) that are asked for as results.
pub fn begin(
    graph: &Graph,
    partition: &Partition,
    cores: &HashMap<NodeId, NodeId>,
) -> (Draft, HashMap<NodeId, BufferId>) {
    let mut draft = Draft::default();
    let mut buffer_of = HashMap::new();
    let mut states: HashMap<u64, BufferId> = HashMap::new();
    for (id, node) in graph.nodes.iter().enumerate().filter(|(id, _)| partition.materialised[*id]) {
        let (role, label) = match &node.op {
            Op::Input(name) => (Role::Input { name: name.clone(), integer: node.integer }, &name[..]),
            Op::State(variable) => (Role::State(variable.clone()), variable.name()),
            Op::Constant(values) => (Role::Constant(values.clone()), "constant"),
            op => (Draft::TEMPORARY, op.name()),
        };
        let buffer = draft.add(&node.shape, role, label);
        draft.buffers[buffer].scope = graph.nodes[*cores.get(&id).unwrap_or(&id)].scope.clone();
        buffer_of.insert(id, buffer);
        if let Op::State(variable) = &node.op {
            states.insert(variable.id(), buffer);
        }
    }
    for (name, id) in &graph.outputs {
        let buffer = draft.result(graph, *id, buffer_of[id], name);
        draft.buffers[buffer].role = Role::Output;
        draft.outputs.push((name.clone(), buffer));
    }
    for (variable, id) in &graph.updates {
        let state = *states
            .entry(variable.id())
            .or_insert_with(|| draft.add(variable.shape(), Role::State(variable.clone()), variable.name()));
        let value = draft.result(graph, *id, buffer_of[id], "copy");
        draft.updates.push((state, value));
    }
    (draft, buffer_of)
}

impl Draft {
    fn add(&mut self, shape: &[usize], role: Role, label: &str) -> BufferId {
        self.buffers.push(Buffer {
            shape: shape.to_vec(),
            role,
            label: label.into(),
            scope: Scope::default(),
        });
        self.buffers.len() - 1
    }

    /// The buffer of a node, or for a leaf that of a copy.
    fn result(&mut self, graph: &Graph, id: NodeId, buffer: BufferId, label: &str) -> BufferId {
        let node = &graph.nodes[id];
        if class(&node.op) != Class::Leaf {
            return buffer;
        }
        let copy = self.add(&node.shape, Draft::TEMPORARY, label);
        self.buffers[copy].scope = node.scope.clone();
        self.kernels.push(Kernel::copy(buffer, copy, node.len()));
        copy
    }
}
