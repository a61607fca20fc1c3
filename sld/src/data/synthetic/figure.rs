//! The shapes and textures of the figures, as functions of position.

/// The outlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Disc,
    Square,
    Triangle,
    Star,
    Cross,
    Ring,
    Crescent,
    Flower,
    Bar,
    Hourglass,
}

impl Shape {
    /// All shapes, in the order of the classes.
    pub(super) const ALL: [Shape; 10] = [
        Shape::Disc,
        Shape::Square,
        Shape::Triangle,
        Shape::Star,
        Shape::Cross,
        Shape::Ring,
        Shape::Crescent,
        Shape::Flower,
        Shape::Bar,
        Shape::Hourglass,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Shape::Disc => "disc",
            Shape::Square => "square",
            Shape::Triangle => "triangle",
            Shape::Star => "star",
            Shape::Cross => "cross",
            Shape::Ring => "ring",
            Shape::Crescent => "crescent",
            Shape::Flower => "flower",
            Shape::Bar => "bar",
            Shape::Hourglass => "hourglass",
        }
    }

    /// About the signed distance of (x, y) from the outline, negative inside; figures have radius about 1.
    pub(super) fn distance(self, x: f64, y: f64) -> f64 {
        let radius = x.hypot(y);
        match self {
            Shape::Disc => radius - 0.95,
            Shape::Square => x.abs().max(y.abs()) - 0.82,
            Shape::Triangle => {
                let (half, height) = (0.5, 0.75f64.sqrt());
                y.max(-half * y + height * x.abs()) - 0.58
            }
            Shape::Star => {
                // The outline runs straight between five tips and the five notches between them.
                let turn = (x.atan2(-y) / std::f64::consts::TAU * 5.0).rem_euclid(1.0);
                let to_notch = 1.0 - (2.0 * turn - 1.0).abs();
                0.75 * (radius - (1.2 - 0.72 * to_notch))
            }
            Shape::Cross => {
                let (x, y) = (x.abs(), y.abs());
                (x - 1.05).max(y - 0.36).min((x - 0.36).max(y - 1.05))
            }
            Shape::Ring => (radius - 0.72).abs() - 0.32,
            Shape::Crescent => (radius - 1.05).max(0.78 - (x - 0.5).hypot(y)),
            Shape::Flower => 0.8 * (radius - (0.82 + 0.25 * (5.0 * x.atan2(-y)).cos())),
            Shape::Bar => (x.abs() - 1.2).max(y.abs() - 0.46),
            Shape::Hourglass => (0.78 * (x.abs() - 0.16 - 0.85 * y.abs())).max(y.abs() - 0.95),
        }
    }
}

/// Textures, in pairs between which images lie on a scale.
pub(super) const TEXTURE_PAIRS: [[&str; 2]; 2] = [["striped", "spotted"], ["checkered", "ringed"]];

/// Half a wave, sharpened: 0 in the valleys and 1 on the crests.
fn crest(phase: f64) -> f64 {
    (0.5 + 1.6 * phase.sin()).clamp(0.0, 1.0)
}

/// Share of the second colour at the texture position (x, y), whose unit is a radian of the pattern; `scale`
/// runs from 0 (the first texture of the pair) to 1 (the second).
pub(super) fn texture(pair: usize, scale: f64, x: f64, y: f64) -> f64 {
    match pair {
        // Stripes with gaps that deepen until spots remain.
        0 => crest(x) * (1.0 - scale * (1.0 - crest(y))),
        // A chequerboard that fades into rings.
        _ => {
            (1.0 - scale) * (0.5 + 2.0 * x.sin() * y.sin()).clamp(0.0, 1.0) + scale * crest(1.2 * x.hypot(y))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_fill_a_fair_part_of_their_square_and_differ() {
        let grid =
            || (0..80).flat_map(|y| (0..80).map(move |x| (x as f64 / 30.0 - 1.32, y as f64 / 30.0 - 1.32)));
        let masks: Vec<Vec<bool>> = Shape::ALL
            .iter()
            .map(|shape| grid().map(|(x, y)| shape.distance(x, y) < 0.0).collect())
            .collect();
        for (i, a) in masks.iter().enumerate() {
            let area = a.iter().filter(|&&inside| inside).count() as f64 / 900.0;
            assert!((1.2..3.2).contains(&area), "{:?} has area {area}", Shape::ALL[i]);
            for (j, b) in masks.iter().enumerate().skip(i + 1) {
                let different = a.iter().zip(b).filter(|(a, b)| a != b).count() as f64 / 900.0;
                assert!(
                    different > 0.15,
                    "{:?} and {:?} differ by {different}",
                    Shape::ALL[i],
                    Shape::ALL[j]
                );
            }
        }
    }

    #[test]
    fn textures_are_shares_and_their_ends_differ() {
        for pair in 0..TEXTURE_PAIRS.len() {
            let mut difference = 0.0;
            for i in 0..2500 {
                let (x, y) = ((i % 50) as f64 * 0.37, (i / 50) as f64 * 0.41);
                let [a, b] = [texture(pair, 0.0, x, y), texture(pair, 1.0, x, y)];
                assert!((0.0..=1.0).contains(&a) && (0.0..=1.0).contains(&b));
                difference += (a - b).abs() / 2500.0;
            }
            assert!(difference > 0.2, "{difference}");
        }
    }
}
