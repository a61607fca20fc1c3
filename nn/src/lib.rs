#![doc = include_str!("../README.md")]
//!
//! A layer of one's own takes its parameters from a [`layers::Builder`], which names them; a network of one's own
//! is made of layers and gives logits. A [`Model`] of it is trained, saved and loaded as those of the registry:
//!
//! ```
//! use nn::prelude::*;
//!
//! /// Each channel times a number that is learned.
//! struct Scale(Variable);
//!
//! impl Scale {
//!     fn new(b: &mut Builder, name: &str, channels: usize) -> Scale {
//!         Scale(b.at(name).parameter("weight", &[channels], |_| vec![1.0; channels]))
//!     }
//! }
//!
//! struct Small {
//!     stem: ConvNorm,
//!     scale: Scale,
//!     fc: Linear,
//! }
//!
//! impl Network for Small {
//!     fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
//!         let x = self.stem.forward(images, forward).relu() * self.scale.0.tensor();
//!         self.fc.forward(&x.global_average_pool()).into()
//!     }
//!     fn channels(&self) -> usize {
//!         1
//!     }
//! }
//!
//! let initializer = Initializer::new(Initialization::PYTORCH, 1);
//! let model = Model::new("small", 10, initializer, |b| Small {
//!     stem: b.conv_norm("conv", "bn", ConvSpec::new(1, 8, 3)),
//!     scale: Scale::new(b, "scale", 8),
//!     fc: b.linear("fc", 8, 10),
//! });
//! let images = Tensor::input("images", &[32, 28, 28, 1]);
//! assert_eq!(model.forward(&images, &mut Forward::train(1)).logits.shape(), [32, 10]);
//! assert_eq!(model.parameters()[3].name(), "scale.weight");
//! ```
//!
//! What a layer remembers beside its parameters is an entry of another [`layers::Kind`] ([`layers::Builder::add`]);
//! its new value goes to [`Forward::update`] in training.

pub mod adaptive;
pub mod average;
pub mod buckets;
pub mod checkpoint;
pub mod clipped;
pub mod dot;
pub mod error;
pub mod images;
pub mod initialization;
pub mod layers;
pub mod loss;
pub mod models;
pub mod onnx;
pub mod optimizer;
pub mod pickle;
pub mod prelude;
pub mod rate;
pub mod sgd;
mod state;
pub mod suggest;

pub use adaptive::{Adaptive, Rule};
pub use average::Average;
pub use clipped::Clipped;
pub use dot::Dot;
pub use error::{Error, Result};
pub use layers::{Forward, Mode};
pub use models::{Features, Model, Network, Output};
pub use optimizer::{Losses, Optimizer, clip_by_norm};
pub use rate::{Course, Schedule};
pub use sgd::{ParameterGroup, Sgd, SgdOptions};
pub use state::{check_state, identify, load_state, save_state};
