//! `sld predict`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};

use super::device::DeviceArgs;
use super::weights::{SightArgs, Weights};
use crate::cluster::cores;
use crate::data::pictures::{self, Sight};
use crate::data::{Dataset, File, Files};
use crate::training::Evaluator;
use crate::{outln, warn};

const EXAMPLES: &str = "\
Examples:
  sld predict -c output/.../student_best photo.jpg
  sld predict -c mobilenet_v2-b0353104.pth photos/ --json
  sld predict -c student.pth --classes classes.txt --size 64 *.png --format csv > guesses.csv";

/// Say what pictures show: the likeliest classes with their probabilities.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct PredictArgs {
    /// The network's weights: .pth, .safetensors or a checkpoint of `sld train`.
    #[arg(short, long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    /// Pictures, and folders with pictures.
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// The network's name, where the checkpoint does not tell; `sld models` lists them.
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Classes to print for each picture.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub top: u32,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    #[command(flatten)]
    pub sight: SightArgs,
    /// Pictures in a batch. No effect on the result.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// How to print predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A paragraph a picture.
    Table,
    /// One array, an object a picture.
    Json,
    /// A row a picture and class, under a head.
    Csv,
}

/// Predicts.
pub fn run(args: PredictArgs) -> anyhow::Result<()> {
    let weights = Weights::read(&args.checkpoint, args.model.as_deref())?;
    let sight = args.sight.sight(&weights)?;
    let names = args.sight.class_names(&weights)?;
    let (readable, broken) = readable(&args.images, sight)?;
    broken.iter().for_each(|file| warn!("{}: {}", file.path.display(), file.reason));
    if args.format == Format::Csv {
        outln!("picture,rank,class,probability")?;
    }
    let mut rows = Vec::new();
    if let Some(images) = &readable {
        let device = args.device.open()?;
        let model = weights.load(&*device, names.len())?;
        let batch = (args.batch as usize).min(images.len());
        let mut evaluator = Evaluator::compile(&*device, &model, batch, [sight.side; 2])?;
        let mut done = 0;
        let mut printed = Ok(());
        let top = (args.top as usize).min(names.len());
        evaluator.run(images, cores::available(), |logits, _| {
            for logits in logits.chunks_exact(names.len()) {
                let path = images.files().map(|files| files.path(done)).unwrap_or_default();
                done += 1;
                let likeliest = likeliest(logits, top);
                if printed.is_ok() {
                    printed = print(&args, &path, &likeliest, &names, &mut rows);
                }
            }
        })?;
        printed?;
    }
    if args.is_json() {
        outln!("{}", serde_json::to_string_pretty(&rows)?)?;
    }
    ensure!(broken.is_empty(), "{} of the pictures cannot be read (told above)", broken.len());
    Ok(())
}

impl PredictArgs {
    fn is_json(&self) -> bool {
        self.json || self.format == Format::Json
    }
}

/// The pictures that are there to read, and the files that are none.
fn readable(
    images: &[PathBuf],
    sight: Sight,
) -> anyhow::Result<(Option<Arc<Dataset>>, Vec<pictures::Broken>)> {
    let mut files: Vec<File> = Vec::new();
    for path in images {
        let found = path.metadata().with_context(|| format!("cannot read {}", path.display()))?;
        match found.is_dir() {
            true => files.extend(pictures::below(path)?),
            false => files.push(File { path: path.as_path().into(), bytes: found.len() }),
        }
    }
    ensure!(!files.is_empty(), "there is no picture in what was given");
    let labels = vec![0; files.len()];
    let files = Files::new(Path::new(""), files, sight.resize);
    let all =
        Dataset::of_files("pictures", sight.side, files, labels, vec![String::new()], sight.normalization)?;
    let (readable, broken) = pictures::without_broken(all, || ());
    Ok((readable.map(Arc::new), broken))
}

/// The likeliest classes and their probabilities, the likeliest first; of equal ones the lower class.
fn likeliest(logits: &[f32], count: usize) -> Vec<(usize, f64)> {
    let largest = logits.iter().copied().map(f64::from).fold(f64::NEG_INFINITY, f64::max);
    let exp: Vec<f64> = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).collect();
    let sum: f64 = exp.iter().sum();
    let mut classes: Vec<(usize, f64)> = exp.into_iter().map(|e| e / sum).enumerate().collect();
    classes.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    classes.truncate(count);
    classes
}

fn print(
    args: &PredictArgs,
    path: &Path,
    likeliest: &[(usize, f64)],
    names: &[String],
    rows: &mut Vec<serde_json::Value>,
) -> anyhow::Result<()> {
    let path = path.display().to_string();
    if args.is_json() {
        let class = |&(class, probability): &(usize, f64)| serde_json::json!({ "class": class, "name": names[class], "probability": probability });
        let classes: Vec<_> = likeliest.iter().map(class).collect();
        rows.push(serde_json::json!({ "picture": path, "classes": classes }));
        return Ok(());
    }
    if args.format == Format::Table {
        outln!("{path}")?;
    }
    for (rank, &(class, probability)) in likeliest.iter().enumerate() {
        match args.format {
            Format::Csv => {
                let (path, name) = (quoted(&path), quoted(&names[class]));
                outln!("{path},{},{name},{probability:.6}", rank + 1)?;
            }
            _ => outln!("  {:6.2}%  {}", 100.0 * probability, names[class])?,
        }
    }
    Ok(())
}

/// A text as a field of CSV.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}
