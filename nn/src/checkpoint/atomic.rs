//! Files that are either the old or the new version, never a part of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes a file so that a crash at any moment leaves either the former file or the complete new one:
/// `content` writes to a new file beside it, which is synced to disk and renamed over `path`; then the
/// folder is synced. If anything fails, the file beside is removed and `path` is as it was.
pub fn write_atomically(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let aside = path_aside(path)?;
    // create_new: never follows a link or overwrites what someone else put there.
    let file = OpenOptions::new().write(true).create_new(true).open(&aside)?;
    let written = write_synced(file, content).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
        return written;
    }
    sync_folder(folder_of(path))
}

fn write_synced(file: File, content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let mut writer = BufWriter::new(file);
    content(&mut writer)?;
    writer.flush()?;
    writer.get_ref().sync_all()
}

fn path_aside(path: &Path) -> io::Result<PathBuf> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path has no file name"))?;
    let mut aside = std::ffi::OsString::from(".");
    aside.push(name);
    aside.push(format!(".{}-{}.part", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
    Ok(path.with_file_name(aside))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Makes the rename itself durable. Only Unix lets a folder be opened and synced.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_in_the_folder_one_is_in() {
        assert_eq!(folder_of(Path::new("latest")), Path::new("."));
        assert_eq!(folder_of(Path::new("run/latest")), Path::new("run"));
        assert_eq!(folder_of(Path::new("/")), Path::new("."));
    }
}
