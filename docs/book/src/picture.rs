//! Drawing: just enough SVG for the book.

use std::fmt::Write;

/// Colours that can be told apart, also by those who see few.
pub const BLUE: &str = "#1f6fb2";
pub const ORANGE: &str = "#d95f02";
pub const GREEN: &str = "#1b8a5a";
pub const GREY: &str = "#777777";

/// A picture in the making. Lengths are pixels, from the upper left.
pub struct Picture {
    width: f64,
    height: f64,
    body: String,
}

impl Picture {
    pub fn new(width: f64, height: f64) -> Picture {
        Picture { width, height, body: String::new() }
    }

    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.body,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
        );
    }

    /// A line with a head at its end.
    pub fn arrow(&mut self, from: (f64, f64), to: (f64, f64), colour: &str) {
        self.line(from, to, colour, 1.5);
        let length = (to.0 - from.0).hypot(to.1 - from.1).max(1e-9);
        let (dx, dy) = ((to.0 - from.0) / length, (to.1 - from.1) / length);
        let corner = |side: f64| (to.0 - 9.0 * dx - side * 4.0 * dy, to.1 - 9.0 * dy + side * 4.0 * dx);
        let (a, b) = (corner(1.0), corner(-1.0));
        let _ = writeln!(
            self.body,
            "<path d=\"M{:.1} {:.1}L{:.1} {:.1}L{:.1} {:.1}z\" fill=\"{colour}\"/>",
            to.0, to.1, a.0, a.1, b.0, b.1
        );
    }

    pub fn path(&mut self, points: &[(f64, f64)], colour: &str, dashed: bool) {
        let mut d = String::new();
        for (i, (x, y)) in points.iter().enumerate() {
            let _ = write!(d, "{}{x:.1} {y:.1}", if i == 0 { "M" } else { "L" });
        }
        let dash = if dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let _ = writeln!(
            self.body,
            "<path d=\"{d}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>"
        );
    }

    pub fn rectangle(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), fill: &str, edge: &str) {
        let _ = writeln!(
            self.body,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\" stroke=\"{edge}\"/>"
        );
    }

    pub fn dot(&mut self, (x, y): (f64, f64), radius: f64, colour: &str) {
        let _ =
            writeln!(self.body, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" fill=\"{colour}\"/>");
    }

    /// Text whose `anchor` is `start`, `middle` or `end`.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: &str, colour: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>"
        );
    }

    /// The file's text.
    pub fn svg(self) -> String {
        let Picture { width, height, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n{body}</svg>\n"
        )
    }
}

/// One axis of a chart: the range it shows, and whether by powers of ten.
#[derive(Clone, Copy)]
pub struct Axis {
    pub name: &'static str,
    pub low: f64,
    pub high: f64,
    pub logarithmic: bool,
}

impl Axis {
    pub fn linear(name: &'static str, low: f64, high: f64) -> Axis {
        Axis { name, low, high, logarithmic: false }
    }
    pub fn logarithmic(name: &'static str, low: f64, high: f64) -> Axis {
        Axis { name, low, high, logarithmic: true }
    }

    /// Where along the axis a value is, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let scale = |v: f64| if self.logarithmic { v.log10() } else { v };
        (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        if self.logarithmic {
            let (low, high) = (self.low.log10().round() as i32, self.high.log10().round() as i32);
            let step = ((high - low) / 6).max(1);
            return (low..=high).step_by(step as usize).map(|e| (10f64.powi(e), format!("1e{e}"))).collect();
        }
        (0..=4)
            .map(|i| self.low + (self.high - self.low) * f64::from(i) / 4.0)
            .map(|v| (v, format!("{}", (v * 1000.0).round() / 1000.0)))
            .collect()
    }
}

/// A chart: two axes and what is drawn in them.
pub struct Chart {
    picture: Picture,
    x: Axis,
    y: Axis,
    names: usize,
}

const LEFT: f64 = 64.0;
const TOP: f64 = 34.0;
const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 280.0;

impl Chart {
    pub fn new(title: &str, x: Axis, y: Axis) -> Chart {
        let mut picture = Picture::new(LEFT + WIDTH + 26.0, TOP + HEIGHT + 52.0);
        picture.text((LEFT, 20.0), "start", "black", title);
        picture.rectangle((LEFT, TOP), (WIDTH, HEIGHT), "none", "#bbbbbb");
        let mut chart = Chart { picture, x, y, names: 0 };
        for (value, text) in x.ticks() {
            let (px, _) = chart.place((value, y.low));
            chart.picture.line((px, TOP + HEIGHT), (px, TOP + HEIGHT + 5.0), GREY, 1.0);
            chart.picture.text((px, TOP + HEIGHT + 19.0), "middle", GREY, &text);
        }
        for (value, text) in y.ticks() {
            let (_, py) = chart.place((x.low, value));
            chart.picture.line((LEFT, py), (LEFT + WIDTH, py), "#eeeeee", 1.0);
            chart.picture.text((LEFT - 6.0, py + 4.0), "end", GREY, &text);
        }
        chart.picture.text((LEFT + WIDTH / 2.0, TOP + HEIGHT + 40.0), "middle", "black", x.name);
        chart.picture.text((LEFT + 6.0, TOP + 16.0), "start", "black", y.name);
        chart
    }

    fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (LEFT + WIDTH * self.x.place(x), TOP + HEIGHT * (1.0 - self.y.place(y)))
    }

    /// A curve through points; what is outside of the axes is drawn at their edge.
    pub fn curve(&mut self, name: &str, colour: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        let points: Vec<(f64, f64)> = points
            .into_iter()
            .map(|(x, y)| self.place((x, y)))
            .map(|(x, y)| (x, y.clamp(TOP, TOP + HEIGHT)))
            .collect();
        self.picture.path(&points, colour, false);
        self.name(name, colour);
    }

    /// Bars of the given width, one around each point.
    pub fn bars(&mut self, name: &str, colour: &str, width: f64, bars: impl IntoIterator<Item = (f64, f64)>) {
        for (x, y) in bars {
            let ((left, top), (right, bottom)) =
                (self.place((x - width / 2.0, y)), self.place((x + width / 2.0, self.y.low)));
            self.picture.rectangle((left, top), (right - left, bottom - top), colour, "none");
        }
        self.name(name, colour);
    }

    pub fn dots(&mut self, name: &str, colour: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        for point in points {
            let place = self.place(point);
            self.picture.dot(place, 3.5, colour);
        }
        self.name(name, colour);
    }

    /// A line of the legend, on the right.
    fn name(&mut self, name: &str, colour: &str) {
        if name.is_empty() {
            return;
        }
        self.names += 1;
        let y = TOP + 16.0 * self.names as f64;
        self.picture.text((LEFT + WIDTH - 8.0, y), "end", colour, name);
    }

    pub fn svg(self) -> String {
        self.picture.svg()
    }
}
