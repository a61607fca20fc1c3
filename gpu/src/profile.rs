//! Seconds of each kernel, by timestamp queries.

use std::sync::Arc;

use autograd::{Error, Result};
use schedule::Pending;

use crate::context::Gpu;
use crate::dispatch::Dispatch;

/// Queries in one set, the most that WebGPU allows.
const QUERIES: usize = 4096;

/// Runs the dispatches once, each in a pass of its own, and returns the seconds each took.
pub fn measure(gpu: &Arc<Gpu>, dispatches: &[&Dispatch]) -> Result<Pending<Vec<f64>>> {
    if !gpu.timestamps {
        return Err(Error::Device(format!("`{}` offers no timestamp queries", gpu.name)));
    }
    let parts = dispatches.chunks(QUERIES / 2).map(|part| measure_part(gpu, part));
    let parts = parts.collect::<Result<Vec<_>>>()?;
    let nanoseconds = f64::from(gpu.queue.get_timestamp_period());
    Ok(Box::pin(async move {
        let mut seconds = Vec::new();
        for part in parts {
            // Ticks are 64-bit; they travel as pairs of the words that reading back returns.
            let words: Vec<u64> = part.await?.iter().map(|word| word.to_bits().into()).collect();
            let ticks: Vec<u64> = words.chunks_exact(2).map(|pair| pair[0] | (pair[1] << 32)).collect();
            let took = |t: &[u64]| t[1].saturating_sub(t[0]) as f64 * nanoseconds * 1e-9;
            seconds.extend(ticks.chunks_exact(2).map(took));
        }
        Ok(seconds)
    }))
}

/// The ticks before and after each dispatch.
fn measure_part(gpu: &Arc<Gpu>, dispatches: &[&Dispatch]) -> Result<Pending<Vec<f32>>> {
    let count = dispatches.len() as u32 * 2;
    let resolved = gpu.scoped("timestamps", || {
        let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("timestamps"),
            ty: wgpu::QueryType::Timestamp,
            count,
        });
        let resolved = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("timestamps"),
            size: u64::from(count) * 8,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        for (i, dispatch) in dispatches.iter().enumerate() {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some(&dispatch.label),
                timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                    query_set: &queries,
                    beginning_of_pass_write_index: Some(i as u32 * 2),
                    end_of_pass_write_index: Some(i as u32 * 2 + 1),
                }),
            });
            dispatch.encode(&mut pass);
        }
        encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
        gpu.queue.submit([encoder.finish()]);
        resolved
    })?;
    gpu.read(&resolved, count as usize * 2)
}
