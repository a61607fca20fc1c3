//! What can go wrong in building, loading or saving a network.

use thiserror::Error;

/// An error of this crate.
#[derive(Debug, Error)]
pub enum Error {
    /// No such model; the message names the nearest one.
    #[error("there is no model `{name}`; did you mean `{nearest}`? (all: {known})")]
    UnknownModel { name: String, nearest: &'static str, known: String },
    /// A model that cannot be built.
    #[error("model `{name}`: {message}")]
    Model { name: String, message: String },
    /// A checkpoint whose tensors are not the model's.
    #[error(transparent)]
    Mismatch(#[from] crate::checkpoint::Mismatch),
    /// The engine's or the device's error.
    #[error(transparent)]
    Engine(#[from] autograd::Error),
}

/// This crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;
