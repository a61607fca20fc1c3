//! CIFAR-10 and CIFAR-100 (Krizhevsky, *Learning multiple layers of features from tiny images*, 2009):
//! the binary and the python release, as the published `.tar.gz`, unpacked to a `.tar`, or as the folder in it.
//!
//! [`load`] finds out what a path holds, reads it, and checks sizes, labels and, for complete releases, the
//! published checksums. Smaller files of the same layout (a subset for a quick look) load as well, without
//! a checksum to compare with.

mod batch;
mod binary;
mod files;
mod locate;
mod python;
mod release;

use super::{DataError, Dataset, Splits};
use crate::augment::Normalization;
use batch::{Batch, SIDE};
use files::Files;
use std::path::{Path, PathBuf};

pub use files::Integrity;
pub use release::{Cifar, Format, RELEASES, Release, ReleaseFile};

/// How [`load`] reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// The data set to look for where a folder holds several; `None` takes the only one there.
    pub wanted: Option<Cifar>,
    /// Accept a complete release whose checksum is not the published one.
    pub skip_checksums: bool,
}

/// A loaded release.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The images.
    pub splits: Splits,
    /// What was found.
    pub release: &'static Release,
    /// The folder or archive it was read from.
    pub path: PathBuf,
    /// The result of the checksum test.
    pub integrity: Integrity,
}

/// Reads the batches of both splits with `read`, one file after another.
fn read_splits(
    files: &Files,
    release: &Release,
    read: impl Fn(&Files, &str, Cifar, &mut Batch) -> Result<(), DataError>,
) -> Result<(Batch, Batch), DataError> {
    let split = |list: &[ReleaseFile]| {
        let mut batch = Batch::default();
        list.iter().try_for_each(|file| read(files, file.name, release.dataset, &mut batch))?;
        Ok(batch)
    };
    Ok((split(release.train)?, split(release.test)?))
}

/// Loads the CIFAR release at `path`: a folder with its files, a `.tar.gz` of that folder, or a folder
/// that contains either under its published name.
///
/// # Errors
/// [`DataError`] names the file and what to do: nothing there, a missing or truncated file, a label out of
/// range, a wrong checksum.
pub fn load(path: &Path, options: LoadOptions) -> Result<Loaded, DataError> {
    let (path, release) = locate::locate(path, options.wanted)?;
    let (splits, integrity) = load_release(&path, release, options.skip_checksums)?;
    Ok(Loaded { splits, release, path, integrity })
}

fn load_release(
    path: &Path,
    release: &Release,
    skip_checksums: bool,
) -> Result<(Splits, Integrity), DataError> {
    let files = Files::open(path, release)?;
    let ((train, test), classes) = match release.format {
        Format::Binary => {
            (read_splits(&files, release, binary::read_batch)?, binary::class_names(&files, release)?)
        }
        Format::Python => {
            (read_splits(&files, release, python::read_batch)?, python::class_names(&files, release)?)
        }
    };
    let complete = (train.labels.len(), test.labels.len()) == (release.train_images, release.test_images);
    let integrity = match complete {
        false => Integrity::Subset,
        true if skip_checksums => Integrity::Unverified,
        true => files.verify(release)?,
    };
    let normalization = match release.dataset {
        Cifar::Cifar10 => Normalization::CIFAR10,
        Cifar::Cifar100 => Normalization::CIFAR100,
    };
    let dataset = |split: &str, batch: Batch| {
        let name = format!("{} {split}", release.dataset.name());
        Dataset::new(name, (SIDE, SIDE), batch.images, batch.labels, classes.clone(), normalization)
    };
    let splits = Splits { train: dataset("train", train)?, test: dataset("test", test)? };
    Ok((splits, integrity))
}

#[cfg(test)]
mod tests;
