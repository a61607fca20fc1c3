//! One writer at a time.

use super::error::RunError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

/// The right to write to a run's folder. It ends with the process, however that ends: the operating
/// system holds the lock, not the file, so that a killed run blocks nobody.
#[derive(Debug)]
pub struct RunLock {
    file: File,
}

impl RunLock {
    /// Takes the lock of a folder that exists. Nothing in the folder changes, but that there is a lock.
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
        Ok(Self { file })
    }

    /// Puts this process's number into the lock, for the messages of others.
    pub fn sign(&mut self) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "{}", std::process::id())
    }
}

impl Drop for RunLock {
    /// Closing the file is not enough: a child process that is just being started still has it open.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}
