//! Which temporaries are stored in 16 bits, or in pairs of 16, where convolutions round what they multiply so.

use std::collections::BTreeSet;

use schedule::{
    Body, BufferId, ConvKind, Instr, Kernel, Operand, Program, ReduceKind, Reg, Role, Schedule, Store,
};

use crate::convolution;
use crate::element::Element;
use crate::target::Target;

/// For every buffer how it is stored: in 16 bits the images of activations, the largest tensors of a step. They
/// are what forward convolutions and variances read, and what maps and forward convolutions make that of.
/// Nothing of the backward pass is: unscaled, many gradients are below the smallest that 16 bits hold. Nor is
/// what is read elsewhere than in kernels, what lives longer than a call, and what is small: statistics.
///
/// Pairs save no memory, only work for convolutions that read them as they are: nothing else is stored in them.
pub fn elements(schedule: &Schedule, target: &Target) -> Vec<Element> {
    let mut elements = vec![Element::F32; schedule.buffers.len()];
    let read = match target.operands.element() {
        Element::F32 => return elements,
        Element::F16 => images(schedule),
        Element::Pair => schedule.kernels.iter().filter_map(image_operand).collect(),
    };
    let (mut activations, mut others) = (BTreeSet::new(), BTreeSet::new());
    for kernel in &schedule.kernels {
        match &kernel.body {
            Body::Convolution { kind: ConvKind::Forward, .. } | Body::Map { .. } => {
                activations.extend(kernel.writes());
            }
            // Not by programs, but as plain arrays.
            Body::Pool { .. } | Body::AllReduce { .. } => others.extend(kernel.buffers()),
            Body::Reduce { .. } | Body::MatMul { .. } | Body::Convolution { .. } => {
                others.extend(kernel.writes());
            }
        }
    }
    others.extend(schedule.outputs.iter().map(|(_, buffer)| *buffer));
    for &buffer in read.intersection(&activations).filter(|buffer| !others.contains(buffer)) {
        if matches!(schedule.buffers[buffer].role, Role::Temporary { .. }) {
            elements[buffer] = target.operands.element();
        }
    }
    elements
}

/// What forward convolutions and variances read, or what such a tensor is made of.
fn images(schedule: &Schedule) -> BTreeSet<BufferId> {
    let mut images = Images { schedule, read: BTreeSet::new() };
    // Readers before writers.
    for kernel in schedule.kernels.iter().rev() {
        match &kernel.body {
            Body::Convolution { kind: ConvKind::Forward, lhs, epilogue, .. } => {
                images.through(&epilogue.shape, &epilogue.program, &epilogue.stores);
                images.note(&lhs.shape, &lhs.program, [lhs.value]);
            }
            Body::Map { parts } => {
                parts.iter().for_each(|part| images.through(&part.shape, &part.program, &part.stores));
            }
            Body::Reduce { shape, program, accumulators, .. } => {
                let variances = accumulators.iter().filter(|(kind, _)| *kind == ReduceKind::Variance);
                images.note(shape, program, variances.map(|(_, value)| *value));
            }
            _ => {}
        }
    }
    images.read
}

/// The image that tiles of a forward convolution read as it is, four channels at once.
fn image_operand(kernel: &Kernel) -> Option<BufferId> {
    let Body::Convolution { kind: ConvKind::Forward, geometry, lhs, .. } = &kernel.body else { return None };
    let is_in_fours = (geometry.in_channels / geometry.conv.groups).is_multiple_of(4);
    match lhs.program.instrs[lhs.value] {
        Instr::Load { buffer, .. } if is_in_fours && convolution::is_tiled(&kernel.body) => Some(buffer),
        _ => None,
    }
}

/// Temporaries that nothing but convolutions read, as gradients that they round before they multiply: stored rounded,
/// and scaled as for that, they are the same to the bit.
pub fn gradients(schedule: &Schedule, target: &Target) -> BTreeSet<BufferId> {
    let (mut rounded, mut others) = (BTreeSet::new(), BTreeSet::new());
    if target.operands.element() == Element::F32 {
        return rounded;
    }
    for kernel in &schedule.kernels {
        let mut without = kernel.clone();
        if let Some((operand, buffer)) = gradient(&mut without.body) {
            operand.program = Program::default();
            rounded.insert(buffer);
        }
        others.extend(without.reads());
        // Only maps and epilogues write what is large, and by programs.
        match &kernel.body {
            Body::Pool { .. } | Body::AllReduce { .. } | Body::Reduce { .. } => {
                others.extend(kernel.writes())
            }
            Body::Convolution { epilogue, .. } => {
                others.extend(epilogue.fold.iter().flat_map(|fold| &fold.stores).map(|store| store.buffer));
            }
            Body::Map { .. } | Body::MatMul { .. } => {}
        }
    }
    others.extend(schedule.outputs.iter().map(|(_, buffer)| *buffer));
    let is_temporary = |buffer: &BufferId| matches!(schedule.buffers[*buffer].role, Role::Temporary { .. });
    rounded.retain(|buffer| is_temporary(buffer) && !others.contains(buffer));
    rounded
}

/// The operand of a convolution's gradient that is a gradient itself, where its values are those of a buffer.
pub fn gradient(body: &mut Body) -> Option<(&mut Operand, BufferId)> {
    if !convolution::is_tiled(body) {
        return None;
    }
    let Body::Convolution { kind, lhs, rhs, .. } = body else { return None };
    let operand = match kind.gradients() {
        [true, _] => lhs,
        [_, true] => rhs,
        _ => return None,
    };
    match operand.program.instrs[operand.value] {
        Instr::Load { buffer, .. } => Some((operand, buffer)),
        _ => None,
    }
}

struct Images<'a> {
    schedule: &'a Schedule,
    read: BTreeSet<BufferId>,
}

impl Images<'_> {
    /// Notes what some registers of a program over a space are made of, as far as it is of about its size.
    fn note(&mut self, shape: &[usize], program: &Program, values: impl IntoIterator<Item = Reg>) {
        let len: usize = shape.iter().product();
        let loads = program.needed(values).filter_map(|(_, instr)| match instr {
            Instr::Load { buffer, .. } => Some(*buffer),
            _ => None,
        });
        self.read.extend(loads.filter(|&buffer| 2 * self.schedule.buffers[buffer].len() > len));
    }

    /// The same of what it stores to tensors that are noted.
    fn through(&mut self, shape: &[usize], program: &Program, stores: &[Store]) {
        let noted: Vec<Reg> = stores
            .iter()
            .filter(|store| self.read.contains(&store.buffer))
            .map(|store| store.value)
            .collect();
        self.note(shape, program, noted);
    }
}
