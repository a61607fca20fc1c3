//! A schedule evaluated by plain loops in `f64`: slow, and short enough to be believed.

use std::collections::HashMap;

use autograd::random::uniform;
use autograd::tensor::{BinaryOp, UnaryOp};
use schedule::Schedule;
use schedule::ir::*;

/// Memory by buffer; slots are shared through `place`.
struct Memory {
    place: Vec<usize>,
    data: Vec<Vec<f64>>,
}

impl Memory {
    fn of(&self, buffer: BufferId) -> &Vec<f64> {
        &self.data[self.place[buffer]]
    }
    fn set(&mut self, buffer: BufferId, at: i64, value: f64) {
        let place = self.place[buffer];
        self.data[place][usize::try_from(at).unwrap()] = value;
    }
}

/// The outputs after one call with these inputs.
pub fn run(schedule: &Schedule, inputs: &[(String, Vec<f32>)]) -> Vec<Vec<f64>> {
    let mut slots: HashMap<usize, usize> = HashMap::new();
    let mut memory = Memory { place: Vec::new(), data: Vec::new() };
    for buffer in &schedule.buffers {
        let contents: Vec<f64> = match &buffer.role {
            Role::Input { name, .. } => {
                let (_, values) = inputs.iter().find(|(n, _)| n == name).unwrap();
                values.iter().map(|&v| f64::from(v)).collect()
            }
            Role::State(variable) => variable.initial().iter().map(|&v| f64::from(v)).collect(),
            Role::Constant(values) => values.iter().map(|&v| f64::from(v)).collect(),
            Role::Temporary { slot } => {
                let next = memory.data.len();
                let place = *slots.entry(*slot).or_insert(next);
                if place != next {
                    memory.place.push(place);
                    continue;
                }
                vec![f64::NAN; schedule.slots[*slot]]
            }
            Role::Prepared | Role::Output => vec![f64::NAN; buffer.len()],
        };
        memory.place.push(memory.data.len());
        memory.data.push(contents);
    }
    for kernel in schedule.prepare.iter().chain(&schedule.kernels) {
        run_kernel(&kernel.body, &mut memory);
    }
    let outputs = schedule.outputs.iter();
    outputs.map(|(_, id)| memory.of(*id)[..schedule.buffers[*id].len()].to_vec()).collect()
}

fn run_kernel(body: &Body, memory: &mut Memory) {
    let mut writes: Vec<(BufferId, i64, f64)> = Vec::new();
    match body {
        Body::Map { shape, program, stores } => {
            for index in indices(shape) {
                let values = evaluate(program, &index, &[], memory);
                store(stores, &index, &values, &mut writes);
            }
        }
        Body::Maps { parts } => {
            for MapPart { shape, program, stores } in parts {
                for index in indices(shape) {
                    let values = evaluate(program, &index, &[], memory);
                    store(stores, &index, &values, &mut writes);
                }
            }
        }
        Body::Reduce { shape, outer, program, accumulators, finish, stores } => {
            for o in indices(&shape[..*outer]) {
                let mut folded: Vec<Vec<f64>> = vec![Vec::new(); accumulators.len()];
                for inner in indices(&shape[*outer..]) {
                    let index: Vec<i64> = o.iter().chain(&inner).copied().collect();
                    let values = evaluate(program, &index, &[], memory);
                    for (k, (_, reg)) in accumulators.iter().enumerate() {
                        folded[k].push(values[*reg]);
                    }
                }
                let results: Vec<f64> =
                    accumulators.iter().zip(&folded).map(|((kind, _), v)| fold(*kind, v)).collect();
                let values = evaluate(finish, &o, &results, memory);
                store(stores, &o, &values, &mut writes);
            }
        }
        Body::MatMul { batch, m, n, k, lhs, rhs, epilogue } => {
            let a = materialise(lhs, memory);
            let b = materialise(rhs, memory);
            let mut product = vec![0.0; batch * m * n];
            for z in 0..*batch {
                for i in 0..*m {
                    for j in 0..*n {
                        let terms = (0..*k).map(|l| a[(z * m + i) * k + l] * b[(z * k + l) * n + j]);
                        product[(z * m + i) * n + j] = terms.sum();
                    }
                }
            }
            finish(epilogue, &product, memory, &mut writes);
        }
        Body::Convolution { kind, geometry, lhs, rhs, epilogue } => {
            let result = convolution(*kind, geometry, &materialise(lhs, memory), &materialise(rhs, memory));
            finish(epilogue, &result, memory, &mut writes);
        }
        Body::Pool { kind, geometry, inputs, output } => {
            let inputs: Vec<&Vec<f64>> = inputs.iter().map(|&b| memory.of(b)).collect();
            let result = pool(*kind, geometry, &inputs);
            writes.extend(result.into_iter().enumerate().map(|(i, v)| (*output, i as i64, v)));
        }
    }
    writes.into_iter().for_each(|(buffer, at, value)| memory.set(buffer, at, value));
}

fn store(stores: &[Store], index: &[i64], values: &[f64], writes: &mut Vec<(BufferId, i64, f64)>) {
    writes.extend(
        stores.iter().map(|s| (s.buffer, at(s.view.offset, &s.view.strides, index), values[s.value])),
    );
}

fn finish(epilogue: &Epilogue, result: &[f64], memory: &Memory, writes: &mut Vec<(BufferId, i64, f64)>) {
    let shape = &epilogue.shape;
    let channels = *shape.last().unwrap();
    let mut columns: Vec<HashMap<usize, Vec<f64>>> = vec![HashMap::new(); epilogue.channel_reductions.len()];
    for (i, index) in indices(shape).into_iter().enumerate() {
        let values = evaluate(&epilogue.program, &index, &[result[i]], memory);
        store(&epilogue.stores, &index, &values, writes);
        for (r, reduction) in epilogue.channel_reductions.iter().enumerate() {
            let kept = (0..epilogue.kept).fold(0, |p, d| p * shape[d] + index[d] as usize);
            let column = kept * channels + *index.last().unwrap() as usize;
            columns[r].entry(column).or_default().push(values[reduction.value]);
        }
    }
    for (reduction, columns) in epilogue.channel_reductions.iter().zip(&columns) {
        for (column, values) in columns {
            writes.push((reduction.output, *column as i64, fold(reduction.kind, values)));
        }
    }
}

fn fold(kind: ReduceKind, values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let first_largest = || {
        let mut best = 0;
        for (i, v) in values.iter().enumerate() {
            if *v > values[best] || (v.is_nan() && !values[best].is_nan()) {
                best = i;
            }
        }
        best
    };
    match kind {
        ReduceKind::Sum => values.iter().sum(),
        ReduceKind::Max => values[first_largest()],
        ReduceKind::ArgMax => first_largest() as f64,
        ReduceKind::Variance => {
            let mean = values.iter().sum::<f64>() / n;
            values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n
        }
    }
}

fn materialise(operand: &Operand, memory: &Memory) -> Vec<f64> {
    let all = indices(&operand.shape).into_iter();
    all.map(|index| evaluate(&operand.program, &index, &[], memory)[operand.value]).collect()
}

/// Every index of a shape, row-major.
pub fn indices(shape: &[usize]) -> Vec<Vec<i64>> {
    let mut all = vec![vec![]];
    for &size in shape {
        all = all
            .into_iter()
            .flat_map(|index: Vec<i64>| {
                (0..size as i64).map(move |i| index.iter().copied().chain([i]).collect())
            })
            .collect();
    }
    all
}

fn at(offset: i64, strides: &[i64], index: &[i64]) -> i64 {
    offset + strides.iter().zip(index).map(|(s, i)| s * i).sum::<i64>()
}

fn within(view: &View, index: &[i64]) -> bool {
    view.bounds.iter().all(|b| (0..b.extent).contains(&at(b.offset, &b.strides, index)))
}

fn evaluate(program: &Program, index: &[i64], accumulators: &[f64], memory: &Memory) -> Vec<f64> {
    let mut values: Vec<f64> = Vec::with_capacity(program.instrs.len());
    for instr in &program.instrs {
        let value = match instr {
            Instr::Load { buffer, view } if within(view, index) => {
                memory.of(*buffer)[usize::try_from(at(view.offset, &view.strides, index)).unwrap()]
            }
            Instr::Load { .. } => 0.0,
            Instr::Constant(c) => f64::from(*c),
            Instr::Index(view) => at(view.offset, &view.strides, index) as f64,
            Instr::InBounds(view) => f64::from(u8::from(within(view, index))),
            Instr::Unary(op, a) => unary(*op, values[*a]),
            Instr::Binary(op, a, b) => binary(*op, values[*a], values[*b]),
            Instr::Select { condition, yes, no } => {
                values[if values[*condition] != 0.0 { *yes } else { *no }]
            }
            Instr::Random { stream, index: view, seed, step } => {
                let position = at(view.offset, &view.strides, index) as u32;
                f64::from(uniform(values[*seed] as u32, values[*step] as u32, *stream, position))
            }
            Instr::Accumulator(k) => accumulators[*k],
        };
        values.push(value);
    }
    values
}

fn unary(op: UnaryOp, a: f64) -> f64 {
    match op {
        UnaryOp::Neg => -a,
        UnaryOp::Exp => a.exp(),
        UnaryOp::Log => a.ln(),
        UnaryOp::Sqrt => a.sqrt(),
        UnaryOp::Abs => a.abs(),
        UnaryOp::Reciprocal => 1.0 / a,
        UnaryOp::Tanh => a.tanh(),
        UnaryOp::Relu => {
            if a <= 0.0 {
                0.0
            } else {
                a
            }
        }
        UnaryOp::Sign => {
            if a > 0.0 {
                1.0
            } else if a < 0.0 {
                -1.0
            } else {
                0.0
            }
        }
        UnaryOp::Floor => a.floor(),
    }
}

fn binary(op: BinaryOp, a: f64, b: f64) -> f64 {
    let truth = |t: bool| f64::from(u8::from(t));
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Max if a.is_nan() || b.is_nan() => f64::NAN,
        BinaryOp::Min if a.is_nan() || b.is_nan() => f64::NAN,
        BinaryOp::Max => {
            if a >= b {
                a
            } else {
                b
            }
        }
        BinaryOp::Min => {
            if a <= b {
                a
            } else {
                b
            }
        }
        BinaryOp::Less => truth(a < b),
        BinaryOp::LessEqual => truth(a <= b),
        BinaryOp::Equal => truth(a == b),
    }
}

fn convolution(kind: ConvKind, g: &ConvGeometry, lhs: &[f64], rhs: &[f64]) -> Vec<f64> {
    let [kh, kw] = g.kernel;
    let (group_in, group_out) = (g.in_channels / g.conv.groups, g.out_channels / g.conv.groups);
    let x_len = g.batch * g.height * g.width * g.in_channels;
    let y_len = g.batch * g.out_height * g.out_width * g.out_channels;
    let w_len = g.out_channels * group_in * kh * kw;
    let mut result = vec![
        0.0;
        match kind {
            ConvKind::Forward => y_len,
            ConvKind::InputGrad => x_len,
            ConvKind::WeightGrad => w_len,
        }
    ];
    for index in indices(&[g.batch, g.out_height, g.out_width, g.out_channels, kh, kw]) {
        let [n, oy, ox, co, r, s] = [0, 1, 2, 3, 4, 5].map(|d| index[d] as usize);
        let y = (oy * g.conv.stride[0] + r * g.conv.dilation[0]).wrapping_sub(g.conv.padding[0]);
        let x = (ox * g.conv.stride[1] + s * g.conv.dilation[1]).wrapping_sub(g.conv.padding[1]);
        if y >= g.height || x >= g.width {
            continue;
        }
        for ci in 0..group_in {
            let c = co / group_out * group_in + ci;
            let at_x = ((n * g.height + y) * g.width + x) * g.in_channels + c;
            let at_y = ((n * g.out_height + oy) * g.out_width + ox) * g.out_channels + co;
            let at_w = ((co * group_in + ci) * kh + r) * kw + s;
            match kind {
                ConvKind::Forward => result[at_y] += lhs[at_x] * rhs[at_w],
                ConvKind::InputGrad => result[at_x] += lhs[at_y] * rhs[at_w],
                ConvKind::WeightGrad => result[at_w] += lhs[at_x] * rhs[at_y],
            }
        }
    }
    result
}

fn pool(kind: PoolKind, g: &PoolGeometry, inputs: &[&Vec<f64>]) -> Vec<f64> {
    let image = |n: usize, y: usize, x: usize, c: usize| ((n * g.height + y) * g.width + x) * g.channels + c;
    let is_output = matches!(kind, PoolKind::MaxGather | PoolKind::Average);
    let (height, width) = if is_output { (g.out_height, g.out_width) } else { (g.height, g.width) };
    let mut result = vec![0.0; g.batch * height * width * g.channels];
    for (o, index) in indices(&[g.batch, g.out_height, g.out_width, g.channels]).into_iter().enumerate() {
        let [n, oy, ox, c] = [0, 1, 2, 3].map(|d| index[d] as usize);
        let mut window = Vec::new();
        for r in 0..g.window.size[0] {
            for s in 0..g.window.size[1] {
                let y = (oy * g.window.stride[0] + r).wrapping_sub(g.window.padding[0]);
                let x = (ox * g.window.stride[1] + s).wrapping_sub(g.window.padding[1]);
                if y < g.height && x < g.width {
                    window.push(image(n, y, x, c));
                }
            }
        }
        let area = g.window.size[0] * g.window.size[1];
        let divisor = if g.window.count_padding { area } else { window.len() } as f64;
        let largest = || {
            let values: Vec<f64> = window.iter().map(|&p| inputs[0][p]).collect();
            window[fold(ReduceKind::ArgMax, &values) as usize]
        };
        match kind {
            PoolKind::MaxGather => result[o] = inputs[1][largest()],
            PoolKind::MaxScatter => result[largest()] += inputs[1][o],
            PoolKind::Average => result[o] = window.iter().map(|&p| inputs[0][p]).sum::<f64>() / divisor,
            PoolKind::AverageTransposed => window.iter().for_each(|&p| result[p] += inputs[0][o] / divisor),
        }
    }
    result
}
