//! What is measured in an epoch, and the file of a line an epoch.

use super::error::RunError;
use nn::checkpoint::write_atomically;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Everything measured in one epoch: a line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// From 1.
    pub epoch: u32,
    /// Learning rate.
    pub lr: f64,
    /// On the training images, while they were learned from.
    pub train: TrainMetrics,
    /// On the held-out training images, when there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Accuracy>,
    /// On the test images.
    pub test: Accuracy,
    /// Training images a second.
    pub images_per_second: f64,
    /// Duration of the whole epoch, evaluation included.
    pub seconds: f64,
    /// What the swap did, for the methods that swap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<SwapMetrics>,
}

impl EpochMetrics {
    /// What the best epoch is chosen by: held-out images if there are any, else the test images, as
    /// the reference.
    pub fn selection(&self) -> &Accuracy {
        self.validation.as_ref().unwrap_or(&self.test)
    }
}

/// Means over an epoch's training images, on the weak view in train mode.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TrainMetrics {
    /// The whole loss.
    #[serde(deserialize_with = "number_or_null")]
    pub loss: f64,
    /// Percent of images whose largest logit is the label.
    pub top1: f64,
    /// Percent of images whose label is among the five largest logits.
    pub top5: f64,
    /// The terms that the loss is the sum of, by name.
    #[serde(default)]
    pub terms: BTreeMap<String, f64>,
}

/// Means over a set of images in evaluation mode.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Accuracy {
    /// Percent of images whose largest logit is the label.
    pub top1: f64,
    /// Percent of images whose label is among the five largest logits.
    pub top5: f64,
    /// Mean cross entropy.
    #[serde(deserialize_with = "number_or_null")]
    pub loss: f64,
}

/// What the swap did in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct SwapMetrics {
    /// The swap of the teacher's logits.
    pub teacher: SwapSide,
    /// Measured in every epoch, also before the gate lets the student's swap into the loss.
    pub student: SwapSide,
    /// Whether the swapped student taught itself in this epoch.
    pub student_gate: bool,
    /// First loss level: KL from the swapped teacher to the student, summed over views and
    /// temperatures, before the weight.
    pub teacher_level: f64,
    /// Second loss level: KL from the swapped student to the student, alike; 0 before the gate.
    pub student_level: f64,
}

/// The swap of one network's logits: means over an epoch's images and views.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct SwapSide {
    /// Share of rows whose largest logit was not the label's, and were swapped; in [0, 1].
    pub share: f64,
    /// Mean probability (softmax at temperature 1) of the label before the swap.
    pub confidence_before: f64,
    /// The same after it.
    pub confidence_after: f64,
}

/// The best epoch of a run, and its accuracy on the test images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BestEpoch {
    /// From 1.
    pub epoch: u32,
    /// On the test images, whatever the epoch was chosen by.
    pub test: Accuracy,
}

/// The epoch with the highest top-1 of [`EpochMetrics::selection`]; of equals the last, as the
/// reference, which overwrites its best checkpoint on a tie.
pub fn best_epoch(metrics: &[EpochMetrics]) -> Option<BestEpoch> {
    let best = metrics.iter().max_by(|a, b| a.selection().top1.total_cmp(&b.selection().top1))?;
    Some(BestEpoch { epoch: best.epoch, test: best.test })
}

/// The first of the best epochs, if it is so long ago that a run of this patience (0: any length) ends.
pub fn exhausted(metrics: &[EpochMetrics], patience: u32) -> Option<u32> {
    let better = |best: &EpochMetrics, other: &EpochMetrics| other.selection().top1 > best.selection().top1;
    let best = metrics.iter().reduce(|best, other| if better(best, other) { other } else { best })?;
    (patience > 0 && metrics.last()?.epoch - best.epoch >= patience).then_some(best.epoch)
}

/// Where a run that goes on stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Finished epochs.
    pub epoch: u32,
    /// Steps done since the beginning.
    pub step: u64,
}

/// `metrics.jsonl`, open to be appended to.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Opens the file, keeping the epochs up to `last_epoch` and dropping what a killed run wrote
    /// after its last checkpoint. Gives the epochs kept.
    pub fn open(path: &Path, last_epoch: u32) -> Result<(Self, Vec<EpochMetrics>), RunError> {
        let mut kept = if path.exists() { read_metrics(path)? } else { Vec::new() };
        kept.retain(|metrics| metrics.epoch <= last_epoch);
        write_atomically(path, |file| kept.iter().try_for_each(|metrics| file.write_all(&line(metrics)?)))
            .map_err(RunError::write(path))?;
        let file = OpenOptions::new().append(true).open(path).map_err(RunError::write(path))?;
        Ok((Self { path: path.into(), file }, kept))
    }

    /// Appends an epoch and brings it to the disk.
    pub fn append(&mut self, metrics: &EpochMetrics) -> Result<(), RunError> {
        line(metrics)
            .and_then(|line| self.file.write_all(&line))
            .and_then(|()| self.file.sync_data())
            .map_err(RunError::write(&self.path))
    }
}

fn line(metrics: &EpochMetrics) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(metrics)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads `metrics.jsonl`. A last line without an end, from a run killed while writing it, is left out.
pub fn read_metrics(path: &Path) -> Result<Vec<EpochMetrics>, RunError> {
    let bytes = std::fs::read(path).map_err(RunError::read(path))?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines = bytes[..whole].split(|byte| *byte == b'\n').enumerate();
    lines
        .filter(|(_, line)| !line.is_empty())
        .map(|(i, line)| {
            serde_json::from_slice(line).map_err(|why| RunError::content(path, Some(i + 1), why))
        })
        .collect()
}

/// JSON has no NaN or infinity and writes them as null: a diverged run must stay readable.
fn number_or_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}
