//! The names of the networks that a config may ask for, by data set.

use super::choice::DatasetKind;
use super::keys::Config;
use std::collections::HashSet;

/// What the registry puts before the networks for 224x224 images, and those for Tiny-ImageNet alone.
const IMAGENET: &str = "imagenet/";
const TINY_IMAGENET: &str = "tiny_imagenet/";
/// The reference's name for its ImageNet MobileNet V1.
const IMAGENET_ALIAS: (&str, &str) = ("MobileNetV2", "imagenet/MobileNetV1");

/// The networks of a data set: as a config spells them, and the registry's names.
fn networks(dataset: DatasetKind) -> Vec<(&'static str, &'static str)> {
    let family = |prefix: &'static str| {
        nn::models::names().filter_map(move |name| Some((name.strip_prefix(prefix)?, name)))
    };
    let small = || family("").filter(|(name, _)| !name.contains('/'));
    let large = || family(IMAGENET).chain([IMAGENET_ALIAS]);
    let mut networks: Vec<(&str, &str)> = match dataset {
        DatasetKind::Imagenet => large().collect(),
        // Pictures can be given to any network: a name that several families have is the first's.
        DatasetKind::Imagefolder => large().chain(small()).collect(),
        DatasetKind::TinyImagenet => family(TINY_IMAGENET).chain(small()).chain(family("")).collect(),
        DatasetKind::Cifar100 | DatasetKind::Cifar10 | DatasetKind::Synthetic => small().collect(),
    };
    let mut known = HashSet::new();
    networks.retain(|(name, _)| known.insert(*name));
    networks
}

/// The networks that exist for a data set's image size, as a config spells them.
pub fn models_of(dataset: DatasetKind) -> Vec<&'static str> {
    networks(dataset).into_iter().map(|(name, _)| name).collect()
}

/// The registry's name of a config's network.
fn registry_name(dataset: DatasetKind, name: &str) -> String {
    let known = networks(dataset).into_iter().find(|(spelled, _)| *spelled == name);
    known.map_or(name, |(_, registered)| registered).to_owned()
}

impl Config {
    /// The teacher's name for [`nn::models::build`].
    pub fn teacher_model(&self) -> String {
        registry_name(self.dataset.kind, &self.distiller.teacher)
    }

    /// The student's name for [`nn::models::build`].
    pub fn student_model(&self) -> String {
        registry_name(self.dataset.kind, &self.distiller.student)
    }
}
