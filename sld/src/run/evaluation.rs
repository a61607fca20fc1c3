//! The evaluation at the end of a run: which classes are known, and what they are taken for.

use super::error::RunError;
use nn::checkpoint::write_atomically;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;

/// Counts of predictions by class: `evaluation.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The epoch whose weights were evaluated.
    pub epoch: u32,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// `confusion[label][prediction]`: number of test images.
    pub confusion: Vec<Vec<u32>>,
}

/// One class's share of the test images that were recognised.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassAccuracy<'a> {
    /// The class's name.
    pub class: &'a str,
    /// Test images of the class.
    pub images: u32,
    /// Percent; 0 for a class without images.
    pub accuracy: f64,
}

impl Evaluation {
    /// Counts no image yet.
    pub fn new(epoch: u32, classes: Vec<String>) -> Self {
        let n = classes.len();
        Self { epoch, classes, confusion: vec![vec![0; n]; n] }
    }

    /// Counts one image.
    ///
    /// # Panics
    /// If either is not a class: they come from the program's own argmax and checked labels.
    pub fn count(&mut self, label: usize, prediction: usize) {
        self.confusion[label][prediction] += 1;
    }

    /// Each class's accuracy, in the order of classes.
    pub fn per_class(&self) -> Vec<ClassAccuracy<'_>> {
        let rows = self.classes.iter().zip(&self.confusion).enumerate();
        rows.map(|(i, (class, row))| {
            let images: u32 = row.iter().sum();
            let accuracy = 100.0 * f64::from(row[i]) / f64::from(images.max(1));
            ClassAccuracy { class, images, accuracy }
        })
        .collect()
    }

    /// The mistakes made most often, as (label, prediction, images), most often first.
    pub fn confusions(&self, most: usize) -> Vec<(usize, usize, u32)> {
        let n = self.classes.len();
        let mut all: Vec<_> = (0..n)
            .flat_map(|label| (0..n).map(move |prediction| (label, prediction)))
            .filter(|(label, prediction)| label != prediction)
            .map(|(label, prediction)| (label, prediction, self.confusion[label][prediction]))
            .filter(|(_, _, images)| *images > 0)
            .collect();
        all.sort_by_key(|(label, prediction, images)| (std::cmp::Reverse(*images), *label, *prediction));
        all.truncate(most);
        all
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<(), RunError> {
        write_atomically(path, |file| {
            serde_json::to_writer(&mut *file, self)?;
            file.write_all(b"\n")
        })
        .map_err(RunError::write(path))
    }

    /// Reads the file and checks that it is square.
    pub fn read(path: &Path) -> Result<Self, RunError> {
        let bytes = std::fs::read(path).map_err(RunError::read(path))?;
        let read: Self = serde_json::from_slice(&bytes).map_err(|why| RunError::content(path, None, why))?;
        let n = read.classes.len();
        if read.confusion.len() != n || read.confusion.iter().any(|row| row.len() != n) {
            return Err(RunError::content(path, None, format!("the confusion table is not {n} by {n}")));
        }
        Ok(read)
    }
}
