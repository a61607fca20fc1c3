//! Launches of compiled kernels, bound to memory.

use std::num::NonZeroU64;
use std::sync::Arc;

use autograd::{Error, Result};
use shaders::{Launch, Storage};

use crate::context::Gpu;
use crate::pipelines::Pipeline;

/// Where uniforms may begin, at any adapter's limit.
const UNIFORM_STRIDE: usize = 256;

/// One dispatch of a compiled kernel, ready to encode.
pub struct Dispatch {
    pub label: String,
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    groups: [u32; 3],
}

impl Dispatch {
    pub fn encode(&self, pass: &mut wgpu::ComputePass) {
        let [x, y, z] = self.groups;
        pass.set_pipeline(&self.pipeline.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
}

/// The uniforms of several launches, one after the other.
pub struct Uniforms {
    buffer: wgpu::Buffer,
}

impl Uniforms {
    pub fn new(gpu: &Gpu, launches: &[Launch]) -> Result<Uniforms> {
        let mut contents = vec![0u32; launches.len().max(1) * UNIFORM_STRIDE / 4];
        for (number, launch) in launches.iter().enumerate() {
            contents[number * UNIFORM_STRIDE / 4] = launch.count;
        }
        let buffer = gpu.scoped("kernel parameters", || {
            gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("kernel parameters"),
                size: (contents.len() * 4) as u64,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })?;
        gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&contents));
        Ok(Uniforms { buffer })
    }

    pub fn bytes(&self) -> u64 {
        self.buffer.size()
    }

    /// Binds launch `number` of these, whose memory `memory` knows.
    pub fn bind<'a>(
        &self,
        gpu: &Gpu,
        number: usize,
        launch: Launch,
        pipeline: Arc<Pipeline>,
        memory: impl Fn(Storage) -> Option<&'a wgpu::Buffer>,
    ) -> Result<Dispatch> {
        let binding = |buffer, offset, size| {
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: NonZeroU64::new(size) })
        };
        let uniforms = binding(&self.buffer, (number * UNIFORM_STRIDE) as u64, UNIFORM_STRIDE as u64);
        let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: uniforms }];
        for (i, bound) in launch.bindings.iter().enumerate() {
            let Some(buffer) = memory(bound.storage) else {
                let message = format!("kernel `{}` uses memory that does not exist", launch.label);
                return Err(Error::Device(message));
            };
            let resource = binding(buffer, bound.offset, bound.bytes());
            entries.push(wgpu::BindGroupEntry { binding: i as u32 + 1, resource });
        }
        let bind_group = gpu.scoped(&format!("binding kernel `{}`", launch.label), || {
            gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &pipeline.layout,
                entries: &entries,
            })
        })?;
        Ok(Dispatch { label: launch.label, pipeline, bind_group, groups: launch.groups })
    }
}
