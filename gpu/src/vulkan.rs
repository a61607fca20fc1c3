//! Vulkan devices whose driver does not look after shaders.
//!
//! `wgpu` asks every driver to check each access to a buffer (`robustBufferAccess2`), which is right for shaders that
//! strangers wrote. Where no hardware does it, the driver adds a comparison and a branch or a select to each, and has
//! to load the elements of a vector one by one: of what Mesa makes of this crate's convolutions for an NVIDIA card that
//! was a third, of its maps two thirds (`docs/measurements.md`). Kernels that keep within their buffers by construction
//! need none of it.

use ash::vk;
use wgpu::hal::api::Vulkan;

/// Opens a device as `request_device` would, but for the checks; `None` where the adapter is none of Vulkan's, or the
/// driver refuses.
pub fn open(adapter: &wgpu::Adapter, wanted: &wgpu::DeviceDescriptor) -> Option<(wgpu::Device, wgpu::Queue)> {
    // SAFETY: it is not destroyed here.
    let vulkan = unsafe { adapter.as_hal::<Vulkan>() }?;
    let mut extensions = vulkan.required_device_extensions(wanted.required_features);
    extensions.retain(|&name| name != ash::ext::robustness2::NAME);
    let names: Vec<_> = extensions.iter().map(|name| name.as_ptr()).collect();
    let mut features = vulkan.physical_device_features(&extensions, wanted.required_features);
    let core = vk::PhysicalDeviceFeatures { robust_buffer_access: vk::FALSE, ..features.get_core() };
    let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
    let info = vk::DeviceCreateInfo::default().queue_create_infos(&queues).enabled_extension_names(&names);
    let info = features.add_to_device_create(info).enabled_features(&core);
    let instance = vulkan.shared_instance().raw_instance();
    // SAFETY: the adapter is of this instance, and what `info` points to lives as long as the call.
    let device = unsafe { instance.create_device(vulkan.raw_physical_device(), &info, None) }.ok()?;
    let wgpu::DeviceDescriptor { required_features, required_limits, memory_hints, .. } = wanted;
    // SAFETY: the device has all that `wgpu` expects of one with these features but for the checks, which it does not
    // rely on: shaders are compiled without its own as well.
    let open = unsafe {
        vulkan.device_from_raw(
            device,
            None,
            &extensions,
            *required_features,
            required_limits,
            memory_hints,
            0,
            0,
        )
    };
    // SAFETY: the device was made from this adapter, with these features and limits.
    unsafe { adapter.create_device_from_hal(open.ok()?, wanted) }.ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::open;
    use crate::{choose, context::lock, emulated::ONE_AT_A_TIME};

    /// Else every device would quietly be opened with the checks.
    #[test]
    fn a_vulkan_device_opens_without_checks() {
        let _guard = lock(&ONE_AT_A_TIME);
        match choose(std::env::var("SLD_TEST_ADAPTER").ok().as_deref()) {
            Ok(adapter) if adapter.backend == "Vulkan" => {
                let limits = adapter.adapter.limits();
                let wanted = wgpu::DeviceDescriptor { required_limits: limits, ..Default::default() };
                assert!(open(&adapter.adapter, &wanted).is_some());
            }
            _ => {
                assert!(std::env::var_os("CI").is_none(), "CI must have a Vulkan driver");
                let _ =
                    writeln!(std::io::stderr(), "\n*** DEVICES WITHOUT CHECKS NOT TESTED: no Vulkan ***\n");
            }
        }
    }
}
