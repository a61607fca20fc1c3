//! Kernels of folds, products, convolutions and pools, with what is fused before and after them.

use autograd::tensor::{Op, ReduceOp};

use super::context::{ALL_DIMS, Context, Stop, node_index};
use super::expression::Emitter;
use super::index::{Affine, Index};
use crate::graph::NodeId;
use crate::ir::{
    Body, ConvGeometry, ConvKind, Epilogue, Instr, Kernel, Operand, PoolGeometry, PoolKind, Program,
    ReduceKind, Store,
};

/// Most instructions of what a kernel does with its result before it stores it.
const LONGEST_EPILOGUE: usize = 40;
/// Most instructions of what a kernel does with an element that it loads.
const LONGEST_PROLOGUE: usize = 16;

impl Context<'_> {
    pub fn heavy(&self, core: NodeId, tail: NodeId) -> Result<Kernel, Stop> {
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
            Op::AllReduce(transfer) => {
                let operand = self.plain_operand(node.inputs[0])?;
                let input = operand.as_buffer().ok_or(Stop::Materialise(vec![node.inputs[0]]))?;
                let output = self.buffer_of[&core];
                (node.op.name().to_string(), Body::AllReduce { transfer: *transfer, input, output })
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
        let shape = self.shape(input);
        let kept: Vec<usize> = (0..shape.len()).filter(|d| !axes.contains(d)).collect();
        let order: Vec<usize> = kept.iter().chain(axes).copied().collect();
        let space: Vec<usize> = order.iter().map(|&d| shape[d]).collect();
        let fallback = [vec![input], self.inlined_inputs(tail)].concat();
        let fallback: Vec<NodeId> =
            fallback.into_iter().filter(|&n| !self.partition.materialised[n]).collect();
        let outer_size: usize = kept.iter().map(|&d| shape[d]).product();
        self.refined(space, ALL_DIMS, &fallback, |space| {
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
            let mut result = Index { dims: vec![Affine::zero(outer); shape.len()], bounds: vec![] };
            kept.iter().enumerate().for_each(|(i, &d)| result.dims[d] = kept_index.dims[i].clone());
            let mut finish = Emitter::new(self, outer_space, tail, Some((core, result.clone())));
            let stored = finish.compute(tail, &result)?;
            let store = Store::dense(self.buffer_of[&tail], outer_space, stored);
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
        let operand = self.refined(shape.to_vec(), leading, &[id], |space| {
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
        self.refined(shape.to_vec(), leading, &self.inlined_inputs(tail), |space| {
            let index = node_index(&node.shape, space)?;
            let mut emitter = Emitter::new(self, space, tail, Some((core, index.clone())));
            let value = emitter.compute(tail, &index)?;
            if emitter.program.instrs.len() > LONGEST_EPILOGUE {
                return Err(Stop::NoTail(core));
            }
            let store = Store::dense(self.buffer_of[&tail], space, value);
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
        let shape = |id: NodeId| self.shape(id);
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
        let shape = |id: NodeId| self.shape(id);
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
}

/// Whether an expression is cheap enough to evaluate as an operand is loaded (a kernel may load an
/// element several times).
fn is_light(program: &Program) -> bool {
    let plain = program.instrs.iter().all(|instr| match instr {
        Instr::Load { view, .. } => view.bounds.is_empty(),
        Instr::InBounds(_) | Instr::Index(_) | Instr::Random { .. } => false,
        Instr::Unary(op, _) => !op.is_dear(),
        _ => true,
    });
    plain && program.instrs.len() <= LONGEST_PROLOGUE
}
