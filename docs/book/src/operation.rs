//! Chapter 12: adding an operation.

use std::fs;
use std::path::Path;

use autograd::Result;

use crate::picture::{BLUE, GREEN, GREY, ORANGE, Picture};

/// What the chapter adds to the project.
pub const SINE: &str = include_str!("sine.diff");

// ANCHOR: apply
/// A diff's changes to files: the path, what stands there, and what is to stand there.
pub fn changes(diff: &str) -> Vec<(&str, String, String)> {
    let mut changes: Vec<(&str, String, String)> = Vec::new();
    let mut path = "";
    for line in diff.lines() {
        if let Some(name) = line.strip_prefix("+++ b/") {
            path = name;
        } else if line.starts_with("@@") {
            changes.push((path, String::new(), String::new()));
        } else if let (Some((_, before, after)), Some(text)) = (changes.last_mut(), line.get(1..)) {
            let text = format!("{text}\n");
            match &line[..1] {
                " " => [before, after].into_iter().for_each(|side| *side += &text),
                "+" => *after += &text,
                "-" if !line.starts_with("---") => *before += &text,
                _ => {}
            }
        }
    }
    changes
}

/// Applies a diff to the files below a folder.
///
/// # Errors
/// What is to be changed does not stand there, once.
pub fn apply(diff: &str, root: &Path) -> Result<(), String> {
    for (path, before, after) in changes(diff) {
        let file = root.join(path);
        let text = fs::read_to_string(&file).map_err(|error| format!("{path}: {error}"))?;
        if text.matches(&before).count() != 1 {
            return Err(format!("{path} does not have these lines, once:\n{before}"));
        }
        fs::write(&file, text.replace(&before, &after)).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}
// ANCHOR_END: apply

/// What must be written, and what then happens by itself.
pub fn picture() -> Result<String> {
    let mut picture = Picture::new(640.0, 330.0);
    picture.text(
        (20.0, 24.0),
        "start",
        "black",
        "What is written for an operation, and what follows from it",
    );
    let mut boxes = |x: f64, colour: &str, texts: &[(String, f64)]| {
        for (text, y) in texts {
            picture.rectangle((x, *y), (190.0, 34.0), "white", colour);
            picture.text((x + 95.0, y + 21.0), "middle", "black", text);
        }
    };
    let lines = |wanted: &str| {
        let added = |(before, after): (&String, &String)| after.lines().count() - before.lines().count();
        changes(SINE).iter().filter(|c| c.0.ends_with(wanted)).map(|c| added((&c.1, &c.2))).sum::<usize>()
    };
    let written = ["scalar.rs", "grad.rs", "elementwise.rs", "block.rs"];
    let left: Vec<(String, f64)> = written
        .iter()
        .zip(0..)
        .map(|(f, i)| (format!("{f}: +{}", lines(f)), 60.0 + 66.0 * f64::from(i)))
        .collect();
    boxes(20.0, BLUE, &left);
    let middle = [
        "f64 evaluator, folding",
        "gradients, of any order",
        "fusion with neighbours",
        "WGSL for every card",
    ];
    let middle: Vec<(String, f64)> =
        middle.iter().zip(0..).map(|(t, i)| (t.to_string(), 60.0 + 66.0 * f64::from(i))).collect();
    boxes(230.0, GREEN, &middle);
    let right =
        ["special values", "central differences", "both devices, fused or not", "valid on 8 kinds of card"];
    let right: Vec<(String, f64)> =
        right.iter().zip(0..).map(|(t, i)| (t.to_string(), 60.0 + 66.0 * f64::from(i))).collect();
    boxes(440.0, ORANGE, &right);
    for (x, text) in [(115.0, "lines to write"), (325.0, "what follows"), (535.0, "what tests it")] {
        picture.text((x, 48.0), "middle", GREY, text);
    }
    Ok(picture.svg())
}
