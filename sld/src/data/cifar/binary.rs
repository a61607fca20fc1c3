//! The binary release: records of label bytes (CIFAR-100: coarse, fine; CIFAR-10: one) and three planes.

use super::batch::{Batch, PLANE};
use super::files::Files;
use super::release::{Cifar, Release};
use crate::data::DataError;

/// Appends the images of the file `name` to `batch`.
pub(super) fn read_batch(
    files: &Files,
    name: &str,
    dataset: Cifar,
    batch: &mut Batch,
) -> Result<(), DataError> {
    let (bytes, file) = files.get(name)?;
    // The classes of each label byte; the last one is the class.
    let labels: &[(usize, &'static str)] = match dataset {
        Cifar::Cifar10 => &[(10, "class")],
        Cifar::Cifar100 => &[(20, "coarse"), (100, "fine")],
    };
    let record = labels.len() + 3 * PLANE;
    if bytes.is_empty() {
        return Err(DataError::Empty { file });
    }
    if bytes.len() % record != 0 {
        return Err(DataError::Truncated { file, bytes: bytes.len(), record });
    }
    for (image, record) in bytes.chunks_exact(record).enumerate() {
        let (found, planes) = record.split_at(labels.len());
        for (&label, &(classes, kind)) in found.iter().zip(labels) {
            if usize::from(label) >= classes {
                return Err(DataError::Label { file, image, label: i64::from(label), kind, classes });
            }
        }
        batch.push(planes, u32::from(found[found.len() - 1]));
    }
    Ok(())
}

/// The names of the classes: one a line, blank lines at the end.
pub(super) fn class_names(files: &Files, release: &Release) -> Result<Vec<String>, DataError> {
    let (bytes, file) = files.get(release.meta.name)?;
    let text = String::from_utf8_lossy(bytes);
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect();
    release.check_class_names(&file, &names)?;
    Ok(names)
}
