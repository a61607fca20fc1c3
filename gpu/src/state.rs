//! State that lives on the device between calls, shared by all executables.

use std::collections::HashMap;
use std::sync::Mutex;

use autograd::{Error, Result, Variable};
use shaders::Element;

use crate::context::{Gpu, lock};

/// A variable on the device.
#[derive(Clone)]
struct Entry {
    buffer: wgpu::Buffer,
    /// Grows with every write, by a caller or by a step.
    version: u64,
}

/// All variables of a device.
#[derive(Default)]
pub struct State {
    entries: Mutex<HashMap<u64, Entry>>,
}

impl State {
    /// The variable's buffer; created with its initial value at first.
    pub fn buffer(&self, gpu: &Gpu, variable: &Variable) -> Result<wgpu::Buffer> {
        if let Some(entry) = lock(&self.entries).get(&variable.id()) {
            return Ok(entry.buffer.clone());
        }
        let buffer = gpu.buffer(variable.name(), Element::F32.bytes(variable.len()))?;
        gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(variable.initial()));
        lock(&self.entries).insert(variable.id(), Entry { buffer: buffer.clone(), version: 0 });
        Ok(buffer)
    }

    /// How often the variable has been written.
    pub fn version(&self, id: u64) -> u64 {
        lock(&self.entries).get(&id).map_or(0, |entry| entry.version)
    }

    /// Says that a step wrote these variables.
    pub fn written(&self, ids: &[u64]) {
        let mut entries = lock(&self.entries);
        for id in ids {
            if let Some(entry) = entries.get_mut(id) {
                entry.version += 1;
            }
        }
    }

    /// See [`autograd::VariableStore::write`].
    pub fn write(&self, gpu: &Gpu, variable: &Variable, values: &[f32]) -> Result<()> {
        let error = |message: String| Error::State { name: variable.name().to_string(), message };
        if values.len() != variable.len() {
            let (shape, len) = (variable.shape(), variable.len());
            return Err(error(format!("{} values for shape {shape:?} ({len} elements)", values.len())));
        }
        if let Some(position) = values.iter().position(|v| !v.is_finite()) {
            return Err(error(format!("value {position} is {}; state must be finite", values[position])));
        }
        let buffer = self.buffer(gpu, variable)?;
        gpu.scoped("writing state", || gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(values)))?;
        self.written(&[variable.id()]);
        Ok(())
    }

    /// See [`autograd::VariableStore::read`].
    pub fn read(&self, gpu: &Gpu, variable: &Variable) -> Result<Vec<f32>> {
        let buffer = lock(&self.entries).get(&variable.id()).map(|entry| entry.buffer.clone());
        match buffer {
            Some(buffer) => gpu.read(&buffer, variable.len()),
            None => Ok(variable.initial().to_vec()),
        }
    }
}
