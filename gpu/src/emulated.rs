//! The tiles of matrix units where there are none: threads do what the units would, in the same shaders.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::thread::ScopedJoinHandle;

use autograd::tensor::Conv2d;
use autograd::{Tensor, evaluate, grad};
use schedule::pending::wait;
use schedule::{Kernel, Role, Schedule, Step};
use shaders::{Context, Launch, Operands, Precomputed, Sequence, Storage, Target};

use crate::context::lock;
use crate::dispatch::Uniforms;
use crate::pipelines::Pipelines;
use crate::{GpuDevice, Options, Precision};

/// Software drivers crash where devices are made side by side.
pub static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A matrix is where it lies, along k: its first vector, and from a line to the next. Of its sums each of the 32 threads
/// of a subgroup has one in every other row. The loops end where they should; the driver, which would write all of them
/// out, is not told.
const FUNCTIONS: &str = "
struct Matrix { at: i32, stride: i32 }

fn multiply_add(a: Matrix, b: Matrix, sums: array<f32, 8>, lane: i32) -> array<f32, 8> {
    var result = sums;
    let none = i32(params.count >> 31u);
    let right = b.at + (lane % 16) * b.stride;
    for (var i = 0; i < 8 + none; i++) {
        let left = a.at + (i * 2 + lane / 16) * a.stride;
        var sum = result[i];
        for (var k = 0; k < 4 + none; k++) {
            sum += dot(vec4<f32>(left_tile[left + k]), vec4<f32>(right_tile[right + k]));
        }
        result[i] = sum;
    }
    return result;
}

fn plus(a: array<f32, 8>, b: array<f32, 8>, scale: f32) -> array<f32, 8> {
    var result = a;
    for (var i = 0; i < 8 + i32(params.count >> 31u); i++) {
        result[i] += b[i] * scale;
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
            // The left operand row by row, the right one column by column.
            assert_eq!(load.starts_with("coopLoadT"), load.contains("left_tile"));
            format!("{name} = Matrix({at}, {});", between(load, "], ", "u);"))
        } else if line.contains("coopMultiplyAdd") {
            line.replace("coopMultiplyAdd", "multiply_add").replace(");", ", i32(lane));")
        } else if line.contains("coopStoreT") {
            let (sum, at) = (between(line, "coopStoreT(", ", &"), between(line, "result_tile[", "], "));
            let row = format!("(i * 2 + i32(lane) / 16) * {}", between(line, "], ", "u);"));
            let place = format!("result_tile[{at} + {row} + (i32(lane) % 16) / 4][lane % 4u]");
            format!("    for (var i = 0; i < 8; i++) {{ {place} = {sum}[i]; }}")
        } else if let Some((sum, added)) =
            line.split_once(" = ").filter(|(sum, _)| sum.trim().starts_with("sum"))
        {
            let (_, added) = added.split_once(" + ").unwrap();
            let (added, scale) = added.trim_end_matches(';').split_once(" * ").unwrap_or((added, "1.0"));
            format!("{sum} = plus({}, {}, {scale});", sum.trim(), added.trim_end_matches(';'))
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

/// Two convolutions with a ReLU between them, and all gradients: what lies between is stored as operands are.
fn block([channels, between, features]: [usize; 3], size: usize, stride: usize) -> Step {
    let x = Tensor::input("x", &[2, size, size, channels]);
    let w = Tensor::input("w", &[between, channels, 3, 3]);
    let v = Tensor::input("v", &[features, between, 3, 3]);
    let y = x.conv2d(&w, Conv2d::new(stride, 1)).relu().conv2d(&v, Conv2d::new(1, 1));
    let loss = (&y * &Tensor::input("dy", y.shape())).sum_all();
    let gradients = grad(&loss, &[x, w, v]);
    let step = Step::new().output("y", &y).output("sums", &y.sum(&[0, 1, 2]));
    ["dx", "dw", "dv"]
        .iter()
        .zip(&gradients)
        .fold(step, |step, (name, gradient)| step.output(*name, gradient))
}

/// Numbers of all bits, or small whole ones, whose sums of products are exact.
fn inputs(schedule: &Schedule, are_whole: bool) -> Vec<(String, Vec<f32>)> {
    let named = schedule.buffers.iter().filter_map(|buffer| match &buffer.role {
        Role::Input { name, .. } => Some((name.clone(), buffer.len())),
        _ => None,
    });
    let values = |(stream, (name, len))| {
        let value = |i| {
            let drawn = autograd::random::uniform(3, 0, stream as u32, i as u32) * 7.0;
            if are_whole { drawn.floor() - 3.0 } else { (drawn - 3.5) / 4.0 }
        };
        (name, (0..len).map(value).collect())
    };
    named.enumerate().map(values).collect()
}

/// The outputs of a schedule whose kernels are computed in way `number`, if they have so many.
fn outputs(
    device: &GpuDevice,
    target: &Target,
    made: &Precomputed,
    given: &[(String, Vec<f32>)],
    number: usize,
) -> Vec<Vec<f32>> {
    let context = made.context(target);
    let assembled = made.schedule.all_kernels().map(|kernel| {
        let choice = shaders::candidates(context, kernel).into_iter().nth(number);
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
    for (name, values) in given {
        let is_it = |role: &Role| matches!(role, Role::Input { name: other, .. } if other == name);
        let buffer = made.schedule.buffers.iter().position(|buffer| is_it(&buffer.role)).unwrap();
        gpu.queue.write_buffer(of(buffer), 0, bytemuck::cast_slice(values));
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
    made.schedule.outputs.iter().map(read).collect()
}

/// Checks what kernels with these operands compute for some steps: each output's values against what they are in `f64`.
/// With each step goes in how many ways its kernels are computed: the first, and some from the last on.
fn check(operands: Operands, steps: &[(Step, usize)], judge: impl Fn(&str, &[f32], &[f64])) {
    let _guard = lock(&ONE_AT_A_TIME);
    let options = Options { precision: Precision::Mixed, checked: true, ..Options::default() };
    // Several: a software driver compiles the kernels of one device on one thread.
    let mut devices = Vec::new();
    for _ in 0..2 {
        match GpuDevice::open(std::env::var("SLD_TEST_ADAPTER").ok().as_deref(), options) {
            Ok(device) if device.precision() == Precision::Mixed => devices.push(device),
            other => {
                assert!(std::env::var_os("CI").is_none(), "CI must have an adapter with 16-bit floats");
                // Not `eprintln`, which the test harness hides.
                let _ = writeln!(std::io::stderr(), "\n*** MATRIX UNITS NOT TESTED: {:?} ***\n", other.err());
                return;
            }
        }
    }
    let target = Target { operands, lanes: 32, ..devices[0].target().clone() };
    for (i, (step, count)) in steps.iter().enumerate() {
        let schedule = step.schedule_with(target.schedule_options()).unwrap();
        let outputs_of: Vec<Tensor> = step.outputs.iter().map(|(_, value)| value.clone()).collect();
        let given = inputs(&schedule, operands == Operands::Matrix);
        let exact = given
            .iter()
            .map(|(name, values)| (name.clone(), values.iter().map(|&value| f64::from(value)).collect()));
        let expected =
            evaluate(&outputs_of, &exact.collect(), &Default::default(), &Default::default()).unwrap();
        let made = shaders::precompute(schedule.clone(), &target);
        let context = made.context(&target);
        let ways = |kernel: &Kernel| shaders::candidates(context, kernel).len();
        let ways = made.schedule.all_kernels().map(ways).max().unwrap();
        assert!(ways > 4, "only {ways} ways");
        let numbers: Vec<usize> =
            std::iter::once(0).chain(ways.saturating_sub(count - 1).max(1)..ways).collect();
        let found: Vec<(usize, Vec<Vec<f32>>)> = std::thread::scope(|scope| {
            let share = |(i, device)| {
                let numbers = numbers.iter().skip(i).step_by(devices.len());
                let (target, made, given) = (&target, &made, &given);
                scope.spawn(move || {
                    numbers.map(|&number| (number, outputs(device, target, made, given, number))).collect()
                })
            };
            let running: Vec<ScopedJoinHandle<Vec<_>>> = devices.iter().enumerate().map(share).collect();
            running.into_iter().flat_map(|device| device.join().unwrap()).collect()
        });
        for (number, found) in found {
            for (((name, _), found), expected) in schedule.outputs.iter().zip(&found).zip(&expected) {
                judge(&format!("`{name}` of step {i}, way {number}"), found, expected);
            }
        }
    }
}

#[test]
fn every_way_of_the_matrix_units_is_exact() {
    let steps = [(step([16, 32], 8, 1), usize::MAX), (step([12, 24], 8, 2), 1), (step([3, 10], 5, 1), 1)];
    check(Operands::Matrix, &steps, |what, found, expected| {
        let off = found.iter().zip(expected).position(|(&found, &expected)| f64::from(found) != expected);
        let near = off.map(|at| (at, found[at], expected[at]));
        assert_eq!(near, None, "{what}");
    });
}

/// As accurate as sums of products in `f32`: without one of the three products they are off by 1e-4.
#[test]
fn pairs_are_as_accurate_as_single_precision() {
    check(
        Operands::Split,
        &[(block([3, 16, 24], 7, 2), 2), (block([4, 10, 12], 5, 1), 1)],
        |what, found, expected| {
            let norm =
                |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
            let off =
                norm(&mut found.iter().zip(expected).map(|(&found, &expected)| f64::from(found) - expected));
            let off = off / norm(&mut expected.iter().copied());
            assert!(off < 2e-7, "{what}: off by {off:.2e}");
        },
    );
}
