//! The names of the networks that a config may ask for, by data set.

use super::choice::DatasetKind;
use super::keys::Config;

/// What the registry puts before the networks for 224x224 images.
const IMAGENET: &str = "imagenet/";
/// The reference's name for its ImageNet MobileNet V1.
const IMAGENET_ALIAS: &str = "MobileNetV2";

/// The networks that exist for a data set's image size, as a config spells them.
pub fn models_of(dataset: DatasetKind) -> Vec<&'static str> {
    let names = nn::models::names();
    match dataset {
        DatasetKind::Imagenet => {
            names.filter_map(|name| name.strip_prefix(IMAGENET)).chain([IMAGENET_ALIAS]).collect()
        }
        _ => names.filter(|name| !name.starts_with(IMAGENET)).collect(),
    }
}

/// The registry's name of a config's network.
fn registry_name(dataset: DatasetKind, name: &str) -> String {
    match dataset {
        DatasetKind::Imagenet => format!("{IMAGENET}{name}"),
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
