//! `sld eval`.

use super::device::DeviceArgs;
use super::session;
use super::weights::{SightArgs, Weights};
use crate::augment::Normalization;
use crate::cluster::cores;
use crate::config::DatasetKind;
use crate::data::cifar::RELEASES;
use crate::data::synthetic::{self, SyntheticConfig};
use crate::data::{Dataset, pictures};
use crate::outln;
use crate::setting::Choice;
use crate::training::{Evaluator, snapshot};
use crate::warn;
use anyhow::Context;
use clap::Args;
use nn::checkpoint::{self, Checkpoint, NamedTensor, Scalar, TensorData};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const EXAMPLES: &str = "\
Examples:
  sld eval -c teacher.pth --data data
  sld eval -c output/cifar100_baselines/sld,resnet32x4,resnet8x4/student_best
  sld eval -c teacher.pth --logits logits.safetensors
  sld eval -c mobilenet_v2-b0353104.pth --data imagenet

Top-1 is the share of images whose largest output is the true class, top-5 the share whose true class is among \
the five largest.";

/// Measure a checkpoint on the test images: top-1, top-5, cross entropy.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct EvalArgs {
    /// The network's name, where the checkpoint does not tell; `sld models` lists them.
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Its weights: .pth, .safetensors or a checkpoint of `sld train`.
    #[arg(short, long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    /// Folder or archive with the images, or folder of pictures.
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
    /// Which data set it is; if not given, imagefolder where pictures lie in train/ and val/, else cifar100.
    #[arg(long, value_name = "NAME", value_parser = dataset)]
    pub dataset: Option<DatasetKind>,
    #[command(flatten)]
    pub sight: SightArgs,
    /// Measure on the training images, without augmentation, instead.
    #[arg(long)]
    pub train_split: bool,
    /// Images in a batch. No effect on the result.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Write the outputs (logits, labels) to this safetensors file.
    #[arg(long, value_name = "OUT.safetensors")]
    pub logits: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
}

fn dataset(name: &str) -> Result<DatasetKind, String> {
    DatasetKind::named(name)
}

impl EvalArgs {
    /// The data set: as is said, or what there is.
    fn kind(&self) -> DatasetKind {
        let found = || match pictures::is_at(&self.data) {
            true => DatasetKind::Imagefolder,
            false => DatasetKind::Cifar100,
        };
        self.dataset.unwrap_or_else(found)
    }
}

/// The settings of the drawn task that the checkpoint was trained on, where it tells.
fn drawn_from(
    args: &EvalArgs,
    kind: DatasetKind,
    checkpoint: &Checkpoint,
) -> anyhow::Result<Option<SyntheticConfig>> {
    if kind != DatasetKind::Synthetic {
        return Ok(None);
    }
    let Some(Scalar::Text(recipe)) = checkpoint.extra.get(snapshot::RECIPE) else { return Ok(None) };
    let settings = SyntheticConfig::from_recipe(recipe);
    Ok(Some(settings.with_context(|| args.checkpoint.display().to_string())?))
}

/// Evaluates.
pub fn run(args: EvalArgs) -> anyhow::Result<()> {
    check_output(&args)?;
    let weights = Weights::read(&args.checkpoint, args.model.as_deref())?;
    let images = Arc::new(match args.kind() {
        kind if kind.is_pictures() => pictures_for(&args, kind, &weights)?,
        kind => images_for(&args, kind, &weights)?,
    });
    let device = args.device.open()?;
    let model = weights.load(&*device, images.classes().len())?;
    let size = [images.height(), images.width()];
    let mut evaluator = Evaluator::compile(&*device, &model, (args.batch as usize).min(images.len()), size)?;
    let (mut logits, mut labels) = (Vec::new(), Vec::new());
    let keep = args.logits.is_some();
    let result = evaluator.run(&images, cores::available(), |batch, answers| {
        if keep {
            logits.extend_from_slice(batch);
            labels.extend(answers.iter().map(|&l| i64::from(l)));
        }
    })?;
    if let Some(path) = &args.logits {
        let tensors = vec![
            NamedTensor::f32("logits", &[result.images, model.classes()], logits),
            NamedTensor { name: "labels".into(), shape: vec![result.images], data: TensorData::I64(labels) },
        ];
        checkpoint::write_safetensors(path, &Checkpoint { tensors, ..Checkpoint::default() })?;
    }
    if args.json {
        let json = serde_json::json!({
            "model": model.name(), "images": result.images,
            "top1_correct": result.top1_correct, "top1": result.top1(),
            "top5_correct": result.top5_correct, "top5": result.top5(), "cross_entropy": result.loss,
        });
        outln!("{json}")?;
        return Ok(());
    }
    outln!("{} on {} ({} images, {})", model.name(), images.name(), result.images, device.name())?;
    outln!("top-1  {:6.2}%  {} of {}", result.top1(), result.top1_correct, result.images)?;
    outln!("top-5  {:6.2}%  {} of {}", result.top5(), result.top5_correct, result.images)?;
    outln!("cross entropy  {:.6}", result.loss)?;
    Ok(())
}

/// The outputs may replace older outputs, but nothing that is read here.
fn check_output(args: &EvalArgs) -> anyhow::Result<()> {
    let Some(output) = &args.logits else { return Ok(()) };
    // A checkpoint may be a member of an archive: the file is then on the way.
    let checkpoint = args.checkpoint.ancestors().find(|path| path.is_file()).map(Path::to_path_buf);
    let mut inputs: Vec<PathBuf> = checkpoint.into_iter().chain([args.data.clone()]).collect();
    for release in &RELEASES {
        let inner = args.data.join(release.folder);
        inputs.push(args.data.join(release.archive));
        inputs.extend(release.files().flat_map(|file| [args.data.join(file.name), inner.join(file.name)]));
    }
    match inputs.iter().find(|input| is_same_file(output, input)) {
        None => Ok(()),
        Some(input) => anyhow::bail!(
            "--logits {} would overwrite {}; give another name",
            output.display(),
            input.display()
        ),
    }
}

/// Whether both paths lead to one file, however they are spelled and through whatever links.
fn is_same_file(a: &Path, b: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let identity = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino()));
        matches!((identity(a), identity(b)), (Ok(a), Ok(b)) if a == b)
    }
    #[cfg(not(unix))]
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Images of one size, as the network is to see them, if it is a network for such images.
fn images_for(args: &EvalArgs, kind: DatasetKind, weights: &Weights) -> anyhow::Result<Dataset> {
    let place = &weights.place;
    let splits = match drawn_from(args, kind, &weights.checkpoint)? {
        Some(settings) => synthetic::generate(&settings)?,
        None => session::load_splits(kind, &args.data)?,
    };
    let images = if args.train_split { splits.train } else { splits.test };
    check_count(weights, &images)?;
    let Some(info) = weights.info() else { return Ok(images) };
    anyhow::ensure!(
        info.classes == images.classes(),
        "{place}: its classes are {}, those of the data set {}; choose the data set it was trained on with --dataset",
        beginning(&info.classes),
        beginning(images.classes())
    );
    if info.size != [images.height(), images.width()] {
        warn!(
            "{place}: was trained on images of {}x{}, not {}x{}",
            info.size[1],
            info.size[0],
            images.width(),
            images.height()
        );
    }
    Ok(images.normalized_by(Normalization { mean: info.mean, std: info.std }))
}

/// Pictures, as the network is to see them. Its classes may be more than the folder's.
fn pictures_for(args: &EvalArgs, kind: DatasetKind, weights: &Weights) -> anyhow::Result<Dataset> {
    let sight = args.sight.sight(weights)?;
    let list = args.sight.list(match kind {
        DatasetKind::Imagenet => Some(1000),
        _ => weights.classes(),
    })?;
    let folder = pictures::open(&args.data, sight, list.as_deref())?;
    folder.notes.iter().for_each(|note| warn!("{note}"));
    let (images, part) = match args.train_split {
        true => (folder.train, "train/"),
        false => (folder.test, "val/ or test/; --train-split measures on the pictures to train on"),
    };
    let images = images.with_context(|| format!("{} has no folder {part}", args.data.display()))?;
    let Some(info) = weights.info() else {
        check_count(weights, &images)?;
        return Ok(images);
    };
    images.with_classes(&info.classes).map_err(|class| {
        anyhow::anyhow!(
            "{}: the class \"{class}\" of the pictures is none of its {} ({})",
            weights.place,
            info.classes.len(),
            beginning(&info.classes)
        )
    })
}

/// Refuses images of more or fewer classes than the network has.
fn check_count(weights: &Weights, images: &Dataset) -> anyhow::Result<()> {
    let classes = weights.classes();
    anyhow::ensure!(
        classes.is_none_or(|classes| classes == images.classes().len()),
        "{}: it is a {} of {} classes, the data set has {}; choose the data set it was trained on with --dataset",
        weights.place,
        weights.name,
        classes.unwrap_or_default(),
        images.classes().len()
    );
    Ok(())
}

fn beginning(names: &[String]) -> String {
    names.iter().take(3).map(|name| format!("{name}, ")).collect::<String>() + "..."
}
