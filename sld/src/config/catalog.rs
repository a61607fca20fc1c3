//! The names of the networks that a config may ask for.

use super::DatasetKind;

/// Networks for 32x32 images.
pub const CIFAR_MODELS: &[&str] = &[
    "resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet8x4",
    "resnet32x4", "wrn_16_1", "wrn_16_2", "wrn_40_1", "wrn_40_2", "vgg8", "vgg11", "vgg13", "vgg16",
    "vgg19", "ResNet18", "ResNet50", "MobileNetV2", "ShuffleV1", "ShuffleV2",
];

/// Networks for 224x224 images. "MobileNetV2" is really MobileNet V1: the reference's name.
pub const IMAGENET_MODELS: &[&str] = &["ResNet18", "ResNet34", "ResNet50", "ResNet101", "MobileNetV2"];

/// The networks that exist for a data set's image size.
pub fn models_of(dataset: DatasetKind) -> &'static [&'static str] {
    match dataset {
        DatasetKind::Imagenet => IMAGENET_MODELS,
        _ => CIFAR_MODELS,
    }
}
