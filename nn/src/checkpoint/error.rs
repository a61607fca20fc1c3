//! What can be wrong with a checkpoint file.

use std::path::{Path, PathBuf};

/// A checkpoint that could not be read or written: which file, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct CheckpointError {
    /// The file, as it was given (for a member of an archive: archive, slash, member).
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub problem: Problem,
}

impl CheckpointError {
    pub(super) fn new(path: &Path, problem: Problem) -> Self {
        CheckpointError { path: path.to_path_buf(), problem }
    }
}

/// The ways in which a checkpoint file can be unusable.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The operating system refused.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was being done ("read the file", "write the file").
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The first bytes are of no known container.
    #[error(
        "not a checkpoint: expected a PyTorch .pth (zip or legacy container) or a safetensors file, but {0}"
    )]
    NotACheckpoint(String),
    /// The zip container of a `.pth` is damaged or lacks an entry.
    #[error("damaged .pth (zip container): {0}")]
    Zip(String),
    /// The legacy container of a `.pth` is damaged.
    #[error("damaged .pth (legacy container): {0}")]
    Legacy(String),
    /// The pickle stream is damaged, or names what no checkpoint needs.
    #[error(transparent)]
    Pickle(#[from] crate::pickle::PickleError),
    /// A tensor's description and its bytes disagree.
    #[error("tensor {name}: {what}")]
    Tensor {
        /// Name in the state dict.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// A readable file that does not hold a state dict in one of the known layouts.
    #[error("{0}")]
    Layout(String),
    /// The `.tar` or `.tar.gz` around the checkpoint is damaged, or lacks the member.
    #[error("archive: {0}")]
    Archive(String),
    /// The safetensors file is damaged.
    #[error("damaged safetensors file: {0}")]
    SafeTensors(String),
    /// The file declares more data than a file of its size can hold.
    #[error(
        "declares more than {limit} bytes of data, too much for a file of {file} bytes; it is damaged or made to exhaust memory"
    )]
    TooLarge {
        /// The most that is accepted, in bytes.
        limit: u64,
        /// Size of the file, in bytes.
        file: u64,
    },
    /// This content cannot be expressed in the format asked for.
    #[error("cannot be written in this format: {0}")]
    Unwritable(String),
}

/// Text from an untrusted file, fit for one line of an error message.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 100;
    match text.char_indices().nth(SHOWN) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}... ({} bytes)", &text[..end], text.len()),
    }
}

/// How much memory a file may make the reader use for what it declares.
///
/// Honest checkpoints expand a little (a storage shared by two tensors, a deflated entry); a hostile
/// one can declare petabytes in a few bytes. Everything that is copied out of a file is charged here.
pub(super) struct Allowance {
    file: u64,
    limit: u64,
    used: u64,
}

impl Allowance {
    /// An allowance for a file of `file` bytes.
    pub(super) fn for_file(file: usize) -> Self {
        let file = file as u64;
        Allowance { file, limit: file.saturating_mul(8).saturating_add(1 << 20), used: 0 }
    }

    /// Charges `bytes`, or says that the file asks for too much.
    pub(super) fn charge(&mut self, bytes: u64) -> Result<(), Problem> {
        self.used = self.used.saturating_add(bytes);
        if self.used > self.limit {
            return Err(Problem::TooLarge { limit: self.limit, file: self.file });
        }
        Ok(())
    }
}
