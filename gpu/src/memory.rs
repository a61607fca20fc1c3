//! Which allocation each of a schedule's buffers lies in.

use std::collections::HashSet;

use autograd::schedule::ir::{BufferId, Role};
use autograd::{Result, Schedule};
use shaders::Place;

use crate::context::{Gpu, bytes};
use crate::state::State;

/// The allocations of a compiled schedule.
pub struct Memory {
    /// By [`Place::memory`]; `None` for what nothing uses.
    pub buffers: Vec<Option<wgpu::Buffer>>,
    /// By buffer id.
    pub places: Vec<Place>,
    /// Bytes held by this executable alone (without state).
    pub bytes: u64,
}

impl Memory {
    /// Allocates what `used` buffers need: a slot each for temporaries, the shared one for state, one of
    /// its own for everything else. Constants are written.
    pub fn new(gpu: &Gpu, state: &State, schedule: &Schedule, used: &HashSet<BufferId>) -> Result<Memory> {
        let mut memory = Memory { buffers: Vec::new(), places: Vec::new(), bytes: 0 };
        let numbers = shaders::memories(schedule);
        memory.buffers.resize(numbers.iter().max().map_or(0, |&last| last + 1), None);
        for (id, (buffer, number)) in schedule.buffers.iter().zip(numbers).enumerate() {
            memory.places.push(Place { memory: number, offset: 0, len: buffer.len() });
            if !used.contains(&id) || memory.buffers[number].is_some() {
                continue;
            }
            let made = match &buffer.role {
                Role::State(variable) => state.buffer(gpu, variable)?,
                Role::Temporary { slot } => {
                    let len = schedule.slots.get(*slot).copied().unwrap_or(0).max(buffer.len());
                    memory.bytes += bytes(len);
                    gpu.buffer(&buffer.label, len)?
                }
                role => {
                    let made = gpu.buffer(&buffer.label, buffer.len())?;
                    memory.bytes += bytes(buffer.len());
                    if let Role::Constant(values) = role {
                        gpu.queue.write_buffer(&made, 0, bytemuck::cast_slice(values));
                    }
                    made
                }
            };
            memory.buffers[number] = Some(made);
        }
        Ok(memory)
    }

    /// The allocation a buffer lies in, if anything uses it.
    pub fn of(&self, buffer: BufferId) -> Option<&wgpu::Buffer> {
        self.buffers[self.places[buffer].memory].as_ref()
    }
}
