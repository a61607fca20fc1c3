//! Measuring a network on images: top-1, top-5, cross entropy, classes confused.

use std::ops::Range;
use std::sync::Arc;

use web_time::Instant;

use autograd::Tensor;
use nn::layers::Forward;
use nn::models::Model;
use schedule::{Device, Executable, Step, Value, pending};

use crate::cluster::Cluster;
use crate::data::Dataset;
use crate::data::loader::{Loader, part};

/// A network's results on a data set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Images answered, each once.
    pub images: usize,
    /// Images whose label has the largest logit.
    pub top1_correct: usize,
    /// Images whose label is among the five largest logits.
    pub top5_correct: usize,
    /// Mean cross entropy, nats.
    pub loss: f64,
    /// `confusion[label][prediction]`, counts.
    pub confusion: Vec<Vec<u32>>,
}

impl Evaluation {
    /// Top-1 accuracy in percent.
    pub fn top1(&self) -> f64 {
        100.0 * self.top1_correct as f64 / self.images.max(1) as f64
    }
    /// Top-5 accuracy in percent.
    pub fn top5(&self) -> f64 {
        100.0 * self.top5_correct as f64 / self.images.max(1) as f64
    }
    fn new(classes: usize) -> Evaluation {
        Evaluation { confusion: vec![vec![0; classes]; classes], ..Evaluation::default() }
    }

    /// Adds what all processes counted. Sums the loss, as [`Evaluation::add`].
    fn total(&mut self, cluster: &dyn Cluster) -> anyhow::Result<()> {
        let counts = self.confusion.iter().flatten().map(|&count| f64::from(count));
        let numbers = [self.images as f64, self.top1_correct as f64, self.top5_correct as f64, self.loss];
        let mut all: Vec<f64> = numbers.into_iter().chain(counts).collect();
        cluster.sum(&mut all)?;
        (self.images, self.top1_correct) = (all[0] as usize, all[1] as usize);
        (self.top5_correct, self.loss) = (all[2] as usize, all[3]);
        self.confusion.iter_mut().flatten().zip(&all[4..]).for_each(|(own, &sum)| *own = sum as u32);
        Ok(())
    }

    /// Adds one image. Sums the loss; [`Evaluator::run`] divides.
    fn add(&mut self, logits: &[f32], label: usize) {
        let own = logits[label];
        // Of equal logits the lower index ranks first.
        let ahead = |&(class, &logit): &(usize, &f32)| logit > own || (logit == own && class < label);
        let rank = logits.iter().enumerate().filter(ahead).count();
        let largest = logits.iter().copied().map(f64::from).fold(f64::NEG_INFINITY, f64::max);
        let log_sum = logits.iter().map(|&l| (f64::from(l) - largest).exp()).sum::<f64>().ln() + largest;
        let mut prediction = 0;
        for (class, &logit) in logits.iter().enumerate() {
            if logit > logits[prediction] {
                prediction = class;
            }
        }
        self.images += 1;
        self.top1_correct += usize::from(rank == 0);
        self.top5_correct += usize::from(rank < 5);
        self.loss += log_sum - f64::from(own);
        self.confusion[label][prediction] += 1;
    }
}

/// Outputs that are no numbers and so mean nothing.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "the outputs of {network} are not finite numbers: for image {image} (from 0) of {images}, class {class} gets {value}"
)]
pub struct NotFinite {
    /// The network's name.
    pub network: String,
    /// The data set's name.
    pub images: String,
    /// Place of the first such image.
    pub image: usize,
    /// The first class whose logit is no number.
    pub class: usize,
    /// NaN or an infinity.
    pub value: f32,
}

/// A network compiled for evaluation. It reads the state that training steps on the same device write.
pub struct Evaluator {
    executable: Box<dyn Executable>,
    network: String,
    batch: usize,
    classes: usize,
    image_len: usize,
}

impl Evaluator {
    /// Compiles `model` for batches of `batch` images of `height x width`.
    pub fn compile(
        device: &dyn Device,
        model: &Model,
        batch: usize,
        [height, width]: [usize; 2],
    ) -> autograd::Result<Evaluator> {
        let shape = [batch, height, width, model.channels()];
        let images = Tensor::input("images", &shape);
        let logits = model.forward(&images, &mut Forward::eval()).logits;
        let executable = device.compile_step(&Step::new().output("logits", &logits))?;
        Ok(Evaluator {
            executable,
            network: model.name().into(),
            batch,
            classes: model.classes(),
            image_len: shape[1..].iter().product(),
        })
    }

    /// Evaluates all images in order; `each` sees every batch's logits `[B, classes]` and labels.
    ///
    /// # Errors
    /// [`NotFinite`] for the first image whose outputs are not; the loader's and the device's.
    pub fn run(
        &mut self,
        dataset: &Arc<Dataset>,
        threads: usize,
        each: impl FnMut(&[f32], &[u32]),
    ) -> anyhow::Result<Evaluation> {
        pending::wait(self.run_async(dataset, threads.max(1), each))
    }

    /// The same where nothing may wait: in a browser, which has no threads either.
    ///
    /// # Errors
    /// [`NotFinite`] for the first image whose outputs are not; the loader's and the device's.
    pub async fn run_async(
        &mut self,
        dataset: &Arc<Dataset>,
        threads: usize,
        each: impl FnMut(&[f32], &[u32]),
    ) -> anyhow::Result<Evaluation> {
        let mut result = self.count(dataset, 0..dataset.len(), threads, each).await?;
        result.loss /= result.images.max(1) as f64;
        Ok(result)
    }

    /// Evaluates all images together with the other processes of a cluster, each its part.
    ///
    /// # Errors
    /// As for [`Evaluator::run`], in all processes for what one of them met; the cluster's.
    pub fn run_among(
        &mut self,
        cluster: &dyn Cluster,
        dataset: &Arc<Dataset>,
        threads: usize,
    ) -> anyhow::Result<Evaluation> {
        let own = part(dataset.len(), cluster.size(), cluster.rank());
        let counted = pending::wait(self.count(dataset, own, threads.max(1), |_, _| ()));
        let (mut result, bad) = match counted {
            Ok(result) => (result, None),
            Err(why) => (Evaluation::new(self.classes), Some(why.downcast::<NotFinite>()?)),
        };
        // JSON has no NaN: the value travels as its bits.
        let bad = bad.map(|b| (b.network, b.images, b.image, b.class, b.value.to_bits()));
        for bad in cluster.gather(serde_json::to_vec(&bad)?)? {
            let bad: Option<(String, String, usize, usize, u32)> = serde_json::from_slice(&bad)?;
            if let Some((network, images, image, class, bits)) = bad {
                let value = f32::from_bits(bits);
                return Err(NotFinite { network, images, image, class, value }.into());
            }
        }
        result.total(cluster)?;
        result.loss /= result.images.max(1) as f64;
        Ok(result)
    }

    /// Seconds that the images at some places will take, by the time of a batch after one that warms up.
    ///
    /// # Errors
    /// As for [`Evaluator::run`].
    pub fn estimate(
        &mut self,
        dataset: &Arc<Dataset>,
        images: Range<usize>,
        threads: usize,
    ) -> anyhow::Result<f64> {
        let some = images.start..images.end.min(images.start + self.batch);
        let mut seconds = 0.0;
        for _ in 0..2 {
            let started = Instant::now();
            pending::wait(self.count(dataset, some.clone(), threads.max(1), |_, _| ()))?;
            seconds = started.elapsed().as_secs_f64();
        }
        Ok(seconds * images.len().div_ceil(self.batch) as f64)
    }

    /// The sums over the images at some places.
    async fn count(
        &mut self,
        dataset: &Arc<Dataset>,
        images: Range<usize>,
        threads: usize,
        mut each: impl FnMut(&[f32], &[u32]),
    ) -> anyhow::Result<Evaluation> {
        let mut result = Evaluation::new(self.classes);
        let mut loader = Loader::evaluate_some(Arc::clone(dataset), images, self.batch, threads)?;
        while let Some(batch) = loader.next() {
            let mut batch = batch?;
            let logits = self.logits_async(&mut batch.images, dataset.name(), &batch.indices).await?;
            for (row, &label) in logits.chunks_exact(self.classes).zip(&batch.labels) {
                anyhow::ensure!(
                    (label as usize) < self.classes,
                    "label {label} of `{}` is not one of the network's {} classes",
                    dataset.name(),
                    self.classes
                );
                result.add(row, label as usize);
            }
            each(&logits, &batch.labels);
            loader.recycle(batch);
        }
        Ok(result)
    }

    /// The outputs `[N, classes]` for at most a batch of prepared images; `indices` says which they are of
    /// the data set called `name`. Leaves `images` filled up to a batch.
    ///
    /// # Errors
    /// [`NotFinite`]; the device's.
    pub fn logits(&mut self, images: &mut Vec<f32>, name: &str, indices: &[u32]) -> anyhow::Result<Vec<f32>> {
        pending::wait(self.logits_async(images, name, indices))
    }

    async fn logits_async(
        &mut self,
        images: &mut Vec<f32>,
        name: &str,
        indices: &[u32],
    ) -> anyhow::Result<Vec<f32>> {
        // Images do not see one another in evaluation, so a last, smaller batch is filled with zeros.
        let count = images.len() / self.image_len;
        images.resize(self.batch * self.image_len, 0.0);
        self.executable.call(&[("images", Value::F32(images))])?;
        let mut logits = self.executable.output_async("logits").await?;
        logits.truncate(count * self.classes);
        match logits.iter().position(|logit| !logit.is_finite()) {
            None => Ok(logits),
            Some(at) => Err(NotFinite {
                network: self.network.clone(),
                images: name.into(),
                // Of two stacked views, the second is of the same images.
                image: indices[at / self.classes % indices.len()] as usize,
                class: at % self.classes,
                value: logits[at],
            }
            .into()),
        }
    }

    /// The compiled program, for its schedule, memory and profile.
    pub fn executable(&mut self) -> &mut dyn Executable {
        &mut *self.executable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lower_class() {
        let mut result = Evaluation::new(3);
        result.add(&[1.0, 1.0, 0.0], 1);
        assert_eq!((result.top1_correct, result.top5_correct), (0, 1));
        result.add(&[1.0, 1.0, 0.0], 0);
        assert_eq!(result.top1_correct, 1);
        assert_eq!(result.confusion, vec![vec![1, 0, 0], vec![1, 0, 0], vec![0, 0, 0]]);
    }

    #[test]
    fn cross_entropy_survives_large_logits() {
        let mut result = Evaluation::new(2);
        result.add(&[1e4, 0.0], 1);
        assert_eq!(result.loss, 1e4);
    }
}
