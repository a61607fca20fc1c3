//! Matrix product speed in GFLOP/s: `cargo bench -p gpu --bench matmul [-- SIZE...]` (4096; on a software
//! driver 512). `SLD_ADAPTER` chooses the adapter, `SLD_PRECISION` is `f32`, `mixed` or `split`.

mod timing;

use autograd::{Error, Tensor};
use gpu::{GpuDevice, Options, choose};
use schedule::{Device, Step, Value};
use timing::least_seconds;

fn main() -> Result<(), Error> {
    let wanted = std::env::var("SLD_ADAPTER").ok();
    let precision = std::env::var("SLD_PRECISION").ok().map_or(Ok(Default::default()), |p| p.parse());
    let options = Options { checked: false, precision: precision?, ..Options::default() };
    let adapter = choose(wanted.as_deref())?;
    let device = GpuDevice::with_adapter(&adapter, options)?;
    let mut sizes: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    if sizes.is_empty() {
        sizes.push(if adapter.software { 512 } else { 4096 });
    }
    println!("{}", device.name());
    for size in sizes {
        let (a, b) = (Tensor::input("a", &[size, size]), Tensor::input("b", &[size, size]));
        let step = Step::new().output("c", &a.matmul(&b));
        let mut executable = device.compile_step(&step)?;
        let values: Vec<f32> = (0..size * size).map(|i| (i * 7919 % 1000) as f32 * 1e-3 - 0.5).collect();
        let inputs = [("a", Value::F32(&values)), ("b", Value::F32(&values))];
        let best = least_seconds(&device, &mut *executable, &inputs)?;
        println!(
            "matmul {size}^3: {:.1} GFLOP/s, {:.3} ms",
            2.0 * (size as f64).powi(3) / best * 1e-9,
            best * 1e3
        );
    }
    Ok(())
}
