//! Vulkan devices whose driver does not look after shaders.
//!
//! `wgpu` asks every driver to check each access to a buffer (`robustBufferAccess2`), which is right for shaders that
//! strangers wrote. Where no hardware does it, the driver adds a comparison and a branch or a select to each, and has
//! to load the elements of a vector one by one: of what Mesa makes of this crate's kernels for an NVIDIA card that was
//! a half (`docs/measurements.md`). Kernels that keep within their buffers by construction need none of it.

use ash::vk;
use wgpu::hal::api::Vulkan;

/// Opens a device as `request_device` would, but for the checks; `None` where the adapter is none of Vulkan's.
pub fn open(
    adapter: &wgpu::Adapter,
    wanted: &wgpu::DeviceDescriptor,
) -> Option<std::result::Result<(wgpu::Device, wgpu::Queue), String>> {
    // SAFETY: it is not destroyed here.
    let vulkan = unsafe { adapter.as_hal::<Vulkan>() }?;
    let opened = || {
        let mut extensions = vulkan.required_device_extensions(wanted.required_features);
        extensions.retain(|&name| name != ash::ext::robustness2::NAME);
        let names: Vec<_> = extensions.iter().map(|name| name.as_ptr()).collect();
        let mut features = vulkan.physical_device_features(&extensions, wanted.required_features);
        let core = vk::PhysicalDeviceFeatures { robust_buffer_access: vk::FALSE, ..features.get_core() };
        let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
        let info =
            vk::DeviceCreateInfo::default().queue_create_infos(&queues).enabled_extension_names(&names);
        let info = features.add_to_device_create(info).enabled_features(&core);
        let instance = vulkan.shared_instance().raw_instance();
        // SAFETY: the adapter is of this instance, and what `info` points to lives as long as the call.
        let device = unsafe { instance.create_device(vulkan.raw_physical_device(), &info, None) };
        let device = device.map_err(|error| error.to_string())?;
        // SAFETY: the device has all that `wgpu` expects of one with these features but for the checks, which it does
        // not rely on: shaders are compiled without its own as well.
        let open = unsafe {
            vulkan.device_from_raw(
                device,
                None,
                &extensions,
                wanted.required_features,
                &wanted.required_limits,
                &wanted.memory_hints,
                0,
                0,
            )
        };
        let open = open.map_err(|error| error.to_string())?;
        // SAFETY: the device was made from this adapter, with these features and limits.
        unsafe { adapter.create_device_from_hal(open, wanted) }.map_err(|error| error.to_string())
    };
    Some(opened())
}
