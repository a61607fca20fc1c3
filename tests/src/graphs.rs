//! Random expression graphs whose results any device must agree on.
//!
//! A graph is a function of its seed and its number of operations; with fewer operations it is a prefix
//! of itself, which is how a failure is made small. Disagreement that is nobody's fault is kept out by
//! construction: each operation is evaluated in `f64` as it is added, and dropped if a value lies close
//! to where a function jumps or bends (ties of a maximum, equal operands of a comparison, zero under a
//! relu), or if small relative errors in all values below would grow more than tenfold.

use std::collections::HashMap;

use autograd::tensor::{BinaryOp, Op, Transfer, UnaryOp};
use autograd::{Conv2d, DType, Tensor, Variable, Window, grad};

use crate::compare::norm;
use crate::dice::Dice;
use crate::runner::{Inputs, Program};

/// Elements of a tensor, at most.
const LARGEST: usize = 1500;
/// How far values stay from a jump or a bend.
const MARGIN: f64 = 2e-3;
/// Relative size of the errors that are tried, of every value; and the size to which they may grow.
const NOISE: f64 = 2.5e-7;
const GROWN: f64 = 2.5e-6;

/// A step to run, and what to feed it.
pub struct Graph {
    pub program: Program,
    pub inputs: Inputs,
    pub variables: Vec<Variable>,
    /// The operations, for people.
    pub text: String,
}

/// The graph of a seed with so many operations, of which some may be dropped.
pub fn graph(seed: u64, operations: usize) -> Graph {
    let mut builder = Builder::new(seed);
    for _ in 0..operations {
        builder.grow();
    }
    builder.finish(seed)
}

/// Values of all nodes so far: exact, and with errors in every node.
#[derive(Default)]
struct Values {
    inputs: HashMap<String, Vec<f64>>,
    exact: HashMap<u64, Vec<f64>>,
    noisy: [HashMap<u64, Vec<f64>>; 2],
}

impl Values {
    /// Evaluates a tensor and what it is made of.
    fn add(&mut self, tensor: &Tensor) {
        let mut nodes: HashMap<u64, Tensor> = HashMap::new();
        let mut pending = vec![tensor.clone()];
        while let Some(node) = pending.pop() {
            if !self.exact.contains_key(&node.id()) && nodes.insert(node.id(), node.clone()).is_none() {
                pending.extend(node.inputs().iter().cloned());
            }
        }
        let mut nodes: Vec<Tensor> = nodes.into_values().collect();
        nodes.sort_by_key(Tensor::id);
        for node in nodes {
            let evaluate = |known: &HashMap<u64, Vec<f64>>| -> Vec<f64> {
                let operands = node.inputs().iter().map(|t| (t.id(), known[&t.id()].clone())).collect();
                let wanted = std::slice::from_ref(&node);
                let mut values = autograd::evaluate(wanted, &self.inputs, &HashMap::new(), &operands)
                    .unwrap_or_else(|error| panic!("{error}"));
                values.remove(0)
            };
            let exact = evaluate(&self.exact);
            let noisy = [0, 1].map(|kind| {
                let mut values = evaluate(&self.noisy[kind]);
                if node.dtype() == DType::F32 {
                    let mut dice = Dice::new((self.exact.len() * 2 + kind) as u64);
                    values.iter_mut().for_each(|v| *v *= 1.0 + NOISE * dice.signed());
                }
                values
            });
            self.exact.insert(node.id(), exact);
            for (kind, values) in noisy.into_iter().enumerate() {
                self.noisy[kind].insert(node.id(), values);
            }
        }
    }

    fn of(&self, tensor: &Tensor) -> &[f64] {
        &self.exact[&tensor.id()]
    }

    /// Whether a tensor's values are finite, of moderate size and insensitive to errors.
    fn is_tame(&mut self, tensor: &Tensor) -> bool {
        self.add(tensor);
        let exact = self.of(tensor);
        let moderate = exact.iter().all(|v| v.is_finite() && v.abs() < 1e4);
        moderate
            && self.noisy.iter().all(|noisy| {
                let difference: Vec<f64> =
                    exact.iter().zip(&noisy[&tensor.id()]).map(|(a, b)| a - b).collect();
                norm(&difference) <= GROWN * norm(exact)
            })
    }
}

/// Whether a function neither jumps nor bends nor ends near a value, nor grows too steep to compare.
fn is_smooth(f: impl Fn(f64) -> f64, at: f64) -> bool {
    let [left, middle, right] = [at - MARGIN, at, at + MARGIN].map(f);
    ((right - middle) - (middle - left)).abs() < 0.1 * MARGIN && (right - left).abs() < 100.0 * MARGIN
}

struct Builder {
    dice: Dice,
    values: Values,
    inputs: Inputs,
    leaves: Vec<Tensor>,
    variables: Vec<Variable>,
    pool: Vec<Tensor>,
    text: String,
}

impl Builder {
    fn new(seed: u64) -> Builder {
        let mut builder = Builder {
            dice: Dice::new(seed),
            values: Values::default(),
            inputs: Inputs::new(),
            leaves: Vec::new(),
            variables: Vec::new(),
            pool: Vec::new(),
            text: String::new(),
        };
        for name in ["seed", "step"] {
            let value = builder.dice.below(1000) as i32;
            builder.integers(name, vec![value]);
        }
        let channels = builder.dice.pick(&[1, 2, 3, 4, 6, 8]);
        let side = builder.dice.between(3, 8);
        let image = [builder.dice.pick(&[1, 2, 4]), side, builder.dice.between(3, 8), channels];
        let matrix = [builder.dice.between(1, 7), builder.dice.between(2, 9)];
        for shape in [&image[..], &matrix[..]] {
            let leaf = builder.leaf(shape);
            builder.pool.push(leaf);
        }
        builder
    }

    fn integers(&mut self, name: &str, values: Vec<i32>) {
        let exact = values.iter().map(|&v| v.into()).collect();
        self.values.inputs.insert(name.into(), exact);
        self.inputs = std::mem::take(&mut self.inputs).i32(name, values);
    }

    /// A new input or variable.
    fn leaf(&mut self, shape: &[usize]) -> Tensor {
        let values = self.dice.values(shape.iter().product());
        let name = format!("x{}", self.leaves.len());
        let leaf = if self.dice.chance(2) {
            let exact = values.iter().map(|&v| v.into()).collect();
            self.values.inputs.insert(name.clone(), exact);
            self.inputs = std::mem::take(&mut self.inputs).f32(&name, values);
            Tensor::input(name, shape)
        } else {
            let variable = Variable::new(name, shape, values).unwrap_or_else(|error| panic!("{error}"));
            self.variables.push(variable.clone());
            variable.tensor()
        };
        self.values.add(&leaf);
        self.leaves.push(leaf.clone());
        leaf
    }

    /// A tensor of the pool, mostly a late one.
    fn any(&mut self) -> Tensor {
        let recent = self.pool.len().min(4);
        let from = if self.dice.chance(3) { 0 } else { self.pool.len() - recent };
        let at = self.dice.between(from, self.pool.len() - 1);
        self.pool[at].clone()
    }

    /// A tensor of four dims.
    fn image(&mut self) -> Tensor {
        let x = self.any();
        if x.rank() == 4 {
            return x;
        }
        let shape = self.dice.factors(x.len(), 4);
        x.reshape(&shape)
    }

    /// A tensor of two dims.
    fn matrix(&mut self) -> Tensor {
        let x = self.any();
        if x.rank() == 2 {
            return x;
        }
        let shape = self.dice.factors(x.len(), 2);
        x.reshape(&shape)
    }

    /// Something that broadcasts with `x`.
    fn partner(&mut self, x: &Tensor) -> Tensor {
        let fitting: Vec<Tensor> = self
            .pool
            .iter()
            .filter(|t| {
                let pairs = t.shape().iter().rev().zip(x.shape().iter().rev());
                t.rank() <= x.rank() && pairs.into_iter().all(|(&a, &b)| a == b || a == 1)
            })
            .cloned()
            .collect();
        if !fitting.is_empty() && self.dice.chance(2) {
            return self.dice.pick(&fitting);
        }
        let mut shape = x.shape().to_vec();
        for size in &mut shape {
            if self.dice.chance(3) {
                *size = 1;
            }
        }
        let dropped = if self.dice.chance(3) { self.dice.below(shape.len() + 1) } else { 0 };
        match self.dice.below(5) {
            0 => Tensor::scalar((self.dice.signed() * 8.0).round() / 4.0),
            _ => self.leaf(&shape[dropped..]),
        }
    }

    /// Adds an operation, or drops it where its results would be up to chance.
    fn grow(&mut self) {
        let leaves = self.leaves.len();
        let Some(candidate) = self.candidate() else { return };
        candidate.check().unwrap_or_else(|error| panic!("{error}\n{}", self.text));
        let float = candidate.float();
        if float.len() > LARGEST || float.is_empty() || !self.values.is_tame(&float) {
            return;
        }
        for leaf in &self.leaves[leaves..] {
            self.text += &format!("  {leaf:?}\n");
        }
        let operands: Vec<String> = candidate.inputs().iter().map(|t| format!("{} {t:?}", t.id())).collect();
        self.text += &format!("  {} {candidate:?} {:?} of {operands:?}\n", candidate.id(), candidate.op());
        self.pool.push(float);
    }

    fn candidate(&mut self) -> Option<Tensor> {
        match self.dice.below(20) {
            0..=2 => self.unary(),
            3..=5 => self.binary(),
            6 => self.select(),
            7 | 8 => self.fold(),
            9 | 10 => {
                let x = self.any();
                Some(self.dice.view(&x, LARGEST))
            }
            11 => self.concatenation(),
            12 | 13 => self.product(),
            14 | 15 => self.convolution(),
            16 => self.pooling(),
            17 => self.indexing(),
            18 => self.normalisation(),
            _ => self.composite(),
        }
    }

    fn least(&self, x: &Tensor, f: impl Fn(f64) -> f64) -> f64 {
        self.values.of(x).iter().map(|&v| f(v)).fold(f64::INFINITY, f64::min)
    }

    fn unary(&mut self) -> Option<Tensor> {
        let x = self.any();
        let op = self.dice.pick(&UnaryOp::ALL);
        let smooth = self.values.of(&x).iter().all(|&v| is_smooth(|v| op.value(v), v));
        smooth.then(|| x.unary(op))
    }

    /// Whether two broadcast operands nowhere come close to each other.
    fn apart(&mut self, a: &Tensor, b: &Tensor) -> bool {
        let difference = a - b;
        self.values.add(&difference);
        self.least(&difference, f64::abs) > MARGIN
    }

    fn comparison(&mut self, x: &Tensor) -> Option<Tensor> {
        let y = self.partner(x);
        let (a, b) = if self.dice.chance(2) { (x, &y) } else { (&y, x) };
        let op = self.dice.pick(&[BinaryOp::Less, BinaryOp::LessEqual, BinaryOp::Equal]);
        self.values.add(&y);
        self.apart(a, b).then(|| a.binary(op, b))
    }

    fn binary(&mut self) -> Option<Tensor> {
        let x = self.any();
        let op = self.dice.pick(&BinaryOp::ALL);
        if matches!(op, BinaryOp::Less | BinaryOp::LessEqual | BinaryOp::Equal) {
            return self.comparison(&x);
        }
        let y = self.partner(&x);
        self.values.add(&y);
        let (a, b) = if self.dice.chance(2) { (&x, &y) } else { (&y, &x) };
        let smooth = match op {
            BinaryOp::Div => self.least(b, f64::abs) > 0.2,
            BinaryOp::Max | BinaryOp::Min => self.apart(a, b),
            _ => true,
        };
        smooth.then(|| a.binary(op, b))
    }

    fn select(&mut self) -> Option<Tensor> {
        let x = self.any();
        let condition = self.comparison(&x)?;
        let (yes, no) = (self.partner(&x), self.partner(&x));
        Some(condition.select(&yes, &no))
    }

    /// Whether the largest value along the axis is clear of the second.
    fn clear(&self, x: &Tensor, axis: usize) -> bool {
        let (size, inner) = (x.dim(axis), x.shape()[axis + 1..].iter().product::<usize>());
        let values = self.values.of(x);
        (0..x.len() / size).all(|line| {
            let start = line / inner * inner * size + line % inner;
            let mut along: Vec<f64> = (0..size).map(|i| values[start + i * inner]).collect();
            along.sort_by(|a, b| b.total_cmp(a));
            along.len() < 2 || along[0] - along[1] > MARGIN
        })
    }

    fn fold(&mut self) -> Option<Tensor> {
        let x = self.any();
        let axes: Vec<usize> = (0..x.rank()).filter(|_| self.dice.chance(2)).collect();
        let axis = axes.first().copied()?;
        match self.dice.below(5) {
            0 => Some(x.sum(&axes)),
            1 => Some(x.mean(&axes)),
            2 => Some(x.variance(&axes)),
            3 => self.clear(&x, axis).then(|| x.max(axis)),
            _ => self.clear(&x, axis).then(|| x.argmax(axis)),
        }
    }

    fn concatenation(&mut self) -> Option<Tensor> {
        let x = self.any();
        let axis = if x.rank() == 0 { return None } else { self.dice.below(x.rank()) };
        let count = if self.dice.chance(3) { self.dice.between(5, 20) } else { self.dice.between(2, 4) };
        let mut parts = vec![x.clone()];
        while parts.len() < count {
            let part = match self.dice.below(3) {
                0 => {
                    let start = self.dice.below(x.dim(axis));
                    x.slice(axis, start, self.dice.between(1, x.dim(axis) - start), 1)
                }
                1 => &x * (self.dice.below(9) as f64 / 4.0 - 1.0),
                _ => {
                    let mut shape = x.shape().to_vec();
                    shape[axis] = self.dice.between(1, 3);
                    self.leaf(&shape)
                }
            };
            parts.push(part);
        }
        let order = self.dice.order(parts.len());
        Some(Tensor::concatenate(&order.iter().map(|&i| &parts[i]).collect::<Vec<_>>(), axis))
    }

    fn product(&mut self) -> Option<Tensor> {
        let x = self.any();
        let x = if x.rank() < 2 { self.matrix() } else { x };
        let mut shape = x.shape().to_vec();
        let rank = shape.len();
        let other = self.dice.between(1, 9);
        if self.dice.chance(2) {
            shape[..rank - 2].iter_mut().for_each(|size| {
                if self.dice.chance(3) {
                    *size = 1;
                }
            });
        } else {
            shape.drain(..rank - 2);
        }
        let last = shape.len();
        if self.dice.chance(2) {
            (shape[last - 2], shape[last - 1]) = (x.dim(rank - 1), other);
            let right = self.leaf(&shape);
            Some(x.matmul(&right))
        } else {
            (shape[last - 2], shape[last - 1]) = (other, x.dim(rank - 2));
            let left = self.leaf(&shape);
            Some(left.matmul(&x))
        }
    }

    fn convolution(&mut self) -> Option<Tensor> {
        let x = self.image();
        let channels = x.dim(3);
        let divisors: Vec<usize> = (1..=channels).filter(|g| channels.is_multiple_of(*g)).collect();
        let groups = if self.dice.chance(2) { 1 } else { self.dice.pick(&divisors) };
        let out = groups * self.dice.between(1, if groups > 2 { 2 } else { 5 });
        let kernel = [self.dice.between(1, 3), self.dice.between(1, 3)];
        let kernel = if self.dice.chance(2) { [3, 3] } else { kernel };
        let mut pair = |low, high| [self.dice.between(low, high), self.dice.between(low, high)];
        let mut conv = Conv2d { stride: pair(1, 2), padding: pair(0, 2), dilation: pair(1, 2), groups };
        if self.dice.chance(2) {
            conv = Conv2d { groups, ..Conv2d::new(1, 1) };
        }
        let fits = |d: usize| x.dim(d + 1) + 2 * conv.padding[d] > conv.dilation[d] * (kernel[d] - 1);
        if !(fits(0) && fits(1)) {
            return None;
        }
        let weight = self.leaf(&[out, channels / groups, kernel[0], kernel[1]]);
        Some(x.conv2d(&weight, conv))
    }

    fn pooling(&mut self) -> Option<Tensor> {
        let x = self.image();
        let [h, w] = [x.dim(1), x.dim(2)];
        let size = [self.dice.between(1, h.min(3)), self.dice.between(1, w.min(3))];
        let stride = [self.dice.between(1, 3), self.dice.between(1, 3)];
        let padding = [self.dice.between(0, size[0] / 2), self.dice.between(0, size[1] / 2)];
        let window = Window { size, stride, padding, count_padding: self.dice.chance(2) };
        if self.dice.chance(4) {
            return Some(x.global_average_pool());
        }
        if self.dice.chance(2) {
            return Some(x.average_pool(window));
        }
        self.values.add(&x);
        self.windows_clear(&x, window).then(|| x.max_pool(window))
    }

    /// Whether the largest value of each window is clear of the second.
    fn windows_clear(&self, x: &Tensor, window: Window) -> bool {
        let [n, h, w, c] = [x.dim(0), x.dim(1), x.dim(2), x.dim(3)];
        let values = self.values.of(x);
        let places = |extent: usize, d: usize| {
            let count = (extent + 2 * window.padding[d] - window.size[d]) / window.stride[d] + 1;
            (0..count).map(move |place| {
                let start = (place * window.stride[d]) as i64 - window.padding[d] as i64;
                start.max(0) as usize..((start + window.size[d] as i64).max(0) as usize).min(extent)
            })
        };
        let clear = |mut inside: Vec<f64>| {
            inside.sort_by(|a, b| b.total_cmp(a));
            inside.len() < 2 || inside[0] - inside[1] > MARGIN
        };
        (0..n * c).all(|image| {
            let at = |y: usize, z: usize| values[((image / c * h + y) * w + z) * c + image % c];
            places(h, 0).all(|rows| {
                places(w, 1).all(|columns| {
                    clear(rows.clone().flat_map(|y| columns.clone().map(move |z| at(y, z))).collect())
                })
            })
        })
    }

    fn indexing(&mut self) -> Option<Tensor> {
        let x = self.matrix();
        let (rows, columns) = (x.dim(0), x.dim(1));
        let name = format!("labels{}", self.pool.len());
        // Now and then out of range: a row of zeros.
        let labels = (0..rows).map(|_| self.dice.below(columns + 1) as i32).collect();
        self.integers(&name, labels);
        let labels = Tensor::input_i32(name, &[rows]);
        match self.dice.below(5) {
            0 => Some(labels.one_hot(columns)),
            1 => Some(x.gather(1, &labels.unsqueeze(1))),
            2 => Some(x.cross_entropy(&labels)),
            3 => {
                self.values.add(&x);
                self.clear(&x, 1).then(|| x.gather(1, &x.argmax(1)))
            }
            _ => {
                let axis = self.dice.below(2);
                let iota = Tensor::iota(x.shape(), axis);
                Some(iota.less(&labels.unsqueeze(1)).select(&x, &iota.float()))
            }
        }
    }

    fn normalisation(&mut self) -> Option<Tensor> {
        let x = self.image();
        let channels = x.dim(3);
        let views = if x.dim(0).is_multiple_of(2) && self.dice.chance(2) { 2 } else { 1 };
        let (gamma, beta) = (self.leaf(&[channels]), self.leaf(&[channels]));
        if self.dice.chance(4) {
            let (mean, variance) = (self.leaf(&[channels]), self.leaf(&[channels]).square() + 0.1);
            return Some(x.batch_norm_eval(&gamma, &beta, &mean, &variance, 1e-5));
        }
        Some(x.batch_norm(&gamma, &beta, 1e-3, views).output)
    }

    fn composite(&mut self) -> Option<Tensor> {
        let x = self.matrix();
        match self.dice.below(7) {
            0 => Some(x.softmax(self.dice.below(2))),
            1 => Some(x.log_softmax(self.dice.below(2))),
            2 => {
                let target = self.leaf(x.shape());
                Some(x.kl_divergence(&target))
            }
            3 => {
                let (seed, step) = (Tensor::input_i32("seed", &[]), Tensor::input_i32("step", &[]));
                let stream = self.pool.len() as u32;
                Some(x.dropout(0.3, &seed, &step, stream))
            }
            4 => Some(x.detach()),
            5 => Some(x.all_reduce(Transfer::F32)),
            _ => Some(x.sigmoid()),
        }
    }

    /// The latest tensors as outputs, gradients of them, and updates of the variables.
    fn finish(mut self, seed: u64) -> Graph {
        let mut dice = Dice::new(!seed);
        let outputs: Vec<Tensor> = self.pool.iter().rev().take(3).cloned().collect();
        let mut program = Program::new();
        let mut loss = Tensor::scalar(0.0);
        for (number, output) in outputs.iter().enumerate() {
            program = program.output(format!("y{number}"), output);
            let upstream = Tensor::constant(output.shape(), dice.values(output.len()));
            loss = loss + (output * upstream).sum_all();
        }
        let gradients = grad(&loss, &self.leaves);
        let mut chosen = Vec::new();
        for (leaf, gradient) in self.leaves.clone().into_iter().zip(gradients) {
            let depends = !matches!(gradient.op(), Op::Full(_));
            if depends && chosen.len() < 4 && self.values.is_tame(&gradient) {
                program = program.output(format!("gradient {leaf:?}"), &gradient);
                chosen.push((leaf, gradient));
            }
        }
        if dice.chance(4)
            && let Some((leaf, gradient)) = chosen.last().cloned()
        {
            let upstream = Tensor::constant(gradient.shape(), dice.values(gradient.len()));
            let again = grad(&(gradient * upstream).sum_all(), &[leaf]).remove(0);
            if self.values.is_tame(&again) {
                program = program.output("gradient of a gradient", &again);
            }
        }
        let mut updates = Vec::new();
        for (leaf, gradient) in &chosen {
            let Op::State(variable) = leaf.op() else { continue };
            let momentum = Variable::full(format!("{}.momentum", variable.name()), leaf.shape(), 0.5);
            let velocity = momentum.tensor() * 0.9 + gradient;
            let value = leaf - &velocity * 0.125;
            if self.values.is_tame(&velocity) && self.values.is_tame(&value) {
                updates.extend([(variable.clone(), value), (momentum.clone(), velocity)]);
                self.variables.push(momentum);
            }
        }
        let program = program.updates(updates);
        Graph { program, inputs: self.inputs, variables: self.variables, text: self.text }
    }
}
