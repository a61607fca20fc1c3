//! Downloads against a server of the test's own: whole, broken and resumed, damaged, refused.

use md5::{Digest, Md5};
use sld::data::fetch::{Download, FetchError, Outcome, fetch, part_path};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What the server does with one connection.
#[derive(Clone, Copy)]
enum Act {
    /// Serves what is asked for, ranges included.
    Serve,
    /// As `Serve`, but hangs up after this many bytes of the body.
    HangUpAfter(usize),
    /// Serves the whole file whatever was asked for.
    IgnoreRange,
    /// Answers a range with another range than the one asked for.
    WrongRange,
    /// Answers this status.
    Status(&'static str),
}

/// A server on this machine that follows a script, one act a connection, the last one for ever.
struct Server {
    url: String,
    /// The first byte that each request asked for; `None` without a range.
    requests: Arc<Mutex<Vec<Option<usize>>>>,
}

impl Server {
    fn start(file: Vec<u8>, script: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file.tar.gz", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        std::thread::spawn(move || {
            for (i, stream) in listener.incoming().enumerate() {
                let act = script[i.min(script.len() - 1)];
                // A client that hangs up early is no fault of the server.
                let _ = answer(stream.unwrap(), &file, act, &log);
            }
        });
        Self { url, requests }
    }

    fn requests(&self) -> Vec<Option<usize>> {
        self.requests.lock().unwrap().clone()
    }
}

fn answer(
    mut stream: TcpStream,
    file: &[u8],
    act: Act,
    log: &Mutex<Vec<Option<usize>>>,
) -> std::io::Result<()> {
    let mut asked = None;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
        let line = line.to_ascii_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            asked = range.trim_end_matches('-').parse().ok();
        }
    }
    log.lock().unwrap().push(asked);
    let total = file.len();
    let close = "Connection: close\r\n";
    if let Act::Status(status) = act {
        return write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 4\r\n{close}\r\nnope");
    }
    let start = match (act, asked) {
        (Act::IgnoreRange, _) | (_, None) => None,
        (Act::WrongRange, Some(start)) => Some(start + 1),
        (_, asked) => asked,
    };
    let body = match start {
        None => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n{close}\r\n")?;
            file
        }
        Some(start) if start >= total => {
            write!(
                stream,
                "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{total}\r\nContent-Length: 0\r\n{close}\r\n"
            )?;
            &[]
        }
        Some(start) => {
            let body = &file[start..];
            let (last, length) = (total - 1, body.len());
            write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{last}/{total}\r\nContent-Length: {length}\r\n{close}\r\n"
            )?;
            body
        }
    };
    match act {
        Act::HangUpAfter(n) => stream.write_all(&body[..n.min(body.len())]),
        _ => stream.write_all(body),
    }
}

fn file() -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn md5(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn download(server: &Server, folder: &Path) -> Download {
    Download {
        url: server.url.clone(),
        target: folder.join("deep/er/file.tar.gz"),
        md5: Some(md5(&file())),
        bytes: None,
    }
}

fn put(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_file_is_fetched_whole_and_the_second_time_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(file(), vec![Act::Serve]);
    let download = download(&server, folder.path());
    assert_eq!(fetch(&download).unwrap(), Outcome::Downloaded);
    assert_eq!(std::fs::read(&download.target).unwrap(), file());
    assert!(!part_path(&download.target).exists());
    assert_eq!(fetch(&download).unwrap(), Outcome::AlreadyThere);
    assert_eq!(server.requests(), [None]);
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    let folder = tempfile::tempdir().unwrap();
    let script = vec![Act::HangUpAfter(100_000), Act::HangUpAfter(50_000), Act::Serve];
    let server = Server::start(file(), script);
    let download = download(&server, folder.path());
    assert_eq!(fetch(&download).unwrap(), Outcome::Resumed { from: 100_000 });
    assert_eq!(std::fs::read(&download.target).unwrap(), file());
    assert_eq!(server.requests(), [None, Some(100_000), Some(150_000)]);
}

#[test]
fn a_server_that_keeps_hanging_up_ends_the_download_and_the_part_is_kept_for_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(file(), vec![Act::HangUpAfter(100_000), Act::HangUpAfter(0)]);
    let broken = download(&server, folder.path());
    let why = fetch(&broken).unwrap_err();
    assert!(matches!(why, FetchError::Broken { received: 100_000, .. }), "{why}");
    assert!(why.to_string().contains("they are kept, run this again to go on"), "{why}");
    assert!(!broken.target.exists());
    assert_eq!(std::fs::read(part_path(&broken.target)).unwrap(), file()[..100_000]);

    let server = Server::start(file(), vec![Act::Serve]);
    let again = download(&server, folder.path());
    assert_eq!(fetch(&again).unwrap(), Outcome::Resumed { from: 100_000 });
    assert_eq!(std::fs::read(&again.target).unwrap(), file());
    assert_eq!(server.requests(), [Some(100_000)]);
}

#[test]
fn servers_that_do_not_resume_are_read_from_the_start() {
    for act in [Act::IgnoreRange, Act::WrongRange] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(file(), vec![act]);
        let download = download(&server, folder.path());
        // Bytes of another file: they must not end up in this one.
        put(&part_path(&download.target), &[7; 1000]);
        assert_eq!(fetch(&download).unwrap(), Outcome::Downloaded);
        assert_eq!(std::fs::read(&download.target).unwrap(), file());
    }
}

#[test]
fn a_part_that_is_whole_is_only_checked() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(file(), vec![Act::Serve]);
    let download = download(&server, folder.path());
    put(&part_path(&download.target), &file());
    assert_eq!(fetch(&download).unwrap(), Outcome::Resumed { from: 300_000 });
    assert_eq!(std::fs::read(&download.target).unwrap(), file());
}

#[test]
fn a_part_that_is_too_long_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(file(), vec![Act::Serve]);
    let download = download(&server, folder.path());
    put(&part_path(&download.target), &[7; 400_000]);
    assert_eq!(fetch(&download).unwrap(), Outcome::Downloaded);
    assert_eq!(std::fs::read(&download.target).unwrap(), file());
}

#[test]
fn a_wrong_md5_leaves_nothing_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut other = file();
    other[123_456] ^= 1;
    let server = Server::start(other.clone(), vec![Act::Serve]);
    let download = download(&server, folder.path());
    let why = fetch(&download).unwrap_err();
    let said = why.to_string();
    assert!(matches!(why, FetchError::WrongMd5 { .. }), "{said}");
    assert!(said.contains(&format!("is {}, not {}", md5(&other), md5(&file()))), "{said}");
    assert!(!download.target.exists() && !part_path(&download.target).exists());
}

#[test]
fn another_file_in_the_place_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(file(), vec![Act::Serve]);
    let download = download(&server, folder.path());
    put(&download.target, b"mine");
    let why = fetch(&download).unwrap_err().to_string();
    assert!(why.contains("delete it and run this again"), "{why}");
    assert_eq!(std::fs::read(&download.target).unwrap(), b"mine");
    assert!(server.requests().is_empty());
}

#[test]
fn a_refusal_is_told_with_status_and_address() {
    for status in ["404 Not Found", "503 Service Unavailable"] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(file(), vec![Act::Status(status)]);
        let download = download(&server, folder.path());
        let why = fetch(&download).unwrap_err().to_string();
        assert!(why.contains(status) && why.contains(&server.url) && why.contains("--url"), "{why}");
        assert!(!download.target.exists());
    }
}

#[test]
fn a_refusal_keeps_what_has_arrived() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(file(), vec![Act::Status("500 Internal Server Error")]);
    let download = download(&server, folder.path());
    put(&part_path(&download.target), &file()[..1000]);
    fetch(&download).unwrap_err();
    assert_eq!(std::fs::read(part_path(&download.target)).unwrap(), file()[..1000]);
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let download = Download {
        url: format!("http://{free}/file"),
        target: folder.path().join("file"),
        md5: None,
        bytes: None,
    };
    let why = fetch(&download).unwrap_err();
    assert!(matches!(why, FetchError::Unreachable { .. }), "{why}");
    assert!(why.to_string().contains("cannot reach http://127.0.0.1"), "{why}");
}

#[test]
fn two_downloads_of_one_file_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(file(), vec![Act::Serve]);
    let download = download(&server, folder.path());
    let part = part_path(&download.target);
    put(&part, b"");
    let held = std::fs::File::open(&part).unwrap();
    held.lock().unwrap();
    let why = fetch(&download).unwrap_err();
    assert!(matches!(why, FetchError::Busy { .. }), "{why}");
}

#[test]
fn a_folder_that_cannot_be_written_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(file(), vec![Act::Serve]);
    put(&folder.path().join("deep"), b"a file where a folder is wanted");
    let why = fetch(&download(&server, folder.path())).unwrap_err();
    assert!(matches!(why, FetchError::Disk { .. }), "{why}");
}
