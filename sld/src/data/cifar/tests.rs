//! Tiny releases of all four kinds, written here as the originals were, and damaged in every way.

use super::batch::PLANE;
use super::*;
use std::fs;
use std::io::Write;

const PYTHON100: usize = 0;
const BINARY100: usize = 1;
const PYTHON10: usize = 2;
const BINARY10: usize = 3;

/// One image's labels and planes.
struct Sample {
    coarse: u8,
    class: u8,
    planes: Vec<u8>,
}

/// `count` samples of the batch file number `batch`.
fn samples(dataset: Cifar, batch: usize, count: usize) -> Vec<Sample> {
    let sample = |i: usize| Sample {
        coarse: ((7 * i + batch) % 20) as u8,
        class: ((13 * i + 5 * batch + 3) % dataset.classes()) as u8,
        planes: (0..3 * PLANE).map(|j| (i * 41 + batch * 97 + j * 7 + j / 1024 * 50) as u8).collect(),
    };
    (0..count).map(sample).collect()
}

/// The files of a release with `count` images in each batch.
fn release_files(release: &Release, count: usize) -> Vec<(&'static str, Vec<u8>)> {
    let mut files: Vec<(&'static str, Vec<u8>)> = Vec::new();
    for (batch, file) in release.train.iter().chain(release.test).enumerate() {
        let samples = samples(release.dataset, batch, count);
        let bytes = match release.format {
            Format::Binary => binary_batch(release.dataset, &samples),
            Format::Python => python_batch(release.dataset, &samples),
        };
        files.push((file.name, bytes));
    }
    let names: Vec<String> = (0..release.dataset.classes()).map(|class| format!("class_{class}")).collect();
    let meta = match (release.format, release.dataset) {
        (Format::Binary, _) => (names.join("\n") + "\n\n").into_bytes(),
        (Format::Python, Cifar::Cifar10) => python_meta("label_names", &names),
        (Format::Python, Cifar::Cifar100) => python_meta("fine_label_names", &names),
    };
    files.push((release.meta.name, meta));
    files
}

fn binary_batch(dataset: Cifar, samples: &[Sample]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for sample in samples {
        bytes.extend((dataset == Cifar::Cifar100).then_some(sample.coarse));
        bytes.push(sample.class);
        bytes.extend_from_slice(&sample.planes);
    }
    bytes
}

/// Writes opcodes as Python 2's cPickle does at protocol 2, a memo slot after every value.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    slots: u32,
}

impl Writer {
    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn memo(&mut self) -> &mut Self {
        self.slots += 1;
        match u8::try_from(self.slots) {
            Ok(slot) => self.raw(&[b'q', slot]),
            Err(_) => {
                let slot = self.slots.to_le_bytes();
                self.raw(b"r").raw(&slot)
            }
        }
    }

    fn string(&mut self, value: &[u8]) -> &mut Self {
        match u8::try_from(value.len()) {
            Ok(length) => self.raw(&[b'U', length]),
            Err(_) => self.raw(b"T").raw(&(value.len() as u32).to_le_bytes()),
        };
        self.raw(value).memo()
    }

    fn integer(&mut self, value: i32) -> &mut Self {
        match value {
            0..=0xFF => self.raw(&[b'K', value as u8]),
            0x100..=0xFFFF => self.raw(b"M").raw(&(value as u16).to_le_bytes()),
            _ => self.raw(b"J").raw(&value.to_le_bytes()),
        }
    }

    /// A list in groups of at most 1000, as the original.
    fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.raw(b"]").memo();
        for group in items.chunks(1000) {
            self.raw(b"(");
            group.iter().for_each(|item| write(self, item));
            self.raw(b"e");
        }
        self
    }

    fn array(&mut self, shape: (usize, usize), dtype: &str, data: &[u8]) -> &mut Self {
        self.raw(b"cnumpy.core.multiarray\n_reconstruct\n").memo();
        self.raw(b"cnumpy\nndarray\n").memo().integer(0).raw(b"\x85").memo().string(b"b");
        self.raw(b"\x87").memo().raw(b"R").memo().raw(b"(").integer(1);
        self.integer(shape.0 as i32).integer(shape.1 as i32).raw(b"\x86").memo();
        self.raw(b"cnumpy\ndtype\n").memo().string(dtype.as_bytes()).integer(0).integer(1);
        self.raw(b"\x87").memo().raw(b"R").memo().raw(b"(").integer(3).string(b"|").raw(b"NNN");
        self.integer(-1).integer(-1).integer(0).raw(b"tb").memo();
        self.raw(b"\x89").string(data).raw(b"tb").memo()
    }

    fn finish(&mut self) -> Vec<u8> {
        self.raw(b"u.");
        std::mem::take(&mut self.bytes)
    }
}

fn python_batch(dataset: Cifar, samples: &[Sample]) -> Vec<u8> {
    let planes: Vec<u8> = samples.iter().flat_map(|sample| sample.planes.clone()).collect();
    python_batch_of(dataset, samples, "u1", (samples.len(), 3 * PLANE), &planes)
}

fn python_batch_of(
    dataset: Cifar,
    samples: &[Sample],
    dtype: &str,
    shape: (usize, usize),
    planes: &[u8],
) -> Vec<u8> {
    let mut writer = Writer::default();
    let labels = |writer: &mut Writer, sample: &Sample| {
        writer.integer(i32::from(sample.class));
    };
    writer.raw(b"\x80\x02}").memo().raw(b"(");
    writer.string(b"filenames").list(samples, |writer, sample| {
        writer.string(format!("image_{}.png", sample.class).as_bytes());
    });
    writer.string(b"batch_label").string(b"training batch 1 of 1");
    match dataset {
        Cifar::Cifar10 => drop(writer.string(b"labels").list(samples, labels)),
        Cifar::Cifar100 => {
            writer.string(b"fine_labels").list(samples, labels);
            writer.string(b"coarse_labels").list(samples, |writer, sample| {
                writer.integer(i32::from(sample.coarse));
            });
        }
    }
    writer.string(b"data").array(shape, dtype, planes);
    writer.finish()
}

fn python_meta(key: &str, names: &[String]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.raw(b"\x80\x02}").memo().raw(b"(").string(b"num_vis").integer(3072);
    writer.string(key.as_bytes()).list(names, |writer, name| {
        writer.string(name.as_bytes());
    });
    writer.finish()
}

fn write_folder(folder: &Path, files: &[(&str, Vec<u8>)]) {
    fs::create_dir_all(folder).unwrap();
    files.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).unwrap());
}

/// The archive, not compressed.
fn write_tar(path: &Path, folder: &str, files: &[(&'static str, Vec<u8>)]) {
    let compressed = path.with_extension("compressed");
    write_archive(&compressed, folder, files);
    let mut tar = Vec::new();
    let file = fs::File::open(&compressed).unwrap();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(file), &mut tar).unwrap();
    fs::write(path, tar).unwrap();
    fs::remove_file(compressed).unwrap();
}

fn write_archive(path: &Path, folder: &str, files: &[(&'static str, Vec<u8>)]) {
    let gz = flate2::write::GzEncoder::new(fs::File::create(path).unwrap(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gz);
    // In another order than the loader's, and with a file it does not know.
    let extra = ("readme.html", b"<p>".to_vec());
    for (name, bytes) in files.iter().rev().chain([&extra]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{folder}/{name}"), &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap().flush().unwrap();
}

/// What the loader should make of [`release_files`].
fn expected(release: &Release, batches: std::ops::Range<usize>, count: usize) -> (Vec<u8>, Vec<u32>) {
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for sample in batches.flat_map(|batch| samples(release.dataset, batch, count)) {
        for position in 0..PLANE {
            images.extend((0..3).map(|channel| sample.planes[channel * PLANE + position]));
        }
        labels.push(u32::from(sample.class));
    }
    (images, labels)
}

fn check(loaded: &Loaded, release: &Release, count: usize) {
    assert_eq!(loaded.release.description, release.description);
    assert_eq!(loaded.integrity, Integrity::Subset);
    let train_batches = release.train.len();
    for (split, batches) in
        [(&loaded.splits.train, 0..train_batches), (&loaded.splits.test, train_batches..train_batches + 1)]
    {
        let (images, labels) = expected(release, batches, count);
        assert!(split.images() == images, "{}", release.description);
        assert_eq!(split.labels(), labels);
        assert_eq!(split.classes()[3], "class_3");
        assert_eq!(split.classes().len(), release.dataset.classes());
        assert_eq!((split.width(), split.height()), (32, 32));
    }
}

fn load_default(path: &Path) -> Result<Loaded, DataError> {
    load(path, LoadOptions::default())
}

fn message(path: &Path) -> String {
    load_default(path).unwrap_err().to_string()
}

#[test]
fn all_four_releases_load_as_folder_archive_and_inside_a_folder() {
    for release in &RELEASES {
        // More than 1000 labels in a list, and a memo above 255, in one of the kinds.
        let count = if release.folder == "cifar-100-python" { 1003 } else { 3 };
        let files = release_files(release, count);
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(release.folder);
        write_folder(&folder, &files);
        check(&load_default(&folder).unwrap(), release, count);
        check(&load_default(root.path()).unwrap(), release, count);
        fs::remove_dir_all(&folder).unwrap();
        let archive = root.path().join(release.archive);
        write_archive(&archive, release.folder, &files);
        check(&load_default(&archive).unwrap(), release, count);
        check(&load_default(root.path()).unwrap(), release, count);
        let renamed = root.path().join("images.tgz");
        fs::rename(&archive, &renamed).unwrap();
        check(&load_default(&renamed).unwrap(), release, count);
        let plain = root.path().join(release.archive.trim_end_matches(".gz"));
        write_tar(&plain, release.folder, &files);
        check(&load_default(&plain).unwrap(), release, count);
        check(&load_default(root.path()).unwrap(), release, count);
        let renamed = root.path().join("images");
        fs::rename(&plain, &renamed).unwrap();
        check(&load_default(&renamed).unwrap(), release, count);
    }
}

#[test]
fn python_3_pickles_of_every_protocol_are_understood() {
    for protocol in 2..=5 {
        let path =
            format!("{}/../tests/fixtures/cifar/protocol{protocol}.pickle", env!("CARGO_MANIFEST_DIR"));
        let batch = fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let root = tempfile::tempdir().unwrap();
        let mut files = release_files(&RELEASES[PYTHON100], 1);
        files[0].1 = batch;
        write_folder(root.path(), &files);
        let train = load_default(root.path()).unwrap_or_else(|error| panic!("{path}: {error}")).splits.train;
        assert_eq!(train.labels(), [19, 99]);
        for image in 0..2 {
            let pixel =
                |position: usize, channel: usize| (41 * image + 7 * (channel * PLANE + position)) as u8;
            let pixels: Vec<u8> = (0..PLANE).flat_map(|p| [pixel(p, 0), pixel(p, 1), pixel(p, 2)]).collect();
            assert!(train.image(image) == pixels, "{path}, image {image}");
        }
    }
}

#[test]
fn what_is_not_there_is_said() {
    let root = tempfile::tempdir().unwrap();
    let nowhere = root.path().join("nowhere");
    assert!(message(&nowhere).contains("nowhere does not exist"));
    let error = message(root.path());
    assert!(error.contains("no CIFAR-10 or CIFAR-100 data") && error.contains("sld data fetch"), "{error}");
    for release in &RELEASES {
        let files = release_files(release, 1);
        for (missing, _) in files.iter().skip(1) {
            let folder = root.path().join(release.folder);
            write_folder(&folder, &files);
            fs::remove_file(folder.join(missing)).unwrap();
            let error = message(&folder);
            assert!(error.contains(&format!("no {missing}")), "{error}");
            let archive = root.path().join("some.tar.gz");
            let kept: Vec<_> = files.iter().filter(|file| file.0 != *missing).cloned().collect();
            write_archive(&archive, release.folder, &kept);
            let error = message(&archive);
            assert!(error.contains(&format!("some.tar.gz has no {missing}")), "{error}");
            fs::remove_dir_all(&folder).unwrap();
        }
    }
    // There, and no file that can be read.
    let folder = root.path().join(RELEASES[BINARY100].folder);
    write_folder(&folder, &release_files(&RELEASES[BINARY100], 1));
    fs::remove_file(folder.join("test.bin")).unwrap();
    fs::create_dir(folder.join("test.bin")).unwrap();
    let error = message(&folder);
    assert!(error.contains("test.bin") && !error.contains("no test.bin"), "{error}");
    fs::remove_dir_all(&folder).unwrap();
    let text = root.path().join("notes.txt");
    fs::write(&text, "not an archive").unwrap();
    assert!(message(&text).contains("notes.txt is damaged"));
}

#[test]
fn two_data_sets_in_a_folder_need_a_choice() {
    let root = tempfile::tempdir().unwrap();
    for kind in [BINARY100, PYTHON10] {
        let release = &RELEASES[kind];
        write_folder(&root.path().join(release.folder), &release_files(release, 2));
    }
    assert!(message(root.path()).contains("both CIFAR-10 and CIFAR-100"));
    for (wanted, kind) in [(Cifar::Cifar100, BINARY100), (Cifar::Cifar10, PYTHON10)] {
        let options = LoadOptions { wanted: Some(wanted), ..LoadOptions::default() };
        check(&load(root.path(), options).unwrap(), &RELEASES[kind], 2);
    }
    let inner = root.path().join(RELEASES[PYTHON10].folder);
    let options = LoadOptions { wanted: Some(Cifar::Cifar100), ..LoadOptions::default() };
    let error = load(&inner, options).unwrap_err().to_string();
    assert!(error.contains("no CIFAR-100 data"), "{error}");
}

/// The message for a release whose first file was changed.
fn damaged(kind: usize, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let root = tempfile::tempdir().unwrap();
    let mut files = release_files(&RELEASES[kind], 4);
    change(&mut files[0].1);
    write_folder(root.path(), &files);
    message(root.path())
}

#[test]
fn damaged_binary_batches_are_errors() {
    for (kind, record, name) in [(BINARY100, 3074, "train.bin"), (BINARY10, 3073, "data_batch_1.bin")] {
        let error = damaged(kind, |bytes| bytes.truncate(bytes.len() - 1));
        let expected = format!("has {} bytes, which is not a whole number of {record}-byte", 4 * record - 1);
        assert!(error.contains(name) && error.contains(&expected), "{error}");
        assert!(damaged(kind, Vec::clear).contains("holds no images"));
    }
    let error = damaged(BINARY100, |bytes| bytes[2 * 3074 + 1] = 100);
    assert!(error.contains("image 2 has label 100, but fine labels are 0 to 99"), "{error}");
    let error = damaged(BINARY100, |bytes| bytes[3 * 3074] = 20);
    assert!(error.contains("image 3 has label 20, but coarse labels are 0 to 19"), "{error}");
    let error = damaged(BINARY10, |bytes| bytes[3073] = 10);
    assert!(error.contains("image 1 has label 10, but class labels are 0 to 9"), "{error}");
}

#[test]
fn damaged_python_batches_are_errors() {
    for kind in [PYTHON100, PYTHON10] {
        let dataset = RELEASES[kind].dataset;
        let whole = release_files(&RELEASES[kind], 4)[0].1.clone();
        // Cut off anywhere, it must be an error and never a panic.
        for length in 0..whole.len() {
            let error = nn::pickle::load(&whole[..length]).err();
            assert!(error.is_some_and(|error| error.to_string().contains("cut short")), "{length}");
        }
        let error = damaged(kind, |bytes| bytes.truncate(whole.len() - 200));
        assert!(
            error.contains("is not a CIFAR python batch") && error.contains("the file is cut short"),
            "{error}"
        );
        let mut wrong = samples(dataset, 0, 4);
        wrong[3].class = dataset.classes() as u8;
        let error = damaged(kind, |bytes| *bytes = python_batch(dataset, &wrong));
        assert!(error.contains(&format!("image 3 has label {}", dataset.classes())), "{error}");
        let four = samples(dataset, 0, 4);
        let planes = vec![0; 4 * 3072];
        let batch = |dtype: &str, shape: (usize, usize), planes: &[u8]| {
            damaged(kind, |bytes| *bytes = python_batch_of(dataset, &four, dtype, shape, planes))
        };
        assert!(batch("f4", (1, 3072), &planes).contains("type 'f4' where uint8"));
        assert!(batch("u1", (8, 1536), &planes).contains("shape [8, 1536]"));
        assert!(batch("u1", (4, 3071), &planes).contains("12288 bytes for an array of shape"));
        assert!(batch("u1", (3, 3072), &planes[..3 * 3072]).contains("has 4 entries for 3 images"));
    }
    let other = python_batch(Cifar::Cifar10, &samples(Cifar::Cifar10, 0, 2));
    assert!(damaged(PYTHON100, |bytes| *bytes = other).contains("no 'coarse_labels'"));
}

#[test]
fn a_pickle_cannot_call_anything_else() {
    let error = damaged(PYTHON100, |bytes| *bytes = b"\x80\x02cos\nsystem\n(U\x04haltt\x85R.".to_vec());
    assert!(error.contains("os.system") && error.contains("nothing was executed"), "{error}");
    // Every single-byte change of a batch's head is read to an end: an error, or harmless.
    let whole = release_files(&RELEASES[PYTHON100], 1)[0].1.clone();
    for position in 0..whole.len().min(400) {
        for value in [0, 1, b'b', b'R', b'e', b't', b'u', b'.', 0x7F, 0x96, 0xFF] {
            let mut bytes = whole.clone();
            bytes[position] = value;
            let _ = nn::pickle::load(&bytes).map(|pickle| {
                pickle.get(&pickle.root, "data").map(|data| python::uint8_array(&pickle, &data).is_ok())
            });
        }
    }
}

#[test]
fn a_cut_off_or_altered_archive_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    for release in &RELEASES {
        let archive = root.path().join(release.archive);
        write_archive(&archive, release.folder, &release_files(release, 5));
        let whole = fs::read(&archive).unwrap();
        for length in [0, 1, whole.len() / 3, whole.len() / 2, whole.len() - 9, whole.len() - 1] {
            fs::write(&archive, &whole[..length]).unwrap();
            let error = message(&archive);
            assert!(error.contains("is damaged or was not downloaded to the end"), "{length}: {error}");
        }
        let mut flipped = whole.clone();
        let crc = flipped.len() - 6;
        flipped[crc] ^= 1;
        fs::write(&archive, &flipped).unwrap();
        assert!(message(&archive).contains("is damaged"));
    }
}

#[test]
fn what_is_no_archive_of_a_release_is_named_for_what_it_is() {
    let root = tempfile::tempdir().unwrap();
    let refused = |name: &str, content: &[u8], part: &str| {
        let path = root.path().join(name);
        fs::write(&path, content).unwrap();
        let error = message(&path);
        assert!(error.contains(part) && error.contains(name) && !error.contains("damaged"), "{error}");
    };
    refused("cifar-100-binary.zip", b"PK\x03\x04...", "a zip file; unpack it and give the folder");
    refused("renamed.tar.gz", b"PK\x03\x04...", "a zip file; unpack it");
    refused("cifar-10-python.tar.bz2", b"BZh91AY...", "another way than with gzip; unpack it");
    refused("cifar-10-python.tar.xz", b"\xfd7zXZ\0...", "another way than with gzip");
    for release in &RELEASES {
        for (name, content) in release_files(release, 2) {
            refused(name, &content, "a batch file; give the folder it is in");
        }
    }
    let pickle = release_files(&RELEASES[PYTHON10], 2)[0].1.clone();
    refused("some.pickle", &pickle, "a batch file; give the folder it is in");
}

#[test]
fn a_plain_archive_that_is_cut_off_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    for release in &RELEASES {
        let archive = root.path().join("images.tar");
        write_tar(&archive, release.folder, &release_files(release, 5));
        let whole = fs::read(&archive).unwrap();
        for length in (0..whole.len() - 1024).step_by(whole.len() / 37) {
            fs::write(&archive, &whole[..length]).unwrap();
            let error = message(&archive);
            assert!(error.contains("is damaged") || error.contains("has no "), "{length}: {error}");
        }
    }
}

#[test]
fn two_members_of_one_name_are_refused() {
    let root = tempfile::tempdir().unwrap();
    for release in &RELEASES {
        let mut files = release_files(release, 2);
        let again = files[1].clone();
        files.push(again);
        for write in [write_archive, write_tar] {
            let archive = root.path().join("images");
            write(&archive, release.folder, &files);
            let error = message(&archive);
            assert!(error.contains(&format!("two files of the name {}", files[1].0)), "{error}");
        }
    }
}

#[test]
fn class_names_must_fit() {
    for kind in [BINARY100, BINARY10] {
        let root = tempfile::tempdir().unwrap();
        let mut files = release_files(&RELEASES[kind], 1);
        files.last_mut().unwrap().1 = b"apple\nbear\n".to_vec();
        write_folder(root.path(), &files);
        assert!(message(root.path()).contains("2 class names"), "{}", message(root.path()));
    }
}

/// A release that is complete with two training and two test images.
fn small_release(kind: usize, md5: &'static str, files: &'static [ReleaseFile; 3]) -> Release {
    Release {
        md5,
        train: &files[..1],
        test: &files[1..2],
        meta: files[2],
        train_images: 2,
        test_images: 2,
        ..RELEASES[kind]
    }
}

#[test]
fn complete_releases_are_compared_with_their_checksums() {
    use md5::{Digest, Md5};
    let hex = |bytes: &[u8]| -> &'static str {
        Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>().leak()
    };
    let root = tempfile::tempdir().unwrap();
    for (kind, names) in [
        (PYTHON100, ["train", "test", "meta"]),
        (BINARY100, ["train.bin", "test.bin", "fine_label_names.txt"]),
    ] {
        let files = release_files(&RELEASES[kind], 2);
        let folder = root.path().join(RELEASES[kind].folder);
        write_folder(&folder, &files);
        let archive = root.path().join(RELEASES[kind].archive);
        write_archive(&archive, RELEASES[kind].folder, &files);
        let right = hex(&fs::read(&archive).unwrap());
        let leak = |md5: [Option<&'static str>; 3]| -> &'static [ReleaseFile; 3] {
            Box::leak(Box::new(std::array::from_fn(|i| ReleaseFile { name: names[i], md5: md5[i] })))
        };
        let known = leak(std::array::from_fn(|i| Some(hex(&files[i].1))));
        let one_wrong = leak([Some(hex(&files[0].1)), Some("0bad"), Some(hex(&files[2].1))]);
        let unknown = leak([None; 3]);
        let integrity = |path: &Path, md5, files, skip| {
            load_release(path, &small_release(kind, md5, files), skip).map(|(_, integrity)| integrity)
        };
        assert_eq!(integrity(&archive, right, one_wrong, false).unwrap(), Integrity::Verified);
        assert_eq!(integrity(&archive, right, unknown, false).unwrap(), Integrity::Verified);
        assert_eq!(integrity(&archive, "0bad", known, false).unwrap(), Integrity::Verified, "packed anew");
        let error = integrity(&archive, "0bad", unknown, false).unwrap_err().to_string();
        assert!(error.contains(right) && error.contains("0bad"), "{error}");
        assert_eq!(integrity(&folder, "0bad", known, false).unwrap(), Integrity::Verified);
        assert_eq!(integrity(&folder, "0bad", unknown, false).unwrap(), Integrity::Unverified);
        let error = integrity(&folder, "0bad", one_wrong, false).unwrap_err().to_string();
        assert!(error.contains(names[1]) && error.contains("has md5"), "{error}");
        assert_eq!(integrity(&folder, "0bad", one_wrong, true).unwrap(), Integrity::Unverified);
    }
}

#[test]
fn the_real_subset_loads_where_it_is_present() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/cifar-100-binary");
    if !path.exists() {
        eprintln!("SKIPPED: no {}; the real CIFAR-100 subset was not read", path.display());
        return;
    }
    let Loaded { splits, release, integrity, .. } = load_default(&path).unwrap();
    assert_eq!((release.description, integrity), ("CIFAR-100 binary", Integrity::Subset));
    let count = |dataset: &Dataset| super::super::inspect::Summary::new(dataset);
    let (train, test) = (count(&splits.train), count(&splits.test));
    assert_eq!((train.images, test.images), (10_000, 2_000));
    assert!(train.classes.iter().all(|class| class.1 == 100));
    assert!(test.classes.iter().all(|class| class.1 == 20));
    assert_eq!((&*train.classes[0].0, &*train.classes[99].0), ("apple", "worm"));
    // A tenth to a fifth of the release: near its published moments.
    for channel in 0..3 {
        assert!((train.mean[channel] - f64::from(Normalization::CIFAR100.mean[channel])).abs() < 0.01);
        assert!((train.std[channel] - f64::from(Normalization::CIFAR100.std[channel])).abs() < 0.01);
    }
}
