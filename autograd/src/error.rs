//! Everything that can go wrong between writing an expression and running it.

use std::panic::Location;
use std::sync::Arc;

use thiserror::Error;

/// An error of the engine or of a device. Cheap to clone, because an invalid expression carries its
/// error along until the step is compiled.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// An expression that cannot be: shapes or types that do not fit.
    #[error("{op}: {message}\n  operands: {operands}\n  written at {location}")]
    Expression {
        /// The operation's name.
        op: &'static str,
        /// What does not fit.
        message: String,
        /// The operands' names and shapes.
        operands: String,
        /// The caller's line.
        location: &'static Location<'static>,
    },
    /// A step that cannot be scheduled: two updates of one variable, a duplicate name, and so on.
    #[error("step: {0}")]
    Step(String),
    /// A call with a missing, unknown or wrongly sized input.
    #[error("input `{name}`: {message}")]
    Input {
        /// The input's name.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// State that was never written, or does not fit, or holds a NaN or infinity.
    #[error("state `{name}`: {message}")]
    State {
        /// The variable's name.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// No usable adapter; the message says what to install or choose.
    #[error("no device: {0}")]
    NoDevice(String),
    /// A kernel, buffer or binding beyond what the device allows.
    #[error("device limit: {0}")]
    Limit(String),
    /// The device has no room.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// The device was lost or reset.
    #[error("device lost: {0}")]
    Lost(String),
    /// Anything else the device's driver reported.
    #[error("device: {0}")]
    Device(String),
}

/// The engine's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) type SharedError = Arc<Error>;
