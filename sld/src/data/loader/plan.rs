//! Which images a batch has, and what is made of them.

use super::batch::{Parts, Position, Views};
use crate::augment::normalize::NormalizationTable;
use crate::augment::{Mixing, Mixture};
use crate::data::Dataset;
use crate::random::{Purpose, Stream};
use std::ops::Range;
use std::sync::Arc;

/// How a worker chooses and paints images.
pub enum Job {
    Train {
        views: Views,
        mixing: Option<Mixing>,
        seed: u64,
    },
    /// The images at these places.
    Evaluate(Range<usize>),
}

/// What a loader makes, batch by batch.
pub struct Plan {
    pub dataset: Arc<Dataset>,
    pub table: NormalizationTable,
    pub batch_size: usize,
    pub parts: Parts,
    pub job: Job,
    pub start: Position,
    /// Parts of batches in all; endless in training.
    pub total: Option<u64>,
    pub prefetch: u64,
}

impl Plan {
    pub fn batches_per_epoch(&self) -> usize {
        let images = match &self.job {
            Job::Train { .. } => self.dataset.len(),
            Job::Evaluate(range) => range.len(),
        };
        images.div_ceil(self.batch_size)
    }

    /// Where the batch of the part with the running number `job` belongs.
    pub fn position(&self, job: u64) -> Position {
        let per_epoch = self.batches_per_epoch() as u64;
        let batch = self.start.batch as u64 + job / self.parts.count as u64;
        Position { epoch: self.start.epoch + batch / per_epoch, batch: (batch % per_epoch) as usize }
    }

    pub fn order(&self, epoch: u64) -> Vec<u32> {
        match &self.job {
            Job::Train { seed, .. } => {
                let mut order: Vec<u32> = (0..self.dataset.len() as u32).collect();
                Stream::new(*seed, Purpose::Order, epoch, 0).shuffle(&mut order);
                order
            }
            Job::Evaluate(range) => range.clone().map(|index| index as u32).collect(),
        }
    }

    /// The number of the part with the running number `job` in its batch.
    pub fn part(&self, job: u64) -> usize {
        self.parts.first + (job % self.parts.count as u64) as usize
    }

    /// How the images of a batch are mixed.
    pub fn mixture(&self, at: Position) -> Option<Mixture> {
        let Job::Train { mixing: Some(mixing), seed, .. } = self.job else { return None };
        let size = (self.dataset.width(), self.dataset.height());
        Some(mixing.draw(seed, at.epoch, at.batch as u64, size))
    }

    pub fn views(&self) -> usize {
        match self.job {
            Job::Evaluate(_) | Job::Train { views: Views::Weak, .. } => 1,
            Job::Train { views: Views::WeakAndStrong, .. } => 2,
        }
    }
}
