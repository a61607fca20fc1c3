//! One training step as a value: both networks, the loss, its gradient, the update.

use autograd::{Result, Tensor, grad, scope};
use nn::layers::Forward;
use nn::models::Model;
use nn::optimizer::Sgd;
use schedule::{Device, Executable, Step, Value};

use crate::distill::{Distiller, Logits, Observation};

/// What a step trains, and from whom.
pub struct Networks {
    pub student: Model,
    /// Always in evaluation mode; its state never changes.
    pub teacher: Option<Model>,
    pub sgd: Sgd,
    /// Whether wide residual networks update three batch norms twice a forward, as the reference's do.
    pub repeat_wrn_updates: bool,
}

/// The compiled step for one batch size. Steps of several sizes share all state on the device.
pub struct TrainStep {
    executable: Box<dyn Executable>,
    /// What the output `metrics` holds.
    metrics: Vec<Metric>,
    batch: usize,
    has_factor: bool,
}

/// A number measured of each batch: a mean over its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// What is minimised.
    Loss,
    /// Share of the batch whose label is the largest logit of the weak view, as trained.
    Top1,
    /// The same for the five largest.
    Top5,
    /// A weighted part of the loss, by its name.
    Term(&'static str),
    /// What the method observes beside the loss.
    Observed(Observation),
}

impl Metric {
    /// In words, for messages.
    pub fn name(&self) -> String {
        match self {
            Metric::Loss => "the loss".into(),
            Metric::Top1 => "top-1".into(),
            Metric::Top5 => "top-5".into(),
            Metric::Term(name) => format!("the loss's term {name}"),
            Metric::Observed(what) => format!("{what:?}"),
        }
    }
}

/// The step's expressions for a batch of `batch` images of `height x width`.
///
/// Inputs: `images` `[views * batch, height, width, 3]` (all weak views, then all strong ones),
/// `labels` `[batch]`, `rate` `[]` and, for methods that change with the epoch, `factor` `[]`. Output:
/// `metrics`, the numbers that are returned beside the step.
pub fn expressions(
    networks: &Networks,
    distiller: &dyn Distiller,
    batch: usize,
    [height, width]: [usize; 2],
) -> (Step, Vec<Metric>) {
    let views = distiller.views();
    let images = Tensor::input("images", &[views * batch, height, width, 3]);
    let labels = Tensor::input_i32("labels", &[batch]);
    let rate = Tensor::input("rate", &[]);
    let factor = match distiller.factor(1) {
        Some(_) => Tensor::input("factor", &[]),
        None => Tensor::scalar(1.0),
    };

    let mut forward = Forward::train(views);
    if !networks.repeat_wrn_updates {
        forward = forward.without_repeated_updates();
    }
    let student = {
        let _part = scope::part("student");
        networks.student.forward(&images, &mut forward).logits
    };
    let teacher = networks.teacher.as_ref().filter(|_| distiller.needs_teacher());
    let teacher = teacher.map(|model| {
        let _part = scope::part("teacher");
        model.forward(&images, &mut Forward::eval()).logits.detach()
    });
    // The optimizer and batch norm say themselves what is an update, and the gradient what is backward.
    let _part = scope::part("loss");
    let logits = Logits { student, teacher, labels: labels.clone(), factor };
    let loss = distiller.loss(&logits);
    let gradients = grad(&loss.total, &networks.sgd.tensors());

    let weak = logits.weak(&logits.student);
    let top = |k: usize| weak.top_k_correct(&labels, k.min(weak.dim(1))).mean_all();
    let common = [(Metric::Loss, loss.total), (Metric::Top1, top(1)), (Metric::Top5, top(5))];
    let terms = loss.terms.into_iter().map(|(name, value)| (Metric::Term(name), value));
    let observed = loss.observations.into_iter().map(|(what, value)| (Metric::Observed(what), value));
    let (metrics, values): (Vec<Metric>, Vec<Tensor>) =
        common.into_iter().chain(terms).chain(observed).map(|(m, value)| (m, value.reshape(&[1]))).unzip();
    let values = Tensor::concatenate(&values.iter().collect::<Vec<_>>(), 0);

    let step = Step::new()
        .output("metrics", &values)
        .updates(networks.sgd.updates(&gradients, &rate))
        .updates(forward.into_updates());
    (step, metrics)
}

impl TrainStep {
    /// Compiles [`expressions`].
    pub fn compile(
        device: &dyn Device,
        networks: &Networks,
        distiller: &dyn Distiller,
        batch: usize,
        image: [usize; 2],
    ) -> Result<TrainStep> {
        let (step, metrics) = expressions(networks, distiller, batch, image);
        let executable = device.compile_step(&step)?;
        Ok(TrainStep { executable, metrics, batch, has_factor: distiller.factor(1).is_some() })
    }

    /// Trains on one batch and returns the value of each metric: its mean over the batch.
    pub fn run(
        &mut self,
        images: &[f32],
        labels: &[i32],
        rate: f32,
        factor: Option<f32>,
    ) -> Result<Vec<f32>> {
        let (rate, factor) = ([rate], [factor.unwrap_or(1.0)]);
        let mut inputs =
            vec![("images", Value::F32(images)), ("labels", Value::I32(labels)), ("rate", Value::F32(&rate))];
        if self.has_factor {
            inputs.push(("factor", Value::F32(&factor)));
        }
        self.executable.call(&inputs)?;
        self.executable.output("metrics")
    }

    /// What [`TrainStep::run`] returns, in this order.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }
    /// Images in a batch.
    pub fn batch(&self) -> usize {
        self.batch
    }
    /// The compiled program, for its schedule, memory and profile.
    pub fn executable(&mut self) -> &mut dyn Executable {
        &mut *self.executable
    }
}
