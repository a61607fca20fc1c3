//! The confusion table as a heat map, and the mistakes made most often.

use super::html::{escape, json};
use crate::run::Evaluation;
use serde_json::json;
use std::fmt::Write;

/// Steps of the colour. A path for each keeps a table of 100 classes small.
const SHADES: usize = 8;
/// Up to this many classes, names stand at the map; above, they are shown under the pointer.
const NAMED: usize = 30;

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
            // The root brings out the few: a mistake in 4% of a class gets a fifth of the colour.
            let share = (f64::from(*count) / f64::from(images)).sqrt();
            let shade = ((share * SHADES as f64).ceil() as usize).clamp(1, SHADES) - 1;
            let paths = if label == prediction { &mut right } else { &mut wrong };
            let _ = write!(paths[shade], "M{prediction} {label}h1v1h-1z");
        }
    }
    let mut cells = String::new();
    for (kind, paths) in [("right", right), ("wrong", wrong)] {
        for (shade, path) in paths.iter().enumerate().filter(|(_, path)| !path.is_empty()) {
            let opacity = (shade + 1) as f64 / SHADES as f64;
            let _ = write!(cells, "<path class=\"{kind}\" fill-opacity=\"{opacity:.2}\" d=\"{path}\"/>");
        }
    }
    let margin = if n <= NAMED { 0.24 * n as f64 } else { 0.06 * n as f64 };
    let size = n as f64 + margin;
    // Room for the last slanted names, which lean over the edge.
    let width = if n <= NAMED { size + 0.11 * n as f64 } else { size };
    let labels = if n <= NAMED { names(evaluation) } else { numbers(n) };
    let data = json!({"classes": evaluation.classes, "rows": evaluation.confusion});
    format!(
        "<figure class=\"card heat\"><figcaption><h3>Confusion</h3><p>Rows are true classes, columns predictions, \
         each row in shares of its class. On the diagonal is what was right.</p></figcaption>\
         <svg viewBox=\"{:.2} {:.2} {width:.2} {size:.2}\" data-n=\"{n}\" role=\"img\" aria-label=\"Confusion table\">\
         <rect class=\"ground\" width=\"{n}\" height=\"{n}\"/>{cells}{labels}<g class=\"cursor\"></g></svg>\
         <script type=\"application/json\">{}</script></figure>",
        -margin,
        -margin,
        json(&data),
    )
}

/// The classes' names at the left and on top.
fn names(evaluation: &Evaluation) -> String {
    let size = 0.028 * evaluation.classes.len() as f64;
    let mut text = format!("<g class=\"names\" font-size=\"{size:.3}\">");
    for (i, class) in evaluation.classes.iter().enumerate() {
        let at = i as f64 + 0.5;
        let class = escape(&class.replace('_', " "));
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
fn numbers(n: usize) -> String {
    let size = 0.022 * n as f64;
    let mut text = format!("<g class=\"names\" font-size=\"{size:.3}\">");
    for i in (0..n).step_by(n.div_ceil(10)) {
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
            escape(&evaluation.classes[label].replace('_', " ")),
            escape(&evaluation.classes[prediction].replace('_', " ")),
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
