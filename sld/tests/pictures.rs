//! Folders of pictures: every format decoded as torchvision does, views byte for byte, layouts, whole runs.

mod small;

use md5::{Digest, Md5};
use sld::augment::cutout::cutout;
use sld::augment::photo::{self, Framing, Photo};
use sld::augment::resample::{CropBox, Resampler};
use sld::augment::{Canvas, Normalization, Op};
use sld::data::pictures::{self, Sight};
use sld::picture::{Picture, PictureError};
use std::path::{Path, PathBuf};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/pictures");
const SHARED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
const SIGHT: Sight = Sight { side: 224, resize: 256, normalization: Normalization::IMAGENET };

fn expected() -> serde_json::Value {
    small::json(&Path::new(FIXTURE).join("expected.json"))
}

fn md5(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder of real pictures, which are not part of the project; a test without it says so.
fn shared(name: &str) -> Option<PathBuf> {
    let folder = Path::new(SHARED).join(name);
    if !folder.is_dir() {
        eprintln!("SKIPPED: {} is not there", folder.display());
    }
    folder.is_dir().then_some(folder)
}

fn decoded(path: &Path) -> Result<Picture, String> {
    let mut picture = Picture::default();
    let file = std::fs::read(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    picture.decode(&file).map(|_| picture).map_err(|why| why.to_string())
}

/// The picture that the fixture's script draws.
fn drawn(width: usize, height: usize) -> Vec<u8> {
    let pixel = |y: usize, x: usize| {
        let green = x * 255 / (width - 1).max(1) + if (x + y).is_multiple_of(17) { 120 } else { 0 };
        [x / 5 * 37 + y / 7 * 91, green, x * y + 3 * x].map(|value| (value % 256) as u8)
    };
    (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(y, x))).collect()
}

#[test]
fn every_format_is_decoded_as_torchvision_does() {
    let expected = expected();
    let files = expected["files"].as_object().unwrap();
    assert!(files.len() >= 27, "{}", files.len());
    for (name, wanted) in files {
        match (decoded(&Path::new(FIXTURE).join("files").join(name)), wanted.is_null()) {
            (Ok(picture), false) => {
                let size = serde_json::json!([picture.width(), picture.height()]);
                assert_eq!(size, wanted["size"], "{name}");
                assert_eq!(md5(picture.pixels()), wanted["md5"].as_str().unwrap(), "{name}");
            }
            (Err(_), true) => {}
            (found, _) => panic!("{name}: {:?}, expected {wanted}", found.map(|picture| picture.width())),
        }
    }
    let said = |name: &str| decoded(&Path::new(FIXTURE).join("files").join(name)).unwrap_err();
    assert_eq!(said("empty.jpg"), "the file is empty");
    assert!(said("cut.jpg").contains("cut off"), "{}", said("cut.jpg"));
    assert!(said("cut.png").contains("cut off"), "{}", said("cut.png"));
    assert!(said("text.jpg").contains("it begins with \"<html>"), "{}", said("text.jpg"));
    assert!(said("bomb.png").contains("60000x60000"), "{}", said("bomb.png"));
}

#[test]
fn odd_files_are_decoded_as_torchvision_does() {
    let Some(folder) = shared("odd-images") else { return };
    let expected = small::json(&folder.join("expected.json"));
    let files = expected["files"].as_object().unwrap();
    assert_eq!(files.len(), 40);
    for (name, wanted) in files {
        let found = decoded(&folder.join("files").join(name));
        assert_eq!(found.is_ok(), wanted["ok"].as_bool().unwrap(), "{name}: {:?}", found.err());
        if let Ok(picture) = found {
            // PNG without loss, which the fixture's test vouches for.
            let reference = decoded(&folder.join(wanted["reference"].as_str().unwrap())).unwrap();
            assert!(picture == reference, "{name}: other pixels");
        }
    }
}

#[test]
fn damaged_files_are_pictures_or_errors() {
    let mut state = 7u64;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let mut picture = Picture::default();
    let (mut read, mut refused) = (0, 0);
    for entry in std::fs::read_dir(Path::new(FIXTURE).join("files")).unwrap() {
        let path = entry.unwrap().path();
        let file = std::fs::read(&path).unwrap();
        for round in 0..40 {
            let mut damaged = file.clone();
            for _ in 0..1 + round % 3 {
                // Behind the first bytes, which would only make it no picture.
                let at = 3 + below(damaged.len().max(4) - 3);
                if let Some(byte) = damaged.get_mut(at) {
                    *byte = below(256) as u8;
                }
            }
            if round % 4 == 0 {
                damaged.truncate(below(damaged.len() + 1));
            }
            match picture.decode(&damaged) {
                Ok(_) => {
                    assert_eq!(picture.pixels().len(), picture.width() * picture.height() * 3);
                    read += 1;
                }
                Err(why) => {
                    assert!(why != PictureError::Panic, "{}, round {round}", path.display());
                    assert!(picture.pixels().is_empty());
                    refused += 1;
                }
            }
        }
    }
    assert!(read > 200 && refused > 200, "{read} read, {refused} refused");
}

#[test]
fn views_of_224_pixels_are_those_of_torchvision_and_pillow() {
    let expected = expected();
    let (width, height) = (301, 217);
    let pixels = drawn(width, height);
    let photo = Photo { pixels: &pixels, width, height };
    let (mut resampler, mut canvas) = (Resampler::default(), Canvas::new());
    let views = expected["views"].as_array().unwrap();
    assert_eq!(views.len(), 42);
    for case in views {
        let numbers = |key: &str| -> Vec<f64> {
            case[key].as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
        };
        let [top, left, height, width] =
            numbers("window").into_iter().map(|n| n as usize).collect::<Vec<_>>()[..]
        else {
            panic!("{case}")
        };
        let framing =
            Framing { window: CropBox { top, left, height, width }, flip: case["flip"].as_bool().unwrap() };
        framing.apply(&mut resampler, &mut canvas, photo, 224);
        assert_eq!(md5(canvas.pixels()), case["weak"].as_str().unwrap(), "weak view: {case}");
        for (name, unit) in case["ops"].as_array().unwrap().iter().zip(numbers("units")) {
            let op = Op::ALL.into_iter().find(|op| format!("{op:?}") == name.as_str().unwrap()).unwrap();
            op.apply(&mut canvas, op.value(unit));
        }
        assert_eq!(md5(canvas.pixels()), case["changed"].as_str().unwrap(), "operations: {case}");
        let [unit, x, y] = numbers("cutout")[..] else { panic!("{case}") };
        cutout(&mut canvas, 0.5 * unit, x, y);
        assert_eq!(md5(canvas.pixels()), case["strong"].as_str().unwrap(), "strong view: {case}");
    }
}

#[test]
fn evaluation_views_are_those_of_torchvision() {
    let expected = expected();
    let (mut resampler, mut canvas) = (Resampler::default(), Canvas::new());
    for case in expected["evaluation"].as_array().unwrap() {
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let (width, height) = (number("width"), number("height"));
        let pixels = drawn(width, height);
        let photo = Photo { pixels: &pixels, width, height };
        photo::evaluation_view(&mut resampler, &mut canvas, photo, number("resize"), number("side"));
        assert_eq!(md5(canvas.pixels()), case["view"].as_str().unwrap(), "{case}");
    }
}

#[test]
fn real_photographs_are_seen_in_evaluation_as_torchvision_sees_them() {
    let Some(folder) = shared("imagenet-samples") else { return };
    let expected = small::json(&folder.join("expected.json"));
    let (mut resampler, mut canvas) = (Resampler::default(), Canvas::new());
    let images = expected["images"].as_object().unwrap();
    assert_eq!(images.len(), 10);
    for (name, wanted) in images {
        let picture = decoded(&folder.join(name)).unwrap();
        let photo = Photo { pixels: picture.pixels(), width: picture.width(), height: picture.height() };
        photo::evaluation_view(&mut resampler, &mut canvas, photo, 256, 224);
        let crop = decoded(&folder.join(wanted["crop_png"].as_str().unwrap())).unwrap();
        assert!(canvas.pixels() == crop.pixels(), "{name}: other pixels");
    }
}

/// Makes empty files and folders below `root`; pictures get the bytes of one.
fn plant(root: &Path, paths: &[&str]) {
    let picture = std::fs::read(Path::new(FIXTURE).join("files/420.jpg")).unwrap();
    for path in paths {
        let path = root.join(path);
        if path.to_string_lossy().ends_with('/') {
            std::fs::create_dir_all(&path).unwrap();
            continue;
        }
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let is_text = path.extension().is_some_and(|ending| ending == "txt");
        std::fs::write(&path, if is_text { b"words\n" } else { &picture[..] }).unwrap();
    }
}

fn listed(dataset: &sld::data::Dataset) -> Vec<(String, String)> {
    let files = dataset.files().unwrap();
    let class = |index: usize| dataset.classes()[dataset.labels()[index] as usize].clone();
    let name = |index: usize| files.path(index).file_name().unwrap().to_string_lossy().into_owned();
    (0..files.len()).map(|index| (class(index), name(index))).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
}

#[test]
fn pictures_are_listed_by_class_and_path_and_what_is_left_out_is_said() {
    let root = tempfile::tempdir().unwrap();
    plant(
        root.path(),
        &[
            "train/b/2.JPG",
            "train/b/10.jpeg",
            "train/b/deep/0.png",
            "train/b/no ending",
            "train/b/notes.txt",
            "train/b/.hidden.jpg",
            "train/.git/x.jpg",
            "train/a/été 狗.jpg",
            "train/README.txt",
            "train/loose.jpg",
            "val/a/1.jpg",
            "val/b/",
            "classes.txt",
        ],
    );
    let folder = pictures::open(root.path(), SIGHT, None).unwrap();
    let train =
        pairs(&[("a", "été 狗.jpg"), ("b", "10.jpeg"), ("b", "2.JPG"), ("b", "no ending"), ("b", "0.png")]);
    assert_eq!(listed(&folder.train.unwrap()), train);
    assert_eq!(listed(&folder.test.unwrap()), pairs(&[("a", "1.jpg")]));
    let notes = folder.notes.join("\n");
    for part in [
        "left out 2 hidden",
        ".git",
        "left out 1 that are no pictures",
        "notes.txt",
        "beside the class folders",
        "loose.jpg",
        "no picture of \"b\"",
    ] {
        assert!(notes.contains(part), "{part} in {notes}");
    }
    assert!(!notes.contains("README"), "{notes}");
}

/// Against numbers made by hand.
#[test]
fn a_survey_counts_pictures_pixels_and_copies() {
    let root = tempfile::tempdir().unwrap();
    let plain = |path: &str, width: u32, height: u32, colour: [u8; 3]| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(width, height, image::Rgb(colour)).save(path).unwrap();
    };
    plain("train/a/1.png", 4, 2, [0, 51, 255]);
    plain("train/a/2.png", 1, 3, [255, 51, 255]);
    plain("train/a/3.png", 3, 1, [102, 51, 255]);
    plain("train/b/4.bmp", 2, 4, [0, 51, 255]);
    plain("val/a/5.png", 4, 2, [0, 51, 255]);
    plain("val/a/6.png", 5, 5, [0, 0, 0]);
    let copy = |from: &str, to: &str| std::fs::copy(root.path().join(from), root.path().join(to)).unwrap();
    copy("train/a/2.png", "train/b/7.png");
    copy("train/a/2.png", "train/b/8.png");
    std::fs::write(root.path().join("train/b/9.png"), "").unwrap();

    let folder = pictures::open(root.path(), SIGHT, None).unwrap();
    let [train, val] = [folder.train, folder.test].map(|dataset| {
        let seen = std::sync::atomic::AtomicUsize::new(0);
        let dataset = dataset.unwrap();
        let survey = pictures::survey(&dataset, || {
            seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(seen.into_inner(), dataset.len());
        survey
    });
    assert_eq!(train.classes, [("a".to_owned(), 3), ("b".to_owned(), 4)]);
    assert_eq!(train.extremes, Some([(1, 3), (4, 2)]), "of as many pixels the wider picture is larger");
    assert_eq!((train.copies, val.copies), (2, 0));
    assert_eq!((train.shared_with(&val), val.shared_with(&train)), (1, 1));
    // Of 28 pixels 9 have the red of 255, 3 that of 102.
    let (mean, square): (f64, f64) = ((9.0 + 3.0 * 0.4) / 28.0, (9.0 + 3.0 * 0.16) / 28.0);
    let wanted = [[mean, 0.2, 1.0], [(square - mean * mean).sqrt(), 0.0, 0.0]];
    for (found, wanted) in train.moments().iter().flatten().zip(wanted.iter().flatten()) {
        assert!((found - wanted).abs() < 1e-7, "{:?}, not {wanted}", train.moments());
    }
    let text = train.to_string();
    for line in [
        " (train): 7 pictures in 2 classes\n",
        "\n  formats     5 PNG, 1 BMP\n",
        "\n  sizes       1x3 to 4x2\n",
        "\n  mean        0.3643 0.2000 1.0000\n",
        "\n  deviation   0.4537 0.0000 0.0000\n",
        "\n  copies      2 files are byte for byte another one\n",
        "\n  classes       3  a\n                4  b\n",
        "\n  unreadable  1\n",
        "train/b/9.png: the file is empty",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!val.to_string().contains("copies"));
}

#[test]
fn folders_that_cannot_be_a_data_set_say_why() {
    let said = |paths: &[&str]| {
        let root = tempfile::tempdir().unwrap();
        plant(root.path(), paths);
        pictures::open(root.path(), SIGHT, None).unwrap_err().to_string()
    };
    let missing = pictures::open(Path::new("no/such/folder"), SIGHT, None).unwrap_err().to_string();
    assert!(missing.contains("no/such/folder") && missing.contains("does not exist"), "{missing}");
    for (paths, part) in [
        (&["train/a/1.jpg", "train/empty/"][..], "no picture in 1 of 2 class folders (\"empty\")"),
        (
            &["train/a/1.jpg", "val/a/1.jpg", "val/z/1.jpg"],
            "classes that the 1 to train on do not have: \"z\"",
        ),
        (&["train/Cat/1.jpg", "train/cat/1.jpg"], "\"Cat\" and \"cat\" differ only in case"),
        (&["train/1.jpg"], "holds no class folders"),
        (&["1.jpg"], "holds no class folders"),
    ] {
        assert!(said(paths).contains(part), "{part}: {}", said(paths));
    }
}

#[test]
fn the_odd_tree_and_the_real_layouts_are_read() {
    if let Some(odd) = shared("odd-images") {
        // Its empty class is made here: git keeps no empty folder.
        let root = tempfile::tempdir().unwrap();
        copy_tree(&odd.join("tree/train"), &root.path().join("train"));
        let folder = pictures::open(root.path(), SIGHT, None).unwrap();
        assert!(folder.test.is_none());
        let train = folder.train.unwrap();
        assert_eq!(train.classes(), ["N01443537", "n01440764"]);
        let wanted = [
            ("N01443537", "x.png"),
            ("n01440764", "UPPER.JPG"),
            ("n01440764", "n01440764_1.JPEG"),
            ("n01440764", "n01440764_10.JPEG"),
            ("n01440764", "n01440764_2.JPEG"),
            ("n01440764", "still.gif"),
            ("n01440764", "two words été 狗.jpeg"),
            ("n01440764", "deep.png"),
        ];
        assert_eq!(listed(&train), pairs(&wanted));
        std::fs::create_dir(root.path().join("train/n02000000_empty")).unwrap();
        let said = pictures::open(root.path(), SIGHT, None).unwrap_err().to_string();
        assert!(said.contains("n02000000_empty"), "{said}");
    }
    if let Some(root) = shared("imagefolder") {
        let folder = pictures::open(&root, SIGHT, None).unwrap();
        let (train, test) = (folder.train.unwrap(), folder.test.unwrap());
        assert_eq!((train.len(), test.len(), train.classes().len()), (1374, 320, 16));
        assert_eq!((&*train.classes()[0], &*train.classes()[3]), ("tench", "golden retriever"));
    }
    if let Some(root) = shared("tiny-imagenet-200") {
        let folder = pictures::open(&root, Sight { side: 64, resize: 64, ..SIGHT }, None).unwrap();
        let (train, test) = (folder.train.unwrap(), folder.test.unwrap());
        assert_eq!((train.len(), test.len(), train.classes().len()), (2000, 200, 20));
        let count = |class| test.labels().iter().filter(|&&label| label == class).count();
        assert!((0..20).all(|class| count(class) == 10));
        // Sorted by folder, not in the order of wnids.txt.
        assert_eq!((&*train.classes()[0], &*train.classes()[1]), ("bullfrog", "German shepherd"));
    }
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy_tree(&path, &copy),
            false => std::fs::write(copy, std::fs::read(&path).unwrap()).unwrap(),
        }
    }
}
