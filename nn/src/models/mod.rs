//! The networks, one file a family, and their registry.
//!
//! Names, shapes and order of parameters and buffers are those of the published CIFAR checkpoints of
//! the knowledge-distillation literature (RepDistiller, mdistiller) and of torchvision, so their files
//! load as they are.

mod cost;
mod inverted_residual;
mod mobilenet_v1;
mod mobilenet_v2;
mod mobilenet_v2_tiny;
mod mobilenet_v2_torchvision;
mod model;
mod registry;
mod resnet;
mod resnet_imagenet;
mod resnet_wide_stem;
mod shuffle_v1;
mod shuffle_v2;
mod vgg;
mod wrn;

pub use model::{Features, Model, Network, Output};
pub use registry::{Manifest, build, manifests, names, outline, side};
