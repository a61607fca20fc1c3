//! What a schedule is made of: numbered buffers, and kernels that read and write them.
//!
//! This is the whole contract between the engine and a device. A device needs to know five kinds of
//! kernel ([`Body`]) and one small expression language ([`Program`]); everything elementwise that
//! surrounds a kernel (its prologue and epilogue) arrives as such a program.
//!
//! Every buffer holds `f32`. Integer tensors (labels, indices) are stored as whole numbers in `f32`,
//! which is exact below 2^24; the language checks the types before a schedule exists.

use std::sync::Arc;

use autograd::tensor::{BinaryOp, Conv2d, UnaryOp, Variable, Window};

/// Index of a buffer in [`Schedule::buffers`].
pub type BufferId = usize;
/// Index of an instruction in [`Program::instrs`]; an instruction's result is named by its position.
pub type Reg = usize;

/// A compiled step, still independent of any device.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    pub buffers: Vec<Buffer>,
    /// Kernels whose results depend only on constants and on state this step does not update
    /// (a frozen teacher's folded weights): run once, and again only after such state was written.
    pub prepare: Vec<Kernel>,
    /// The kernels of one call, in order.
    pub kernels: Vec<Kernel>,
    /// Size in elements of each reusable slot that temporaries live in, see [`Role::Temporary`].
    pub slots: Vec<usize>,
    /// Named results, in the order they were asked for. The buffer may have any role.
    pub outputs: Vec<(String, BufferId)>,
    /// The state that `kernels` overwrite.
    pub updated: Vec<BufferId>,
}

/// One tensor in memory, dense and row-major.
#[derive(Clone, Debug)]
pub struct Buffer {
    pub shape: Vec<usize>,
    pub role: Role,
    /// A name for tables and graphs: the state's or input's name, else what produced it.
    pub label: String,
}

impl Buffer {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
    /// Whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where a buffer's contents come from and how long they live.
#[derive(Clone, Debug)]
pub enum Role {
    /// Written by the caller before every call.
    Input { name: String, integer: bool },
    /// Lives on the device between calls and is shared by all steps that name it.
    State(Variable),
    /// Known when the schedule was made.
    Constant(Arc<Vec<f32>>),
    /// Written by [`Schedule::prepare`]; lives as long as the compiled step.
    Prepared,
    /// Lives in slot number `slot` (an index into [`Schedule::slots`]) between the first kernel that
    /// writes it and the last that reads it. Different temporaries share slots over time.
    Temporary { slot: usize },
    /// Written by a call and read by the caller; has memory of its own.
    Output,
}

/// One launch.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// A short name such as `conv3x3 forward + relu`.
    pub label: String,
    pub body: Body,
}

/// The six kinds of kernel.
#[derive(Clone, Debug)]
pub enum Body {
    /// Elementwise over `shape`: evaluates `program` at every index and stores. All loads of an index
    /// happen before its stores, so a store may overwrite what the same index loaded.
    Map { shape: Vec<usize>, program: Program, stores: Vec<Store> },
    /// Maps over spaces of their own as one launch, in no order: the new values of all parameters. No
    /// part reads or writes what another part writes. (Parts may write to one buffer, at elements of
    /// their own: the parts of a concatenation.)
    Maps { parts: Vec<MapPart> },
    /// For every index of `shape[..outer]`, folds the values that `program` computes over all of
    /// `shape[outer..]`, then evaluates `finish` (over the outer dims, with
    /// [`Instr::Accumulator`]) and stores (views over the outer dims).
    Reduce {
        shape: Vec<usize>,
        outer: usize,
        program: Program,
        accumulators: Vec<(ReduceKind, Reg)>,
        finish: Program,
        stores: Vec<Store>,
    },
    /// Batched matrix product: `[batch, m, k] x [batch, k, n] -> [batch, m, n]`. Operand shapes are
    /// exactly `[batch, m, k]` and `[batch, k, n]`; the epilogue's shape is `[batch, m, n]`.
    MatMul { batch: usize, m: usize, n: usize, k: usize, lhs: Operand, rhs: Operand, epilogue: Epilogue },
    /// A 2-d convolution or one of its two gradients; see [`ConvKind`] for the operands.
    Convolution { kind: ConvKind, geometry: ConvGeometry, lhs: Operand, rhs: Operand, epilogue: Epilogue },
    /// Pooling or one of its gradients; operands are dense buffers; see [`PoolKind`].
    Pool { kind: PoolKind, geometry: PoolGeometry, inputs: Vec<BufferId>, output: BufferId },
}

/// One of several maps in a launch; see [`Body::Map`].
#[derive(Clone, Debug, PartialEq)]
pub struct MapPart {
    pub shape: Vec<usize>,
    pub program: Program,
    pub stores: Vec<Store>,
}

/// A straight-line expression over an iteration space. Instruction `i` may use only results `< i`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    pub instrs: Vec<Instr>,
}

/// One step of a [`Program`]; all values are `f32`, truth is 1.0 or 0.0.
#[derive(Clone, Debug, PartialEq)]
pub enum Instr {
    /// The element of `buffer` at `view`, or 0 where one of the view's bounds fails.
    Load {
        buffer: BufferId,
        view: View,
    },
    Constant(f32),
    /// The value of the affine index itself (an iota).
    Index(View),
    /// 1 where every bound of the view holds, else 0 (strides and offset are not used).
    InBounds(View),
    Unary(UnaryOp, Reg),
    Binary(BinaryOp, Reg, Reg),
    /// `condition != 0 ? yes : no`.
    Select {
        condition: Reg,
        yes: Reg,
        no: Reg,
    },
    /// Uniform in [0, 1), a pure function of (seed, step, stream, index): see [`autograd::random`].
    Random {
        stream: u32,
        index: View,
        seed: Reg,
        step: Reg,
    },
    /// In an epilogue or `finish`: what the kernel's core computed (accumulator number `0` for
    /// convolution and matmul).
    Accumulator(usize),
}

/// An affine map from an iteration index to an element: `offset + sum(strides[d] * index[d])`,
/// with one stride per iteration dim.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct View {
    pub offset: i64,
    pub strides: Vec<i64>,
    /// All must hold for the element to exist; outside, a load gives 0 and must not touch memory.
    pub bounds: Vec<Bound>,
}

/// `0 <= offset + sum(strides[d] * index[d]) < extent`.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    pub offset: i64,
    pub strides: Vec<i64>,
    pub extent: i64,
}

impl View {
    /// The dense row-major view of a tensor of this shape by its own index.
    pub fn dense(shape: &[usize]) -> View {
        let mut strides = vec![0; shape.len()];
        let mut step = 1i64;
        for d in (0..shape.len()).rev() {
            if shape[d] > 1 {
                strides[d] = step;
            }
            step *= shape[d] as i64;
        }
        View { offset: 0, strides, bounds: Vec::new() }
    }

    /// Whether this is [`View::dense`] of `shape`.
    pub fn is_dense(&self, shape: &[usize]) -> bool {
        *self == View::dense(shape)
    }
}

/// Writes register `value` to `buffer` at `view` (which has no bounds).
#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    pub buffer: BufferId,
    pub view: View,
    pub value: Reg,
}

/// How a reduction folds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceKind {
    Sum,
    /// NaN if any value is NaN.
    Max,
    /// The biased variance `mean((v - mean(v))^2)`, computed stably (two passes, or Welford's
    /// updates merged by Chan's formula), never as `E[v^2] - E[v]^2`.
    Variance,
    /// The row-major position within `shape[outer..]` of the largest value; ties go to the lowest
    /// position; the first NaN counts as the largest.
    ArgMax,
}

/// An operand that a kernel computes as it loads it (a prologue).
#[derive(Clone, Debug, PartialEq)]
pub struct Operand {
    /// The operand's own shape, with one freedom: the first dim (images or batch) may be split into
    /// several leading dims whose product is the original (two views of B images: `[2, B, H, W, C]`).
    pub shape: Vec<usize>,
    pub program: Program,
    pub value: Reg,
}

impl Operand {
    /// The buffer, when the operand is nothing but a dense load of it, or of its first elements.
    pub fn as_buffer(&self) -> Option<BufferId> {
        match &self.program.instrs[..] {
            [Instr::Load { buffer, view }] if view.is_dense(&self.shape) => Some(*buffer),
            _ => None,
        }
    }
}

/// What happens to a kernel's result before and as it is stored.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Epilogue {
    /// The result's shape; as in [`Operand::shape`] its first dim may be split.
    pub shape: Vec<usize>,
    pub program: Program,
    pub stores: Vec<Store>,
    /// Sums over all positions of an image tensor, per channel: batch norm's statistics and the sums
    /// its gradient needs, made while the tile is still in cache. Only on convolution forward and
    /// input gradient. Each output is dense `[shape[..kept]..., channels]`, that is: the leading
    /// `kept` dims and the last dim are kept, all others are folded.
    pub channel_reductions: Vec<ChannelReduction>,
    /// How many leading dims of `shape` the channel reductions keep (0, or 1 for views).
    pub kept: usize,
}

/// One per-channel fold of an epilogue register. Kinds are `Sum` and `Variance` only.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelReduction {
    pub kind: ReduceKind,
    pub value: Reg,
    pub output: BufferId,
}

/// The three uses of a convolution. Images are `[N, H, W, C]`, weights `[Cout, Cin/groups, kh, kw]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConvKind {
    /// lhs = x `[N,H,W,Cin]`, rhs = weight, result `[N,Ho,Wo,Cout]`.
    Forward,
    /// lhs = dy `[N,Ho,Wo,Cout]`, rhs = weight, result dx `[N,H,W,Cin]`.
    InputGrad,
    /// lhs = x, rhs = dy, result dw `[Cout,Cin/groups,kh,kw]`. Its epilogue only stores.
    WeightGrad,
}

/// Sizes of a convolution, the same for all three uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConvGeometry {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub in_channels: usize,
    pub out_channels: usize,
    pub kernel: [usize; 2],
    pub out_height: usize,
    pub out_width: usize,
    pub conv: Conv2d,
}

impl ConvGeometry {
    /// Floating point operations of the direct algorithm (two a multiply-add), for any of the three uses.
    pub fn flops(&self) -> u64 {
        let [kh, kw] = self.kernel;
        2 * (self.batch * self.out_height * self.out_width * self.out_channels) as u64
            * (self.in_channels / self.conv.groups * kh * kw) as u64
    }
}

/// What a pooling kernel computes. Images are `[N, H, W, C]`; ties of a maximum go to the first
/// position in row-major window order; padding never wins a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// inputs = (x, source), both `[N,H,W,C]`: output `[N,Ho,Wo,C]` is `source` at the position of
    /// each window's maximum of `x`. Max pooling is `source = x`.
    MaxGather,
    /// inputs = (x `[N,H,W,C]`, dy `[N,Ho,Wo,C]`): output `[N,H,W,C]` adds each `dy` at the position
    /// of its window's maximum of `x`.
    MaxScatter,
    /// inputs = (x,): output the mean of each window; see [`Window::count_padding`].
    Average,
    /// inputs = (dy `[N,Ho,Wo,C]`,): output `[N,H,W,C]`, the transpose of `Average`.
    AverageTransposed,
}

/// Sizes of a pooling kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolGeometry {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub out_height: usize,
    pub out_width: usize,
    pub window: Window,
}

impl Program {
    /// Appends an instruction, or finds it if it is there already.
    pub fn push(&mut self, instr: Instr) -> Reg {
        if let Some(reg) = self.instrs.iter().position(|i| *i == instr) {
            return reg;
        }
        self.instrs.push(instr);
        self.instrs.len() - 1
    }

    /// The buffers it loads (with repeats).
    pub fn loads(&self) -> impl Iterator<Item = BufferId> + '_ {
        self.instrs.iter().filter_map(|i| match i {
            Instr::Load { buffer, .. } => Some(*buffer),
            _ => None,
        })
    }
}

impl Kernel {
    /// All programs of the kernel.
    pub fn programs(&self) -> Vec<&Program> {
        match &self.body {
            Body::Map { program, .. } => vec![program],
            Body::Maps { parts } => parts.iter().map(|part| &part.program).collect(),
            Body::Reduce { program, finish, .. } => vec![program, finish],
            Body::MatMul { lhs, rhs, epilogue, .. } | Body::Convolution { lhs, rhs, epilogue, .. } => {
                vec![&lhs.program, &rhs.program, &epilogue.program]
            }
            Body::Pool { .. } => vec![],
        }
    }

    fn programs_mut(&mut self) -> Vec<&mut Program> {
        match &mut self.body {
            Body::Map { program, .. } => vec![program],
            Body::Maps { parts } => parts.iter_mut().map(|part| &mut part.program).collect(),
            Body::Reduce { program, finish, .. } => vec![program, finish],
            Body::MatMul { lhs, rhs, epilogue, .. } | Body::Convolution { lhs, rhs, epilogue, .. } => {
                vec![&mut lhs.program, &mut rhs.program, &mut epilogue.program]
            }
            Body::Pool { .. } => vec![],
        }
    }

    /// Buffers it reads, each once, ascending.
    pub fn reads(&self) -> Vec<BufferId> {
        let mut reads: Vec<BufferId> = self.programs().iter().flat_map(|p| p.loads()).collect();
        if let Body::Pool { inputs, .. } = &self.body {
            reads.extend(inputs);
        }
        reads.sort_unstable();
        reads.dedup();
        reads
    }

    /// Buffers it writes, each once, ascending.
    pub fn writes(&self) -> Vec<BufferId> {
        let mut writes: Vec<BufferId> = match &self.body {
            Body::Map { stores, .. } | Body::Reduce { stores, .. } => {
                stores.iter().map(|s| s.buffer).collect()
            }
            Body::Maps { parts } => parts.iter().flat_map(|p| &p.stores).map(|s| s.buffer).collect(),
            Body::MatMul { epilogue, .. } | Body::Convolution { epilogue, .. } => {
                let sums = epilogue.channel_reductions.iter().map(|r| r.output);
                epilogue.stores.iter().map(|s| s.buffer).chain(sums).collect()
            }
            Body::Pool { output, .. } => vec![*output],
        };
        writes.sort_unstable();
        writes.dedup();
        writes
    }

    /// All buffers it touches, each once.
    pub fn buffers(&self) -> Vec<BufferId> {
        let mut all = [self.reads(), self.writes()].concat();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Renames a buffer everywhere.
    pub(crate) fn rename(&mut self, from: BufferId, to: BufferId) {
        for program in self.programs_mut() {
            for instr in &mut program.instrs {
                if let Instr::Load { buffer, .. } = instr
                    && *buffer == from
                {
                    *buffer = to;
                }
            }
        }
        let swap = |b: &mut BufferId| {
            if *b == from {
                *b = to
            }
        };
        match &mut self.body {
            Body::Map { stores, .. } | Body::Reduce { stores, .. } => {
                stores.iter_mut().for_each(|s| swap(&mut s.buffer))
            }
            Body::Maps { parts } => {
                parts.iter_mut().flat_map(|p| &mut p.stores).for_each(|s| swap(&mut s.buffer))
            }
            Body::MatMul { epilogue, .. } | Body::Convolution { epilogue, .. } => {
                epilogue.stores.iter_mut().for_each(|s| swap(&mut s.buffer));
                epilogue.channel_reductions.iter_mut().for_each(|r| swap(&mut r.output));
            }
            Body::Pool { inputs, output, .. } => {
                inputs.iter_mut().for_each(swap);
                swap(output);
            }
        }
    }
}
