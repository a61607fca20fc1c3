//! Rewrites a schedule so that every kernel fits the target: kernels that touch too many buffers become
//! several with temporaries between them, channel reductions that a kernel's core cannot make become
//! reductions of their own, and operands that a convolution's window would compute again and again are
//! computed once beforehand.

use std::collections::{BTreeSet, HashMap};

use autograd::tensor::BinaryOp;
use schedule::Schedule;
use schedule::ir::{
    Body, Buffer, BufferId, ConvKind, Epilogue, Instr, Kernel, MapPart, Operand, Program, ReduceKind, Reg,
    Role, Store, View,
};

use crate::emit::{live, operands};
use crate::launch::{Element, Place};
use crate::target::{Operands, Target};
use crate::tile::GRADIENT_SCALE;

/// For every buffer the number of the allocation it lies in: temporaries of one slot share one, and so
/// do buffers of one variable.
pub fn memories(schedule: &Schedule) -> Vec<usize> {
    #[derive(PartialEq, Eq, Hash)]
    enum Key {
        Slot(usize),
        State(u64),
        Own(BufferId),
    }
    let mut numbers = HashMap::new();
    let number = |(id, buffer): (BufferId, &Buffer)| {
        let key = match &buffer.role {
            Role::Temporary { slot } => Key::Slot(*slot),
            Role::State(variable) => Key::State(variable.id()),
            _ => Key::Own(id),
        };
        let next = numbers.len();
        *numbers.entry(key).or_insert(next)
    };
    schedule.buffers.iter().enumerate().map(number).collect()
}

/// For every buffer whether it changes only when a caller or another step writes state: constants,
/// prepared buffers, and state that this step does not update.
pub fn frozen(schedule: &Schedule) -> Vec<bool> {
    let variable = |b: &Buffer| match &b.role {
        Role::State(variable) => Some(variable.id()),
        _ => None,
    };
    let updated: BTreeSet<u64> =
        schedule.updated.iter().filter_map(|&b| variable(&schedule.buffers[b])).collect();
    let is_frozen = |b: &Buffer| match &b.role {
        Role::Constant(_) | Role::Prepared => true,
        Role::State(variable) => !updated.contains(&variable.id()),
        _ => false,
    };
    schedule.buffers.iter().map(is_frozen).collect()
}

/// A schedule whose kernels are all within a target's limits.
pub struct Legal {
    pub schedule: Schedule,
    /// For every buffer how it is stored.
    pub elements: Vec<Element>,
}

impl Legal {
    /// Where every buffer lies.
    pub fn places(&self) -> Vec<Place> {
        let numbers = memories(&self.schedule).into_iter();
        let buffers = numbers.zip(&self.elements).zip(&self.schedule.buffers);
        let place = |((memory, &element), buffer): ((usize, _), &Buffer)| Place {
            memory,
            len: buffer.len(),
            element,
        };
        buffers.map(place).collect()
    }
}

/// The schedule with every kernel within the target's limits.
pub fn legalise(schedule: Schedule, target: &Target) -> Legal {
    let mut schedule = schedule;
    let prepare = std::mem::take(&mut schedule.prepare);
    let kernels = std::mem::take(&mut schedule.kernels);
    let mut legaliser = Legaliser {
        memory: memories(&schedule),
        operand_slots: schedule.slots.len(),
        operands: [None, None],
        next_operand: 0,
        rounds: target.operands != Operands::F32,
        elements: vec![Element::F32; schedule.buffers.len()],
        first_slot: schedule.slots.len() + 2,
        // One binding is left for a kernel's own scratch.
        limit: (target.limits.storage_buffers as usize).saturating_sub(1).max(4),
        taken: 0,
        schedule,
        done: Vec::new(),
    };
    legaliser.schedule.prepare = legaliser.all(prepare);
    legaliser.schedule.kernels = legaliser.all(kernels);
    Legal { schedule: legaliser.schedule, elements: legaliser.elements }
}

/// An operand, and the buffer with its values.
struct Computed {
    operand: Operand,
    is_gradient: bool,
    buffer: BufferId,
}

struct Legaliser {
    schedule: Schedule,
    memory: Vec<usize>,
    /// The two slots from here on hold convolutions' operands computed beforehand.
    operand_slots: usize,
    /// What they hold at present. The input and the weight gradient of a convolution read the same one.
    operands: [Option<Computed>; 2],
    /// The one to give up next.
    next_operand: usize,
    /// Whether convolutions round their operands to 16 bits.
    rounds: bool,
    /// See [`Legal::elements`].
    elements: Vec<Element>,
    /// Slots from here on hold what lives within one kernel of the schedule.
    first_slot: usize,
    /// How many of its slots the kernel at hand has taken.
    taken: usize,
    /// Most allocations a kernel may touch.
    limit: usize,
    done: Vec<Kernel>,
}

impl Legaliser {
    fn all(&mut self, kernels: Vec<Kernel>) -> Vec<Kernel> {
        self.operands = [None, None];
        for kernel in kernels {
            self.taken = 0;
            self.kernel(kernel);
        }
        std::mem::take(&mut self.done)
    }

    fn kernel(&mut self, kernel: Kernel) {
        let Kernel { label, mut body } = kernel;
        let mut after = Vec::new();
        if let Body::Convolution { kind, geometry, lhs, rhs, epilogue } = &mut body {
            after.extend(self.separate_channel_reductions(&label, epilogue));
            if geometry.kernel != [1, 1] {
                self.compute_once(&label, lhs, *kind == ConvKind::InputGrad);
                if *kind == ConvKind::WeightGrad {
                    self.compute_once(&label, rhs, true);
                }
            }
        }
        let kernel = Kernel { label, body };
        let touched = self.count(&kernel.buffers());
        self.forget_operands(&kernel.writes());
        let Kernel { label, body } = kernel;
        if touched <= self.limit {
            self.done.push(Kernel { label, body });
        } else {
            match body {
                Body::Map { shape, program, stores } => self.map(label, shape, program, stores),
                Body::Maps { parts } => self.maps(label, parts),
                Body::Reduce { .. } => self.reduce(label, body),
                Body::MatMul { batch, m, n, k, lhs, rhs, epilogue } => {
                    let [lhs, rhs] = [lhs, rhs].map(|o| self.simplify_operand(&label, o));
                    let (epilogue, map) = self.simplify_epilogue(&label, epilogue);
                    let body = Body::MatMul { batch, m, n, k, lhs, rhs, epilogue };
                    self.done.push(Kernel { label, body });
                    map.into_iter().for_each(|kernel| self.kernel(kernel));
                }
                Body::Convolution { kind, geometry, lhs, rhs, epilogue } => {
                    let [lhs, rhs] = [lhs, rhs].map(|o| self.simplify_operand(&label, o));
                    let (epilogue, map) = self.simplify_epilogue(&label, epilogue);
                    let body = Body::Convolution { kind, geometry, lhs, rhs, epilogue };
                    self.done.push(Kernel { label, body });
                    map.into_iter().for_each(|kernel| self.kernel(kernel));
                }
                body @ Body::Pool { .. } => self.done.push(Kernel { label, body }),
            }
        }
        after.into_iter().for_each(|kernel| self.kernel(kernel));
    }

    /// An operand that every element of the window would compute again becomes a load of its values,
    /// where computing it costs more than that load. Where convolutions round their operands to 16 bits,
    /// the values are stored so: scaled as they would be for rounding, and back when loaded, both exact.
    fn compute_once(&mut self, label: &str, operand: &mut Operand, is_gradient: bool) {
        if !self.is_dear(operand) {
            return;
        }
        let is_it = |held: &Option<Computed>| {
            held.as_ref().is_some_and(|held| held.operand == *operand && held.is_gradient == is_gradient)
        };
        let known = self.operands.iter().position(is_it);
        let place = known.unwrap_or(self.next_operand);
        // A kernel may need two: the one just used stays.
        self.next_operand = 1 - place;
        let view = View::dense(&operand.shape);
        let is_scaled = self.rounds && is_gradient;
        let buffer = match (known, &self.operands[place]) {
            (Some(_), Some(held)) => held.buffer,
            _ => {
                let element = if self.rounds { Element::F16 } else { Element::F32 };
                let slot = self.operand_slots + place;
                let buffer = self.temporary_in(slot, label, &operand.shape, element);
                self.operands[place] = Some(Computed { operand: operand.clone(), is_gradient, buffer });
                let (shape, mut program, mut value) =
                    (operand.shape.clone(), operand.program.clone(), operand.value);
                if is_scaled {
                    value = scale(&mut program, value, GRADIENT_SCALE);
                }
                let stores = vec![Store { buffer, view: view.clone(), value }];
                let label = format!("{label}, operand");
                self.kernel(Kernel { label, body: Body::Map { shape, program, stores } });
                buffer
            }
        };
        operand.program = Program { instrs: vec![Instr::Load { buffer, view }] };
        operand.value = 0;
        if is_scaled {
            operand.value = scale(&mut operand.program, 0, 1.0 / GRADIENT_SCALE);
        }
    }

    /// Whether an operand reads at least two tensors of about its own size.
    fn is_dear(&self, operand: &Operand) -> bool {
        let len: usize = operand.shape.iter().product();
        let alive = live(&operand.program, &[operand.value]);
        let instrs = operand.program.instrs.iter().zip(alive).filter(|(_, alive)| *alive);
        let loads = instrs.filter(|(instr, _)| match instr {
            Instr::Load { buffer, .. } => 2 * self.schedule.buffers[*buffer].len() > len,
            _ => false,
        });
        loads.count() > 1
    }

    /// Forgets computed operands that depend on memory about to change.
    fn forget_operands(&mut self, written: &[BufferId]) {
        let written: BTreeSet<usize> = written.iter().map(|&b| self.memory[b]).collect();
        for place in 0..self.operands.len() {
            let stale = self.operands[place].as_ref().is_some_and(|held| {
                held.operand.program.buffers().any(|b| written.contains(&self.memory[b]))
            });
            if stale {
                self.operands[place] = None;
            }
        }
    }

    fn count(&self, buffers: &[BufferId]) -> usize {
        buffers.iter().map(|&b| self.memory[b]).collect::<BTreeSet<_>>().len()
    }

    /// A new temporary that lives until the kernel at hand is done.
    fn temporary(&mut self, label: &str, shape: &[usize]) -> BufferId {
        let slot = self.first_slot + self.taken;
        self.taken += 1;
        self.temporary_in(slot, label, shape, Element::F32)
    }

    /// A new temporary in this slot, one of the legaliser's own.
    fn temporary_in(&mut self, slot: usize, label: &str, shape: &[usize], element: Element) -> BufferId {
        let slots = &mut self.schedule.slots;
        slots.resize(slots.len().max(slot + 1), 0);
        // Slots are measured in `f32`.
        let len = (element.bytes(shape.iter().product()) / 4) as usize;
        slots[slot] = slots[slot].max(len);
        self.elements.push(element);
        let role = Role::Temporary { slot };
        self.schedule.buffers.push(Buffer { shape: shape.to_vec(), role, label: label.to_string() });
        // Slots of the legaliser are numbered apart from all else.
        self.memory.push(usize::MAX - slot);
        self.schedule.buffers.len() - 1
    }

    /// Takes the channel reductions out of an epilogue; returns the kernel that makes them.
    fn separate_channel_reductions(&mut self, label: &str, epilogue: &mut Epilogue) -> Option<Kernel> {
        let reductions = std::mem::take(&mut epilogue.channel_reductions);
        if reductions.is_empty() {
            return None;
        }
        let shape = epilogue.shape.clone();
        let (kept, rank) = (epilogue.kept, shape.len());
        // Kept dims, then channels, then the folded dims.
        let order: Vec<usize> = (0..kept).chain([rank - 1]).chain(kept..rank - 1).collect();
        let strides = View::dense(&shape).strides;
        let mut program = Program::default();
        let mut registers: HashMap<Reg, Reg> = HashMap::new();
        for reduction in &reductions {
            if registers.contains_key(&reduction.value) {
                continue;
            }
            let stored = epilogue
                .stores
                .iter()
                .find(|s| s.value == reduction.value && s.view.is_dense(&shape))
                .map(|s| s.buffer);
            let buffer = stored.unwrap_or_else(|| {
                let buffer = self.temporary(label, &shape);
                let store = Store { buffer, view: View::dense(&shape), value: reduction.value };
                epilogue.stores.push(store);
                buffer
            });
            let view =
                View { offset: 0, strides: order.iter().map(|&d| strides[d]).collect(), bounds: vec![] };
            registers.insert(reduction.value, program.instrs.len());
            program.instrs.push(Instr::Load { buffer, view });
        }
        let permuted: Vec<usize> = order.iter().map(|&d| shape[d]).collect();
        let outer_shape = permuted[..kept + 1].to_vec();
        let stores = reductions.iter().enumerate().map(|(k, r)| Store {
            buffer: r.output,
            view: View::dense(&outer_shape),
            value: k,
        });
        let accumulators: Vec<(ReduceKind, Reg)> =
            reductions.iter().map(|r| (r.kind, registers[&r.value])).collect();
        let body = Body::Reduce {
            shape: permuted,
            outer: kept + 1,
            program,
            finish: Program { instrs: (0..accumulators.len()).map(Instr::Accumulator).collect() },
            accumulators,
            stores: stores.collect(),
        };
        Some(Kernel { label: format!("{label}, channel sums"), body })
    }

    fn map(&mut self, label: String, shape: Vec<usize>, program: Program, stores: Vec<Store>) {
        if stores.len() > 1 {
            // One map a store. Where a map would overwrite what a later one still loads, all results
            // go to temporaries first.
            let loads = self.loads(&program, &stores.iter().map(|s| s.value).collect::<Vec<_>>());
            let hazard = stores.iter().any(|s| loads.contains(&self.memory[s.buffer]));
            let mut copies = Vec::new();
            for store in stores {
                let mut store = store;
                if hazard {
                    let buffer = self.temporary(&label, &shape);
                    let view = View::dense(&shape);
                    let load = Program { instrs: vec![Instr::Load { buffer, view: view.clone() }] };
                    let value = store.value;
                    copies.push((load, Store { value: 0, ..store }));
                    store = Store { buffer, view, value };
                }
                self.map(label.clone(), shape.clone(), program.clone(), vec![store]);
            }
            for (program, store) in copies {
                let body = Body::Map { shape: shape.clone(), program, stores: vec![store] };
                self.done.push(Kernel { label: label.clone(), body });
            }
            return;
        }
        let mut program = program;
        let roots: Vec<Reg> = stores.iter().map(|s| s.value).collect();
        self.narrow(&label, &shape, &mut program, &roots, self.limit - 1);
        self.done.push(Kernel { label, body: Body::Map { shape, program, stores } });
    }

    /// As many launches as it takes, each of as many parts as fit.
    fn maps(&mut self, label: String, parts: Vec<MapPart>) {
        let one = |mut parts: Vec<MapPart>| match parts.pop() {
            Some(MapPart { shape, program, stores }) if parts.is_empty() => {
                Body::Map { shape, program, stores }
            }
            Some(last) => Body::Maps { parts: parts.into_iter().chain([last]).collect() },
            None => Body::Maps { parts },
        };
        let mut parts = parts.into_iter().peekable();
        while let Some(first) = parts.next() {
            let mut launch = vec![first];
            while let Some(part) = parts.next_if(|part| {
                let body = Body::Maps { parts: launch.iter().chain([part]).cloned().collect() };
                self.count(&Kernel { label: String::new(), body }.buffers()) <= self.limit
            }) {
                launch.push(part);
            }
            self.kernel(Kernel { label: label.clone(), body: one(launch) });
        }
    }

    fn reduce(&mut self, label: String, body: Body) {
        let Body::Reduce { shape, outer, program, accumulators, mut finish, stores } = body else { return };
        let outer_shape = shape[..outer].to_vec();
        let values: Vec<Reg> = stores.iter().map(|s| s.value).collect();
        let mut around = self.loads(&finish, &values);
        around.extend(stores.iter().map(|s| self.memory[s.buffer]));
        if around.len() > self.limit / 2 {
            // The folds go to temporaries, some at a time, and the finish becomes a map.
            let temporaries: Vec<BufferId> =
                accumulators.iter().map(|_| self.temporary(&label, &outer_shape)).collect();
            load_accumulators(&mut finish, &temporaries, &outer_shape);
            let some = (self.limit / 2).max(1);
            for (folds, buffers) in accumulators.chunks(some).zip(temporaries.chunks(some)) {
                let dense = |(k, &buffer)| Store { buffer, view: View::dense(&outer_shape), value: k };
                let stores = buffers.iter().enumerate().map(dense).collect();
                let finish = Program { instrs: (0..folds.len()).map(Instr::Accumulator).collect() };
                let (program, accumulators) = (program.clone(), folds.to_vec());
                let body =
                    Body::Reduce { shape: shape.clone(), outer, program, accumulators, finish, stores };
                self.fold(&label, body, buffers.len());
            }
            let body = Body::Map { shape: outer_shape, program: finish, stores };
            return self.kernel(Kernel { label, body });
        }
        let body = Body::Reduce { shape, outer, program, accumulators, finish, stores };
        self.fold(&label, body, around.len());
    }

    /// A reduction whose finish and stores touch `around` allocations: its program gets what is left.
    fn fold(&mut self, label: &str, mut body: Body, around: usize) {
        if let Body::Reduce { shape, program, accumulators, .. } = &mut body {
            let roots: Vec<Reg> = accumulators.iter().map(|(_, r)| *r).collect();
            let budget = self.limit.saturating_sub(around).max(1);
            self.narrow(label, shape, program, &roots, budget);
        }
        self.done.push(Kernel { label: label.to_string(), body });
    }

    /// An operand that loads from more than two allocations becomes a load of a temporary.
    fn simplify_operand(&mut self, label: &str, operand: Operand) -> Operand {
        if self.loads(&operand.program, &[operand.value]).len() <= 2 {
            return operand;
        }
        let Operand { shape, program, value } = operand;
        let buffer = self.temporary(label, &shape);
        let view = View::dense(&shape);
        let stores = vec![Store { buffer, view: view.clone(), value }];
        let body = Body::Map { shape: shape.clone(), program, stores };
        self.kernel(Kernel { label: format!("{label}, operand"), body });
        Operand { shape, program: Program { instrs: vec![Instr::Load { buffer, view }] }, value: 0 }
    }

    /// An epilogue of more than three allocations becomes a plain store and a map.
    fn simplify_epilogue(&mut self, label: &str, epilogue: Epilogue) -> (Epilogue, Option<Kernel>) {
        let values: Vec<Reg> = epilogue.stores.iter().map(|s| s.value).collect();
        let mut touched = self.loads(&epilogue.program, &values);
        touched.extend(epilogue.stores.iter().map(|s| self.memory[s.buffer]));
        if touched.len() <= 3 {
            return (epilogue, None);
        }
        let Epilogue { shape, mut program, stores, .. } = epilogue;
        let buffer = self.temporary(label, &shape);
        load_accumulators(&mut program, &[buffer], &shape);
        let body = Body::Map { shape: shape.clone(), program, stores };
        let map = Kernel { label: format!("{label}, epilogue"), body };
        let plain = Epilogue {
            program: Program { instrs: vec![Instr::Accumulator(0)] },
            stores: vec![Store { buffer, view: View::dense(&shape), value: 0 }],
            shape,
            ..Default::default()
        };
        (plain, Some(map))
    }

    /// The allocations that `roots` load from.
    fn loads(&self, program: &Program, roots: &[Reg]) -> BTreeSet<usize> {
        let live = live(program, roots);
        let loads = program.instrs.iter().enumerate().filter(|(r, _)| live[*r]);
        loads
            .filter_map(|(_, instr)| match instr {
                Instr::Load { buffer, .. } => Some(self.memory[*buffer]),
                _ => None,
            })
            .collect()
    }

    /// Makes `roots` load from at most `budget` allocations, by computing subexpressions into
    /// temporaries beforehand. Ends because every round turns an operation into a load.
    fn narrow(&mut self, label: &str, shape: &[usize], program: &mut Program, roots: &[Reg], budget: usize) {
        while self.loads(program, roots).len() > budget {
            let alive = live(program, roots);
            let candidate = (0..program.instrs.len())
                .filter(|&r| alive[r] && !matches!(program.instrs[r], Instr::Load { .. }))
                .map(|r| (self.loads(program, &[r]).len(), r))
                .filter(|(loads, _)| (2..self.limit).contains(loads))
                .max_by_key(|&(loads, r)| (loads, std::cmp::Reverse(r)));
            let Some((_, value)) = candidate else { return };
            let buffer = self.temporary(label, shape);
            let view = View::dense(shape);
            let stores = vec![Store { buffer, view: view.clone(), value }];
            let body = Body::Map { shape: shape.to_vec(), program: pruned(program, value), stores };
            self.done.push(Kernel { label: format!("{label}, part"), body });
            program.instrs[value] = Instr::Load { buffer, view };
        }
    }
}

/// Appends the register's product with a constant; returns its register.
fn scale(program: &mut Program, value: Reg, by: f32) -> Reg {
    let factor = program.instrs.len();
    program.instrs.push(Instr::Constant(by));
    program.instrs.push(Instr::Binary(BinaryOp::Mul, value, factor));
    factor + 1
}

/// The program up to `root`, with instructions it does not need replaced by constants.
fn pruned(program: &Program, root: Reg) -> Program {
    let live = live(program, &[root]);
    let keep = |(r, instr): (Reg, &Instr)| if live[r] { instr.clone() } else { Instr::Constant(0.0) };
    let pruned = Program { instrs: program.instrs[..=root].iter().enumerate().map(keep).collect() };
    debug_assert!(pruned.instrs.iter().enumerate().all(|(r, instr)| {
        let mut earlier = true;
        operands(instr, |o| earlier &= o < r);
        earlier
    }));
    pruned
}

/// Replaces accumulators by loads of the buffers they were stored to.
fn load_accumulators(program: &mut Program, buffers: &[BufferId], shape: &[usize]) {
    for instr in &mut program.instrs {
        if let Instr::Accumulator(k) = instr {
            *instr = Instr::Load { buffer: buffers[*k], view: View::dense(shape) };
        }
    }
}
