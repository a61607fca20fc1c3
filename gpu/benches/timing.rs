//! How long a schedule's kernels take.

use std::time::Instant;

use autograd::Error;
use gpu::GpuDevice;
use schedule::{Executable, Value};

/// Seconds of a call's kernels: the least of five. Timestamps leave out the upload of the inputs; where the
/// adapter has none, a call is timed whole.
pub fn least_seconds(
    device: &GpuDevice,
    executable: &mut dyn Executable,
    inputs: &[(&str, Value)],
) -> Result<f64, Error> {
    executable.call(inputs)?;
    device.wait()?;
    let mut least = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        let seconds = match executable.profile() {
            Ok(profile) => profile.iter().map(|(_, seconds)| seconds).sum(),
            Err(_) => {
                executable.call(inputs)?;
                device.wait()?;
                start.elapsed().as_secs_f64()
            }
        };
        least = least.min(seconds);
    }
    Ok(least)
}
