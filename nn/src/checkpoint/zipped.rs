//! The zip container of `.pth` files (PyTorch 1.6 and later).
//!
//! Entries under one folder: `data.pkl` (the object), `data/KEY` (the bytes of storage KEY), `byteorder`
//! and some others. PyTorch stores them uncompressed; an archive that was compressed afterwards is read
//! too, as far as the [`Allowance`] goes.

use std::collections::{HashMap, HashSet};
use std::io::{Cursor, Read};
use std::rc::Rc;

use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config};
use zip::result::ZipError;

use super::error::{Allowance, Problem, quoted};
use super::layout::{self, Storages};
use super::state::Checkpoint;
use crate::pickle;

/// Whether the file begins as this container does.
pub(super) fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04")
}

/// Reads a whole file; see [`layout::checkpoint`] for `part`.
pub(super) fn parse(bytes: &[u8], part: &mut Option<&str>) -> Result<Checkpoint, Problem> {
    let mut allowance = Allowance::for_file(bytes.len());
    let damaged = |e| match e {
        ZipError::InvalidArchive(what) => Problem::Zip(format!("{what}; it is cut short or not a .pth")),
        other => Problem::Zip(other.to_string()),
    };
    // The archive begins where the file does. Left to find that out from the end, the library can take
    // an entry for the first one that is not.
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive = ZipArchive::with_config(config, Cursor::new(bytes)).map_err(damaged)?;
    check_names(bytes, archive.central_directory_start())?;
    let folder = folder(&archive)?;
    // PyTorch writes byteorder since 2.1; before, every file was little-endian.
    if let Some(order) = entry(&mut archive, &format!("{folder}byteorder"), &mut allowance)?
        && order != b"little"
    {
        return Err(Problem::Zip(
            "written on a big-endian machine; save it again on a little-endian one".into(),
        ));
    }
    let pickled = entry(&mut archive, &format!("{folder}data.pkl"), &mut allowance)?
        .ok_or_else(|| Problem::Zip("data.pkl is missing".into()))?;
    let object = pickle::load(&pickled)?;
    let mut storages = ZipStorages { archive, folder, read: HashMap::new() };
    layout::checkpoint(&object, part, &mut storages, &mut allowance)
}

/// Refuses two entries of one name: which one counts would depend on the reader. The library gives one of
/// them, so the names are taken from the directory itself.
fn check_names(bytes: &[u8], directory: u64) -> Result<(), Problem> {
    const HEADER: usize = 46;
    let mut names: HashSet<&[u8]> = HashSet::new();
    let mut rest = usize::try_from(directory).ok().and_then(|start| bytes.get(start..)).unwrap_or_default();
    while rest.starts_with(b"PK\x01\x02") && rest.len() >= HEADER {
        let length = |at: usize| usize::from(u16::from_le_bytes([rest[at], rest[at + 1]]));
        let (name, end) = (HEADER + length(28), HEADER + length(28) + length(30) + length(32));
        let Some(name) = rest.get(HEADER..name) else { break };
        if !names.insert(name) {
            let name = quoted(&String::from_utf8_lossy(name));
            return Err(Problem::Zip(format!("has two entries of the name {name}")));
        }
        rest = rest.get(end..).unwrap_or_default();
    }
    Ok(())
}

/// The folder that `data.pkl` lies in, with its slash.
fn folder(archive: &ZipArchive<Cursor<&[u8]>>) -> Result<String, Problem> {
    let names = || archive.file_names_raw().filter_map(|name| std::str::from_utf8(name).ok());
    let pickles: Vec<&str> = names()
        .filter_map(|name| name.strip_suffix("data.pkl"))
        .filter(|folder| folder.is_empty() || folder.ends_with('/'))
        .take(2)
        .collect();
    match pickles.as_slice() {
        [folder] if names().any(|name| name == format!("{folder}constants.pkl")) => {
            Err(Problem::Zip("this is a TorchScript program, not a checkpoint: save its state_dict()".into()))
        }
        [folder] => Ok((*folder).to_owned()),
        [] => Err(Problem::Zip("no entry data.pkl: a zip file, but not one that torch.save wrote".into())),
        _ => Err(Problem::Zip("more than one entry data.pkl".into())),
    }
}

/// The content of an entry; `None` if there is no such entry.
fn entry(
    archive: &mut ZipArchive<Cursor<&[u8]>>,
    name: &str,
    allowance: &mut Allowance,
) -> Result<Option<Vec<u8>>, Problem> {
    let damaged = |what: &dyn std::fmt::Display| Problem::Zip(format!("entry {}: {what}", quoted(name)));
    let mut file = match archive.by_name(name) {
        Ok(file) => file,
        Err(ZipError::FileNotFound) => return Ok(None),
        Err(e) => return Err(damaged(&e)),
    };
    let declared = file.size();
    allowance.charge(declared)?;
    let mut content = Vec::new();
    // One byte more than declared, to notice an entry that is longer than it says.
    file.by_ref().take(declared.saturating_add(1)).read_to_end(&mut content).map_err(|e| damaged(&e))?;
    if content.len() as u64 != declared {
        return Err(damaged(&format!("{declared} bytes are declared, {} are there", content.len())));
    }
    Ok(Some(content))
}

struct ZipStorages<'a> {
    archive: ZipArchive<Cursor<&'a [u8]>>,
    folder: String,
    read: HashMap<String, Rc<[u8]>>,
}

impl Storages for ZipStorages<'_> {
    fn bytes(&mut self, key: &str, allowance: &mut Allowance) -> Result<Rc<[u8]>, Problem> {
        if let Some(bytes) = self.read.get(key) {
            return Ok(bytes.clone());
        }
        let name = format!("{}data/{key}", self.folder);
        let bytes: Rc<[u8]> = entry(&mut self.archive, &name, allowance)?
            .ok_or_else(|| Problem::Zip(format!("storage {} is missing", quoted(&name))))?
            .into();
        self.read.insert(key.to_owned(), bytes.clone());
        Ok(bytes)
    }
}
