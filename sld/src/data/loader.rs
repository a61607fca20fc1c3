//! Batches, made ahead of the device by worker threads and delivered in order.
//!
//! Makers claim batches by number, fill them (with pictures from files a pool of threads does, image by image), and
//! put them on a shelf from which the consumer takes them in order. What a batch holds depends only on its number: the
//! order of an epoch is drawn from (seed, epoch), the views of an image from (seed, epoch, index). The number of
//! threads changes nothing but the speed, and a loader started at any batch continues exactly as one that came from
//! the beginning. The shelf is bounded, in batches and in bytes, and buffers handed back with [`Loader::recycle`] are
//! used again.
//!
//! A file that cannot be read is an error in the place of its batch. One whose reading does not end (a network folder
//! that stalls) keeps nobody: [`Loader::wait`] returns now and then, [`tell_stalls`] lets the file be told, and
//! dropping the loader leaves the thread behind.

mod batch;
mod paint;
mod plan;
mod shelf;

pub use batch::{Batch, Parts, Position, Views, part};

use super::{DataError, Dataset};
use crate::augment::Mixing;
use plan::{Job, Plan};
use shelf::Shared;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
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
