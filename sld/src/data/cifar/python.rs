//! The python release: pickled dictionaries of a uint8 array [N, 3072] and lists of labels.

use super::batch::{Batch, PLANE};
use super::files::Files;
use super::release::{Cifar, Release};
use crate::data::DataError;
use nn::pickle::{self, Global, Pickle, Value};
use std::borrow::Cow;
use std::path::Path;

fn load<'a>(file: &Path, bytes: &'a [u8]) -> Result<Pickle<'a>, DataError> {
    pickle::load(bytes).map_err(|source| DataError::Pickle { file: file.to_path_buf(), source })
}

fn entry<'a>(file: &Path, pickle: &Pickle<'a>, key: &str) -> Result<Value<'a>, DataError> {
    pickle.get(&pickle.root, key).ok_or_else(|| {
        DataError::content(file, format!("the dictionary has no '{key}'; is it a batch of another data set?"))
    })
}

/// Shape and bytes of a numpy array of uint8 in C order, or why it is none.
pub(super) fn uint8_array<'a>(
    pickle: &Pickle<'a>,
    value: &Value<'a>,
) -> Result<(Vec<usize>, Cow<'a, [u8]>), String> {
    let (Global { name, .. }, arguments, object) = pickle.object(value).ok_or("is not an array")?;
    let state = object.state.and_then(|state| pickle.sequence(&state));
    let (shape, dtype, fortran, data) = match (name, arguments, state) {
        // An empty array, and then its state.
        ("_reconstruct", _, Some(&[_version, shape, dtype, order, data])) => {
            (shape, dtype, !matches!(order, Value::Bool(false) | Value::Int(0)), data)
        }
        // Protocol 5 makes it in one call.
        ("_frombuffer", &[data, dtype, shape, order], _) => {
            (shape, dtype, pickle.text(&order) != Some("C"), data)
        }
        _ => return Err("is not an array".into()),
    };
    match pickle.object(&dtype) {
        Some((Global { name: "dtype", .. }, [code, ..], _)) => match pickle.text(code) {
            Some("u1" | "|u1") => {}
            other => {
                return Err(format!(
                    "is an array of type '{}' where uint8 ('u1') belongs",
                    other.unwrap_or("?")
                ));
            }
        },
        _ => return Err("is an array without a type".into()),
    }
    if fortran {
        return Err("is in column-major order; save it with numpy.ascontiguousarray".into());
    }
    let sides = pickle.sequence(&shape).ok_or("is an array without a shape")?;
    let shape: Option<Vec<usize>> = sides.iter().map(|side| pickle.size(side)).collect();
    let shape = shape.ok_or("is an array without a shape")?;
    let data = pickle.bytes(&data, usize::MAX).ok_or("is an array without contents")?;
    if shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side)) != Some(data.len()) {
        return Err(format!("has {} bytes for an array of shape {shape:?}", data.len()));
    }
    Ok((shape, data))
}

/// Appends the images of the file `name` to `batch`.
pub(super) fn read_batch(
    files: &Files,
    name: &str,
    dataset: Cifar,
    batch: &mut Batch,
) -> Result<(), DataError> {
    let (bytes, file) = files.get(name)?;
    let pickle = load(&file, bytes)?;
    let wrong = |key: &str, what: String| {
        DataError::content(&file, format!("'{key}' {what}; download the file again"))
    };
    let (shape, data) =
        uint8_array(&pickle, &entry(&file, &pickle, "data")?).map_err(|what| wrong("data", what))?;
    const VALUES: usize = 3 * PLANE;
    let &[images, VALUES] = &shape[..] else {
        return Err(wrong("data", format!("has shape {shape:?}, not [images, {VALUES}]")));
    };
    if images == 0 {
        return Err(DataError::Empty { file });
    }
    let lists: &[(&str, usize, &'static str)] = match dataset {
        Cifar::Cifar10 => &[("labels", 10, "class")],
        Cifar::Cifar100 => &[("coarse_labels", 20, "coarse"), ("fine_labels", 100, "fine")],
    };
    let mut labels = Vec::new();
    for &(key, classes, kind) in lists {
        let list = entry(&file, &pickle, key)?;
        let integer = |value: &Value<'_>| pickle.int(value).and_then(|value| i64::try_from(value).ok());
        labels = pickle
            .sequence(&list)
            .and_then(|list| list.iter().map(integer).collect::<Option<Vec<i64>>>())
            .ok_or_else(|| wrong(key, "is not a list of integers".into()))?;
        if labels.len() != images {
            return Err(wrong(key, format!("has {} entries for {images} images", labels.len())));
        }
        let outside = labels.iter().position(|&label| label < 0 || label >= classes as i64);
        if let Some(image) = outside {
            return Err(DataError::Label { file, image, label: labels[image], kind, classes });
        }
    }
    for (planes, label) in data.chunks_exact(VALUES).zip(labels) {
        batch.push(planes, label as u32);
    }
    Ok(())
}

/// The names of the classes.
pub(super) fn class_names(files: &Files, release: &Release) -> Result<Vec<String>, DataError> {
    let (bytes, file) = files.get(release.meta.name)?;
    let pickle = load(&file, bytes)?;
    let key = match release.dataset {
        Cifar::Cifar10 => "label_names",
        Cifar::Cifar100 => "fine_label_names",
    };
    let list = entry(&file, &pickle, key)?;
    let names: Option<Vec<String>> = pickle
        .sequence(&list)
        .and_then(|list| list.iter().map(|name| pickle.text(name).map(str::to_owned)).collect());
    let names = names.ok_or_else(|| DataError::content(&file, format!("'{key}' is not a list of names")))?;
    release.check_class_names(&file, &names)?;
    Ok(names)
}
