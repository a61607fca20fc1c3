//! Who takes part in training, and what it is done on.

use std::sync::Arc;

use anyhow::ensure;
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

    /// Checks that the images fit one another, the networks and the method.
    ///
    /// # Errors
    /// What does not fit.
    pub fn fit(&self, team: Team) -> anyhow::Result<()> {
        let (Team { networks, method, .. }, train) = (team, &self.train);
        ensure!(!train.is_empty(), "there are no training images");
        for other in [Some(&self.test), self.held_out.as_ref()].into_iter().flatten() {
            let (shape, wanted) = (other.shape(), train.shape());
            let name = other.name();
            ensure!(shape == wanted, "the images of {name} are {shape:?}, those to train on {wanted:?}");
        }
        let [classes, channels] = [train.classes().len(), train.channels()];
        for model in [Some(&networks.student), networks.teacher.as_ref()].into_iter().flatten() {
            let (name, own) = (model.name(), [model.classes(), model.channels()]);
            ensure!(own[0] == classes, "{name} has {} classes, the data {classes}", own[0]);
            ensure!(
                own[1] == channels,
                "{name} takes images of {} channels, the data have {channels}",
                own[1]
            );
        }
        ensure!(
            networks.teacher.is_some() || !method.needs_teacher(),
            "{} needs a teacher; give its checkpoint with --teacher",
            method.name()
        );
        Ok(())
    }
}
