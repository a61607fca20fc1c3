//! WGSL for a [`Program`]: one `let` an instruction, affine index arithmetic, masks.
//!
//! NaN: WGSL lets an implementation assume that there is none, so the functions whose result depends on
//! it (`relu`, `maximum`, `minimum`, the maximum folds) test the bits; see `wgsl/prelude.wgsl`.

use std::fmt::Write;

use schedule::{Bound, Instr, Program, Reg, Store, View};

use crate::bindings::Bindings;
use crate::element::{Element, SMALL_SCALE};
use crate::template::fill;

/// Functions every module has.
const PRELUDE: &str = include_str!("../wgsl/prelude.wgsl");
/// Functions of those that hold numbers as pairs.
const PAIRS: &str = include_str!("../wgsl/pairs.wgsl");

/// A module from its text: enables what it uses, and begins with the prelude.
pub fn module(text: &str) -> String {
    let enable = if text.contains("f16") { "enable f16;\n" } else { "" };
    let [scale, inverse] = [SMALL_SCALE, 1.0 / SMALL_SCALE].map(|value| format!("{value:?}"));
    let pairs = match text.contains("pair_") {
        true => fill(PAIRS, &[("scale", &scale), ("inverse", &inverse)]),
        false => String::new(),
    };
    format!("{enable}{PRELUDE}\n{pairs}{text}")
}

/// One index of an iteration space, as the WGSL around the program names it.
#[derive(Clone, Debug)]
pub struct Index {
    /// An `i32` expression. That of a dim which is taken in fours counts these.
    pub name: String,
    /// Elements of the dim.
    pub size: usize,
    /// An `i32` expression of the number that this dim and those before it make together, where there is one. It spares
    /// a view that walks them as one the arithmetic of each.
    pub up_to: Option<String>,
}

/// Writes programs over one iteration space.
pub struct Emitter {
    /// One per iteration dim.
    pub index: Vec<Index>,
    /// The dim along which values are `vec4<f32>`, whose index counts in fours. `None` for plain `f32` values.
    pub vector: Option<usize>,
    /// WGSL expressions for [`Instr::Accumulator`].
    pub accumulators: Vec<String>,
    /// The statements so far.
    pub code: String,
    prefix: &'static str,
}

/// How a view meets the vector dim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lanes {
    /// Four neighbours at a multiple of four, all or none within bounds.
    Contiguous,
    /// One element for all four.
    Same,
    /// Four separate elements.
    Apart,
}

impl Emitter {
    pub fn new(index: Vec<Index>, vector: Option<usize>, prefix: &'static str) -> Self {
        Emitter { index, vector, accumulators: Vec::new(), code: String::new(), prefix }
    }

    /// The WGSL type of values.
    pub fn value_type(&self) -> &'static str {
        if self.vector.is_some() { "vec4<f32>" } else { "f32" }
    }

    /// Says to the bindings which written memory this program uses as single elements; to be called
    /// for everything in a kernel before anything is written.
    pub fn declare(&self, program: &Program, stores: &[Store], bindings: &mut Bindings) {
        for instr in &program.instrs {
            if let Instr::Load { buffer, view } = instr
                && (self.vector.is_none() || self.lanes(view) != Lanes::Contiguous)
            {
                bindings.require_scalar(*buffer);
            }
        }
        for store in stores {
            if self.vector.is_none() || self.lanes(&store.view) != Lanes::Contiguous {
                bindings.require_scalar(store.buffer);
            }
        }
    }

    /// Writes the instructions that `roots` depend on; register `r` is then named [`Emitter::reg`].
    pub fn program(&mut self, program: &Program, roots: &[Reg], bindings: &mut Bindings) {
        for (r, instr) in program.needed(roots.iter().copied()) {
            let value = self.instr(instr, bindings);
            let _ = writeln!(self.code, "    let {} = {value};", self.reg(r));
        }
    }

    /// The WGSL name of a register.
    pub fn reg(&self, r: Reg) -> String {
        format!("{}{r}", self.prefix)
    }

    /// Writes stores of registers already written.
    pub fn stores(&mut self, stores: &[Store], bindings: &mut Bindings) {
        for store in stores {
            let value = self.reg(store.value);
            let lanes = self.lanes(&store.view);
            let element = bindings.element(store.buffer);
            if self.vector.is_none() {
                let name = bindings.buffer(store.buffer, false);
                let at = self.affine(&store.view, 0);
                let _ = writeln!(self.code, "    {}", element.store(&name, &at, &value, false));
            } else if lanes == Lanes::Contiguous && bindings.binds_vectors(store.buffer) {
                let name = bindings.buffer(store.buffer, true);
                let at = self.quad(&store.view);
                let _ = writeln!(self.code, "    {}", element.store(&name, &at, &value, true));
            } else {
                let name = bindings.buffer(store.buffer, false);
                for lane in 0..4 {
                    let at = self.affine(&store.view, lane);
                    let value = format!("{value}[{lane}]");
                    let _ = writeln!(self.code, "    {}", element.store(&name, &at, &value, false));
                }
            }
        }
    }

    fn lanes(&self, view: &View) -> Lanes {
        let Some(v) = self.vector else { return Lanes::Apart };
        let sizes = self.sizes();
        let is_same = |b: &Bound| stride(&b.strides, v) == 0 || b.verdict(&sizes) == Some(true);
        if !view.bounds.iter().all(is_same) {
            Lanes::Apart
        } else if stride(&view.strides, v) == 0 {
            Lanes::Same
        } else if in_fours(view, v) {
            Lanes::Contiguous
        } else {
            Lanes::Apart
        }
    }

    fn instr(&self, instr: &Instr, bindings: &mut Bindings) -> String {
        match instr {
            Instr::Load { buffer, view } => self.load(*buffer, view, bindings),
            Instr::Constant(c) => self.splat(&literal(*c)),
            Instr::Index(view) => self.each(view, |e, lane| format!("f32({})", e.affine(view, lane))),
            Instr::InBounds(view) => self.each(view, |e, lane| match e.within(view, lane) {
                None => "1.0".to_string(),
                Some(condition) => format!("select(0.0, 1.0, {condition})"),
            }),
            Instr::Random { stream, index, seed, step } => {
                let component = |r: Reg| {
                    if self.vector.is_some() { format!("{}.x", self.reg(r)) } else { self.reg(r) }
                };
                let (seed, step) = (component(*seed), component(*step));
                self.each(index, |e, lane| {
                    let at = e.affine(index, lane);
                    format!("random_uniform(u32(i32({seed})), u32(i32({step})), {stream}u, u32({at}))")
                })
            }
            Instr::Unary(op, a) => op.wgsl(&self.reg(*a), self.vector.is_some()),
            Instr::Binary(op, a, b) => op.wgsl(&self.reg(*a), &self.reg(*b), self.vector.is_some()),
            Instr::Select { condition, yes, no } => {
                let zero = self.splat("0.0");
                let [no, yes, condition] = [no, yes, condition].map(|r| self.reg(*r));
                format!("select({no}, {yes}, {condition} != {zero})")
            }
            Instr::Accumulator(k) => self.accumulators[*k].clone(),
        }
    }

    fn splat(&self, value: &str) -> String {
        if self.vector.is_some() { format!("vec4<f32>({value})") } else { value.to_string() }
    }

    /// A value made from scalar expressions, one a lane (or one for all if the view is the same for all).
    fn each(&self, view: &View, f: impl Fn(&Self, usize) -> String) -> String {
        match self.vector {
            None => f(self, 0),
            Some(_) if self.lanes(view) == Lanes::Same => format!("vec4<f32>({})", f(self, 0)),
            Some(_) => {
                let parts: Vec<String> = (0..4).map(|lane| f(self, lane)).collect();
                format!("vec4<f32>({})", parts.join(", "))
            }
        }
    }

    /// A load of what is stored as this type, of a view within its buffer: as it is.
    pub fn stored(&self, instr: &Instr, element: Element, bindings: &mut Bindings) -> Option<String> {
        let Instr::Load { buffer, view } = instr else { return None };
        let is_plain = self.vector.is_some()
            && self.lanes(view) == Lanes::Contiguous
            && bindings.binds_vectors(*buffer)
            && bindings.element(*buffer) == element
            && self.within(view, 0).is_none();
        is_plain.then(|| format!("{}[{}]", bindings.buffer(*buffer, true), self.quad(view)))
    }

    fn load(&self, buffer: usize, view: &View, bindings: &mut Bindings) -> String {
        let contiguous = self.vector.is_some() && self.lanes(view) == Lanes::Contiguous;
        let element = bindings.element(buffer);
        if contiguous && bindings.binds_vectors(buffer) {
            let name = bindings.buffer(buffer, true);
            let at = self.quad(view);
            return match self.within(view, 0) {
                None => element.load(&name, &at, true),
                // The index is made safe as well: nothing outside may be touched.
                Some(condition) => {
                    let inside = element.load(&name, &format!("select(0, {at}, {condition})"), true);
                    format!("select(vec4<f32>(0.0), {inside}, {condition})")
                }
            };
        }
        let name = bindings.buffer(buffer, false);
        self.each(view, |e, lane| {
            let at = e.affine(view, lane);
            match e.within(view, lane) {
                None => element.load(&name, &at, false),
                Some(condition) => {
                    let inside = element.load(&name, &format!("select(0, {at}, {condition})"), false);
                    format!("select(0.0, {inside}, {condition})")
                }
            }
        })
    }

    /// The condition that a view's bounds hold, or `None` if they always do.
    fn within(&self, view: &View, lane: usize) -> Option<String> {
        let condition = |bound: &Bound| match bound.verdict(&self.sizes()) {
            Some(true) => None,
            // Not left to the shader: `u32(-1)` of a known -1 is an error there.
            Some(false) => Some("false".to_string()),
            None => {
                Some(format!("u32({}) < {}u", self.sum(bound.offset, &bound.strides, lane), bound.extent))
            }
        };
        let conditions: Vec<String> = view.bounds.iter().filter_map(condition).collect();
        (!conditions.is_empty()).then(|| all_of(&conditions))
    }

    fn sizes(&self) -> Vec<usize> {
        self.index.iter().map(|index| index.size).collect()
    }

    fn affine(&self, view: &View, lane: usize) -> String {
        self.sum(view.offset, &view.strides, lane)
    }

    /// The number of the vector that a view of [contiguous](Lanes::Contiguous) lanes takes.
    fn quad(&self, view: &View) -> String {
        let strides = (0..self.index.len()).map(|d| match self.vector == Some(d) {
            true => 1,
            false => stride(&view.strides, d) / 4,
        });
        self.terms(view.offset / 4, strides)
    }

    fn sum(&self, offset: i64, strides: &[i64], lane: usize) -> String {
        let first = self.vector.map_or(0, |v| stride(strides, v) * lane as i64);
        let strides = (0..self.index.len()).map(|d| match self.vector == Some(d) {
            true => 4 * stride(strides, d),
            false => stride(strides, d),
        });
        self.terms(offset + first, strides)
    }

    /// The sum of the indices times `strides`, and an offset.
    fn terms(&self, offset: i64, strides: impl Iterator<Item = i64>) -> String {
        let strides: Vec<i64> = strides.collect();
        let steps = |d: usize| (self.index[d].size / if self.vector == Some(d) { 4 } else { 1 }) as i64;
        let as_one = (1..strides.len()).take_while(|&d| strides[d - 1] == strides[d] * steps(d));
        let up_to = as_one.filter_map(|d| Some((d, self.index[d].up_to.as_ref()?))).last();
        let (first, rest) = match up_to {
            Some((d, name)) => (vec![(name, strides[d])], d + 1),
            None => (vec![], 0),
        };
        let others = self.index.iter().map(|index| &index.name).zip(strides.iter().copied()).skip(rest);
        let mut terms = Vec::new();
        for (name, stride) in first.into_iter().chain(others) {
            match stride {
                0 => {}
                1 => terms.push(name.clone()),
                _ => terms.push(format!("{name} * {}", signed(stride))),
            }
        }
        if offset != 0 || terms.is_empty() {
            terms.push(signed(offset));
        }
        terms.join(" + ")
    }
}

/// All of some conditions, without the branches that `&&` is.
pub fn all_of(conditions: &[String]) -> String {
    format!("({})", conditions.join(") & ("))
}

/// Whether a view takes four neighbours along a dim, which begin at a multiple of four (its bounds apart).
pub fn in_fours(view: &View, dim: usize) -> bool {
    let mut others = view.strides.iter().enumerate().filter(|(d, _)| *d != dim);
    stride(&view.strides, dim) == 1 && view.offset % 4 == 0 && others.all(|(_, stride)| stride % 4 == 0)
}

/// The innermost dim, if every store takes four neighbours along it.
pub fn vector_dim(shape: &[usize], stores: &[Store]) -> Option<usize> {
    let last = shape.len().checked_sub(1)?;
    (shape[last].is_multiple_of(4) && stores.iter().all(|s| in_fours(&s.view, last))).then_some(last)
}

/// Statements that split the linear index `linear` of a space into one `let` a dim. The dim `vector`
/// counts in fours. Returns the indices.
pub fn decompose(shape: &[usize], vector: Option<usize>, linear: &str, prefix: &str) -> (String, Vec<Index>) {
    let mut code = String::new();
    let mut rest = linear.to_string();
    let mut index = Vec::new();
    for d in (0..shape.len()).rev() {
        let size = if vector == Some(d) { shape[d] / 4 } else { shape[d] };
        let name = format!("{prefix}{d}");
        let up_to = Some(rest.clone());
        if d == 0 {
            let _ = writeln!(code, "    let {name} = {rest};");
        } else {
            let next = format!("{prefix}_rest{d}");
            let _ = writeln!(code, "    let {name} = {};", remainder(&rest, size));
            let _ = writeln!(code, "    let {next} = {};", quotient(&rest, size));
            rest = next;
        }
        index.push(Index { name, size: shape[d], up_to });
    }
    index.reverse();
    (code, index)
}

/// The WGSL of an `i32` that is not negative divided by a number, which is quicker without the sign.
pub fn quotient(of: &str, by: usize) -> String {
    if by == 1 { of.to_string() } else { format!("i32(u32({of}) / {by}u)") }
}

/// The WGSL of what is left of such a division.
pub fn remainder(of: &str, by: usize) -> String {
    if by == 1 { "0".to_string() } else { format!("i32(u32({of}) % {by}u)") }
}

fn stride(strides: &[i64], d: usize) -> i64 {
    strides.get(d).copied().unwrap_or(0)
}

/// A number as an operand.
pub fn signed(value: i64) -> String {
    if value < 0 { format!("({value})") } else { value.to_string() }
}

/// An `f32` literal that reads back as the same number.
pub fn literal(value: f32) -> String {
    if value.is_finite() {
        if value < 0.0 || (value == 0.0 && value.is_sign_negative()) {
            format!("(-{:?}f)", -value)
        } else {
            format!("{value:?}f")
        }
    } else {
        // Not a constant expression for WGSL: those must be finite.
        format!("from_bits({}u)", value.to_bits())
    }
}
