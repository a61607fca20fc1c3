//! How far a GPU is with measuring its kernels: a bar, or lines where there is no terminal.

use crate::experiment::terminal::{clock, counting};
use crate::warn;
use gpu::Measuring;
use indicatif::ProgressBar;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two lines.
const LINES: Duration = Duration::from_secs(15);

/// Of one program.
struct Shown {
    bar: ProgressBar,
    began: Instant,
    said: Instant,
}

/// Shows what a device tells, on the standard error output.
pub fn show(device: &gpu::GpuDevice) {
    let shown = Mutex::new(None);
    device.watch(move |told| tell(&mut shown.lock().unwrap_or_else(PoisonError::into_inner), told));
}

fn tell(shown: &mut Option<Shown>, Measuring { done, all }: Measuring) {
    if done == 0 {
        let (bar, now) = (counting(all as u64, "kernels measured"), Instant::now());
        let is_hidden = bar.is_hidden();
        *shown = Some(Shown { bar, began: now, said: now });
        if is_hidden {
            warn!("# measuring {all} kernels, to compute each in the way that is fastest here");
        }
    }
    let Some(Shown { bar, began, said }) = shown else { return };
    bar.set_position(done as u64);
    if done == all {
        bar.finish_and_clear();
        warn!("# measured {all} kernels in {}", clock(began.elapsed().as_secs_f64()));
        *shown = None;
    } else if bar.is_hidden() && said.elapsed() > LINES {
        warn!("# measured {done} of {all} kernels");
        *said = Instant::now();
    }
}
