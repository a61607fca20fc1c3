//! The files of a release, out of a folder or a `.tar.gz`.

use super::{DataError, Integrity, Release};
use flate2::read::GzDecoder;
use md5::{Digest, Md5};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

/// More than any file of a release holds; keeps a hostile archive from filling the memory.
const LARGEST: u64 = 512 << 20;

/// The contents of a release's files.
pub(super) struct Files {
    /// The folder or archive.
    path: PathBuf,
    contents: BTreeMap<&'static str, Vec<u8>>,
    /// md5 of the archive, where it is one.
    archive_md5: Option<String>,
    description: &'static str,
}

impl Files {
    /// Reads the files of `release` that are in the folder or archive at `path`.
    pub(super) fn open(path: &Path, release: &Release) -> Result<Self, DataError> {
        let mut files = Self {
            path: path.to_path_buf(),
            contents: BTreeMap::new(),
            archive_md5: None,
            description: release.description,
        };
        if path.is_dir() {
            for file in release.files() {
                let full = path.join(file.name);
                match std::fs::read(&full) {
                    Ok(bytes) => drop(files.contents.insert(file.name, bytes)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(source) => return Err(DataError::Read { path: full, source }),
                }
            }
            return Ok(files);
        }
        let damaged = |source| DataError::Archive { path: path.to_path_buf(), source };
        let mut archive = open_archive(path)?;
        for entry in archive.entries().map_err(damaged)? {
            let mut entry = entry.map_err(damaged)?;
            let name = base_name(&entry);
            let Some(file) = release.files().find(|file| Some(file.name) == name.as_deref()) else {
                continue;
            };
            if entry.size() > LARGEST {
                let reason =
                    format!("{} would be {} bytes, far more than in the release", file.name, entry.size());
                return Err(DataError::content(path, reason));
            }
            let mut bytes = Vec::with_capacity(entry.size() as usize);
            entry.read_to_end(&mut bytes).map_err(damaged)?;
            files.contents.insert(file.name, bytes);
        }
        // The end of the compressed stream carries its check value: reading it through finds a cut-off file.
        let mut decoder = archive.into_inner();
        io::copy(&mut decoder, &mut io::sink()).map_err(damaged)?;
        let mut hashed = decoder.into_inner();
        io::copy(&mut hashed, &mut io::sink()).map_err(damaged)?;
        files.archive_md5 = Some(hex(hashed.hash));
        Ok(files)
    }

    /// The contents of file `name`, and its path for messages.
    pub(super) fn get(&self, name: &str) -> Result<(&[u8], PathBuf), DataError> {
        let missing = || DataError::MissingFile {
            path: self.path.clone(),
            file: name.to_owned(),
            layout: self.description,
        };
        let bytes = self.contents.get(name).ok_or_else(missing)?;
        Ok((bytes, self.path.join(name)))
    }

    /// Compares with the published checksums.
    pub(super) fn verify(&self, release: &Release) -> Result<Integrity, DataError> {
        if self.archive_md5.as_deref() == Some(release.md5) {
            return Ok(Integrity::Verified);
        }
        // The folder, or an archive packed anew: its files may still be the published ones.
        let mut all_known = true;
        for file in release.files() {
            let (Some(expected), Some(bytes)) = (file.md5, self.contents.get(file.name)) else {
                all_known = false;
                continue;
            };
            let actual = hex(Md5::new_with_prefix(bytes));
            if actual != expected {
                return Err(DataError::Checksum { file: self.path.join(file.name), expected, actual });
            }
        }
        match &self.archive_md5 {
            _ if all_known => Ok(Integrity::Verified),
            Some(actual) => {
                let (file, actual) = (self.path.clone(), actual.clone());
                Err(DataError::Checksum { file, expected: release.md5, actual })
            }
            None => Ok(Integrity::Unverified),
        }
    }
}

/// The first release with one of its batches in the `.tar.gz` at `path`.
pub(super) fn recognise_archive(
    path: &Path,
    candidates: impl Iterator<Item = &'static Release> + Clone,
) -> Result<Option<&'static Release>, DataError> {
    let damaged = |source| DataError::Archive { path: path.to_path_buf(), source };
    let mut archive = open_archive(path)?;
    for entry in archive.entries().map_err(damaged)? {
        let Some(name) = base_name(&entry.map_err(damaged)?) else { continue };
        // Found at the first batch: the rest need not be decompressed.
        if let Some(release) = candidates.clone().find(|release| release.recognises(|known| known == name)) {
            return Ok(Some(release));
        }
    }
    Ok(None)
}

fn open_archive(path: &Path) -> Result<tar::Archive<GzDecoder<Hashing<BufReader<File>>>>, DataError> {
    let file = File::open(path).map_err(DataError::read(path))?;
    let hashing = Hashing { inner: BufReader::with_capacity(1 << 16, file), hash: Md5::new() };
    Ok(tar::Archive::new(GzDecoder::new(hashing)))
}

fn base_name<R: Read>(entry: &tar::Entry<'_, R>) -> Option<String> {
    let path = entry.path().ok()?;
    let is_file = entry.header().entry_type().is_file();
    is_file.then(|| path.file_name()?.to_str().map(str::to_owned)).flatten()
}

/// A reader that hashes what passes through it.
struct Hashing<R> {
    inner: R,
    hash: Md5,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

fn hex(hash: Md5) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
