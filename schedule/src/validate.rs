//! Checks a schedule before it is compiled: kernels trust what they are given, so nothing that could
//! read or write outside of a buffer may reach them.

use std::collections::HashMap;

use autograd::{Error, Result};

use crate::ir::*;

/// Every kernel's registers, views and sizes.
pub fn validate(schedule: &Schedule) -> Result<()> {
    let check = Check { schedule };
    for (id, buffer) in schedule.buffers.iter().enumerate() {
        let fits = match &buffer.role {
            Role::Temporary { slot } => schedule.slots.get(*slot).is_some_and(|&len| buffer.len() <= len),
            Role::State(variable) => variable.len() == buffer.len(),
            Role::Constant(values) => values.len() == buffer.len(),
            Role::Input { .. } | Role::Prepared | Role::Output => true,
        };
        if !fits {
            let message =
                format!("buffer {id} `{}` {:?} does not fit its memory", buffer.label, buffer.shape);
            return Err(Error::Step(message));
        }
    }
    for (name, buffer) in &schedule.outputs {
        check.buffer(*buffer).map_err(|message| Error::Step(format!("output `{name}`: {message}")))?;
    }
    for buffer in &schedule.updated {
        check.buffer(*buffer).map_err(Error::Step)?;
    }
    for kernel in schedule.all_kernels() {
        check
            .kernel(kernel)
            .map_err(|message| Error::Step(format!("kernel `{}`: {message}", kernel.label)))?;
    }
    Ok(())
}

struct Check<'a> {
    schedule: &'a Schedule,
}

type Checked = std::result::Result<(), String>;

impl Check<'_> {
    fn buffer(&self, buffer: BufferId) -> Checked {
        if buffer < self.schedule.buffers.len() { Ok(()) } else { Err(format!("no buffer {buffer}")) }
    }

    fn len(&self, buffer: BufferId, len: usize) -> Checked {
        self.buffer(buffer)?;
        let actual = self.schedule.buffers[buffer].len();
        if actual == len { Ok(()) } else { Err(format!("buffer {buffer} has {actual} elements, not {len}")) }
    }

    fn kernel(&self, kernel: &Kernel) -> Checked {
        match &kernel.body {
            Body::Map { parts } => {
                for part in parts {
                    self.program(&part.shape, &part.program, 0)?;
                    self.stores(&part.shape, &part.program, &part.stores)?;
                }
                self.independent(parts)
            }
            Body::Reduce { shape, outer, program, accumulators, finish, stores } => {
                let kept = shape.get(..*outer).ok_or("more outer dims than dims")?;
                self.program(shape, program, 0)?;
                for (_, value) in accumulators {
                    register(program, *value)?;
                }
                self.program(kept, finish, accumulators.len())?;
                self.stores(kept, finish, stores)
            }
            Body::MatMul { batch, m, n, k, lhs, rhs, epilogue } => {
                self.operand(lhs, &[*batch, *m, *k])?;
                self.operand(rhs, &[*batch, *k, *n])?;
                self.epilogue(epilogue, &[*batch, *m, *n])
            }
            Body::Convolution { kind, geometry: g, lhs, rhs, epilogue } => {
                use ConvKind::{Forward, InputGrad, WeightGrad};
                if !g.is_valid() {
                    return Err(format!("{g:?} is not a convolution"));
                }
                let (x, w, y) = (g.input_shape(), g.weight_shape(), g.output_shape());
                let (left, right, result) = match kind {
                    Forward => (x, w, y),
                    InputGrad => (y, w, x),
                    WeightGrad => (x, y, w),
                };
                self.operand(lhs, &left)?;
                self.operand(rhs, &right)?;
                self.epilogue(epilogue, &result)?;
                if *kind == WeightGrad && epilogue.fold.is_some() {
                    return Err("a weight gradient has no channels to reduce".into());
                }
                Ok(())
            }
            Body::Pool { kind, geometry: g, inputs, output } => {
                let x = g.batch * g.height * g.width * g.channels;
                let y = g.batch * g.out_height * g.out_width * g.channels;
                let (sizes, result) = match kind {
                    PoolKind::MaxGather => (vec![x, x], y),
                    PoolKind::MaxScatter => (vec![x, y], x),
                    PoolKind::Average => (vec![x], y),
                    PoolKind::AverageTransposed => (vec![y], x),
                };
                if inputs.len() != sizes.len() {
                    return Err(format!("{} inputs, not {}", inputs.len(), sizes.len()));
                }
                inputs.iter().zip(sizes).try_for_each(|(&input, size)| self.len(input, size))?;
                self.len(*output, result)
            }
            Body::AllReduce { input, output, .. } => {
                self.buffer(*input)?;
                self.len(*output, self.schedule.buffers[*input].len())
            }
        }
    }

    /// No part may read what another writes; buffers of one slot or variable are one memory.
    fn independent(&self, parts: &[Map]) -> Checked {
        let memories = self.schedule.memories();
        const SEVERAL: usize = usize::MAX;
        let mut writer: HashMap<usize, (BufferId, usize)> = HashMap::new();
        for (number, part) in parts.iter().enumerate() {
            for buffer in part.stores.iter().map(|store| store.buffer) {
                let (other, first) = writer.entry(memories[buffer]).or_insert((buffer, number));
                if *first != number && *other != buffer {
                    return Err(format!("parts {first} and {number} write to one memory"));
                }
                if *first != number {
                    *first = SEVERAL;
                }
            }
        }
        for (number, part) in parts.iter().enumerate() {
            for buffer in part.program.buffers() {
                if writer.get(&memories[buffer]).is_some_and(|(_, by)| *by != number) {
                    return Err(format!("part {number} reads buffer {buffer}, which another part writes"));
                }
            }
        }
        Ok(())
    }

    /// `shape`'s first dim may be split into several.
    fn split_shape(&self, shape: &[usize], expected: &[usize]) -> Checked {
        let fits = shape.len() >= expected.len()
            && shape[shape.len() + 1 - expected.len()..] == expected[1..]
            && shape[..shape.len() + 1 - expected.len()].iter().product::<usize>() == expected[0];
        if fits { Ok(()) } else { Err(format!("shape {shape:?}, not {expected:?}")) }
    }

    fn operand(&self, operand: &Operand, expected: &[usize]) -> Checked {
        self.split_shape(&operand.shape, expected)?;
        self.program(&operand.shape, &operand.program, 0)?;
        register(&operand.program, operand.value)
    }

    fn epilogue(&self, epilogue: &Epilogue, expected: &[usize]) -> Checked {
        let Epilogue { shape, program, stores, fold } = epilogue;
        self.split_shape(shape, expected)?;
        self.program(shape, program, 1)?;
        self.stores(shape, program, stores)?;
        let Some(fold) = fold else { return Ok(()) };
        let ChannelFold { kept, accumulators, finish, stores } = fold;
        let images = shape.len() + 1 - expected.len();
        if *kept > images || shape.len() < 2 {
            return Err(format!("a fold keeps {kept} dims of {shape:?}"));
        }
        for (kind, value) in accumulators {
            register(program, *value)?;
            if !matches!(kind, ReduceKind::Sum | ReduceKind::Variance) {
                return Err(format!("{kind:?} of channels"));
            }
        }
        let space = fold.space(shape);
        self.program(&space, finish, accumulators.len())?;
        self.stores(&space, finish, stores)
    }

    fn program(&self, shape: &[usize], program: &Program, accumulators: usize) -> Checked {
        for (number, instr) in program.instrs.iter().enumerate() {
            if let Some(later) = instr.operands().find(|&operand| operand >= number) {
                return Err(format!("instruction {number} uses {later} before it is computed"));
            }
            if let Some(view) = instr.view() {
                dims(shape, view)?;
            }
            match instr {
                Instr::Load { buffer, view } => self.view(shape, *buffer, view)?,
                Instr::Accumulator(index) if *index >= accumulators => {
                    return Err(format!("no accumulator {index} here"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn stores(&self, shape: &[usize], program: &Program, stores: &[Store]) -> Checked {
        for store in stores {
            register(program, store.value)?;
            dims(shape, &store.view)?;
            if !store.view.bounds.is_empty() {
                return Err("a store with bounds".into());
            }
            self.view(shape, store.buffer, &store.view)?;
        }
        Ok(())
    }

    /// Whether a view stays inside its buffer wherever its bounds hold.
    fn view(&self, shape: &[usize], buffer: BufferId, view: &View) -> Checked {
        self.buffer(buffer)?;
        let Some((low, high)) = reach(shape, view) else { return Ok(()) };
        let len = self.schedule.buffers[buffer].len() as i64;
        if low < 0 || high >= len {
            return Err(format!("a view of {shape:?} reaches elements {low} to {high} of {len}: {view:?}"));
        }
        Ok(())
    }
}

fn register(program: &Program, value: usize) -> Checked {
    if value < program.instrs.len() { Ok(()) } else { Err(format!("no instruction {value}")) }
}

fn dims(shape: &[usize], view: &View) -> Checked {
    let fits = |strides: &Vec<i64>| strides.len() == shape.len();
    if fits(&view.strides) && view.bounds.iter().all(|bound| fits(&bound.strides)) {
        return Ok(());
    }
    Err(format!("a view without one stride for each dim of {shape:?}: {view:?}"))
}

/// The smallest and largest element that a view reaches; nothing if it reaches none, or if a bound
/// depends on several dims: loads with bounds also check every row of elements themselves.
fn reach(shape: &[usize], view: &View) -> Option<(i64, i64)> {
    if shape.contains(&0) {
        return None;
    }
    // The range of each index that the bounds of one dim leave.
    let mut ranges: Vec<(i64, i64)> = shape.iter().map(|&size| (0, size as i64 - 1)).collect();
    for bound in &view.bounds {
        let mut moving = (0..shape.len()).filter(|&d| bound.strides[d] != 0 && shape[d] > 1);
        match (moving.next(), moving.next()) {
            (None, _) if (0..bound.extent).contains(&bound.offset) => {}
            (None, _) => return None,
            (Some(dim), None) => {
                let stride = bound.strides[dim];
                // 0 <= offset + stride * i <= extent - 1
                let (a, b) = (-bound.offset, bound.extent - 1 - bound.offset);
                let (least, most) = if stride > 0 {
                    (a.div_euclid(stride) + (a.rem_euclid(stride) != 0) as i64, b.div_euclid(stride))
                } else {
                    let (a, b, stride) = (-b, -a, -stride);
                    (a.div_euclid(stride) + (a.rem_euclid(stride) != 0) as i64, b.div_euclid(stride))
                };
                ranges[dim] = (ranges[dim].0.max(least), ranges[dim].1.min(most));
            }
            (Some(_), Some(_)) => return None,
        }
    }
    if ranges.iter().any(|(low, high)| low > high) {
        return None;
    }
    Some(extremes(view.offset, &view.strides, &ranges))
}

fn extremes(offset: i64, strides: &[i64], ranges: &[(i64, i64)]) -> (i64, i64) {
    strides.iter().zip(ranges).fold((offset, offset), |(low, high), (&stride, &(first, last))| {
        let (a, b) = (stride * first, stride * last);
        (low + a.min(b), high + a.max(b))
    })
}
