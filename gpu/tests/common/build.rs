//! Schedules written by hand.

use autograd::Variable;
use schedule::*;

/// A schedule in the making, with the values of its inputs.
#[derive(Default)]
pub struct Builder {
    pub schedule: Schedule,
    pub inputs: Vec<(String, Vec<f32>)>,
    seed: u32,
}

impl Builder {
    pub fn new(seed: u32) -> Builder {
        Builder { seed, ..Default::default() }
    }

    fn buffer(&mut self, label: &str, shape: &[usize], role: Role) -> BufferId {
        self.schedule.buffers.push(Buffer {
            shape: shape.to_vec(),
            role,
            label: label.to_string(),
            scope: Default::default(),
        });
        self.schedule.buffers.len() - 1
    }

    /// An input with these values. A name that begins with `int` is an integer input.
    pub fn input(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> BufferId {
        assert_eq!(values.len(), shape.iter().product::<usize>());
        self.inputs.push((name.to_string(), values));
        let integer = name.starts_with("int");
        self.buffer(name, shape, Role::Input { name: name.to_string(), integer })
    }

    /// An input with values in [-1, 1), different for every seed and name.
    pub fn random(&mut self, name: &str, shape: &[usize]) -> BufferId {
        let stream = name.bytes().fold(7, |h: u32, b| h.wrapping_mul(31).wrapping_add(u32::from(b)));
        let value = |i: usize| autograd::random::uniform(self.seed, 0, stream, i as u32) * 2.0 - 1.0;
        let values = (0..shape.iter().product()).map(value).collect();
        self.input(name, shape, values)
    }

    pub fn output(&mut self, name: &str, shape: &[usize]) -> BufferId {
        let id = self.buffer(name, shape, Role::Output);
        self.schedule.outputs.push((name.to_string(), id));
        id
    }

    pub fn temporary(&mut self, shape: &[usize], slot: usize) -> BufferId {
        let len = shape.iter().product();
        let slots = &mut self.schedule.slots;
        slots.resize(slots.len().max(slot + 1), 0);
        slots[slot] = slots[slot].max(len);
        self.buffer("temporary", shape, Role::Temporary { slot })
    }

    pub fn prepared(&mut self, shape: &[usize]) -> BufferId {
        self.buffer("prepared", shape, Role::Prepared)
    }

    pub fn state(&mut self, variable: &Variable) -> BufferId {
        self.buffer(variable.name(), variable.shape(), Role::State(variable.clone()))
    }

    pub fn kernel(&mut self, body: Body) {
        let label = format!("kernel {}", self.schedule.kernels.len());
        self.schedule.kernels.push(Kernel { label, body });
    }

    /// The buffer as an operand, unchanged.
    pub fn operand(&self, buffer: BufferId) -> Operand {
        let shape = self.schedule.buffers[buffer].shape.clone();
        Operand { program: Program { instrs: vec![load(buffer, &shape)] }, value: 0, shape }
    }
}

/// A dense load.
pub fn load(buffer: BufferId, shape: &[usize]) -> Instr {
    Instr::Load { buffer, view: View::dense(shape) }
}

/// A load with these strides.
pub fn strided(buffer: BufferId, offset: i64, strides: &[i64]) -> Instr {
    Instr::Load { buffer, view: View { offset, strides: strides.to_vec(), bounds: vec![] } }
}

/// A dense store.
pub fn store(buffer: BufferId, shape: &[usize], value: Reg) -> Store {
    Store { buffer, view: View::dense(shape), value }
}

/// An epilogue that only stores.
pub fn plain(buffer: BufferId, shape: &[usize]) -> Epilogue {
    Epilogue {
        shape: shape.to_vec(),
        program: Program { instrs: vec![Instr::Accumulator(0)] },
        stores: vec![store(buffer, shape, 0)],
        ..Default::default()
    }
}
