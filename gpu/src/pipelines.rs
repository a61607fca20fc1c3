//! Compiled kernels, kept by their source: each distinct WGSL text is compiled once a device.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use autograd::{Error, Result};
use shaders::{Access, Launch};

use crate::context::{Gpu, lock};
use crate::platform;

/// A compiled kernel.
pub struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

/// The pipelines of a device.
#[derive(Default)]
pub struct Pipelines {
    compiled: Mutex<HashMap<Arc<str>, Arc<Pipeline>>>,
    layouts: Mutex<HashMap<Vec<Access>, (wgpu::BindGroupLayout, wgpu::PipelineLayout)>>,
}

impl Pipelines {
    /// The pipelines of all launches, in order; those not yet known are compiled, in parallel.
    pub fn get(&self, gpu: &Gpu, launches: &[Launch]) -> Result<Vec<Arc<Pipeline>>> {
        let mut missing: Vec<&Launch> = Vec::new();
        {
            let compiled = lock(&self.compiled);
            let mut seen = HashSet::new();
            for launch in launches {
                if !compiled.contains_key(&launch.source) && seen.insert(&launch.source) {
                    missing.push(launch);
                }
            }
        }
        platform::for_each(missing.len(), |number| {
            let pipeline = self.compile(gpu, missing[number])?;
            lock(&self.compiled).insert(missing[number].source.clone(), Arc::new(pipeline));
            Ok(())
        })?;
        let compiled = lock(&self.compiled);
        let found = launches.iter().map(|launch| compiled.get(&launch.source).cloned());
        found
            .collect::<Option<_>>()
            .ok_or_else(|| Error::Device("a compiled kernel was not kept".to_string()))
    }

    fn compile(&self, gpu: &Gpu, launch: &Launch) -> Result<Pipeline> {
        let access: Vec<Access> = launch.bindings.iter().map(|b| b.access).collect();
        let (layout, pipeline_layout) = self.layout(gpu, access)?;
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(&launch.label),
            source: wgpu::ShaderSource::Wgsl((&*launch.source).into()),
        };
        let what = format!("compiling kernel `{}`", launch.label);
        let module = gpu.scoped(&what, || {
            if gpu.checked {
                gpu.device.create_shader_module(descriptor)
            } else {
                // SAFETY: the kernels keep within their buffers by construction (every index is affine
                // and guarded by its view's bounds), have no unbounded loops and divide by constants
                // other than zero; the same modules run with checks in the tests.
                unsafe {
                    gpu.device
                        .create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
                }
            }
        })?;
        let pipeline = gpu.scoped(&what, || {
            gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&launch.label),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Kernels write workgroup memory before they read it.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: None,
            })
        })?;
        Ok(Pipeline { pipeline, layout })
    }

    fn layout(
        &self,
        gpu: &Gpu,
        access: Vec<Access>,
    ) -> Result<(wgpu::BindGroupLayout, wgpu::PipelineLayout)> {
        let mut layouts = lock(&self.layouts);
        if let Some(found) = layouts.get(&access) {
            return Ok(found.clone());
        }
        let entry = |binding: usize, ty: wgpu::BufferBindingType| wgpu::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let mut entries = vec![entry(0, wgpu::BufferBindingType::Uniform)];
        for (i, access) in access.iter().enumerate() {
            let ty = wgpu::BufferBindingType::Storage { read_only: *access == Access::Read };
            entries.push(entry(i + 1, ty));
        }
        let made = gpu.scoped("kernel bindings", || {
            let layout = gpu.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: None,
                entries: &entries,
            });
            let pipeline = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            (layout, pipeline)
        })?;
        layouts.insert(access, made.clone());
        Ok(made)
    }
}
