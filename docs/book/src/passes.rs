//! Chapter 5: from expressions to a schedule.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use autograd::{Conv2d, Result, Tensor, Variable, grad, scope};
use cpu::CpuDevice;
use schedule::{Body, ChannelFolds, Device, Instr, Options, Role, Schedule, Step};

use crate::node::nodes;
use crate::picture::{GREY, Picture};

// ANCHOR: step
/// One training step of a tiny network, on 16 pictures of 16 by 16 pixels: its loss, and what the
/// parameters become.
fn tiny() -> Result<(Tensor, Vec<(Variable, Tensor)>)> {
    let wavy = |count: usize| (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 200.0).collect();
    let parameters = [
        Variable::new("conv.weight", &[16, 3, 3, 3], wavy(432))?,
        Variable::full("norm.scale", &[16], 1.0),
        Variable::full("norm.shift", &[16], 0.0),
        Variable::new("fc.weight", &[16, 10], wavy(160))?,
    ];
    let tensors = parameters.each_ref().map(Variable::tensor);
    let [kernel, scale, shift, matrix] = &tensors;
    let images = Tensor::input("images", &[16, 16, 16, 3]);
    let labels = Tensor::input_i32("labels", &[16]);

    let logits = {
        let _part = scope::part("student");
        let pixels = in_layer("conv", || images.conv2d(kernel, Conv2d::new(1, 1)));
        let normal = in_layer("norm", || pixels.batch_norm(scale, shift, 1e-5, 1).output.relu());
        in_layer("fc", || normal.global_average_pool().matmul(matrix))
    };
    let loss = {
        let _part = scope::part("loss");
        logits.cross_entropy(&labels).mean_all()
    };
    let gradients = grad(&loss, &tensors);
    let _part = scope::part("update");
    let new = parameters.into_iter().zip(&gradients).map(|(p, g)| (p.clone(), p.tensor() - g * 0.1));
    Ok((loss, new.collect()))
}
// ANCHOR_END: step

fn in_layer(name: &str, write: impl FnOnce() -> Tensor) -> Tensor {
    let _layer = scope::layer(name);
    write()
}

// ANCHOR: schedule
fn schedule(options: Options) -> Result<Schedule> {
    let (loss, new) = tiny()?;
    Step::new().output("loss", &loss).updates(new).schedule_with(options)
}
// ANCHOR_END: schedule

/// The options of the CPU device, with everything off.
fn plain() -> Options {
    Options { fuse: false, ..CpuDevice::new(1).options() }
}

/// Those of every stage that can be told apart from outside, in order.
fn stages() -> [(&'static str, Options); 4] {
    let all = CpuDevice::new(1).options();
    let few = Options { channel_folds: ChannelFolds::None, group_buffers: Options::LEAST_BUFFERS, ..all };
    [
        ("a kernel an operation", plain()),
        ("elementwise work inlined, kernels of one space joined", few),
        ("sums made by the convolution", Options { channel_folds: ChannelFolds::All, ..few }),
        ("updates in one launch", all),
    ]
}

// ANCHOR: written
/// What was written: the nodes that the step's values are made of, by their operation.
pub fn written() -> Result<()> {
    let (loss, new) = tiny()?;
    let values = new.into_iter().map(|(_, value)| value).chain([loss]);
    let all: BTreeMap<u64, Tensor> = values.flat_map(|v| nodes(&v)).map(|n| (n.id(), n)).collect();
    println!("{} nodes", all.len());
    show(count(all.values().map(|node| node.op().name().to_string())));
    Ok(())
}
// ANCHOR_END: written

/// How often each name occurs, the most frequent first.
fn count(names: impl Iterator<Item = String>) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    names.for_each(|name| *counts.entry(name).or_default() += 1);
    let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| Reverse(*count));
    counts
}

fn show(counts: Vec<(String, usize)>) {
    let entries: Vec<String> = counts.into_iter().map(|(name, count)| format!("{name} {count}")).collect();
    entries.chunks(6).for_each(|line| println!("  {}", line.join(", ")));
}

// ANCHOR: plain
/// What the graph's algebra leaves, a kernel an operation.
pub fn simplified() -> Result<()> {
    let plain = schedule(plain())?;
    println!("{} kernels", plain.kernels.len());
    show(count(plain.kernels.iter().map(|kernel| kernel.label.clone())));
    Ok(())
}
// ANCHOR_END: plain

// ANCHOR: stages
pub fn counted() -> Result<()> {
    println!("kernels    MiB moved   KiB of memory");
    for (what, options) in stages() {
        let schedule = schedule(options)?;
        let moved = schedule.total_work().bytes as f64 / 1048576.0;
        let memory = schedule.working_bytes() as f64 / 1024.0;
        println!("{:7}   {moved:10.2}   {memory:13.0}   {what}", schedule.kernels.len());
    }
    Ok(())
}
// ANCHOR_END: stages

/// The finished schedule, as `explain` prints it.
pub fn finished() -> Result<()> {
    print!("{}", schedule(CpuDevice::new(1).options())?.table());
    Ok(())
}

/// What one kernel computes of each element: the program that the fold of the pooling runs.
pub fn inlined() -> Result<()> {
    let schedule = schedule(CpuDevice::new(1).options())?;
    let found = schedule.find("student fc");
    let Some((number, kernel)) = found.first() else { return Ok(()) };
    let Body::Reduce { program, accumulators, .. } = &kernel.body else { return Ok(()) };
    println!("kernel {number} ({}), for each element:", kernel.label);
    for (register, instruction) in program.instrs.iter().enumerate() {
        let text = match instruction {
            Instr::Load { buffer, .. } => format!("load {}", schedule.buffers[*buffer].label),
            Instr::Binary(op, a, b) => format!("{} r{a} r{b}", op.name()),
            Instr::Unary(op, a) => format!("{} r{a}", op.name()),
            other => format!("{other:?}"),
        };
        println!("  r{register} = {text}");
    }
    accumulators.iter().for_each(|(kind, register)| println!("  {kind:?} of r{register}"));
    Ok(())
}

/// When each temporary is alive, and in which slot.
pub fn picture() -> Result<String> {
    let schedule = schedule(CpuDevice::new(1).options())?;
    let (step, left, row, top) = (56.0, 96.0, 34.0, 64.0);
    let kernels = schedule.kernels.len() as f64;
    let height = top + row * schedule.slots.len() as f64 + 16.0;
    let mut picture = Picture::new(left + step * kernels + 20.0, height);
    picture.text((16.0, 22.0), "start", "black", "Which temporary lies in which slot, from kernel to kernel");
    for at in 0..schedule.kernels.len() {
        let x = left + step * (at as f64 + 0.5);
        picture.text((x, 48.0), "middle", GREY, &at.to_string());
        picture.line((x, top - 8.0), (x, height - 12.0), "#eeeeee", 1.0);
    }
    for (slot, len) in schedule.slots.iter().enumerate() {
        let y = top + row * slot as f64;
        let size = format!("{:.1} KiB", *len as f64 * 4.0 / 1024.0);
        picture.text((left - 8.0, y + 18.0), "end", GREY, &size);
        let colours = ["#cfe3f4", "#fbdcc2", "#cdeadb"];
        let mut lives = Vec::new();
        for (id, buffer) in schedule.buffers.iter().enumerate() {
            let touched = |kernel: &schedule::Kernel| kernel.buffers().contains(&id);
            let first = schedule.kernels.iter().position(touched);
            let last = schedule.kernels.iter().rposition(touched);
            if let (Role::Temporary { slot: own }, Some(first), Some(last)) = (&buffer.role, first, last)
                && *own == slot
            {
                lives.push((first, last, &buffer.label));
            }
        }
        lives.sort();
        for (i, (first, last, label)) in lives.into_iter().enumerate() {
            let (x, width) = (left + step * first as f64 + 3.0, step * (last - first + 1) as f64 - 6.0);
            picture.rectangle((x, y), (width, row - 8.0), colours[i % 3], "#888888");
            let room = (width / 7.0) as usize;
            let short: String = label.chars().take(room).collect();
            picture.text((x + width / 2.0, y + 17.0), "middle", "black", &short);
        }
    }
    Ok(picture.svg())
}
