//! What a training costs on the thread that feeds the device, beside the device's own time: batches taken from the
//! loader and given back, checks, inputs handed over, metrics, progress, logs. The device does nothing.
//!
//! `cargo bench --workspace --bench trainer`; `-- resnet56 resnet20 256` for another pair and batch.

use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use autograd::{Result, Variable, VariableStore};
use schedule::backend::{self, Backend, Compiled, State, Variables};
use schedule::pending::at_once;
use schedule::{BufferId, Communicator, Options, Pending, Role, Schedule};
use sld::data::synthetic::{self, SyntheticConfig};
use sld::distill::Sld;
use sld::experiment::Experiment;
use sld::training::{Networks, RunData, Settings, Setup, Team};

/// The thread's processor time at the begin of every training step's kernels.
type Calls = Rc<RefCell<Vec<Duration>>>;

fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A device whose kernels take no time. Inputs are copied, as a card's driver does; outputs are zeros.
#[derive(Clone, Default)]
struct Idle {
    state: Rc<State<Vec<f32>>>,
    calls: Calls,
}

impl Backend for Idle {
    type Memory = Vec<f32>;
    type Compiled = Nothing;

    fn name(&self) -> String {
        "a device that does nothing".into()
    }
    fn options(&self) -> Options {
        Options::default()
    }
    fn state(&self) -> &State<Vec<f32>> {
        &self.state
    }
    fn allocate(&self, variable: &Variable) -> Result<Vec<f32>> {
        Ok(vec![0.0; variable.len()])
    }
    fn copy_in(&self, memory: &mut Vec<f32>, values: &[f32]) -> Result<()> {
        memory.copy_from_slice(values);
        Ok(())
    }
    fn copy_out(&self, memory: &Vec<f32>, _: usize) -> Result<Pending<Vec<f32>>> {
        Ok(at_once(Ok(memory.clone())))
    }
    fn compile(&self, schedule: &Schedule, _: &mut Variables<Idle>) -> Result<Nothing> {
        let is_input = |role: &Role| matches!(role, Role::Input { .. });
        let len = |b: &schedule::Buffer| if is_input(&b.role) { b.len() } else { 0 };
        let inputs = schedule.buffers.iter().map(|b| vec![0.0; len(b)]).collect();
        let is_training = !schedule.updated.is_empty();
        Ok(Nothing { inputs, calls: is_training.then(|| self.calls.clone()) })
    }
}

impl VariableStore for Idle {
    fn write(&self, variable: &Variable, values: &[f32]) -> Result<()> {
        backend::write(self, variable, values)
    }
    fn read(&self, variable: &Variable) -> Result<Vec<f32>> {
        backend::read(self, variable)
    }
}

struct Nothing {
    inputs: Vec<Vec<f32>>,
    /// Of a training step.
    calls: Option<Calls>,
}

impl Compiled for Nothing {
    fn copy_in(&mut self, buffer: BufferId, values: &[f32]) -> Result<()> {
        self.inputs[buffer].copy_from_slice(values);
        black_box(&self.inputs[buffer]);
        Ok(())
    }
    fn copy_out(&mut self, _: BufferId, len: usize) -> Result<Pending<Vec<f32>>> {
        Ok(at_once(Ok(vec![0.0; len])))
    }
    fn run(&mut self, _: bool, _: &dyn Communicator) -> Result<()> {
        self.calls.iter().for_each(|calls| calls.borrow_mut().push(processor_time()));
        Ok(())
    }
    fn profile(&mut self, _: bool) -> Result<Pending<Vec<(String, f64)>>> {
        Ok(at_once(Ok(Vec::new())))
    }
    fn bytes(&self) -> u64 {
        0
    }
}

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let word = |at: usize, default: &'static str| words.get(at).map_or(default, |word| word.as_str());
    let (teacher, student, batch) = (word(0, "wrn_16_2"), word(1, "wrn_16_1"), word(2, "64"));
    let device = Idle::default();
    let images = synthetic::generate(&SyntheticConfig::default())?;
    let classes = images.train.classes().len();
    let build = |name: &str| nn::models::build(name, classes, 1);
    let (method, setup) = (Sld::default(), Setup { images: images.train.len(), ..Setup::default() });
    let networks = Networks::new(build(student)?, Some(build(teacher)?), &method, setup)?;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let settings = Settings { epochs: 2, batch_size: batch.parse()?, workers, ..Settings::default() };
    let team = Team::alone(&device, &networks, &method);
    let folder = tempfile::tempdir()?;
    Experiment::new(team, settings, RunData::of(images.train, images.test)).train_in(folder.path())?;

    let calls = device.calls.borrow();
    let passed = |pair: &[Duration]| (pair[1] - pair[0]).as_secs_f64() * 1e6;
    let mut times: Vec<f64> = calls.windows(2).map(passed).collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[(times.len() as f64 * share) as usize];
    println!(
        "{teacher} -> {student}, batch {batch}, {} steps: median {:.1} us, lower quartile {:.1}, upper {:.1}",
        calls.len(),
        at(0.5),
        at(0.25),
        at(0.75)
    );
    Ok(())
}
