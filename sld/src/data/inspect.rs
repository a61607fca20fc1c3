//! What a data set holds, in numbers.

use super::Dataset;
use super::levels::Levels;
use std::fmt;

/// Counts and statistics of a [`Dataset`].
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The data set's name.
    pub name: String,
    /// Number of images.
    pub images: usize,
    /// Width and height in pixels.
    pub size: (usize, usize),
    /// Each class's name and number of images.
    pub classes: Vec<(String, usize)>,
    /// Mean of each channel (RGB), of values in [0, 1].
    pub mean: [f64; 3],
    /// Standard deviation of each channel over all pixels.
    pub std: [f64; 3],
    /// Images that are byte for byte a copy of an earlier one.
    pub duplicates: usize,
}

impl Summary {
    /// Counts through `dataset` once.
    pub fn new(dataset: &Dataset) -> Self {
        let mut counts = vec![0; dataset.classes().len()];
        dataset.labels().iter().for_each(|&label| counts[label as usize] += 1);
        let mut levels = Levels::default();
        levels.add(dataset.images());
        let [mean, std] = levels.moments();
        let mut seen = std::collections::HashSet::with_capacity(dataset.len());
        let duplicates = (0..dataset.len()).filter(|&index| !seen.insert(dataset.image(index))).count();
        Self {
            name: dataset.name().to_owned(),
            images: dataset.len(),
            size: (dataset.width(), dataset.height()),
            classes: dataset.classes().iter().cloned().zip(counts).collect(),
            mean,
            std,
            duplicates,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, height) = self.size;
        writeln!(f, "{}: {} images of {width}x{height} RGB", self.name, self.images)?;
        let [r, g, b] = self.mean;
        writeln!(f, "  mean        {r:.4} {g:.4} {b:.4}")?;
        let [r, g, b] = self.std;
        writeln!(f, "  deviation   {r:.4} {g:.4} {b:.4}")?;
        if self.duplicates > 0 {
            writeln!(f, "  duplicates  {}", self.duplicates)?;
        }
        let count = |(_, count): &(String, usize)| *count;
        let fewest = self.classes.iter().map(count).min().unwrap_or(0);
        let most = self.classes.iter().map(count).max().unwrap_or(0);
        if fewest == most {
            write!(f, "  classes     {}, {most} images each", self.classes.len())?;
        } else {
            write!(f, "  classes     {}, {fewest} to {most} images each:", self.classes.len())?;
            for (name, count) in &self.classes {
                write!(f, "\n    {count:>6}  {name}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::Normalization;

    #[test]
    fn counts_and_moments() {
        let images = vec![0, 51, 255, 255, 51, 255, 0, 51, 255];
        let classes = ["a", "b"].map(String::from).to_vec();
        let data = Dataset::new("tiny", (1, 1), images, vec![1, 1, 0], classes, Normalization::CIFAR10);
        let summary = Summary::new(&data.unwrap());
        assert_eq!(summary.classes, [("a".to_owned(), 1), ("b".to_owned(), 2)]);
        assert_eq!(summary.duplicates, 1);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-7;
        assert!(near(summary.mean[0], 1.0 / 3.0) && near(summary.mean[1], 0.2) && near(summary.mean[2], 1.0));
        assert!(near(summary.std[0], (2.0f64 / 9.0).sqrt()) && near(summary.std[1], 0.0));
        assert!(summary.to_string().contains("1 to 2 images each"));
    }

    #[test]
    fn a_summary_says_what_is_more_than_one_number() {
        let classes = |[a, b]: [usize; 2]| vec![("apple".into(), a), ("bear".into(), b)];
        let summary = Summary {
            name: "some".into(),
            images: 4,
            size: (3, 2),
            classes: classes([2, 2]),
            mean: [0.0, 0.25, 1.0],
            std: [0.5, 0.125, 0.0],
            duplicates: 0,
        };
        let head = "some: 4 images of 3x2 RGB\n  mean        0.0000 0.2500 1.0000\n  deviation   0.5000 0.1250 0.0000\n";
        assert_eq!(summary.to_string(), format!("{head}  classes     2, 2 images each"));
        let other = Summary { duplicates: 1, classes: classes([3, 1]), ..summary };
        let tail = "  classes     2, 1 to 3 images each:\n         3  apple\n         1  bear";
        assert_eq!(other.to_string(), format!("{head}  duplicates  1\n{tail}"));
    }
}
