//! Which device computes: `--device auto|cpu|gpu|gpu:NAME`.

use std::fmt;
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
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        match (lower.as_str(), lower.strip_prefix("gpu:")) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("gpu", _) => Ok(Self::Gpu(None)),
            (_, Some("")) => {
                Err("name the GPU after the colon, such as gpu:nvidia; `sld devices` lists them".into())
            }
            (_, Some(_)) => Ok(Self::Gpu(Some(text["gpu:".len()..].to_owned()))),
            _ => Err("choose auto, cpu, gpu or gpu:NAME; `sld devices` lists what there is".into()),
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
        }
    }
}

/// The options of every command that computes.
#[derive(Debug, Clone, clap::Args)]
pub struct DeviceArgs {
    /// Where to compute: auto, cpu, gpu or gpu:NAME (part of a name that `sld devices` shows).
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: DeviceChoice,
    /// CPU threads; one for each core if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: Option<u32>,
    /// What convolutions and matrix products of a GPU multiply in: f32, or mixed (operands rounded to 16
    /// bits, sums and weights in f32).
    #[arg(long, value_name = "PRECISION", default_value_t)]
    pub precision: gpu::Precision,
}

impl DeviceArgs {
    /// Opens the device. `auto` takes a real GPU where there is one, else the CPU.
    ///
    /// # Errors
    /// No such GPU, or its driver refuses; the message lists what there is or says what to install.
    pub fn open(&self) -> anyhow::Result<Box<dyn autograd::Device>> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.threads.map_or(cores, |n| n as usize);
        let adapter = match &self.device {
            DeviceChoice::Cpu => None,
            DeviceChoice::Gpu(wanted) => Some(gpu::choose(wanted.as_deref())?),
            DeviceChoice::Auto => gpu::adapters().into_iter().find(|adapter| !adapter.software),
        };
        let mixed = self.precision == gpu::Precision::Mixed;
        let Some(adapter) = adapter else {
            if mixed {
                eprintln!("the CPU device computes in f32: --precision mixed changes nothing");
            }
            return Ok(Box::new(cpu::CpuDevice::new(threads)));
        };
        let options = gpu::Options { precision: self.precision, ..gpu::Options::default() };
        let device = gpu::GpuDevice::with_adapter(&adapter, options)?;
        if mixed {
            match device.is_mixed() {
                true => eprintln!("{}: multiplies in {}", adapter.name, device.multiplies_in()),
                false => eprintln!("{} has no 16-bit floats: computing in f32", adapter.name),
            }
        }
        Ok(Box::new(device))
    }
}
