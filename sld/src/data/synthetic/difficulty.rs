//! How hard the task is.

use serde::{Deserialize, Serialize};

/// How much the images of a class vary. Every member is a factor of the default variation except
/// [`ambiguity`](Self::ambiguity), which is a probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difficulty {
    /// Share of images whose texture lies nearer to the other class of the pair: the error that even the
    /// best classifier makes. In (0, 0.5).
    pub ambiguity: f64,
    /// Shift, scale and rotation.
    pub pose: f64,
    /// How far figures deviate from their shape towards a blob.
    pub deformation: f64,
    /// Structure of the ground and number of distractors.
    pub clutter: f64,
    /// Probability and width of a bar across the figure.
    pub occlusion: f64,
    /// Spread of a class's colours, and strength of the lighting.
    pub colour: f64,
    /// Standard deviation of the pixel noise.
    pub noise: f64,
}

impl Default for Difficulty {
    fn default() -> Self {
        Self {
            ambiguity: 0.09,
            pose: 1.0,
            deformation: 1.0,
            clutter: 1.0,
            occlusion: 1.0,
            colour: 1.0,
            noise: 1.0,
        }
    }
}
