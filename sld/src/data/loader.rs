//! Batches, made ahead of the device by worker threads and delivered in order.
//!
//! Workers claim batches by number, fill them, and put them on a shelf from which the consumer takes them in
//! order. What a batch holds depends only on its number: the order of an epoch is drawn from (seed, epoch),
//! the views of an image from (seed, epoch, index). The number of threads changes nothing but the speed,
//! and a loader started at any batch continues exactly as one that came from the beginning. The shelf is
//! bounded, and buffers handed back with [`Loader::recycle`] are used again.

use super::{DataError, Dataset};
use crate::augment::normalize::NormalizationTable;
use crate::augment::{Canvas, ViewDraws};
use crate::random::{Purpose, Stream};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// What is made of each training image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Views {
    /// The weak view: crop and flip.
    Weak,
    /// The weak and the strong view: crop, flip, RandAugment, Cutout.
    WeakAndStrong,
}

/// Which parts of every batch a [`Loader`] delivers, one after the other. What a batch holds does not
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

/// Settings of a training [`Loader`].
#[derive(Clone, Copy, Debug)]
pub struct LoaderConfig {
    /// Images in a batch; the last of an epoch may have fewer.
    pub batch_size: usize,
    /// The parts of a batch that are delivered.
    pub parts: Parts,
    /// What is made of each image.
    pub views: Views,
    /// Seeds the order of the epochs and the views.
    pub seed: u64,
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Batches that may lie finished or in work ahead of the consumer, at least 1.
    pub prefetch: usize,
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
    /// The images as a step takes them: normalised, [B, height, width, 3], all weak views (or the plain
    /// images in evaluation), then all strong ones if there are any.
    pub images: Vec<f32>,
}

/// How a worker chooses and paints images.
enum Job {
    Train { views: Views, seed: u64 },
    Evaluate,
}

struct Plan {
    dataset: Arc<Dataset>,
    table: NormalizationTable,
    batch_size: usize,
    parts: Parts,
    job: Job,
    start: Position,
    /// Parts of batches in all; endless in training.
    total: Option<u64>,
    prefetch: u64,
}

impl Plan {
    fn batches_per_epoch(&self) -> usize {
        self.dataset.len().div_ceil(self.batch_size)
    }

    /// Where the batch of the part with the running number `job` belongs.
    fn position(&self, job: u64) -> Position {
        let per_epoch = self.batches_per_epoch() as u64;
        let batch = self.start.batch as u64 + job / self.parts.count as u64;
        Position { epoch: self.start.epoch + batch / per_epoch, batch: (batch % per_epoch) as usize }
    }

    fn order(&self, epoch: u64) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.dataset.len() as u32).collect();
        if let Job::Train { seed, .. } = self.job {
            Stream::new(seed, Purpose::Order, epoch, 0).shuffle(&mut order);
        }
        order
    }

    /// The number of the part with the running number `job` in its batch.
    fn part(&self, job: u64) -> usize {
        self.parts.first + (job % self.parts.count as u64) as usize
    }

    fn fill(&self, batch: &mut Batch, job: u64, order: &[u32], canvas: &mut Canvas) {
        let data = &*self.dataset;
        let (width, height, image_len) = (data.width(), data.height(), data.image_len());
        let position = self.position(job);
        let first = position.batch * self.batch_size;
        let whole = &order[first..order.len().min(first + self.batch_size)];
        let range = part(whole.len(), self.parts.of, self.part(job));
        batch.whole = whole.len();
        batch.counted = range.len();
        let indices = if range.is_empty() { &whole[..1] } else { &whole[range] };
        batch.epoch = position.epoch;
        batch.number = position.batch;
        batch.indices.clear();
        batch.indices.extend_from_slice(indices);
        batch.labels.clear();
        batch.labels.extend(indices.iter().map(|&index| data.labels()[index as usize]));
        let views = match self.job {
            Job::Evaluate | Job::Train { views: Views::Weak, .. } => 1,
            Job::Train { views: Views::WeakAndStrong, .. } => 2,
        };
        batch.images.resize(views * indices.len() * image_len, 0.0);
        let (weak, strong) = batch.images.split_at_mut(indices.len() * image_len);
        let mut strong = strong.chunks_exact_mut(image_len);
        for (weak, &index) in weak.chunks_exact_mut(image_len).zip(indices) {
            let image = data.image(index as usize);
            let Job::Train { seed, .. } = self.job else {
                self.table.apply(image, weak);
                continue;
            };
            let draws = ViewDraws::new(seed, position.epoch, u64::from(index), width, height);
            draws.paint_weak(canvas, image, width, height);
            self.table.apply(canvas.pixels(), weak);
            if let Some(strong) = strong.next() {
                draws.paint_strong(canvas, image, width, height);
                self.table.apply(canvas.pixels(), strong);
            }
        }
    }
}

/// What workers and consumer share; batches are known by their running number.
#[derive(Default)]
struct Shelf {
    next_job: u64,
    delivered: u64,
    finished: BTreeMap<u64, Batch>,
    spare: Vec<Batch>,
    /// The epoch whose order was drawn last, and the order.
    order: Option<(u64, Arc<Vec<u32>>)>,
    stop: bool,
    broken: bool,
}

struct Shared {
    plan: Plan,
    shelf: Mutex<Shelf>,
    /// Signals workers that there is room on the shelf, or that they should end.
    room: Condvar,
    /// Signals the consumer that a batch was finished.
    ready: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Shelf> {
        // A worker that panicked is noticed through `broken`; the shelf itself stays consistent.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch to make, with a buffer for it and its epoch's order; `None` to end.
    fn claim(&self) -> Option<(u64, Arc<Vec<u32>>, Batch)> {
        let mut shelf = self.lock();
        loop {
            if shelf.stop || self.plan.total.is_some_and(|total| shelf.next_job >= total) {
                return None;
            }
            if shelf.next_job < shelf.delivered + self.plan.prefetch {
                break;
            }
            shelf = self.room.wait(shelf).unwrap_or_else(PoisonError::into_inner);
        }
        let job = shelf.next_job;
        shelf.next_job += 1;
        let epoch = self.plan.position(job).epoch;
        let order = match &shelf.order {
            Some((of, order)) if *of == epoch => order.clone(),
            _ => {
                let order = Arc::new(self.plan.order(epoch));
                shelf.order = Some((epoch, order.clone()));
                order
            }
        };
        let buffer = shelf.spare.pop().unwrap_or_default();
        Some((job, order, buffer))
    }

    fn work(&self) {
        /// Tells the consumer, if the worker unwinds, not to wait for it.
        struct Alarm<'a>(&'a Shared);
        impl Drop for Alarm<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.lock().broken = true;
                    self.0.ready.notify_all();
                }
            }
        }
        let _alarm = Alarm(self);
        let mut canvas = Canvas::new();
        while let Some((job, order, mut batch)) = self.claim() {
            self.plan.fill(&mut batch, job, &order, &mut canvas);
            self.lock().finished.insert(job, batch);
            self.ready.notify_all();
        }
    }
}

/// An iterator over batches, filled ahead by its own threads; dropping it ends them.
pub struct Loader {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Loader {
    /// An endless training loader: epoch after epoch in random order without replacement, the last, smaller
    /// batch of each kept, starting with the batch at `start`.
    ///
    /// # Errors
    /// [`DataError::Setting`] for a batch size of 0, an empty data set or a start beyond the epoch's end.
    ///
    /// # Panics
    /// If no part is to be delivered.
    pub fn train(dataset: Arc<Dataset>, config: LoaderConfig, start: Position) -> Result<Self, DataError> {
        assert!(config.parts.count > 0, "no parts of batches are asked for");
        let job = Job::Train { views: config.views, seed: config.seed };
        Self::start(dataset, (config.batch_size, config.parts), job, start, config.threads, config.prefetch)
    }

    /// One pass over the images in order, without augmentation.
    ///
    /// # Errors
    /// [`DataError::Setting`] for a batch size of 0 or an empty data set.
    pub fn evaluate(dataset: Arc<Dataset>, batch_size: usize, threads: usize) -> Result<Self, DataError> {
        let start = Position { epoch: 0, batch: 0 };
        Self::start(dataset, (batch_size, Parts::WHOLE), Job::Evaluate, start, threads, threads + 2)
    }

    fn start(
        dataset: Arc<Dataset>,
        (batch_size, parts): (usize, Parts),
        job: Job,
        start: Position,
        threads: usize,
        prefetch: usize,
    ) -> Result<Self, DataError> {
        if batch_size == 0 {
            return Err(DataError::Setting("the batch size is 0; it must be at least 1".into()));
        }
        if dataset.is_empty() || u32::try_from(dataset.len()).is_err() {
            let message = format!("{} has {} images; 1 to 2^32 can be loaded", dataset.name(), dataset.len());
            return Err(DataError::Setting(message));
        }
        let table = dataset.normalization().table();
        let prefetch = prefetch.max(1) as u64;
        let mut plan = Plan { dataset, table, batch_size, parts, job, start, total: None, prefetch };
        let batches = plan.batches_per_epoch();
        if start.batch > batches {
            let message = format!(
                "cannot start at batch {}: an epoch of {} images in batches of {batch_size} has {batches}; was \
                 the batch size changed?",
                start.batch,
                plan.dataset.len()
            );
            return Err(DataError::Setting(message));
        }
        if matches!(plan.job, Job::Evaluate) {
            plan.total = Some(batches as u64);
        }
        let shared =
            Arc::new(Shared { plan, shelf: Mutex::default(), room: Condvar::new(), ready: Condvar::new() });
        let mut loader = Self { shared: shared.clone(), workers: Vec::new() };
        for number in 0..threads.max(1) {
            let shared = shared.clone();
            let builder = std::thread::Builder::new().name(format!("loader-{number}"));
            let worker = builder.spawn(move || shared.work()).map_err(|error| {
                DataError::Setting(format!("cannot start data thread {number}: {error}; use fewer threads"))
            })?;
            loader.workers.push(worker);
        }
        Ok(loader)
    }

    /// Number of batches in an epoch.
    pub fn batches_per_epoch(&self) -> usize {
        self.shared.plan.batches_per_epoch()
    }

    /// Where the batch that [`Iterator::next`] returns next belongs.
    pub fn position(&self) -> Position {
        let delivered = self.shared.lock().delivered;
        self.shared.plan.position(delivered)
    }

    /// Gives a used batch's memory back to be filled again; optional.
    pub fn recycle(&mut self, batch: Batch) {
        let mut shelf = self.shared.lock();
        if (shelf.spare.len() as u64) < self.shared.plan.prefetch {
            shelf.spare.push(batch);
        }
    }
}

impl Iterator for Loader {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let mut shelf = self.shared.lock();
        let job = shelf.delivered;
        if self.shared.plan.total.is_some_and(|total| job >= total) {
            return None;
        }
        loop {
            if let Some(batch) = shelf.finished.remove(&job) {
                shelf.delivered += 1;
                self.shared.room.notify_one();
                return Some(batch);
            }
            assert!(!shelf.broken, "a data thread panicked; its message is above");
            shelf = self.shared.ready.wait(shelf).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.room.notify_all();
        for worker in self.workers.drain(..) {
            // A worker's panic was already reported on its own thread.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests;
