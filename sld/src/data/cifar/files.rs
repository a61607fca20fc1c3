//! The files of a release, out of a folder, a `.tar.gz` or a `.tar`.

use super::release::{RELEASES, Release};
use crate::data::DataError;
use flate2::read::GzDecoder;
use md5::{Digest, Md5};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

/// More than any file of a release holds; keeps a hostile archive from filling the memory.
const LARGEST: u64 = 512 << 20;

/// How far the files are known to be the published ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// Equal to the published checksum.
    Verified,
    /// As many images as the release, but no checksum is published for these files, or it was not asked for.
    Unverified,
    /// Another number of images than the release.
    Subset,
}

/// The contents of a release's files.
pub(super) struct Files {
    /// The folder or archive.
    path: PathBuf,
    contents: BTreeMap<&'static str, Vec<u8>>,
    /// md5 of the archive, where it is a compressed one as it is published.
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
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(damaged)?;
            if bytes.len() as u64 != entry.size() {
                return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
            }
            // Which one counts would depend on the reader.
            if files.contents.insert(file.name, bytes).is_some() {
                return Err(DataError::content(path, format!("has two files of the name {}", file.name)));
            }
        }
        files.archive_md5 = archive.into_inner().finish().map_err(damaged)?;
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

/// The first release with one of its batches in the archive at `path`.
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

fn open_archive(path: &Path) -> Result<tar::Archive<Stream>, DataError> {
    let mut file = File::open(path).map_err(DataError::read(path))?;
    let mut head = Vec::new();
    file.by_ref().take(512).read_to_end(&mut head).map_err(DataError::read(path))?;
    file.rewind().map_err(DataError::read(path))?;
    let file = BufReader::with_capacity(1 << 16, file);
    if is_tar(&head) {
        return Ok(tar::Archive::new(Stream::Plain(file)));
    }
    if let Some(reason) = unreadable(path, &head) {
        return Err(DataError::content(path, reason));
    }
    Ok(tar::Archive::new(Stream::Compressed(GzDecoder::new(Hashing { inner: file, hash: Md5::new() }))))
}

/// Whether this is the header of a tar file's first member: its checksum is right, and not that of zeros.
fn is_tar(head: &[u8]) -> bool {
    let Ok(header) = <&[u8; 512]>::try_from(head) else { return false };
    let mut counted = *header;
    counted[148..156].fill(b' ');
    let sum: u32 = counted.iter().map(|&byte| u32::from(byte)).sum();
    header[0] != 0 && tar::Header::from_byte_slice(header).cksum().is_ok_and(|stated| stated == sum)
}

/// What a file is that holds images and yet cannot be read as an archive, and what to do.
fn unreadable(path: &Path, head: &[u8]) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    let is_batch = RELEASES.iter().any(|release| release.files().any(|file| file.name == name));
    Some(match head {
        [b'P', b'K', ..] => "a zip file; unpack it and give the folder",
        [b'B', b'Z', b'h', ..] | [0xfd, b'7', b'z', ..] | [b'7', b'z', ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            "compressed in another way than with gzip; unpack it and give the folder"
        }
        _ if is_batch && !head.starts_with(b"\x1f\x8b") => "a batch file; give the folder it is in",
        // A pickle of protocol 2 or later.
        [0x80, 2..=5, ..] => "a batch file; give the folder it is in, under its published name",
        _ => return None,
    })
}

/// A tar file's bytes.
enum Stream {
    Plain(BufReader<File>),
    Compressed(GzDecoder<Hashing<BufReader<File>>>),
}

impl Stream {
    /// Reads to the end, whose check value tells a file that was cut off; the md5 of a compressed file.
    fn finish(self) -> io::Result<Option<String>> {
        let Stream::Compressed(mut decoder) = self else { return Ok(None) };
        io::copy(&mut decoder, &mut io::sink())?;
        let mut hashed = decoder.into_inner();
        io::copy(&mut hashed, &mut io::sink())?;
        Ok(Some(hex(hashed.hash)))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(file) => file.read(buffer),
            Stream::Compressed(decoder) => decoder.read(buffer),
        }
    }
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
