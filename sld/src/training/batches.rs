//! One batch: its parts on this process, one after the other, and what all processes make of it together.

use std::sync::Arc;

use anyhow::ensure;
use autograd::Variable;
use autograd::tensor::Transfer;
use nn::optimizer::GradientSums;
use schedule::{Exchange, Executable, Pending, Schedule, Value, pending};

use super::settings::Settings;
use super::step::{Division, Metric, Scalars, TrainStep, update_expressions};
use super::team::Team;
use crate::data::Dataset;
use crate::data::loader::{Batch, Loader, LoaderConfig, Parts, Position, Views, part};
use crate::distill::Own;

/// The compiled programs of batches.
pub struct Batches<'a> {
    team: Team<'a>,
    settings: Settings,
    /// Height and width.
    image: [usize; 2],
    /// A full batch's program, and when they are needed those of other sizes.
    steps: Vec<TrainStep>,
    accumulation: Option<Accumulation>,
    /// The sums over processes of every program, one after the other.
    sums: String,
}

/// What batches in parts need beside the parts' programs.
struct Accumulation {
    sums: GradientSums,
    update: Box<dyn Executable>,
}

/// A batch that was sent to the device.
pub struct Begun {
    /// Each part with its metrics.
    parts: Vec<(Batch, Pending<Vec<f32>>)>,
    rate: f32,
}

/// What a step came to, in all processes.
pub struct Trained {
    /// Images of the batch, in all processes.
    pub images: usize,
    /// Of each metric, over the images.
    pub sums: Vec<f64>,
    /// Whether some process is to stop.
    pub stop: bool,
    /// A part of this process with numbers that are none: the metrics, and its images. The batch may also be
    /// another process's.
    pub bad: Option<(Vec<f32>, Batch)>,
}

/// The sizes of batches: the full one, and that of an epoch's last.
fn wholes(batch_size: usize, images: usize) -> Vec<usize> {
    [batch_size.min(images), images % batch_size].into_iter().filter(|&n| n > 0).collect()
}

/// A line for each sum over processes.
fn sums_of(schedule: &Schedule) -> String {
    let line = |sum: &Exchange| format!("{} {}\n", schedule.kernels[sum.kernel].label, sum.len);
    schedule.exchanges().iter().map(line).collect()
}

fn is_about_memory(why: &anyhow::Error) -> bool {
    matches!(why.downcast_ref(), Some(autograd::Error::OutOfMemory(_) | autograd::Error::Limit(_)))
}

impl Trained {
    /// Whether all metrics are numbers: else training diverged, or an image or the teacher is damaged.
    pub fn is_finite(&self) -> bool {
        self.sums.iter().all(|sum| sum.is_finite())
    }
}

impl<'a> Batches<'a> {
    /// Compiles what the batches of so many training images of `image`'s height and width need.
    ///
    /// # Errors
    /// Batches that cannot be shared out so, and whatever compiling reports.
    pub fn new(
        team: Team<'a>,
        settings: &Settings,
        images: usize,
        image: [usize; 2],
    ) -> anyhow::Result<Batches<'a>> {
        let Settings { batch_size, accumulate, .. } = *settings;
        ensure!(batch_size > 0, "a batch needs at least one image");
        let (steps, sums) = (Vec::new(), String::new());
        let mut batches =
            Batches { team, settings: settings.clone(), image, steps, accumulation: None, sums };
        batches.check_parts(images)?;
        if accumulate > 1 {
            let sums = GradientSums::new(&team.networks.optimizer.differentiated());
            let update = update_expressions(team.networks, &sums, batches.transfer());
            let update = team.device.compile_step(&update)?;
            batches.sums.push_str(&sums_of(update.schedule()));
            batches.accumulation = Some(Accumulation { sums, update });
        }
        // Also of the last batch of an epoch: what a device refuses is refused now.
        for whole in wholes(batch_size, images) {
            for number in 0..accumulate {
                let counted = batches.parts_of_all(whole, number);
                if counted > 0 {
                    let program = batches.program(batches.size(whole, number))?;
                    let sums = sums_of(program.executable().schedule());
                    batches.sums.push_str(&sums);
                }
            }
        }
        Ok(batches)
    }

    /// As [`Batches::new`]; where the device has too little memory, the error tells how many parts fit.
    ///
    /// # Errors
    /// As for [`Batches::new`].
    pub fn fitting(
        team: Team<'a>,
        settings: &Settings,
        images: usize,
        image: [usize; 2],
    ) -> anyhow::Result<Batches<'a>> {
        let with = |accumulate: usize| {
            let settings = Settings { accumulate, ..settings.clone() };
            Batches::new(team, &settings, images, image)
        };
        let why = match with(settings.accumulate) {
            Err(why) if is_about_memory(&why) => why,
            made => return made,
        };
        let mut parts = 2 * settings.accumulate;
        while parts * team.cluster.size() <= settings.batch_size {
            match with(parts) {
                Ok(_) => {
                    return Err(why.context(format!(
                        "a batch of {} is too much for {}; SOLVER.ACCUMULATE {parts} fits (batch norm then sees the parts)",
                        settings.batch_size,
                        team.device.name()
                    )));
                }
                Err(again) if is_about_memory(&again) => parts *= 2,
                Err(other) => return Err(other),
            }
        }
        Err(why.context(format!("{} has too little memory, in however many parts", team.device.name())))
    }

    /// The loader of this process's parts, from a place in training on.
    pub fn loader(&self, train: &Arc<Dataset>, start: Position) -> anyhow::Result<Loader> {
        let views = if self.team.method.about().views == 2 { Views::WeakAndStrong } else { Views::Weak };
        let threads = self.settings.workers.max(1);
        let config = LoaderConfig {
            batch_size: self.settings.batch_size,
            parts: self.parts(),
            views,
            mixing: self.team.networks.mixing,
            seed: self.settings.seed,
            threads,
            prefetch: threads + 2,
        };
        Ok(Loader::train(Arc::clone(train), config, start)?)
    }

    /// What programs measure, in the order of [`Trained::sums`].
    pub fn metrics(&self) -> &[Metric] {
        self.steps.first().map_or(&[], TrainStep::metrics)
    }

    /// Bytes on the device of the largest program, and of what parts of batches need beside it.
    pub fn bytes(&self) -> u64 {
        let step = self.steps.iter().map(TrainStep::bytes).max().unwrap_or(0);
        let beside = |accumulation: &Accumulation| {
            accumulation.update.bytes()
                + accumulation.sums.variables().map(|sum| 4 * sum.len() as u64).sum::<u64>()
        };
        step + self.accumulation.as_ref().map_or(0, beside)
    }

    /// A checksum of the sums over processes, which must be the same in the same order everywhere: programs of parts
    /// of other sizes are compiled apart.
    pub fn sums(&self) -> String {
        format!("{:08x}", crc32c::crc32c(self.sums.as_bytes()))
    }

    /// All state that training changes, in the same order in every process.
    pub fn state(&self) -> Vec<Variable> {
        let mut state = self.steps.first().map_or(Vec::new(), TrainStep::updated);
        let of_update = self.accumulation.iter().flat_map(|a| a.update.schedule().updated());
        for variable in of_update {
            if state.iter().all(|other| other.id() != variable.id()) {
                state.push(variable);
            }
        }
        state
    }

    /// Whether a batch may begin before the one before it is finished: not where that one's update follows when
    /// its parts are done, or where processes agree after every batch.
    pub fn overlap(&self) -> bool {
        self.team.cluster.size() == 1 && self.accumulation.is_none()
    }

    /// Sends a batch, of which these are this process's parts, to the device. `own` gives what the method's own
    /// inputs are for images ([`Distiller::inputs`](crate::distill::Distiller::inputs)).
    pub fn begin(
        &mut self,
        parts: Vec<Batch>,
        scalars: Scalars,
        own: impl Fn(&[u32]) -> Vec<(&'static str, Own)>,
    ) -> anyhow::Result<Begun> {
        let mut begun = Begun { parts: Vec::new(), rate: scalars.rate };
        for (number, batch) in parts.into_iter().enumerate() {
            let in_all: usize = self.parts_of_all(batch.whole, number);
            if in_all == 0 || (batch.counted == 0 && !self.steps.iter().any(TrainStep::has_sums)) {
                continue;
            }
            let size = self.size(batch.whole, number);
            let labels: Vec<i32> = batch.labels.iter().map(|&l| l as i32).collect();
            let weight = batch.counted as f32 / batch.whole as f32;
            let share = batch.counted as f32 / in_all as f32;
            let processes = self.team.cluster;
            let mut own = own(&batch.indices);
            if self.team.networks.mixing.is_some() {
                own.push(("others", Own::I32(batch.others.iter().map(|&l| l as i32).collect())));
                own.push(("own_share", Own::F32(vec![batch.share])));
            }
            let program = self.program(size)?;
            let scalars = Scalars { weight, share, ..scalars };
            let values = program.begin(&batch.images, &labels, scalars, &own, processes)?;
            begun.parts.push((batch, values));
        }
        Ok(begun)
    }

    /// What a batch that was begun comes to; the loader gets its parts back. `stop` tells in the end whether this
    /// process is to stop.
    pub fn finish(
        &mut self,
        begun: Begun,
        loader: &mut Loader,
        stop: impl Fn() -> bool,
    ) -> anyhow::Result<Trained> {
        let mut trained =
            Trained { images: 0, sums: vec![0.0; self.metrics().len()], stop: false, bad: None };
        for (batch, values) in begun.parts {
            let values = pending::wait(values)?;
            // A part that is none measures nothing.
            if batch.counted > 0 {
                for (sum, &value) in trained.sums.iter_mut().zip(&values) {
                    *sum += f64::from(value) * batch.counted as f64;
                }
            }
            trained.images += batch.counted;
            match batch.counted == 0 || values.iter().all(|value| value.is_finite()) {
                true => loader.recycle(batch),
                false => trained.bad = trained.bad.or(Some((values, batch))),
            }
        }
        trained.stop = stop();
        if self.team.cluster.size() > 1 {
            let mut all = trained.sums.clone();
            all.extend([trained.images as f64, f64::from(u8::from(trained.stop))]);
            self.team.cluster.sum(&mut all)?;
            trained.stop = all.pop().unwrap_or(0.0) > 0.0;
            trained.images = all.pop().unwrap_or(0.0) as usize;
            trained.sums = all;
        }
        if trained.is_finite()
            && let Some(accumulation) = &mut self.accumulation
        {
            let inputs = [("rate", Value::F32(&[begun.rate]))];
            accumulation.update.call_among(&inputs, self.team.cluster)?;
        }
        Ok(trained)
    }

    /// How gradients travel, if there is another process.
    fn transfer(&self) -> Option<Transfer> {
        (self.team.cluster.size() > 1).then_some(self.settings.transfer)
    }

    /// The parts that this process computes.
    fn parts(&self) -> Parts {
        let count = self.settings.accumulate;
        Parts { of: count * self.team.cluster.size(), first: count * self.team.cluster.rank(), count }
    }

    /// Images that the processes together compute as their part `number` of a batch of `whole` images.
    fn parts_of_all(&self, whole: usize, number: usize) -> usize {
        let Parts { of, count, .. } = self.parts();
        (0..self.team.cluster.size()).map(|rank| part(whole, of, rank * count + number).len()).sum()
    }

    /// The size of this process's program for its part `number` of a batch of `whole` images: see
    /// [`TrainStep::size`].
    fn size(&self, whole: usize, number: usize) -> (usize, Option<usize>) {
        let Parts { of, first, .. } = self.parts();
        let synchronized = self.settings.sync_batch_norm && self.team.cluster.size() > 1;
        let own = part(whole, of, first + number).len().max(1);
        (own, synchronized.then(|| self.parts_of_all(whole, number)))
    }

    /// The compiled program of a size, compiled when first needed.
    fn program(&mut self, size: (usize, Option<usize>)) -> anyhow::Result<&mut TrainStep> {
        let at = match self.steps.iter().position(|step| step.size() == size) {
            Some(at) => at,
            None => {
                let (images, synchronized) = size;
                let sums = self.accumulation.as_ref().map(|accumulation| &accumulation.sums);
                let division = Division { sums, transfer: self.transfer(), synchronized };
                let Team { device, networks, method, .. } = self.team;
                let made =
                    TrainStep::compile_divided(device, networks, method, images, self.image, division)?;
                self.steps.push(made);
                self.steps.len() - 1
            }
        };
        Ok(&mut self.steps[at])
    }

    /// Whether every part of a full batch and of an epoch's last one has the images that the method needs.
    fn check_parts(&self, images: usize) -> anyhow::Result<()> {
        let Parts { of, .. } = self.parts();
        let (batch_size, least) =
            (self.settings.batch_size, self.team.method.about().smallest_batch as usize);
        for whole in wholes(batch_size, images).into_iter().filter(|_| of > 1) {
            let smallest = (0..of).map(|number| part(whole, of, number).len()).filter(|&n| n > 0).min();
            ensure!(
                smallest.is_none_or(|n| n >= least),
                "{} needs at least {least} images in a part of a batch; a batch of {whole} in {of} parts has fewer in \
                 one: take a smaller SOLVER.ACCUMULATE, fewer processes or another SOLVER.BATCH_SIZE",
                self.team.method.name()
            );
        }
        Ok(())
    }
}
