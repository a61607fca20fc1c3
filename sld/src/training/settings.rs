//! What decides how a run trains, beside its networks and data.

use autograd::tensor::Transfer;
use nn::Schedule;

/// What a run needs beside networks and data.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Passes over the training images.
    pub epochs: usize,
    /// Epochs after which training ends if none of them was better than all before; 0: it does not.
    pub patience: usize,
    /// Images of a batch, in all processes together.
    pub batch_size: usize,
    /// Parts that a process computes its share of a batch in, one after the other, at least 1.
    pub accumulate: usize,
    /// How gradients travel between processes.
    pub transfer: Transfer,
    /// Whether batch norm's statistics are those of all processes.
    pub sync_batch_norm: bool,
    /// Images of a batch of the evaluation; no effect on the result.
    pub test_batch_size: usize,
    /// The learning rate of every step.
    pub schedule: Schedule,
    /// Seeds the order of the images and their augmentation.
    pub seed: u64,
    /// Threads that augment.
    pub workers: usize,
}

impl Default for Settings {
    /// A config's: the reference's for CIFAR, on one process.
    fn default() -> Settings {
        Settings {
            epochs: 240,
            patience: 0,
            batch_size: 64,
            accumulate: 1,
            transfer: Transfer::F32,
            sync_batch_norm: false,
            test_batch_size: 64,
            schedule: Schedule::multi_step(0.05, &[150, 180, 210], 0.1),
            seed: 0,
            workers: 2,
        }
    }
}
