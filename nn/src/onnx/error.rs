//! What cannot be exported, and the size that stands for any.

use std::panic::Location;

use thiserror::Error;

/// Size of the first dim of an exported expression's inputs. It stands for any number of images.
pub const BATCH: usize = 65_537;

/// Why an expression is no ONNX model.
#[derive(Debug, Error)]
pub enum OnnxError {
    /// A primitive without a counterpart: of gradients, of randomness, of several processes.
    #[error("{location}: {op} has no counterpart in ONNX")]
    NoCounterpart {
        /// The primitive's name.
        op: &'static str,
        /// The line that it was written in.
        location: &'static Location<'static>,
    },
    /// The batch takes part in a way that ONNX cannot leave open.
    #[error("{location}: {op} needs to know the number of images, which a model leaves open")]
    ClosedBatch {
        /// The primitive's name.
        op: &'static str,
        /// The line that it was written in.
        location: &'static Location<'static>,
    },
    /// An invalid expression, or a device's error.
    #[error(transparent)]
    Engine(#[from] autograd::Error),
}
