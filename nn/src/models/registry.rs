//! Models by name.

use super::model::{Model, Network};
use super::{
    mobilenet_v1, mobilenet_v2, mobilenet_v2_tiny, mobilenet_v2_torchvision, resnet, resnet_imagenet,
};
use super::{resnet_wide_stem, shuffle_v1, shuffle_v2, vgg, wrn};
use crate::error::{Error, Result};
use crate::initialization::{Initialization, Initializer};
use crate::layers::Builder;
use crate::suggest;

type Make = fn(&mut Builder, classes: usize) -> Box<dyn Network>;

/// A line of the registry.
struct Entry {
    name: &'static str,
    rules: Initialization,
    make: Make,
}

impl Entry {
    fn build(&self, classes: usize, initializer: Initializer) -> Model {
        Model::new(self.name, classes, initializer, |b| (self.make)(b, classes))
    }
}

macro_rules! entry {
    ($name:literal, $rules:expr, |$b:ident, $classes:ident| $make:expr) => {
        Entry { name: $name, rules: $rules, make: |$b, $classes| Box::new($make) }
    };
}

/// Every model: those for CIFAR, then those for Tiny-ImageNet alone, then those for ImageNet.
const MODELS: &[Entry] = &[
    entry!("resnet8", resnet::INITIALIZATION, |b, c| resnet::ResNet::new(b, 8, resnet::THIN, c)),
    entry!("resnet14", resnet::INITIALIZATION, |b, c| resnet::ResNet::new(b, 14, resnet::THIN, c)),
    entry!("resnet20", resnet::INITIALIZATION, |b, c| resnet::ResNet::new(b, 20, resnet::THIN, c)),
    entry!("resnet32", resnet::INITIALIZATION, |b, c| resnet::ResNet::new(b, 32, resnet::THIN, c)),
    entry!("resnet44", resnet::INITIALIZATION, |b, c| resnet::ResNet::new(b, 44, resnet::THIN, c)),
    entry!("resnet56", resnet::INITIALIZATION, |b, c| resnet::ResNet::new(b, 56, resnet::THIN, c)),
    entry!("resnet110", resnet::INITIALIZATION, |b, c| resnet::ResNet::new(b, 110, resnet::THIN, c)),
    entry!("resnet8x4", resnet::INITIALIZATION, |b, c| resnet::ResNet::new(b, 8, resnet::WIDE, c)),
    entry!("resnet32x4", resnet::INITIALIZATION, |b, c| resnet::ResNet::new(b, 32, resnet::WIDE, c)),
    entry!("ResNet18", resnet::INITIALIZATION, |b, c| resnet_wide_stem::ResNet::resnet18(b, c)),
    entry!("ResNet50", resnet::INITIALIZATION, |b, c| resnet_wide_stem::ResNet::resnet50(b, c)),
    entry!("wrn_16_1", wrn::INITIALIZATION, |b, c| wrn::WideResNet::new(b, 16, 1, c)),
    entry!("wrn_16_2", wrn::INITIALIZATION, |b, c| wrn::WideResNet::new(b, 16, 2, c)),
    entry!("wrn_40_1", wrn::INITIALIZATION, |b, c| wrn::WideResNet::new(b, 40, 1, c)),
    entry!("wrn_40_2", wrn::INITIALIZATION, |b, c| wrn::WideResNet::new(b, 40, 2, c)),
    entry!("vgg8", vgg::INITIALIZATION, |b, c| vgg::Vgg::new(b, [1, 1, 1, 1, 1], c)),
    entry!("vgg11", vgg::INITIALIZATION, |b, c| vgg::Vgg::new(b, [1, 1, 2, 2, 2], c)),
    entry!("vgg13", vgg::INITIALIZATION, |b, c| vgg::Vgg::new(b, [2, 2, 2, 2, 2], c)),
    entry!("vgg16", vgg::INITIALIZATION, |b, c| vgg::Vgg::new(b, [2, 2, 3, 3, 3], c)),
    entry!("vgg19", vgg::INITIALIZATION, |b, c| vgg::Vgg::new(b, [2, 2, 4, 4, 4], c)),
    entry!("MobileNetV2", vgg::INITIALIZATION, |b, c| mobilenet_v2::MobileNetV2::new(b, c)),
    entry!("ShuffleV1", shuffle_v1::INITIALIZATION, |b, c| shuffle_v1::ShuffleNetV1::new(b, c)),
    entry!("ShuffleV2", shuffle_v1::INITIALIZATION, |b, c| shuffle_v2::ShuffleNetV2::new(b, c)),
    entry!("tiny_imagenet/MobileNetV2", shuffle_v1::INITIALIZATION, |b, c| {
        mobilenet_v2_tiny::MobileNetV2::new(b, c)
    }),
    entry!("imagenet/ResNet18", resnet::INITIALIZATION, |b, c| resnet_imagenet::ResNet::resnet18(b, c)),
    entry!("imagenet/ResNet34", resnet::INITIALIZATION, |b, c| resnet_imagenet::ResNet::resnet34(b, c)),
    entry!("imagenet/ResNet50", resnet::INITIALIZATION, |b, c| resnet_imagenet::ResNet::resnet50(b, c)),
    entry!("imagenet/ResNet101", resnet::INITIALIZATION, |b, c| resnet_imagenet::ResNet::resnet101(b, c)),
    entry!("imagenet/MobileNetV1", shuffle_v1::INITIALIZATION, |b, c| {
        mobilenet_v1::MobileNetV1::new(b, mobilenet_v1::WHOLE, c)
    }),
    entry!("imagenet/MobileNetV1_025", shuffle_v1::INITIALIZATION, |b, c| {
        mobilenet_v1::MobileNetV1::new(b, mobilenet_v1::QUARTER, c)
    }),
    // Torchvision's name: the literature's "MobileNetV2" for ImageNet is the line above.
    entry!("imagenet/mobilenet_v2", vgg::INITIALIZATION, |b, c| {
        mobilenet_v2_torchvision::MobileNetV2::new(b, c)
    }),
];

/// Other names under which a model is known: the reference calls its ImageNet MobileNet V1 so.
const ALIASES: &[(&str, &str)] = &[("imagenet/MobileNetV2", "imagenet/MobileNetV1")];

/// Every model's name.
pub fn names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|entry| entry.name)
}

/// Height and width of the images that a model is for. Most take others as well.
pub fn side(name: &str) -> usize {
    match name.split_once('/') {
        None => 32,
        Some(("tiny_imagenet", _)) => 64,
        Some(_) => 224,
    }
}

/// A new model with `classes` logits and initial values drawn from `seed`.
///
/// # Errors
/// [`Error::UnknownModel`], which says what may have been meant; no classes.
pub fn build(name: &str, classes: usize, seed: u64) -> Result<Model> {
    let entry = find(name, classes)?;
    Ok(entry.build(classes, Initializer::new(entry.rules, seed)))
}

/// As [`build`], but all weights are 0: for who wants to know shapes only.
pub fn outline(name: &str, classes: usize) -> Result<Model> {
    Ok(find(name, classes)?.build(classes, Initializer::zeros()))
}

fn find(name: &str, classes: usize) -> Result<&'static Entry> {
    let known = ALIASES.iter().find(|alias| alias.0 == name).map_or(name, |alias| alias.1);
    let Some(entry) = MODELS.iter().find(|entry| entry.name == known) else {
        let hint = suggest::hint(name, names().collect::<Vec<_>>());
        return Err(Error::UnknownModel { name: name.to_string(), hint });
    };
    if classes == 0 {
        return Err(Error::Model { name: name.to_string(), message: "needs at least one class".into() });
    }
    Ok(entry)
}

/// Names and shapes of a state dict.
pub type Manifest = Vec<(String, Vec<usize>)>;

/// That of every model, with 0 for the number of classes.
pub fn manifests() -> Vec<(&'static str, Manifest)> {
    let manifest = |entry: &Entry| entry.build(0, Initializer::zeros()).manifest();
    MODELS.iter().map(|entry| (entry.name, manifest(entry))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_gets_the_one_that_was_meant_or_all() {
        for (typed, meant) in [
            ("resnet65", "resnet56"),
            ("WRN-16-2", "wrn_16_2"),
            ("mobilenetv2", "MobileNetV2"),
            ("vgg", "vgg8"),
        ] {
            let error = build(typed, 10, 0).unwrap_err();
            assert_eq!(error.to_string(), format!("there is no model \"{typed}\"; did you mean {meant}?"));
        }
        let error = build("transformer", 10, 0).unwrap_err().to_string();
        assert!(error.contains("choose one of ") && names().all(|name| error.contains(name)), "{error}");
        assert!(matches!(build("vgg8", 0, 0), Err(Error::Model { .. })));
    }

    #[test]
    fn names_are_unique() {
        let mut all: Vec<_> = names().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), MODELS.len());
    }
}
