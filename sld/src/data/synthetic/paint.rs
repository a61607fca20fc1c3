//! Painting one image: ground, distractors, figure, occluder, light, noise.

use super::class::Class;
use super::difficulty::Difficulty;
use super::figure::{Shape, texture};
use crate::random::Stream;
use std::f64::consts::{PI, TAU};

/// Width and height of an image.
pub(super) const SIDE: usize = 32;
/// Pixels of an image.
pub(super) const PIXELS: usize = SIDE * SIDE;

/// The square of a distance that no figure reaches, in figure units.
const REACH: f64 = 3.0;

type Colour = [f64; 3];

/// Red, green and blue in [0, 1] from hue (in turns), saturation and value.
fn hsv(hue: f64, saturation: f64, value: f64) -> Colour {
    [5.0, 3.0, 1.0].map(|offset: f64| {
        let k = (offset + 6.0 * hue.rem_euclid(1.0)) % 6.0;
        value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0)
    })
}

fn mix(a: Colour, b: Colour, share: f64) -> Colour {
    std::array::from_fn(|channel| a[channel] + (b[channel] - a[channel]) * share)
}

/// Where a figure lies: pixel positions to figure coordinates.
struct Pose {
    centre: (f64, f64),
    radius: f64,
    cos: f64,
    sin: f64,
    stretch: f64,
}

impl Pose {
    fn new(centre: (f64, f64), radius: f64, angle: f64, stretch: f64) -> Self {
        Self { centre, radius, cos: angle.cos(), sin: angle.sin(), stretch }
    }

    fn locate(&self, x: f64, y: f64) -> (f64, f64) {
        let (x, y) = ((x - self.centre.0) / self.radius, (y - self.centre.1) / self.radius);
        ((self.cos * x + self.sin * y) * self.stretch, (self.cos * y - self.sin * x) / self.stretch)
    }
}

/// How much of a pixel lies inside an outline at `distance` figure units, `radius` pixels a unit.
fn coverage(distance: f64, radius: f64) -> f64 {
    (0.5 - distance * radius).clamp(0.0, 1.0)
}

/// A plane wave over the image, from a table for each axis: sin(a + b) = sin a cos b + cos a sin b.
struct Wave {
    columns: [(f64, f64); SIDE],
    rows: [(f64, f64); SIDE],
}

impl Wave {
    fn draw(stream: &mut Stream, (slowest, fastest): (f64, f64), amplitude: f64) -> Self {
        let (direction, frequency) = (stream.range(0.0, TAU), stream.range(slowest, fastest));
        let (step_x, step_y) = (frequency * direction.cos(), frequency * direction.sin());
        let phase = stream.range(0.0, TAU);
        let scaled = |(sin, cos): (f64, f64)| (amplitude * sin, amplitude * cos);
        Self {
            columns: std::array::from_fn(|x| (step_x * x as f64 + phase).sin_cos()),
            rows: std::array::from_fn(|y| scaled((step_y * y as f64).sin_cos())),
        }
    }

    fn at(&self, column: usize, row: usize) -> f64 {
        let ((sin_a, cos_a), (sin_b, cos_b)) = (self.columns[column], self.rows[row]);
        sin_a * cos_b + cos_a * sin_b
    }
}

/// Nearly normal with unit variance: the sum of four 16-bit numbers (Irwin and Hall), one draw a pixel value.
fn sensor_noise(stream: &mut Stream) -> f64 {
    let bits = stream.bits();
    let sum: u64 = (0..4).map(|part| bits >> (16 * part) & 0xFFFF).sum();
    // Each part has mean 1/2 and variance 1/12 in units of 2^16.
    (sum as f64 / 65536.0 - 2.0) * 3f64.sqrt()
}

/// The point z with probability `tail` above it in the standard normal distribution, by bisection.
fn normal_quantile(tail: f64) -> f64 {
    // Abramowitz and Stegun 7.1.26: error below 1.5e-7.
    let above = |z: f64| {
        let t = 1.0 / (1.0 + 0.3275911 * z / 2f64.sqrt());
        let polynomial = [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592];
        0.5 * polynomial.into_iter().fold(0.0, |sum, c| (sum + c) * t) * (-z * z / 2.0).exp()
    };
    let (mut low, mut high) = (0.0, 8.0);
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if above(middle) > tail { low = middle } else { high = middle }
    }
    low
}

/// An image's place between the textures of its pair: normal about 0.15 or 0.85, spread so that the share
/// `ambiguity` lies beyond the middle.
fn texture_scale(stream: &mut Stream, end: usize, ambiguity: f64) -> f64 {
    let distance = 0.35;
    let spread = distance / normal_quantile(ambiguity);
    let deviation = spread * stream.normal();
    let scale = 0.5 + if end == 0 { -distance + deviation } else { distance + deviation };
    scale.clamp(0.0, 1.0)
}

/// Paints an image of `class` into `image`: SIDE rows of interleaved RGB.
pub(super) fn paint(stream: &mut Stream, class: Class, difficulty: &Difficulty, image: &mut [u8]) {
    let d = difficulty;
    let middle = SIDE as f64 / 2.0;

    // The figure.
    let shift = 2.5 * d.pose;
    let centre = (middle + stream.range(-shift, shift), middle + stream.range(-shift, shift));
    let radius = 10.5 * (0.16 * d.pose * stream.range(-1.0, 1.0)).exp();
    let angle = 0.35 * d.pose * stream.range(-1.0, 1.0);
    let stretch = (0.14 * d.pose * stream.range(-1.0, 1.0)).exp();
    let pose = Pose::new(centre, radius, angle, stretch);
    let blob = (0.2 * d.deformation * stream.unit()).min(0.9);
    let scale = texture_scale(stream, class.end, d.ambiguity);
    let period = stream.range(5.2, 7.0);
    let grain = Pose::new(
        (centre.0 + stream.range(-3.0, 3.0), centre.1 + stream.range(-3.0, 3.0)),
        period / TAU,
        stream.range(-0.5, 0.5),
        1.0,
    );
    // Shapes have typical colours that overlap; both textures of a shape share theirs.
    let typical = class.shape as usize as f64 / Shape::ALL.len() as f64;
    let hue = typical + 0.05 * d.colour * stream.normal();
    let light = hsv(hue, stream.range(0.35, 0.9), stream.range(0.7, 1.0));
    let dark = mix(light, hsv(hue + stream.range(-0.06, 0.06), 0.7, 0.15), stream.range(0.6, 0.9));

    // The ground.
    let ground = hsv(stream.unit(), stream.range(0.0, 0.55), stream.range(0.2, 0.9));
    let waves: [Wave; 3] =
        std::array::from_fn(|_| Wave::draw(stream, (0.1, 0.1 + 0.7 * d.clutter), 0.06 * d.clutter));
    let tint = hsv(stream.unit(), 0.6, 0.8);
    let distractors: Vec<(Shape, Pose, Colour)> = (0..stream.below(1 + (2.0 * d.clutter).round() as u64))
        .map(|_| {
            let shape = Shape::ALL[stream.below(Shape::ALL.len() as u64) as usize];
            let place = (stream.range(0.0, SIDE as f64), stream.range(0.0, SIDE as f64));
            let pose = Pose::new(place, stream.range(2.0, 4.5), stream.range(0.0, TAU), 1.0);
            (shape, pose, hsv(stream.unit(), stream.range(0.2, 0.8), stream.range(0.2, 0.9)))
        })
        .collect();

    // What comes before the camera: a bar, the light, the noise.
    let bar = (stream.unit() < 0.2 * d.occlusion).then(|| {
        let offset = stream.range(-8.0, 8.0);
        let pose = Pose::new((centre.0 + offset, centre.1 + offset), 1.0, stream.range(0.0, PI), 1.0);
        (pose, stream.range(1.2, 1.2 + 1.8 * d.occlusion), hsv(stream.unit(), 0.4, stream.range(0.1, 0.9)))
    });
    let slope = Wave::draw(stream, (0.05, 0.1), 0.3 * d.colour);
    let exposure = (0.22 * d.colour * stream.range(-1.0, 1.0)).exp();
    let noise = d.noise * stream.range(0.01, 0.045);

    for (position, pixel) in image.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let (column, row) = (position % SIDE, position / SIDE);
        let (x, y) = (column as f64 + 0.5, row as f64 + 0.5);
        let unrest: f64 = waves.iter().map(|wave| wave.at(column, row)).sum();
        let mut colour = mix(ground, tint, 0.5 * unrest.abs()).map(|value| value + unrest);
        for (shape, pose, paint) in &distractors {
            let (u, v) = pose.locate(x, y);
            if u * u + v * v > REACH {
                continue;
            }
            colour = mix(colour, *paint, coverage(shape.distance(u, v), pose.radius));
        }
        let (u, v) = pose.locate(x, y);
        if u * u + v * v < REACH {
            let distance = (1.0 - blob) * class.shape.distance(u, v) + blob * Shape::Disc.distance(u, v);
            let inside = coverage(distance, radius);
            if inside > 0.0 {
                let (s, t) = grain.locate(x, y);
                let paint = mix(light, dark, texture(class.pair, scale, s, t));
                colour = mix(colour, paint, inside);
            }
        }
        if let Some((pose, half, paint)) = &bar {
            let (_, across) = pose.locate(x, y);
            colour = mix(colour, *paint, coverage(across.abs() - half, 1.0));
        }
        let brightness = exposure * (1.0 + slope.at(column, row));
        *pixel = colour.map(|value| {
            let seen = value * brightness + noise * sensor_noise(stream);
            (255.0 * seen + 0.5) as u8
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    #[test]
    fn hues_are_the_colour_circle() {
        let close = |a: Colour, b: Colour| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(close(hsv(0.0, 1.0, 1.0), [1.0, 0.0, 0.0]));
        assert!(close(hsv(1.0 / 6.0, 1.0, 1.0), [1.0, 1.0, 0.0]));
        assert!(close(hsv(-1.0 / 3.0, 1.0, 0.5), [0.0, 0.0, 0.5]));
        assert!(close(hsv(0.4, 0.0, 0.7), [0.7, 0.7, 0.7]));
    }

    #[test]
    fn waves_and_noise_are_what_they_say() {
        let mut stream = Stream::new(0, Purpose::Synthetic, 0, 0);
        let wave = Wave::draw(&mut stream, (0.3, 0.3), 2.0);
        let values: Vec<f64> = (0..PIXELS).map(|p| wave.at(p % SIDE, p / SIDE)).collect();
        let highest = values.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
        assert!((1.95..=2.0 + 1e-9).contains(&highest), "{highest}");
        let steepest = values.windows(2).step_by(2).fold(0.0, |a: f64, w| a.max((w[0] - w[1]).abs()));
        assert!(steepest <= 2.0 * 0.3, "{steepest}");
        let n = 100_000;
        let (mut sum, mut square) = (0.0, 0.0);
        for _ in 0..n {
            let value = sensor_noise(&mut stream);
            (sum, square) = (sum + value, square + value * value);
        }
        assert!((sum / n as f64).abs() < 0.016 && (square / n as f64 - 1.0).abs() < 0.02);
    }

    #[test]
    fn ambiguity_is_the_share_beyond_the_middle() {
        assert!((normal_quantile(0.025) - 1.959964).abs() < 1e-4);
        for ambiguity in [0.02, 0.09, 0.3] {
            let mut stream = Stream::new(0, Purpose::Synthetic, 0, 0);
            let n = 40_000;
            let wrong = (0..n).filter(|i| {
                let end = i % 2;
                (texture_scale(&mut stream, end, ambiguity) > 0.5) != (end == 1)
            });
            let share = wrong.count() as f64 / n as f64;
            let error = (ambiguity * (1.0 - ambiguity) / n as f64).sqrt();
            assert!((share - ambiguity).abs() < 5.0 * error, "{share} for {ambiguity}");
        }
    }
}
