//! What a schedule means: every kernel by its definition, slowly. Devices are tested against it.
//!
//! Programs are evaluated here, one element at a time; folds, products, convolutions and pools are those
//! of [`autograd::evaluate()`]. Values are `f32` as on a device: each instruction's result is rounded, and
//! each fold's and product's, whose sums are made in `f64`.

use autograd::{Tensor, grad, random};
use schedule::*;

/// The outputs after one call with these inputs.
///
/// # Panics
/// If an input is missing, or the schedule reads or writes what is not there.
pub fn evaluate(schedule: &Schedule, inputs: &[(String, Vec<f32>)]) -> Vec<Vec<f32>> {
    let mut memory = Memory::new(schedule, inputs);
    for kernel in schedule.all_kernels() {
        memory.run(&kernel.body);
    }
    let outputs = schedule.outputs.iter();
    outputs.map(|(_, id)| memory.buffer(*id)[..schedule.buffers[*id].len()].to_vec()).collect()
}

/// The contents of all buffers.
pub struct Memory {
    /// Where in `data` each buffer lies.
    places: Vec<usize>,
    data: Vec<Vec<f32>>,
}

/// A value on its way to an element.
type Write = (BufferId, i64, f32);

impl Memory {
    /// Buffers with these contents, each by itself.
    pub fn of(buffers: &[Vec<f32>]) -> Memory {
        Memory { places: (0..buffers.len()).collect(), data: buffers.to_vec() }
    }

    /// What a schedule finds at its first call; NaN where nothing is yet.
    ///
    /// # Panics
    /// If an input is missing.
    pub fn new(schedule: &Schedule, inputs: &[(String, Vec<f32>)]) -> Memory {
        let places = schedule.memories();
        let mut data = vec![Vec::new(); places.iter().max().map_or(0, |last| last + 1)];
        for (buffer, &place) in schedule.buffers.iter().zip(&places) {
            data[place] = match &buffer.role {
                Role::Temporary { slot } => vec![f32::NAN; schedule.slots[*slot]],
                Role::Input { name, .. } => {
                    let given = inputs.iter().find(|(other, _)| other == name);
                    given.unwrap_or_else(|| panic!("input `{name}` is missing")).1.clone()
                }
                Role::State(variable) => variable.initial().to_vec(),
                Role::Constant(values) => values.to_vec(),
                Role::Prepared | Role::Output => vec![f32::NAN; buffer.len()],
            };
        }
        Memory { places, data }
    }

    /// A buffer's contents.
    pub fn buffer(&self, buffer: BufferId) -> &[f32] {
        &self.data[self.places[buffer]]
    }

    /// Runs one kernel.
    pub fn run(&mut self, body: &Body) {
        let mut writes = Vec::new();
        match body {
            Body::Map { parts } => {
                parts.iter().for_each(|p| self.map(&p.shape, &p.program, &[], &p.stores, &mut writes));
            }
            Body::Reduce { shape, outer, program, accumulators, finish, stores } => {
                let kept = &shape[..*outer];
                let values = self.values(shape, program, &[]);
                let space = [kept.iter().product(), shape[*outer..].iter().product(), 1];
                let totals = accumulators.iter().map(|(kind, reg)| fold(*kind, space, &values, *reg));
                self.map(kept, finish, &totals.collect::<Vec<_>>(), stores, &mut writes);
            }
            Body::MatMul { batch, m, n, k, lhs, rhs, epilogue } => {
                let (a, b) = (Tensor::input("a", &[*batch, *m, *k]), Tensor::input("b", &[*batch, *k, *n]));
                let given = [("a", self.operand(lhs)), ("b", self.operand(rhs))];
                self.finish(epilogue, of(&a.matmul(&b), given), &mut writes);
            }
            Body::Convolution { kind, geometry: g, lhs, rhs, epilogue } => {
                let x = Tensor::input("x", &[g.batch, g.height, g.width, g.in_channels]);
                let group = g.in_channels / g.conv.groups;
                let w = Tensor::input("w", &[g.out_channels, group, g.kernel[0], g.kernel[1]]);
                let y = x.conv2d(&w, g.conv);
                let along = (&y * Tensor::input("dy", y.shape())).sum_all();
                let (result, names) = match kind {
                    ConvKind::Forward => (y, ["x", "w"]),
                    ConvKind::InputGrad => (grad(&along, &[x]).remove(0), ["dy", "w"]),
                    ConvKind::WeightGrad => (grad(&along, &[w]).remove(0), ["x", "dy"]),
                };
                let given = [(names[0], self.operand(lhs)), (names[1], self.operand(rhs))];
                self.finish(epilogue, of(&result, given), &mut writes);
            }
            // Here is one process.
            Body::AllReduce { input, output, .. } => {
                let sum = self.buffer(*input).to_vec().into_iter().enumerate();
                writes.extend(sum.map(|(at, value)| (*output, at as i64, value)));
            }
            Body::Pool { kind, geometry: g, inputs, output } => {
                let x = Tensor::input("x", &[g.batch, g.height, g.width, g.channels]);
                let is_max = matches!(kind, PoolKind::MaxGather | PoolKind::MaxScatter);
                let y = if is_max { x.max_pool(g.window) } else { x.average_pool(g.window) };
                let dy = Tensor::input("dy", y.shape());
                let scattered = grad(&(&y * &dy).sum_all(), std::slice::from_ref(&x)).remove(0);
                let source = Tensor::input("source", x.shape());
                let (result, names) = match kind {
                    // Gathering is to scattering what scattering is to the maximum.
                    PoolKind::MaxGather => {
                        (grad(&(scattered * source).sum_all(), &[dy]).remove(0), vec!["x", "source"])
                    }
                    PoolKind::MaxScatter => (scattered, vec!["x", "dy"]),
                    PoolKind::Average => (y, vec!["x"]),
                    PoolKind::AverageTransposed => (scattered, vec!["dy"]),
                };
                let given = names.into_iter().zip(inputs.iter().map(|&input| self.buffer(input).to_vec()));
                let result = of(&result, given).into_iter().enumerate();
                writes.extend(result.map(|(at, value)| (*output, at as i64, value)));
            }
        }
        for (buffer, at, value) in writes {
            self.data[self.places[buffer]][usize::try_from(at).expect("an element")] = value;
        }
    }

    /// All registers of a program at every index of a shape, where the accumulators are these tensors.
    fn values(&self, shape: &[usize], program: &Program, accumulators: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let all = indices(shape).enumerate();
        all.map(|(position, index)| self.registers(program, &index, position, accumulators)).collect()
    }

    fn map(
        &self,
        shape: &[usize],
        program: &Program,
        accumulators: &[Vec<f32>],
        stores: &[Store],
        writes: &mut Vec<Write>,
    ) {
        for (index, values) in indices(shape).zip(self.values(shape, program, accumulators)) {
            let at = |view: &View| affine(view.offset, &view.strides, &index);
            writes.extend(stores.iter().map(|s| (s.buffer, at(&s.view), values[s.value])));
        }
    }

    fn operand(&self, operand: &Operand) -> Vec<f32> {
        let values = self.values(&operand.shape, &operand.program, &[]);
        values.iter().map(|registers| registers[operand.value]).collect()
    }

    fn finish(&self, epilogue: &Epilogue, result: Vec<f32>, writes: &mut Vec<Write>) {
        let Epilogue { shape, program, stores, fold: channels } = epilogue;
        let accumulators = [result];
        self.map(shape, program, &accumulators, stores, writes);
        let Some(channels) = channels else { return };
        let values = self.values(shape, program, &accumulators);
        let (kept, last) = (channels.kept, shape.len() - 1);
        let space = [shape[..kept].iter().product(), shape[kept..last].iter().product(), shape[last]];
        let totals = channels.accumulators.iter().map(|(kind, reg)| fold(*kind, space, &values, *reg));
        let totals: Vec<_> = totals.collect();
        self.map(&channels.space(shape), &channels.finish, &totals, &channels.stores, writes);
    }

    fn registers(
        &self,
        program: &Program,
        index: &[i64],
        position: usize,
        accumulators: &[Vec<f32>],
    ) -> Vec<f32> {
        let at = |view: &View| affine(view.offset, &view.strides, index);
        let holds = |b: &Bound| (0..b.extent).contains(&affine(b.offset, &b.strides, index));
        let exists = |view: &View| view.bounds.iter().all(holds);
        let mut values: Vec<f32> = Vec::with_capacity(program.instrs.len());
        for instr in &program.instrs {
            let wide = |reg: &Reg| f64::from(values[*reg]);
            let value = match instr {
                Instr::Load { buffer, view } if exists(view) => {
                    self.buffer(*buffer)[usize::try_from(at(view)).expect("an element")]
                }
                Instr::Load { .. } => 0.0,
                Instr::Constant(value) => *value,
                Instr::Index(view) => at(view) as f32,
                Instr::InBounds(view) => f32::from(u8::from(exists(view))),
                Instr::Unary(op, a) => op.value(wide(a)) as f32,
                Instr::Binary(op, a, b) => op.value(wide(a), wide(b)) as f32,
                Instr::Select { condition, yes, no } => {
                    values[if values[*condition] != 0.0 { *yes } else { *no }]
                }
                Instr::Random { stream, index, seed, step } => {
                    let [seed, step] = [seed, step].map(|reg| values[*reg] as i64 as u32);
                    random::uniform(seed, step, *stream, at(index) as u32)
                }
                Instr::Accumulator(number) => accumulators[*number][position],
            };
            values.push(value);
        }
        values
    }
}

/// The value of an expression of these inputs.
fn of<'a>(tensor: &Tensor, inputs: impl IntoIterator<Item = (&'a str, Vec<f32>)>) -> Vec<f32> {
    let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect();
    let inputs = inputs.into_iter().map(|(name, values)| (name.to_string(), wide(values))).collect();
    let none = Default::default();
    let values = autograd::evaluate(std::slice::from_ref(tensor), &inputs, &none, &none);
    let values = values.unwrap_or_else(|error| panic!("{error}"));
    values[0].iter().map(|&value| value as f32).collect()
}

/// Folds the middle of three dims of a register's values.
fn fold(kind: ReduceKind, space: [usize; 3], values: &[Vec<f32>], reg: Reg) -> Vec<f32> {
    let x = Tensor::input("x", &space);
    let total = match kind {
        ReduceKind::Sum => x.sum(&[1]),
        ReduceKind::Max => x.max(1),
        ReduceKind::Variance => x.variance(&[1]),
        ReduceKind::ArgMax => x.argmax(1),
    };
    of(&total, [("x", values.iter().map(|registers| registers[reg]).collect())])
}

/// Every index of a shape, row-major.
fn indices(shape: &[usize]) -> impl Iterator<Item = Vec<i64>> {
    (0..shape.iter().product()).map(|position: usize| {
        let mut rest = position;
        let mut index: Vec<i64> = shape
            .iter()
            .rev()
            .map(|size| {
                let i = rest % size;
                rest /= size;
                i as i64
            })
            .collect();
        index.reverse();
        index
    })
}

fn affine(offset: i64, strides: &[i64], index: &[i64]) -> i64 {
    strides.iter().zip(index).fold(offset, |sum, (stride, i)| sum + stride * i)
}
