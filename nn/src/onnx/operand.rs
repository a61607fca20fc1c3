//! Operands: what the model has of a node of the expression, in what order and how far repeated, and what is known
//! without an input.

use std::collections::{HashMap, HashSet};

use autograd::tensor::Op;
use autograd::{DType, Tensor, VariableStore, evaluate, nodes};

use super::error::{BATCH, OnnxError};
use super::order::Order;
use super::writer::{Numbers, Writer, int, ints};

/// What the model computes for an expression.
#[derive(Clone)]
pub(super) struct Value {
    pub name: String,
    pub order: Order,
    /// In the expression's order: its shape, or 1 where the expression repeats the value and nobody has yet.
    pub shape: Vec<usize>,
}

/// A model in the making: its nodes so far, and what they have of the expression's.
pub(super) struct Translation<'a> {
    pub writer: Writer,
    device: &'a dyn VariableStore,
    /// Nodes that depend on an input.
    pub open: HashSet<u64>,
    /// How many nodes read each node.
    pub readers: HashMap<u64, usize>,
    pub values: HashMap<u64, Value>,
    /// Names of what is known already, by node and order.
    known: HashMap<(u64, Order), String>,
    /// Variables as the evaluator takes them.
    state: HashMap<u64, Vec<f64>>,
    /// The number of images as the model finds it, if anybody asked.
    batch: Option<String>,
    /// An input to find it from: its name.
    pub batched: Option<String>,
}

impl<'a> Translation<'a> {
    pub fn new(device: &'a dyn VariableStore) -> Translation<'a> {
        Translation {
            writer: Writer::default(),
            device,
            open: HashSet::new(),
            readers: HashMap::new(),
            values: HashMap::new(),
            known: HashMap::new(),
            state: HashMap::new(),
            batch: None,
            batched: None,
        }
    }

    /// The order that the first operand which depends on an input has.
    pub fn order_of(&self, operands: &[Tensor]) -> Order {
        let found = operands.iter().find_map(|t| self.values.get(&t.id()));
        found.map_or_else(|| Order::same(operands[0].rank()), |value| value.order.clone())
    }

    /// What the model has of an operand, in the order in which it is.
    pub fn value_of(&mut self, tensor: &Tensor) -> Result<Value, OnnxError> {
        if let Some(value) = self.values.get(&tensor.id()) {
            return Ok(value.clone());
        }
        let base = narrow(tensor);
        let order = Order::same(base.rank());
        Ok(Value { name: self.known(&base, &order, "constant")?, order, shape: base.shape().to_vec() })
    }

    /// An operand in an order, perhaps with 1 where the expression repeats it, and its shape.
    pub fn small(&mut self, tensor: &Tensor, order: &Order) -> Result<(String, Vec<usize>), OnnxError> {
        let Some(value) = self.values.get(&tensor.id()).cloned() else {
            let base = narrow(tensor);
            return Ok((self.known(&base, order, "constant")?, base.shape().to_vec()));
        };
        if value.order == *order {
            return Ok((value.name, value.shape));
        }
        let key = (tensor.id(), order.clone());
        if let Some(name) = self.known.get(&key) {
            return Ok((name.clone(), value.shape));
        }
        let dims: Vec<usize> = (0..tensor.rank()).collect();
        let places = order.stored(&dims).into_iter().map(|dim| value.order.place(dim));
        let name = self.writer.node("Transpose", &[&value.name], vec![ints("perm", places)]);
        self.known.insert(key, name.clone());
        Ok((name, value.shape))
    }

    /// As `small`, but these dims have the expression's size.
    pub fn repeated_in(
        &mut self,
        tensor: &Tensor,
        order: &Order,
        dims: &[usize],
    ) -> Result<(String, Vec<usize>), OnnxError> {
        let (name, mut shape) = self.small(tensor, order)?;
        if dims.iter().all(|&dim| shape[dim] == tensor.dim(dim)) {
            return Ok((name, shape));
        }
        dims.iter().for_each(|&dim| shape[dim] = tensor.dim(dim));
        let target = self.shape(tensor, &order.stored(&shape))?;
        Ok((self.writer.node("Expand", &[&name, &target], vec![]), shape))
    }

    /// As `repeated_in`, in the order in which the operand is.
    pub fn spread(&mut self, tensor: &Tensor, dims: &[usize]) -> Result<(String, Order), OnnxError> {
        let order = self.value_of(tensor)?.order;
        Ok((self.repeated_in(tensor, &order, dims)?.0, order))
    }

    /// An operand in an order, of its expression's shape.
    pub fn whole(&mut self, tensor: &Tensor, order: &Order) -> Result<String, OnnxError> {
        let dims: Vec<usize> = (0..tensor.rank()).collect();
        Ok(self.repeated_in(tensor, order, &dims)?.0)
    }

    /// A shape as operators take it. The number of images comes from an input.
    fn shape(&mut self, tensor: &Tensor, dims: &[usize]) -> Result<String, OnnxError> {
        let closed = || OnnxError::ClosedBatch { op: "broadcast", location: tensor.location() };
        if dims.iter().all(|dim| dim % BATCH != 0) {
            return Ok(self.writer.integers("shape", dims.iter().map(|&dim| dim as i64).collect()));
        }
        let batch = match (&self.batch, &self.batched) {
            (Some(batch), _) => batch.clone(),
            (None, Some(input)) => {
                self.writer.node("Shape", &[&input.clone()], vec![int("start", 0), int("end", 1)])
            }
            (None, None) => return Err(closed()),
        };
        self.batch = Some(batch.clone());
        let mut parts = Vec::new();
        for &dim in dims {
            parts.push(match dim {
                BATCH => batch.clone(),
                dim if dim % BATCH == 0 => return Err(closed()),
                dim => self.writer.integers("size", vec![dim as i64]),
            });
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Ok(self.writer.node("Concat", &parts, vec![int("axis", 0)]))
    }

    /// The initializer of what depends on no input.
    pub fn known(&mut self, tensor: &Tensor, order: &Order, wanted: &str) -> Result<String, OnnxError> {
        let key = (tensor.id(), order.clone());
        if let Some(name) = self.known.get(&key) {
            return Ok(name.clone());
        }
        let shape = tensor.shape();
        if shape.iter().any(|dim| dim % BATCH == 0) {
            return Err(OnnxError::ClosedBatch { op: tensor.op().name(), location: tensor.location() });
        }
        let mut origin = None;
        for node in nodes([tensor]) {
            let Op::State(variable) = node.op() else { continue };
            if !self.state.contains_key(&variable.id()) {
                let values = self.device.read(variable)?.into_iter().map(f64::from).collect();
                self.state.insert(variable.id(), values);
            }
            if variable.len() == tensor.len() {
                origin.get_or_insert_with(|| variable.name().to_string());
            }
        }
        let none = HashMap::new();
        let values = evaluate(std::slice::from_ref(tensor), &HashMap::new(), &self.state, &none)?.remove(0);
        let values = order.arrange(&values, shape);
        let numbers = match tensor.dtype() {
            DType::F32 => Numbers::F32(values.into_iter().map(|value| value as f32).collect()),
            DType::I32 => Numbers::I32(values.into_iter().map(|value| value as i32).collect()),
        };
        let wanted = origin.as_deref().unwrap_or(wanted);
        let name = self.writer.initializer(wanted, &order.stored(shape), numbers);
        self.known.insert(key, name.clone());
        Ok(name)
    }
}

/// What a broadcast repeats, with 1 in every dim that it repeats.
pub(super) fn narrow(tensor: &Tensor) -> Tensor {
    match tensor.op() {
        Op::Broadcast | Op::Detach => narrow(&tensor.inputs()[0]),
        Op::Full(value) => Tensor::full(&vec![1; tensor.rank()], *value),
        _ => tensor.clone(),
    }
}
