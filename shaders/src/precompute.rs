//! Operands that a convolution's window would compute again for each of its elements are computed once,
//! before the kernels that read them. And how each buffer is stored.

use std::collections::BTreeSet;

use autograd::tensor::BinaryOp;
use schedule::{Body, Buffer, BufferId, Instr, Kernel, Operand, Program, Reg, Role, Schedule, Store};

use crate::element::Element;
use crate::halves;
use crate::launch::{Context, Place};
use crate::target::{Operands, Target};
use crate::tile::GRADIENT_SCALE;

/// A schedule with its dear operands computed beforehand, and where its buffers lie.
pub struct Precomputed {
    /// The schedule; it has more kernels and temporaries than the one given.
    pub schedule: Schedule,
    /// Where every buffer lies, and how its elements are stored.
    pub places: Vec<Place>,
    frozen: Vec<bool>,
}

impl Precomputed {
    /// What the assembly of its kernels needs to know.
    pub fn context<'a>(&'a self, target: &'a Target) -> Context<'a> {
        let Precomputed { places, frozen, .. } = self;
        Context { places, frozen, target, choice: None, tight: false }
    }
}

/// The schedule with dear operands computed beforehand, where the kernels' bindings leave room for that.
pub fn precompute(schedule: Schedule, target: &Target) -> Precomputed {
    let (elements, gradients) = (halves::elements(&schedule, target), halves::gradients(&schedule, target));
    rewrite(schedule, elements, &gradients, target)
}

/// One of the schedule's kernels alone, as it is among the others.
pub fn precompute_alone(schedule: &Schedule, kernel: &Kernel, target: &Target) -> Precomputed {
    let alone = Schedule { prepare: vec![], kernels: vec![kernel.clone()], ..schedule.clone() };
    rewrite(alone, halves::elements(schedule, target), &halves::gradients(schedule, target), target)
}

fn rewrite(
    mut schedule: Schedule,
    mut elements: Vec<Element>,
    gradients: &BTreeSet<BufferId>,
    target: &Target,
) -> Precomputed {
    gradients.iter().for_each(|&buffer| elements[buffer] = target.operands.element());
    schedule.kernels.iter_mut().for_each(|kernel| scale_gradients(&mut kernel.body, gradients));
    let prepare = std::mem::take(&mut schedule.prepare);
    let kernels = std::mem::take(&mut schedule.kernels);
    let mut rewriter = Rewriter {
        memories: schedule.memories(),
        first_slot: schedule.slots.len(),
        held: [None, None],
        next: 0,
        operands: target.operands,
        most_buffers: target.most_buffers(),
        elements,
        schedule,
        done: Vec::new(),
    };
    rewriter.schedule.prepare = rewriter.all(prepare);
    rewriter.schedule.kernels = rewriter.all(kernels);
    let Rewriter { mut schedule, elements, .. } = rewriter;
    schedule.slots.fill(0);
    for (buffer, element) in schedule.buffers.iter().zip(&elements) {
        if let Role::Temporary { slot } = buffer.role {
            // Slots are measured in `f32`.
            let len = (element.bytes(buffer.len()) / 4) as usize;
            schedule.slots[slot] = schedule.slots[slot].max(len);
        }
    }
    let buffers = schedule.memories().into_iter().zip(elements).zip(&schedule.buffers);
    let places =
        buffers.map(|((memory, element), buffer)| Place { memory, len: buffer.len(), element }).collect();
    Precomputed { frozen: schedule.frozen(), places, schedule }
}

/// Elements from which on a pass over them takes longer than a launch on a large card.
const LARGE: usize = 1 << 21;

/// An operand, and the buffer with its values.
struct Held {
    operand: Operand,
    is_gradient: bool,
    buffer: BufferId,
}

struct Rewriter {
    schedule: Schedule,
    /// See [`Schedule::memories`]; without the buffers that are added here.
    memories: Vec<usize>,
    /// Operands are held in this slot and the next.
    first_slot: usize,
    /// What these hold at present. The input and the weight gradient of a convolution read the same one.
    held: [Option<Held>; 2],
    /// The one to give up next.
    next: usize,
    /// How convolutions hold what they multiply.
    operands: Operands,
    most_buffers: usize,
    /// How each buffer is stored.
    elements: Vec<Element>,
    done: Vec<Kernel>,
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Lhs,
    Rhs,
}

impl Rewriter {
    fn all(&mut self, kernels: Vec<Kernel>) -> Vec<Kernel> {
        self.held = [None, None];
        for mut kernel in kernels {
            for side in [Side::Lhs, Side::Rhs] {
                self.rewrite(&mut kernel, side);
            }
            self.forget(&kernel.writes());
            self.done.push(kernel);
        }
        std::mem::take(&mut self.done)
    }

    /// Whether convolutions round their operands to 16 bits, or to pairs of them.
    fn rounds(&self) -> bool {
        self.operands.element() != Element::F32
    }

    /// An operand that every element of the window would compute again becomes a load of its values,
    /// where computing it costs more than that load. Where convolutions round their operands,
    /// the values are stored so: scaled as they would be for rounding, and back when loaded, both exact.
    fn rewrite(&mut self, kernel: &mut Kernel, side: Side) {
        // What the kernel touches apart from this operand, and the buffer of the operand's values.
        let mut without = kernel.clone();
        let Some((operand, is_gradient)) = window_operand(&mut without, side) else { return };
        if !self.is_dear(operand) {
            return;
        }
        operand.program = Program::default();
        if without.buffers().len() + 1 > self.most_buffers {
            return;
        }
        let label = kernel.label.clone();
        let Some((operand, _)) = window_operand(kernel, side) else { return };
        let buffer = self.computed(label, operand, is_gradient);
        operand.program = Program::load(buffer, &operand.shape);
        operand.value = 0;
        if self.rounds() && is_gradient {
            operand.value = scale(&mut operand.program, 0, 1.0 / GRADIENT_SCALE);
        }
    }

    /// The buffer with an operand's values; makes the kernel that computes them if none holds them.
    fn computed(&mut self, label: String, operand: &Operand, is_gradient: bool) -> BufferId {
        let is_it = |held: &Option<Held>| {
            held.as_ref().is_some_and(|held| held.operand == *operand && held.is_gradient == is_gradient)
        };
        let known = self.held.iter().position(is_it);
        let place = known.unwrap_or(self.next);
        // A kernel may need two: the one just used stays.
        self.next = 1 - place;
        if let (Some(_), Some(held)) = (known, &self.held[place]) {
            return held.buffer;
        }
        let buffer = self.temporary(self.first_slot + place, &label, &operand.shape, self.operands.element());
        self.held[place] = Some(Held { operand: operand.clone(), is_gradient, buffer });
        let Operand { shape, mut program, mut value } = operand.clone();
        if self.rounds() && is_gradient {
            value = scale(&mut program, value, GRADIENT_SCALE);
        }
        let stores = vec![Store::dense(buffer, &shape, value)];
        let label = format!("{label}, operand");
        self.done.push(Kernel { label, body: Body::map(shape, program, stores) });
        buffer
    }

    /// Whether an operand reads at least two tensors of about its own size. Matrix units wait for everything that is
    /// computed as operands are staged, so for them arithmetic is dear as well, where it is much beside a launch.
    fn is_dear(&self, operand: &Operand) -> bool {
        let len: usize = operand.shape.iter().product();
        let is_big = |instr: &Instr| match instr {
            Instr::Load { buffer, .. } => 2 * self.schedule.buffers[*buffer].len() > len,
            _ => false,
        };
        let count = |is_it: &dyn Fn(&Instr) -> bool| {
            operand.program.needed([operand.value]).filter(|(_, instr)| is_it(instr)).count()
        };
        count(&is_big) > 1
            || (self.operands.are_matrices() && len >= LARGE && count(&Instr::is_arithmetic) > 1)
    }

    /// Forgets operands that depend on memory about to change.
    fn forget(&mut self, written: &[BufferId]) {
        let written: BTreeSet<usize> = written.iter().map(|&b| self.memories[b]).collect();
        for held in &mut self.held {
            held.take_if(|held| held.operand.program.buffers().any(|b| written.contains(&self.memories[b])));
        }
    }

    fn temporary(&mut self, slot: usize, label: &str, shape: &[usize], element: Element) -> BufferId {
        let slots = &mut self.schedule.slots;
        slots.resize(slots.len().max(slot + 1), 0);
        self.elements.push(element);
        let role = Role::Temporary { slot };
        self.schedule.buffers.push(Buffer {
            shape: shape.to_vec(),
            role,
            label: label.to_string(),
            scope: Default::default(),
        });
        self.schedule.buffers.len() - 1
    }
}

/// Has a kernel store these gradients scaled, and take the scale from those that it reads.
fn scale_gradients(body: &mut Body, gradients: &BTreeSet<BufferId>) {
    if let Some((operand, _)) = halves::gradient(body).filter(|(_, buffer)| gradients.contains(buffer)) {
        operand.value = scale(&mut operand.program, operand.value, 1.0 / GRADIENT_SCALE);
    }
    let scale_stores = |program: &mut Program, stores: &mut [Store]| {
        for store in stores.iter_mut().filter(|store| gradients.contains(&store.buffer)) {
            store.value = scale(program, store.value, GRADIENT_SCALE);
        }
    };
    match body {
        Body::Map { parts } => {
            parts.iter_mut().for_each(|part| scale_stores(&mut part.program, &mut part.stores));
        }
        Body::MatMul { epilogue, .. } | Body::Convolution { epilogue, .. } => {
            scale_stores(&mut epilogue.program, &mut epilogue.stores);
        }
        Body::Reduce { .. } | Body::Pool { .. } | Body::AllReduce { .. } => {}
    }
}

/// An operand of a convolution that goes over a window, and whether it is a gradient.
fn window_operand(kernel: &mut Kernel, side: Side) -> Option<(&mut Operand, bool)> {
    let Body::Convolution { kind, geometry, lhs, rhs, .. } = &mut kernel.body else { return None };
    let [left, right] = kind.gradients();
    match side {
        _ if geometry.kernel == [1, 1] => None,
        Side::Lhs => Some((lhs, left)),
        // Else the weight.
        Side::Rhs => right.then_some((rhs, true)),
    }
}

/// Appends the register's product with a constant; returns its register.
fn scale(program: &mut Program, value: Reg, by: f32) -> Reg {
    let factor = program.instrs.len();
    program.instrs.push(Instr::Constant(by));
    program.instrs.push(Instr::Binary(BinaryOp::Mul, value, factor));
    factor + 1
}
