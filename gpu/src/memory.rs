//! Which allocation each of a schedule's buffers lies in.

use std::collections::HashSet;

use autograd::Result;
use schedule::backend::{Backend, Variables};
use schedule::{BufferId, Role};
use shaders::{Element, Place, Precomputed};

use crate::context::Gpu;

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
    pub fn new(
        gpu: &Gpu,
        variables: &mut Variables<impl Backend<Memory = wgpu::Buffer>>,
        precomputed: &Precomputed,
        used: &HashSet<BufferId>,
    ) -> Result<Memory> {
        let schedule = &precomputed.schedule;
        let mut memory = Memory { buffers: Vec::new(), places: precomputed.places.clone(), bytes: 0 };
        let numbers = memory.places.iter().map(|place| place.memory);
        memory.buffers.resize(numbers.max().map_or(0, |last| last + 1), None);
        for (id, buffer) in schedule.buffers.iter().enumerate() {
            let number = memory.places[id].memory;
            if !used.contains(&id) || memory.buffers[number].is_some() {
                continue;
            }
            let size = Element::F32.bytes(buffer.len());
            let made = match &buffer.role {
                Role::State(variable) => variables.memory(variable)?.clone(),
                Role::Temporary { slot } => {
                    let size = Element::F32.bytes(schedule.slots.get(*slot).copied().unwrap_or(0));
                    memory.bytes += size;
                    gpu.buffer(&buffer.label, size)?
                }
                role => {
                    let made = gpu.buffer(&buffer.label, size)?;
                    memory.bytes += size;
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
