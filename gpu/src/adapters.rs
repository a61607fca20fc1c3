//! Which adapters this machine has, and choosing one.

use std::fmt;

use autograd::{Error, Result};
use schedule::pending;

use crate::platform::BACKENDS;

/// An adapter: a graphics card, an integrated GPU, or a software driver.
#[derive(Clone, Debug)]
pub struct Adapter {
    pub(crate) adapter: wgpu::Adapter,
    /// The driver's name for it.
    pub name: String,
    /// `Vulkan`, `Metal`, `Dx12` or `BrowserWebGpu`.
    pub backend: String,
    /// Driver and version, as far as it says.
    pub driver: String,
    /// `discrete GPU`, `integrated GPU`, `virtual GPU`, `software` or `other`.
    pub kind: &'static str,
    /// A software driver: correct, but several times slower than the native CPU device.
    pub software: bool,
    /// The optional features that the kernels use where they are offered.
    pub features: Vec<&'static str>,
    /// Whether its matrix units multiply 16x16x16 matrices of 16-bit floats into `f32` sums.
    pub matrices: bool,
    /// The sizes a subgroup can have, smallest and largest.
    pub subgroup_sizes: [u32; 2],
    /// Most bytes of one storage binding.
    pub max_binding_bytes: u64,
    /// Most bytes of one buffer.
    pub max_buffer_bytes: u64,
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} ({}, {}", self.name, self.kind, self.backend)?;
        if !self.driver.is_empty() {
            write!(f, ", {}", self.driver)?;
        }
        write!(f, "); features: ")?;
        match self.features.is_empty() {
            true => write!(f, "none")?,
            false => write!(f, "{}", self.features.join(", "))?,
        }
        write!(
            f,
            "; bindings up to {} MiB, buffers up to {} MiB",
            self.max_binding_bytes >> 20,
            self.max_buffer_bytes >> 20
        )
    }
}

/// All adapters, real GPUs before software drivers, in an order that does not change from run to run.
pub fn adapters() -> Vec<Adapter> {
    // Natively they are there at once, and this cannot fail.
    pending::wait(async { Ok::<_, Error>(adapters_async().await) }).unwrap_or_default()
}

/// The same where nothing may wait: in a browser, which offers one at most.
pub async fn adapters_async() -> Vec<Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: BACKENDS,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let found = instance.enumerate_adapters(wgpu::Backends::all()).await;
    let mut adapters: Vec<Adapter> = found.into_iter().map(describe).collect();
    adapters.sort_by_key(|a| match a.kind {
        "discrete GPU" => 0,
        "integrated GPU" => 1,
        "virtual GPU" => 2,
        "other" => 3,
        _ => 4,
    });
    adapters
}

/// Takes an adapter by its position in [`adapters`] (`"0"`) or by a part of its name, in any case
/// (`"nvidia"`); `None` takes the first.
///
/// # Errors
/// [`Error::NoDevice`], saying what there is, or what to install where there is nothing.
pub fn choose(wanted: Option<&str>) -> Result<Adapter> {
    let all = adapters();
    if all.is_empty() {
        return Err(Error::NoDevice(format!("no GPU driver was found; {}", advice())));
    }
    let position = match wanted.map(str::trim) {
        None | Some("") => Some(0),
        Some(text) => match text.parse::<usize>() {
            Ok(index) => (index < all.len()).then_some(index),
            Err(_) => {
                let text = text.to_lowercase();
                all.iter().position(|a| a.name.to_lowercase().contains(&text))
            }
        },
    };
    match position {
        Some(position) => Ok(all[position].clone()),
        None => {
            let list: Vec<String> =
                all.iter().enumerate().map(|(i, a)| format!("  {i}: {}", a.name)).collect();
            let wanted = wanted.unwrap_or_default();
            Err(Error::NoDevice(format!(
                "no adapter matches `{wanted}`; choose one by its number or a part of its name:\n{}",
                list.join("\n")
            )))
        }
    }
}

fn describe(adapter: wgpu::Adapter) -> Adapter {
    use wgpu::Features;
    let info = adapter.get_info();
    let limits = adapter.limits();
    let offered = adapter.features();
    let names = [
        (Features::SUBGROUP, "subgroups"),
        (Features::SHADER_F16, "16-bit floats"),
        (Features::TIMESTAMP_QUERY, "timestamps"),
        (Features::EXPERIMENTAL_COOPERATIVE_MATRIX, "cooperative matrices"),
    ];
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete GPU",
        wgpu::DeviceType::IntegratedGpu => "integrated GPU",
        wgpu::DeviceType::VirtualGpu => "virtual GPU",
        wgpu::DeviceType::Cpu => "software",
        wgpu::DeviceType::Other => "other",
    };
    let driver = [info.driver.as_str(), info.driver_info.as_str()];
    let useful = |p: &wgpu::CooperativeMatrixProperties| {
        (p.m_size, p.n_size, p.k_size) == (16, 16, 16)
            && p.ab_type == wgpu::CooperativeScalarType::F16
            && p.cr_type == wgpu::CooperativeScalarType::F32
    };
    let matrices = offered.contains(Features::EXPERIMENTAL_COOPERATIVE_MATRIX | Features::SHADER_F16)
        && adapter.cooperative_matrix_properties().iter().any(useful);
    Adapter {
        matrices,
        // Browsers may keep it to themselves.
        name: if info.name.is_empty() { "GPU".into() } else { info.name },
        backend: format!("{:?}", info.backend),
        driver: driver.into_iter().filter(|d| !d.is_empty()).collect::<Vec<_>>().join(" "),
        kind,
        software: info.device_type == wgpu::DeviceType::Cpu,
        features: names.into_iter().filter(|(f, _)| offered.contains(*f)).map(|(_, name)| name).collect(),
        subgroup_sizes: [info.subgroup_min_size, info.subgroup_max_size],
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        adapter,
    }
}

/// What to install on this system.
fn advice() -> &'static str {
    if cfg!(target_family = "wasm") {
        "a browser with WebGPU offers one: current Chrome, Edge, Safari and Firefox, where it is switched on and \
         the page comes over https or from this machine; or use the CPU device"
    } else if cfg!(target_os = "linux") {
        "install a Vulkan driver: for NVIDIA cards the proprietary driver (Debian and Ubuntu: \
         `apt install nvidia-driver libvulkan1`), for AMD and Intel Mesa's (`apt install \
         mesa-vulkan-drivers`, Fedora: `dnf install mesa-vulkan-drivers`); the latter also brings a \
         software driver for testing. `vulkaninfo --summary` shows what is installed. Or use the CPU device"
    } else if cfg!(target_os = "windows") {
        "install the graphics card maker's current driver (DX12 or Vulkan), or use the CPU device"
    } else if cfg!(target_os = "macos") {
        "Metal needs macOS 10.15 and a GPU that supports it; or use the CPU device"
    } else {
        "install a Vulkan driver, or use the CPU device"
    }
}
