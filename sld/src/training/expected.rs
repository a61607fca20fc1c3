//! What a training will take, reckoned before it begins.

use nn::Model;

use super::evaluate::Evaluator;
use super::settings::Settings;
use super::snapshot::Progress;
use super::team::{RunData, Team};
use crate::data::loader::part;

/// What the rest of a training will take, in seconds, before its first step. 0 where it is not known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// An evaluation, by a few of its batches.
    pub evaluation: f64,
    /// All steps and evaluations. A step is reckoned by its multiply-adds at the rate of the evaluation: the teacher's
    /// forward pass, and the student's three times, as a backward pass is worth two.
    pub all: f64,
}

impl Expected {
    /// By this process's first test images. What cannot be measured takes no time: why not will be told when it is
    /// needed.
    pub fn of(
        team: Team,
        settings: &Settings,
        data: &RunData,
        progress: &Progress,
        evaluator: &mut Evaluator,
    ) -> Expected {
        let Team { networks, method, cluster, .. } = team;
        let (mut evaluation, mut measured) = (0.0, 0);
        for images in [Some(&data.test), data.held_out.as_ref()].into_iter().flatten() {
            let own = part(images.len(), cluster.size(), cluster.rank());
            measured += own.len();
            evaluation += evaluator.estimate(images, own, settings.workers).unwrap_or(0.0);
        }
        let train = &data.train;
        let macs = |model: &Model| model.macs(train.height(), train.width()).unwrap_or(0) as f64;
        let teacher = networks.teacher.as_ref().filter(|_| method.needs_teacher()).map_or(0.0, macs);
        let student = macs(&networks.student);
        let step_of_image = method.views() as f64 * (3.0 + teacher / student.max(1.0));
        let epochs = (settings.epochs + 1 - progress.epoch) as f64;
        let images = (epochs * train.len() as f64 - progress.images as f64) / cluster.size() as f64;
        let steps = images * step_of_image * evaluation / measured.max(1) as f64;
        Expected { evaluation, all: steps + epochs * evaluation }
    }
}
