//! What a network of one's own is written with: `use nn::prelude::*;`.

pub use autograd::{Tensor, Variable, grad};

pub use crate::initialization::{Initialization, Initializer};
pub use crate::layers::{
    BatchNorm, Builder, ConvNorm, ConvSpec, Convolution, Embedding, Forward, GroupNorm, Kind, LayerNorm,
    Linear, Modules, MultiHeadAttention, SqueezeExcitation, TransposedConvolution, within,
};
pub use crate::loss;
pub use crate::models::{Features, Model, Network, Output};
pub use crate::optimizer::Optimizer;
pub use crate::sgd::{Sgd, SgdOptions};
