//! One network that learns: its step, its batches, its test.

use std::sync::Arc;

use anyhow::Result;
use nn::Schedule;
use nn::models::Model;
use schedule::{Device, Executable};
use sld::data::Dataset;
use sld::data::loader::{Loader, LoaderConfig, Parts, Position, Views};
use sld::distill::Distiller;
use sld::training::{Evaluation, Evaluator, Metric, Networks, Scalars, Setup, TrainStep};

/// How a network is trained, apart from the method.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Images of a batch: at most as many as there are. The rest of an epoch that fills no batch is left out.
    pub batch: usize,
    /// Passes over the training images.
    pub epochs: usize,
    /// Learning rate by epoch.
    pub rate: Schedule,
    /// Seed of the order of images and of their augmentation.
    pub seed: u64,
}

/// What a step measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Epoch of the step, from 1.
    pub epoch: usize,
    /// Steps so far, this one included.
    pub steps: usize,
    /// Each metric's mean over the batch.
    pub metrics: Vec<(Metric, f32)>,
}

impl Progress {
    /// The value of a metric that was measured.
    pub fn get(&self, wanted: Metric) -> Option<f32> {
        self.metrics.iter().find(|(metric, _)| *metric == wanted).map(|(_, value)| *value)
    }
}

/// A network in training on a device.
pub struct Learner {
    networks: Networks,
    method: Box<dyn Distiller>,
    plan: Plan,
    train: Arc<Dataset>,
    step: TrainStep,
    evaluator: Option<Evaluator>,
    loader: Loader,
    steps: usize,
}

impl Learner {
    /// Compiles the step of `student`, which learns from `teacher` if the method has one.
    pub fn new(
        device: &dyn Device,
        student: Model,
        teacher: Option<&Model>,
        method: Box<dyn Distiller>,
        train: &Arc<Dataset>,
        plan: Plan,
    ) -> Result<Learner> {
        let plan = Plan { batch: plan.batch.clamp(1, train.len().max(1)), ..plan };
        let setup = Setup { size: size(train), images: train.len(), seed: plan.seed, ..Setup::default() };
        let networks = Networks::new(student, teacher.cloned(), &*method, setup)?;
        let step = TrainStep::compile(device, &networks, &*method, plan.batch, size(train))?;
        let views = if method.views() == 2 { Views::WeakAndStrong } else { Views::Weak };
        // A page has no threads: batches are made when they are asked for.
        let config = LoaderConfig {
            batch_size: plan.batch,
            views,
            mixing: None,
            seed: plan.seed,
            threads: 0,
            prefetch: 1,
            parts: Parts::WHOLE,
        };
        let loader = Loader::train(Arc::clone(train), config, Position { epoch: 1, batch: 0 })?;
        let train = Arc::clone(train);
        Ok(Learner { networks, method, plan, train, step, evaluator: None, loader, steps: 0 })
    }

    /// The network that learns.
    pub fn model(&self) -> &Model {
        &self.networks.student
    }
    /// What it learns by.
    pub fn method(&self) -> &dyn Distiller {
        &*self.method
    }
    /// Steps of an epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.train.len() / self.plan.batch
    }
    /// Steps of all epochs.
    pub fn steps_in_all(&self) -> usize {
        self.steps_per_epoch() * self.plan.epochs
    }
    /// Steps so far.
    pub fn steps(&self) -> usize {
        self.steps
    }
    /// Whether all steps have been made.
    pub fn is_done(&self) -> bool {
        self.steps >= self.steps_in_all()
    }
    /// The compiled step.
    pub fn executable(&mut self) -> &mut dyn Executable {
        self.step.executable()
    }

    /// Goes on with this rate.
    pub fn set_rate(&mut self, base: f64) {
        self.plan.rate.base = base;
    }

    /// Goes on with other constants of the method. `compile` says whether they are part of the step: then it is
    /// compiled again.
    pub fn set_method(
        &mut self,
        device: &dyn Device,
        method: Box<dyn Distiller>,
        compile: bool,
    ) -> Result<()> {
        if compile {
            let size = size(&self.train);
            self.step = TrainStep::compile(device, &self.networks, &*method, self.plan.batch, size)?;
        }
        self.method = method;
        Ok(())
    }

    /// Trains on the next batch.
    pub async fn advance(&mut self) -> Result<Progress> {
        let batch = loop {
            let batch = self.loader.next().expect("training batches never end")?;
            if batch.labels.len() == self.plan.batch {
                break batch;
            }
            self.loader.recycle(batch);
        };
        let epoch = batch.epoch as usize;
        let labels: Vec<i32> = batch.labels.iter().map(|&label| label as i32).collect();
        let rate = self.plan.rate.rate(epoch, 0, 1) as f32;
        let factor = self.method.factor(epoch).map(|factor| factor as f32);
        let values = self.step.run_async(&batch.images, &labels, Scalars::new(rate, factor), &[])?;
        self.loader.recycle(batch);
        let values = values.await?;
        self.steps += 1;
        let metrics = self.step.metrics().iter().copied().zip(values).collect();
        Ok(Progress { epoch, steps: self.steps, metrics })
    }

    /// Measures the network on images; `each` sees every batch's logits `[B, classes]` and labels.
    pub async fn test(
        &mut self,
        device: &dyn Device,
        images: &Arc<Dataset>,
        each: impl FnMut(&[f32], &[u32]),
    ) -> Result<Evaluation> {
        let evaluator = match &mut self.evaluator {
            Some(evaluator) => evaluator,
            None => {
                let batch = images.len().clamp(1, 64);
                let made = Evaluator::compile(device, &self.networks.student, batch, size(images))?;
                self.evaluator.insert(made)
            }
        };
        evaluator.run_async(images, 0, each).await
    }
}

fn size(images: &Dataset) -> [usize; 2] {
    [images.height(), images.width()]
}
