//! Elementwise kernels: a node alone, or the parts of a long concatenation.

use super::context::{ALL_DIMS, Context, Stop, node_index};
use super::expression::Emitter;
use crate::graph::NodeId;
use crate::ir::{Body, Kernel, Store};

impl Context<'_> {
    pub fn map(&self, id: NodeId) -> Result<Kernel, Stop> {
        let node = &self.graph.nodes[id];
        let fallback = self.inlined_inputs(id);
        let body = self.refined(node.shape.clone(), ALL_DIMS, &fallback, |space| {
            let mut emitter = Emitter::new(self, space, id, None);
            let value = emitter.compute(id, &node_index(&node.shape, space)?)?;
            let program = emitter.program;
            self.limit_buffers(id, &program, 1)?;
            let store = Store::dense(self.buffer_of[&id], space, value);
            Ok(Body::map(space.to_vec(), program, vec![store]))
        })?;
        Ok(Kernel { label: label(&body, node.op.name()), body })
    }

    /// A long concatenation: a kernel a part, which writes the part straight to its place.
    pub fn pieces(&self, id: NodeId, axis: usize) -> Result<Vec<Kernel>, Stop> {
        let node = &self.graph.nodes[id];
        let mut start = 0;
        let mut piece = |part: NodeId| {
            let shape = self.shape(part);
            let from = start;
            start += shape[axis];
            let fallback = if self.partition.materialised[part] { vec![] } else { vec![part] };
            let body = self.refined(shape.to_vec(), ALL_DIMS, &fallback, |space| {
                let mut emitter = Emitter::new(self, space, id, None);
                let index = node_index(shape, space)?;
                let value = emitter.value(part, &index)?;
                let program = emitter.program;
                if !self.partition.materialised[part] {
                    self.limit_buffers(part, &program, 1)?;
                }
                let mut place = index;
                place.dims[axis].offset += from as i64;
                let view = place.flat(&node.shape, space);
                let store = Store { buffer: self.buffer_of[&id], view, value };
                Ok(Body::map(space.to_vec(), program, vec![store]))
            })?;
            Ok(Kernel { label: label(&body, node.op.name()), body })
        };
        node.inputs.iter().map(|&part| piece(part)).collect()
    }
}

/// The name of the last operation, and how many there are.
fn label(body: &Body, last: &str) -> String {
    let Body::Map { parts } = body else { return last.into() };
    match parts.iter().map(|part| part.program.arithmetic()).sum() {
        0 | 1 => format!("map {last}"),
        several => format!("map {last} ({several} ops)"),
    }
}
