//! The shelf between those who make batches and the one who takes them.

use super::batch::{Batch, part};
use super::paint::Easel;
use super::plan::{Job, Plan};
use crate::augment::Mixture;
use crate::data::DataError;
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use web_time::Instant;

/// What makers and consumer share; batches are known by their running number.
#[derive(Default)]
pub struct Shelf {
    pub next_job: u64,
    pub delivered: u64,
    pub finished: BTreeMap<u64, Result<Batch, DataError>>,
    pub spare: Vec<Batch>,
    /// The epoch whose order was drawn last, and the order.
    pub order: Option<(u64, Arc<Vec<u32>>)>,
    pub broken: bool,
}

pub struct Shared {
    pub plan: Plan,
    /// Who decodes pictures: a batch of them takes long, and several in work at once much memory.
    pub pool: Option<rayon::ThreadPool>,
    pub shelf: Mutex<Shelf>,
    /// Which files are being read, and since when.
    pub reading: Mutex<BTreeMap<u32, Instant>>,
    pub stop: AtomicBool,
    /// Signals makers that there is room on the shelf, or that they should end.
    pub room: Condvar,
    /// Signals the consumer that a batch was finished.
    pub ready: Condvar,
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, Shelf> {
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
    pub fn make(&self) -> bool {
        let Some((job, order, mut batch)) = self.claim() else { return false };
        let filled = self.fill(&mut batch, job, &order).map(|()| batch);
        self.lock().finished.insert(job, filled);
        self.ready.notify_all();
        true
    }

    pub fn work(&self) {
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
