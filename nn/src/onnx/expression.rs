//! From an expression to the nodes of a model: what each primitive is in ONNX.

use autograd::tensor::{BinaryOp, Op, ReduceOp};
use autograd::{Conv2d, DType, Tensor, VariableStore, Window, nodes};

use super::error::{BATCH, OnnxError};
use super::operand::{Translation, Value, narrow};
use super::order::Order;
use super::proto::{Attribute, Graph, data_type};
use super::writer::{int, ints, value_info};

/// The graph of these outputs.
pub fn translate(
    name: &str,
    outputs: &[(&str, &Tensor)],
    device: &dyn VariableStore,
) -> Result<Graph, OnnxError> {
    let mut t = Translation::new(device);
    for (name, _) in outputs {
        t.writer.name(name);
    }
    for (_, tensor) in outputs {
        tensor.check()?;
    }
    let nodes = nodes(outputs.iter().map(|output| output.1));
    for node in &nodes {
        if matches!(node.op(), Op::Input(_) | Op::Random { .. })
            || node.inputs().iter().any(|input| t.open.contains(&input.id()))
        {
            t.open.insert(node.id());
            node.inputs().iter().for_each(|input| *t.readers.entry(input.id()).or_default() += 1);
        }
    }
    let mut inputs = Vec::new();
    for node in &nodes {
        if let Op::Input(name) = node.op() {
            inputs.push(t.input(name, node));
        }
    }
    for node in &nodes {
        if t.open.contains(&node.id()) && !t.values.contains_key(&node.id()) {
            t.writer.layer = node.scope().layer.as_deref().unwrap_or_default().to_string();
            let value = t.value(node)?;
            t.values.insert(node.id(), value);
        }
    }
    let mut infos = Vec::new();
    t.writer.layer.clear();
    for (name, tensor) in outputs {
        let found = t.whole(tensor, &Order::same(tensor.rank()))?;
        t.writer.named_node(name.to_string(), "Identity", &[&found], vec![]);
        infos.push(value_info(name, element(tensor), tensor.shape(), BATCH));
    }
    Ok(Graph {
        node: t.writer.nodes,
        name: name.into(),
        initializer: t.writer.initializers,
        input: inputs,
        output: infos,
    })
}

fn element(tensor: &Tensor) -> i32 {
    match tensor.dtype() {
        DType::F32 => data_type::FLOAT,
        DType::I32 => data_type::INT32,
    }
}

impl Translation<'_> {
    fn input(&mut self, wanted: &str, tensor: &Tensor) -> super::proto::ValueInfo {
        let name = self.writer.name(wanted);
        let order = if tensor.rank() == 4 { Order::channels_first() } else { Order::same(tensor.rank()) };
        let stored = order.stored(tensor.shape());
        if stored.first() == Some(&BATCH) {
            self.batched.get_or_insert_with(|| name.clone());
        }
        self.values.insert(tensor.id(), Value { name: name.clone(), order, shape: tensor.shape().to_vec() });
        value_info(&name, element(tensor), &stored, BATCH)
    }

    /// Writes the nodes of one primitive, whose operands have theirs.
    fn value(&mut self, tensor: &Tensor) -> Result<Value, OnnxError> {
        let operands = tensor.inputs();
        Ok(match tensor.op() {
            Op::Unary(op) => self.elementwise(&capital(op.name()), operands)?,
            Op::Binary(op) => {
                if let Some(biased) = self.biased(*op, operands)? {
                    return Ok(biased);
                }
                let value = self.elementwise(binary(*op), operands)?;
                match op.is_comparison() {
                    true => self.cast(value, data_type::FLOAT),
                    false => value,
                }
            }
            Op::Select => {
                let condition = self.value_of(&operands[0])?;
                let condition = self.cast(condition, data_type::BOOL);
                let order = condition.order.clone();
                let [yes, no] = [self.small(&operands[1], &order)?, self.small(&operands[2], &order)?];
                let shape = repeated(&[&condition.shape, &yes.1, &no.1]);
                let name = self.writer.node("Where", &[&condition.name, &yes.0, &no.0], vec![]);
                Value { name, order, shape }
            }
            Op::Cast => {
                let value = self.value_of(&operands[0])?;
                self.cast(value, element(tensor))
            }
            Op::Detach => self.value_of(&operands[0])?,
            Op::Reduce(op, axes) => self.reduce(*op, axes, &operands[0])?,
            Op::ArgMax(axis) => {
                let (name, order) = self.spread(&operands[0], &[*axis])?;
                let name = self.writer.node("ArgMax", &[&name], vec![int("axis", order.place(*axis) as i64)]);
                let shape = tensor.shape().to_vec();
                self.cast(Value { name, order, shape }, data_type::INT32)
            }
            Op::Reshape => self.reshape(tensor)?,
            Op::Permute(axes) => {
                let value = self.value_of(&operands[0])?;
                let shape = axes.iter().map(|&axis| value.shape[axis]).collect();
                Value { order: value.order.permuted(axes), shape, ..value }
            }
            Op::Slice { starts, steps } => self.slice(tensor, starts, steps)?,
            Op::Pad { starts } => self.pad(tensor, starts)?,
            // A dim of 1 stays one until somebody cannot do with it.
            Op::Broadcast => self.value_of(&operands[0])?,
            Op::Concatenate(axis) => {
                let order = self.order_of(operands);
                let names = operands.iter().map(|t| self.whole(t, &order)).collect::<Result<Vec<_>, _>>()?;
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let axis = int("axis", order.place(*axis) as i64);
                let name = self.writer.node("Concat", &names, vec![axis]);
                Value { name, order, shape: tensor.shape().to_vec() }
            }
            Op::MatMul => {
                let order = Order::same(tensor.rank());
                let last_two = [tensor.rank() - 2, tensor.rank() - 1];
                let [a, b] = [&operands[0], &operands[1]].map(|t| self.repeated_in(t, &order, &last_two));
                let ((a, a_shape), (b, b_shape)) = (a?, b?);
                let name = self.writer.node("MatMul", &[&a, &b], vec![]);
                let mut shape = repeated(&[&a_shape, &b_shape]);
                last_two.iter().for_each(|&dim| shape[dim] = tensor.dim(dim));
                Value { name, order, shape }
            }
            Op::Convolution(conv) => self.image("Conv", tensor, operands, convolution(conv, &operands[1]))?,
            Op::ConvolutionInputGrad(conv) => {
                let mut attributes = convolution(conv, &operands[1]);
                attributes.push(ints("output_padding", (0..2).map(|d| left_over(conv, tensor, operands, d))));
                self.image("ConvTranspose", tensor, operands, attributes)?
            }
            Op::MaxPoolGather(window) if operands[0].id() == operands[1].id() => {
                self.image("MaxPool", tensor, &operands[..1], pooling(window))?
            }
            Op::AveragePool(window) => {
                let mut attributes = pooling(window);
                attributes.push(int("count_include_pad", window.count_padding.into()));
                self.image("AveragePool", tensor, operands, attributes)?
            }
            Op::Invalid
            | Op::Input(_)
            | Op::State(_)
            | Op::Constant(_)
            | Op::Full(_)
            | Op::Iota(_)
            | Op::Random { .. }
            | Op::ConvolutionWeightGrad(_)
            | Op::MaxPoolGather(_)
            | Op::MaxPoolScatter(_)
            | Op::AveragePoolTransposed(_)
            | Op::AllReduce(_) => {
                return Err(OnnxError::NoCounterpart { op: tensor.op().name(), location: tensor.location() });
            }
        })
    }

    fn elementwise(&mut self, op: &str, operands: &[Tensor]) -> Result<Value, OnnxError> {
        let order = self.order_of(operands);
        let found = operands.iter().map(|t| self.small(t, &order)).collect::<Result<Vec<_>, _>>()?;
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        let shape = repeated(&found.iter().map(|(_, shape)| shape).collect::<Vec<_>>());
        Ok(Value { name: self.writer.node(op, &names, vec![]), order, shape })
    }

    fn cast(&mut self, value: Value, to: i32) -> Value {
        Value { name: self.writer.node("Cast", &[&value.name], vec![int("to", to.into())]), ..value }
    }

    /// A number for each channel added to what only this addition reads, a convolution: its bias.
    fn biased(&mut self, op: BinaryOp, operands: &[Tensor]) -> Result<Option<Value>, OnnxError> {
        let is_convolution = |t: &Tensor| {
            let alone = self.open.contains(&t.id()) && self.readers.get(&t.id()) == Some(&1);
            alone && matches!(t.op(), Op::Convolution(_))
        };
        let Some(at) = operands.iter().position(is_convolution).filter(|_| op == BinaryOp::Add) else {
            return Ok(None);
        };
        let (sum, bias) = (&operands[at], narrow(&operands[1 - at]));
        let channels = sum.dim(3);
        if self.open.contains(&bias.id()) || bias.len() != channels || bias.dim(3) != channels {
            return Ok(None);
        }
        let bias = self.known(&bias.reshape(&[channels]), &Order::same(1), "bias")?;
        let value = self.value_of(sum)?;
        if let Some(node) = self.writer.nodes.iter_mut().rfind(|node| node.output[0] == value.name) {
            node.input.push(bias);
        }
        Ok(Some(value))
    }

    fn reduce(&mut self, op: ReduceOp, axes: &[usize], operand: &Tensor) -> Result<Value, OnnxError> {
        let (mut name, order) = self.spread(operand, axes)?;
        let stored = axes.iter().map(|&axis| order.place(axis) as i64).collect();
        let axes_name = self.writer.integers("axes", stored);
        let reduce = match op {
            ReduceOp::Sum => "ReduceSum",
            ReduceOp::Max => "ReduceMax",
            ReduceOp::Variance => {
                let mean = self.writer.node("ReduceMean", &[&name, &axes_name], vec![]);
                let deviation = self.writer.node("Sub", &[&name, &mean], vec![]);
                name = self.writer.node("Mul", &[&deviation, &deviation], vec![]);
                "ReduceMean"
            }
        };
        let mut shape = self.value_of(operand)?.shape;
        axes.iter().for_each(|&axis| shape[axis] = 1);
        Ok(Value { name: self.writer.node(reduce, &[&name, &axes_name], vec![]), order, shape })
    }

    fn reshape(&mut self, tensor: &Tensor) -> Result<Value, OnnxError> {
        let operand = &tensor.inputs()[0];
        let mut order = Order::same(operand.rank());
        let given = self.value_of(operand)?;
        if given.order.agrees(&order, operand.shape()) {
            order = given.order;
        }
        let name = self.whole(operand, &order)?;
        // ONNX finds out one dim by itself: that with the images in it.
        let open: Vec<bool> = tensor.shape().iter().map(|dim| dim % BATCH == 0).collect();
        if open.iter().filter(|open| **open).count() > 1 {
            return Err(OnnxError::ClosedBatch { op: "reshape", location: tensor.location() });
        }
        let shape = tensor.shape().iter().zip(open).map(|(&dim, open)| if open { -1 } else { dim as i64 });
        let shape = self.writer.integers("shape", shape.collect());
        let name = self.writer.node("Reshape", &[&name, &shape], vec![]);
        Ok(Value { name, order: Order::same(tensor.rank()), shape: tensor.shape().to_vec() })
    }

    fn slice(&mut self, tensor: &Tensor, starts: &[usize], steps: &[usize]) -> Result<Value, OnnxError> {
        let operand = &tensor.inputs()[0];
        let value = self.value_of(operand)?;
        let mut shape = value.shape.clone();
        let mut cuts = [const { Vec::new() }; 4];
        for dim in 0..tensor.rank() {
            if tensor.dim(dim) == operand.dim(dim) || value.shape[dim] == 1 {
                continue;
            }
            if operand.dim(dim).is_multiple_of(BATCH) {
                return Err(OnnxError::ClosedBatch { op: "slice", location: tensor.location() });
            }
            shape[dim] = tensor.dim(dim);
            let end = starts[dim] + (tensor.dim(dim) - 1) * steps[dim] + 1;
            let cut = [starts[dim], end, value.order.place(dim), steps[dim]];
            cuts.iter_mut().zip(cut).for_each(|(all, cut)| all.push(cut as i64));
        }
        if cuts[0].is_empty() {
            return Ok(value);
        }
        let mut inputs = vec![value.name.clone()];
        for (name, values) in ["starts", "ends", "axes", "steps"].into_iter().zip(cuts) {
            inputs.push(self.writer.integers(name, values));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        Ok(Value { name: self.writer.node("Slice", &inputs, vec![]), shape, ..value })
    }

    fn pad(&mut self, tensor: &Tensor, starts: &[usize]) -> Result<Value, OnnxError> {
        let operand = &tensor.inputs()[0];
        let grown: Vec<usize> = (0..tensor.rank()).filter(|&d| tensor.dim(d) != operand.dim(d)).collect();
        if grown.iter().any(|&dim| operand.dim(dim).is_multiple_of(BATCH)) {
            return Err(OnnxError::ClosedBatch { op: "pad", location: tensor.location() });
        }
        let (name, order) = self.spread(operand, &grown)?;
        let ends: Vec<usize> =
            (0..tensor.rank()).map(|d| tensor.dim(d) - operand.dim(d) - starts[d]).collect();
        let pads = [order.stored(starts), order.stored(&ends)].concat();
        let pads = self.writer.integers("pads", pads.into_iter().map(|pad| pad as i64).collect());
        let mut shape = self.value_of(operand)?.shape;
        grown.iter().for_each(|&dim| shape[dim] = tensor.dim(dim));
        Ok(Value { name: self.writer.node("Pad", &[&name, &pads], vec![]), order, shape })
    }

    /// An operation on an image and perhaps a weight.
    fn image(
        &mut self,
        op: &str,
        tensor: &Tensor,
        operands: &[Tensor],
        attributes: Vec<Attribute>,
    ) -> Result<Value, OnnxError> {
        let mut names = vec![self.whole(&operands[0], &Order::channels_first())?];
        for weight in &operands[1..] {
            names.push(self.whole(weight, &Order::same(4))?);
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let name = self.writer.node(op, &names, attributes);
        Ok(Value { name, order: Order::channels_first(), shape: tensor.shape().to_vec() })
    }
}

/// The shape of an elementwise operation on values of these shapes.
fn repeated(shapes: &[&Vec<usize>]) -> Vec<usize> {
    (0..shapes[0].len()).map(|dim| shapes.iter().map(|shape| shape[dim]).max().unwrap_or(1)).collect()
}

fn capital(name: &str) -> String {
    name[..1].to_uppercase() + &name[1..]
}

fn binary(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Add => "Add",
        BinaryOp::Sub => "Sub",
        BinaryOp::Mul => "Mul",
        BinaryOp::Div => "Div",
        BinaryOp::Max => "Max",
        BinaryOp::Min => "Min",
        BinaryOp::Less => "Less",
        BinaryOp::LessEqual => "LessOrEqual",
        BinaryOp::Equal => "Equal",
    }
}

fn convolution(conv: &Conv2d, weight: &Tensor) -> Vec<Attribute> {
    vec![
        ints("kernel_shape", [weight.dim(2), weight.dim(3)]),
        ints("strides", conv.stride),
        ints("pads", [conv.padding, conv.padding].concat()),
        ints("dilations", conv.dilation),
        int("group", conv.groups as i64),
    ]
}

fn pooling(window: &Window) -> Vec<Attribute> {
    vec![
        ints("kernel_shape", window.size),
        ints("strides", window.stride),
        ints("pads", [window.padding, window.padding].concat()),
    ]
}

/// How much larger a transposed convolution's result is than its smallest, in one direction.
fn left_over(conv: &Conv2d, result: &Tensor, operands: &[Tensor], d: usize) -> usize {
    let (size, kernel) = (operands[0].dim(1 + d), operands[1].dim(2 + d));
    let reached = (size - 1) * conv.stride[d] + conv.dilation[d] * (kernel - 1) + 1;
    (result.dim(1 + d) + 2 * conv.padding[d]).saturating_sub(reached)
}
