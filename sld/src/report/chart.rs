//! Line charts by epoch: what is in them, as a figure with legend and data.

use super::event::Event;
use super::frame::Frame;
use super::html::{escape, json};
use super::line::{Line, Stroke};
use super::scale::Scale;
use serde_json::json;
use std::fmt::Write;

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
    /// What is measured upwards.
    pub quantity: String,
    pub axis: Axis,
    /// What follows a value: "%" or nothing.
    pub unit: &'static str,
    /// Decimals of the values under the pointer; `None` for three significant digits.
    pub decimals: Option<usize>,
    pub lines: Vec<Line>,
    /// Pairs of lines whose space between is filled.
    pub bands: Vec<(usize, usize)>,
    pub events: Vec<Event>,
    /// Values marked by a level line, with its name.
    pub levels: Vec<(f64, String)>,
}

impl Chart {
    /// A chart without lines yet.
    pub fn new(title: &str, note: &str, quantity: &str, axis: Axis) -> Self {
        Self {
            title: title.into(),
            note: note.into(),
            quantity: quantity.into(),
            axis,
            unit: "",
            decimals: Some(3),
            lines: Vec::new(),
            bands: Vec::new(),
            events: Vec::new(),
            levels: Vec::new(),
        }
    }

    /// With percent values.
    pub fn percent(mut self) -> Self {
        (self.unit, self.decimals) = ("%", Some(2));
        self
    }

    /// With so many decimals under the pointer.
    pub fn decimals(mut self, decimals: Option<usize>) -> Self {
        self.decimals = decimals;
        self
    }

    /// With another line.
    pub fn line(self, name: &str, colour: usize, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        self.add(name, colour, Stroke::Marked, points)
    }

    /// With a line of what is only there to compare with: dashed, without marks.
    pub fn faint_line(self, name: &str, colour: usize, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        self.add(name, colour, Stroke::Dashed, points)
    }

    /// With a line of what is set, not measured, and holds for a whole epoch.
    pub fn steps(self, name: &str, colour: usize, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        self.add(name, colour, Stroke::Steps, points)
    }

    fn add(
        mut self,
        name: &str,
        colour: usize,
        stroke: Stroke,
        points: impl IntoIterator<Item = (f64, f64)>,
    ) -> Self {
        let points = points.into_iter().collect();
        self.lines.push(Line { name: name.into(), colour, stroke, points });
        self
    }

    /// With the space between two lines filled.
    pub fn band(mut self, upper: usize, lower: usize) -> Self {
        self.bands.push((upper, lower));
        self
    }

    /// With marked epochs.
    pub fn events(mut self, events: &[Event]) -> Self {
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
        let frame = self.frame();
        let mut drawing = frame.events(&self.events, &self.quantity);
        drawing += &frame.grid(self.unit, &self.quantity);
        drawing += &frame.levels(&self.levels);
        for (upper, lower) in &self.bands {
            drawing += &frame.band(&self.lines[*upper], &self.lines[*lower]);
        }
        // Marks last: a line must not hide another's.
        drawing.extend(self.lines.iter().map(|line| frame.stroke(line)));
        for (i, line) in self.lines.iter().enumerate() {
            drawing += &frame.marks(line, (i as f64 + 0.5) / self.lines.len() as f64);
        }
        format!(
            "<figure class=\"card chart\"><figcaption><h3>{}</h3><p>{}</p>{}</figcaption>\
             <svg viewBox=\"{}\" tabindex=\"0\" role=\"img\" aria-label=\"{}\">{drawing}<g class=\"cursor\"></g></svg>\
             <script type=\"application/json\">{}</script></figure>\n",
            escape(&self.title),
            escape(&self.note),
            self.legend(),
            Frame::BOX,
            escape(&self.title),
            json(&self.data(&frame)),
        )
    }

    fn frame(&self) -> Frame {
        let all = || self.lines.iter().flat_map(|line| &line.points);
        let values = all().map(|point| point.1).chain(self.levels.iter().map(|level| level.0));
        let y = match self.axis {
            Axis::Fit => Scale::around(values, false),
            Axis::Zero => Scale::around(values, true),
            Axis::Logarithmic => Scale::magnitudes(values),
        };
        Frame { x: Scale::exactly(all().map(|point| point.0)), y }
    }

    fn legend(&self) -> String {
        let mut legend = String::from("<ul class=\"legend\">");
        for line in &self.lines {
            let _ = write!(legend, "<li>{}{}</li>", line.sample(), escape(&line.name));
        }
        legend + "</ul>"
    }

    /// What the script needs to show values under the pointer.
    fn data(&self, frame: &Frame) -> serde_json::Value {
        let mut epochs: Vec<f64> =
            self.lines.iter().flat_map(|line| line.points.iter().map(|point| point.0)).collect();
        epochs.sort_by(f64::total_cmp);
        epochs.dedup();
        let series: Vec<_> = self
            .lines
            .iter()
            .map(|line| {
                let mut points = line.points.iter().peekable();
                let values: Vec<Option<f64>> = epochs
                    .iter()
                    .map(|epoch| points.next_if(|point| point.0 == *epoch))
                    .map(|point| point.map(|point| point.1).filter(|value| value.is_finite()))
                    .map(|value| value.map(short))
                    .collect();
                json!({"n": line.name, "c": line.colour % 8, "v": values})
            })
            .collect();
        json!({
            "e": epochs, "s": series, "u": self.unit, "d": self.decimals,
            "box": Frame::PLOT, "y": [frame.y.low, frame.y.high, frame.y.logarithmic],
        })
    }
}

/// Five significant digits: more cannot be seen.
fn short(value: f64) -> f64 {
    format!("{value:.4e}").parse().unwrap_or(value)
}
