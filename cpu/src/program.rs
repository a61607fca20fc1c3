//! Programs that are compiled for evaluation in blocks: what the compiler makes and the evaluation reads.

use autograd::tensor::{BinaryOp, UnaryOp};
use schedule::{BufferId, Program, Reg, Store, View};

use crate::launch::Compile;
use crate::space::Tiling;

/// What a program reads or writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Array {
    Buffer(BufferId),
    /// An array given at every run, by number.
    External(usize),
}

/// A value to store.
#[derive(Clone, Debug)]
pub struct Output {
    pub array: Array,
    pub view: View,
    pub value: Reg,
}

impl From<&Store> for Output {
    fn from(store: &Store) -> Output {
        Output { array: Array::Buffer(store.buffer), view: store.view.clone(), value: store.value }
    }
}

/// What to compile.
#[derive(Clone, Copy)]
pub struct Spec<'a> {
    /// Iteration dims in the order they are walked; all views have one stride for each.
    pub shape: &'a [usize],
    /// A class for each dim: only dims of one class are merged. Those after the list's end are of class 0.
    pub classes: &'a [u8],
    /// [`Instr::Accumulator`] number `i` reads [`Array::External`] number `i`, densely.
    pub program: &'a Program,
    pub outputs: &'a [Output],
    /// Values that the caller reads after each block.
    pub results: &'a [Reg],
    /// Runs start and end at multiples of this many elements (0: only at the ends of the space).
    pub granularity: usize,
    /// Which memory each buffer lies in: buffers with equal entries may overlap.
    pub regions: &'a [usize],
}

impl<'a> Spec<'a> {
    /// A program without outputs and results.
    pub fn new(compile: &'a Compile, shape: &'a [usize], program: &'a Program) -> Spec<'a> {
        let regions = &compile.regions;
        Spec { shape, classes: &[], program, outputs: &[], results: &[], granularity: 0, regions }
    }
}

/// Index of a value in a block's table of addresses.
pub type Slot = usize;

/// One instruction on a block.
#[derive(Clone, Debug, PartialEq)]
pub enum BlockInstr {
    Fill { value: f32, out: Slot },
    Unary { op: UnaryOp, a: Slot, out: Slot },
    Binary { op: BinaryOp, a: Slot, b: Slot, out: Slot },
    Fused(Fused),
    Select { condition: Slot, yes: Slot, no: Slot, out: Slot },
    Random { stream: u32, index: Slot, seed: Slot, step: Slot, out: Slot },
    Gather { walk: usize, kind: GatherKind, out: Slot },
}

/// `second(first(a, b), c)`, or `second(c, first(a, b))` when swapped, then ReLU if asked for. The
/// same roundings as the two or three instructions it stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fused {
    pub first: BinaryOp,
    pub second: BinaryOp,
    pub swapped: bool,
    pub relu: bool,
    pub a: Slot,
    pub b: Slot,
    pub c: Slot,
    pub out: Slot,
}

/// What a [`BlockInstr::Gather`] puts into its register.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GatherKind {
    /// Elements; 0 out of bounds.
    Load(Array),
    /// The affine index as a number.
    Index,
    /// The affine index as the bits of a `u32`.
    IndexBits,
    /// 1 in bounds, 0 outside.
    InBounds,
}

/// A view walked row by row: a row is a walk along the last axis, and a block is `rows.len()` rows
/// for every step of the split axis (or, if the split axis is the last, one row).
#[derive(Clone, Debug, PartialEq)]
pub struct Walk {
    pub view: View,
    /// Element offset of each row within one step of the split axis.
    pub rows: Vec<i64>,
    /// The same for each bound.
    pub bound_rows: Vec<Vec<i64>>,
    /// Elements of a row; 0 where the split axis is the last.
    pub row_len: usize,
}

/// An address that follows the blocks: a contiguous load or store.
#[derive(Clone, Debug, PartialEq)]
pub struct Pointer {
    pub slot: Slot,
    pub array: Array,
    pub element: View,
}

/// A store after the instructions.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockStore {
    pub value: Slot,
    pub array: Array,
    pub walk: usize,
    pub contiguous: bool,
}

/// A compiled program.
#[derive(Clone, Debug)]
pub struct BlockProgram {
    pub tiling: Tiling,
    /// Done at the start of a range of rows.
    pub once: Vec<BlockInstr>,
    /// Done where an axis outside the split axis moves.
    pub per_run: Vec<BlockInstr>,
    pub per_block: Vec<BlockInstr>,
    pub pointers: Vec<Pointer>,
    pub stores: Vec<BlockStore>,
    pub walks: Vec<Walk>,
    pub results: Vec<Slot>,
    /// The register of each slot; none where a [`Pointer`] sets the address.
    pub slots: Vec<Option<usize>>,
    pub registers: usize,
    /// Whether what is done once holds for all ranges of a launch: it reads nothing external.
    pub once_a_launch: bool,
}

impl BlockProgram {
    /// Elements of the whole space.
    pub fn len(&self) -> usize {
        self.tiling.sizes.iter().product()
    }
}
