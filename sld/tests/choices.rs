//! How a run's kernels are computed is kept with the run: who goes on with it computes as before.

#[path = "batches/threads.rs"]
mod threads;

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use autograd::{Result, Variable, VariableStore};
use cpu::CpuDevice;
use schedule::{Device, Executable, Kernel, Options, Schedule};
use sld::augment::Normalization;
use sld::data::Dataset;
use sld::distill::Vanilla;
use sld::experiment::Experiment;
use sld::training::{Networks, RunData, Settings, Setup, Team, alike};
use threads::{Hub, Member};

/// A device with something to choose, that notes what happens to it.
struct Choosing {
    device: CpuDevice,
    precision: &'static str,
    choices: RefCell<String>,
    events: RefCell<Vec<String>>,
}

impl Choosing {
    fn new(choices: &str) -> Choosing {
        let (choices, events) = (RefCell::new(choices.into()), RefCell::default());
        Choosing { device: CpuDevice::new(1), precision: "f32", choices, events }
    }
}

impl Device for Choosing {
    fn name(&self) -> String {
        Device::name(&self.device)
    }
    fn options(&self) -> Options {
        Device::options(&self.device)
    }
    fn precision(&self) -> &'static str {
        self.precision
    }
    fn compile(&self, schedule: Schedule) -> Result<Box<dyn Executable>> {
        self.events.borrow_mut().push("compiled".into());
        Device::compile(&self.device, schedule)
    }
    fn source(&self, _: &Schedule, _: &Kernel) -> Result<Option<String>> {
        Ok(None)
    }
    fn choices(&self) -> String {
        self.choices.borrow().clone()
    }
    fn choose(&self, choices: &str) -> Result<()> {
        if choices.is_empty() {
            return Err(autograd::Error::Device("no choices".into()));
        }
        self.events.borrow_mut().push(format!("given {choices}"));
        *self.choices.borrow_mut() = choices.into();
        Ok(())
    }
}

impl VariableStore for Choosing {
    fn write(&self, variable: &Variable, values: &[f32]) -> Result<()> {
        self.device.write(variable, values)
    }
    fn read(&self, variable: &Variable) -> Result<Vec<f32>> {
        self.device.read(variable)
    }
}

/// Trains so many epochs in `folder`, or goes on there.
fn train(device: &dyn Device, folder: &Path, epochs: usize) -> anyhow::Result<()> {
    let student = nn::models::build("resnet8", 2, 0)?;
    let networks = Networks::new(student, None, &Vanilla {}, Setup::default())?;
    let pixels = (0..8 * 3072).map(|i| (i * 2_654_435_761_usize >> 13) as u8).collect();
    let (labels, classes) = ((0..8).map(|i| i % 2).collect(), vec!["a".into(), "b".into()]);
    let images = Arc::new(Dataset::new("drawn", (32, 32), pixels, labels, classes, Normalization::CIFAR10)?);
    let settings = Settings { epochs, batch_size: 4, workers: 1, ..Settings::default() };
    let team = Team::alone(device, &networks, &Vanilla {});
    Experiment::new(team, settings, RunData::of(images.clone(), images)).train_in(folder)?;
    Ok(())
}

#[test]
fn a_resumed_run_takes_its_choices_before_anything_is_compiled() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kernels.json");
    train(&Choosing::new("as in the run"), folder.path(), 1).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "as in the run");

    let other = Choosing::new("as measured today");
    train(&other, folder.path(), 2).unwrap();
    let events = other.events.borrow();
    assert_eq!(events[0], "given as in the run");
    assert!(events[1..].iter().all(|event| event == "compiled") && events.len() > 2, "{events:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "as in the run");

    std::fs::write(&file, "").unwrap();
    let why = format!("{:#}", train(&other, folder.path(), 3).unwrap_err());
    assert!(why.contains("kernels.json") && why.contains("no choices"), "{why}");
}

#[test]
fn all_processes_compute_as_rank_0_has_chosen() {
    let hub = Hub::new(2);
    let process = |rank: usize| {
        let member = Member { hub: Arc::clone(&hub), rank };
        let device = Choosing::new("fixed");
        alike::compile(&member, &device, || {
            device.events.borrow_mut().push("compiled".into());
            if rank == 0 {
                *device.choices.borrow_mut() = "measured".into();
            }
            Ok(())
        })
        .unwrap();
        device.events.into_inner()
    };
    let [first, second] = std::thread::scope(|scope| {
        let processes = [0, 1].map(|rank| scope.spawn(move || process(rank)));
        processes.map(|process| process.join().unwrap())
    });
    assert_eq!(first, ["compiled"]);
    assert_eq!(second, ["given measured", "compiled"]);
}

#[test]
fn a_device_without_choices_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    train(&CpuDevice::new(1), folder.path(), 1).unwrap();
    assert!(folder.path().join("latest").exists() && !folder.path().join("kernels.json").exists());
}

#[test]
fn a_run_in_another_precision_is_another_run() {
    let folder = tempfile::tempdir().unwrap();
    let mixed = Choosing { precision: "mixed", ..Choosing::new("") };
    train(&mixed, folder.path(), 1).unwrap();
    let why = format!("{:#}", train(&CpuDevice::new(1), folder.path(), 2).unwrap_err());
    assert!(why.contains("another precision: mixed there, f32 now"), "{why}");
    train(&mixed, folder.path(), 2).unwrap();
}
