//! The paper of a chart: axes, and where values lie on it.

use super::event::Event;
use super::html::escape;
use super::line::{Line, Stroke};
use super::scale::{Scale, label};
use std::fmt::Write;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 264.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 38.0;
/// Height of a row of the names above the plot.
const ROW: f64 = 14.0;
/// Width of a letter on a phone, where letters are largest; a little more than in any common font.
const LETTER: f64 = 7.5;

/// The two axes on the paper.
pub struct Frame {
    pub x: Scale,
    pub y: Scale,
}

impl Frame {
    /// The paper.
    pub const BOX: &str = "0 0 480 264";
    /// The part with the lines: left, top, width, height.
    pub const PLOT: [f64; 4] = [LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM];

    fn left(&self, epoch: f64) -> f64 {
        LEFT + self.x.place(epoch) * (WIDTH - LEFT - RIGHT)
    }

    fn top(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }

    /// Lines and numbers at round values, and what the axes are.
    pub fn grid(&self, unit: &str, quantity: &str) -> String {
        let mut svg = String::from("<g class=\"grid\">");
        let ticks = self.y.ticks(5);
        let step = ticks.windows(2).map(|pair| pair[1] - pair[0]).next().unwrap_or(1.0);
        for tick in &ticks {
            let (y, step) = (self.top(*tick), if self.y.logarithmic { *tick } else { step });
            let _ = write!(
                svg,
                "<path d=\"M{LEFT} {y:.1}H{:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}{unit}</text>",
                WIDTH - RIGHT,
                LEFT - 7.0,
                y + 4.0,
                label(*tick, step),
            );
        }
        let mut marks: Vec<f64> = self.x.ticks(6).into_iter().filter(|tick| tick.fract() == 0.0).collect();
        // The first and the last epoch always; round ones only where there is room.
        let (first, last) = (self.x.low, self.x.high);
        let far = |tick: &f64| {
            self.left(*tick) - self.left(first) > 30.0 && self.left(last) - self.left(*tick) > 30.0
        };
        marks.retain(far);
        marks.extend([first, last]);
        for tick in marks {
            let (x, y) = (self.left(tick), HEIGHT - BOTTOM + 16.0);
            let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{tick}</text>");
        }
        let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
        let _ = write!(
            svg,
            "</g><text class=\"axis\" x=\"0\" y=\"11\">{}</text>\
             <text class=\"axis\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">epoch</text>",
            escape(quantity),
            HEIGHT - 5.0,
        );
        svg
    }

    /// Upright lines with names above, which share their height with the axis' title.
    pub fn events(&self, events: &[Event], quantity: &str) -> String {
        let mut svg = String::new();
        let width = |text: &str| LETTER * text.chars().count() as f64;
        // Names that would run into each other go to different heights.
        let mut written: Vec<(f64, f64, usize)> = vec![(0.0, width(quantity) + 8.0, 0)];
        for Event { epoch, name, gate } in events {
            let (x, width) = (self.left(*epoch), width(name));
            let (anchor, offset) = if x + width > WIDTH { ("end", -4.0) } else { ("start", 4.0) };
            let from = if anchor == "end" { x - width } else { x };
            let taken = |row: usize| {
                written.iter().any(|&(start, end, at)| at == row && from < end && start < from + width)
            };
            let row = (0..).find(|&row| !taken(row)).unwrap_or_default();
            written.push((from, from + width, row));
            if *gate {
                let _ = write!(
                    svg,
                    "<path class=\"gate\" d=\"M{x:.1} {TOP}H{:.1}V{:.1}H{x:.1}z\"/>",
                    WIDTH - RIGHT,
                    HEIGHT - BOTTOM
                );
            }
            let _ = write!(
                svg,
                "<path class=\"event\" d=\"M{x:.1} {TOP}V{:.1}\"/><text class=\"event\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                HEIGHT - BOTTOM,
                x + offset,
                11.0 + ROW * row as f64,
                escape(name),
            );
        }
        svg
    }

    /// Level lines with names.
    pub fn levels(&self, levels: &[(f64, String)]) -> String {
        let mut svg = String::new();
        for (value, name) in levels {
            let y = self.top(*value);
            let _ = write!(
                svg,
                "<path class=\"level\" d=\"M{LEFT} {y:.1}H{:.1}\"/><text class=\"level\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                WIDTH - RIGHT,
                // At the left, where curves are still far away and no event is marked.
                LEFT + 4.0,
                // Below where there is no room above.
                if y < TOP + 14.0 { y + 13.0 } else { y - 5.0 },
                escape(name),
            );
        }
        svg
    }

    /// A line without its marks.
    pub fn stroke(&self, line: &Line) -> String {
        let mut path = String::new();
        let mut pen_down = false;
        for (epoch, value) in &line.points {
            let (x, y) = (self.left(*epoch), self.top(*value));
            let _ = match (value.is_finite(), pen_down, line.stroke) {
                (false, ..) => Ok(()),
                (true, false, _) => write!(path, "M{x:.1} {y:.1}"),
                (true, true, Stroke::Steps) => write!(path, "H{x:.1}V{y:.1}"),
                (true, true, _) => write!(path, "L{x:.1} {y:.1}"),
            };
            pen_down = value.is_finite();
        }
        // A single epoch is a dot: a line of no length with round ends.
        if line.points.len() == 1 && pen_down {
            path += "h.01";
        }
        format!("<path class=\"{}\" d=\"{path}\"/>", line.class())
    }

    /// A line's marks.
    pub fn marks(&self, line: &Line, phase: f64) -> String {
        line.marks(line.marked(phase).into_iter().map(|(epoch, value)| (self.left(epoch), self.top(value))))
    }

    /// The space between two lines.
    pub fn band(&self, upper: &Line, lower: &Line) -> String {
        let there = upper.points.iter().chain(lower.points.iter().rev()).filter(|point| point.1.is_finite());
        let corners: Vec<String> =
            there.map(|(epoch, value)| format!("{:.1} {:.1}", self.left(*epoch), self.top(*value))).collect();
        format!("<path class=\"band c{}\" d=\"M{}Z\"/>", upper.colour % 8, corners.join("L"))
    }
}
