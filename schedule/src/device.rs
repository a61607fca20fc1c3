//! What a device is to the rest of the project: something that compiles a schedule and keeps state.

use crate::communicator::{Alone, Communicator};
use crate::ir::{Kernel, Schedule};
use crate::pending::{self, Pending};
use crate::step::{Options, Step};
use autograd::{Result, VariableStore};

/// One input of a call.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// Row-major.
    F32(&'a [f32]),
    /// Labels and indices, at most 2^24 in magnitude: devices hold them as `f32`.
    I32(&'a [i32]),
}

impl Value<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Value::F32(v) => v.len(),
            Value::I32(v) => v.len(),
        }
    }
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A device: compiles schedules, and owns the state (parameters, momentum, running statistics) that
/// all its compiled steps share. State is keyed by [`Variable::id`](autograd::Variable::id).
pub trait Device: VariableStore {
    /// A name for people: `CPU (2 threads, AVX-512)` or the adapter's name.
    fn name(&self) -> String;

    /// How schedules for this device are best made.
    fn options(&self) -> Options;

    /// In what precision convolutions and matrix products multiply, in a word: a run that goes on in another is another
    /// run.
    fn precision(&self) -> &'static str {
        "f32"
    }

    /// Schedules a step with this device's options and compiles it.
    fn compile_step(&self, step: &Step) -> Result<Box<dyn Executable>> {
        self.compile(step.schedule_with(self.options())?)
    }

    /// Makes a runnable program. State named by the schedule and not yet on the device is created
    /// with the variable's initial value.
    fn compile(&self, schedule: Schedule) -> Result<Box<dyn Executable>>;

    /// How the kernels of all steps compiled so far are computed, where there are several ways: to be kept with a
    /// run, whose last bits depend on it. Empty where there is nothing to choose.
    fn choices(&self) -> String {
        String::new()
    }

    /// Computes kernels as these [`choices`](Device::choices) say, in steps compiled from now on.
    ///
    /// # Errors
    /// [`Error::Device`](autograd::Error::Device) for a text that is not this device's.
    fn choose(&self, _choices: &str) -> Result<()> {
        Ok(())
    }

    /// The program text that this device runs for a kernel of the schedule, to be read by people; `None`
    /// if its kernels are part of the device.
    fn source(&self, schedule: &Schedule, kernel: &Kernel) -> Result<Option<String>>;

    /// A table of what a call of the schedule launches on this device, kernel by kernel, for people; `None` if its kernels
    /// are part of the device.
    fn launches(&self, _schedule: &Schedule) -> Result<Option<String>> {
        Ok(None)
    }
}

/// A compiled step.
pub trait Executable {
    /// Runs one step, in one process. All inputs must be given, by name. After an error the executable and
    /// the device are still usable.
    fn call(&mut self, inputs: &[(&str, Value)]) -> Result<()> {
        self.call_among(inputs, &Alone)
    }

    /// The same as one of several processes, which all run the same program.
    fn call_among(&mut self, inputs: &[(&str, Value)], processes: &dyn Communicator) -> Result<()>;

    /// Reads an output of the latest call (waits for it on an asynchronous device).
    fn output(&mut self, name: &str) -> Result<Vec<f32>> {
        pending::wait(self.output_async(name))
    }

    /// The same where nothing may wait: in a browser. What is called before it is awaited does not change it.
    fn output_async(&mut self, name: &str) -> Pending<Vec<f32>>;

    /// Bytes this executable holds (temporaries, outputs, prepared buffers, scratch), without state.
    fn bytes(&self) -> u64;

    /// Per-kernel seconds of one more call with the same inputs, in kernel order, where the device
    /// can measure them.
    fn profile(&mut self) -> Result<Vec<(String, f64)>> {
        pending::wait(self.profile_async())
    }

    /// The same where nothing may wait: in a browser.
    fn profile_async(&mut self) -> Pending<Vec<(String, f64)>>;

    /// The schedule this was compiled from.
    fn schedule(&self) -> &Schedule;
}
