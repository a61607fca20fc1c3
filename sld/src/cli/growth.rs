//! `sld bench growth`.

use super::device::DeviceArgs;
use super::output::OutputError;
use crate::outln;
use crate::training::roofline::Roof;
use crate::training::timing::{self, Effort, Subject, Timing};
use clap::Args;
use std::time::Duration;

const EXAMPLES: &str = "\
Two bounds stand beside each time: the step's operations (by the direct algorithms) at the rate of a large \
matrix product, and the bytes that its kernels read and write at the rate of a copy, both measured on the same \
device with the same threads. Times below the first bound are the work of Winograd's algorithm, which multiplies less.

Examples:
  sld bench growth > growth.md
  sld bench growth --batches 16,64 --sides 32,64 --thread-counts 2";

/// Measure how a step's time grows with batch, image size and threads, beside the roofline; as Markdown.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct GrowthArgs {
    /// The teacher of the SLD step that grows in batch and threads.
    #[arg(long, value_name = "MODEL", default_value = "resnet56")]
    pub teacher: String,
    /// Its student.
    #[arg(long, value_name = "MODEL", default_value = "resnet20")]
    pub student: String,
    /// The network trained without a teacher on growing images; it must take every size.
    #[arg(long, value_name = "MODEL", default_value = "vgg8")]
    pub sized: String,
    /// Images in a batch.
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "16,32,64,128,256,512", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub batches: Vec<u32>,
    /// Heights and widths of images.
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "32,48,64,96,128", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub sides: Vec<u32>,
    /// CPU threads to compare; the largest is used for the other tables.
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,2", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub thread_counts: Vec<u32>,
    /// Most measured iterations of a row.
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub iterations: u32,
    /// A row ends after this time, but not before its third iteration.
    #[arg(long, value_name = "SECONDS", default_value_t = 4.0)]
    pub seconds: f64,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// The batch of the tables in which it does not grow.
const BATCH: u32 = 64;
/// The image size of the tables in which it does not grow.
const SIDE: u32 = 32;

/// Measures and prints three tables.
pub fn run(args: GrowthArgs) -> anyhow::Result<()> {
    anyhow::ensure!(args.seconds >= 0.0, "--seconds must not be negative");
    let distill = Subject::Distill {
        method: "SLD".into(),
        teacher: args.teacher.clone(),
        student: args.student.clone(),
    };
    let pair = format!("SLD step, {} to {}", args.teacher, args.student);
    let open = |threads: u32| DeviceArgs { threads: Some(threads), ..args.device.clone() }.open();
    let most = args.thread_counts.iter().copied().max().unwrap_or(1);
    let measure = |device: &dyn schedule::Device, subject: &Subject, batch: u32, side: u32| {
        let effort = Effort {
            batch: batch as usize,
            side: side as usize,
            iterations: args.iterations as usize,
            patience: Duration::try_from_secs_f64(args.seconds).unwrap_or(Duration::MAX),
            profile: false,
        };
        timing::time(device, subject, effort)
    };

    let device = open(most)?;
    let roof = Roof::measure(&*device)?;
    outln!("{}: {}.\n", device.name(), rates(&roof))?;

    outln!("{pair}, {SIDE}x{SIDE} images:\n")?;
    print_head("batch")?;
    for &batch in &args.batches {
        print_row(&batch.to_string(), &measure(&*device, &distill, batch, SIDE)?, &roof)?;
    }
    outln!("\nTraining step of {}, batch {BATCH}:\n", args.sized)?;
    print_head("image")?;
    for &side in &args.sides {
        let timing = measure(&*device, &Subject::Vanilla(args.sized.clone()), BATCH, side)?;
        print_row(&format!("{side}x{side}"), &timing, &roof)?;
    }
    outln!("\n{pair}, batch {BATCH}; each number of threads against its own rates:\n")?;
    print_head("threads")?;
    for &threads in &args.thread_counts {
        let device = open(threads)?;
        let roof = Roof::measure(&*device)?;
        print_row(&threads.to_string(), &measure(&*device, &distill, BATCH, SIDE)?, &roof)?;
    }
    Ok(())
}

fn rates(roof: &Roof) -> String {
    format!("matrix product {:.0} GFLOP/s, copy {:.1} GB/s", roof.flops / 1e9, roof.bytes / 1e9)
}

fn print_head(what: &str) -> Result<(), OutputError> {
    outln!(
        "| {what} | step, median (fastest) ms | images/s | GFLOP | at the product's rate, ms | MiB moved | at the copy's rate, ms | time / larger bound |"
    )?;
    outln!("|---|---|---|---|---|---|---|---|")
}

fn print_row(name: &str, timing: &Timing, roof: &Roof) -> Result<(), OutputError> {
    let (compute, memory) = roof.bounds(timing.flops, timing.moved);
    let median = timing.median();
    outln!(
        "| {name} | {median:.1} ({:.1}) | {:.0} | {:.1} | {:.1} | {:.0} | {:.1} | {:.2} |",
        timing.fastest(),
        timing.images as f64 / median * 1e3,
        timing.flops as f64 / 1e9,
        compute * 1e3,
        timing.moved as f64 / 1048576.0,
        memory * 1e3,
        median / 1e3 / compute.max(memory),
    )
}
