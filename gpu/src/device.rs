//! The device: opening an adapter, and the engine's interface.

use std::sync::Arc;

use autograd::{Device, Error, Executable, Result, Schedule, Variable, schedule};
use shaders::{Limits, Subgroups, Target};

use crate::adapters::{Adapter, choose};
use crate::context::Gpu;
use crate::executable::GpuExecutable;
use crate::state::State;

/// How to open an adapter.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Use subgroup operations where the adapter has them.
    pub subgroups: bool,
    /// Use no more than the limits that WebGPU guarantees everywhere, whatever the adapter allows.
    pub webgpu_limits: bool,
    /// Keep the shaders' bounds checks.
    pub checked: bool,
}

impl Default for Options {
    /// All features; bounds checks in debug builds only.
    fn default() -> Self {
        Options { subgroups: true, webgpu_limits: false, checked: cfg!(debug_assertions) }
    }
}

/// An open adapter. Clones share the device and its state.
#[derive(Clone)]
pub struct GpuDevice {
    gpu: Arc<Gpu>,
    state: Arc<State>,
}

impl GpuDevice {
    /// Opens an adapter: by its position in [`adapters`](crate::adapters) (`"0"`), by a part of its name
    /// (`"nvidia"`), or the first (`None`).
    ///
    /// # Errors
    /// [`Error::NoDevice`], saying what to choose or install.
    pub fn open(wanted: Option<&str>, options: Options) -> Result<GpuDevice> {
        GpuDevice::with_adapter(&choose(wanted)?, options)
    }

    /// Opens this adapter.
    ///
    /// # Errors
    /// [`Error::NoDevice`] if the driver refuses.
    pub fn with_adapter(adapter: &Adapter, options: Options) -> Result<GpuDevice> {
        use wgpu::Features;
        let offered = adapter.adapter.features();
        let mut features = offered & (Features::TIMESTAMP_QUERY | Features::SHADER_F16);
        if options.subgroups {
            features |= offered & Features::SUBGROUP;
        }
        let limits = if options.webgpu_limits { wgpu::Limits::default() } else { adapter.adapter.limits() };
        let request = adapter.adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("training"),
            required_features: features,
            required_limits: limits.clone(),
            ..Default::default()
        });
        let (device, queue) = pollster::block_on(request)
            .map_err(|error| Error::NoDevice(format!("`{}` could not be opened: {error}", adapter.name)))?;
        let target = target(adapter, features, &limits);
        let name = format!("{} ({})", adapter.name, adapter.backend);
        let gpu = Gpu::new(device, queue, name, target, options.checked);
        Ok(GpuDevice { gpu: Arc::new(gpu), state: Arc::new(State::default()) })
    }

    /// What the kernels are written for.
    pub fn target(&self) -> &Target {
        &self.gpu.target
    }

    /// Waits until everything submitted is done.
    ///
    /// # Errors
    /// What the driver reported meanwhile.
    pub fn wait(&self) -> Result<()> {
        self.gpu.wait(None)
    }
}

fn target(adapter: &Adapter, features: wgpu::Features, limits: &wgpu::Limits) -> Target {
    let [min, max] = adapter.subgroup_sizes;
    // On Metal wgpu takes one storage binding for the sizes of the others.
    let reserved = u32::from(adapter.backend == "Metal");
    Target {
        software: adapter.software,
        subgroups: features.contains(wgpu::Features::SUBGROUP).then_some(Subgroups { min, max }),
        f16: features.contains(wgpu::Features::SHADER_F16),
        limits: Limits {
            storage_buffers: limits.max_storage_buffers_per_shader_stage.saturating_sub(reserved).min(64),
            binding_bytes: limits.max_storage_buffer_binding_size,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            invocations: limits.max_compute_invocations_per_workgroup,
            groups: limits.max_compute_workgroups_per_dimension,
        },
    }
}

impl Device for GpuDevice {
    fn name(&self) -> String {
        self.gpu.name.clone()
    }

    /// As many buffers as the adapter binds, less one for a kernel's scratch; programs no longer than what
    /// fits the registers of any adapter.
    fn options(&self) -> schedule::Options {
        let most = (self.gpu.target.limits.storage_buffers as usize).saturating_sub(1);
        schedule::Options { max_buffers: most.clamp(4, 8), group_buffers: most, ..Default::default() }
    }

    fn compile(&self, schedule: Schedule) -> Result<Box<dyn Executable>> {
        Ok(Box::new(GpuExecutable::new(self.gpu.clone(), self.state.clone(), schedule)?))
    }

    fn write(&self, variable: &Variable, values: &[f32]) -> Result<()> {
        self.state.write(&self.gpu, variable, values)
    }

    fn read(&self, variable: &Variable) -> Result<Vec<f32>> {
        self.state.read(&self.gpu, variable)
    }
}
