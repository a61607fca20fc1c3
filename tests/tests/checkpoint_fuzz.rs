//! The checkpoint readers on damaged files: no panic, no hang, no more memory than the file's size
//! warrants, and always either a sound checkpoint or an error that names the file.
//!
//! Cases are numbered; a failure names its case, and the same case is the same file everywhere.
//! `SLD_FUZZ_CASES` sets how many cases each test runs, `SLD_FUZZ_FIRST` the first one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::Path;

use nn::checkpoint::{self, Checkpoint, CheckpointError, Problem};
use nn::pickle::{self, PickleError};
use sld_tests::dice::Dice;

#[path = "checkpoint_fuzz/guard.rs"]
mod guard;
#[path = "checkpoint_fuzz/mutate.rs"]
mod mutate;

use guard::Watchdog;
use mutate::damage;

#[global_allocator]
static ALLOCATOR: guard::Counting = guard::Counting;

/// Cases per test; there are four tests of mutations.
const CASES: u64 = 30_000;
/// What the damaged files are called.
const NAME: &str = "folder/damaged.file";

fn setting(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|e| panic!("{name}: {e}")),
        Err(_) => otherwise,
    }
}

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/ckpt").join(name);
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn fixtures(suffix: &str) -> Vec<Vec<u8>> {
    ["training", "views", "parallel_cuda"].iter().map(|name| fixture(&format!("{name}{suffix}"))).collect()
}

/// How the cases of a test ended.
#[derive(Default)]
struct Tally {
    read: u64,
    refused: BTreeMap<&'static str, u64>,
    /// Largest memory use over the file's size.
    worst: f64,
}

impl Tally {
    /// Checks one outcome and counts it.
    fn add(&mut self, case: u64, outcome: Result<Checkpoint, CheckpointError>) {
        match outcome {
            Ok(checkpoint) => {
                for tensor in &checkpoint.tensors {
                    let product: usize = tensor.shape.iter().product();
                    assert_eq!(product, tensor.data.len(), "case {case}: {}", tensor.name);
                }
                self.read += 1;
            }
            Err(error) => {
                let message = error.to_string();
                let what = message
                    .strip_prefix(NAME)
                    .unwrap_or_else(|| panic!("case {case}: the file is not named in: {message}"));
                assert!(what.len() > 12, "case {case}: nothing said in: {message}");
                assert!(message.len() < 4000, "case {case}: endless: {message}");
                *self.refused.entry(kind(&error.problem)).or_default() += 1;
            }
        }
    }

    /// Prints the outcome; fails if the damage never or always went unnoticed, or never got past the
    /// container into `depths`.
    fn finish(self, test: &str, depths: &[&str]) {
        println!(
            "{test}: {} read, refused {:?}, at most {:.0} bytes of memory a byte",
            self.read, self.refused, self.worst
        );
        assert!(self.read > 0, "every damaged file was refused");
        for depth in depths {
            assert!(self.refused.contains_key(depth), "no case reached {depth}");
        }
    }
}

fn kind(problem: &Problem) -> &'static str {
    match problem {
        Problem::Io { .. } => "io",
        Problem::NotACheckpoint(_) => "not a checkpoint",
        Problem::Zip(_) => "zip",
        Problem::Legacy(_) => "legacy",
        Problem::Pickle(PickleError::Damaged { .. }) => "pickle",
        Problem::Pickle(PickleError::Forbidden { .. }) => "global",
        Problem::Tensor { .. } => "tensor",
        Problem::Layout(_) => "layout",
        Problem::Archive(_) => "archive",
        Problem::SafeTensors(_) => "safetensors",
        Problem::TooLarge { .. } => "too large",
        Problem::Unwritable(_) => "unwritable",
    }
}

/// Runs the cases of a test: `make` gives a case's bytes, `read` reads them.
fn run_cases(
    test: &'static str,
    depths: &[&str],
    make: impl Fn(&mut Dice) -> Vec<u8>,
    read: impl Fn(&[u8]) -> Result<Checkpoint, CheckpointError>,
) {
    let first = setting("SLD_FUZZ_FIRST", 0);
    let watchdog = Watchdog::start(test);
    let mut tally = Tally::default();
    for case in first..first + setting("SLD_FUZZ_CASES", CASES) {
        let bytes = make(&mut Dice::new(case));
        let (outcome, peak) = watchdog.guard(case, bytes.len(), || read(&bytes));
        tally.worst = tally.worst.max(peak as f64 / bytes.len().max(1024) as f64);
        tally.add(case, outcome);
    }
    tally.finish(test, depths);
}

fn parse(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    checkpoint::parse(bytes, Path::new(NAME))
}

fn pick<'a>(dice: &mut Dice, corpus: &'a [Vec<u8>]) -> (&'a [u8], &'a [u8]) {
    (&corpus[dice.below(corpus.len())], &corpus[dice.below(corpus.len())])
}

/// The entries of a zip file, and such a file with other contents: what damages `data.pkl` must not stop
/// at the checksum.
fn unzip(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).expect("a zip file");
    (0..archive.len())
        .map(|index| {
            let mut file = archive.by_index(index).expect("an entry");
            let mut content = Vec::new();
            file.read_to_end(&mut content).expect("readable");
            (file.name().expect("a name").into_owned(), content)
        })
        .collect()
}

fn rezip(entries: &[(String, Vec<u8>)], method: zip::CompressionMethod) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, content) in entries {
        // Damaged names may come twice, which the writer refuses and a reader never sees.
        if zip.start_file(name, options).is_ok() {
            zip.write_all(content).expect("written");
        }
    }
    zip.finish().expect("finished").into_inner()
}

#[test]
fn damaged_zip_containers() {
    let corpus = fixtures(".pth");
    let entries: Vec<_> = corpus.iter().map(|bytes| unzip(bytes)).collect();
    let make = |dice: &mut Dice| {
        if dice.below(3) == 0 {
            let (bytes, other) = pick(dice, &corpus);
            return damage(dice, bytes, other);
        }
        let mut entries = entries[dice.below(entries.len())].clone();
        let victim = match dice.below(4) {
            0 => dice.below(entries.len()),
            _ => 0, // data.pkl
        };
        let content = damage(dice, &entries[victim].1, &corpus[0]);
        entries[victim].1 = content;
        let method = match dice.below(8) {
            0 => zip::CompressionMethod::Deflated,
            _ => zip::CompressionMethod::Stored,
        };
        rezip(&entries, method)
    };
    let depths = ["zip", "pickle", "global", "tensor", "layout"];
    run_cases("zip containers", &depths, make, parse);
}

#[test]
fn damaged_legacy_containers() {
    let corpus = fixtures("_legacy.pth");
    let make = |dice: &mut Dice| {
        let (bytes, other) = pick(dice, &corpus);
        damage(dice, bytes, other)
    };
    let depths = ["legacy", "pickle", "global", "tensor", "layout"];
    run_cases("legacy containers", &depths, make, parse);
}

fn safetensors() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file.safetensors");
    fixtures(".pth")
        .iter()
        .map(|bytes| {
            let checkpoint = parse(bytes).expect("a sound fixture");
            checkpoint::write_safetensors(&path, &checkpoint).expect("written");
            fs::read(&path).expect("there")
        })
        .collect()
}

#[test]
fn damaged_safetensors() {
    let corpus = safetensors();
    let make = |dice: &mut Dice| {
        let (bytes, other) = pick(dice, &corpus);
        // The header is most of what can go wrong; its length is kept right in half of the cases.
        if dice.below(2) == 0 {
            return damage(dice, bytes, other);
        }
        let (length, rest) = bytes.split_first_chunk::<8>().expect("a header");
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let header = damage(dice, header, &other[8..]);
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header);
        file.extend(data);
        file
    };
    run_cases("safetensors", &["safetensors"], make, parse);
}

/// Archives with two members, the second one `folder/wanted.pth`.
fn tars() -> Vec<Vec<u8>> {
    let mut tars = Vec::new();
    for wanted in fixtures("_legacy.pth").iter().chain(&fixtures(".pth")) {
        let mut tar = tar::Builder::new(Vec::new());
        let long = format!("folder/{}/other", "x".repeat(120)); // a GNU long name
        for (name, content) in [(long.as_str(), &b"something else"[..]), ("folder/wanted.pth", wanted)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, content).expect("appended");
        }
        tars.push(tar.into_inner().expect("finished"));
    }
    tars
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(bytes).expect("written");
    gz.finish().expect("finished")
}

/// Makes the checksums of all blocks that look like headers right again.
fn repair_checksums(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

#[test]
fn damaged_archives() {
    let corpus = tars();
    let make = |dice: &mut Dice| {
        let (bytes, other) = pick(dice, &corpus);
        let mut tar = bytes.to_vec();
        // Within the headers, since the members have tests of their own.
        let headers = damage(dice, &tar[..2048], other);
        if dice.below(2) == 0 {
            tar.splice(..2048, headers);
        } else {
            // The same length, so that the blocks stay in place.
            let length = headers.len().min(2048);
            tar[..length].copy_from_slice(&headers[..length]);
        }
        if dice.below(4) != 0 {
            repair_checksums(&mut tar);
        }
        match dice.below(8) {
            0 => gzip(&tar),
            1 => damage(dice, &gzip(&tar), other),
            _ => tar,
        }
    };
    let read = |bytes: &[u8]| checkpoint::parse_archive(bytes, "wanted.pth", Path::new(NAME));
    run_cases("archives", &["archive"], make, read);
}

/// The machine alone, on the pickles of images: whatever it gives can be looked at.
#[test]
fn damaged_pickles() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cifar");
    let corpus: Vec<Vec<u8>> = (2..=5)
        .map(|protocol| fs::read(folder.join(format!("protocol{protocol}.pickle"))).expect("a fixture"))
        .collect();
    let look = |bytes: &[u8]| -> Result<usize, PickleError> {
        let pickle = pickle::load(bytes)?;
        let mut values = vec![pickle.root];
        values.extend(pickle.dict(&pickle.root).iter().flat_map(|dict| dict.iter().map(|entry| entry.1)));
        for value in &values {
            let _ = pickle.kind(value);
            if let Some((_, arguments, object)) = pickle.object(value) {
                let state = object.state.and_then(|state| pickle.sequence(&state)).unwrap_or_default();
                let parts = arguments.iter().chain(state);
                parts.for_each(|part| {
                    drop((pickle.bytes(part, bytes.len()), pickle.text(part), pickle.size(part)))
                });
            }
        }
        Ok(pickle.length)
    };
    let watchdog = Watchdog::start("pickles");
    let (mut read, mut refused) = (0, 0);
    for case in 0..setting("SLD_FUZZ_CASES", CASES) {
        let dice = &mut Dice::new(case);
        let (bytes, other) = pick(dice, &corpus);
        // The head and the end are all opcodes; between them lie the pixels.
        let (head, tail) = bytes.split_at(300);
        let damaged = match dice.below(4) {
            0 => damage(dice, bytes, other),
            _ => [&damage(dice, head, &other[..300]), tail].concat(),
        };
        match watchdog.guard(case, damaged.len(), || look(&damaged)).0 {
            Ok(length) => {
                assert!(length <= damaged.len(), "case {case}");
                read += 1;
            }
            Err(error) => {
                assert!(error.to_string().len() > 12, "case {case}: {error}");
                refused += 1;
            }
        }
    }
    println!("pickles: {read} read, {refused} refused");
    assert!(read > 100 && refused > 100);
}

#[test]
fn files_cut_short_at_every_byte() {
    let watchdog = Watchdog::start("truncation");
    let mut tally = Tally::default();
    let mut files: Vec<Vec<u8>> = vec![
        fixture("parallel_cuda.pth"),
        fixture("parallel_cuda_legacy.pth"),
        fixture("training_legacy.pth"),
        safetensors().swap_remove(0),
    ];
    for bytes in &files {
        tally.add(0, parse(bytes));
        for length in 0..bytes.len() {
            let cut = &bytes[..length];
            let (outcome, _) = watchdog.guard(length as u64, length, || parse(cut));
            assert!(outcome.is_err(), "a file cut to {length} of {} bytes was read", bytes.len());
            tally.add(length as u64, outcome);
        }
    }
    assert_eq!(tally.read, files.len() as u64, "the whole files are sound");

    files = vec![tars().swap_remove(2)];
    files.push(gzip(&files[0]));
    for bytes in &files {
        let read = |bytes: &[u8]| checkpoint::parse_archive(bytes, "wanted.pth", Path::new(NAME));
        for length in 0..=bytes.len() {
            let cut = &bytes[..length];
            let (outcome, _) = watchdog.guard(length as u64, length, || read(cut));
            tally.add(length as u64, outcome);
        }
    }
    tally.finish("truncation", &["not a checkpoint", "zip", "legacy", "pickle", "archive"]);
}

/// A zip container around `pickle`, with one storage of 8 bytes named 0.
fn pth(pickle: &[u8], method: zip::CompressionMethod) -> Vec<u8> {
    let entries =
        [("archive/data.pkl".to_owned(), pickle.to_vec()), ("archive/data/0".to_owned(), vec![0; 8])];
    rezip(&entries, method)
}

/// `{"w": tensor}` with a float storage said to have `numel` elements.
fn tensor_pickle(numel: u32, shape: &[u32], strides: &[u32]) -> Vec<u8> {
    let text = |text: &str| {
        let mut op = vec![b'X'];
        op.extend((text.len() as u32).to_le_bytes());
        op.extend(text.as_bytes());
        op
    };
    let int = |value: u32| {
        let mut op = vec![0x8a, 5];
        op.extend(value.to_le_bytes());
        op.push(0);
        op
    };
    let tuple = |items: &[u32]| {
        let mut op = vec![b'('];
        op.extend(items.iter().flat_map(|&item| int(item)));
        op.push(b't');
        op
    };
    let mut pickle = b"\x80\x02}".to_vec();
    pickle.extend(text("w"));
    pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    pickle.extend(text("storage"));
    pickle.extend(b"ctorch\nFloatStorage\n");
    pickle.extend([text("0"), text("cpu"), int(numel), b"tQK\0".to_vec()].concat());
    pickle.extend([tuple(shape), tuple(strides), b"\x89NtRs.".to_vec()].concat());
    pickle
}

/// The message of a refusal. (`expect_err` would print a checkpoint that is read by mistake: all of it.)
fn refusal(outcome: Result<Checkpoint, CheckpointError>, name: &str) -> String {
    match outcome {
        Ok(_) => panic!("{name} was read"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn files_made_to_exhaust_memory_are_refused() {
    use zip::CompressionMethod::{Deflated, Stored};
    const HUGE: u32 = u32::MAX;
    let watchdog = Watchdog::start("bombs");
    let sound = pth(&tensor_pickle(2, &[2], &[1]), Stored);
    parse(&sound).expect("the frame of these files is sound");

    // Many values on the stack, then empty tuples: none may be as large as the stack was.
    let mut stack = b"\x80\x02".to_vec();
    stack.extend([b"(".to_vec(), vec![b'N'; 100_000], b"1".to_vec()].concat());
    stack.extend([b"(t0".repeat(50_000), b"}.".to_vec()].concat());
    // A text of 100,000 bytes, and 10,000 keys of a dict that each refer to it.
    let weights = tensor_pickle(2, &[2], &[1]);
    let weights = &weights[2..weights.len() - 1];
    let mut texts = [b"\x80\x02}(X\x05\0\0\0model", weights, b"X\xa0\x86\x01\0"].concat();
    texts.extend(vec![b'a'; 100_000]);
    texts.extend(b"q\x000");
    for key in 0..10_000u32 {
        let key = format!("{key:05}");
        texts.extend([b"X\x05\0\0\0", key.as_bytes(), b"h\0"].concat());
    }
    texts.extend(b"u.");
    // 10,000 keys that each refer to one dict with 10,000 entries.
    let mut dicts = b"\x80\x02}(U\x01d}(".to_vec();
    dicts.extend((0..10_000u16).flat_map(|key| [&b"M"[..], &key.to_le_bytes(), b"N"].concat()));
    dicts.extend(b"uq\0");
    dicts.extend((0..10_000).flat_map(|key| [b"U\x05", format!("{key:05}").as_bytes(), b"h\0"].concat()));
    dicts.extend(b"u.");
    // One parameter group with 10,000 parameters, listed 10,000 times.
    let mut groups = [b"\x80\x02}(X\x05\0\0\0model", weights].concat();
    groups.extend(b"X\x09\0\0\0optimizer}(X\x05\0\0\0state}");
    groups.extend(b"X\x0c\0\0\0param_groups](}(U\x08momentumG\0\0\0\0\0\0\0\0X\x06\0\0\0params](");
    groups.extend([b"K\0".repeat(10_000), b"euq\0".to_vec(), b"h\0".repeat(10_000)].concat());
    groups.extend(b"euu.");
    // Names of a million dimensions, of a storage that lies about its size, of elements that repeat.
    let mut dimensions = vec![1; 65];
    dimensions[0] = 2;
    let cases: [(&str, Vec<u8>, &str); 10] = [
        ("lying storage", tensor_pickle(HUGE, &[HUGE], &[1]), "are declared"),
        ("expanded", tensor_pickle(2, &[HUGE], &[0]), "declares more than"),
        ("expanded twice", tensor_pickle(2, &[HUGE, HUGE], &[0, 0]), "declares more than"),
        ("overflowing", tensor_pickle(2, &[HUGE, HUGE, HUGE], &[0, 0, 0]), "too many elements"),
        ("outside", tensor_pickle(2, &[2, 2], &[HUGE, HUGE]), "reach outside"),
        ("dimensions", tensor_pickle(2, &dimensions, &vec![0; 65]), "65 dimensions"),
        ("stack", stack, "no state dict"),
        ("dicts", dicts, "declares more than"),
        ("texts", texts, "declares more than"),
        ("groups", groups, "declares more than"),
    ];
    for (case, (name, pickle, part)) in cases.into_iter().enumerate() {
        let file = pth(&pickle, Stored);
        let (outcome, _) = watchdog.guard(case as u64, file.len(), || parse(&file));
        let message = refusal(outcome, name);
        assert!(message.contains(part), "{name}: {part:?} not in: {message}");
    }

    // Zip and gzip bombs: zeros compress a thousandfold.
    let mut zeros = b"\x80\x02".to_vec();
    zeros.extend(b"N0".repeat(20_000_000));
    let bomb = pth(&zeros, Deflated);
    assert!(bomb.len() < 1_000_000, "a bomb is small");
    let (outcome, _) = watchdog.guard(100, bomb.len(), || parse(&bomb));
    let message = refusal(outcome, "bomb");
    assert!(message.contains("declares more than"), "{message}");

    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(zeros.len() as u64);
    tar.append_data(&mut header, "wanted.pth", &zeros[..]).expect("appended");
    let bomb = gzip(&tar.into_inner().expect("finished"));
    let read = || checkpoint::parse_archive(&bomb, "wanted.pth", Path::new(NAME));
    let (outcome, _) = watchdog.guard(101, bomb.len(), read);
    let message = refusal(outcome, "bomb");
    assert!(message.contains("expands to far more"), "{message}");
}
