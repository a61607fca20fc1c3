//! Pictures that stay in their files until a batch needs them.

use super::error::DataError;
use crate::picture::{Format, Picture};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One of [`Files`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Below the root.
    pub path: Box<Path>,
    /// Its length when it was listed.
    pub bytes: u64,
}

/// A list of picture files: some tens of bytes for each, whatever the pictures' size.
#[derive(Clone, Debug, PartialEq)]
pub struct Files {
    root: Arc<Path>,
    files: Vec<File>,
    resize: usize,
}

impl Files {
    /// The `files` below `root`, which evaluation resizes to `resize` pixels on the shorter side.
    pub fn new(root: &Path, files: Vec<File>, resize: usize) -> Self {
        Self { root: root.into(), files, resize }
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// In evaluation, pixels of the shorter side before the centre is cut out.
    pub fn resize(&self) -> usize {
        self.resize
    }

    /// Where file `index` is.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn path(&self, index: usize) -> PathBuf {
        self.root.join(&self.files[index].path)
    }

    /// Reads and decodes file `index`; `contents` is a work area.
    ///
    /// # Errors
    /// The file cannot be read, or is no picture: with its path.
    pub fn read(
        &self,
        index: usize,
        contents: &mut Vec<u8>,
        picture: &mut Picture,
    ) -> Result<Format, DataError> {
        let path = self.path(index);
        contents.clear();
        let read = std::fs::File::open(&path).and_then(|mut file| file.read_to_end(contents));
        read.map_err(DataError::read(&path))?;
        picture.decode(contents).map_err(|source| DataError::Picture { path, source })
    }

    /// A checksum over names and lengths: contents would have to be read to the last byte.
    pub(super) fn digest(&self, start: u32) -> u32 {
        self.files.iter().fold(start, |sum, file| {
            let named = crc32c::crc32c_append(sum, file.path.as_os_str().as_encoded_bytes());
            crc32c::crc32c_append(named, &file.bytes.to_le_bytes())
        })
    }

    pub(super) fn subset(&self, indices: &[usize]) -> Self {
        let files = indices.iter().map(|&index| self.files[index].clone()).collect();
        Self { root: self.root.clone(), files, resize: self.resize }
    }
}
