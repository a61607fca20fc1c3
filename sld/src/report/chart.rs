//! Line charts by epoch, as SVG.

use super::html::{escape, json};
use super::scale::{Scale, label};
use serde_json::json;
use std::fmt::Write;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 270.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 26.0;
/// Width of a letter of an event's name, with a gap's share; a little more than in any common font.
const LETTER: f64 = 6.2;

/// One line.
pub struct Series {
    pub name: String,
    /// Number of the colour, from 0.
    pub colour: usize,
    /// Drawn lighter, for what is only there to compare with.
    pub faint: bool,
    /// (epoch, value); values that are no numbers leave a gap.
    pub points: Vec<(f64, f64)>,
}

/// How the vertical axis is laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Around the values.
    Fit,
    /// From zero.
    Zero,
    /// By magnitude.
    Logarithmic,
}

/// A chart with its texts.
pub struct Chart {
    pub title: String,
    /// A sentence below the title.
    pub note: String,
    pub axis: Axis,
    /// What follows a value: "%" or nothing.
    pub unit: &'static str,
    /// Decimals of the values under the pointer.
    pub decimals: usize,
    pub series: Vec<Series>,
    /// Pairs of lines whose space between is filled.
    pub bands: Vec<(usize, usize)>,
    /// Epochs marked by an upright line, with its name.
    pub events: Vec<(f64, String)>,
    /// Values marked by a level line, with its name.
    pub levels: Vec<(f64, String)>,
}

impl Chart {
    /// A chart without lines yet.
    pub fn new(title: &str, note: &str, axis: Axis) -> Self {
        Self {
            title: title.into(),
            note: note.into(),
            axis,
            unit: "",
            decimals: 3,
            series: Vec::new(),
            bands: Vec::new(),
            events: Vec::new(),
            levels: Vec::new(),
        }
    }

    /// With percent values.
    pub fn percent(mut self) -> Self {
        (self.unit, self.decimals) = ("%", 2);
        self
    }

    /// With another line.
    pub fn line(self, name: &str, colour: usize, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        self.add(name, colour, false, points)
    }

    /// With another line, drawn lighter.
    pub fn faint_line(self, name: &str, colour: usize, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        self.add(name, colour, true, points)
    }

    fn add(
        mut self,
        name: &str,
        colour: usize,
        faint: bool,
        points: impl IntoIterator<Item = (f64, f64)>,
    ) -> Self {
        let points = points.into_iter().collect();
        self.series.push(Series { name: name.into(), colour, faint, points });
        self
    }

    /// With the space between two lines filled.
    pub fn band(mut self, upper: usize, lower: usize) -> Self {
        self.bands.push((upper, lower));
        self
    }

    /// With marked epochs.
    pub fn events(mut self, events: &[(f64, String)]) -> Self {
        self.events = events.to_vec();
        self
    }

    /// With a marked value.
    pub fn level(mut self, value: Option<f64>, name: &str) -> Self {
        self.levels.extend(value.map(|value| (value, name.to_owned())));
        self
    }

    /// The chart as a figure.
    pub fn figure(&self) -> String {
        let all = || self.series.iter().flat_map(|series| &series.points);
        let x = Scale::exactly(all().map(|point| point.0));
        let values = all().map(|point| point.1).chain(self.levels.iter().map(|level| level.0));
        let y = match self.axis {
            Axis::Fit => Scale::around(values, false),
            Axis::Zero => Scale::around(values, true),
            Axis::Logarithmic => Scale::magnitudes(values),
        };
        let frame = Frame { x, y };
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(&self.title)
        );
        svg += &frame.grid(self.unit);
        svg += &self.event_lines(&frame);
        svg += &self.level_lines(&frame);
        for (upper, lower) in &self.bands {
            svg += &frame.band(&self.series[*upper], &self.series[*lower]);
        }
        for series in &self.series {
            svg += &frame.line(series);
        }
        svg += "<g class=\"cursor\"></g></svg>";
        format!(
            "<figure class=\"card chart\"><figcaption><h3>{}</h3><p>{}</p>{}</figcaption>{svg}\
             <script type=\"application/json\">{}</script></figure>\n",
            escape(&self.title),
            escape(&self.note),
            self.legend(),
            json(&self.data(&frame)),
        )
    }

    fn legend(&self) -> String {
        let mut legend = String::from("<ul class=\"legend\">");
        for series in &self.series {
            let faint = if series.faint { " faint" } else { "" };
            let _ =
                write!(legend, "<li class=\"c{}{faint}\">{}</li>", series.colour % 8, escape(&series.name));
        }
        legend + "</ul>"
    }

    fn event_lines(&self, frame: &Frame) -> String {
        let mut svg = String::new();
        // Names that would run into each other go to different heights.
        let mut written: Vec<(f64, f64, usize)> = Vec::new();
        for (epoch, name) in &self.events {
            let x = frame.left(*epoch);
            let width = LETTER * name.chars().count() as f64;
            let (anchor, offset) = if x + width > WIDTH { ("end", -4.0) } else { ("start", 4.0) };
            let from = if anchor == "end" { x - width } else { x };
            let taken = |row: usize| {
                written.iter().any(|&(start, end, at)| at == row && from < end && start < from + width)
            };
            let row = (0..).find(|&row| !taken(row)).unwrap_or_default();
            written.push((from, from + width, row));
            let _ = write!(
                svg,
                "<path class=\"event\" d=\"M{x:.1} {TOP}V{:.1}\"/><text class=\"event\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                HEIGHT - BOTTOM,
                x + offset,
                TOP - 6.0 + 12.0 * row as f64,
                escape(name),
            );
        }
        svg
    }

    fn level_lines(&self, frame: &Frame) -> String {
        let mut svg = String::new();
        for (value, name) in &self.levels {
            let y = frame.top(*value);
            let _ = write!(
                svg,
                "<path class=\"level\" d=\"M{LEFT} {y:.1}H{:.1}\"/><text class=\"level\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                WIDTH - RIGHT,
                // At the left, where curves are still far away and no event is marked.
                LEFT + 4.0,
                y - 5.0,
                escape(name),
            );
        }
        svg
    }

    /// What the script needs to show values under the pointer.
    fn data(&self, frame: &Frame) -> serde_json::Value {
        let mut epochs: Vec<f64> =
            self.series.iter().flat_map(|series| series.points.iter().map(|point| point.0)).collect();
        epochs.sort_by(f64::total_cmp);
        epochs.dedup();
        let series: Vec<_> = self
            .series
            .iter()
            .map(|series| {
                let mut points = series.points.iter().peekable();
                let values: Vec<Option<f64>> = epochs
                    .iter()
                    .map(|epoch| points.next_if(|point| point.0 == *epoch))
                    .map(|point| point.map(|point| point.1).filter(|value| value.is_finite()))
                    .map(|value| value.map(short))
                    .collect();
                json!({"n": series.name, "c": series.colour % 8, "v": values})
            })
            .collect();
        json!({
            "e": epochs, "s": series, "u": self.unit, "d": self.decimals,
            "box": [LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM],
            "y": [frame.y.low, frame.y.high, frame.y.logarithmic],
        })
    }
}

/// Five significant digits: more cannot be seen.
fn short(value: f64) -> f64 {
    format!("{value:.4e}").parse().unwrap_or(value)
}

/// The two axes on the paper.
struct Frame {
    x: Scale,
    y: Scale,
}

impl Frame {
    fn left(&self, epoch: f64) -> f64 {
        LEFT + self.x.place(epoch) * (WIDTH - LEFT - RIGHT)
    }

    fn top(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }

    fn grid(&self, unit: &str) -> String {
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
            self.left(*tick) - self.left(first) > 28.0 && self.left(last) - self.left(*tick) > 28.0
        };
        marks.retain(far);
        marks.extend([first, last]);
        for tick in marks {
            let (x, y) = (self.left(tick), HEIGHT - BOTTOM + 17.0);
            let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{tick}</text>");
        }
        svg + "</g>"
    }

    fn line(&self, series: &Series) -> String {
        let mut path = String::new();
        let mut pen_down = false;
        for (epoch, value) in &series.points {
            if !value.is_finite() {
                pen_down = false;
                continue;
            }
            let command = if pen_down { 'L' } else { 'M' };
            let _ = write!(path, "{command}{:.1} {:.1}", self.left(*epoch), self.top(*value));
            pen_down = true;
        }
        let faint = if series.faint { " faint" } else { "" };
        // A single epoch is a dot: a line of no length with round ends.
        if series.points.len() == 1 && pen_down {
            path += "h.01";
        }
        format!("<path class=\"line c{}{faint}\" d=\"{path}\"/>", series.colour % 8)
    }

    fn band(&self, upper: &Series, lower: &Series) -> String {
        let there = upper.points.iter().chain(lower.points.iter().rev()).filter(|point| point.1.is_finite());
        let corners: Vec<String> =
            there.map(|(epoch, value)| format!("{:.1} {:.1}", self.left(*epoch), self.top(*value))).collect();
        format!("<path class=\"band c{}\" d=\"M{}Z\"/>", upper.colour % 8, corners.join("L"))
    }
}
