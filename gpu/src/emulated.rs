//! The tiles of matrix units where there are none: threads do what the units would, in the same shaders.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;

use autograd::tensor::Conv2d;
use autograd::{Tensor, evaluate, grad};
use schedule::pending::wait;
use schedule::{Role, Schedule, Step};
use shaders::{Context, Launch, Operands, Sequence, Storage, Subgroups, Target};

use crate::context::lock;
use crate::dispatch::Uniforms;
use crate::pipelines::Pipelines;
use crate::{GpuDevice, Options, Precision};

/// Software drivers crash where devices are made side by side.
pub static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A matrix is where it lies, and of its sums each of the 32 threads of a subgroup has one in every other row. The
/// loops end where they should; the driver, which would write all of them out, is not told.
const FUNCTIONS: &str = "
struct Matrix { at: i32, row: i32, column: i32 }

fn multiply_add(a: Matrix, b: Matrix, sums: array<f32, 8>, lane: i32) -> array<f32, 8> {
    var result = sums;
    let none = i32(params.count >> 31u);
    for (var i = 0; i < 8 + none; i++) {
        let row = a.at + (i * 2 + lane / 16) * a.row;
        let column = b.at + (lane % 16) * b.column;
        for (var k = 0; k < 16 + none; k++) {
            let left = row + k * a.column;
            let right = column + k * b.row;
            result[i] += f32(left_tile[left / 4][left % 4]) * f32(right_tile[right / 4][right % 4]);
        }
    }
    return result;
}
";

/// The text without matrix units. Each of their lines is written anew, the rest stays.
fn emulated(source: &str) -> String {
    if !source.contains("wgpu_cooperative_matrix") {
        return source.to_string();
    }
    let between = |line: &str, before: &str, after: &str| {
        let rest = line.split_once(before).unwrap().1;
        rest.rsplit_once(after).unwrap().0.to_string()
    };
    let mut text = String::new();
    for line in source.lines() {
        let written = if line.contains("@builtin(subgroup_") || line.starts_with("enable wgpu_") {
            continue;
        } else if line.starts_with("@compute") {
            format!("{FUNCTIONS}\n{line}")
        } else if line.contains("let thread = i32(local);") {
            format!("{line}\n    let subgroup = local / 32u;\n    let lane = local % 32u;")
        } else if line.contains("= coop_mat16x16<f32, C>();") {
            line.replace("coop_mat16x16<f32, C>()", "array<f32, 8>()")
        } else if line.contains("coopLoad") {
            let (name, load) = line.split_once(" = ").unwrap();
            let at = between(load, "_tile[", "], ");
            let stride = 4 * between(load, "], ", "u);").parse::<usize>().unwrap();
            let strides = if load.starts_with("coopLoadT") { [stride, 1] } else { [1, stride] };
            format!("{name} = Matrix(({at}) * 4, {}, {});", strides[0], strides[1])
        } else if line.contains("coopMultiplyAdd") {
            line.replace("coopMultiplyAdd", "multiply_add").replace(");", ", i32(lane));")
        } else if line.contains("coopStoreT") {
            let (sum, at) = (between(line, "coopStoreT(", ", &"), between(line, "result_tile[", "], "));
            let row = format!("(i * 2 + i32(lane) / 16) * {}", between(line, "], ", "u);"));
            let place = format!("result_tile[{at} + {row} + (i32(lane) % 16) / 4][lane % 4u]");
            format!("    for (var i = 0; i < 8; i++) {{ {place} = {sum}[i]; }}")
        } else {
            line.to_string()
        };
        text += &written;
        text.push('\n');
    }
    assert!(!text.contains("coop"), "{text}");
    text
}

/// A convolution, what it is a channel, and its gradients.
fn step([channels, features]: [usize; 2], size: usize, stride: usize) -> Step {
    let x = Tensor::input("x", &[2, size, size, channels]);
    let w = Tensor::input("w", &[features, channels, 3, 3]);
    let y = x.conv2d(&w, Conv2d::new(stride, 1));
    let loss = (&y * &Tensor::input("dy", y.shape())).sum_all();
    let gradients = grad(&loss, &[x, w]);
    Step::new()
        .output("y", &y)
        .output("sums", &y.sum(&[0, 1, 2]))
        .output("dx", &gradients[0])
        .output("dw", &gradients[1])
}

/// Small whole numbers, whose sums of products are exact.
fn inputs(schedule: &Schedule) -> Vec<(String, Vec<f32>)> {
    let named = schedule.buffers.iter().filter_map(|buffer| match &buffer.role {
        Role::Input { name, .. } => Some((name.clone(), buffer.len())),
        _ => None,
    });
    let values = |(stream, (name, len))| {
        let value = |i| (autograd::random::uniform(3, 0, stream as u32, i as u32) * 7.0).floor() - 3.0;
        (name, (0..len).map(value).collect())
    };
    named.enumerate().map(values).collect()
}

/// The outputs of a schedule whose kernels are computed in way `number`, and how many are.
fn outputs(
    device: &GpuDevice,
    target: &Target,
    schedule: &Schedule,
    number: usize,
) -> (Vec<Vec<f32>>, usize) {
    let made = shaders::precompute(schedule.clone(), target);
    let context = made.context(target);
    let mut others = 0;
    let assembled = made.schedule.all_kernels().map(|kernel| {
        let choice = shaders::candidates(context, kernel).into_iter().nth(number);
        others += usize::from(choice.is_some());
        shaders::assemble(Context { choice, ..context }, kernel).unwrap()
    });
    let assembled = assembled.collect();
    let sequence = Sequence::new(context, &made.schedule, assembled).unwrap();
    let launches = [sequence.prepare, sequence.call].concat();
    let launches: Vec<Launch> = launches
        .into_iter()
        .map(|launch| Launch { source: emulated(&launch.source).into(), ..launch })
        .collect();

    let gpu = &device.gpu;
    let mut sizes = BTreeMap::new();
    for bound in launches.iter().flat_map(|launch| &launch.bindings) {
        let size = sizes.entry(bound.storage).or_insert(0);
        *size = (bound.offset + bound.bytes()).max(*size);
    }
    let memory: BTreeMap<Storage, wgpu::Buffer> =
        sizes.into_iter().map(|(storage, size)| (storage, gpu.buffer("a test's", size).unwrap())).collect();
    let of = |buffer: usize| &memory[&Storage::Memory(made.places[buffer].memory)];
    for (name, values) in inputs(schedule) {
        let is_it = |role: &Role| matches!(role, Role::Input { name: other, .. } if *other == name);
        let buffer = made.schedule.buffers.iter().position(|buffer| is_it(&buffer.role)).unwrap();
        gpu.queue.write_buffer(of(buffer), 0, bytemuck::cast_slice(&values));
    }
    let pipelines = Pipelines::default().get(gpu, &launches).unwrap();
    let uniforms = Uniforms::new(gpu, &launches).unwrap();
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for (number, (launch, pipeline)) in launches.into_iter().zip(pipelines).enumerate() {
            let bound = uniforms.bind(gpu, number, launch, pipeline, |storage| memory.get(&storage));
            bound.unwrap().encode(&mut pass);
        }
    }
    gpu.queue.submit([encoder.finish()]);
    let read = |&(_, buffer): &(String, usize)| {
        wait(gpu.read(of(buffer), made.schedule.buffers[buffer].len()).unwrap()).unwrap()
    };
    (made.schedule.outputs.iter().map(read).collect(), others)
}

#[test]
fn every_way_of_the_matrix_units_is_exact() {
    let _guard = lock(&ONE_AT_A_TIME);
    let options = Options { precision: Precision::Mixed, checked: true, ..Options::default() };
    let device = match GpuDevice::open(std::env::var("SLD_TEST_ADAPTER").ok().as_deref(), options) {
        Ok(device) if device.target().f16 => device,
        other => {
            assert!(std::env::var_os("CI").is_none(), "CI must have an adapter with 16-bit floats");
            // Not `eprintln`, which the test harness hides.
            let _ = writeln!(std::io::stderr(), "\n*** MATRIX UNITS NOT TESTED: {:?} ***\n", other.err());
            return;
        }
    };
    let target = Target {
        operands: Operands::Matrix,
        subgroups: Some(Subgroups { min: 32, max: 32 }),
        ..device.target().clone()
    };
    for (channels, size, stride) in [([16, 32], 8, 1), ([12, 24], 8, 2)] {
        let step = step(channels, size, stride);
        let schedule = step.schedule_with(target.schedule_options()).unwrap();
        let outputs_of: Vec<Tensor> = step.outputs.iter().map(|(_, value)| value.clone()).collect();
        let given = inputs(&schedule).into_iter();
        let given = given.map(|(name, values)| (name, values.into_iter().map(f64::from).collect())).collect();
        let expected = evaluate(&outputs_of, &given, &Default::default(), &Default::default()).unwrap();
        for number in 0.. {
            let (found, others) = outputs(&device, &target, &schedule, number);
            if others == 0 {
                assert!(number > 8, "only {number} ways");
                break;
            }
            for (((name, _), found), expected) in schedule.outputs.iter().zip(&found).zip(&expected) {
                let off =
                    found.iter().zip(expected).position(|(&found, &expected)| f64::from(found) != expected);
                let near = off.map(|at| (at, found[at], expected[at]));
                assert_eq!(near, None, "`{name}`, {channels:?} channels, stride {stride}, way {number}");
            }
        }
    }
}
