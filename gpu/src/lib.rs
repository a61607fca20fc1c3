//! The wgpu device: runs a schedule on Vulkan, Metal, DX12 or, in a browser, WebGPU.
//!
//! [`adapters`] lists what this machine has; [`GpuDevice::open`] takes one of them. A schedule is compiled
//! once into pipelines and bind groups and then replayed: a call writes the inputs, encodes one compute
//! pass and submits it. State stays on the device, and only what is asked for is read back.

mod adapters;
mod answer;
mod choices;
mod context;
mod device;
mod dispatch;
#[cfg(test)]
mod emulated;
mod executable;
mod memory;
mod pipelines;
mod platform;
mod profile;
mod source;
mod tuning;
#[cfg(not(any(target_family = "wasm", target_vendor = "apple")))]
mod vulkan;

pub use adapters::{Adapter, adapters, adapters_async, choose};
pub use choices::{Choices, Chosen, Measured};
pub use device::{GpuDevice, Options, Precision};
pub use shaders::Choice;
pub use source::{webgpu_launches, webgpu_options, webgpu_source};
pub use tuning::{Measuring, Tune};

/// The README's program is tested too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
