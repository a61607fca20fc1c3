//! Who takes part in training, and what it is done on.

use std::sync::Arc;

use schedule::{Alone, Device};

use super::networks::Networks;
use crate::cluster::Cluster;
use crate::data::Dataset;
use crate::distill::Distiller;

/// The networks, the method that trains them, and what computes it.
#[derive(Clone, Copy)]
pub struct Team<'a> {
    /// This process among others, which all have the same networks, method, settings and images.
    pub cluster: &'a dyn Cluster,
    /// What computes in this process.
    pub device: &'a dyn Device,
    /// Student, teacher, optimizer.
    pub networks: &'a Networks,
    /// The loss.
    pub method: &'a dyn Distiller,
}

impl<'a> Team<'a> {
    /// In one process.
    pub fn alone(device: &'a dyn Device, networks: &'a Networks, method: &'a dyn Distiller) -> Team<'a> {
        Team { cluster: &Alone, device, networks, method }
    }
}

/// The images of a run.
#[derive(Clone, Debug)]
pub struct RunData {
    /// The images to learn from.
    pub train: Arc<Dataset>,
    /// The images that accuracy is measured on.
    pub test: Arc<Dataset>,
    /// Held-out training images that choose the best epoch; without any the test images do, as in the reference.
    pub held_out: Option<Arc<Dataset>>,
}

impl RunData {
    /// Without held-out images.
    pub fn of(train: impl Into<Arc<Dataset>>, test: impl Into<Arc<Dataset>>) -> RunData {
        RunData { train: train.into(), test: test.into(), held_out: None }
    }
}
