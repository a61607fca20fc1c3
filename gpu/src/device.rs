//! The device: opening an adapter, and the engine's interface.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use autograd::{Error, Result, Variable, VariableStore};
use schedule::backend::{self, Backend, State, Variables};
use schedule::{Kernel, Pending, Schedule, pending};
use shaders::{Element, Limits, Operands, Target};

use crate::adapters::{Adapter, choose};
use crate::answer::Answer;
use crate::context::Gpu;
use crate::executable::GpuExecutable;
use crate::pipelines::Pipelines;
use crate::platform;
use crate::source::{launches, source};
use crate::tuning::{Measuring, Tune, Tuning};

/// In what precision convolutions and matrix products multiply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Nothing is rounded.
    #[default]
    F32,
    /// Operands rounded (and, where they have memory of their own, stored) to 16 bits, activations stored so, sums
    /// and all else in `f32`: by the matrix units where the adapter has them, else from 16-bit workgroup memory. An
    /// adapter without 16-bit floats computes in `f32`; [`GpuDevice::multiplies_in`] tells.
    Mixed,
    /// Operands as the sums of two 16-bit floats, multiplied by the matrix units in three products: as accurate as
    /// `F32`, and faster on cards whose matrix units do more than three times what the others do. Operands above 65504,
    /// or gradients above 64, are infinite here; tensors with no value above 1e-4, or gradients with none above 1e-7,
    /// keep fewer digits. An adapter without such units computes in `f32`; [`GpuDevice::multiplies_in`] tells.
    Split,
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" => Ok(Precision::F32),
            "mixed" => Ok(Precision::Mixed),
            "split" => Ok(Precision::Split),
            _ => Err(Error::Device(format!("there is no precision `{text}`; choose f32, mixed or split"))),
        }
    }
}

impl Precision {
    /// As [`FromStr`] reads it.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Mixed => "mixed",
            Precision::Split => "split",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How to open an adapter.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Use no more than the limits that WebGPU guarantees everywhere, whatever the adapter allows.
    pub webgpu_limits: bool,
    /// Keep the shaders' bounds checks, and those of the driver.
    pub checked: bool,
    /// In what precision convolutions and matrix products multiply.
    pub precision: Precision,
    /// How kernels that can be computed in several ways are.
    pub tune: Tune,
}

impl Default for Options {
    /// All features; bounds checks in debug builds only.
    fn default() -> Self {
        Options {
            webgpu_limits: false,
            checked: cfg!(debug_assertions),
            precision: Precision::F32,
            tune: Tune::Fixed,
        }
    }
}

/// An open adapter. Clones share the device and its state.
#[derive(Clone)]
pub struct GpuDevice {
    pub(crate) gpu: Arc<Gpu>,
    pipelines: Arc<Pipelines>,
    tuning: Arc<Tuning>,
    state: Arc<State<wgpu::Buffer>>,
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
        pending::wait(GpuDevice::with_adapter_async(adapter, options))
    }

    /// The same where nothing may wait: in a browser.
    ///
    /// # Errors
    /// [`Error::NoDevice`] if the driver refuses.
    pub async fn with_adapter_async(adapter: &Adapter, options: Options) -> Result<GpuDevice> {
        use wgpu::Features;
        let offered = adapter.adapter.features();
        let mut features = offered & (Features::TIMESTAMP_QUERY | Features::SHADER_F16);
        // SAFETY: the experimental feature is used by the kernels of `shaders` alone, in the shape that the
        // adapter said it supports.
        let mut experimental = wgpu::ExperimentalFeatures::disabled();
        if options.precision != Precision::F32 && adapter.matrices && offered.contains(MATRIX_UNITS) {
            features |= MATRIX_UNITS;
            experimental = unsafe { wgpu::ExperimentalFeatures::enabled() };
        }
        let limits = if options.webgpu_limits { wgpu::Limits::default() } else { adapter.adapter.limits() };
        let wanted = wgpu::DeviceDescriptor {
            label: Some("training"),
            required_features: features,
            required_limits: limits.clone(),
            experimental_features: experimental,
            ..Default::default()
        };
        let (device, queue) = platform::open(&adapter.adapter, &wanted, options.checked)
            .await
            .map_err(|error| Error::NoDevice(format!("`{}` could not be opened: {error}", adapter.name)))?;
        let target = target(adapter, features, &limits, options.precision);
        let name = format!("{} ({})", adapter.name, adapter.backend);
        let gpu = Gpu::new(device, queue, name, target, options.checked);
        let tuning = Tuning::new(options.tune);
        Ok(GpuDevice {
            gpu: Arc::new(gpu),
            pipelines: Arc::default(),
            tuning: Arc::new(tuning),
            state: Arc::default(),
        })
    }

    /// Takes the choices that were measured before from this file, if it is there, and writes to it what is
    /// measured from now on. Of one adapter and driver alone: others have other times.
    pub fn remember(&self, file: PathBuf) {
        self.tuning.remember(file);
    }

    /// Tells `watch` how far it is while the kernels of a program are measured: before each, and after the last.
    pub fn watch(&self, watch: impl Fn(Measuring) + Send + Sync + 'static) {
        self.tuning.watch(watch);
    }

    /// What the kernels are written for.
    pub fn target(&self) -> &Target {
        &self.gpu.target
    }

    /// The precision that there is: what was asked for, or `F32`.
    pub fn precision(&self) -> Precision {
        match self.gpu.target.operands {
            Operands::F32 => Precision::F32,
            Operands::F16 | Operands::Matrix => Precision::Mixed,
            Operands::Split => Precision::Split,
        }
    }

    /// In what convolutions and matrix products multiply, for people.
    pub fn multiplies_in(&self) -> &'static str {
        match self.gpu.target.operands {
            Operands::F32 => "f32",
            Operands::F16 => "16-bit floats with f32 sums",
            Operands::Matrix => "16-bit floats with f32 sums, on the matrix units",
            Operands::Split => "pairs of 16-bit floats with f32 sums, on the matrix units",
        }
    }

    /// Waits until everything submitted is done.
    ///
    /// # Errors
    /// What the driver reported meanwhile.
    pub fn wait(&self) -> Result<()> {
        pending::wait(self.wait_async())
    }

    /// The same where nothing may wait: in a browser. There it also tells what failed while kernels were
    /// compiled, as every output that is read does.
    ///
    /// # Errors
    /// What the driver reported meanwhile.
    pub async fn wait_async(&self) -> Result<()> {
        let done = Answer::new();
        let callback = done.clone();
        self.gpu.queue.on_submitted_work_done(move || callback.give(()));
        done.after(|| self.gpu.wait(None)).await?;
        self.gpu.settled().await
    }
}

/// What kernels for matrix units need.
const MATRIX_UNITS: wgpu::Features =
    wgpu::Features::SUBGROUP.union(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);

/// What kernels are written for: the best way to a precision that the open device has.
fn target(
    adapter: &Adapter,
    features: wgpu::Features,
    limits: &wgpu::Limits,
    precision: Precision,
) -> Target {
    let [lanes, most] = adapter.subgroup_sizes;
    let fits = lanes == most
        && (8..=64).contains(&lanes)
        && 4 * lanes <= limits.max_compute_invocations_per_workgroup;
    let has_halves = features.contains(wgpu::Features::SHADER_F16);
    let has_matrices = has_halves && fits && features.contains(MATRIX_UNITS);
    let operands = match precision {
        Precision::Mixed if has_matrices => Operands::Matrix,
        Precision::Mixed if has_halves => Operands::F16,
        Precision::Split if has_matrices && limits.max_compute_workgroup_storage_size >= 32 << 10 => {
            Operands::Split
        }
        _ => Operands::F32,
    };
    // On Metal wgpu takes one storage binding for the sizes of the others.
    let reserved = u32::from(adapter.backend == "Metal");
    Target {
        lanes,
        operands,
        limits: Limits {
            storage_buffers: limits.max_storage_buffers_per_shader_stage.saturating_sub(reserved).min(64),
            binding_bytes: limits.max_storage_buffer_binding_size,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            invocations: limits.max_compute_invocations_per_workgroup,
            groups: limits.max_compute_workgroups_per_dimension,
        },
    }
}

impl Backend for GpuDevice {
    type Memory = wgpu::Buffer;
    type Compiled = GpuExecutable;

    fn name(&self) -> String {
        self.gpu.name.clone()
    }

    /// See [`Target::schedule_options`].
    fn options(&self) -> schedule::Options {
        self.gpu.target.schedule_options()
    }

    fn precision(&self) -> &'static str {
        GpuDevice::precision(self).name()
    }

    fn state(&self) -> &State<wgpu::Buffer> {
        &self.state
    }

    fn allocate(&self, variable: &Variable) -> Result<wgpu::Buffer> {
        self.gpu.buffer(variable.name(), Element::F32.bytes(variable.len()))
    }

    fn copy_in(&self, memory: &mut wgpu::Buffer, values: &[f32]) -> Result<()> {
        let write = || self.gpu.queue.write_buffer(memory, 0, bytemuck::cast_slice(values));
        self.gpu.scoped("writing state", write)
    }

    fn copy_out(&self, memory: &wgpu::Buffer, len: usize) -> Result<Pending<Vec<f32>>> {
        self.gpu.read(memory, len)
    }

    fn compile(&self, schedule: &Schedule, variables: &mut Variables<GpuDevice>) -> Result<GpuExecutable> {
        GpuExecutable::new(self.gpu.clone(), &self.pipelines, &self.tuning, schedule, variables)
    }

    fn choices(&self) -> String {
        self.tuning.used()
    }

    fn choose(&self, choices: &str) -> Result<()> {
        self.tuning.give(choices)
    }

    fn source(&self, schedule: &Schedule, kernel: &Kernel) -> Result<Option<String>> {
        source(schedule, kernel, &self.gpu.target).map(Some)
    }

    fn launches(&self, schedule: &Schedule) -> Result<Option<String>> {
        launches(schedule, &self.gpu.target).map(Some)
    }
}

impl VariableStore for GpuDevice {
    fn write(&self, variable: &Variable, values: &[f32]) -> Result<()> {
        backend::write(self, variable, values)
    }

    fn read(&self, variable: &Variable) -> Result<Vec<f32>> {
        backend::read(self, variable)
    }
}
