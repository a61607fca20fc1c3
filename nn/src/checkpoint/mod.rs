//! Checkpoints: PyTorch `.pth` files in both containers, safetensors, and archives of them.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use nn::checkpoint;
//! let teacher = checkpoint::read("cifar_teachers.tar/resnet56_vanilla/ckpt_epoch_240.pth".as_ref())?;
//! println!("epoch {:?}, {} tensors", teacher.epoch, teacher.tensors.len());
//! checkpoint::write_safetensors("resnet56.safetensors".as_ref(), &teacher)?;
//! # Ok(()) }
//! ```
//!
//! **Reading is safe.** A `.pth` is a Python pickle, which is a program. It is read as data
//! ([`crate::pickle`]): nothing is executed, and names that a checkpoint has no need of are refused. Memory is bounded by a small multiple of the file's size whatever
//! the file claims, time is linear in it, and no structure is walked recursively.
//!
//! **Writing is atomic** ([`write_atomically`]): a crash leaves the old file or the new one.

mod archive;
mod atomic;
mod error;
mod layout;
mod legacy;
mod matching;
mod pickle_writer;
mod pth_writer;
mod safetensor;
mod state;
mod tensor;
mod torch;
mod zipped;

use std::path::Path;

pub use atomic::write_atomically;
pub use error::{CheckpointError, Problem};
pub use matching::{Manifest, Mismatch, Misshapen, Nearest, match_names, nearest_model};
pub use state::{Checkpoint, NetworkInfo, OptimizerState, ParamGroup, Role, Scalar};
pub use tensor::{BF16Bits, DType, F16Bits, NamedTensor, TensorData};

/// Reads a checkpoint.
///
/// `path` is a `.pth` or a safetensors file (told apart by content, not by name), or continues past a
/// `.tar` or `.tar.gz` to a member of it: `cifar_teachers.tar/resnet56_vanilla/ckpt_epoch_240.pth`.
/// The part inside the archive may leave out leading folders as long as only one member ends in it.
///
/// The state dict is taken from the key `model` or `state_dict`, else from the only key that has a dict of
/// tensors, else it is the file's top level. Names are the file's; see [`Checkpoint::into_network`].
pub fn read(path: &Path) -> Result<Checkpoint, CheckpointError> {
    archive::load(path)
        .and_then(|bytes| parse_bytes(&bytes, &mut None))
        .map_err(|problem| CheckpointError::new(path, problem))
}

/// As [`read`], but the network of `role` alone, under the names that its definition gives the tensors:
/// the dict of tensors under `student` or `teacher`, or else by [`Checkpoint::into_network`].
pub fn read_network(path: &Path, role: Role) -> Result<Checkpoint, CheckpointError> {
    archive::load(path)
        .and_then(|bytes| parse_bytes(&bytes, &mut Some(role.name())))
        .map(|checkpoint| checkpoint.into_network(role))
        .map_err(|problem| CheckpointError::new(path, problem))
}

/// As [`read`], but one part alone: the dict of tensors under the key `part`, or else the submodule of
/// that name. Beside a submodule nothing is kept, since what the file says it says of the whole.
pub fn read_part(path: &Path, part: &str) -> Result<Checkpoint, CheckpointError> {
    archive::load(path)
        .and_then(|bytes| {
            let mut wanted = Some(part);
            let mut checkpoint = parse_bytes(&bytes, &mut wanted)?;
            if wanted.is_none() {
                return Ok(checkpoint);
            }
            match checkpoint.take_submodule(part) {
                tensors if tensors.is_empty() => Err(Problem::Layout(format!(
                    "has no part {part:?}: neither a dict of tensors of that name nor names that begin with it"
                ))),
                tensors => Ok(Checkpoint { tensors, notes: checkpoint.notes, ..Checkpoint::default() }),
            }
        })
        .map_err(|problem| CheckpointError::new(path, problem))
}

/// Reads a checkpoint from the content of a `.pth` or safetensors file. `path` serves for messages only.
pub fn parse(bytes: &[u8], path: &Path) -> Result<Checkpoint, CheckpointError> {
    parse_bytes(bytes, &mut None).map_err(|problem| CheckpointError::new(path, problem))
}

/// Reads the checkpoint `member` from the content of a `.tar` or `.tar.gz`, by the rules of [`read`].
/// `path` is the archive's, for messages only.
pub fn parse_archive(archive: &[u8], member: &str, path: &Path) -> Result<Checkpoint, CheckpointError> {
    archive::member(&mut std::io::Cursor::new(archive), member)
        .and_then(|bytes| parse_bytes(&bytes, &mut None))
        .map_err(|problem| CheckpointError::new(&path.join(member), problem))
}

/// Writes a `.pth` (zip container) that PyTorch opens, also with `weights_only=True`: a dict with `model`
/// and, where they are set, `epoch`, `accuracy`, `best_acc`, `optimizer` and the extra scalars.
/// Names are written as they are: put `module.` before them if DataParallel is to read them.
pub fn write_pth(path: &Path, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    pth_writer::write(path, checkpoint).map_err(|problem| CheckpointError::new(path, problem))
}

/// Writes a safetensors file: the state dict as tensors; momentum buffers as tensors named
/// `optimizer.state.N.momentum_buffer`; everything else as JSON in the metadata key `checkpoint`.
pub fn write_safetensors(path: &Path, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    safetensor::write(path, checkpoint).map_err(|problem| CheckpointError::new(path, problem))
}

/// `part` is the key of the state dict; it is taken where there is such a key.
fn parse_bytes(bytes: &[u8], part: &mut Option<&str>) -> Result<Checkpoint, Problem> {
    if zipped::is_zip(bytes) {
        zipped::parse(bytes, part)
    } else if legacy::is_legacy(bytes) {
        legacy::parse(bytes, part)
    } else if safetensor::is_safetensors(bytes) {
        safetensor::parse(bytes)
    } else {
        Err(Problem::NotACheckpoint(describe(bytes)))
    }
}

/// What a file that is not a checkpoint seems to be.
fn describe(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        "the file is empty".into()
    } else if archive::is_archive(bytes) {
        "it is an archive; add the member's path to the archive's".into()
    } else if bytes.first() == Some(&0x80) {
        "it is a pickle without PyTorch's header; write it with torch.save".into()
    } else {
        let shown = &bytes[..bytes.len().min(8)];
        format!("the file begins with {:?}", shown.escape_ascii().to_string())
    }
}
