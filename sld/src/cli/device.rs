//! Which device computes: `--device auto|cpu|gpu|NAME`.

use super::measuring;
use crate::cluster::{Cluster, cores};
use crate::warn;
use anyhow::Context;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The `--device` option.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// A real GPU where there is one, else the CPU; never a software GPU driver.
    #[default]
    Auto,
    /// The native CPU device.
    Cpu,
    /// The first GPU, or the first whose name contains the text, in any letter case.
    Gpu(Option<String>),
    /// For each process of a machine the next GPU.
    Spread,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        match (lower.as_str(), lower.strip_prefix("gpu:")) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("gpu", _) => Ok(Self::Gpu(None)),
            (_, Some("auto")) => Ok(Self::Spread),
            (_, Some("")) => {
                Err("name the GPU after the colon, such as gpu:nvidia; `sld devices` lists them".into())
            }
            ("", _) => Err("choose auto, cpu, gpu or a GPU's name; `sld devices` lists them".into()),
            (_, Some(_)) => Ok(Self::Gpu(Some(text["gpu:".len()..].to_owned()))),
            // A part of a GPU's name, or its number.
            _ => Ok(Self::Gpu(Some(text.to_owned()))),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu(None) => f.write_str("gpu"),
            Self::Gpu(Some(name)) => write!(f, "gpu:{name}"),
            Self::Spread => f.write_str("gpu:auto"),
        }
    }
}

/// The options of every command that computes.
#[derive(Debug, Clone, clap::Args)]
pub struct DeviceArgs {
    /// Where to compute: auto, cpu, gpu, a GPU's number or part of its name as `sld devices` shows them, or
    /// gpu:auto, which gives each of the processes of a machine the next GPU.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: DeviceChoice,
    /// CPU threads; one for each core if not given (of several processes each takes its share of the cores).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// What convolutions and matrix products of a GPU multiply in: f32; mixed (operands rounded to 16 bits, sums and
    /// weights in f32); or split (each operand as the sum of two 16-bit numbers, for matrix units: as accurate as f32,
    /// and faster on large cards, but no operand may be above 65504 and no gradient above 64). A run goes on
    /// in the precision that it had.
    #[arg(long, value_name = "PRECISION", default_value_t)]
    pub precision: gpu::Precision,
    /// How a GPU's kernels are chosen that can be computed in several ways: by measuring them once, when they are
    /// first needed (the result is kept in the user's cache folder; `sld tune` does it ahead), or as fixed. auto
    /// measures on real GPUs. Of several processes rank 0 measures, and all compute as it does, if their devices are
    /// the same. A run that is resumed keeps its choices.
    #[arg(long, value_name = "WHETHER", value_enum, default_value_t)]
    pub tune: Tune,
}

/// The `--tune` option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Tune {
    /// Measure on real GPUs.
    #[default]
    Auto,
    /// Measure on software drivers, too.
    On,
    /// Take what is best on most GPUs.
    Off,
}

impl DeviceArgs {
    /// Opens the device. `auto` takes a real GPU where there is one, else the CPU.
    ///
    /// # Errors
    /// No such GPU, or its driver refuses; the message lists what there is or says what to install.
    pub fn open(&self) -> anyhow::Result<Box<dyn schedule::Device>> {
        self.open_among(&schedule::Alone)
    }

    /// Opens the device of one of the processes of a cluster. `auto` gives each the next real GPU of its machine
    /// then.
    ///
    /// # Errors
    /// As for [`DeviceArgs::open`]; the cluster's.
    pub fn open_among(&self, cluster: &dyn Cluster) -> anyhow::Result<Box<dyn schedule::Device>> {
        let cores = cores::share(cluster)?;
        let neighbours = cluster.neighbours();
        let place = neighbours.iter().position(|&rank| rank == cluster.rank()).unwrap_or(0);
        // This process's of so many GPUs.
        let next = |gpus: usize| {
            if place == 0 && neighbours.len() > gpus {
                warn!("note: {} processes share {gpus} GPUs of this machine", neighbours.len());
            }
            place % gpus
        };
        let threads = self.threads.map_or(cores, |n| n as usize);
        let on_cpu = || -> Box<dyn schedule::Device> {
            if self.precision != gpu::Precision::F32 {
                warn!("the CPU device computes in f32: --precision {} changes nothing", self.precision);
            }
            Box::new(cpu::CpuDevice::new(threads))
        };
        let no_such = || {
            let choice = &self.device;
            format!("cannot compute on `{choice}` (--device takes auto, cpu, gpu or a GPU's name)")
        };
        let adapter = match &self.device {
            DeviceChoice::Cpu => None,
            DeviceChoice::Gpu(wanted) => Some(gpu::choose(wanted.as_deref()).with_context(no_such)?),
            DeviceChoice::Spread => {
                // The first of them are no software, if there are any such.
                let mut all = gpu::adapters();
                let kind = all.first().map(|adapter| adapter.software);
                all.retain(|adapter| Some(adapter.software) == kind);
                match all.len() {
                    0 => Some(gpu::choose(None)?),
                    count => Some(all.swap_remove(next(count))),
                }
            }
            DeviceChoice::Auto => own_gpu(next),
        };
        let tune = self.tune_among(cluster, adapter.as_ref())?;
        let Some(adapter) = adapter else { return Ok(on_cpu()) };
        match self.open_gpu(&adapter, tune) {
            Err(why) if self.device == DeviceChoice::Auto => {
                warn!("note: {} cannot be used ({why:#}); computing on the CPU", adapter.name);
                Ok(on_cpu())
            }
            opened => opened.with_context(no_such),
        }
    }

    /// How this process chooses kernels. Several have to compute alike: with different kernels they would part in the
    /// last bits. So rank 0 measures, and the others take its choices before they compile.
    fn tune_among(&self, cluster: &dyn Cluster, adapter: Option<&gpu::Adapter>) -> anyhow::Result<gpu::Tune> {
        let is_wanted = adapter.is_some_and(|adapter| match self.tune {
            Tune::Auto => !adapter.software,
            Tune::On => true,
            Tune::Off => false,
        });
        let own = adapter.map_or("the CPU".into(), words);
        let all = if cluster.size() > 1 { cluster.gather(own.into_bytes())? } else { Vec::new() };
        if let Some(rank) = all.iter().position(|other| *other != all[0]) {
            if self.tune != Tune::Off {
                let [first, other] = [0, rank].map(|rank| String::from_utf8_lossy(&all[rank]));
                warn!(
                    "note: rank 0 computes on {first}, rank {rank} on {other}: kernels are not chosen by measuring"
                );
            }
            return Ok(gpu::Tune::Fixed);
        }
        Ok(if is_wanted && cluster.leads() { gpu::Tune::Measured } else { gpu::Tune::Fixed })
    }

    fn open_gpu(&self, adapter: &gpu::Adapter, tune: gpu::Tune) -> anyhow::Result<Box<dyn schedule::Device>> {
        let options = gpu::Options { precision: self.precision, tune, ..gpu::Options::default() };
        let device = gpu::GpuDevice::with_adapter(adapter, options)?;
        if tune == gpu::Tune::Measured {
            measuring::show(&device);
            if let Some(file) = kernels_file(adapter) {
                device.remember(file);
            }
        }
        let lacking = match self.precision {
            gpu::Precision::F32 => return Ok(Box::new(device)),
            gpu::Precision::Mixed => "16-bit floats",
            gpu::Precision::Split => {
                "matrix units that it takes (of 16x16x16 products, with 32 KiB of workgroup memory)"
            }
        };
        match device.precision() == self.precision {
            true => warn!("{}: multiplies in {}", adapter.name, device.multiplies_in()),
            false => warn!("{} has no {lacking}: computing in f32", adapter.name),
        }
        Ok(Box::new(device))
    }
}

/// Where what was measured of kernels is kept, if the user has a cache folder: for each adapter and driver a file.
pub fn kernels_folder() -> Option<PathBuf> {
    Some(dirs::cache_dir()?.join("sld").join("kernels"))
}

/// An adapter and its driver in words. Where these are the same, so are times.
fn words(adapter: &gpu::Adapter) -> String {
    format!("{} {} {}", adapter.name, adapter.backend, adapter.driver)
}

fn kernels_file(adapter: &gpu::Adapter) -> Option<PathBuf> {
    let words = words(adapter).to_lowercase();
    let words = words.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').filter(|word| !word.is_empty());
    let name = words.collect::<Vec<_>>().join("-");
    Some(kernels_folder()?.join(format!("{name}.json")))
}

/// A real GPU: of those there are the one that `next` says.
fn own_gpu(next: impl Fn(usize) -> usize) -> Option<gpu::Adapter> {
    let mut real: Vec<gpu::Adapter> =
        gpu::adapters().into_iter().filter(|adapter| !adapter.software).collect();
    match real.len() {
        0 => None,
        count => Some(real.swap_remove(next(count))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_shown_again() {
        let named = |name: &str| DeviceChoice::Gpu(Some(name.into()));
        for (text, choice, shown) in [
            ("auto", DeviceChoice::Auto, "auto"),
            ("CPU", DeviceChoice::Cpu, "cpu"),
            ("gpu", DeviceChoice::Gpu(None), "gpu"),
            ("gpu:RTX 4090", named("RTX 4090"), "gpu:RTX 4090"),
            ("GPU:1", named("1"), "gpu:1"),
            ("Nvidia", named("Nvidia"), "gpu:Nvidia"),
            ("gpu:AUTO", DeviceChoice::Spread, "gpu:auto"),
            ("0", named("0"), "gpu:0"),
        ] {
            assert_eq!(text.parse(), Ok(choice.clone()), "{text}");
            assert_eq!(choice.to_string(), shown);
        }
        for text in ["", "gpu:"] {
            assert!(text.parse::<DeviceChoice>().unwrap_err().contains("`sld devices` lists them"), "{text}");
        }
    }
}
