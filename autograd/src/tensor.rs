//! The tensor language: immutable expressions over `f32` images, matrices and scalars.
//!
//! A [`Tensor`] is a node of a graph and a cheap handle to it. Nothing is computed when an expression
//! is written: shapes and types are checked, and the node remembers the caller's line. An expression
//! that cannot be (shapes that do not fit) becomes an *invalid* tensor that carries its error; every
//! expression built on it is invalid too, and compiling a step reports the first error. So formulas
//! read like formulas, and nothing panics.

use std::cell::RefCell;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result, SharedError};
pub use crate::scalar::{BinaryOp, UnaryOp};
use crate::scope::{self, Scope};

/// Element type as the language sees it. (Devices store both as `f32`.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// Single precision, the type of everything that has a gradient.
    F32,
    /// Labels and indices, exact up to 2^24.
    I32,
}

/// Folds of the language. `Max` folds one axis; `Sum` and `Variance` (biased) any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    /// The sum.
    Sum,
    /// The largest value, NaN if any is; the first of equals has the gradient.
    Max,
    /// `mean((x - mean(x))^2)`.
    Variance,
}

/// A 2-d convolution's parameters, each `[vertical, horizontal]`. Padding is zeros on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2d {
    /// Pixels from one position of the kernel to the next.
    pub stride: [usize; 2],
    /// Zeros added on each of two sides.
    pub padding: [usize; 2],
    /// Pixels from one tap of the kernel to the next; 1: the kernel is dense.
    pub dilation: [usize; 2],
    /// Into how many parts the channels fall, each convolved by itself; as many as channels: depthwise.
    pub groups: usize,
}

impl Default for Conv2d {
    fn default() -> Self {
        Conv2d { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 }
    }
}

impl Conv2d {
    /// Square stride and padding, no dilation, one group.
    pub fn new(stride: usize, padding: usize) -> Self {
        Conv2d { stride: [stride; 2], padding: [padding; 2], ..Default::default() }
    }
    /// The same with channels in `groups` independent groups.
    pub fn groups(self, groups: usize) -> Self {
        Conv2d { groups, ..self }
    }
    /// The same with the kernel's taps `dilation` pixels apart.
    pub fn dilation(self, dilation: usize) -> Self {
        Conv2d { dilation: [dilation; 2], ..self }
    }
}

/// A pooling window, each `[vertical, horizontal]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Pixels of the window.
    pub size: [usize; 2],
    /// Pixels from one window to the next.
    pub stride: [usize; 2],
    /// Pixels added on each of two sides: zeros to an average, nothing to a maximum.
    pub padding: [usize; 2],
    /// For averages: whether padding counts in the divisor.
    pub count_padding: bool,
}

impl Window {
    /// A square window; padding counts in an average's divisor (PyTorch's default).
    pub fn new(size: usize, stride: usize, padding: usize) -> Self {
        Window { size: [size; 2], stride: [stride; 2], padding: [padding; 2], count_padding: true }
    }
    /// The same, dividing by the number of real pixels only.
    pub fn without_padding_in_divisor(self) -> Self {
        Window { count_padding: false, ..self }
    }
}

/// A named tensor that lives on the device between steps: a parameter, a momentum buffer, a running
/// statistic. Two clones are the same variable.
#[derive(Clone)]
pub struct Variable(Arc<VariableData>);

struct VariableData {
    id: u64,
    name: String,
    shape: Vec<usize>,
    initial: Vec<f32>,
}

impl Variable {
    /// A new variable. `initial` has one value an element, row-major.
    pub fn new(name: impl Into<String>, shape: &[usize], initial: Vec<f32>) -> Result<Variable> {
        let name = name.into();
        let expected: usize = shape.iter().product();
        if initial.len() != expected {
            return Err(Error::State {
                name,
                message: format!(
                    "{} initial values for shape {shape:?} ({expected} elements)",
                    initial.len()
                ),
            });
        }
        Ok(Variable(Arc::new(VariableData { id: next_id(), name, shape: shape.to_vec(), initial })))
    }
    /// A new variable with the same value everywhere.
    pub fn full(name: impl Into<String>, shape: &[usize], value: f32) -> Variable {
        let data = VariableData {
            id: next_id(),
            name: name.into(),
            shape: shape.to_vec(),
            initial: vec![value; shape.iter().product()],
        };
        Variable(Arc::new(data))
    }
    /// Identity, unique in this process.
    pub fn id(&self) -> u64 {
        self.0.id
    }
    /// The name it was made with; in checkpoints it is the tensor's.
    pub fn name(&self) -> &str {
        &self.0.name
    }
    /// Dims, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.0.initial.len()
    }
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.0.initial.is_empty()
    }
    /// The value before anything wrote to it, row-major.
    pub fn initial(&self) -> &[f32] {
        &self.0.initial
    }
    /// The variable's current value, as an expression.
    #[track_caller]
    pub fn tensor(&self) -> Tensor {
        Tensor::make(Op::State(self.clone()), vec![], self.shape().to_vec(), DType::F32)
    }
}

impl PartialEq for Variable {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl std::fmt::Debug for Variable {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}{:?}", self.0.name, self.0.shape)
    }
}

/// The primitives. Everything else is written in these; [`crate::grad()`] has a line for each.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// An expression that cannot be.
    Invalid,
    /// Given by the caller at every call.
    Input(String),
    /// The value of a variable before the step's updates.
    State(Variable),
    /// Known now, row-major.
    Constant(Arc<Vec<f32>>),
    /// The same value everywhere.
    Full(f64),
    /// Each element's index along the axis.
    Iota(usize),
    /// Uniform in [0, 1) from inputs (seed, step), both integer scalars of shape `[]`.
    Random {
        /// Tells apart the random tensors of one step: the same stream gives the same values.
        stream: u32,
    },
    /// Elementwise, of one input.
    Unary(UnaryOp),
    /// Elementwise, of two inputs of one shape.
    Binary(BinaryOp),
    /// inputs (condition, yes, no).
    Select,
    /// Between F32 and I32 (towards I32 the value must be whole; use floor).
    Cast,
    /// The input, with no gradient.
    Detach,
    /// Folds the axes to size 1.
    Reduce(ReduceOp, Vec<usize>),
    /// Lowest position of the maximum along one axis (size 1 after); I32.
    ArgMax(usize),
    /// The same elements in row-major order, in another shape.
    Reshape,
    /// Output dim `d` is input dim `axes[d]`.
    Permute(Vec<usize>),
    /// Output index `i` reads `starts + i * steps`.
    Slice {
        /// Where each dim begins.
        starts: Vec<usize>,
        /// How far each dim's elements are apart; at least 1.
        steps: Vec<usize>,
    },
    /// Zeros around: input index `i` goes to `starts + i`.
    Pad {
        /// Zeros before the input, for each dim; how many follow it, the output's shape tells.
        starts: Vec<usize>,
    },
    /// Repeats dims of size 1.
    Broadcast,
    /// The inputs one after the other along an axis.
    Concatenate(usize),
    /// `[.., m, k] x [.., k, n]`, equal leading dims.
    MatMul,
    /// inputs (x `[N,H,W,Cin]`, weight `[Cout,Cin/groups,kh,kw]`).
    Convolution(Conv2d),
    /// inputs (dy, weight).
    ConvolutionInputGrad(Conv2d),
    /// inputs (x, dy).
    ConvolutionWeightGrad(Conv2d),
    /// inputs (x, source): `source` at the maximum of each window of `x`.
    MaxPoolGather(Window),
    /// inputs (x, dy): the transpose of the above in `source`.
    MaxPoolScatter(Window),
    /// The mean of each window; of padding see [`Window::count_padding`].
    AveragePool(Window),
    /// input (dy): the transpose of the above, each value shared out over its window.
    AveragePoolTransposed(Window),
    /// The sum over the processes that run the same program, element by element.
    AllReduce(Transfer),
}

/// How numbers travel between processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// As they are.
    F32,
    /// Rounded to bfloat16 on the way: half the bytes.
    Bf16,
}

impl Op {
    /// The primitive's name as errors and tables print it.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Invalid => "invalid",
            Op::Input(_) => "input",
            Op::State(_) => "state",
            Op::Constant(_) => "constant",
            Op::Full(_) => "full",
            Op::Iota(_) => "iota",
            Op::Random { .. } => "random",
            Op::Unary(op) => op.name(),
            Op::Binary(op) => op.name(),
            Op::Select => "select",
            Op::Cast => "cast",
            Op::Detach => "detach",
            Op::Reduce(ReduceOp::Sum, _) => "sum",
            Op::Reduce(ReduceOp::Max, _) => "max",
            Op::Reduce(ReduceOp::Variance, _) => "variance",
            Op::ArgMax(_) => "argmax",
            Op::Reshape => "reshape",
            Op::Permute(_) => "permute",
            Op::Slice { .. } => "slice",
            Op::Pad { .. } => "pad",
            Op::Broadcast => "broadcast",
            Op::Concatenate(_) => "concatenate",
            Op::MatMul => "matmul",
            Op::Convolution(_) => "convolution",
            Op::ConvolutionInputGrad(_) => "convolution_input_grad",
            Op::ConvolutionWeightGrad(_) => "convolution_weight_grad",
            Op::MaxPoolGather(_) => "max_pool",
            Op::MaxPoolScatter(_) => "max_pool_scatter",
            Op::AveragePool(_) => "average_pool",
            Op::AveragePoolTransposed(_) => "average_pool_transposed",
            Op::AllReduce(_) => "all_reduce",
        }
    }
}

/// An expression. Clones share the node.
#[derive(Clone)]
pub struct Tensor(pub(crate) Arc<Node>);

/// One node of the graph. Inputs always have smaller ids, so ids are a topological order.
pub struct Node {
    pub(crate) id: u64,
    pub(crate) op: Op,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: DType,
    pub(crate) location: &'static Location<'static>,
    pub(crate) scope: Scope,
    pub(crate) error: Option<SharedError>,
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The scope of an expression. Between layers it is the layer of the operand made last, in the same part.
fn scope_after(inputs: &[Tensor]) -> Scope {
    let scope = scope::current();
    if scope.layer.is_some() {
        return scope;
    }
    let before = inputs.iter().map(|t| &t.0).filter(|node| node.scope.part == scope.part);
    let latest = before.filter(|node| node.scope.layer.is_some()).max_by_key(|node| node.id);
    Scope { layer: latest.and_then(|node| node.scope.layer.clone()), ..scope }
}

impl Tensor {
    /// A node whose shape is already known to be right.
    #[track_caller]
    pub(crate) fn make(op: Op, inputs: Vec<Tensor>, shape: Vec<usize>, dtype: DType) -> Tensor {
        Tensor::make_at(op, inputs, shape, dtype, Location::caller())
    }

    pub(crate) fn make_at(
        op: Op,
        inputs: Vec<Tensor>,
        shape: Vec<usize>,
        dtype: DType,
        location: &'static Location<'static>,
    ) -> Tensor {
        let error = inputs.iter().find_map(|t| t.0.error.clone());
        let scope = scope_after(&inputs);
        Tensor(Arc::new(Node { id: next_id(), op, inputs, shape, dtype, location, scope, error }))
    }

    /// An invalid tensor: the given op cannot be applied to these operands. An operand that is
    /// already invalid hands its own, earlier error on. Layers and losses report their own misuse
    /// with it, as the primitives do.
    #[track_caller]
    pub fn invalid(op: &'static str, operands: &[&Tensor], message: String) -> Tensor {
        let location = Location::caller();
        let earlier = operands.iter().find_map(|t| t.0.error.clone());
        let error = earlier.unwrap_or_else(|| {
            let described: Vec<String> = operands.iter().map(|t| t.describe()).collect();
            Arc::new(Error::Expression { op, message, operands: described.join(", "), location })
        });
        let shape = operands.first().map_or(vec![], |t| t.0.shape.clone());
        let node = Node {
            id: next_id(),
            op: Op::Invalid,
            inputs: vec![],
            shape,
            dtype: DType::F32,
            location,
            scope: scope::current(),
            error: Some(error),
        };
        Tensor(Arc::new(node))
    }

    fn describe(&self) -> String {
        match &self.0.op {
            Op::Input(name) => format!("input `{name}` {:?}", self.0.shape),
            Op::State(v) => format!("`{}` {:?}", v.name(), self.0.shape),
            op => format!(
                "{} {:?}{}",
                op.name(),
                self.0.shape,
                if self.0.dtype == DType::I32 { " i32" } else { "" }
            ),
        }
    }

    /// An `f32` tensor that the caller gives, by this name, at every call.
    #[track_caller]
    pub fn input(name: impl Into<String>, shape: &[usize]) -> Tensor {
        Tensor::make(Op::Input(name.into()), vec![], shape.to_vec(), DType::F32)
    }
    /// An integer tensor (labels, seeds) that the caller gives at every call.
    #[track_caller]
    pub fn input_i32(name: impl Into<String>, shape: &[usize]) -> Tensor {
        Tensor::make(Op::Input(name.into()), vec![], shape.to_vec(), DType::I32)
    }
    /// A tensor of known values, row-major.
    #[track_caller]
    pub fn constant(shape: &[usize], values: Vec<f32>) -> Tensor {
        let expected: usize = shape.iter().product();
        if values.len() != expected {
            let message = format!("{} values for shape {shape:?} ({expected} elements)", values.len());
            return Tensor::invalid("constant", &[], message);
        }
        Tensor::make(Op::Constant(Arc::new(values)), vec![], shape.to_vec(), DType::F32)
    }
    /// The same value everywhere.
    #[track_caller]
    pub fn full(shape: &[usize], value: f64) -> Tensor {
        Tensor::make(Op::Full(value), vec![], shape.to_vec(), DType::F32)
    }
    /// A scalar of shape `[]`.
    #[track_caller]
    pub fn scalar(value: f64) -> Tensor {
        Tensor::full(&[], value)
    }
    /// Zeros of this tensor's shape.
    #[track_caller]
    pub fn zeros_like(&self) -> Tensor {
        Tensor::full(&self.0.shape, 0.0)
    }
    /// Integer indices `0, 1, ..` along `axis`.
    #[track_caller]
    pub fn iota(shape: &[usize], axis: usize) -> Tensor {
        if axis >= shape.len() {
            return Tensor::invalid("iota", &[], format!("axis {axis} of shape {shape:?}"));
        }
        Tensor::make(Op::Iota(axis), vec![], shape.to_vec(), DType::I32)
    }
    /// Uniform values in [0, 1), a pure function of the integer scalars `seed` and `step` (shape
    /// `[]`), of `stream` and of each element's index: see [`crate::random`].
    #[track_caller]
    pub fn random(shape: &[usize], seed: &Tensor, step: &Tensor, stream: u32) -> Tensor {
        if seed.dtype() != DType::I32 || step.dtype() != DType::I32 || seed.len() != 1 || step.len() != 1 {
            return Tensor::invalid("random", &[seed, step], "seed and step are integer scalars".into());
        }
        if shape.iter().map(|&dim| dim as u64).product::<u64>() >= 1 << 32 {
            return Tensor::invalid(
                "random",
                &[seed, step],
                format!("shape {shape:?} is over 2^32 elements"),
            );
        }

        Tensor::make(
            Op::Random { stream },
            vec![seed.reshape(&[]), step.reshape(&[])],
            shape.to_vec(),
            DType::F32,
        )
    }

    /// Dims, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }
    /// The size of one dim; 1 beyond the rank (so that code handling an invalid tensor does not panic).
    pub fn dim(&self, axis: usize) -> usize {
        self.0.shape.get(axis).copied().unwrap_or(1)
    }
    /// Number of dims.
    pub fn rank(&self) -> usize {
        self.0.shape.len()
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.0.shape.iter().product()
    }
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// What the elements are.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }
    /// Identity of the node. An input's id is always smaller than its user's.
    pub fn id(&self) -> u64 {
        self.0.id
    }
    /// What the node computes of its inputs.
    pub fn op(&self) -> &Op {
        &self.0.op
    }
    /// The operands, in the order that [`Op`] gives.
    pub fn inputs(&self) -> &[Tensor] {
        &self.0.inputs
    }
    /// Where the expression was written.
    pub fn location(&self) -> &'static Location<'static> {
        self.0.location
    }
    /// Where in the program the expression belongs.
    pub fn scope(&self) -> &Scope {
        &self.0.scope
    }
    /// The tensor, or the error of the first invalid expression in it.
    pub fn check(&self) -> Result<&Tensor> {
        match &self.0.error {
            Some(error) => Err((**error).clone()),
            None => Ok(self),
        }
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}", self.describe())
    }
}

impl Drop for Node {
    /// Frees a deep graph with a list instead of recursion: a network is thousands of nodes deep.
    fn drop(&mut self) {
        thread_local!(static PENDING: RefCell<Option<Vec<Tensor>>> = const { RefCell::new(None) });
        let inputs = std::mem::take(&mut self.inputs);
        if inputs.is_empty() {
            return;
        }
        // `try_with`: a tensor kept in another thread-local may be dropped after PENDING is gone.
        let _ = PENDING.try_with(|pending| {
            if let Some(list) = pending.borrow_mut().as_mut() {
                list.extend(inputs);
                return;
            }
            *pending.borrow_mut() = Some(inputs);
            loop {
                // Popped in a statement of its own, so that the list is free again when `next` drops
                // and puts its inputs there.
                let next = pending.borrow_mut().as_mut().and_then(Vec::pop);
                let Some(next) = next else { break };
                drop(next);
            }
            *pending.borrow_mut() = None;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_graph_that_branches_is_freed() {
        let mut x = Tensor::input("x", &[1]);
        for _ in 0..100_000 {
            x = x.exp() + x.relu();
        }
        drop(x);
    }
}
