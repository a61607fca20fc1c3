//! Finding out which release a path holds.

use super::files;
use super::release::{Cifar, RELEASES, Release};
use crate::data::DataError;
use std::path::{Path, PathBuf};

/// Finds the release at `path`, and the folder or archive it is in.
pub(super) fn locate(path: &Path, wanted: Option<Cifar>) -> Result<(PathBuf, &'static Release), DataError> {
    let metadata = std::fs::metadata(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => DataError::Missing { path: path.to_path_buf() },
        _ => DataError::Read { path: path.to_path_buf(), source },
    })?;
    let candidates =
        || RELEASES.iter().filter(|release| wanted.is_none_or(|dataset| dataset == release.dataset));
    let mut found: Vec<(PathBuf, &'static Release)> = Vec::new();
    if metadata.is_dir() {
        for release in candidates() {
            let is_folder = |folder: &Path| release.recognises(|name| folder.join(name).is_file());
            let inner = path.join(release.folder);
            let archives = [release.archive, release.archive.trim_end_matches(".gz")];
            let archive = archives.map(|name| path.join(name)).into_iter().find(|path| path.is_file());
            if is_folder(path) {
                found.push((path.to_path_buf(), release));
            } else if is_folder(&inner) {
                found.push((inner, release));
            } else if let Some(archive) = archive {
                found.push((archive, release));
            }
        }
    } else {
        let release = files::recognise_archive(path, candidates())?;
        found.extend(release.map(|release| (path.to_path_buf(), release)));
    }
    match found.first() {
        None => {
            let list = |name: fn(&Release) -> &str| {
                let names: Vec<&str> = candidates().map(name).collect();
                names.join(" or ")
            };
            Err(DataError::NotFound {
                path: path.to_path_buf(),
                wanted: wanted.map_or("CIFAR-10 or CIFAR-100", Cifar::name),
                files: list(|release| release.train[0].name),
                archives: list(|release| release.archive),
            })
        }
        Some((_, first)) if found.iter().any(|(_, other)| other.dataset != first.dataset) => {
            Err(DataError::Ambiguous { path: path.to_path_buf() })
        }
        Some(first) => Ok(first.clone()),
    }
}
