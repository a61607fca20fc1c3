//! What a device can do at best: the rates that a step's time is held against.

use std::time::Duration;

use autograd::{Tensor, Variable};
use schedule::{Device, Executable, Step, Value};

use crate::random::{Purpose, Stream};
use web_time::Instant;

/// Measured rates of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roof {
    /// Of a product of two square matrices, in operations a second (a multiply-add is two): of 1024 rows, or of 2048
    /// or 4096 where the device is so fast that a smaller one would not keep it busy.
    pub flops: f64,
    /// Of copying 128 MiB, reads and writes together, in bytes a second.
    pub bytes: f64,
}

/// Repetitions, of which the fastest counts: a roof is what can be reached. On a slow device fewer.
const TRIES: usize = 12;
const PATIENCE: Duration = Duration::from_secs(4);
/// A product that takes less time is too small to tell.
const LEAST: f64 = 2e-3;

impl Roof {
    /// Measures `device` with compiled steps of its own, as everything else it runs.
    pub fn measure(device: &dyn Device) -> anyhow::Result<Roof> {
        Ok(Roof { flops: product_rate(device)?, bytes: copy_rate(device)? })
    }

    /// Seconds that `flops` operations take at least by direct algorithms, and that `bytes` take.
    pub fn bounds(&self, flops: u64, bytes: u64) -> (f64, f64) {
        (flops as f64 / self.flops, bytes as f64 / self.bytes)
    }
}

fn product_rate(device: &dyn Device) -> anyhow::Result<f64> {
    let mut best: f64 = 0.0;
    for rows in [1024, 2048, 4096] {
        let seconds = product_seconds(device, rows)?;
        best = best.max(2.0 * (rows as f64).powi(3) / seconds);
        if seconds >= LEAST {
            break;
        }
    }
    Ok(best)
}

fn product_seconds(device: &dyn Device, rows: usize) -> anyhow::Result<f64> {
    let mut random = Stream::new(11, Purpose::Order, 0, 0);
    // Entries of this size neither grow nor shrink what is multiplied by them again and again.
    let one = 1.0 / (rows as f32).sqrt();
    let mut signs = || (0..rows * rows).map(|_| if random.coin() { one } else { -one }).collect();
    let matrix = Variable::new("matrix", &[rows, rows], signs())?;
    let product = Variable::new("product", &[rows, rows], signs())?;
    // Updated, so that the product is of the call and not prepared once.
    let step = Step::new().update(&product, &matrix.tensor().matmul(&product.tensor()));
    let mut run = device.compile_step(&step)?;
    run.call(&[])?;
    fastest(&mut *run)
}

fn copy_rate(device: &dyn Device) -> anyhow::Result<f64> {
    const N: usize = 32 << 20;
    let source = Variable::new("source", &[N], vec![1.0; N])?;
    // The factor makes it work of the call.
    let copy = &source.tensor() * &Tensor::input("factor", &[]);
    let mut run = device.compile_step(&Step::new().output("copy", &copy))?;
    run.call(&[("factor", Value::F32(&[1.0]))])?;
    Ok(8.0 * N as f64 / fastest(&mut *run)?)
}

/// Seconds of the fastest of several calls, as the device measures its kernels.
fn fastest(run: &mut dyn Executable) -> anyhow::Result<f64> {
    let mut best = f64::INFINITY;
    let begun = Instant::now();
    for number in 0..TRIES {
        best = best.min(run.profile()?.iter().map(|kernel| kernel.1).sum());
        if number > 0 && begun.elapsed() > PATIENCE {
            break;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_work_over_rate() {
        let roof = Roof { flops: 2e9, bytes: 4e9 };
        assert_eq!(roof.bounds(1_000_000_000, 1_000_000_000), (0.5, 0.25));
    }

    #[test]
    fn a_device_has_rates_of_its_time() {
        // From a hundredth to a hundred times a core of today: a wrong count of operations or bytes, or
        // work that was prepared instead of done, falls outside.
        let roof = Roof::measure(&cpu::CpuDevice::new(1)).expect("the CPU device runs it");
        assert!((1e9..1e13).contains(&roof.flops), "{roof:?}");
        assert!((1e8..1e12).contains(&roof.bytes), "{roof:?}");
    }
}
