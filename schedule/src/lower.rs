//! From graph nodes to kernels.
//!
//! Every materialised node becomes one kernel. What is not materialised is evaluated inside the
//! kernels that read it: [`Emitter`] walks the expression down to memory, composing index arithmetic
//! on the way, and leaves a [`Program`].
//!
//! Two things can stop such a walk. A reshape may need a finer iteration space: the kernel is started
//! again with one dim split. Or an expression cannot be inlined (an awkward reshape, an operand that a
//! kernel needs as plain memory, too many buffers): that node gets memory after all, and lowering
//! starts again with the partition it now knows better.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::graph::{Graph, NodeId};
use crate::index::{Index, Obstacle};
use crate::ir::*;
use crate::partition::{Class, Partition, class, is_long, partition};
use crate::step::Options;
use autograd::error::{Error, Result};
use autograd::tensor::{Op, ReduceOp, Variable};

/// Kernels in order, before merging and memory planning.
pub struct Lowered {
    pub buffers: Vec<Buffer>,
    pub kernels: Vec<Item>,
    pub outputs: Vec<(String, BufferId)>,
    /// (the variable's buffer, the buffer of its new value).
    pub updates: Vec<(BufferId, BufferId)>,
}

/// A kernel, and whether it runs once (on frozen state only) or every call.
pub struct Item {
    pub kernel: Kernel,
    pub frozen: bool,
}

/// Makes kernels of all materialised nodes.
pub fn lower(graph: &Graph, options: &Options) -> Result<Lowered> {
    let mut forced = HashSet::new();
    let mut no_tail = HashSet::new();
    // Each round materialises at least one more node, so this ends.
    for _ in 0..=2 * graph.nodes.len() {
        match Lowering::new(graph, options, &forced, &no_tail).run() {
            Ok(lowered) => return Ok(lowered),
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

/// Why lowering starts again.
#[derive(Debug)]
enum Stop {
    Materialise(Vec<NodeId>),
    /// This heavy node's epilogue touches too many buffers.
    NoTail(NodeId),
    /// The current kernel needs this iteration dim split into `[size / inner, inner]`.
    Refine {
        dim: usize,
        inner: usize,
    },
}

struct Lowering<'a> {
    graph: &'a Graph,
    options: &'a Options,
    partition: Partition,
    /// For a node that a heavy node's fused epilogue stores: that heavy node.
    cores: HashMap<NodeId, NodeId>,
    buffers: Vec<Buffer>,
    buffer_of: HashMap<NodeId, BufferId>,
}

impl<'a> Lowering<'a> {
    fn new(
        graph: &'a Graph,
        options: &'a Options,
        forced: &HashSet<NodeId>,
        no_tail: &HashSet<NodeId>,
    ) -> Self {
        let mut partition = partition(graph, options, forced);
        let tails =
            if options.fuse { find_tails(graph, &partition, forced, no_tail) } else { HashMap::new() };
        for (&core, &tail) in &tails {
            partition.materialised[core] = false;
            partition.materialised[tail] = true;
        }
        let cores = tails.iter().map(|(&core, &tail)| (tail, core)).collect();
        Lowering { graph, options, partition, cores, buffers: vec![], buffer_of: HashMap::new() }
    }

    fn run(mut self) -> Result<Lowered, Stop> {
        self.make_buffers();
        let mut kernels = Vec::new();
        let (outputs, updates) = self.connect(&mut kernels);
        for id in 0..self.graph.nodes.len() {
            if !self.partition.materialised[id] || class(&self.graph.nodes[id].op) == Class::Leaf {
                continue;
            }
            let node = &self.graph.nodes[id];
            let made = match self.cores.get(&id) {
                Some(&core) => vec![self.heavy(core, id)?],
                None if class(&node.op) == Class::Heavy => vec![self.heavy(id, id)?],
                None => match node.op {
                    Op::Concatenate(axis) if is_long(node, self.options) => self.pieces(id, axis)?,
                    _ => vec![self.map(id)?],
                },
            };
            let frozen = self.partition.frozen[id];
            kernels.extend(made.into_iter().map(|kernel| Item { kernel, frozen }));
        }
        Ok(Lowered { buffers: self.buffers, kernels, outputs, updates })
    }

    fn make_buffers(&mut self) {
        for (id, node) in self.graph.nodes.iter().enumerate() {
            if !self.partition.materialised[id] {
                continue;
            }
            let (role, label) = match &node.op {
                Op::Input(name) => (Role::Input { name: name.clone(), integer: node.integer }, name.clone()),
                Op::State(variable) => (Role::State(variable.clone()), variable.name().to_string()),
                Op::Constant(values) => (Role::Constant(values.clone()), "constant".into()),
                op => (Role::Temporary { slot: usize::MAX }, op.name().into()),
            };
            self.buffer_of.insert(id, self.buffers.len());
            self.buffers.push(Buffer { shape: node.shape.clone(), role, label });
        }
    }

    fn new_buffer(&mut self, shape: &[usize], role: Role, label: &str) -> BufferId {
        self.buffers.push(Buffer { shape: shape.to_vec(), role, label: label.into() });
        self.buffers.len() - 1
    }

    /// Finds the buffers of outputs and updates. Leaves, and values wanted twice, are copied first.
    #[allow(clippy::type_complexity)]
    fn connect(&mut self, kernels: &mut Vec<Item>) -> (Vec<(String, BufferId)>, Vec<(BufferId, BufferId)>) {
        let is_leaf = |id: NodeId| class(&self.graph.nodes[id].op) == Class::Leaf;
        let mut outputs = Vec::new();
        for (name, id) in self.graph.outputs.clone() {
            let buffer = if is_leaf(id) {
                let copy = self.new_buffer(&self.graph.nodes[id].shape.clone(), Role::Output, &name);
                kernels.push(Item {
                    kernel: copy_kernel(&self.buffers, self.buffer_of[&id], copy),
                    frozen: false,
                });
                copy
            } else {
                let buffer = self.buffer_of[&id];
                self.buffers[buffer].role = Role::Output;
                buffer
            };
            outputs.push((name, buffer));
        }
        let mut states: HashMap<u64, BufferId> = HashMap::new();
        for (buffer, b) in self.buffers.iter().enumerate() {
            if let Role::State(variable) = &b.role {
                states.insert(variable.id(), buffer);
            }
        }
        let mut updates = Vec::new();
        for (variable, id) in &self.graph.updates {
            let variable: &Variable = variable;
            let state = *states.entry(variable.id()).or_insert_with(|| {
                self.buffers.push(Buffer {
                    shape: variable.shape().to_vec(),
                    role: Role::State(variable.clone()),
                    label: variable.name().into(),
                });
                self.buffers.len() - 1
            });
            let value = if is_leaf(*id) {
                let shape = self.graph.nodes[*id].shape.clone();
                self.buffers.push(Buffer {
                    shape,
                    role: Role::Temporary { slot: usize::MAX },
                    label: "copy".into(),
                });
                let copy = self.buffers.len() - 1;
                kernels.push(Item {
                    kernel: copy_kernel(&self.buffers, self.buffer_of[id], copy),
                    frozen: false,
                });
                copy
            } else {
                self.buffer_of[id]
            };
            updates.push((state, value));
        }
        (outputs, updates)
    }

    /// Runs `build` on finer and finer iteration spaces until nothing asks for more. Dims in
    /// `allowed` (counted from the front, growing with each split) may be split.
    fn refined<T>(
        &self,
        mut space: Vec<usize>,
        mut allowed: usize,
        fallback: &[NodeId],
        mut build: impl FnMut(&[usize], usize) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        loop {
            match build(&space, allowed) {
                Err(Stop::Refine { dim, inner }) if dim < allowed && space.len() < 12 => {
                    let outer = space[dim] / inner;
                    space.splice(dim..=dim, [outer, inner]);
                    allowed += 1;
                }
                Err(Stop::Refine { .. }) => return Err(Stop::Materialise(fallback.to_vec())),
                done => return done,
            }
        }
    }

    fn map(&self, id: NodeId) -> Result<Kernel, Stop> {
        let node = &self.graph.nodes[id];
        let fallback = self.inlined_inputs(id);
        let body = self.refined(node.shape.clone(), usize::MAX - 64, &fallback, |space, _| {
            let mut emitter = Emitter::new(self, space, id, None);
            let value = emitter.compute(id, &node_index(&node.shape, space)?)?;
            let program = emitter.program;
            self.limit_buffers(id, &program, 1)?;
            let store = Store { buffer: self.buffer_of[&id], view: View::dense(space), value };
            Ok(Body::Map { shape: space.to_vec(), program, stores: vec![store] })
        })?;
        Ok(Kernel { label: describe_map(&body, node.op.name()), body })
    }

    /// A long concatenation: a kernel a part, which writes the part straight to its place.
    fn pieces(&self, id: NodeId, axis: usize) -> Result<Vec<Kernel>, Stop> {
        let node = &self.graph.nodes[id];
        let mut start = 0;
        let mut piece = |part: NodeId| {
            let shape = &self.graph.nodes[part].shape;
            let from = start;
            start += shape[axis];
            let fallback = if self.partition.materialised[part] { vec![] } else { vec![part] };
            let body = self.refined(shape.clone(), usize::MAX - 64, &fallback, |space, _| {
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
                Ok(Body::Map { shape: space.to_vec(), program, stores: vec![store] })
            })?;
            Ok(Kernel { label: describe_map(&body, node.op.name()), body })
        };
        node.inputs.iter().map(|&part| piece(part)).collect()
    }

    fn heavy(&self, core: NodeId, tail: NodeId) -> Result<Kernel, Stop> {
        let node = &self.graph.nodes[core];
        let (label, body) = match &node.op {
            Op::Reduce(op, axes) => {
                let kind = match op {
                    ReduceOp::Sum => ReduceKind::Sum,
                    ReduceOp::Max => ReduceKind::Max,
                    ReduceOp::Variance => ReduceKind::Variance,
                };
                (node.op.name().to_string(), self.reduce(core, tail, kind, axes)?)
            }
            Op::ArgMax(axis) => {
                ("argmax".to_string(), self.reduce(core, tail, ReduceKind::ArgMax, &[*axis])?)
            }
            Op::MatMul => ("matmul".to_string(), self.matmul(core, tail)?),
            Op::Convolution(_) | Op::ConvolutionInputGrad(_) | Op::ConvolutionWeightGrad(_) => {
                self.convolution(core, tail)?
            }
            _ => (node.op.name().to_string(), self.pool(core)?),
        };
        let extra =
            if tail == core { String::new() } else { format!(" + {}", self.graph.nodes[tail].op.name()) };
        let kernel = Kernel { label: label + &extra, body };
        if kernel.buffers().len() > self.options.max_buffers {
            if tail != core {
                return Err(Stop::NoTail(core));
            }
            return Err(Stop::Materialise(self.inlined_inputs(core)));
        }
        Ok(kernel)
    }

    fn reduce(&self, core: NodeId, tail: NodeId, kind: ReduceKind, axes: &[usize]) -> Result<Body, Stop> {
        let input = self.graph.nodes[core].inputs[0];
        let shape = &self.graph.nodes[input].shape;
        let kept: Vec<usize> = (0..shape.len()).filter(|d| !axes.contains(d)).collect();
        let order: Vec<usize> = kept.iter().chain(axes).copied().collect();
        let space: Vec<usize> = order.iter().map(|&d| shape[d]).collect();
        let fallback = [vec![input], self.inlined_inputs(tail)].concat();
        let fallback: Vec<NodeId> =
            fallback.into_iter().filter(|&n| !self.partition.materialised[n]).collect();
        let outer_size: usize = kept.iter().map(|&d| shape[d]).product();
        self.refined(space, usize::MAX - 64, &fallback, |space, _| {
            // How many leading dims of the refined space make up the kept dims.
            let mut outer = 0;
            let mut size = 1;
            while outer < space.len() && (size < outer_size || outer < kept.len()) {
                size *= space[outer];
                outer += 1;
            }
            let ordered: Vec<usize> = order.iter().map(|&d| shape[d]).collect();
            let mut inverse = vec![0; order.len()];
            order.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
            let ordered_index = node_index(&ordered, space)?;
            let index = Index {
                dims: inverse.iter().map(|&d| ordered_index.dims[d].clone()).collect(),
                bounds: vec![],
            };
            let mut emitter = Emitter::new(self, space, core, None);
            let value = emitter.value(input, &index)?;
            let program = emitter.program;
            self.limit_buffers(core, &program, 1)?;

            // The result keeps folded axes with size 1: index 0 there.
            let outer_space = &space[..outer];
            let kept_shape: Vec<usize> = kept.iter().map(|&d| shape[d]).collect();
            let kept_index = node_index(&kept_shape, outer_space)?;
            let mut result =
                Index { dims: vec![crate::index::Affine::zero(outer); shape.len()], bounds: vec![] };
            kept.iter().enumerate().for_each(|(i, &d)| result.dims[d] = kept_index.dims[i].clone());
            let mut finish = Emitter::new(self, outer_space, tail, Some((core, result.clone())));
            let stored = finish.compute(tail, &result)?;
            let store =
                Store { buffer: self.buffer_of[&tail], view: View::dense(outer_space), value: stored };
            Ok(Body::Reduce {
                shape: space.to_vec(),
                outer,
                program,
                accumulators: vec![(kind, value)],
                finish: finish.program,
                stores: vec![store],
            })
        })
    }

    /// An operand of a convolution or product: `leading` dims of its shape may be split.
    fn operand(&self, id: NodeId, shape: &[usize], leading: usize) -> Result<Operand, Stop> {
        let node = &self.graph.nodes[id];
        let operand = self.refined(shape.to_vec(), leading, &[id], |space, _| {
            let mut emitter = Emitter::new(self, space, usize::MAX, None);
            let value = emitter.value(id, &node_index(&node.shape, space)?)?;
            Ok(Operand { shape: space.to_vec(), program: emitter.program, value })
        })?;
        if !self.partition.materialised[id] && !is_light(&operand.program) {
            return Err(Stop::Materialise(vec![id]));
        }
        Ok(operand)
    }

    /// An operand that is a whole buffer.
    fn plain_operand(&self, id: NodeId) -> Result<Operand, Stop> {
        let node = &self.graph.nodes[id];
        let operand = self.operand(id, &node.shape, 0)?;
        if operand.as_buffer().is_none_or(|buffer| self.buffers[buffer].len() != node.len()) {
            return Err(Stop::Materialise(vec![id]));
        }
        Ok(operand)
    }

    fn epilogue(
        &self,
        core: NodeId,
        tail: NodeId,
        shape: &[usize],
        leading: usize,
    ) -> Result<Epilogue, Stop> {
        let node = &self.graph.nodes[tail];
        self.refined(shape.to_vec(), leading, &self.inlined_inputs(tail), |space, _| {
            let index = node_index(&node.shape, space)?;
            let mut emitter = Emitter::new(self, space, tail, Some((core, index.clone())));
            let value = emitter.compute(tail, &index)?;
            if emitter.program.instrs.len() > 40 {
                return Err(Stop::NoTail(core));
            }
            let store = Store { buffer: self.buffer_of[&tail], view: View::dense(space), value };
            Ok(Epilogue {
                shape: space.to_vec(),
                program: emitter.program,
                stores: vec![store],
                ..Default::default()
            })
        })
    }

    fn matmul(&self, core: NodeId, tail: NodeId) -> Result<Body, Stop> {
        let node = &self.graph.nodes[core];
        let rank = node.shape.len();
        let k = *self.graph.nodes[node.inputs[0]].shape.last().unwrap_or(&1);
        let (m, n) = (node.shape[rank - 2], node.shape[rank - 1]);
        let batch_dims: Vec<usize> = if rank == 2 { vec![1] } else { node.shape[..rank - 2].to_vec() };
        let with = |tail: [usize; 2]| [&batch_dims[..], &tail[..]].concat();
        let leading = batch_dims.len();
        Ok(Body::MatMul {
            batch: batch_dims.iter().product(),
            m,
            n,
            k,
            lhs: self.operand(node.inputs[0], &with([m, k]), leading)?,
            rhs: self.operand(node.inputs[1], &with([k, n]), leading)?,
            epilogue: self.epilogue(core, tail, &with([m, n]), leading)?,
        })
    }

    fn convolution(&self, core: NodeId, tail: NodeId) -> Result<(String, Body), Stop> {
        let node = &self.graph.nodes[core];
        let shape = |id: NodeId| &self.graph.nodes[id].shape[..];
        let (a, b) = (node.inputs[0], node.inputs[1]);
        let (kind, conv, x, y, weight) = match &node.op {
            Op::Convolution(conv) => (ConvKind::Forward, conv, shape(a), &node.shape[..], shape(b)),
            Op::ConvolutionInputGrad(conv) => {
                (ConvKind::InputGrad, conv, &node.shape[..], shape(a), shape(b))
            }
            Op::ConvolutionWeightGrad(conv) => {
                (ConvKind::WeightGrad, conv, shape(a), shape(b), &node.shape[..])
            }
            _ => return Err(Stop::Materialise(vec![])),
        };
        let geometry = ConvGeometry {
            batch: x[0],
            height: x[1],
            width: x[2],
            in_channels: x[3],
            out_channels: weight[0],
            kernel: [weight[2], weight[3]],
            out_height: y[1],
            out_width: y[2],
            conv: *conv,
        };
        let lhs = self.operand(a, shape(a), 1)?;
        let rhs = match kind {
            ConvKind::WeightGrad => self.operand(b, shape(b), 1)?,
            _ => self.plain_operand(b)?,
        };
        let leading = if kind == ConvKind::WeightGrad { 0 } else { 1 };
        let epilogue = self.epilogue(core, tail, &node.shape, leading)?;
        let name = match kind {
            ConvKind::Forward => "forward",
            ConvKind::InputGrad => "input grad",
            ConvKind::WeightGrad => "weight grad",
        };
        let prologue = if lhs.as_buffer().is_none() { "fused " } else { "" };
        let label = format!("{prologue}conv{}x{} {name}", geometry.kernel[0], geometry.kernel[1]);
        Ok((label, Body::Convolution { kind, geometry, lhs, rhs, epilogue }))
    }

    fn pool(&self, core: NodeId) -> Result<Body, Stop> {
        let node = &self.graph.nodes[core];
        let shape = |id: NodeId| &self.graph.nodes[id].shape[..];
        let (kind, window, x, y) = match &node.op {
            Op::MaxPoolGather(w) => (PoolKind::MaxGather, w, shape(node.inputs[0]), &node.shape[..]),
            Op::MaxPoolScatter(w) => (PoolKind::MaxScatter, w, &node.shape[..], shape(node.inputs[1])),
            Op::AveragePool(w) => (PoolKind::Average, w, shape(node.inputs[0]), &node.shape[..]),
            Op::AveragePoolTransposed(w) => {
                (PoolKind::AverageTransposed, w, &node.shape[..], shape(node.inputs[0]))
            }
            _ => return Err(Stop::Materialise(vec![])),
        };
        let geometry = PoolGeometry {
            batch: x[0],
            height: x[1],
            width: x[2],
            channels: x[3],
            out_height: y[1],
            out_width: y[2],
            window: *window,
        };
        let mut inputs = Vec::new();
        for &input in &node.inputs {
            let operand = self.plain_operand(input)?;
            inputs.extend(operand.as_buffer());
        }
        Ok(Body::Pool { kind, geometry, inputs, output: self.buffer_of[&core] })
    }

    /// The nodes directly below `id` that are computed in place, for giving them memory instead. If
    /// all are in memory already there is nothing to give.
    fn inlined_inputs(&self, id: NodeId) -> Vec<NodeId> {
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
    fn limit_buffers(&self, root: NodeId, program: &Program, stores: usize) -> Result<(), Stop> {
        let buffers: BTreeSet<BufferId> = program.loads().collect();
        if buffers.len() + stores <= self.options.max_buffers && program.instrs.len() <= 256 {
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

/// Whether an expression is cheap enough to evaluate as an operand is loaded (a kernel may load an
/// element several times).
fn is_light(program: &Program) -> bool {
    let plain = program.instrs.iter().all(|instr| match instr {
        Instr::Load { view, .. } => view.bounds.is_empty(),
        Instr::InBounds(_) | Instr::Index(_) | Instr::Random { .. } => false,
        Instr::Unary(op, _) => {
            use autograd::tensor::UnaryOp::*;
            matches!(op, Neg | Relu | Abs)
        }
        _ => true,
    });
    plain && program.instrs.len() <= 16
}

/// The index of a node of `shape` in an iteration space that is `shape` with some dims split.
fn node_index(shape: &[usize], space: &[usize]) -> Result<Index, Stop> {
    let identity = Index::identity(space);
    if shape == space {
        return Ok(identity);
    }
    identity.reshape(space, shape, space).map_err(Stop::from)
}

impl From<Obstacle> for Stop {
    fn from(obstacle: Obstacle) -> Stop {
        match obstacle {
            Obstacle::Refine { dim, inner } => Stop::Refine { dim, inner },
            Obstacle::Opaque => Stop::Materialise(vec![]),
        }
    }
}

/// For each convolution, product and fold whose result only feeds a chain of elementwise nodes: the
/// last node of that chain. The kernel stores that node instead of the raw result.
fn find_tails(
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
                axes.contains(&(input.len() - 1)) && input.len() <= 3
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

/// Builds one program.
struct Emitter<'a> {
    lowering: &'a Lowering<'a>,
    space: &'a [usize],
    root: NodeId,
    /// The heavy node whose result is at hand, and its index.
    core: Option<(NodeId, Index)>,
    program: Program,
    memo: HashMap<NodeId, Vec<(Index, Reg)>>,
}

impl<'a> Emitter<'a> {
    fn new(
        lowering: &'a Lowering<'a>,
        space: &'a [usize],
        root: NodeId,
        core: Option<(NodeId, Index)>,
    ) -> Self {
        Emitter { lowering, space, root, core, program: Program::default(), memo: HashMap::new() }
    }

    fn push(&mut self, instr: Instr) -> Reg {
        self.program.push(instr)
    }

    /// The value of a node at an index: from memory if it has any, else computed here.
    fn value(&mut self, id: NodeId, index: &Index) -> Result<Reg, Stop> {
        if self.core.as_ref().is_some_and(|(core, at)| *core == id && at == index) {
            return Ok(self.push(Instr::Accumulator(0)));
        }
        if self.lowering.partition.materialised[id] && id != self.root {
            let buffer = self.lowering.buffer_of[&id];
            let view = index.flat(&self.lowering.graph.nodes[id].shape, self.space);
            return Ok(self.push(Instr::Load { buffer, view }));
        }
        self.compute(id, index)
    }

    fn compute(&mut self, id: NodeId, index: &Index) -> Result<Reg, Stop> {
        let known = self.memo.get(&id).and_then(|list| list.iter().find(|(at, _)| at == index));
        if let Some((_, reg)) = known {
            return Ok(*reg);
        }
        let reg = self.compute_new(id, index)?;
        self.memo.entry(id).or_default().push((index.clone(), reg));
        Ok(reg)
    }

    fn compute_new(&mut self, id: NodeId, index: &Index) -> Result<Reg, Stop> {
        let graph = self.lowering.graph;
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
        let graph = self.lowering.graph;
        let node = &graph.nodes[id];
        let input = node.inputs[0];
        if self.lowering.partition.materialised[input] {
            let view = index.flat(&node.shape, self.space);
            return Ok(self.push(Instr::Load { buffer: self.lowering.buffer_of[&input], view }));
        }
        match index.reshape(&node.shape, &graph.nodes[input].shape, self.space) {
            Ok(below) => self.value(input, &below),
            Err(Obstacle::Refine { dim, inner }) => Err(Stop::Refine { dim, inner }),
            Err(Obstacle::Opaque) => Err(Stop::Materialise(vec![input])),
        }
    }
}

/// A kernel that copies one buffer to another of the same size.
pub fn copy_kernel(buffers: &[Buffer], from: BufferId, to: BufferId) -> Kernel {
    let shape = vec![buffers[from].len()];
    let view = View::dense(&shape);
    let mut program = Program::default();
    let value = program.push(Instr::Load { buffer: from, view: view.clone() });
    Kernel {
        label: "copy".into(),
        body: Body::Map { shape, program, stores: vec![Store { buffer: to, view, value }] },
    }
}

fn describe_map(body: &Body, last: &'static str) -> String {
    match body {
        Body::Map { program, .. } => {
            let arithmetic = program
                .instrs
                .iter()
                .filter(|i| matches!(i, Instr::Unary(..) | Instr::Binary(..) | Instr::Select { .. }))
                .count();
            if arithmetic > 1 { format!("map {last} ({arithmetic} ops)") } else { format!("map {last}") }
        }
        _ => last.into(),
    }
}
