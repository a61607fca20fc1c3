//! One matrix product, three kernels: as it is written, with tiles in the memory that a workgroup shares, and with
//! sixteen sums in each thread's registers. Each is checked against the processor and timed.
//!
//!     cargo run --release --example kernels [SIZE]
//!
//! What makes the difference is how often a number is fetched from far away. For an `n x n` product the first kernel
//! reads `2 n^3` numbers from the GPU's memory. In the second, 256 threads fetch a tile of 16x16 of both operands
//! together and each number is then used 16 times. In the third a workgroup makes 64x64 results: each number fetched is
//! used 64 times, and each read from shared memory 4 times. (The project's own kernels go further: `shaders/`.)

use std::time::Instant;

use autograd::{Error, Result};
use pollster::block_on;

/// `c[row, column] = sum of a[row, k] * b[k, column]`: each thread one result.
const NAIVE: &str = "
@compute @workgroup_size(16, 16)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    var sum = 0.0;
    for (var k = 0u; k < N; k++) {
        sum += a[id.y * N + k] * b[k * N + id.x];
    }
    c[id.y * N + id.x] = sum;
}";

/// A workgroup fetches a tile of each operand, waits until all of it is there, and only then multiplies.
const TILED: &str = "
var<workgroup> left: array<f32, 256>;
var<workgroup> right: array<f32, 256>;

@compute @workgroup_size(16, 16)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_id) here: vec3<u32>) {
    var sum = 0.0;
    for (var tile = 0u; tile < N; tile += 16u) {
        left[here.y * 16u + here.x] = a[id.y * N + tile + here.x];
        right[here.y * 16u + here.x] = b[(tile + here.y) * N + id.x];
        workgroupBarrier();
        for (var k = 0u; k < 16u; k++) {
            sum += left[here.y * 16u + k] * right[k * 16u + here.x];
        }
        workgroupBarrier();
    }
    c[id.y * N + id.x] = sum;
}";

/// As before, but a thread makes 4x4 results: eight numbers read from shared memory make sixteen products.
const REGISTERS: &str = "
var<workgroup> left: array<f32, 1024>;
var<workgroup> right: array<vec4<f32>, 256>;

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) here: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let row = group.y * 64u;
    let column = group.x * 64u;
    // Four vectors by name: an array with an index known at run time only would not stay in registers.
    var sum0 = vec4<f32>(); var sum1 = vec4<f32>(); var sum2 = vec4<f32>(); var sum3 = vec4<f32>();
    for (var tile = 0u; tile < N; tile += 16u) {
        for (var part = 0u; part < 4u; part++) {
            let i = part * 256u + thread;
            left[i] = a[(row + i / 16u) * N + tile + i % 16u];
        }
        let from_b = (tile + thread / 16u) * N + column + (thread % 16u) * 4u;
        right[thread] = vec4<f32>(b[from_b], b[from_b + 1u], b[from_b + 2u], b[from_b + 3u]);
        workgroupBarrier();
        for (var k = 0u; k < 16u; k++) {
            let from_left = here.y * 64u + k;
            let four = right[k * 16u + here.x];
            sum0 += left[from_left] * four;
            sum1 += left[from_left + 16u] * four;
            sum2 += left[from_left + 32u] * four;
            sum3 += left[from_left + 48u] * four;
        }
        workgroupBarrier();
    }
    let sums = array<vec4<f32>, 4>(sum0, sum1, sum2, sum3);
    for (var i = 0u; i < 4u; i++) {
        let to = (row + here.y * 4u + i) * N + column + here.x * 4u;
        for (var j = 0u; j < 4u; j++) {
            c[to + j] = sums[i][j];
        }
    }
}";

pub(crate) fn main() -> Result<()> {
    // All sizes here are multiples of 64, so that no kernel has to look where a matrix ends.
    let size = std::env::args().nth(1).and_then(|size| size.parse().ok()).unwrap_or(256);
    multiply(usize::max(size, 64).next_multiple_of(64))
}

/// Multiplies two matrices of `n x n` with each kernel.
pub fn multiply(n: usize) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| Error::Device(error.to_string());
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = block_on(instance.request_adapter(&Default::default()));
    let adapter = adapter.map_err(|error| Error::NoDevice(error.to_string()))?;
    let opened = block_on(adapter.request_device(&Default::default()));
    let (device, queue) = opened.map_err(|error| Error::NoDevice(error.to_string()))?;
    println!("{}, {n}x{n}", adapter.get_info().name);

    let numbers = |factor: usize| -> Vec<f32> {
        (0..n * n).map(|i| (i * factor % 1009) as f32 / 504.5 - 1.0).collect()
    };
    let (a, b) = (numbers(7919), numbers(6007));
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let buffer = |usage| {
        let size = (n * n * 4) as u64;
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let (left, right, result) = (buffer(usage), buffer(usage), buffer(usage));
    queue.write_buffer(&left, 0, bytemuck::cast_slice(&a));
    queue.write_buffer(&right, 0, bytemuck::cast_slice(&b));

    let mut seconds = Vec::new();
    for (name, kernel, results_a_side) in
        [("naive", NAIVE, 16), ("tiled", TILED, 16), ("registers", REGISTERS, 64)]
    {
        let source = format!(
            "const N = {n}u;
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> c: array<f32>;
{kernel}"
        );
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(name),
            source: wgpu::ShaderSource::Wgsl(source.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(name),
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        });
        let bound = [&left, &right, &result].into_iter().enumerate().map(|(i, buffer)| {
            wgpu::BindGroupEntry { binding: i as u32, resource: buffer.as_entire_binding() }
        });
        let bound = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &bound.collect::<Vec<_>>(),
        });
        let run = || -> Result<f64> {
            let started = Instant::now();
            let mut encoder = device.create_command_encoder(&Default::default());
            {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                pass.set_pipeline(&pipeline);
                pass.set_bind_group(0, &bound, &[]);
                let groups = (n / results_a_side) as u32;
                pass.dispatch_workgroups(groups, groups, 1);
            }
            queue.submit([encoder.finish()]);
            let waited = device.poll(wgpu::PollType::Wait { submission_index: None, timeout: None });
            waited.map_err(|error| failed(&error))?;
            Ok(started.elapsed().as_secs_f64())
        };
        run()?; // the first run also prepares things
        let times = (0..5).map(|_| run()).collect::<Result<Vec<f64>>>()?;
        let best = times.into_iter().fold(f64::INFINITY, f64::min);

        // Copied to a buffer that the program may read.
        let readable = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let mut encoder = device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&result, 0, &readable, 0, (n * n * 4) as u64);
        encoder.clear_buffer(&result, 0, None);
        queue.submit([encoder.finish()]);
        readable.map_async(wgpu::MapMode::Read, .., |_| {});
        let waited = device.poll(wgpu::PollType::Wait { submission_index: None, timeout: None });
        waited.map_err(|error| failed(&error))?;
        let view = readable.get_mapped_range(..).map_err(|error| failed(&error))?;
        let c: Vec<f32> = bytemuck::pod_collect_to_vec(&view[..]);

        // Some rows, multiplied in f64.
        let mut worst = 0.0f64;
        for row in (0..n).step_by(37) {
            for column in 0..n {
                let product = |k: usize| f64::from(a[row * n + k]) * f64::from(b[k * n + column]);
                let exact: f64 = (0..n).map(product).sum();
                worst = worst.max((f64::from(c[row * n + column]) - exact).abs());
            }
        }
        let rate = 2.0 * (n as f64).powi(3) / best * 1e-9;
        println!("{name:>9}: {:>8.3} ms, {rate:>7.1} GFLOP/s, off by {worst:.1e} at most", best * 1e3);
        if worst.is_nan() || worst > 1e-5 * n as f64 {
            return Err(Error::Device(format!("the kernel `{name}` is wrong by {worst}")));
        }
        seconds.push(best);
    }
    println!("the last takes {:.2} of the first's time", seconds[2] / seconds[0]);
    Ok(())
}
