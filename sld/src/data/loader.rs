//! Batches, made ahead of the device by worker threads and delivered in order.
//!
//! Makers claim batches by number, fill them (with pictures from files a pool of threads does, image by image), and
//! put them on a shelf from which the consumer takes them in order. What a batch holds depends only on its number: the order of an epoch is
//! drawn from (seed, epoch), the views of an image from (seed, epoch, index). The number of threads changes nothing
//! but the speed, and a loader started at any batch continues exactly as one that came from the beginning. The shelf
//! is bounded, in batches and in bytes, and buffers handed back with [`Loader::recycle`] are used again.
//!
//! A file that cannot be read is an error in the place of its batch. One whose reading does not end (a network folder
//! that stalls) keeps nobody: [`Loader::wait`] returns now and then, [`tell_stalls`] lets the file be told, and
//! dropping the loader leaves the thread behind.

mod paint;

use super::{DataError, Dataset};
use crate::augment::normalize::NormalizationTable;
use crate::augment::{Mixing, Mixture};
use crate::random::{Purpose, Stream};
use paint::Easel;
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use web_time::Instant;

/// Bytes that finished batches may take, as long as two fit.
const SHELF_BYTES: usize = 1 << 30;
/// A read that takes longer is told, and again whenever it has taken twice as long.
const STALLED: Duration = Duration::from_secs(30);
/// Who is told of it.
static TELL: OnceLock<fn(&Path, Duration)> = OnceLock::new();

/// Has `tell` called, from now on, with every file whose reading keeps a loader waiting, and for how long.
pub fn tell_stalls(tell: fn(&Path, Duration)) {
    // The first stays: all of them say the same.
    let _ = TELL.set(tell);
}

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
    /// How images are mixed in pairs, if they are.
    pub mixing: Option<Mixing>,
    /// Seeds the order of the epochs, the views and the mixtures.
    pub seed: u64,
    /// Threads that decode and augment. With none a batch is made when it is asked for: in a page, which has no
    /// threads.
    pub threads: usize,
    /// Batches that may lie finished or in work ahead of the consumer, at least 1; large ones are fewer.
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
    /// Where images are mixed, the classes of what was mixed into each; else empty.
    pub others: Vec<u32>,
    /// The share that each then keeps of itself.
    pub share: f32,
    /// The images as a step takes them: normalised, [B, height, width, channels], all weak views (or the plain
    /// images in evaluation), then all strong ones if there are any.
    pub images: Vec<f32>,
}

/// How a worker chooses and paints images.
enum Job {
    Train {
        views: Views,
        mixing: Option<Mixing>,
        seed: u64,
    },
    /// The images at these places.
    Evaluate(Range<usize>),
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
        let images = match &self.job {
            Job::Train { .. } => self.dataset.len(),
            Job::Evaluate(range) => range.len(),
        };
        images.div_ceil(self.batch_size)
    }

    /// Where the batch of the part with the running number `job` belongs.
    fn position(&self, job: u64) -> Position {
        let per_epoch = self.batches_per_epoch() as u64;
        let batch = self.start.batch as u64 + job / self.parts.count as u64;
        Position { epoch: self.start.epoch + batch / per_epoch, batch: (batch % per_epoch) as usize }
    }

    fn order(&self, epoch: u64) -> Vec<u32> {
        match &self.job {
            Job::Train { seed, .. } => {
                let mut order: Vec<u32> = (0..self.dataset.len() as u32).collect();
                Stream::new(*seed, Purpose::Order, epoch, 0).shuffle(&mut order);
                order
            }
            Job::Evaluate(range) => range.clone().map(|index| index as u32).collect(),
        }
    }

    /// The number of the part with the running number `job` in its batch.
    fn part(&self, job: u64) -> usize {
        self.parts.first + (job % self.parts.count as u64) as usize
    }

    /// How the images of a batch are mixed.
    fn mixture(&self, at: Position) -> Option<Mixture> {
        let Job::Train { mixing: Some(mixing), seed, .. } = self.job else { return None };
        let size = (self.dataset.width(), self.dataset.height());
        Some(mixing.draw(seed, at.epoch, at.batch as u64, size))
    }

    fn views(&self) -> usize {
        match self.job {
            Job::Evaluate(_) | Job::Train { views: Views::Weak, .. } => 1,
            Job::Train { views: Views::WeakAndStrong, .. } => 2,
        }
    }
}

/// What makers and consumer share; batches are known by their running number.
#[derive(Default)]
struct Shelf {
    next_job: u64,
    delivered: u64,
    finished: BTreeMap<u64, Result<Batch, DataError>>,
    spare: Vec<Batch>,
    /// The epoch whose order was drawn last, and the order.
    order: Option<(u64, Arc<Vec<u32>>)>,
    broken: bool,
}

struct Shared {
    plan: Plan,
    /// Who decodes pictures: a batch of them takes long, and several in work at once much memory.
    pool: Option<rayon::ThreadPool>,
    shelf: Mutex<Shelf>,
    /// Which files are being read, and since when.
    reading: Mutex<BTreeMap<u32, Instant>>,
    stop: AtomicBool,
    /// Signals makers that there is room on the shelf, or that they should end.
    room: Condvar,
    /// Signals the consumer that a batch was finished.
    ready: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Shelf> {
        // A maker that panicked is noticed through `broken`; the shelf itself stays consistent.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch to make, with a buffer for it and its epoch's order; `None` to end.
    fn claim(&self) -> Option<(u64, Arc<Vec<u32>>, Batch)> {
        let mut shelf = self.lock();
        loop {
            if self.stop.load(Ordering::Relaxed)
                || self.plan.total.is_some_and(|total| shelf.next_job >= total)
            {
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

    /// Makes the next batch; `false` at the end.
    fn make(&self) -> bool {
        let Some((job, order, mut batch)) = self.claim() else { return false };
        let filled = self.fill(&mut batch, job, &order).map(|()| batch);
        self.lock().finished.insert(job, filled);
        self.ready.notify_all();
        true
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
        while self.make() {}
    }

    fn fill(&self, batch: &mut Batch, job: u64, order: &[u32]) -> Result<(), DataError> {
        let plan = &self.plan;
        let (data, image_len) = (&*plan.dataset, plan.dataset.image_len());
        let position = plan.position(job);
        let first = position.batch * plan.batch_size;
        let whole = &order[first..order.len().min(first + plan.batch_size)];
        let range = part(whole.len(), plan.parts.of, plan.part(job));
        batch.whole = whole.len();
        batch.counted = range.len();
        let own = if range.is_empty() { 0..1 } else { range };
        // An image is mixed with the one before it in the whole batch, whichever part that is in.
        let before = whole[(own.start + whole.len() - 1) % whole.len()];
        let indices = &whole[own];
        batch.epoch = position.epoch;
        batch.number = position.batch;
        batch.indices.clear();
        batch.indices.extend_from_slice(indices);
        batch.labels.clear();
        batch.labels.extend(indices.iter().map(|&index| data.labels()[index as usize]));
        batch.images.resize(plan.views() * indices.len() * image_len, 0.0);
        let mixture = plan.mixture(position);
        let views_before = if mixture.is_some() { plan.views() } else { 0 };
        let mut images_before = vec![0.0; views_before * image_len];
        let (weak, strong) = batch.images.split_at_mut(indices.len() * image_len);
        let mut views = Vec::with_capacity(indices.len() + 1);
        let mut chunks = images_before.chunks_exact_mut(image_len.max(1));
        views.extend(chunks.next().map(|weak| (before, weak, chunks.next())));
        let mut strong = strong.chunks_exact_mut(image_len.max(1));
        for (&index, weak) in indices.iter().zip(weak.chunks_exact_mut(image_len.max(1))) {
            views.push((index, weak, strong.next()));
        }
        let paint = |(index, weak, strong)| self.paint(index, position.epoch, weak, strong);
        match &self.pool {
            Some(pool) => pool.install(|| views.into_par_iter().try_for_each(paint)),
            None => views.into_iter().try_for_each(paint),
        }?;
        batch.others.clear();
        batch.share = mixture.map_or(1.0, Mixture::share) as f32;
        if let Some(mixture) = mixture {
            let others = [before].into_iter().chain(indices.iter().copied()).take(indices.len());
            batch.others.extend(others.map(|index| data.labels()[index as usize]));
            let of_view = batch.images.chunks_exact_mut((indices.len() * image_len).max(1));
            for (images, before) in of_view.zip(images_before.chunks_exact(image_len.max(1))) {
                mixture.apply(images, before);
            }
        }
        Ok(())
    }

    fn paint(
        &self,
        index: u32,
        epoch: u64,
        weak: &mut [f32],
        strong: Option<&mut [f32]>,
    ) -> Result<(), DataError> {
        thread_local! {
            static EASEL: RefCell<Easel> = RefCell::default();
        }
        /// Notes a file that is being read as long as it lives.
        struct Reading<'a>(&'a Shared, u32);
        impl Drop for Reading<'_> {
            fn drop(&mut self) {
                self.0.reading.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
            }
        }
        // Nobody waits for the batch any more.
        if self.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let data = &*self.plan.dataset;
        let _reading = data.files().map(|_| {
            let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
            reading.insert(index, Instant::now());
            Reading(self, index)
        });
        EASEL.with_borrow_mut(|easel| match self.plan.job {
            Job::Evaluate(_) => easel.plain(data, &self.plan.table, index, weak),
            Job::Train { seed, .. } => {
                easel.views(data, &self.plan.table, index, (seed, epoch), weak, strong)
            }
        })
    }
}

/// What [`Loader::wait`] found.
#[derive(Debug)]
pub enum Waited {
    /// The next batch.
    Batch(Batch),
    /// There are no more.
    End,
    /// It is not finished yet.
    NotYet,
}

/// An iterator over batches, filled ahead by its own threads; dropping it ends them.
pub struct Loader {
    shared: Arc<Shared>,
    makers: Vec<JoinHandle<()>>,
    /// How long a read may take before it is told.
    patience: Duration,
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
        let LoaderConfig { views, mixing, seed, .. } = config;
        let job = Job::Train { views, mixing, seed };
        Self::start(dataset, (config.batch_size, config.parts), job, start, config.threads, config.prefetch)
    }

    /// One pass over the images in order, without augmentation.
    ///
    /// # Errors
    /// [`DataError::Setting`] for a batch size of 0 or an empty data set.
    pub fn evaluate(dataset: Arc<Dataset>, batch_size: usize, threads: usize) -> Result<Self, DataError> {
        let all = 0..dataset.len();
        Self::evaluate_some(dataset, all, batch_size, threads)
    }

    /// The same over the images at some places only.
    ///
    /// # Errors
    /// As for [`Loader::evaluate`].
    pub fn evaluate_some(
        dataset: Arc<Dataset>,
        images: Range<usize>,
        batch_size: usize,
        threads: usize,
    ) -> Result<Self, DataError> {
        let start = Position { epoch: 0, batch: 0 };
        Self::start(dataset, (batch_size, Parts::WHOLE), Job::Evaluate(images), start, threads, threads + 2)
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
        let mut plan = Plan { dataset, table, batch_size, parts, job, start, total: None, prefetch: 0 };
        let images = batch_size.div_ceil(parts.of);
        let bytes = plan.views() * images * plan.dataset.image_len() * size_of::<f32>();
        plan.prefetch = prefetch.clamp(1, (SHELF_BYTES / bytes.max(1)).max(2)) as u64;
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
        if matches!(plan.job, Job::Evaluate(_)) {
            plan.total = Some(batches as u64);
        }
        let no_thread =
            |error| DataError::Setting(format!("cannot start data threads: {error}; use fewer threads"));
        let pool = plan.dataset.files().filter(|_| threads > 0).map(|_| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.thread_name(|number| format!("decoder-{number}")).build()
        });
        let pool = pool.transpose().map_err(|error| no_thread(error.to_string()))?;
        let shared = Arc::new(Shared {
            plan,
            pool,
            shelf: Mutex::default(),
            reading: Mutex::default(),
            stop: AtomicBool::new(false),
            room: Condvar::new(),
            ready: Condvar::new(),
        });
        let mut loader = Self { shared: shared.clone(), makers: Vec::new(), patience: STALLED };
        // With a pool two are enough: one begins its batch while the other's last images are painted.
        let makers = if shared.pool.is_some() { 2 } else { threads };
        for number in 0..makers {
            let shared = shared.clone();
            let builder = std::thread::Builder::new().name(format!("loader-{number}"));
            let maker = builder.spawn(move || shared.work()).map_err(|error| no_thread(error.to_string()))?;
            loader.makers.push(maker);
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

    /// The next batch, if it is finished within `time`. Of a read that stalls, [`tell_stalls`]' function is told.
    ///
    /// # Errors
    /// An image of the batch cannot be read; the next call goes on behind it.
    pub fn wait(&mut self, time: Duration) -> Result<Waited, DataError> {
        if self.makers.is_empty() {
            self.shared.make();
        }
        let deadline = Instant::now() + time;
        let mut shelf = self.shared.lock();
        let job = shelf.delivered;
        if self.shared.plan.total.is_some_and(|total| job >= total) {
            return Ok(Waited::End);
        }
        loop {
            if let Some(batch) = shelf.finished.remove(&job) {
                shelf.delivered += 1;
                self.shared.room.notify_one();
                self.patience = STALLED;
                return batch.map(Waited::Batch);
            }
            assert!(!shelf.broken, "a data thread panicked; its message is above");
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            let waited = self.shared.ready.wait_timeout(shelf, left);
            shelf = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(shelf);
        if let Some((path, time)) = self.slowest().filter(|(_, time)| *time >= self.patience) {
            self.patience = 2 * time;
            if let Some(tell) = TELL.get() {
                tell(&path, time);
            }
        }
        Ok(Waited::NotYet)
    }

    /// The file that has been in reading for the longest time now, and that time.
    pub fn slowest(&self) -> Option<(PathBuf, Duration)> {
        let reading = self.shared.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let (&index, since) = reading.iter().min_by_key(|(_, since)| **since)?;
        Some((self.shared.plan.dataset.files()?.path(index as usize), since.elapsed()))
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.wait(Duration::from_secs(1)) {
                Ok(Waited::Batch(batch)) => return Some(Ok(batch)),
                Ok(Waited::End) => return None,
                Ok(Waited::NotYet) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Under the lock, so that no maker is between looking and sleeping.
        drop(self.shared.lock());
        self.shared.room.notify_all();
        let patience = Instant::now() + Duration::from_secs(2);
        for maker in self.makers.drain(..) {
            // One image is the most that is still being painted, unless its file stalls: then the thread is left.
            while !maker.is_finished() && Instant::now() < patience {
                std::thread::sleep(Duration::from_micros(100));
            }
            if maker.is_finished() {
                // A panic was already reported on its own thread.
                let _ = maker.join();
            }
        }
    }
}

#[cfg(test)]
mod tests;
