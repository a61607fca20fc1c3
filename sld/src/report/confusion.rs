//! The confusion table as a heat map, and the mistakes made most often.

use super::html::{json, spoken};
use crate::run::Evaluation;
use serde_json::json;
use std::fmt::Write;

/// Steps of the colour. A path for each keeps a table of 100 classes small.
const SHADES: usize = 8;
/// Up to this many classes, and letters of a name, names stand at the map; above, numbers do.
const NAMED: usize = 30;
const LETTERS: usize = 24;
/// Width of a letter in font sizes, a little more than in any common font.
const LETTER: f64 = 0.62;

/// Whether names stand at the map.
pub fn named(evaluation: &Evaluation) -> bool {
    evaluation.classes.len() <= NAMED && longest(evaluation) <= LETTERS
}

fn longest(evaluation: &Evaluation) -> usize {
    evaluation.classes.iter().map(|class| class.chars().count()).max().unwrap_or(0)
}

/// Heat map and list.
pub fn section(evaluation: &Evaluation) -> String {
    format!(
        "<section><h2>What is taken for what</h2><div class=\"confusion\">{}{}</div></section>\n",
        map(evaluation),
        mistakes(evaluation)
    )
}

fn map(evaluation: &Evaluation) -> String {
    let n = evaluation.classes.len();
    // One path for each shade, of the right answers (on the diagonal) and of the mistakes.
    let mut right = vec![String::new(); SHADES];
    let mut wrong = vec![String::new(); SHADES];
    for (label, row) in evaluation.confusion.iter().enumerate() {
        let images: u32 = row.iter().sum();
        for (prediction, count) in row.iter().enumerate().filter(|(_, count)| **count > 0) {
            let share = f64::from(*count) / f64::from(images);
            let shade = (1..SHADES).find(|&shade| share <= least(shade)).unwrap_or(SHADES) - 1;
            let paths = if label == prediction { &mut right } else { &mut wrong };
            let _ = write!(paths[shade], "M{prediction} {label}h1v1h-1z");
        }
    }
    let mut cells = String::new();
    for (kind, paths) in [("right", right), ("wrong", wrong)] {
        for (shade, path) in paths.iter().enumerate().filter(|(_, path)| !path.is_empty()) {
            let _ =
                write!(cells, "<path class=\"{kind}\" fill-opacity=\"{:.2}\" d=\"{path}\"/>", opacity(shade));
        }
    }
    let n = n as f64;
    // Names lean over the right edge; the axes' titles are outside of them.
    let (labels, size, margin, lean) = match named(evaluation) {
        true => {
            let size = (0.032 * n).min(0.75);
            let room = longest(evaluation) as f64 * LETTER * size;
            (names(evaluation, size), size, room.max(0.1 * n) + 0.3, 0.5 * room)
        }
        false => (numbers(n, 0.026 * n), 0.026 * n, 0.075 * n, 0.0),
    };
    let title = 1.6 * size;
    let (left, width, height) =
        (-margin - title, margin + title + n + lean.max(size), margin + title + n + 0.02 * n);
    let titles = format!(
        "<g class=\"names axis\" font-size=\"{size:.3}\"><text x=\"{:.2}\" y=\"{:.2}\" text-anchor=\"middle\">predicted class</text>\
         <text transform=\"translate({:.2} {:.2}) rotate(-90)\" text-anchor=\"middle\">true class</text></g>",
        0.5 * n,
        left + size,
        left + size,
        0.5 * n,
    );
    let data = json!({"classes": evaluation.classes, "rows": evaluation.confusion});
    format!(
        "<figure class=\"card heat\"><figcaption><h3>Confusion</h3><p>Each row in shares of its class. On the diagonal \
         is what was right.{}</p></figcaption>\
         <svg viewBox=\"{left:.2} {left:.2} {width:.2} {height:.2}\" tabindex=\"0\" role=\"img\" aria-label=\"Confusion table\">\
         <rect class=\"ground\" width=\"{n}\" height=\"{n}\"/>{cells}{labels}{titles}<g class=\"cursor\"></g></svg>{}\
         <script type=\"application/json\">{}</script></figure>",
        if named(evaluation) { "" } else { " The classes\u{2019} numbers stand above, class by class." },
        key(),
        json(&data),
    )
}

/// The share above which a shade begins. The square brings out the few: a mistake in 4% of a class gets a
/// quarter of the colour.
fn least(shade: usize) -> f64 {
    (shade as f64 / SHADES as f64).powi(2)
}

/// Which colour is which share.
fn key() -> String {
    const WIDTH: usize = 34;
    let mut cells = String::new();
    for (row, (kind, name)) in [("right", "right"), ("wrong", "mistaken")].into_iter().enumerate() {
        let y = 14 * row;
        let _ = write!(cells, "<text x=\"0\" y=\"{}\">{name}</text>", y + 10);
        for shade in 0..SHADES {
            let _ = write!(
                cells,
                "<rect class=\"{kind}\" x=\"{}\" y=\"{y}\" width=\"{WIDTH}\" height=\"12\" fill-opacity=\"{:.2}\"/>",
                70 + WIDTH * shade,
                opacity(shade),
            );
        }
    }
    for shade in 0..=SHADES {
        let _ = write!(
            cells,
            "<text x=\"{}\" y=\"40\" text-anchor=\"middle\">{:.0}{}</text>",
            70 + WIDTH * shade,
            100.0 * least(shade),
            if shade == SHADES { "%" } else { "" },
        );
    }
    format!(
        "<svg class=\"key\" viewBox=\"0 0 {} 58\" role=\"img\" aria-label=\"Colour scale\">{cells}\
         <text x=\"{}\" y=\"55\" text-anchor=\"middle\">share of the class\u{2019} images</text></svg>",
        70 + WIDTH * SHADES + 18,
        70 + WIDTH * SHADES / 2,
    )
}

fn opacity(shade: usize) -> f64 {
    (shade + 1) as f64 / SHADES as f64
}

/// The classes' names at the left and on top.
fn names(evaluation: &Evaluation, size: f64) -> String {
    let mut text = format!("<g class=\"names\" font-size=\"{size:.3}\">");
    for (i, class) in evaluation.classes.iter().enumerate() {
        let at = i as f64 + 0.5;
        let class = spoken(class);
        let _ = write!(
            text,
            "<text x=\"-0.2\" y=\"{:.2}\" text-anchor=\"end\">{class}</text>\
             <text transform=\"translate({:.2} -0.2) rotate(-60)\">{class}</text>",
            at + 0.3 * size,
            at + 0.3 * size,
        );
    }
    text + "</g>"
}

/// Every tenth class's number.
fn numbers(n: f64, size: f64) -> String {
    let mut text = format!("<g class=\"names\" font-size=\"{size:.3}\">");
    for i in (0..n as usize).step_by((n as usize).div_ceil(10)) {
        let at = i as f64 + 0.5;
        let _ = write!(
            text,
            "<text x=\"{:.2}\" y=\"{:.2}\" text-anchor=\"end\">{i}</text><text x=\"{at:.2}\" y=\"{:.2}\" text-anchor=\"middle\">{i}</text>",
            -0.5 * size,
            at + 0.35 * size,
            -0.5 * size,
        );
    }
    text + "</g>"
}

fn mistakes(evaluation: &Evaluation) -> String {
    let mut rows = String::new();
    for (label, prediction, images) in evaluation.confusions(15) {
        let all: u32 = evaluation.confusion[label].iter().sum();
        let _ = write!(
            rows,
            "<tr><td>{}</td><td>{}</td><td class=\"number\">{images}</td><td class=\"number\">{:.0}%</td></tr>",
            spoken(&evaluation.classes[label]),
            spoken(&evaluation.classes[prediction]),
            100.0 * f64::from(images) / f64::from(all),
        );
    }
    if rows.is_empty() {
        return "<div class=\"card\"><h3>Mistakes made most often</h3><p>None: every image was recognised.</p></div>".into();
    }
    format!(
        "<div class=\"card\"><h3>Mistakes made most often</h3><table><thead><tr><th>true class</th><th>taken for</th>\
         <th class=\"number\">images</th><th class=\"number\">of its class</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_at_the_middle_of_every_tenth_row_and_column() {
        let text = numbers(20.0, 1.0);
        assert_eq!(text.matches("<text").count(), 20);
        for part in [
            "<text x=\"-0.50\" y=\"0.85\" text-anchor=\"end\">0</text>",
            "<text x=\"0.50\" y=\"-0.50\" text-anchor=\"middle\">0</text>",
            "<text x=\"-0.50\" y=\"18.85\" text-anchor=\"end\">18</text>",
            "<text x=\"18.50\" y=\"-0.50\" text-anchor=\"middle\">18</text>",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
