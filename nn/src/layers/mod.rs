//! Layers: named parameters and buffers, and what they do to a tensor.

mod batch_norm;
mod builder;
mod convolution;
mod forward;
mod linear;
mod modules;
mod pool;
pub(crate) mod scope;

pub use batch_norm::{BatchNorm, ConvNorm, EPSILON, MOMENTUM};
pub use builder::{Builder, Kind, StateEntry};
pub use convolution::{ConvSpec, Convolution, TransposedConvolution};
pub use forward::{Forward, Mode};
pub use linear::Linear;
pub use modules::Modules;
pub use pool::{adaptive_average_pool, pool_to_vector, resize_nearest};
