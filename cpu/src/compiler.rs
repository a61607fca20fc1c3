//! Compiles a [`Program`] for evaluation in blocks.
//!
//! The iteration dims are merged as far as all views allow and cut into blocks of about 512 elements.
//! Each instruction then works on whole blocks. What does not vary along the axis that blocks are
//! cut from (a batch norm's scale and shift over channels, a learning rate) is computed once for a
//! whole run of blocks. Contiguous loads and stores are no instructions at all: their operands
//! point into the buffers.

use autograd::tensor::{BinaryOp, UnaryOp};
use schedule::{Instr, Program, Reg, View, merge_dims};

use crate::program::{
    Array, BlockInstr, BlockProgram, BlockStore, Fused, GatherKind, Output, Pointer, Spec, Walk,
};
use crate::space::Tiling;

/// How often an instruction is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Once,
    Run,
    Block,
}

impl BlockProgram {
    pub fn new(spec: &Spec) -> BlockProgram {
        let (mut program, renamed) = normalised(spec);
        let rename = |output: &Output| Output { value: renamed[output.value], ..output.clone() };
        let mut outputs: Vec<Output> = spec.outputs.iter().map(rename).collect();
        let results: Vec<Reg> = spec.results.iter().map(|&reg| renamed[reg]).collect();
        let (mut shape, mut classes) = (spec.shape.to_vec(), spec.classes.to_vec());
        classes.resize(shape.len(), 0);
        let stored = outputs.iter_mut().flat_map(|output| output.view.stride_lists());
        let mut strides: Vec<&mut Vec<i64>> = program.stride_lists().chain(stored).collect();
        merge_dims(&mut shape, &mut classes, &mut strides);
        if shape.is_empty() {
            shape.push(1);
            strides.iter_mut().for_each(|list| list.push(0));
        }
        let (program, outputs) = (&program, &outputs[..]);
        Compiler::new(&Spec {
            shape: &shape,
            classes: &classes,
            program,
            outputs,
            results: &results,
            ..*spec
        })
        .compile()
    }
}

/// An instruction, or several that became one step. Named by the register of its result.
#[derive(Clone, Copy)]
enum Node<'a> {
    Plain(&'a Instr),
    Fused(Fused),
}

impl Node<'_> {
    fn operands(&self) -> Vec<Reg> {
        match self {
            Node::Plain(instr) => instr.operands().collect(),
            Node::Fused(fused) => vec![fused.a, fused.b, fused.c],
        }
    }
}

struct Compiler<'a> {
    /// Its dims are merged.
    spec: &'a Spec<'a>,
    tiling: Tiling,
    nodes: Vec<Node<'a>>,
    levels: Vec<Level>,
    /// Registers in the order they are evaluated, without those inside a fused step.
    order: Vec<Reg>,
    /// Position in `order` of each register.
    positions: Vec<usize>,
    /// Position of each register's last use; `usize::MAX` for stores and results.
    last_use: Vec<usize>,
    direct_loads: Vec<bool>,
    direct_stores: Vec<Option<usize>>,
}

impl<'a> Compiler<'a> {
    fn new(spec: &'a Spec<'a>) -> Compiler<'a> {
        let count = spec.program.instrs.len();
        Compiler {
            spec,
            tiling: Tiling::new(spec.shape.to_vec(), spec.granularity),
            nodes: spec.program.instrs.iter().map(Node::Plain).collect(),
            levels: vec![Level::Once; count],
            order: (0..count).collect(),
            positions: vec![0; count],
            last_use: vec![0; count],
            direct_loads: vec![false; count],
            direct_stores: vec![None; count],
        }
    }

    fn compile(mut self) -> BlockProgram {
        self.find_levels();
        self.fuse();
        self.order.sort_by_key(|&reg| (self.levels[reg], reg));
        self.find_last_uses();
        self.find_direct_loads();
        self.find_direct_stores();
        self.emit()
    }

    /// What a register's instruction reads from memory.
    fn load(&self, reg: Reg) -> Option<(Array, View)> {
        match self.nodes[reg] {
            Node::Plain(Instr::Load { buffer, view }) => Some((Array::Buffer(*buffer), view.clone())),
            Node::Plain(Instr::Accumulator(number)) => {
                Some((Array::External(*number), View::dense(self.spec.shape)))
            }
            _ => None,
        }
    }

    fn find_levels(&mut self) {
        let split = self.tiling.split;
        for reg in 0..self.levels.len() {
            let Node::Plain(instr) = self.nodes[reg] else { continue };
            let dense = View::dense(self.spec.shape);
            let view = if let Instr::Accumulator(_) = instr { Some(&dense) } else { instr.view() };
            let varies = |axis: usize| view.is_some_and(|view| view.varies_along(axis));
            let own = if varies(split) {
                Level::Block
            } else if (0..split).any(varies) {
                Level::Run
            } else {
                Level::Once
            };
            self.levels[reg] = instr.operands().map(|operand| self.levels[operand]).fold(own, Level::max);
        }
    }

    /// Pairs of sums, differences and products, and a ReLU after such a pair, become one step.
    fn fuse(&mut self) {
        let mut uses = vec![0; self.levels.len()];
        for &reg in &self.order {
            self.nodes[reg].operands().into_iter().for_each(|operand| uses[operand] += 1);
        }
        let outputs = self.spec.outputs.iter().map(|output| output.value);
        outputs.chain(self.spec.results.iter().copied()).for_each(|reg| uses[reg] = usize::MAX / 2);
        let mut inside = vec![false; self.levels.len()];
        for &reg in &self.order {
            let alone = |operand: Reg| uses[operand] == 1 && self.levels[operand] == self.levels[reg];
            let (fused, inner) = match self.nodes[reg] {
                Node::Plain(Instr::Unary(UnaryOp::Relu, inner)) if alone(*inner) => {
                    let Node::Fused(fused) = self.nodes[*inner] else { continue };
                    (Fused { relu: true, out: reg, ..fused }, *inner)
                }
                Node::Plain(&Instr::Binary(second, x, y)) if is_arithmetic(second) => {
                    let pair = |operand: Reg| match self.nodes[operand] {
                        Node::Plain(&Instr::Binary(first, a, b))
                            if is_arithmetic(first) && alone(operand) =>
                        {
                            Some((first, a, b))
                        }
                        _ => None,
                    };
                    let base = |(first, a, b), swapped, c| Fused {
                        first,
                        second,
                        swapped,
                        relu: false,
                        a,
                        b,
                        c,
                        out: reg,
                    };
                    match (pair(x), pair(y)) {
                        (Some(inner), _) => (base(inner, false, y), x),
                        (_, Some(inner)) => (base(inner, true, x), y),
                        _ => continue,
                    }
                }
                _ => continue,
            };
            self.nodes[reg] = Node::Fused(fused);
            inside[inner] = true;
        }
        self.order.retain(|&reg| !inside[reg]);
    }

    fn find_last_uses(&mut self) {
        for (position, &reg) in self.order.iter().enumerate() {
            self.positions[reg] = position;
            self.last_use[reg] = position;
            for operand in self.nodes[reg].operands() {
                self.last_use[operand] = position;
            }
        }
        let outputs = self.spec.outputs.iter().map(|output| output.value);
        for reg in outputs.chain(self.spec.results.iter().copied()) {
            self.last_use[reg] = usize::MAX;
        }
    }

    /// Whether a block's elements lie one after the other.
    fn contiguous(&self, view: &View) -> bool {
        if !view.bounds.is_empty() {
            return false;
        }
        let mut step = 1;
        for axis in (self.tiling.split..self.spec.shape.len()).rev() {
            if view.strides[axis] != step {
                return false;
            }
            step *= self.spec.shape[axis] as i64;
        }
        true
    }

    fn same_memory(&self, a: Array, b: Array) -> bool {
        match (a, b) {
            (Array::Buffer(a), Array::Buffer(b)) => self.spec.regions[a] == self.spec.regions[b],
            (a, b) => a == b,
        }
    }

    /// A contiguous load is used where it lies, unless a store might change it before its last use.
    fn find_direct_loads(&mut self) {
        for &reg in &self.order {
            let Some((array, view)) = self.load(reg) else { continue };
            let stored = self.spec.outputs.iter().any(|o| self.same_memory(o.array, array));
            self.direct_loads[reg] = self.levels[reg] == Level::Block
                && self.contiguous(&view)
                && !(stored && self.last_use[reg] == usize::MAX);
        }
    }

    /// A value is computed where it is to be stored if that is contiguous and the memory is not read
    /// at or after that instruction.
    fn find_direct_stores(&mut self) {
        for (number, output) in self.spec.outputs.iter().enumerate() {
            let value = output.value;
            let read_later = self.order.iter().any(|&reg| {
                self.load(reg).is_some_and(|(array, _)| {
                    let last = if self.direct_loads[reg] { self.last_use[reg] } else { self.positions[reg] };
                    self.same_memory(array, output.array) && last >= self.positions[value]
                })
            });
            if self.levels[value] == Level::Block
                && !self.direct_loads[value]
                && self.direct_stores[value].is_none()
                && self.contiguous(&output.view)
                && !read_later
            {
                self.direct_stores[value] = Some(number);
            }
        }
    }

    fn emit(self) -> BlockProgram {
        let mut program = BlockProgram {
            tiling: self.tiling.clone(),
            once: vec![],
            per_run: vec![],
            per_block: vec![],
            pointers: vec![],
            stores: vec![],
            walks: vec![],
            results: self.spec.results.to_vec(),
            slots: vec![None; self.levels.len()],
            registers: 0,
            once_a_launch: true,
        };
        let mut free: Vec<usize> = Vec::new();
        for &reg in &self.order {
            if self.direct_loads[reg] {
                if let Some((array, element)) = self.load(reg) {
                    program.pointers.push(Pointer { slot: reg, array, element });
                }
                continue;
            }
            // Taken before the operands' registers are given back: a result never overwrites them.
            if let Some(number) = self.direct_stores[reg] {
                let output = &self.spec.outputs[number];
                let element = output.view.clone();
                program.pointers.push(Pointer { slot: reg, array: output.array, element });
            } else {
                program.slots[reg] = Some(take(&mut free, &mut program.registers));
            }
            let steps = self.steps(reg, &mut program, &mut free);
            match self.levels[reg] {
                Level::Once => program.once.extend(steps),
                Level::Run => program.per_run.extend(steps),
                Level::Block => program.per_block.extend(steps),
            }
            self.release(reg, &program, &mut free);
        }
        for (number, output) in self.spec.outputs.iter().enumerate() {
            if self.direct_stores[output.value] == Some(number) {
                continue;
            }
            let contiguous = self.contiguous(&output.view);
            let walk = self.walk(&mut program, output.view.clone());
            program.stores.push(BlockStore { value: output.value, array: output.array, walk, contiguous });
        }
        program.once_a_launch = !program.once.iter().any(|step| {
            matches!(step, BlockInstr::Gather { kind: GatherKind::Load(Array::External(_)), .. })
        });
        program
    }

    /// Gives back the registers of the operands that `reg` is the last to use. What a more frequent
    /// level uses stays for good.
    fn release(&self, reg: Reg, program: &BlockProgram, free: &mut Vec<usize>) {
        let mut used = self.nodes[reg].operands();
        used.sort_unstable();
        used.dedup();
        for operand in used {
            if self.last_use[operand] == self.positions[reg]
                && self.levels[operand] == self.levels[reg]
                && let Some(register) = program.slots[operand]
            {
                free.push(register);
            }
        }
    }

    fn steps(&self, reg: Reg, program: &mut BlockProgram, free: &mut Vec<usize>) -> Vec<BlockInstr> {
        let instr = match self.nodes[reg] {
            Node::Fused(fused) => return vec![BlockInstr::Fused(fused)],
            Node::Plain(instr) => instr,
        };
        let mut gather =
            |view: View, kind, out| BlockInstr::Gather { walk: self.walk(program, view), kind, out };
        vec![match *instr {
            Instr::Load { buffer, ref view } => {
                gather(view.clone(), GatherKind::Load(Array::Buffer(buffer)), reg)
            }
            Instr::Accumulator(number) => {
                gather(View::dense(self.spec.shape), GatherKind::Load(Array::External(number)), reg)
            }
            Instr::Index(ref view) => gather(view.clone(), GatherKind::Index, reg),
            Instr::InBounds(ref view) => gather(view.clone(), GatherKind::InBounds, reg),
            Instr::Constant(value) => BlockInstr::Fill { value, out: reg },
            Instr::Unary(op, a) => BlockInstr::Unary { op, a, out: reg },
            Instr::Binary(op, a, b) => BlockInstr::Binary { op, a, b, out: reg },
            Instr::Select { condition, yes, no } => BlockInstr::Select { condition, yes, no, out: reg },
            Instr::Random { stream, seed, step, index: ref view } => {
                // The index has a register of its own for the moment between the two steps.
                let index = program.slots.len();
                let register = take(free, &mut program.registers);
                program.slots.push(Some(register));
                free.push(register);
                let walk = self.walk(program, view.clone());
                let bits = BlockInstr::Gather { walk, kind: GatherKind::IndexBits, out: index };
                return vec![bits, BlockInstr::Random { stream, index, seed, step, out: reg }];
            }
        }]
    }

    fn walk(&self, program: &mut BlockProgram, view: View) -> usize {
        let (split, sizes) = (self.tiling.split, &self.tiling.sizes);
        let last = sizes.len() - 1;
        let middle = if split < last { split + 1..last } else { last..last };
        let rows = |strides: &[i64]| {
            let mut offsets = vec![0];
            for axis in middle.clone() {
                let (size, stride) = (sizes[axis] as i64, strides[axis]);
                offsets = offsets.iter().flat_map(|o| (0..size).map(move |i| o + i * stride)).collect();
            }
            offsets
        };
        program.walks.push(Walk {
            rows: rows(&view.strides),
            bound_rows: view.bounds.iter().map(|bound| rows(&bound.strides)).collect(),
            row_len: if split < last { sizes[last] } else { 0 },
            view,
        });
        program.walks.len() - 1
    }
}

fn is_arithmetic(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul)
}

/// The program with equal instructions made one and without those that nothing needs, and the new register
/// of each old one. Views have no strides along dims of size 1, and no bounds that always hold.
fn normalised(spec: &Spec) -> (Program, Vec<Reg>) {
    let settle = |view: &View| {
        let mut view = view.settled(spec.shape)?;
        for strides in view.stride_lists() {
            strides.iter_mut().zip(spec.shape).filter(|(_, size)| **size == 1).for_each(|(s, _)| *s = 0);
        }
        Some(view)
    };
    let roots = spec.outputs.iter().map(|output| output.value).chain(spec.results.iter().copied());
    let mut result = Program::default();
    let mut renamed = vec![usize::MAX; spec.program.instrs.len()];
    for (reg, instr) in spec.program.needed(roots) {
        let mut instr = match instr {
            Instr::Load { buffer, view } => match settle(view) {
                Some(view) => Instr::Load { buffer: *buffer, view },
                None => Instr::Constant(0.0),
            },
            // Bounds have no index, and an index no bounds.
            Instr::InBounds(view) => match settle(view) {
                Some(view) if view.bounds.is_empty() => Instr::Constant(1.0),
                Some(view) => Instr::InBounds(View { offset: 0, strides: vec![0; spec.shape.len()], ..view }),
                None => Instr::Constant(0.0),
            },
            Instr::Index(view) => Instr::Index(View { bounds: vec![], ..view.clone() }),
            instr => instr.clone(),
        };
        instr.rename(&renamed);
        renamed[reg] = result.push(instr);
    }
    (result, renamed)
}

/// A free register, or a new one.
fn take(free: &mut Vec<usize>, registers: &mut usize) -> usize {
    free.pop().unwrap_or_else(|| {
        *registers += 1;
        *registers - 1
    })
}
