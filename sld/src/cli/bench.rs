//! `sld bench`.

use super::device::DeviceArgs;
use super::growth::{self, GrowthArgs};
use super::output::OutputError;
use crate::augment::Normalization;
use crate::data::cifar::{self, LoadOptions};
use crate::data::loader::{Loader, LoaderConfig, Parts, Position, Views};
use crate::data::pictures::{self, Sight};
use crate::data::synthetic::{self, SyntheticConfig};
use crate::outln;
use crate::training::roofline::Roof;
use crate::training::timing::{self, Effort, KernelTime, Subject};
use anyhow::Context;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const EXAMPLES: &str = "\
Examples:
  sld bench step --teacher resnet56 --student resnet20 --profile     where a step's time goes
  sld bench growth > growth.md                                       with batch, image size, threads
  sld bench augment --threads 2                                      images a second";

const AUGMENT_EXAMPLES: &str = "\
Examples:
  sld bench augment                            images of the drawn task, 2 threads
  sld bench augment --data data --threads 1    CIFAR's images, one thread
  python benches/augment/rate.py               the same beside Pillow";

/// Measure the speed of training steps and of augmentation.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Clone, Subcommand)]
pub enum What {
    Step(StepArgs),
    Growth(GrowthArgs),
    Augment(AugmentArgs),
}

const STEP_EXAMPLES: &str = "\
Examples:
  sld bench step --teacher resnet32x4 --student resnet8x4           an SLD step
  sld bench step --vanilla resnet20 --threads 1                     a cross-entropy step
  sld bench step --eval resnet32x4 --json                           a forward pass
  sld bench step --vanilla resnet20 --profile                       where the time goes, kernel by kernel";

/// Time whole training steps, or a forward pass, beside what the device needs at least: for the operations (by the
/// direct algorithms) at the rate of a large matrix product, and for the bytes that the kernels read and write at that
/// of a large copy, both measured in the same run.
#[derive(Debug, Clone, Args)]
#[command(after_help = STEP_EXAMPLES)]
#[command(group = clap::ArgGroup::new("step").required(true).args(["teacher", "vanilla", "eval"]))]
pub struct StepArgs {
    /// The teacher of an SLD step.
    #[arg(long, value_name = "MODEL", requires = "student")]
    pub teacher: Option<String>,
    /// The student of an SLD step.
    #[arg(long, value_name = "MODEL", requires = "teacher")]
    pub student: Option<String>,
    /// A step of cross entropy alone.
    #[arg(long, value_name = "MODEL")]
    pub vanilla: Option<String>,
    /// A forward pass in evaluation mode.
    #[arg(long, value_name = "MODEL")]
    pub eval: Option<String>,
    /// Images in a batch.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub batch: u32,
    /// Height and width of the images.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub side: u32,
    /// The method of a step with a teacher.
    #[arg(long, value_name = "NAME", default_value = "SLD", requires = "teacher")]
    pub method: String,
    /// Show where the time goes: each kernel's time, operations and bytes.
    #[arg(long)]
    pub profile: bool,
    #[command(flatten)]
    pub timing: Timing,
}

/// Time the two views: decoding, crop, flip, RandAugment, Cutout, normalisation.
#[derive(Debug, Clone, Args)]
#[command(after_help = AUGMENT_EXAMPLES)]
pub struct AugmentArgs {
    /// Images to use, CIFAR's or a folder of pictures (views of 224x224); the drawn task's if not given.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Threads that augment.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: u32,
    /// Measured epochs.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub iterations: u32,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// How to measure and print.
#[derive(Debug, Clone, Args)]
pub struct Timing {
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Measured repetitions, after a warm-up.
    #[arg(long, value_name = "K", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub iterations: u32,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Measures.
pub fn run(args: BenchArgs) -> anyhow::Result<()> {
    match args.what {
        What::Step(args) => run_step(args),
        What::Growth(args) => growth::run(args),
        What::Augment(args) => run_augment(args),
    }
}

fn run_step(args: StepArgs) -> anyhow::Result<()> {
    let subject = match (args.teacher, args.student, args.vanilla, args.eval) {
        (Some(teacher), Some(student), ..) => Subject::Distill { method: args.method, teacher, student },
        (_, _, Some(model), _) => Subject::Vanilla(model),
        (_, _, _, Some(model)) => Subject::Evaluate(model),
        _ => anyhow::bail!("name what to time: --teacher and --student, --vanilla or --eval"),
    };
    let device = args.timing.device.open()?;
    let effort = Effort {
        batch: args.batch as usize,
        side: args.side as usize,
        iterations: args.timing.iterations as usize,
        patience: Duration::MAX,
        profile: args.profile,
    };
    let timing = timing::time(&*device, &subject, effort)?;
    if args.timing.json {
        let peak = peak_memory().unwrap_or(timing.bytes);
        let json = serde_json::json!({
            "times_ms": timing.milliseconds, "peak_bytes": peak, "images": timing.images,
            "step_bytes": timing.bytes, "flops": timing.flops, "moved_bytes": timing.moved,
            "kernels": timing.kernels, "device": device.name(),
        });
        outln!("{json}")?;
        return Ok(());
    }
    if args.profile {
        print_profile(&timing.profile)?;
    }
    let (median, fastest) = (timing.median(), timing.fastest());
    outln!(
        "{}: {} kernels, {:.2} GFLOP by the direct algorithms",
        device.name(),
        timing.kernels,
        timing.flops as f64 / 1e9
    )?;
    outln!(
        "median {median:.2} ms, fastest {fastest:.2} ms, {:.0} images a second, {:.0} GFLOP/s, {:.0} MiB",
        timing.images as f64 / median * 1e3,
        timing.flops as f64 / median / 1e6,
        timing.bytes as f64 / 1048576.0
    )?;
    let roof = Roof::measure(&*device)?;
    let (compute, memory) = roof.bounds(timing.flops, timing.moved);
    outln!(
        "bounds: {:.2} ms at {:.0} GFLOP/s, the rate of a matrix product; {:.2} ms for {:.0} MiB at {:.0} GB/s, the rate of a \
         copy; the median is {:.2} times the larger",
        compute * 1e3,
        roof.flops / 1e9,
        memory * 1e3,
        timing.moved as f64 / 1048576.0,
        roof.bytes / 1e9,
        median / 1e3 / compute.max(memory)
    )?;
    Ok(())
}

/// A row a kernel; those of one label share a row. Operations by the direct algorithms.
fn print_profile(profile: &[KernelTime]) -> Result<(), OutputError> {
    let total: f64 = profile.iter().map(|kernel| kernel.seconds).sum();
    outln!(
        "{:>9} {:>6} {:>6} {:>8} {:>8} {:>8} {:>7}  kernel",
        "ms",
        "share",
        "count",
        "GFLOP",
        "GFLOP/s",
        "MiB",
        "GB/s"
    )?;
    let row = |name: &str, count: usize, seconds: f64, flops: u64, bytes: u64| {
        outln!(
            "{:>9.3} {:>5.1}% {count:>6} {:>8.3} {:>8.1} {:>8.1} {:>7.1}  {name}",
            seconds * 1e3,
            100.0 * seconds / total.max(1e-12),
            flops as f64 / 1e9,
            flops as f64 / seconds.max(1e-12) / 1e9,
            bytes as f64 / 1048576.0,
            bytes as f64 / seconds.max(1e-12) / 1e9,
        )
    };
    for k in profile {
        row(&k.label, k.count, k.seconds, k.flops, k.bytes)?;
    }
    let sum = |of: fn(&KernelTime) -> u64| profile.iter().map(of).sum();
    row("all", profile.iter().map(|k| k.count).sum(), total, sum(|k| k.flops), sum(|k| k.bytes))
}

/// The process's largest resident size so far in bytes, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(1024 * kib)
}

fn run_augment(args: AugmentArgs) -> anyhow::Result<()> {
    let images = match &args.data {
        Some(path) if pictures::is_at(path) => {
            let sight = Sight { side: 224, resize: 256, normalization: Normalization::IMAGENET };
            pictures::open(path, sight, None)?.train.context("there is no folder train/")?
        }
        Some(path) => cifar::load(path, LoadOptions { wanted: None, skip_checksums: true })?.splits.train,
        None => synthetic::generate(&SyntheticConfig::default())?.train,
    };
    let count = images.len();
    let threads = args.threads as usize;
    let config = LoaderConfig {
        batch_size: 64,
        parts: Parts::WHOLE,
        views: Views::WeakAndStrong,
        mixing: None,
        seed: 0,
        threads,
        prefetch: threads + 2,
    };
    let mut loader = Loader::train(Arc::new(images), config, Position { epoch: 1, batch: 0 })?;
    let batches = loader.batches_per_epoch();
    let mut rates = Vec::new();
    for _ in 0..args.iterations {
        let started = Instant::now();
        for _ in 0..batches {
            let batch = loader.next().ok_or_else(|| anyhow::anyhow!("the loader ended early"))??;
            loader.recycle(batch);
        }
        rates.push(count as f64 / started.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    let median = rates[rates.len() / 2];
    if args.json {
        outln!("{}", serde_json::json!({ "pairs_per_second": rates, "threads": threads }))?;
    } else {
        outln!(
            "{median:.0} weak and strong pairs a second with {threads} threads ({:.0} a thread)",
            median / threads as f64
        )?;
    }
    Ok(())
}
