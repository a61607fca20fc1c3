//! A made-up classification task, so that everything can be tried without a download.
//!
//! Each image shows one figure on a cluttered ground. A class is a shape and a texture: class 0 is "striped
//! disc", class 1 "spotted disc", class 2 "striped square" and so on. What makes it hard is what makes
//! photographs hard: position, size, rotation, colour, light, occlusion, distractors and noise vary from
//! image to image, and the classes *overlap*: the two textures of a pair are the ends of a scale (stripes
//! that break up into spots), and each image's place on the scale is drawn from one of two normal
//! distributions that overlap by [`Difficulty::ambiguity`]. So no classifier is always right, not even on
//! the images it was trained on, and a good one knows which classes resemble each other; that is the
//! knowledge that distillation passes on.
//!
//! An image is a pure function of (seed, split, index).

mod class;
mod difficulty;
mod figure;
mod paint;

use super::inspect::Summary;
use super::{DataError, Dataset, Splits};
use crate::augment::Normalization;
use crate::random::{Purpose, Stream};
use class::Class;
use paint::{PIXELS, SIDE};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use class::MAX_CLASSES;
pub use difficulty::Difficulty;

/// What [`generate`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyntheticConfig {
    /// Number of classes, 2 to [`MAX_CLASSES`].
    pub classes: usize,
    /// Training images.
    pub train: usize,
    /// Test images.
    pub test: usize,
    /// Another seed gives another sample of the same classes.
    pub seed: u64,
    /// How hard it is.
    pub difficulty: Difficulty,
}

impl Default for SyntheticConfig {
    fn default() -> Self {
        Self { classes: 20, train: 4096, test: 1500, seed: 0, difficulty: Difficulty::default() }
    }
}

impl SyntheticConfig {
    /// The settings as a text, for checkpoints: [`Dataset::recipe`].
    fn recipe(&self) -> String {
        // A struct of numbers always has one.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The settings that a recipe holds.
    pub fn from_recipe(recipe: &str) -> Result<Self, DataError> {
        // Read as YAML, which JSON is, too: then numbers are exact to the last bit.
        serde_saphyr::from_str(recipe).map_err(|why| DataError::Setting(format!("synthetic task: {why}")))
    }
}

/// Makes the task: balanced classes in round-robin order, 32x32 RGB, normalised by the training images'
/// own mean and deviation. Uses all cores; the result does not depend on their number.
///
/// # Errors
/// [`DataError::Setting`] if a setting is out of its range.
pub fn generate(config: &SyntheticConfig) -> Result<Splits, DataError> {
    check(config)?;
    let split = |name: &str, number: u64, count: usize| {
        let mut images = vec![0; count * PIXELS * 3];
        images.par_chunks_exact_mut(PIXELS * 3).enumerate().for_each(|(index, image)| {
            let mut stream = Stream::new(config.seed, Purpose::Synthetic, number, index as u64);
            paint::paint(&mut stream, Class::new(index % config.classes), &config.difficulty, image);
        });
        let labels: Vec<u32> = (0..count).map(|index| (index % config.classes) as u32).collect();
        let classes: Vec<String> = (0..config.classes).map(|class| Class::new(class).name()).collect();
        (format!("synthetic {name}"), images, labels, classes)
    };
    let finish = |(name, images, labels, classes), normalization| {
        let set = Dataset::new(name, (SIDE, SIDE), images, labels, classes, normalization)?;
        Ok::<_, DataError>(set.drawn_from(config.recipe()))
    };
    let raw = Normalization::RAW;
    let train = split("train", 0, config.train);
    let summary = Summary::new(&finish(train.clone(), raw)?);
    let normalization =
        Normalization { mean: summary.mean.map(|mean| mean as f32), std: summary.std.map(|std| std as f32) };
    Ok(Splits {
        train: finish(train, normalization)?,
        test: finish(split("test", 1, config.test), normalization)?,
    })
}

fn check(config: &SyntheticConfig) -> Result<(), DataError> {
    let fail = |message: String| Err(DataError::Setting(format!("synthetic task: {message}")));
    let SyntheticConfig { classes, train, test, difficulty, .. } = *config;
    if !(2..=MAX_CLASSES).contains(&classes) {
        return fail(format!("{classes} classes; choose 2 to {MAX_CLASSES}"));
    }
    if train < classes || test < classes {
        return fail(format!("{train} training and {test} test images; each of {classes} classes needs one"));
    }
    let Difficulty { ambiguity, pose, deformation, clutter, occlusion, colour, noise } = difficulty;
    if !(ambiguity > 0.0 && ambiguity < 0.5) {
        return fail(format!("ambiguity {ambiguity}; it must lie between 0 and 0.5, both excluded"));
    }
    for (name, factor) in [
        ("pose", pose),
        ("deformation", deformation),
        ("clutter", clutter),
        ("occlusion", occlusion),
        ("colour", colour),
        ("noise", noise),
    ] {
        if !(0.0..=2.0).contains(&factor) {
            return fail(format!("{name} {factor}; choose 0 to 2"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> SyntheticConfig {
        SyntheticConfig { train: 60, test: 40, ..SyntheticConfig::default() }
    }

    #[test]
    fn the_task_is_a_function_of_its_settings() {
        let first = generate(&small()).unwrap();
        assert_eq!(first, generate(&small()).unwrap());
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(first, alone.install(|| generate(&small()).unwrap()), "one thread");
        let other = generate(&SyntheticConfig { seed: 1, ..small() }).unwrap();
        assert_ne!(first.train.images(), other.train.images());
        assert_ne!(first.train.image(0), first.test.image(0), "test images are new");
        let more = generate(&SyntheticConfig { train: 80, ..small() }).unwrap();
        assert_eq!(more.train.images()[..first.train.images().len()], *first.train.images());
    }

    #[test]
    fn a_set_can_be_drawn_again_from_its_recipe() {
        let config = SyntheticConfig {
            seed: u64::MAX,
            difficulty: Difficulty { noise: 0.1 + 0.2, ..Difficulty::default() },
            ..small()
        };
        let drawn = generate(&config).unwrap();
        let recipe = drawn.train.subset("a part", &[3]).recipe().unwrap().to_owned();
        assert_eq!(SyntheticConfig::from_recipe(&recipe).unwrap(), config);
        assert_eq!(generate(&SyntheticConfig::from_recipe(&recipe).unwrap()).unwrap(), drawn);
        assert!(SyntheticConfig::from_recipe("{}").is_err());
    }

    #[test]
    fn classes_are_balanced_and_named_once() {
        let splits =
            generate(&SyntheticConfig { classes: MAX_CLASSES, train: 80, test: 40, ..small() }).unwrap();
        let summary = Summary::new(&splits.train);
        assert!(summary.classes.iter().all(|class| class.1 == 2));
        assert_eq!(summary.duplicates, 0);
        let names: std::collections::HashSet<_> = splits.train.classes().iter().collect();
        assert_eq!(names.len(), MAX_CLASSES);
        for channel in 0..3 {
            assert!(
                (f64::from(splits.train.normalization().mean[channel]) - summary.mean[channel]).abs() < 1e-6
            );
            assert!((0.15..0.85).contains(&summary.mean[channel]) && summary.std[channel] > 0.1);
        }
    }

    #[test]
    fn bad_settings_are_errors() {
        let message = |config| generate(&config).unwrap_err().to_string();
        assert!(message(SyntheticConfig { classes: 1, ..small() }).contains("1 classes; choose 2 to"));
        assert!(message(SyntheticConfig { train: 3, ..small() }).contains("3 training"));
        let hard = |difficulty| message(SyntheticConfig { difficulty, ..small() });
        assert!(hard(Difficulty { ambiguity: 0.5, ..Difficulty::default() }).contains("ambiguity 0.5"));
        assert!(hard(Difficulty { noise: f64::NAN, ..Difficulty::default() }).contains("noise NaN"));
        assert!(hard(Difficulty { pose: -1.0, ..Difficulty::default() }).contains("pose -1"));
    }
}
