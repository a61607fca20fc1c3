//! The names of the networks that a config may ask for, by data set.

use super::choice::DatasetKind;
use super::keys::Config;

/// What the registry puts before the networks for 224x224 images.
const IMAGENET: &str = "imagenet/";
/// The reference's name for its ImageNet MobileNet V1.
const IMAGENET_ALIAS: &str = "MobileNetV2";

/// The networks that exist for a data set's image size, as a config spells them.
pub fn models_of(dataset: DatasetKind) -> Vec<&'static str> {
    let large = || nn::models::names().filter_map(|name| name.strip_prefix(IMAGENET)).chain([IMAGENET_ALIAS]);
    let small = || nn::models::names().filter(|name| !name.starts_with(IMAGENET));
    match dataset {
        DatasetKind::Imagenet => large().collect(),
        // Pictures can be given to any network: one of both families' name is ImageNet's.
        DatasetKind::Imagefolder => {
            large().chain(small().filter(|name| large().all(|other| other != *name))).collect()
        }
        DatasetKind::TinyImagenet => nn::models::names().collect(),
        DatasetKind::Cifar100 | DatasetKind::Cifar10 | DatasetKind::Synthetic => small().collect(),
    }
}

/// The registry's name of a config's network.
fn registry_name(dataset: DatasetKind, name: &str) -> String {
    let is_large = || models_of(DatasetKind::Imagenet).contains(&name);
    match dataset {
        DatasetKind::Imagenet => format!("{IMAGENET}{name}"),
        DatasetKind::Imagefolder if is_large() => format!("{IMAGENET}{name}"),
        _ => name.to_owned(),
    }
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
