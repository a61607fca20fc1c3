//! One writer at a time.

use super::RunError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

/// The right to write to a run's folder. It ends with the process, however that ends: the operating
/// system holds the lock, not the file, so that a killed run blocks nobody.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Takes the lock of a folder that exists.
    ///
    /// # Errors
    /// [`RunError::InUse`] with the process that has it; the folder cannot be written.
    pub fn acquire(folder: &Path) -> Result<Self, RunError> {
        let path = folder.join(".lock");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.map_err(RunError::write(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message: on Windows a locked file cannot be read.
                let _ = file.read_to_string(&mut holder);
                return Err(RunError::InUse { folder: folder.into(), process: holder.trim().parse().ok() });
            }
            Err(TryLockError::Error(source)) => return Err(RunError::Write { path, source }),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(RunError::write(&path))?;
        Ok(Self { _file: file })
    }
}
