//! From an expression to the program that a kernel evaluates.

use std::collections::HashMap;

use autograd::tensor::Op;

use super::context::{Context, Stop};
use super::index::{Index, Obstacle};
use crate::graph::NodeId;
use crate::ir::{Bound, Instr, Program, Reg, View};

/// Builds one program.
pub struct Emitter<'a> {
    context: &'a Context<'a>,
    space: &'a [usize],
    root: NodeId,
    /// The heavy node whose result is at hand, and its index.
    core: Option<(NodeId, Index)>,
    pub program: Program,
    memo: HashMap<NodeId, Vec<(Index, Reg)>>,
}

impl<'a> Emitter<'a> {
    pub fn new(
        context: &'a Context<'a>,
        space: &'a [usize],
        root: NodeId,
        core: Option<(NodeId, Index)>,
    ) -> Self {
        Emitter { context, space, root, core, program: Program::default(), memo: HashMap::new() }
    }

    fn push(&mut self, instr: Instr) -> Reg {
        self.program.push(instr)
    }

    /// The value of a node at an index: from memory if it has any, else computed here.
    pub fn value(&mut self, id: NodeId, index: &Index) -> Result<Reg, Stop> {
        if self.core.as_ref().is_some_and(|(core, at)| *core == id && at == index) {
            return Ok(self.push(Instr::Accumulator(0)));
        }
        if self.context.partition.materialised[id] && id != self.root {
            let buffer = self.context.buffer_of[&id];
            let view = index.flat(&self.context.graph.nodes[id].shape, self.space);
            return Ok(self.push(Instr::Load { buffer, view }));
        }
        self.compute(id, index)
    }

    pub fn compute(&mut self, id: NodeId, index: &Index) -> Result<Reg, Stop> {
        let known = self.memo.get(&id).and_then(|list| list.iter().find(|(at, _)| at == index));
        if let Some((_, reg)) = known {
            return Ok(*reg);
        }
        let reg = self.compute_new(id, index)?;
        self.memo.entry(id).or_default().push((index.clone(), reg));
        Ok(reg)
    }

    fn compute_new(&mut self, id: NodeId, index: &Index) -> Result<Reg, Stop> {
        let graph = self.context.graph;
        let node = &graph.nodes[id];
        if self.core.as_ref().is_some_and(|(core, at)| *core == id && at == index) {
            return Ok(self.push(Instr::Accumulator(0)));
        }
        let input = |i: usize| node.inputs[i];
        let shape = |i: usize| &graph.nodes[node.inputs[i]].shape[..];
        Ok(match &node.op {
            Op::Full(value) => self.push(Instr::Constant(*value as f32)),
            Op::Iota(axis) => {
                let affine = &index.dims[*axis];
                let view = View { offset: affine.offset, strides: affine.strides.clone(), bounds: vec![] };
                self.push(Instr::Index(view))
            }
            Op::Random { stream } => {
                let scalar = Index { dims: vec![], bounds: index.bounds.clone() };
                let (seed, step) = (self.value(input(0), &scalar)?, self.value(input(1), &scalar)?);
                let mut view = index.flat(&node.shape, self.space);
                view.bounds.clear();
                self.push(Instr::Random { stream: *stream, index: view, seed, step })
            }
            Op::Unary(op) => {
                let x = self.value(input(0), index)?;
                self.push(Instr::Unary(*op, x))
            }
            Op::Binary(op) => {
                let (a, b) = (self.value(input(0), index)?, self.value(input(1), index)?);
                self.push(Instr::Binary(*op, a, b))
            }
            Op::Select => {
                let condition = self.value(input(0), index)?;
                let (yes, no) = (self.value(input(1), index)?, self.value(input(2), index)?);
                self.push(Instr::Select { condition, yes, no })
            }
            Op::Permute(axes) => self.value(input(0), &index.permute(axes))?,
            Op::Broadcast => self.value(input(0), &index.broadcast(shape(0)))?,
            Op::Slice { starts, steps } => self.value(input(0), &index.slice(starts, steps))?,
            Op::Reshape => self.reshape(id, index)?,
            Op::Pad { starts } => {
                let mut inside = index.clone();
                let mut bounds = Vec::new();
                for axis in 0..starts.len() {
                    let (next, bound) = inside.shift_inside(axis, starts[axis], shape(0)[axis], self.space);
                    inside = next;
                    bounds.extend(bound);
                }
                let value = self.value(input(0), &inside)?;
                self.masked(bounds, value, None)
            }
            Op::Concatenate(axis) => {
                let mut start = graph.nodes[id].shape[*axis];
                let mut result = None;
                for &part in node.inputs.iter().rev() {
                    let extent = graph.nodes[part].shape[*axis];
                    start -= extent;
                    let (inside, bound) = index.shift_inside(*axis, start, extent, self.space);
                    let value = self.value(part, &inside)?;
                    result = Some(self.masked(bound.into_iter().collect(), value, result));
                }
                result.ok_or(Stop::Materialise(vec![]))?
            }
            // Heavy nodes and leaves are always in memory, unless fused as this program's core.
            _ => return Err(Stop::Materialise(vec![id])),
        })
    }

    /// `value` where the bounds hold, else `other` (or 0). A load already gives 0 there.
    fn masked(&mut self, bounds: Vec<Bound>, value: Reg, other: Option<Reg>) -> Reg {
        if bounds.is_empty() {
            return value;
        }
        if other.is_none() && matches!(self.program.instrs[value], Instr::Load { .. }) {
            return value;
        }
        let no = match other {
            Some(reg) => reg,
            None => self.push(Instr::Constant(0.0)),
        };
        let strides = vec![0; self.space.len()];
        let condition = self.push(Instr::InBounds(View { offset: 0, strides, bounds }));
        self.push(Instr::Select { condition, yes: value, no })
    }

    fn reshape(&mut self, id: NodeId, index: &Index) -> Result<Reg, Stop> {
        let graph = self.context.graph;
        let node = &graph.nodes[id];
        let input = node.inputs[0];
        if self.context.partition.materialised[input] {
            let view = index.flat(&node.shape, self.space);
            return Ok(self.push(Instr::Load { buffer: self.context.buffer_of[&input], view }));
        }
        match index.reshape(&node.shape, &graph.nodes[input].shape, self.space) {
            Ok(below) => self.value(input, &below),
            Err(Obstacle::Refine { dim, inner }) => Err(Stop::Refine { dim, inner }),
            Err(Obstacle::Opaque) => Err(Stop::Materialise(vec![input])),
        }
    }
}
