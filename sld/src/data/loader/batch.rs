//! Batches, their places in training, and their parts.

use std::ops::Range;

/// What is made of each training image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Views {
    /// The weak view: crop and flip.
    Weak,
    /// The weak and the strong view: crop, flip, RandAugment, Cutout.
    WeakAndStrong,
}

/// Which parts of every batch a [`Loader`](super::Loader) delivers, one after the other. What a batch holds does not
/// depend on how it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Into how many parts a batch is cut, see [`part`].
    pub of: usize,
    /// The first one to deliver, from 0.
    pub first: usize,
    /// How many to deliver of each batch.
    pub count: usize,
}

impl Parts {
    /// Every batch as a whole.
    pub const WHOLE: Parts = Parts { of: 1, first: 0, count: 1 };

    /// The numbers of the parts to deliver.
    pub fn mine(self) -> Range<usize> {
        self.first..self.first + self.count
    }
}

/// The places in a batch of `images` that its part `number` (from 0) of `parts` has. Sizes differ by one at
/// most, and parts are empty only from a number on.
pub fn part(images: usize, parts: usize, number: usize) -> Range<usize> {
    (images * number).div_ceil(parts)..(images * (number + 1)).div_ceil(parts)
}

/// A place in training: the batch to be delivered next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The epoch; any number is a valid first one.
    pub epoch: u64,
    /// Place in the epoch, from 0; at most the number of batches of an epoch, which means the next epoch's first.
    pub batch: usize,
}

/// Images ready for a network, with B = `labels.len()`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The epoch it belongs to (0 in evaluation).
    pub epoch: u64,
    /// Its place in the epoch, from 0.
    pub number: usize,
    /// Images of all of its parts together.
    pub whole: usize,
    /// How many of `indices` count: all, or none in a part that would be empty. Such a part is delivered with
    /// the batch's first image, for programs that need one.
    pub counted: usize,
    /// Which images of the data set.
    pub indices: Vec<u32>,
    /// Their classes.
    pub labels: Vec<u32>,
    /// Where images are mixed, the classes of what was mixed into each; else empty.
    pub others: Vec<u32>,
    /// The share that each then keeps of itself.
    pub share: f32,
    /// The images as a step takes them: normalised, [B, height, width, channels], all weak views (or the plain
    /// images in evaluation), then all strong ones if there are any.
    pub images: Vec<f32>,
}
