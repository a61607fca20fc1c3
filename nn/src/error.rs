//! What can go wrong in building, loading or saving a network.

use thiserror::Error;

use crate::checkpoint::Mismatch;

/// An error of this crate.
#[derive(Debug, Error)]
pub enum Error {
    /// No such model; the hint names the one that was meant, or all.
    #[error("there is no model \"{name}\"{hint}")]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// Names that exist, as the end of the sentence.
        hint: String,
    },
    /// A model that cannot be built.
    #[error("model `{name}`: {message}")]
    Model {
        /// The model.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// A checkpoint of this model with another number of classes.
    #[error(
        "it is a {model} of {found} classes, the data set has {expected}; choose the data set it was trained on"
    )]
    Classes {
        /// The model.
        model: String,
        /// Classes of the checkpoint.
        found: usize,
        /// Classes of the data set.
        expected: usize,
    },
    /// A checkpoint that is not this model's.
    #[error("{mismatch}\n(loading the model {model})")]
    Mismatch {
        /// The model to be loaded.
        model: String,
        /// The tensors that are missing, left over or of another shape.
        mismatch: Box<Mismatch>,
    },
    /// Optimizer state that is not this optimizer's.
    #[error("optimizer state: {0}")]
    Optimizer(String),
    /// A state with NaN or infinity in it.
    #[error("`{name}`: element {index} is {value}: its training diverged, or the file is damaged")]
    NotFinite {
        /// The tensor.
        name: String,
        /// Row-major, from 0.
        index: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// A running variance below 0: its square root is no number, and neither is any output.
    #[error("`{name}`: element {index} is {value}, but no variance is negative: the file is damaged")]
    NegativeVariance {
        /// The tensor.
        name: String,
        /// Row-major, from 0.
        index: usize,
        /// Below 0.
        value: f32,
    },
    /// The engine's or the device's error.
    #[error(transparent)]
    Engine(#[from] autograd::Error),
}

/// This crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;
