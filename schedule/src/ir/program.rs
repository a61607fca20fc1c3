//! The expression language of kernels: straight lines of scalar instructions.

use autograd::tensor::{BinaryOp, UnaryOp};

use super::view::View;

/// Index of a buffer in [`Schedule::buffers`](super::Schedule::buffers).
pub type BufferId = usize;
/// Index of an instruction in [`Program::instrs`]; an instruction's result is named by its position.
pub type Reg = usize;

/// A straight-line expression over an iteration space. Instruction `i` may use only results `< i`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// In order; each reads registers of earlier ones only.
    pub instrs: Vec<Instr>,
}

/// One step of a [`Program`]; all values are `f32`, truth is 1.0 or 0.0.
#[derive(Clone, Debug, PartialEq)]
pub enum Instr {
    /// The element of `buffer` at `view`, or 0 where one of the view's bounds fails.
    Load {
        /// The tensor read.
        buffer: BufferId,
        /// Where in it.
        view: View,
    },
    /// The same value everywhere.
    Constant(f32),
    /// The value of the affine index itself (an iota).
    Index(View),
    /// 1 where every bound of the view holds, else 0 (strides and offset are not used).
    InBounds(View),
    /// Of one register.
    Unary(UnaryOp, Reg),
    /// Of two registers.
    Binary(BinaryOp, Reg, Reg),
    /// `condition != 0 ? yes : no`.
    Select {
        /// Chooses.
        condition: Reg,
        /// The value where the condition is not 0.
        yes: Reg,
        /// The value where it is 0.
        no: Reg,
    },
    /// Uniform in [0, 1), a pure function of (seed, step, stream, index): see [`autograd::random`].
    Random {
        /// Tells apart the random tensors of a step.
        stream: u32,
        /// The element's row-major position in its tensor.
        index: View,
        /// A whole number, the same at every index.
        seed: Reg,
        /// A whole number, the same at every index.
        step: Reg,
    },
    /// In an epilogue or `finish`: what the kernel's core computed (accumulator number `0` for
    /// convolution and matmul).
    Accumulator(usize),
}

/// Writes register `value` to `buffer` at `view` (which has no bounds).
#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    /// The tensor written.
    pub buffer: BufferId,
    /// Where in it.
    pub view: View,
    /// What is written.
    pub value: Reg,
}

impl Instr {
    /// A load of the element at the index itself.
    pub fn load(buffer: BufferId, shape: &[usize]) -> Instr {
        Instr::Load { buffer, view: View::dense(shape) }
    }

    /// The registers that it uses.
    pub fn operands(&self) -> impl Iterator<Item = Reg> {
        let list = match *self {
            Instr::Unary(_, a) => [Some(a), None, None],
            Instr::Binary(_, a, b) => [Some(a), Some(b), None],
            Instr::Select { condition, yes, no } => [Some(condition), Some(yes), Some(no)],
            Instr::Random { seed, step, .. } => [Some(seed), Some(step), None],
            Instr::Load { .. }
            | Instr::Constant(_)
            | Instr::Index(_)
            | Instr::InBounds(_)
            | Instr::Accumulator(_) => [None; 3],
        };
        list.into_iter().flatten()
    }

    /// Renames the registers that it uses.
    pub fn rename(&mut self, names: &[Reg]) {
        let list = match self {
            Instr::Unary(_, a) => vec![a],
            Instr::Binary(_, a, b) => vec![a, b],
            Instr::Select { condition, yes, no } => vec![condition, yes, no],
            Instr::Random { seed, step, .. } => vec![seed, step],
            Instr::Load { .. }
            | Instr::Constant(_)
            | Instr::Index(_)
            | Instr::InBounds(_)
            | Instr::Accumulator(_) => vec![],
        };
        list.into_iter().for_each(|operand| *operand = names[*operand]);
    }

    /// The view of an instruction that has one.
    pub fn view(&self) -> Option<&View> {
        match self {
            Instr::Load { view, .. }
            | Instr::Index(view)
            | Instr::InBounds(view)
            | Instr::Random { index: view, .. } => Some(view),
            _ => None,
        }
    }

    /// As [`Instr::view`], to be changed.
    pub fn view_mut(&mut self) -> Option<&mut View> {
        match self {
            Instr::Load { view, .. }
            | Instr::Index(view)
            | Instr::InBounds(view)
            | Instr::Random { index: view, .. } => Some(view),
            _ => None,
        }
    }

    /// Whether it computes with values, so that it counts as a floating point operation.
    pub fn is_arithmetic(&self) -> bool {
        matches!(self, Instr::Unary(..) | Instr::Binary(..) | Instr::Select { .. })
    }
}

impl Program {
    /// A program that is nothing but the load of a buffer's element at the index itself.
    pub fn load(buffer: BufferId, shape: &[usize]) -> Program {
        Program { instrs: vec![Instr::load(buffer, shape)] }
    }

    /// Appends an instruction, or finds it if it is there already.
    pub fn push(&mut self, instr: Instr) -> Reg {
        if let Some(reg) = self.instrs.iter().position(|i| *i == instr) {
            return reg;
        }
        self.instrs.push(instr);
        self.instrs.len() - 1
    }

    /// Appends a program over the same space, instruction by instruction as [`Program::push`] does, but
    /// for those whose result `known` has in a register here. Gives each register's new name.
    pub fn append(&mut self, added: &Program, known: impl Fn(&Instr) -> Option<Reg>) -> Vec<Reg> {
        let mut names: Vec<Reg> = Vec::with_capacity(added.instrs.len());
        for instr in &added.instrs {
            names.push(known(instr).unwrap_or_else(|| {
                let mut instr = instr.clone();
                instr.rename(&names);
                self.push(instr)
            }));
        }
        names
    }

    /// The buffers that it loads and where (with repeats).
    pub fn loads(&self) -> impl Iterator<Item = (BufferId, &View)> {
        self.instrs.iter().filter_map(|instr| match instr {
            Instr::Load { buffer, view } => Some((*buffer, view)),
            _ => None,
        })
    }

    /// The buffers that it loads (with repeats).
    pub fn buffers(&self) -> impl Iterator<Item = BufferId> {
        self.loads().map(|(buffer, _)| buffer)
    }

    /// The instructions that `roots` depend on, with their registers.
    pub fn needed(&self, roots: impl IntoIterator<Item = Reg>) -> impl Iterator<Item = (Reg, &Instr)> {
        let live = self.live(roots);
        self.instrs.iter().enumerate().filter(move |(reg, _)| live[*reg])
    }

    /// For each instruction whether `roots` depend on it.
    pub fn live(&self, roots: impl IntoIterator<Item = Reg>) -> Vec<bool> {
        let mut live = vec![false; self.instrs.len()];
        roots.into_iter().for_each(|reg| live[reg] = true);
        for reg in (0..self.instrs.len()).rev() {
            if live[reg] {
                self.instrs[reg].operands().for_each(|operand| live[operand] = true);
            }
        }
        live
    }

    /// The strides of all its views and their bounds: rewritten, the program walks another space.
    pub fn stride_lists(&mut self) -> impl Iterator<Item = &mut Vec<i64>> {
        self.instrs.iter_mut().filter_map(Instr::view_mut).flat_map(View::stride_lists)
    }

    /// Number of arithmetic instructions.
    pub fn arithmetic(&self) -> usize {
        self.instrs.iter().filter(|instr| instr.is_arithmetic()).count()
    }
}

impl Store {
    /// A store to the element at the index itself.
    pub fn dense(buffer: BufferId, shape: &[usize], value: Reg) -> Store {
        Store { buffer, view: View::dense(shape), value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Program {
        let view = View { offset: 1, strides: vec![3, 1], bounds: vec![] };
        let instrs = vec![
            Instr::load(0, &[2, 3]),
            Instr::Load { buffer: 1, view: view.clone() },
            Instr::Unary(UnaryOp::Exp, 1),
            Instr::Binary(BinaryOp::Add, 0, 0),
            Instr::Select { condition: 3, yes: 0, no: 3 },
            Instr::Random { stream: 0, index: view, seed: 2, step: 4 },
        ];
        Program { instrs }
    }

    #[test]
    fn what_a_root_depends_on_is_live() {
        assert_eq!(sample().live([4]), [true, false, false, true, true, false]);
        assert_eq!(sample().live([2, 3]), [true, true, true, true, false, false]);
        assert_eq!(sample().live([5]), [true; 6]);
        let needed: Vec<Reg> = sample().needed([3]).map(|(reg, _)| reg).collect();
        assert_eq!(needed, [0, 3]);
    }

    #[test]
    fn appending_shares_what_is_there_and_renames_the_rest() {
        let mut base = Program { instrs: vec![Instr::Constant(1.0), Instr::load(0, &[2, 3])] };
        let stored = |instr: &Instr| matches!(instr, Instr::Load { buffer: 1, .. }).then_some(0);
        let names = base.append(&sample(), stored);
        assert_eq!(names, [1, 0, 2, 3, 4, 5]);
        assert_eq!(base.instrs[2], Instr::Unary(UnaryOp::Exp, 0));
        assert_eq!(base.instrs[4], Instr::Select { condition: 3, yes: 1, no: 3 });
        assert!(matches!(base.instrs[5], Instr::Random { seed: 2, step: 4, .. }));
    }

    #[test]
    fn every_view_is_rewritten() {
        let mut program = sample();
        program.stride_lists().for_each(|strides| strides.reverse());
        let strides: Vec<&[i64]> =
            program.instrs.iter().filter_map(Instr::view).map(|view| &view.strides[..]).collect();
        assert_eq!(strides, [[1, 3]; 3]);
    }
}
