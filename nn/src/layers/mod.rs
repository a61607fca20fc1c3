//! Layers: named parameters and buffers, and what they do to a tensor.

mod attention;
mod batch_norm;
mod builder;
mod convolution;
mod embedding;
mod forward;
mod linear;
mod modules;
mod norm;
mod pool;
mod scope;

pub use attention::{MultiHeadAttention, SqueezeExcitation};
pub use batch_norm::{BatchNorm, ConvNorm, EPSILON, MOMENTUM};
pub use builder::{Builder, Kind, StateEntry};
pub use convolution::{ConvSpec, Convolution, TransposedConvolution};
pub use embedding::Embedding;
pub use forward::{Forward, Mode};
pub use linear::Linear;
pub use modules::Modules;
pub use norm::{GroupNorm, LayerNorm};
pub use pool::{adaptive_average_pool, pool_to_vector, resize_nearest};
pub use scope::within;
