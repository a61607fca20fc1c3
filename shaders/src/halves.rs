//! Which temporaries are stored in 16 bits where convolutions round what they multiply to 16 bits.

use std::collections::BTreeSet;

use schedule::{Body, BufferId, ConvKind, Instr, Operand, Program, ReduceKind, Reg, Role, Schedule, Store};

use crate::convolution;
use crate::launch::Element;
use crate::target::{Operands, Target};

/// For every buffer how it is stored: in 16 bits the images of activations, the largest tensors of a step. They
/// are what forward convolutions and variances read, and what maps and forward convolutions make that of.
/// Nothing of the backward pass is: unscaled, many gradients are below the smallest that 16 bits hold. Nor is
/// what is read elsewhere than in kernels, what lives longer than a call, and what is small: statistics.
pub fn elements(schedule: &Schedule, target: &Target) -> Vec<Element> {
    let mut elements = vec![Element::F32; schedule.buffers.len()];
    if target.operands == Operands::F32 {
        return elements;
    }
    let mut images = Images { schedule, read: BTreeSet::new() };
    let (mut activations, mut others) = (BTreeSet::new(), BTreeSet::new());
    // Readers before writers.
    for kernel in schedule.kernels.iter().rev() {
        match &kernel.body {
            Body::Convolution { kind: ConvKind::Forward, lhs, epilogue, .. } => {
                images.through(&epilogue.shape, &epilogue.program, &epilogue.stores);
                images.note(&lhs.shape, &lhs.program, [lhs.value]);
                activations.extend(kernel.writes());
            }
            Body::Map { parts } => {
                parts.iter().for_each(|part| images.through(&part.shape, &part.program, &part.stores));
                activations.extend(kernel.writes());
            }
            Body::Reduce { shape, program, accumulators, .. } => {
                let variances = accumulators.iter().filter(|(kind, _)| *kind == ReduceKind::Variance);
                images.note(shape, program, variances.map(|(_, value)| *value));
                others.extend(kernel.writes());
            }
            // Not by programs, but as plain arrays.
            Body::Pool { .. } | Body::AllReduce { .. } => others.extend(kernel.buffers()),
            Body::MatMul { .. } | Body::Convolution { .. } => others.extend(kernel.writes()),
        }
    }
    others.extend(schedule.outputs.iter().map(|(_, buffer)| *buffer));
    for &buffer in images.read.intersection(&activations).filter(|buffer| !others.contains(buffer)) {
        if matches!(schedule.buffers[buffer].role, Role::Temporary { .. }) {
            elements[buffer] = Element::F16;
        }
    }
    elements
}

/// Temporaries that nothing but convolutions read, as gradients that they round before they multiply: stored rounded,
/// and scaled as for that, they are the same to the bit.
pub fn gradients(schedule: &Schedule, target: &Target) -> BTreeSet<BufferId> {
    let (mut rounded, mut others) = (BTreeSet::new(), BTreeSet::new());
    if target.operands == Operands::F32 {
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
    let operand = match kind {
        ConvKind::Forward => return None,
        ConvKind::InputGrad => lhs,
        ConvKind::WeightGrad => rhs,
    };
    match operand.program.instrs[operand.value] {
        Instr::Load { buffer, .. } => Some((operand, buffer)),
        _ => None,
    }
}

struct Images<'a> {
    schedule: &'a Schedule,
    /// Read by forward convolutions or variances, or what such a tensor is made of.
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
