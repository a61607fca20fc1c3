//! The wgpu device: runs a schedule on Vulkan, Metal or DX12.
