//! All processes train one network: they compute alike, begin alike, and stay so.

use anyhow::bail;
use schedule::Device;

use super::batches::Batches;
use super::networks::Networks;
use super::snapshot::Progress;
use crate::cluster::{Cluster, agreement};

/// Compiles so that all processes compute as rank 0 does, which may choose kernels by measuring: where its device has
/// something to choose, it compiles first. Its choices are for the kernels that it has; a part of a batch with an image
/// less is computed in the fixed ways.
///
/// # Errors
/// The cluster's, the device's; those of `compile`.
pub fn compile<T>(
    cluster: &dyn Cluster,
    device: &dyn Device,
    compile: impl Fn() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    if cluster.size() == 1 {
        return compile();
    }
    let is_first = cluster.leads() && !device.choices().is_empty();
    let first = is_first.then(&compile).transpose()?;
    let choices = cluster.broadcast(device.choices().into_bytes())?;
    // A CPU has no choices.
    if !cluster.leads() && !choices.is_empty() && !device.choices().is_empty() {
        device.choose(&String::from_utf8(choices)?)?;
    }
    first.map_or_else(compile, Ok)
}

/// Where rank 0 stands, from where all go on: its progress, and with it its state.
///
/// # Errors
/// The cluster's, the device's; the processes' programs do not fit together.
pub fn begin(
    cluster: &dyn Cluster,
    device: &dyn Device,
    batches: &Batches,
    own: &Progress,
) -> anyhow::Result<Progress> {
    if cluster.size() == 1 {
        return Ok(own.clone());
    }
    agreement::check(cluster, &[("sums over processes (checksum)".into(), batches.sums())])?;
    let progress = cluster.broadcast(serde_json::to_vec(own)?)?;
    take_over(cluster, device, batches)?;
    Ok(serde_json::from_slice(&progress)?)
}

/// Whether what all compute alike has stayed so.
///
/// # Errors
/// It has not, and which rank is not as rank 0; the cluster's, the device's.
pub fn check(
    cluster: &dyn Cluster,
    device: &dyn Device,
    networks: &Networks,
    steps: u64,
) -> anyhow::Result<()> {
    if cluster.size() == 1 {
        return Ok(());
    }
    let mut sum = 0;
    for variable in networks.optimizer.parameters() {
        for value in device.read(&variable)? {
            sum = crc32c::crc32c_append(sum, &value.to_le_bytes());
        }
    }
    // Devices that are not alike may round otherwise: what they would drift apart is taken over.
    let all = cluster.gather(serde_json::to_vec(&(device.name(), sum))?)?;
    let all: Vec<(String, u32)> =
        all.iter().map(|said| serde_json::from_slice(said)).collect::<Result<_, _>>()?;
    if let Some(rank) = all.iter().position(|(device, sum)| *device == all[0].0 && *sum != all[0].1) {
        bail!(
            "after {steps} steps rank {rank} has other parameters than rank 0: a machine computes wrongly, or \
             messages between the processes are damaged; go on from the last checkpoint with --resume"
        );
    }
    Ok(())
}

/// Writes rank 0's values of all that training changes. Between epochs these are mostly batch norm's running
/// statistics, which are of each process's own images.
///
/// # Errors
/// The cluster's, the device's.
pub fn take_over(cluster: &dyn Cluster, device: &dyn Device, batches: &Batches) -> anyhow::Result<()> {
    if cluster.size() == 1 {
        return Ok(());
    }
    for variable in batches.state() {
        let own = if cluster.leads() { device.read(&variable)? } else { Vec::new() };
        let bytes = cluster.broadcast(own.into_iter().flat_map(f32::to_le_bytes).collect())?;
        if !cluster.leads() {
            let (words, _) = bytes.as_chunks::<4>();
            let values: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
            device.write(&variable, &values)?;
        }
    }
    Ok(())
}
