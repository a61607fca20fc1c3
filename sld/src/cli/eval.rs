//! `sld eval`.

use super::device::DeviceArgs;
use super::session;
use crate::augment::Normalization;
use crate::config::DatasetKind;
use crate::data::Dataset;
use crate::data::cifar::RELEASES;
use crate::data::synthetic::{self, SyntheticConfig};
use crate::outln;
use crate::setting::Choice;
use crate::training::{Evaluator, snapshot};
use crate::warn;
use anyhow::Context;
use clap::Args;
use nn::checkpoint::{self, Checkpoint, NamedTensor, Role, Scalar, TensorData};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const EXAMPLES: &str = "\
Examples:
  sld eval -c teacher.pth --data data
  sld eval -c output/cifar100_baselines/sld,resnet32x4,resnet8x4/student_best
  sld eval -c teacher.pth --logits logits.safetensors

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
    /// Folder or archive with the images.
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
    /// Which data set it is.
    #[arg(long, value_name = "NAME", default_value = "cifar100", value_parser = dataset)]
    pub dataset: DatasetKind,
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

/// The settings of the drawn task that the checkpoint was trained on, where it tells.
fn drawn_from(args: &EvalArgs, checkpoint: &Checkpoint) -> anyhow::Result<Option<SyntheticConfig>> {
    if args.dataset != DatasetKind::Synthetic {
        return Ok(None);
    }
    let Some(Scalar::Text(recipe)) = checkpoint.extra.get(snapshot::RECIPE) else { return Ok(None) };
    let settings = SyntheticConfig::from_recipe(recipe);
    Ok(Some(settings.with_context(|| args.checkpoint.display().to_string())?))
}

/// Evaluates.
pub fn run(args: EvalArgs) -> anyhow::Result<()> {
    check_output(&args)?;
    let place = args.checkpoint.display();
    if let Some(name) = args.model.as_deref().filter(|name| nn::models::names().all(|known| known != *name)) {
        // Another name of a network, or the error.
        nn::models::build(name, 1, 0)?;
    }
    let network = checkpoint::read_network(&args.checkpoint, Role::Student)?;
    network.notes.iter().for_each(|note| warn!("{place}: {note}"));
    let identity = nn::identify(&network.tensors);
    let name = match &args.model {
        Some(name) => name.clone(),
        None => model_name(&args, &network, &identity)?,
    };
    let splits = match drawn_from(&args, &network)? {
        Some(settings) => synthetic::generate(&settings)?,
        None => session::load_splits(args.dataset, &args.data)?,
    };
    let images = if args.train_split { splits.train } else { splits.test };
    let model = nn::models::build(&name, images.classes().len(), 0)?;
    let images = Arc::new(fitted(images, &args, &network, model.name(), &identity)?);
    let device = args.device.open()?;
    snapshot::write_model(&*device, &model, &network.tensors, &place.to_string())?;
    let size = [images.height(), images.width()];
    let mut evaluator = Evaluator::compile(&*device, &model, (args.batch as usize).min(images.len()), size)?;
    let (mut logits, mut labels) = (Vec::new(), Vec::new());
    let keep = args.logits.is_some();
    let result = evaluator.run(&images, 2, |batch, answers| {
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

/// The networks that a checkpoint's tensors fit, and their number of classes.
type Identity = (Vec<&'static str>, usize);

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

/// The network's name: as the checkpoint says, or the only one whose tensors these are.
fn model_name(args: &EvalArgs, network: &Checkpoint, identity: &Identity) -> anyhow::Result<String> {
    let place = args.checkpoint.display();
    if let Some(info) = &network.network {
        return Ok(info.model.clone());
    }
    let (fitting, classes) = identity;
    match fitting.as_slice() {
        [name] => {
            warn!("{place}: its names and shapes are those of a {name} of {classes} classes");
            Ok((*name).to_owned())
        }
        [] => anyhow::bail!(
            "{place}: its {} tensors are those of none of the networks; give with -m what it should be, to see \
             the differences (`sld models` lists the networks)",
            network.tensors.len()
        ),
        several => anyhow::bail!("{place}: may be any of {}; choose with -m", several.join(", ")),
    }
}

/// The images as the network is to see them, if it is a network for such images.
fn fitted(
    images: Dataset,
    args: &EvalArgs,
    network: &Checkpoint,
    name: &str,
    (fitting, classes): &Identity,
) -> anyhow::Result<Dataset> {
    let place = args.checkpoint.display();
    anyhow::ensure!(
        *classes == images.classes().len() || !fitting.contains(&name),
        "{place}: it is a {name} of {classes} classes, the data set has {}; choose the data set it was trained on \
         with --dataset",
        images.classes().len()
    );
    let Some(info) = network.network.as_ref().filter(|info| info.model == name) else { return Ok(images) };
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

fn beginning(names: &[String]) -> String {
    names.iter().take(3).map(|name| format!("{name}, ")).collect::<String>() + "..."
}
