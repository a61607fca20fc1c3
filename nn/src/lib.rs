//! Layers, models, losses, optimizers and checkpoints.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use autograd::{Tensor, grad};
//! use schedule::Step;
//! use nn::{Forward, Sgd, loss, models};
//!
//! let student = models::build("resnet8", 100, 1)?;
//! let images = Tensor::input("images", &[64, 32, 32, 3]);
//! let labels = Tensor::input_i32("labels", &[64]);
//! let lr = Tensor::input("lr", &[]);
//!
//! let mut forward = Forward::train(1);
//! let logits = student.forward(&images, &mut forward).logits;
//! let loss = loss::cross_entropy(&logits, &labels);
//! let sgd = Sgd::new(&student.parameters(), Default::default());
//! let gradients = grad(&loss, &sgd.tensors());
//! let step = Step::new()
//!     .output("loss", &loss)
//!     .updates(sgd.updates(&gradients, &lr))
//!     .updates(forward.into_updates());
//! # Ok(()) }
//! ```

pub mod checkpoint;
pub mod dot;
pub mod error;
pub mod images;
pub mod initialization;
pub mod layers;
pub mod loss;
pub mod models;
pub mod optimizer;
pub mod pickle;
mod state;
pub mod suggest;

pub use dot::Dot;
pub use error::{Error, Result};
pub use layers::{Forward, Mode};
pub use models::{Features, Model, Output};
pub use optimizer::{Losses, MultiStep, Optimizer, ParameterGroup, Sgd, SgdOptions};
pub use state::{check_state, identify, load_state, save_state};
