//! The book says what is so: its code runs, its outputs and pictures are the program's, what it includes and
//! links to is there, and no chapter takes longer to read than it may.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Name and text of every chapter, as the table of contents has them.
fn chapters() -> Vec<(String, String)> {
    let summary = read(&folder("src/SUMMARY.md"));
    let names = between(&summary, "](", ")");
    names.into_iter().map(|name| (name.to_string(), read(&folder("src").join(name)))).collect()
}

/// Every piece of text between two marks.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    text.split(open).skip(1).filter_map(|rest| rest.split(close).next()).collect()
}

/// What a chapter's `{{#include file}}` or `{{#include file:anchor}}` stands for.
fn included(path: &str) -> Result<String, String> {
    let (file, anchor) = path.split_once(':').map_or((path, None), |(file, anchor)| (file, Some(anchor)));
    let text = fs::read_to_string(folder("src").join(file)).map_err(|error| format!("{file}: {error}"))?;
    let Some(anchor) = anchor else { return Ok(text) };
    let from = text.split_once(&format!("// ANCHOR: {anchor}\n")).ok_or(format!("{file} has no {anchor}"))?.1;
    let until = format!("// ANCHOR_END: {anchor}\n");
    Ok(from.split_once(&until).ok_or(format!("{file}: {anchor} has no end"))?.0.to_string())
}

/// A text in pieces: what looks like a number, and what is between.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces: Vec<(bool, String)> = Vec::new();
    let mut before = ' ';
    for c in text.chars() {
        // The exponent of 1e-7 belongs to it.
        let number = c.is_ascii_digit() || ".-".contains(c) || (c == 'e' && before.is_ascii_digit());
        match pieces.last_mut() {
            Some((last, piece)) if *last == number => piece.push(c),
            _ => pieces.push((number, c.to_string())),
        }
        before = c;
    }
    pieces.into_iter().map(|(_, piece)| piece).collect()
}

/// How much a number may differ: two units and a half of its last place, if it has decimals.
fn tolerance(number: &str) -> f64 {
    let (mantissa, exponent) = number.split_once('e').unwrap_or((number, "0"));
    let decimals = mantissa.split_once('.').map_or(0, |(_, decimals)| decimals.len() as i32);
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if decimals == 0 { 0.0 } else { 2.5 * 10f64.powi(exponent - decimals) }
}

/// Whether two texts are the same, but for the last digits of numbers with decimals, which another processor may
/// round otherwise.
fn same(a: &str, b: &str) -> bool {
    let (a, b) = (pieces(a), pieces(b));
    let near = |a: &String, b: &String| match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(x), Ok(y)) => (x - y).abs() <= tolerance(a).max(tolerance(b)),
        // A longer number leaves less space before it.
        _ => a.trim_matches(' ') == b.trim_matches(' '),
    };
    a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| near(a, b))
}

#[test]
fn outputs_pictures_and_excerpts_are_the_programs() {
    let fresh = tempfile::tempdir().expect("a folder");
    let done =
        Command::new(env!("CARGO_BIN_EXE_book")).arg("write").arg(fresh.path()).output().expect("a run");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let names = |folder: &Path| -> BTreeSet<String> {
        let entries =
            fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        entries.map(|name| name.to_string_lossy().into_owned()).collect()
    };
    let kept = folder("src/generated");
    let how = "`cargo run --release -p book -- write` writes them again";
    assert_eq!(names(fresh.path()), names(&kept), "{how}");
    for name in names(&kept) {
        let (new, old) = (read(&fresh.path().join(&name)), read(&kept.join(&name)));
        assert!(same(&new, &old), "{name} is not what the program gives; {how}. It gives:\n{new}");
    }
}

#[test]
fn numbers_are_compared_as_numbers() {
    assert!(same("x = 2.0001, 1.0e-7\n", "x = 2.0002, 1.1e-7\n"));
    assert!(!same("x = 2.1", "x = 2.4") && !same("x = 2", "y = 2") && !same("x = 2", "x = 2 3"));
    assert!(!same("1.0e-9", "2.0e-9") && !same("20 kernels", "21 kernels"));
}

#[test]
fn every_file_of_the_text_is_in_the_contents_and_used() {
    let in_contents: BTreeSet<String> = chapters().into_iter().map(|(name, _)| name).collect();
    let text: String = chapters().into_iter().map(|(_, text)| text).collect();
    for entry in fs::read_dir(folder("src")).expect("a folder") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") && name != "SUMMARY.md" {
            assert!(in_contents.contains(&name), "{name} is not in SUMMARY.md");
        }
    }
    for entry in fs::read_dir(folder("src/generated")).expect("a folder") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        assert!(text.contains(&format!("generated/{name}")), "{name} is in no chapter");
    }
}

#[test]
fn code_is_included_and_links_lead_somewhere() {
    for (chapter, text) in chapters() {
        let mut fences = text.split("\n```");
        fences.next();
        // Every other piece begins inside of a fence.
        for block in fences.step_by(2) {
            let (language, body) = block.split_once('\n').expect("a fence and what is in it");
            let lines = body.lines().filter(|line| !line.is_empty());
            let includes =
                lines.filter(|line| line.starts_with("{{#include ") && line.ends_with("}}")).count();
            let all = body.lines().filter(|line| !line.is_empty()).count();
            assert!(language == "sh" || includes == all, "{chapter}: untested text in a block:\n{body}");
        }
        for path in between(&text, "{{#include ", "}}") {
            let shown = included(path).unwrap_or_else(|error| panic!("{chapter}: {error}"));
            assert!(!shown.trim().is_empty() && !shown.contains("ANCHOR"), "{chapter}: {path}");
            // A line that is wider makes the reader scroll.
            let wide = shown.lines().find(|line| line.chars().count() > 120);
            assert!(wide.is_none(), "{chapter}: {path} is wide: {wide:?}");
        }
        for link in between(&text, "](", ")").into_iter().filter(|link| !link.starts_with("http")) {
            let file = link.split('#').next().unwrap_or("");
            assert!(folder("src").join(file).exists(), "{chapter} links to {link}");
        }
        // A path of the repository is named as it is.
        for path in between(&text, "`", "`")
            .into_iter()
            .filter(|path| path.ends_with(".rs") || path.ends_with(".wgsl"))
        {
            let somewhere = [folder("src"), folder("../..")].iter().any(|root| root.join(path).exists());
            assert!(somewhere || !path.contains('/'), "{chapter} names {path}");
        }
    }
}

#[test]
fn a_chapter_has_a_picture_and_exercises_and_takes_less_than_20_minutes() {
    for (chapter, text) in chapters().into_iter().filter(|(name, _)| name != "introduction.md") {
        assert!(text.contains(".svg)"), "{chapter} has no picture");
        assert!(text.contains("\n## Exercises\n"), "{chapter} has no exercises");
        let code: String = between(&text, "{{#include ", "}}")
            .into_iter()
            .map(|path| included(path).expect("an include"))
            .collect();
        // 200 words a minute, code at half the pace.
        let minutes = (text.split_whitespace().count() + 2 * code.split_whitespace().count()) as f64 / 200.0;
        println!("{chapter}: {minutes:.1} minutes");
        assert!(minutes < 20.0, "{chapter} takes {minutes:.1} minutes");
    }
}
