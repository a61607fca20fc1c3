//! A checkpoint that is to be used: which network it is of, and how that sees images.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use nn::checkpoint::{self, Checkpoint, NamedTensor, NetworkInfo, Role};
use nn::models::Model;
use schedule::Device;

use crate::augment::Normalization;
use crate::data::pictures::{self, Classes, Sight};
use crate::training::snapshot;
use crate::warn;

/// Weights, and what they tell of their network.
pub struct Weights {
    /// Where they are, for messages.
    pub place: String,
    pub checkpoint: Checkpoint,
    /// The network's name in the registry.
    pub name: String,
    /// The networks that the tensors fit, and their number of classes.
    fitting: Vec<&'static str>,
    classes: usize,
}

impl Weights {
    /// Reads the student in a file; `name` is the network's, where the file does not tell.
    ///
    /// # Errors
    /// An unreadable file, an unknown network, or several that it may be.
    pub fn read(path: &Path, name: Option<&str>) -> anyhow::Result<Weights> {
        let place = path.display().to_string();
        if let Some(name) = name.filter(|name| nn::models::names().all(|known| known != *name)) {
            // Another name of a network, or the error.
            nn::models::build(name, 1, 0)?;
        }
        let checkpoint = checkpoint::read_network(path, Role::Student)?;
        checkpoint.notes.iter().for_each(|note| warn!("{place}: {note}"));
        let (fitting, classes) = nn::identify(&checkpoint.tensors);
        let name = match (name, &checkpoint.network) {
            (Some(name), _) => name.to_owned(),
            (None, Some(info)) => info.model.clone(),
            (None, None) => the_only(&place, &checkpoint, &fitting, classes)?,
        };
        Ok(Weights { place, checkpoint, name, fitting, classes })
    }

    /// What the checkpoint says of its network, if it is the one that is meant.
    pub fn info(&self) -> Option<&NetworkInfo> {
        self.checkpoint.network.as_ref().filter(|info| info.model == self.name)
    }

    /// Its number of outputs, where the tensors are those of a network of its name.
    pub fn classes(&self) -> Option<usize> {
        self.fitting.contains(&self.name.as_str()).then_some(self.classes)
    }

    /// The network with these weights on the device.
    ///
    /// # Errors
    /// They do not fit it.
    pub fn load(&self, device: &dyn Device, classes: usize) -> anyhow::Result<Model> {
        let model = nn::models::build(&self.name, classes, 0)?;
        snapshot::write_model(device, &model, &self.checkpoint.tensors, &self.place)?;
        Ok(model)
    }
}

/// The only network whose tensors these are.
fn the_only(
    place: &str,
    checkpoint: &Checkpoint,
    fitting: &[&str],
    classes: usize,
) -> anyhow::Result<String> {
    match fitting {
        [name] => {
            warn!("{place}: its names and shapes are those of a {name} of {classes} classes");
            Ok((*name).to_owned())
        }
        [] => {
            let described = |tensor: &NamedTensor| format!("{} {:?}", tensor.name, tensor.shape);
            let ends = [checkpoint.tensors.first(), checkpoint.tensors.last()]
                .map(|end| end.map(described).unwrap_or_default());
            anyhow::bail!(
                "{place}: its {} tensors, {}, are by their names and shapes those of none of the networks; give with \
                 -m what it should be, to see the differences (`sld models` lists the networks)",
                checkpoint.tensors.len(),
                ends.join(" to ")
            )
        }
        several => anyhow::bail!("{place}: may be any of {}; choose with -m", several.join(", ")),
    }
}

/// How the network sees pictures, where its checkpoint does not tell or is not to decide.
#[derive(Debug, Clone, Default, Args)]
pub struct SightArgs {
    /// Pixels of a side, as the network sees pictures; the checkpoint's, or those that the network is made for.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub size: Option<u32>,
    /// What a picture's shorter side becomes before the centre is cut out; the checkpoint's, or 8/7 of the size
    /// (the size for CIFAR's networks).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub resize: Option<u32>,
    /// What is subtracted from the levels (0 to 1) of red, green and blue; the checkpoint's, or those of CIFAR-100 for CIFAR's networks
    /// and ImageNet's for others.
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    pub mean: Option<Vec<f32>>,
    /// What they are then divided by; the checkpoint's, or those of CIFAR-100 for CIFAR's networks
    /// and ImageNet's for others.
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    pub std: Option<Vec<f32>>,
    /// The classes of a network that does not tell: on each line a folder's name, and behind a tab what it is called;
    /// sorted by the former. ImageNet's are known.
    #[arg(long, value_name = "FILE")]
    pub classes: Option<PathBuf>,
}

impl SightArgs {
    /// As the arguments say, else as the checkpoint does, else as is customary for the network's data.
    pub fn sight(&self, weights: &Weights) -> anyhow::Result<Sight> {
        let info = weights.info();
        // CIFAR's images fill the view.
        let own = nn::models::side(&weights.name);
        let fills = info.map_or(own == 32, |info| info.resize == 0);
        let trained = info.map(|info| info.size[0]);
        let side = self.size.map(|side| side as usize).or(trained).unwrap_or(own);
        let told = info.filter(|info| info.resize >= side && trained == Some(side)).map(|info| info.resize);
        let usual = if fills { side } else { side * 8 / 7 };
        let resize = self.resize.map(|resize| resize as usize).or(told).unwrap_or(usual);
        ensure!(resize >= side, "--resize {resize} is less than the size {side}, which is cut out of it");
        let usual = if own == 32 { Normalization::CIFAR100 } else { Normalization::IMAGENET };
        let mean = three("--mean", &self.mean)?.or(info.map(|info| info.mean)).unwrap_or(usual.mean);
        let std = three("--std", &self.std)?.or(info.map(|info| info.std)).unwrap_or(usual.std);
        let sound = mean.iter().all(|m| m.is_finite()) && std.iter().all(|s| s.is_finite() && *s > 0.0);
        ensure!(sound, "--mean and --std need finite numbers, and --std positive ones");
        Ok(Sight { side, resize, normalization: Normalization { mean, std } })
    }

    /// What the network's outputs are called: as the checkpoint says, or the list.
    ///
    /// # Errors
    /// The list cannot be read, or is of another length.
    pub fn class_names(&self, weights: &Weights) -> anyhow::Result<Vec<String>> {
        if let (Some(info), None) = (weights.info(), &self.classes) {
            return Ok(info.classes.clone());
        }
        let count = weights.classes();
        let list = self.list(count)?;
        let names = match (&list, count) {
            (Some(list), _) => Classes::listed(list).names().to_vec(),
            (None, Some(count)) => (0..count).map(|class| format!("class {class}")).collect(),
            // It is no such network: loading says in what.
            (None, None) => vec!["class 0".into()],
        };
        ensure!(
            count.is_none_or(|count| count == names.len()),
            "{}: it is a {} of {} classes, the list has {}",
            weights.place,
            weights.name,
            count.unwrap_or_default(),
            names.len()
        );
        Ok(names)
    }

    /// The list of classes for a network of so many: the given one, or ImageNet's.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn list(&self, classes: Option<usize>) -> anyhow::Result<Option<String>> {
        match &self.classes {
            Some(path) => {
                let text = std::fs::read_to_string(path);
                Ok(Some(text.with_context(|| format!("cannot read the classes in {}", path.display()))?))
            }
            None => Ok((classes == Some(1000)).then(|| pictures::IMAGENET.to_owned())),
        }
    }
}

/// A number for each channel.
fn three(option: &str, given: &Option<Vec<f32>>) -> anyhow::Result<Option<[f32; 3]>> {
    let Some(given) = given else { return Ok(None) };
    let three = <[f32; 3]>::try_from(given.as_slice());
    Ok(Some(three.ok().with_context(|| format!("{option} needs three numbers, such as 0.485,0.456,0.406"))?))
}
