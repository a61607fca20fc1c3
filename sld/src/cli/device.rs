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
}
