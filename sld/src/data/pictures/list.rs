//! Which files of a folder are pictures.

use crate::data::error::DataError;
use crate::data::files::File;
use crate::picture::{Format, SNIFFED};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Endings of names that are taken at their word; other files are opened to see whether they are pictures.
const ENDINGS: [&str; 13] =
    ["jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "bmp", "tif", "tiff", "ppm", "pgm", "pnm"];

/// Deeper folders are a link that leads back.
const DEEPEST: usize = 32;

/// What was passed over, by kind: how many, and the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut(BTreeMap<&'static str, (usize, PathBuf)>);

impl LeftOut {
    pub(super) fn add(&mut self, kind: &'static str, path: &Path) {
        self.0.entry(kind).or_insert_with(|| (0, path.to_owned())).0 += 1;
    }

    pub(super) fn append(&mut self, other: LeftOut) {
        for (kind, (count, first)) in other.0 {
            self.0.entry(kind).or_insert((0, first)).0 += count;
        }
    }

    /// A line for each kind: `left out 3 hidden files and folders, such as train/.DS_Store`.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(kind, (count, first))| {
            let such = if *count == 1 { ":" } else { ", such as" };
            format!("left out {count} {kind}{such} {}", first.display())
        })
    }
}

/// The kinds.
pub(super) const HIDDEN: &str = "hidden (the name begins with a dot)";
pub(super) const NO_PICTURE: &str = "that are no pictures by name and content";
pub(super) const LOOSE: &str = "beside the class folders";

/// A folder's entries by name: files with their lengths, and folders. Links are followed; what is neither a file
/// nor a folder, and what is hidden, is left out.
pub(super) fn entries(
    folder: &Path,
    left_out: &mut LeftOut,
) -> Result<(Vec<(PathBuf, u64)>, Vec<PathBuf>), DataError> {
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder).map_err(DataError::read(folder))? {
        let path = entry.map_err(DataError::read(folder))?.path();
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            left_out.add(HIDDEN, &path);
            continue;
        }
        let found = path.metadata().map_err(DataError::read(&path))?;
        if found.is_dir() {
            folders.push(path);
        } else if found.is_file() {
            files.push((path, found.len()));
        } else {
            left_out.add(NO_PICTURE, &path);
        }
    }
    files.sort();
    folders.sort();
    Ok((files, folders))
}

/// Appends the pictures in `folder` and the folders in it, by folder, then by name; their paths are from `root`.
pub(super) fn pictures(
    root: &Path,
    folder: &Path,
    found: &mut Vec<File>,
    left_out: &mut LeftOut,
) -> Result<(), DataError> {
    below(root, folder, found, left_out, 0)
}

fn below(
    root: &Path,
    folder: &Path,
    found: &mut Vec<File>,
    left_out: &mut LeftOut,
    depth: usize,
) -> Result<(), DataError> {
    if depth > DEEPEST {
        return Err(DataError::content(folder, "folders lie in folders without end; is a link among them?"));
    }
    let (files, folders) = entries(folder, left_out)?;
    for (path, bytes) in files {
        if !is_picture(&path)? {
            left_out.add(NO_PICTURE, &path);
            continue;
        }
        let path = path.strip_prefix(root).unwrap_or(&path).into();
        found.push(File { path, bytes });
    }
    folders.iter().try_for_each(|folder| below(root, folder, found, left_out, depth + 1))
}

/// Whether a file is to be read as a picture: its name says so, or its first bytes do.
pub(super) fn is_picture(path: &Path) -> Result<bool, DataError> {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    if ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
        return Ok(true);
    }
    let mut first = Vec::with_capacity(SNIFFED);
    let file = std::fs::File::open(path).map_err(DataError::read(path))?;
    file.take(SNIFFED as u64).read_to_end(&mut first).map_err(DataError::read(path))?;
    Ok(Format::of(&first).is_ok())
}
