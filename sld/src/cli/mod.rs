//! The command line. A subcommand is a file: its arguments, its help, its `run`.

mod bench;
mod compare;
mod completions;
mod convert;
mod data;
mod demo;
mod device;
mod devices;
mod eval;
mod explain;
mod export;
mod growth;
pub mod interrupt;
mod measuring;
mod models;
pub mod output;
mod predict;
mod report;
mod resuming;
mod running;
mod series;
pub mod session;
mod train;
mod tune;
mod weights;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{CommandFactory, Parser, Subcommand};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const ABOUT: &str = "\
Swapped Logit Distillation: a small network learns from a large one.

A trained teacher does not only know the right class of an image, it also knows what the image resembles. \
Distillation lets a student learn from all of the teacher's outputs. But where the teacher is wrong, the student \
learns the mistake: SLD first swaps the teacher's largest output with that of the true class, and later does the \
same with the student's own outputs, which then teach the student itself.

Without a command, a demonstration runs: it draws a task, trains a teacher, and compares a student that learns \
alone, with KD and with SLD. It needs no download and no GPU.";

const EXAMPLES: &str = "\
Examples:
  sld                                                            the demonstration, under 3 minutes
  sld data fetch cifar100                                        get the images
  sld train --cfg configs/cifar100/vanilla.yaml                  train without a teacher
  sld train --cfg configs/cifar100/sld/res32x4_res8x4.yaml --teacher teacher.pth
  sld train --cfg configs/cifar100/sld/res32x4_res8x4.yaml --resume
  sld eval -m resnet20 -c teacher.pth --data data                accuracy of a checkpoint
  sld report output/cifar100_baselines/*                         runs side by side, as one HTML file
  sld compare --cfg configs/cifar100/kd.yaml --methods kd,sld,crd --seeds 3      methods side by side";

/// Swapped Logit Distillation: a small network learns from a large one.
#[derive(Debug, Parser)]
#[command(name = "sld", version = crate::VERSION, long_about = ABOUT, after_help = EXAMPLES, styles = STYLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::TrainArgs),
    Eval(eval::EvalArgs),
    Predict(predict::PredictArgs),
    Data(data::DataArgs),
    Convert(convert::ConvertArgs),
    Export(export::ExportArgs),
    Devices(devices::DevicesArgs),
    Models(models::ModelsArgs),
    Explain(explain::ExplainArgs),
    Tune(tune::TuneArgs),
    Bench(bench::BenchArgs),
    Report(report::ReportArgs),
    Compare(compare::CompareArgs),
    Completions(completions::CompletionsArgs),
    Demo(demo::DemoArgs),
}

/// Runs what the command line asks for; without a command, the demonstration.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    crate::data::loader::tell_stalls(|path, time| {
        crate::warn!("waiting for {}, whose reading has taken {} seconds", path.display(), time.as_secs());
    });
    match cli.command.unwrap_or_else(|| Command::Demo(demo::DemoArgs::default())) {
        Command::Train(args) => train::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Predict(args) => predict::run(args),
        Command::Data(args) => data::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Export(args) => export::run(args),
        Command::Devices(args) => devices::run(args),
        Command::Models(args) => models::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Tune(args) => tune::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Report(args) => report::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Completions(args) => completions::run(args, Cli::command()),
        Command::Demo(args) => demo::run(args),
    }
}
