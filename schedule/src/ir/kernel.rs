//! Kernels: one launch each.

use autograd::tensor::Transfer;

use super::geometry::{ConvGeometry, ConvKind, PoolGeometry, PoolKind};
use super::program::{BufferId, Instr, Program, Reg, Store};

/// One launch.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// A short name such as `conv3x3 forward + relu`.
    pub label: String,
    /// What it computes.
    pub body: Body,
}

/// The kinds of kernel: five that compute, and one that waits for other processes.
#[derive(Clone, Debug)]
pub enum Body {
    /// Elementwise, in one launch: most often one part; several, each over a space of its own and in no
    /// order, for the new values of all parameters. No part reads or writes what another part writes.
    /// (Parts may write to one buffer, at elements of their own: the parts of a concatenation.)
    Map {
        /// At least one.
        parts: Vec<Map>,
    },
    /// For every index of `shape[..outer]`, folds the values that `program` computes over all of
    /// `shape[outer..]`, then evaluates `finish` (over the outer dims, with
    /// [`Instr::Accumulator`]) and stores (views over the outer dims).
    Reduce {
        /// The space of `program`.
        shape: Vec<usize>,
        /// How many of its dims, from the first on, are kept.
        outer: usize,
        /// The values to fold.
        program: Program,
        /// The folds, each of a register of `program`.
        accumulators: Vec<(ReduceKind, Reg)>,
        /// What is computed of the folded values.
        finish: Program,
        /// Where registers of `finish` go.
        stores: Vec<Store>,
    },
    /// Batched matrix product: `[batch, m, k] x [batch, k, n] -> [batch, m, n]`. The shapes
    /// of the operands and of the epilogue are exactly these.
    MatMul {
        /// Products.
        batch: usize,
        /// Rows of the result.
        m: usize,
        /// Columns of the result.
        n: usize,
        /// Elements of a row of `lhs` and of a column of `rhs`.
        k: usize,
        /// `[batch, m, k]`
        lhs: Operand,
        /// `[batch, k, n]`
        rhs: Operand,
        /// `[batch, m, n]`
        epilogue: Epilogue,
    },
    /// A 2-d convolution or one of its two gradients; see [`ConvKind`] for the operands.
    Convolution {
        /// Which of the three.
        kind: ConvKind,
        /// Sizes of x, weight and y.
        geometry: ConvGeometry,
        /// x, or dy of an input gradient.
        lhs: Operand,
        /// The weight, or dy of a weight gradient.
        rhs: Operand,
        /// What happens to the result.
        epilogue: Epilogue,
    },
    /// Pooling or one of its gradients; operands are dense buffers; see [`PoolKind`].
    Pool {
        /// What is computed of each window.
        kind: PoolKind,
        /// Sizes of x, y and the window.
        geometry: PoolGeometry,
        /// As [`PoolKind`] lists them.
        inputs: Vec<BufferId>,
        /// Dense, of the shape that [`PoolKind`] gives.
        output: BufferId,
    },
    /// The sum of `input` over all processes, by a [`Communicator`](crate::Communicator). A device reads the
    /// input where the kernel stands, and may write the output any time before its first reader.
    AllReduce {
        /// How the numbers travel.
        transfer: Transfer,
        /// What this process adds.
        input: BufferId,
        /// The sum, as long as the input.
        output: BufferId,
    },
}

/// Evaluates `program` at every index of `shape` and stores. All loads of an index happen before its
/// stores, so a store may overwrite what the same index loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// The space.
    pub shape: Vec<usize>,
    /// What is computed at each index.
    pub program: Program,
    /// Where registers of `program` go.
    pub stores: Vec<Store>,
}

/// How a reduction folds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceKind {
    /// The sum, always in the same order.
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
    /// What makes an element of the operand.
    pub program: Program,
    /// The register that holds it.
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
    /// What is computed of an element of the result, the accumulator.
    pub program: Program,
    /// Where registers of `program` go.
    pub stores: Vec<Store>,
    /// A fold over all positions of an image tensor, per channel: batch norm's statistics and the sums
    /// its gradient needs, made while the tile is still in cache. Only on convolution forward and
    /// input gradient.
    pub fold: Option<ChannelFold>,
}

/// Folds registers of an epilogue over its `shape[kept..]` but for the last dim, the channels; then evaluates `finish`
/// over the [rest](ChannelFold::space), as [`Body::Reduce`] does.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelFold {
    /// How many leading dims are kept: 0, or 1 for views.
    pub kept: usize,
    /// The folds, sums and variances only, each of a register of the epilogue's program.
    pub accumulators: Vec<(ReduceKind, Reg)>,
    /// What is computed of the folded values.
    pub finish: Program,
    /// Where registers of `finish` go.
    pub stores: Vec<Store>,
}

impl ChannelFold {
    /// The space of `finish` where the epilogue's shape is this: the kept dims, and the channels.
    pub fn space(&self, shape: &[usize]) -> Vec<usize> {
        [&shape[..self.kept], &shape[shape.len() - 1..]].concat()
    }
}

impl Body {
    /// A map of one part.
    pub fn map(shape: Vec<usize>, program: Program, stores: Vec<Store>) -> Body {
        Body::Map { parts: vec![Map { shape, program, stores }] }
    }
}

impl Kernel {
    /// Copies the `len` elements of one buffer to another.
    pub fn copy(from: BufferId, to: BufferId, len: usize) -> Kernel {
        let (shape, program) = (vec![len], Program::load(from, &[len]));
        let stores = vec![Store::dense(to, &shape, 0)];
        Kernel { label: "copy".into(), body: Body::map(shape, program, stores) }
    }

    /// All programs of the kernel.
    pub fn programs(&self) -> Vec<&Program> {
        match &self.body {
            Body::Map { parts } => parts.iter().map(|part| &part.program).collect(),
            Body::Reduce { program, finish, .. } => vec![program, finish],
            Body::MatMul { lhs, rhs, epilogue, .. } | Body::Convolution { lhs, rhs, epilogue, .. } => {
                let finish = epilogue.fold.iter().map(|fold| &fold.finish);
                [&lhs.program, &rhs.program, &epilogue.program].into_iter().chain(finish).collect()
            }
            Body::Pool { .. } | Body::AllReduce { .. } => vec![],
        }
    }

    /// Buffers it reads, each once, ascending.
    pub fn reads(&self) -> Vec<BufferId> {
        let mut reads: Vec<BufferId> = self.programs().iter().flat_map(|p| p.buffers()).collect();
        match &self.body {
            Body::Pool { inputs, .. } => reads.extend(inputs),
            Body::AllReduce { input, .. } => reads.push(*input),
            _ => {}
        }
        reads.sort_unstable();
        reads.dedup();
        reads
    }

    /// Buffers it writes, each once, ascending.
    pub fn writes(&self) -> Vec<BufferId> {
        let mut writes: Vec<BufferId> = match &self.body {
            Body::Map { parts } => parts.iter().flat_map(|p| &p.stores).map(|s| s.buffer).collect(),
            Body::Reduce { stores, .. } => stores.iter().map(|s| s.buffer).collect(),
            Body::MatMul { epilogue, .. } | Body::Convolution { epilogue, .. } => {
                let folded = epilogue.fold.iter().flat_map(|fold| &fold.stores);
                epilogue.stores.iter().chain(folded).map(|s| s.buffer).collect()
            }
            Body::Pool { output, .. } | Body::AllReduce { output, .. } => vec![*output],
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

    /// Every mention of a buffer, to be renamed.
    pub(crate) fn mentions(&mut self) -> Vec<&mut BufferId> {
        fn of<'a>(programs: Vec<&'a mut Program>, stores: &'a mut [Store]) -> Vec<&'a mut BufferId> {
            let instrs = programs.into_iter().flat_map(|program| &mut program.instrs);
            let loads = instrs.filter_map(|instr| match instr {
                Instr::Load { buffer, .. } => Some(buffer),
                _ => None,
            });
            loads.chain(stores.iter_mut().map(|store| &mut store.buffer)).collect()
        }
        match &mut self.body {
            Body::Map { parts } => {
                parts.iter_mut().flat_map(|part| of(vec![&mut part.program], &mut part.stores)).collect()
            }
            Body::Reduce { program, finish, stores, .. } => of(vec![program, finish], stores),
            Body::MatMul { lhs, rhs, epilogue, .. } | Body::Convolution { lhs, rhs, epilogue, .. } => {
                let programs = vec![&mut lhs.program, &mut rhs.program, &mut epilogue.program];
                let folded = epilogue.fold.iter_mut();
                let folded = folded.flat_map(|fold| of(vec![&mut fold.finish], &mut fold.stores));
                of(programs, &mut epilogue.stores).into_iter().chain(folded).collect()
            }
            Body::Pool { inputs, output, .. } => inputs.iter_mut().chain([output]).collect(),
            Body::AllReduce { input, output, .. } => vec![input, output],
        }
    }
}
