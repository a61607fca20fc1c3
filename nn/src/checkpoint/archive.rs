//! Checkpoints inside `.tar` and `.tar.gz` archives, and plain files.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entries};

use super::error::{Problem, quoted};
use super::{legacy, safetensor, zipped};

/// The content that `path` means: of a file, or of a member of an archive on the way (see [`super::read`]).
/// For an archive alone the error lists its checkpoints.
pub(super) fn load(path: &Path) -> Result<Vec<u8>, Problem> {
    let io = |source| Problem::Io { action: "read the file", source };
    let (file, member) = split(path).map_err(io)?;
    let mut reader = BufReader::new(File::open(&file).map_err(io)?);
    if member.as_os_str().is_empty() {
        if is_archive(&head(&mut reader).map_err(io)?) {
            return Err(Problem::Archive(list(&survey(&mut reader)?)));
        }
        return std::fs::read(&file).map_err(io);
    }
    let member = member.to_str().ok_or_else(|| Problem::Archive("the member's name is not UTF-8".into()))?;
    let member = member.replace(std::path::MAIN_SEPARATOR, "/");
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

/// What a file begins with; the reader is then at its start again.
fn head<R: Read + Seek>(file: &mut R) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.rewind()?;
    file.take(512).read_to_end(&mut head)?;
    file.rewind()?;
    Ok(head)
}

/// A file in an archive.
struct Member {
    /// Its place among all entries.
    index: usize,
    name: String,
    /// Whether it begins as a checkpoint does.
    is_checkpoint: bool,
}

/// Whether a file that begins so may be a checkpoint.
fn looks_like_one(head: &[u8]) -> bool {
    zipped::is_zip(head) || legacy::is_legacy(head) || safetensor::is_safetensors(head)
}

/// How many names a message lists.
const LISTED: usize = 20;

/// The content of the member that is called, or is the only one to end in, `wanted`.
pub(super) fn member<R: Read + Seek>(archive: &mut R, wanted: &str) -> Result<Vec<u8>, Problem> {
    let index = choose(&survey(archive)?, wanted)?;
    let (length, gzipped) = kind(archive)?;
    if gzipped {
        let limit = gzip_limit(length);
        let stream = Limited::new(MultiGzDecoder::new(archive), limit);
        extract(Archive::new(stream).entries().map_err(broken)?, index, limit)
    } else {
        extract(Archive::new(archive).entries_with_seek().map_err(broken)?, index, length)
    }
}

/// The files in the archive.
fn survey<R: Read + Seek>(archive: &mut R) -> Result<Vec<Member>, Problem> {
    let (length, gzipped) = kind(archive)?;
    if gzipped {
        let stream = Limited::new(MultiGzDecoder::new(archive), gzip_limit(length));
        files(Archive::new(stream).entries().map_err(broken)?)
    } else {
        files(Archive::new(archive).entries_with_seek().map_err(broken)?)
    }
}

/// Length of the archive, and whether it is compressed.
fn kind<R: Read + Seek>(archive: &mut R) -> Result<(u64, bool), Problem> {
    let io = |source| Problem::Io { action: "read the archive", source };
    let length = archive.seek(io::SeekFrom::End(0)).map_err(io)?;
    let head = head(archive).map_err(io)?;
    if !is_archive(&head) {
        return Err(Problem::Archive(
            "the path continues past a file that is neither a .tar nor a .tar.gz".into(),
        ));
    }
    Ok((length, head.starts_with(GZIP)))
}

/// Weights hardly compress; sixteenfold is far beyond any honest archive.
fn gzip_limit(length: u64) -> u64 {
    length.saturating_mul(16).saturating_add(1 << 20)
}

fn broken(error: io::Error) -> Problem {
    Problem::Archive(format!("damaged or cut short: {error}"))
}

fn files<R: Read>(entries: Entries<'_, R>) -> Result<Vec<Member>, Problem> {
    let mut members = Vec::new();
    for (index, entry) in entries.enumerate() {
        let mut entry = entry.map_err(broken)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        let mut head = Vec::new();
        entry.by_ref().take(64).read_to_end(&mut head).map_err(broken)?;
        members.push(Member { index, name, is_checkpoint: looks_like_one(&head) });
    }
    Ok(members)
}

/// Finds the wanted member's index among the entries.
fn choose(members: &[Member], wanted: &str) -> Result<usize, Problem> {
    let wanted = wanted.trim_matches('/');
    let ending = format!("/{wanted}");
    let exact: Vec<usize> = members.iter().filter(|m| m.name == wanted).map(|m| m.index).collect();
    let ends_so: Vec<usize> = members.iter().filter(|m| m.name.ends_with(&ending)).map(|m| m.index).collect();
    match (exact.as_slice(), ends_so.as_slice()) {
        (&[index], _) | ([], &[index]) => Ok(index),
        ([], []) => Err(Problem::Archive(format!("no member {}; {}", quoted(wanted), list(members)))),
        ([], several) => Err(Problem::Archive(format!(
            "{} members end in {}; give the whole path",
            several.len(),
            quoted(wanted)
        ))),
        // Which one counts would depend on the reader.
        (several, _) => {
            Err(Problem::Archive(format!("{} members have the name {}", several.len(), quoted(wanted))))
        }
    }
}

/// The checkpoints among the members, for messages.
fn list(members: &[Member]) -> String {
    let mut names: Vec<String> =
        members.iter().filter(|m| m.is_checkpoint).take(LISTED + 1).map(|m| quoted(&m.name)).collect();
    if names.is_empty() {
        return format!("none of its {} files is a checkpoint", members.len());
    }
    if names.len() > LISTED {
        names[LISTED] = "and more".into();
    }
    format!("put one of its checkpoints behind the archive's name and a slash: {}", names.join(", "))
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
