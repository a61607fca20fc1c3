//! What is drawn for people, the made-up pictures and the reports, is what lies in `expected/`, where it was looked at.
//!
//! `RENEW=1 cargo test --workspace --release --test expected` writes it anew after a change that is meant: look at it,
//! and commit it.

mod sample;

use image::RgbImage;
use sld::data::synthetic::{Difficulty, MAX_CLASSES, SyntheticConfig, generate};
use sld::report::{Run, render};
use sld::run::{Accuracy, Change};
use std::fs;
use std::path::PathBuf;

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "expected", name].iter().collect()
}

fn is_renewed() -> bool {
    std::env::var_os("RENEW").is_some()
}

/// An image of every class, and a test image of each that is as hard as can be. Runs of the demonstration can be
/// compared over versions only as long as its pictures stay the same.
#[test]
fn made_up_pictures_stay_as_they_are() {
    let whole =
        SyntheticConfig { classes: MAX_CLASSES, train: MAX_CLASSES, test: MAX_CLASSES, ..Default::default() };
    let hardest = Difficulty {
        ambiguity: 0.45,
        pose: 2.0,
        deformation: 2.0,
        clutter: 2.0,
        occlusion: 2.0,
        colour: 2.0,
        noise: 2.0,
    };
    let hard = SyntheticConfig { seed: 5, difficulty: hardest, ..whole };
    let sets = [generate(&whole).unwrap().train, generate(&hard).unwrap().test];
    let images: Vec<&[u8]> =
        sets.iter().flat_map(|set| (0..set.len()).map(|index| set.image(index))).collect();
    let (across, side) = (MAX_CLASSES, 32);
    let mut sheet = RgbImage::new((across * side) as u32, (images.len() / across * side) as u32);
    for (x, y, pixel) in sheet.enumerate_pixels_mut() {
        let [x, y] = [x, y].map(|place| place as usize);
        let from = ((y % side) * side + x % side) * 3;
        pixel.0.copy_from_slice(&images[y / side * across + x / side][from..from + 3]);
    }
    let path = path("drawn.png");
    if is_renewed() {
        sheet.save(&path).unwrap();
    }
    let expected = image::open(&path).unwrap().into_rgb8();
    assert_eq!(sheet.dimensions(), expected.dimensions());
    // Sines are not the same to the last bit everywhere.
    let off = |(a, b): (&u8, &u8)| a.abs_diff(*b) > 1;
    let wrong = sheet.iter().zip(expected.iter()).position(|pair| off(pair));
    assert_eq!(wrong, None, "the first byte of the pixels of {} that differs", path.display());
}

fn run(name: &str, distiller: &str, top: f64, seed: u64) -> Run {
    const EPOCHS: u32 = 16;
    let mut run = Run {
        name: name.into(),
        info: sample::info(distiller, EPOCHS),
        metrics: sample::metrics(EPOCHS, top, distiller == "SLD", seed),
        evaluation: Some(sample::evaluation(6, top)),
        config: "SOLVER:\n  LR: 0.025 # <&>\n".into(),
    };
    run.info.seed = seed;
    run
}

/// A report's sections, an element a line, without what changes with the day and the version.
fn sections(runs: &[Run]) -> String {
    let html = render(runs);
    let body = html.split_once("<main>\n").unwrap().1.split_once("<footer>").unwrap().0;
    body.replace("><", ">\n<")
}

fn check(name: &str, runs: &[Run]) {
    let (path, found) = (path(name), sections(runs));
    if is_renewed() {
        fs::write(&path, &found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    let differ = found.lines().zip(expected.lines()).position(|(a, b)| a != b);
    if let Some(line) = differ {
        let at = |text: &str| text.lines().nth(line).unwrap_or_default().to_string();
        panic!("{name}:{}: {}\nexpected: {}", line + 1, at(&found), at(&expected));
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "{name} has another length");
}

#[test]
fn a_runs_report_stays_as_it_is() {
    check("one_run.html", &[run("sld", "SLD", 77.6, 1)]);
    // Half done, changed on the way, with held-out images and a memory that is known.
    let mut half = run("half", "KD", 74.1, 2);
    half.metrics.truncate(7);
    half.evaluation = None;
    half.info.validation_images = 5_000;
    half.info.device_bytes = 350 << 20;
    half.info.changes =
        vec![Change { epoch: 4, key: "SOLVER.LR".into(), from: "0.05".into(), to: "0.025".into() }];
    for metrics in &mut half.metrics {
        metrics.validation = Some(Accuracy { top1: metrics.test.top1 - 1.0, ..metrics.test });
    }
    check("half_a_run.html", &[half]);
}

#[test]
fn a_comparison_stays_as_it_is() {
    let runs =
        [run("alone-1", "NONE", 70.2, 1), run("alone-2", "NONE", 70.9, 2), run("sld-1", "SLD", 77.6, 1)];
    check("several_runs.html", &runs);
    let [mut other, elsewhere] = [run("other", "NONE", 60.0, 3), run("elsewhere", "KD", 61.0, 3)];
    other.info.dataset = "synthetic".into();
    other.info.test_digest = "00000001".into();
    check("two_data_sets.html", &[other, elsewhere]);
}
