//! The python release: pickled dictionaries of a uint8 array [N, 3072] and lists of labels.

use super::pickle::{self, Value};
use super::{Batch, Cifar, DataError, Files, PLANE, Release};
use std::path::Path;

fn parse<'a>(file: &Path, bytes: &'a [u8]) -> Result<pickle::Pickle<'a>, DataError> {
    pickle::Pickle::parse(bytes).map_err(|error| DataError::Pickle {
        file: file.to_path_buf(),
        offset: error.offset,
        reason: error.reason,
    })
}

fn entry<'p>(file: &Path, root: Value<'p>, key: &str) -> Result<Value<'p>, DataError> {
    root.get(key).ok_or_else(|| {
        DataError::content(file, format!("the dictionary has no '{key}'; is it a batch of another data set?"))
    })
}

/// Appends the images of the file `name` to `batch`.
pub(super) fn read_batch(
    files: &Files,
    name: &str,
    dataset: Cifar,
    batch: &mut Batch,
) -> Result<(), DataError> {
    let (bytes, file) = files.get(name)?;
    let parsed = parse(&file, bytes)?;
    let root = parsed.root();
    let wrong = |what: &str| DataError::content(&file, format!("'{what}'; download the file again"));
    let (shape, data) = entry(&file, root, "data")?
        .uint8_array()
        .ok_or_else(|| wrong("data' is not an array of uint8 in C order"))?;
    let &[images, values] = shape else {
        return Err(wrong(&format!("data' has shape {shape:?}, not [images, {}]", 3 * PLANE)));
    };
    if values != 3 * PLANE || data.len() != images * values {
        let reason = format!("data' has shape {shape:?} and {} bytes, not [images, 3072]", data.len());
        return Err(wrong(&reason));
    }
    if images == 0 {
        return Err(DataError::Empty { file });
    }
    let lists: &[(&str, usize, &'static str)] = match dataset {
        Cifar::Cifar10 => &[("labels", 10, "class")],
        Cifar::Cifar100 => &[("coarse_labels", 20, "coarse"), ("fine_labels", 100, "fine")],
    };
    let mut labels = Vec::new();
    for &(key, classes, kind) in lists {
        let list = entry(&file, root, key)?;
        labels = list.integers().ok_or_else(|| wrong(&format!("{key}' is not a list of integers")))?;
        if labels.len() != images {
            return Err(wrong(&format!("{key}' has {} entries for {images} images", labels.len())));
        }
        let outside = labels.iter().position(|&label| label < 0 || label >= classes as i64);
        if let Some(image) = outside {
            return Err(DataError::Label { file, image, label: labels[image], kind, classes });
        }
    }
    for (planes, label) in data.chunks_exact(values).zip(labels) {
        batch.push(planes, label as u32);
    }
    Ok(())
}

/// The names of the classes.
pub(super) fn class_names(files: &Files, release: &Release) -> Result<Vec<String>, DataError> {
    let (bytes, file) = files.get(release.meta.name)?;
    let parsed = parse(&file, bytes)?;
    let key = match release.dataset {
        Cifar::Cifar10 => "label_names",
        Cifar::Cifar100 => "fine_label_names",
    };
    let names = entry(&file, parsed.root(), key)?
        .strings()
        .ok_or_else(|| DataError::content(&file, format!("'{key}' is not a list of names")))?;
    super::check_class_names(&file, &names, release)?;
    Ok(names)
}
