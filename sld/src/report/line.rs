//! How lines are told apart: each has a colour, and marks or dashes for those who see no colours.

use std::fmt::Write;

/// One line of a chart.
pub struct Line {
    pub name: String,
    /// Number of the colour and of the marks, from 0.
    pub colour: usize,
    pub stroke: Stroke,
    /// (epoch, value); values that are no numbers leave a gap.
    pub points: Vec<(f64, f64)>,
}

/// How a line is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stroke {
    /// With marks in a few places.
    Marked,
    Dashed,
    /// Level from epoch to epoch, with marks.
    Steps,
}

/// Marks in the place that the pen is at. After the colours' number the combinations go on.
const MARKS: [&str; 8] = [
    "m-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0-7.2 0z",
    "m-3.3-3.3h6.6v6.6h-6.6z",
    "m0-4.4l4.4 7.6h-8.8z",
    "m0-4.8l4.8 4.8l-4.8 4.8l-4.8-4.8z",
    "m0 4.4l4.4-7.6h-8.8z",
    "m-1.4-4.4h2.8v3h3v2.8h-3v3h-2.8v-3h-3v-2.8h3z",
    "m-4.4-2.2h8.8v4.4h-8.8z",
    "m-2.2-4.4h4.4v8.8h-4.4z",
];

/// More marks than this are clutter, unless a line has hardly more points.
const FEW: usize = 6;

impl Line {
    /// The line's classes: colour and stroke.
    pub fn class(&self) -> String {
        let dashed = if self.stroke == Stroke::Dashed { " dashed" } else { "" };
        format!("line c{}{dashed}", self.colour % 8)
    }

    /// Which points get a mark: a few, evenly, where `phase` in (0, 1) keeps those of several lines apart.
    pub fn marked(&self, phase: f64) -> Vec<(f64, f64)> {
        if self.stroke == Stroke::Dashed {
            return Vec::new();
        }
        let there: Vec<_> = self.points.iter().copied().filter(|point| point.1.is_finite()).collect();
        let n = there.len();
        if n <= FEW + 2 {
            return there;
        }
        (0..FEW).map(|k| there[((k as f64 + phase) * n as f64 / FEW as f64) as usize]).collect()
    }

    /// Marks at places on the paper.
    pub fn marks(&self, places: impl IntoIterator<Item = (f64, f64)>) -> String {
        let mark = MARKS[(self.colour + self.colour / 8) % MARKS.len()];
        let mut path = String::new();
        for (x, y) in places {
            let _ = write!(path, "M{x:.1} {y:.1}{mark}");
        }
        match path.is_empty() {
            true => path,
            false => format!("<path class=\"marks c{}\" d=\"{path}\"/>", self.colour % 8),
        }
    }

    /// A piece of the line, for the legend.
    pub fn sample(&self) -> String {
        let mark = if self.stroke == Stroke::Dashed { String::new() } else { self.marks([(14.0, 6.0)]) };
        format!("<svg viewBox=\"0 0 28 12\"><path class=\"{}\" d=\"M1 6H27\"/>{mark}</svg>", self.class())
    }
}
