//! Tiny-ImageNet's test pictures: all in one folder, with a list of their classes.

use crate::data::error::DataError;
use crate::data::files::File;
use std::collections::BTreeMap;
use std::path::Path;

/// Reads lines of file name, class folder and more, separated by tabs; the pictures lie in `folder`/images. Gives
/// them by class, in the list's order, with paths from `root`.
pub(super) fn read(root: &Path, folder: &Path, list: &Path) -> Result<Vec<(String, Vec<File>)>, DataError> {
    let text = std::fs::read_to_string(list).map_err(DataError::read(list))?;
    let images = folder.join("images");
    let mut classes: BTreeMap<String, Vec<File>> = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let mut parts = line.split('\t');
        let (Some(name), Some(class)) = (parts.next(), parts.next()) else {
            let reason = format!("line {}: expected a file's name, a tab and its class", number + 1);
            return Err(DataError::content(list, reason));
        };
        let path = images.join(name);
        let bytes = path.metadata().map_err(DataError::read(&path))?.len();
        let path = path.strip_prefix(root).unwrap_or(&path).into();
        classes.entry(class.trim().to_owned()).or_default().push(File { path, bytes });
    }
    Ok(classes.into_iter().collect())
}
