//! How much of a device's memory training takes, known before it begins.

use std::collections::BTreeMap;

use autograd::Result;
use schedule::{Device, Schedule};

use super::networks::Networks;
use super::step::in_parts;
use crate::distill::Distiller;

/// Bytes that training takes. What a device's kernels keep for themselves (packed weights, scratch) comes on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Parameters, momenta, statistics, sums of gradients: what outlives a step.
    pub state: u64,
    /// What a step computes on: activations, gradients on their way, images.
    pub step: u64,
}

impl Memory {
    /// Of batches of `batch` images of `height x width` in so many parts, one after the other.
    ///
    /// # Errors
    /// Of expressions that cannot be.
    pub fn of_training(
        device: &dyn Device,
        networks: &Networks,
        distiller: &dyn Distiller,
        batch: usize,
        parts: usize,
        image: [usize; 2],
    ) -> Result<Memory> {
        let (step, update) = in_parts(networks, distiller, batch, parts, image);
        let schedules =
            [Some(step), update].into_iter().flatten().map(|step| step.schedule_with(device.options()));
        let schedules = schedules.collect::<Result<Vec<_>>>()?;
        let variables: BTreeMap<u64, u64> =
            schedules.iter().flat_map(Schedule::variables).map(|v| (v.id(), 4 * v.len() as u64)).collect();
        Ok(Memory {
            state: variables.values().sum(),
            step: schedules.iter().map(|s| s.working_bytes() + s.given_bytes()).sum(),
        })
    }

    /// Bytes in all.
    pub fn total(self) -> u64 {
        self.state + self.step
    }
}

/// Bytes for people: `1.52 GiB`, `640 MiB`.
pub fn shown(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1000.0 { format!("{mib:.0} MiB") } else { format!("{:.2} GiB", mib / 1024.0) }
}
