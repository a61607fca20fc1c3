//! Checkpoints inside `.tar` and `.tar.gz` archives, and plain files.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entries};

use super::error::{Problem, quoted};

/// The content that `path` means: of a file, or of a member of an archive on the way (see [`super::read`]).
pub(super) fn load(path: &Path) -> Result<Vec<u8>, Problem> {
    let io = |source| Problem::Io { action: "read the file", source };
    let (file, member) = split(path).map_err(io)?;
    if member.as_os_str().is_empty() {
        return std::fs::read(&file).map_err(io);
    }
    let member = member.to_str().ok_or_else(|| Problem::Archive("the member's name is not UTF-8".into()))?;
    let member = member.replace(std::path::MAIN_SEPARATOR, "/");
    let mut reader = BufReader::new(File::open(&file).map_err(io)?);
    self::member(&mut reader, &member)
}

/// Splits a path into the file it runs through and the rest behind it, which is empty for a plain path.
fn split(path: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let not_there = match path.metadata() {
        Ok(found) if found.is_dir() => {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
        }
        Ok(_) => return Ok((path.to_path_buf(), PathBuf::new())),
        Err(e) => e,
    };
    for file in path.ancestors().skip(1) {
        if file.is_file() {
            let rest = path.strip_prefix(file).map_err(io::Error::other)?;
            return Ok((file.to_path_buf(), rest.to_path_buf()));
        }
    }
    Err(not_there)
}

const GZIP: &[u8] = b"\x1f\x8b";
/// Where a tar header has its magic, and the magic.
const USTAR: (usize, &[u8]) = (257, b"ustar");

/// Whether the content looks like a `.tar` or `.tar.gz`.
pub(super) fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(GZIP) || bytes.get(USTAR.0..).is_some_and(|rest| rest.starts_with(USTAR.1))
}

/// The content of the member that is called, or is the only one to end in, `wanted`.
pub(super) fn member<R: Read + Seek>(archive: &mut R, wanted: &str) -> Result<Vec<u8>, Problem> {
    let io = |source| Problem::Io { action: "read the archive", source };
    let length = archive.seek(io::SeekFrom::End(0)).map_err(io)?;
    archive.rewind().map_err(io)?;
    let mut head = Vec::new();
    archive.take(512).read_to_end(&mut head).map_err(io)?;
    archive.rewind().map_err(io)?;
    if !is_archive(&head) {
        return Err(Problem::Archive(
            "the path continues past a file that is neither a .tar nor a .tar.gz".into(),
        ));
    }
    if head.starts_with(GZIP) {
        // Weights hardly compress; sixteenfold is far beyond any honest archive.
        let limit = length.saturating_mul(16).saturating_add(1 << 20);
        let index = {
            let stream = Limited::new(MultiGzDecoder::new(&mut *archive), limit);
            choose(Archive::new(stream).entries().map_err(broken)?, wanted)?
        };
        archive.rewind().map_err(io)?;
        let stream = Limited::new(MultiGzDecoder::new(archive), limit);
        extract(Archive::new(stream).entries().map_err(broken)?, index, limit)
    } else {
        let index = choose(Archive::new(&mut *archive).entries_with_seek().map_err(broken)?, wanted)?;
        archive.rewind().map_err(io)?;
        let mut archive = Archive::new(archive);
        extract(archive.entries_with_seek().map_err(broken)?, index, length)
    }
}

fn broken(error: io::Error) -> Problem {
    Problem::Archive(format!("damaged or cut short: {error}"))
}

/// Finds the member's index among the entries.
fn choose<R: Read>(entries: Entries<'_, R>, wanted: &str) -> Result<usize, Problem> {
    const LISTED: usize = 20;
    let wanted = wanted.trim_matches('/');
    let ending = format!("/{wanted}");
    let mut exact = None;
    let mut ends_so = Vec::new();
    let mut others = Vec::new();
    for (index, entry) in entries.enumerate() {
        let entry = entry.map_err(broken)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name.trim_start_matches("./");
        if name == wanted {
            // As tar does: of several members of one name the last one counts.
            exact = Some(index);
        } else if name.ends_with(&ending) {
            ends_so.push(index);
        }
        if others.len() < LISTED {
            others.push(quoted(name));
        }
    }
    match (exact, ends_so.as_slice()) {
        (Some(index), _) | (None, &[index]) => Ok(index),
        (None, []) => Err(Problem::Archive(format!(
            "no member {}; it has {}",
            quoted(wanted),
            if others.is_empty() { "no files".to_owned() } else { others.join(", ") }
        ))),
        (None, several) => Err(Problem::Archive(format!(
            "{} members end in {}; give the whole path",
            several.len(),
            quoted(wanted)
        ))),
    }
}

/// Reads the entry at `index`, of at most `limit` bytes.
fn extract<R: Read>(mut entries: Entries<'_, R>, index: usize, limit: u64) -> Result<Vec<u8>, Problem> {
    let entry = entries
        .nth(index)
        .ok_or_else(|| Problem::Archive("it changed while it was read".into()))?
        .map_err(broken)?;
    let size = entry.size();
    if size > limit {
        return Err(Problem::Archive(format!(
            "a member declares {size} bytes, more than the archive can hold; it is cut short or damaged"
        )));
    }
    // Grows with what is really there, not with what is declared.
    let mut content = Vec::new();
    entry.take(size).read_to_end(&mut content).map_err(broken)?;
    if content.len() as u64 != size {
        return Err(Problem::Archive(format!(
            "the member has {} of its {size} bytes; the archive is cut short",
            content.len()
        )));
    }
    Ok(content)
}

/// A reader that fails after a number of bytes, where `Take` would pretend that the stream ends.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R> Limited<R> {
    fn new(inner: R, limit: u64) -> Self {
        Limited { inner, left: limit }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other("it expands to far more than weights can; it is made to exhaust memory")
        })?;
        Ok(read)
    }
}
