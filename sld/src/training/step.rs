//! One training step as a value: both networks, the loss, its gradient, the update.
//!
//! A batch that is computed in parts, one after the other, has two programs: each part adds its gradients to
//! sums on the device, then the update reads these. The loss of a part is weighted with its share of the
//! batch's images, so that the sums are the gradients of the batch's mean loss.

use autograd::tensor::Transfer;
use autograd::{Result, Tensor, Variable, scope};
use nn::buckets;
use nn::optimizer::GradientSums;
use schedule::{Alone, Communicator, Device, Executable, Pending, Step, Value, pending};

use super::networks::Networks;
use crate::data::loader::part;
use crate::distill::{Distiller, Observation, Own};

/// A compiled program for so many images: a step, or a part of one. Programs of several sizes share all state
/// on the device.
pub struct TrainStep {
    executable: Box<dyn Executable>,
    /// What the output `metrics` holds.
    metrics: Vec<Metric>,
    size: (usize, Option<usize>),
    scalars: Vec<&'static str>,
}

/// The numbers that a program is given beside images and labels. It reads those that it has inputs for.
#[derive(Clone, Copy, Debug)]
pub struct Scalars {
    /// The learning rate.
    pub rate: f32,
    /// [`Distiller::factor`], for methods that change with the epoch.
    pub factor: f32,
    /// The share of these images in the whole batch.
    pub weight: f32,
    /// Their share in what processes compute at the same time: batch norm's statistics, memories.
    pub share: f32,
}

impl Scalars {
    /// Those of a whole batch.
    pub fn new(rate: f32, factor: Option<f32>) -> Scalars {
        Scalars { rate, factor: factor.unwrap_or(1.0), weight: 1.0, share: 1.0 }
    }

    fn get(&self, name: &str) -> [f32; 1] {
        match name {
            "rate" => [self.rate],
            "factor" => [self.factor],
            "share" => [self.share],
            _ => [self.weight],
        }
    }
}

/// A number measured of each batch: a mean over its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// What is minimised.
    Loss,
    /// Share of the batch whose label is the largest logit of the weak view, as trained; of mixed images the share of
    /// that label.
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
/// `labels` `[batch]`, `rate` `[]`, for methods that change with the epoch `factor` `[]`, for mixed images `others`
/// `[batch]` (labels) and `own_share` `[]`, and the method's own. Output: `metrics`, the numbers that are returned beside
/// the step.
pub fn expressions(
    networks: &Networks,
    distiller: &dyn Distiller,
    batch: usize,
    image: [usize; 2],
) -> (Step, Vec<Metric>) {
    program(networks, distiller, batch, image, Division::default())
}

/// How a step's program is one of several, which compute parts of a batch one after the other or in processes
/// side by side. By default it is the only one.
#[derive(Clone, Copy, Default)]
pub struct Division<'a> {
    /// What a part's gradients are added to; the update is a program of its own then.
    pub sums: Option<&'a GradientSums>,
    /// How gradients travel between processes, if there are several.
    pub transfer: Option<Transfer>,
    /// Images that batch norm's statistics are of, in all processes, if they are to share them.
    pub synchronized: Option<usize>,
}

/// The expressions of a program for `batch` images: as [`expressions`], or as a division asks. Further inputs are
/// then `weight` `[]`, the share of these images in the whole batch, which the loss is multiplied with, and
/// `share` `[]`, their share in what processes compute at the same time (batch norm's statistics, memories). A part of a
/// batch takes no `rate`.
pub fn program(
    networks: &Networks,
    distiller: &dyn Distiller,
    batch: usize,
    image: [usize; 2],
    division: Division,
) -> (Step, Vec<Metric>) {
    let pass = Pass::new(networks, distiller, batch, image, division);
    let updates = match (division.sums, division.transfer) {
        (Some(sums), _) => [sums.add(&pass.gradients), pass.statistics].concat(),
        (None, transfer) => {
            let updates = update(networks, &pass.gradients, transfer);
            networks.and_average([updates, pass.statistics].concat())
        }
    };
    (Step::new().output("metrics", &pass.values).updates(updates), pass.metrics)
}

/// The expressions of the first, and largest, of so many parts of a batch, in one process; and where there are several,
/// those of the update that follows them.
pub fn in_parts(
    networks: &Networks,
    distiller: &dyn Distiller,
    batch: usize,
    parts: usize,
    image: [usize; 2],
) -> (Step, Option<Step>) {
    let sums = (parts > 1).then(|| GradientSums::new(&networks.optimizer.differentiated()));
    let division = Division { sums: sums.as_ref(), ..Division::default() };
    let (step, _) = program(networks, distiller, part(batch, parts, 0).len(), image, division);
    (step, sums.map(|sums| update_expressions(networks, &sums, None)))
}

/// The expressions of the update that follows the parts of a batch. Input: `rate` `[]`.
pub fn update_expressions(networks: &Networks, sums: &GradientSums, transfer: Option<Transfer>) -> Step {
    let updates = networks.and_average(update(networks, &sums.tensors(), transfer));
    Step::new().updates(updates).updates(sums.clear())
}

fn update(networks: &Networks, gradients: &[Tensor], transfer: Option<Transfer>) -> Vec<(Variable, Tensor)> {
    let rate = Tensor::input("rate", &[]);
    match transfer {
        None => networks.optimizer.updates(gradients, &rate),
        Some(transfer) => {
            let summed = {
                let _part = scope::part("exchange");
                buckets::all_reduce(gradients, transfer)
            };
            networks.optimizer.updates(&summed, &rate)
        }
    }
}

/// Forward and backward through the networks.
struct Pass {
    metrics: Vec<Metric>,
    /// Of each metric, `[metrics]`.
    values: Tensor,
    /// Of the loss, or of `weight` times the loss, as the optimizer wants them.
    gradients: Vec<Tensor>,
    /// Running statistics and memories, and their new values.
    statistics: Vec<(Variable, Tensor)>,
}

impl Pass {
    fn new(
        networks: &Networks,
        distiller: &dyn Distiller,
        batch: usize,
        image: [usize; 2],
        division: Division,
    ) -> Pass {
        let (batch, mut statistics) = networks.pass(distiller, batch, image, division.synchronized);
        // The optimizer and batch norm say themselves what is an update, and the gradient what is backward.
        let _part = scope::part("loss");
        let mut modules = networks.own(batch.size(), division.synchronized);
        modules.share = division.transfer.map(|_| Tensor::input("share", &[]));
        let loss = distiller.loss(&batch, &mut modules);
        statistics.extend(modules.into_updates());
        let weight =
            (division.sums.is_some() || division.transfer.is_some()).then(|| Tensor::input("weight", &[]));
        let weighted = |value: &Tensor| weight.as_ref().map_or_else(|| value.clone(), |w| value * w);
        let gradients = networks.optimizer.gradients(&loss.losses().map(weighted));

        let top = |k: usize| batch.accuracy(k);
        let common = [(Metric::Loss, loss.total), (Metric::Top1, top(1)), (Metric::Top5, top(5))];
        let terms = loss.terms.into_iter().map(|(name, value)| (Metric::Term(name), value));
        let observed = loss.observations.into_iter().map(|(what, value)| (Metric::Observed(what), value));
        let (metrics, values): (Vec<Metric>, Vec<Tensor>) = common
            .into_iter()
            .chain(terms)
            .chain(observed)
            .map(|(m, value)| (m, value.reshape(&[1])))
            .unzip();
        let values = Tensor::concatenate(&values.iter().collect::<Vec<_>>(), 0);

        Pass { metrics, values, gradients, statistics }
    }
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
        TrainStep::compile_divided(device, networks, distiller, batch, image, Division::default())
    }

    /// Compiles [`program`].
    pub fn compile_divided(
        device: &dyn Device,
        networks: &Networks,
        distiller: &dyn Distiller,
        batch: usize,
        image: [usize; 2],
        division: Division,
    ) -> Result<TrainStep> {
        let (step, metrics) = program(networks, distiller, batch, image, division);
        let executable = device.compile_step(&step)?;
        let has = |name: &&str| executable.schedule().has_input(name);
        let scalars = ["rate", "factor", "weight", "share"].into_iter().filter(has).collect();
        let size = (batch, division.synchronized);
        Ok(TrainStep { executable, metrics, size, scalars })
    }

    /// Runs the program on its images and returns the value of each metric: its mean over these. `own` are the
    /// method's own inputs, [`Distiller::inputs`].
    pub fn run(
        &mut self,
        images: &[f32],
        labels: &[i32],
        scalars: Scalars,
        own: &[(&'static str, Own)],
    ) -> Result<Vec<f32>> {
        pending::wait(self.run_async(images, labels, scalars, own)?)
    }

    /// The same where nothing may wait: in a browser.
    pub fn run_async(
        &mut self,
        images: &[f32],
        labels: &[i32],
        scalars: Scalars,
        own: &[(&'static str, Own)],
    ) -> Result<Pending<Vec<f32>>> {
        self.begin(images, labels, scalars, own, &Alone)
    }

    /// The same as one of several processes.
    pub fn begin(
        &mut self,
        images: &[f32],
        labels: &[i32],
        scalars: Scalars,
        own: &[(&'static str, Own)],
        processes: &dyn Communicator,
    ) -> Result<Pending<Vec<f32>>> {
        let values: Vec<(&str, [f32; 1])> =
            self.scalars.iter().map(|&name| (name, scalars.get(name))).collect();
        let mut inputs = vec![("images", Value::F32(images)), ("labels", Value::I32(labels))];
        inputs.extend(values.iter().map(|(name, value)| (*name, Value::F32(value))));
        inputs.extend(own.iter().map(|(name, value)| match value {
            Own::F32(values) => (*name, Value::F32(values)),
            Own::I32(values) => (*name, Value::I32(values)),
        }));
        self.executable.call_among(&inputs, processes)?;
        Ok(self.executable.output_async("metrics"))
    }

    /// What [`TrainStep::run`] returns, in this order.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }
    /// Bytes that the program holds on the device, without state.
    pub fn bytes(&self) -> u64 {
        self.executable.bytes()
    }
    /// Whether it sums anything over processes, so that one without images has to take part as well.
    pub fn has_sums(&self) -> bool {
        !self.executable.schedule().exchanges().is_empty()
    }
    /// Variables that it changes.
    pub fn updated(&self) -> Vec<Variable> {
        self.executable.schedule().updated()
    }
    /// Its images, and those that it shares batch norm's statistics with ([`Division::synchronized`]).
    pub fn size(&self) -> (usize, Option<usize>) {
        self.size
    }
    /// The compiled program, for its schedule, memory and profile.
    pub fn executable(&mut self) -> &mut dyn Executable {
        &mut *self.executable
    }
}
