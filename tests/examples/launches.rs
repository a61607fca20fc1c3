//! What SLD steps launch on a large card, without one: launches, workgroups, bytes, and the time that a simple model
//! predicts from rates measured on an NVIDIA H200 (docs/measurements.md).
//!
//!     cargo run --release --example launches -- 64

use std::collections::BTreeMap;

use nn::models;
use schedule::Kernel;
use shaders::{Choice, Context, Launch, Limits, Operands, Sequence, Target};
use sld::distill::Sld;
use sld::training::{Networks, Setup, step::expressions};

const PAIRS: [(&str, &str); 4] = [
    ("resnet32x4", "resnet8x4"),
    ("resnet56", "resnet20"),
    ("wrn_40_2", "wrn_16_2"),
    ("wrn_16_2", "wrn_16_1"),
];
/// A launch takes this long at least, in seconds; and the card's multiprocessors.
const LEAST: f64 = 3e-6;
const MULTIPROCESSORS: f64 = 132.0;
/// Bytes a second of large maps.
const BYTES: f64 = 3.2e12;
/// What multiplies, with the operations a second of large products: of pairs a third of those in 16 bits, as each takes
/// three.
const PRODUCTS: [(Operands, f64, &str); 3] = [
    (Operands::F32, 25e12, "f32"),
    (Operands::Split, 100e12 / 3.0, "split"),
    (Operands::Matrix, 100e12, "mixed"),
];

fn target(operands: Operands) -> Target {
    let limits = Limits {
        storage_buffers: 64,
        binding_bytes: 2 << 30,
        workgroup_bytes: 48 << 10,
        invocations: 1024,
        groups: 65_535,
    };
    Target { lanes: 32, operands, limits }
}

/// Of some launches.
#[derive(Clone, Copy, Default)]
struct Cost {
    launches: usize,
    workgroups: usize,
    bytes: u64,
    seconds: f64,
}

impl Cost {
    /// Of the launches of a kernel of so many operations, which the one of most workgroups does.
    fn of(launches: &[Launch], flops: u64, rate: f64) -> Cost {
        let most = launches.iter().map(Launch::workgroups).max().unwrap_or(0);
        let mut cost = Cost { launches: launches.len(), ..Cost::default() };
        for launch in launches {
            let groups = launch.workgroups();
            let bytes: u64 = launch.bindings.iter().map(|bound| bound.bytes()).sum();
            // One workgroup keeps about half of a multiprocessor busy.
            let busy = (groups as f64 / (2.0 * MULTIPROCESSORS)).min(1.0);
            let flops = if groups == most { flops as f64 } else { 0.0 };
            cost.seconds += LEAST.max(bytes as f64 / BYTES).max(flops / rate / busy.max(1e-9));
            cost.workgroups += groups;
            cost.bytes += bytes;
        }
        cost
    }

    fn add(&mut self, other: Cost) {
        self.launches += other.launches;
        self.workgroups += other.workgroups;
        self.bytes += other.bytes;
        self.seconds += other.seconds;
    }
}

/// The way to compute a kernel that the model takes for the fastest.
fn best(context: Context, kernel: &Kernel, flops: u64, rate: f64) -> autograd::Result<Option<Choice>> {
    let mut best = (f64::INFINITY, None);
    for choice in std::iter::once(None).chain(shaders::candidates(context, kernel).into_iter().map(Some)) {
        let launches = shaders::assemble(Context { choice, ..context }, kernel)?.launches;
        let Cost { seconds, .. } = Cost::of(&launches, flops, rate);
        if seconds < best.0 {
            best = (seconds, choice);
        }
    }
    Ok(best.1)
}

fn main() -> anyhow::Result<()> {
    let batch: usize = std::env::args().nth(1).map_or(Ok(64), |word| word.parse())?;
    println!(
        "| step, batch {batch} | | launches | workgroups | MiB | predicted ms |\n|---|---|---|---|---|---|"
    );
    for (teacher, student) in PAIRS {
        let build = |name: &str| models::build(name, 100, 1);
        let method = Sld::default();
        let networks = Networks::new(build(student)?, Some(build(teacher)?), &method, Setup::default())?;
        for (operands, rate, name) in PRODUCTS {
            let target = target(operands);
            let (step, _) = expressions(&networks, &method, batch, [32, 32]);
            let made = shaders::precompute(step.schedule_with(target.schedule_options())?, &target);
            let (run, context) = (&made.schedule, made.context(&target));
            let mut families: BTreeMap<&str, [Cost; 2]> = BTreeMap::new();
            for (way, words) in ["fixed", "by the model's best ways"].into_iter().enumerate() {
                let flops = |kernel: &Kernel| run.work(kernel).flops;
                let assemble = |kernel| {
                    let choice = if way == 0 { None } else { best(context, kernel, flops(kernel), rate)? };
                    shaders::assemble(Context { choice, ..context }, kernel)
                };
                let assembled = run.all_kernels().map(assemble).collect::<autograd::Result<_>>()?;
                let sequence = Sequence::new(context, run, assembled)?;
                let end = sequence.call.len();
                let starts = || sequence.starts.iter().copied();
                let ahead = &sequence.call[..starts().next().unwrap_or(end)];
                families.entry("packing").or_default()[way].add(Cost::of(ahead, 0, rate));
                let launches =
                    starts().zip(starts().skip(1).chain([end])).map(|(from, to)| &sequence.call[from..to]);
                for (kernel, launches) in run.kernels.iter().zip(launches) {
                    let cost = Cost::of(launches, flops(kernel), rate);
                    families.entry(family(kernel)).or_default()[way].add(cost);
                }
                let mut total = Cost::default();
                families.values().for_each(|costs| total.add(costs[way]));
                let Cost { launches, workgroups, bytes, seconds } = total;
                println!(
                    "| {teacher} → {student}, {name} | {words} | {launches} | {workgroups} | {:.0} | {:.2} |",
                    bytes as f64 / f64::from(1 << 20),
                    seconds * 1e3
                );
            }
            for (family, [fixed, best]) in families {
                eprintln!(
                    "{teacher} {name} {family}: {} launches, {} MiB, {:.2} ms; {}, {} and {:.2}",
                    fixed.launches,
                    fixed.bytes >> 20,
                    fixed.seconds * 1e3,
                    best.launches,
                    best.bytes >> 20,
                    best.seconds * 1e3
                );
            }
        }
    }
    Ok(())
}

fn family(kernel: &Kernel) -> &'static str {
    use schedule::{Body, ConvKind};
    match &kernel.body {
        Body::Map { .. } => "maps",
        Body::Reduce { .. } => "folds",
        Body::Convolution { kind: ConvKind::WeightGrad, .. } => "weight gradients",
        Body::Convolution { .. } => "convolutions",
        Body::MatMul { .. } => "matrix products",
        Body::Pool { .. } | Body::AllReduce { .. } => "others",
    }
}
