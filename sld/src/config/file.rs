//! Reading a config file, and what is said when it is not there.

use super::error::{ConfigError, Origin};
use nn::suggest::nearest;
use std::path::{Component, Path, PathBuf};

/// The text of a config file.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    let fail = |why: String| ConfigError::new(Origin::file(path.to_owned(), "", None), why);
    if path.is_dir() {
        return Err(fail(format!("this is a folder, a config is a file{}", list(path))));
    }
    let bytes = std::fs::read(path).map_err(|why| match why.kind() {
        std::io::ErrorKind::NotFound => fail(format!("there is no such config{}", meant(path))),
        _ => fail(format!("cannot read the config: {why}")),
    })?;
    String::from_utf8(bytes).map_err(|_| fail("cannot read the config: it is no text in UTF-8".into()))
}

/// "; did you mean PATH?": the path with every part that is not there replaced by the nearest that is; else
/// what there is where the path breaks off.
fn meant(path: &Path) -> String {
    let mut found = PathBuf::new();
    for part in path.components() {
        let next = found.join(part);
        if next.exists() || !matches!(part, Component::Normal(_)) {
            found = next;
            continue;
        }
        let folder = if found.as_os_str().is_empty() { Path::new(".") } else { &found };
        let names = names(folder);
        let wanted = part.as_os_str().to_string_lossy();
        let with_ending = format!("{wanted}.yaml");
        let near = names.iter().find(|name| **name == with_ending).map(String::as_str);
        match near.or_else(|| nearest(&wanted, names.iter().map(String::as_str))) {
            Some(near) => found.push(near),
            None => return list(folder),
        }
    }
    match found.is_dir() {
        true => list(&found),
        false => format!("; did you mean {}?", found.display()),
    }
}

/// "; FOLDER holds A, B": the configs and folders in a folder.
fn list(folder: &Path) -> String {
    let names = names(folder);
    match names.is_empty() {
        true => format!("; {} holds no config", folder.display()),
        false => format!("; {} holds {}", folder.display(), names.join(", ")),
    }
}

/// The configs and visible folders in a folder, by name.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let config = name.ends_with(".yaml") || name.ends_with(".yml");
            (config || entry.path().is_dir() && !name.starts_with('.')).then_some(name)
        })
        .collect();
    names.sort();
    names
}
