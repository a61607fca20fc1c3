//! Downloads: resumed where they broke, checked, and put in place only when whole.

use indicatif::{ProgressBar, ProgressStyle};
use md5::{Digest, Md5};
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::{Response, StatusCode, header};

/// A connection that breaks this often in a row without a byte arriving ends the download.
const FRUITLESS_TRIES: u32 = 3;

/// What to fetch.
#[derive(Debug, Clone)]
pub struct Download {
    /// Where from: http or https.
    pub url: String,
    /// Where to; the parts that have arrived wait in `<target>.part`.
    pub target: PathBuf,
    /// The md5 of the whole file, in lower-case hexadecimal.
    pub md5: Option<String>,
    /// The length of the whole file in bytes, for the progress bar where the server does not tell it.
    pub bytes: Option<u64>,
}

/// How a fetch ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every byte came over the line now.
    Downloaded,
    /// The bytes before this offset were there from an earlier try.
    Resumed {
        /// In bytes.
        from: u64,
    },
    /// The file was there, with the right md5.
    AlreadyThere,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Downloaded => f.write_str("downloaded"),
            Self::Resumed { from } => write!(f, "downloaded, resumed from byte {from}"),
            Self::AlreadyThere => f.write_str("is already there"),
        }
    }
}

/// Why a fetch failed, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Reading or writing failed here.
    #[error("cannot write {}: {source}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process fetches the same file.
    #[error("{} is being downloaded by another process; wait for it or stop it", path.display())]
    Busy {
        /// The part that has arrived.
        path: PathBuf,
    },
    /// There is a file of that name with other contents; it stays as it is.
    #[error("{} is there, but its md5 is {found}, not {expected}: delete it and run this again", path.display())]
    OtherFile {
        /// The file.
        path: PathBuf,
        /// Its md5, in hexadecimal.
        found: String,
        /// The md5 that was asked for.
        expected: String,
    },
    /// What has arrived is not what was asked for; it was deleted.
    #[error(
        "the md5 of what came from {url} is {found}, not {expected}: the file there is another one, or was damaged on the way; the download was deleted, run this again or name a mirror with --url"
    )]
    WrongMd5 {
        /// Where from.
        url: String,
        /// The md5 of what came, in hexadecimal.
        found: String,
        /// The md5 that was asked for.
        expected: String,
    },
    /// The server refused.
    #[error("{url} answered {status}: check the address, or name a mirror with --url")]
    Status {
        /// Where from.
        url: String,
        /// What it answered.
        status: StatusCode,
    },
    /// No connection came about.
    #[error("cannot reach {url}: {source}; check the connection, or name a mirror with --url")]
    Unreachable {
        /// Where from.
        url: String,
        /// Why not.
        source: ureq::Error,
    },
    /// The connection ended before the file did.
    #[error(
        "the connection to {url} broke after {received} bytes ({source}); they are kept, run this again to go on"
    )]
    Broken {
        /// Where from.
        url: String,
        /// Bytes that are there for the next try.
        received: u64,
        /// How it ended.
        source: io::Error,
    },
}

/// Downloads a file, going on with an earlier try, and shows progress.
///
/// # Errors
/// See [`FetchError`]. Except for a wrong md5, what has arrived is kept for the next try.
pub fn fetch(download: &Download) -> Result<Outcome, FetchError> {
    let target = &download.target;
    let disk = |path: &Path| {
        let path = path.to_path_buf();
        move |source| FetchError::Disk { path, source }
    };
    if let Ok(mut file) = File::open(target) {
        let found = md5_of(&mut file).map_err(disk(target))?;
        return match &download.md5 {
            Some(expected) if *expected != found => {
                Err(FetchError::OtherFile { path: target.clone(), found, expected: expected.clone() })
            }
            _ => Ok(Outcome::AlreadyThere),
        };
    }
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(disk(folder))?;

    let part = part_path(target);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&part)
        .map_err(disk(&part))?;
    file.try_lock().map_err(|why| match why {
        TryLockError::WouldBlock => FetchError::Busy { path: target.clone() },
        TryLockError::Error(why) => disk(&part)(why),
    })?;
    let mut transfer = Transfer { download, file: &mut file, part: &part, resumed_from: None };
    transfer.run()?;
    let resumed_from = transfer.resumed_from;

    if let Some(expected) = &download.md5 {
        let found = md5_of(&mut file).map_err(disk(&part))?;
        if found != *expected {
            drop(file);
            std::fs::remove_file(&part).map_err(disk(&part))?;
            return Err(FetchError::WrongMd5 {
                url: download.url.clone(),
                found,
                expected: expected.clone(),
            });
        }
    }
    file.sync_all().map_err(disk(&part))?;
    std::fs::rename(&part, target).map_err(disk(target))?;
    Ok(resumed_from.map_or(Outcome::Downloaded, |from| Outcome::Resumed { from }))
}

/// Where a download waits until it is whole.
pub fn part_path(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// The md5 of a whole file, in lower-case hexadecimal.
fn md5_of(file: &mut File) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut hash = Md5::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A download under way.
struct Transfer<'a> {
    download: &'a Download,
    file: &'a mut File,
    part: &'a Path,
    /// The first offset that the server was asked, and agreed, to go on from.
    resumed_from: Option<u64>,
}

impl Transfer<'_> {
    /// Connects as often as it takes, as long as bytes arrive.
    fn run(&mut self) -> Result<(), FetchError> {
        // The archives are compressed themselves; a server's own compression would break ranges and md5.
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .accept_encoding("identity")
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .build()
            .into();
        let mut fruitless = 0;
        loop {
            let before = self.length()?;
            match self.connect(&agent) {
                Err(FetchError::Broken { url, received, source }) => {
                    fruitless = if received > before { 0 } else { fruitless + 1 };
                    if fruitless == FRUITLESS_TRIES {
                        return Err(FetchError::Broken { url, received, source });
                    }
                    std::thread::sleep(Duration::from_millis(200 << fruitless));
                }
                other => return other,
            }
        }
    }

    fn length(&self) -> Result<u64, FetchError> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(|source| self.disk(source))
    }

    fn disk(&self, source: io::Error) -> FetchError {
        FetchError::Disk { path: self.part.to_path_buf(), source }
    }

    /// One connection: asks for what is missing and writes what comes.
    fn connect(&mut self, agent: &ureq::Agent) -> Result<(), FetchError> {
        let url = &self.download.url;
        let have = self.length()?;
        let mut request = agent.get(url);
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
        }
        let response =
            request.call().map_err(|source| FetchError::Unreachable { url: url.clone(), source })?;
        let start = match response.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(have) => have,
            // Nothing is missing, or the part is of a file that was longer: the md5 tells.
            StatusCode::RANGE_NOT_SATISFIABLE if range_total(&response) == Some(have) => {
                self.resumed_from.get_or_insert(have);
                return Ok(());
            }
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => {
                self.file.set_len(0).map_err(|source| self.disk(source))?;
                return self.connect(agent);
            }
            status => return Err(FetchError::Status { url: url.clone(), status }),
        };
        if start > 0 {
            self.resumed_from.get_or_insert(start);
        } else {
            self.resumed_from = None;
        }
        self.file.set_len(start).map_err(|source| self.disk(source))?;
        self.file.seek(SeekFrom::Start(start)).map_err(|source| self.disk(source))?;
        self.receive(response, start)
    }

    fn receive(&mut self, response: Response<ureq::Body>, start: u64) -> Result<(), FetchError> {
        let length = content_length(&response).map(|rest| start + rest);
        let bar = progress_bar(length.or(self.download.bytes), &self.download.target);
        bar.set_position(start);
        bar.reset_eta();
        let mut received = start;
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 16];
        let broken = |received, source| {
            let url = self.download.url.clone();
            Err(FetchError::Broken { url, received, source })
        };
        loop {
            match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    self.file.write_all(&buffer[..n]).map_err(|source| self.disk(source))?;
                    received += n as u64;
                    bar.set_position(received);
                }
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return broken(received, source),
            }
        }
        match length {
            Some(length) if received < length => broken(received, io::ErrorKind::UnexpectedEof.into()),
            _ => {
                bar.finish_and_clear();
                Ok(())
            }
        }
    }
}

fn content_length(response: &Response<ureq::Body>) -> Option<u64> {
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The first byte of `Content-Range: bytes 100-199/200`.
fn range_start(response: &Response<ureq::Body>) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// The length of the whole file in `Content-Range: bytes */200`.
fn range_total(response: &Response<ureq::Body>) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.rsplit('/').next()?.trim().parse().ok()
}

fn progress_bar(length: Option<u64>, target: &Path) -> ProgressBar {
    let template = "{msg}  {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
    let bar = ProgressBar::new(length.unwrap_or(0));
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(target.file_name().unwrap_or_default().to_string_lossy().into_owned());
    bar
}
