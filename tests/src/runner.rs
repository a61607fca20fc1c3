//! One way to run a test's expressions on everything that can run them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use autograd::{Tensor, Variable, evaluate_adjusted};
use schedule::{Buffer, Device, Executable, Options, Role, Step, Value};

use crate::adapter::{self, Shared};

/// What a test computes in one call.
#[derive(Clone, Default)]
pub struct Program {
    pub outputs: Vec<(String, Tensor)>,
    pub updates: Vec<(Variable, Tensor)>,
}

impl Program {
    pub fn new() -> Program {
        Program::default()
    }
    pub fn output(mut self, name: impl Into<String>, tensor: &Tensor) -> Program {
        self.outputs.push((name.into(), tensor.clone()));
        self
    }
    pub fn updates(mut self, updates: impl IntoIterator<Item = (Variable, Tensor)>) -> Program {
        self.updates.extend(updates);
        self
    }
}

/// A call's inputs by name.
#[derive(Clone, Default)]
pub struct Inputs {
    floats: HashMap<String, Vec<f32>>,
    integers: HashMap<String, Vec<i32>>,
}

impl Inputs {
    pub fn new() -> Inputs {
        Inputs::default()
    }
    pub fn f32(mut self, name: &str, values: Vec<f32>) -> Inputs {
        self.floats.insert(name.to_string(), values);
        self
    }
    pub fn i32(mut self, name: &str, values: Vec<i32>) -> Inputs {
        self.integers.insert(name.to_string(), values);
        self
    }
}

/// A call's outputs by name.
pub type Outputs = HashMap<String, Vec<f64>>;

/// Something that runs programs and keeps variables between them.
pub trait Runner {
    fn name(&self) -> String;
    /// Whether it computes in `f64`: then results must agree to the fixtures' own rounding.
    fn is_exact(&self) -> bool;
    fn write(&mut self, variable: &Variable, values: &[f32]);
    fn read(&self, variable: &Variable) -> Vec<f64>;
    /// Compiles once, calls once for each inputs.
    fn run(&mut self, program: &Program, calls: &[Inputs]) -> Vec<Outputs>;
}

/// The runners named in `wanted`: `reference` (plain `f64`), `cpu`, `gpu`. Where there is no adapter, which
/// is said aloud, `gpu` is left out (see [`adapter`]); Mesa's software driver is enough of one.
pub fn runners(wanted: &[&str]) -> Vec<Box<dyn Runner>> {
    let mut runners: Vec<Box<dyn Runner>> = Vec::new();
    for &name in wanted {
        match name {
            "reference" => runners.push(Box::new(Reference::default())),
            "cpu" => runners.push(Box::new(OnDevice::new(Box::new(cpu::CpuDevice::new(2))))),
            "gpu" => runners.extend(adapter::shared().map(OnDevice::in_turn)),
            other => panic!("there is no runner `{other}`"),
        }
    }
    runners
}

/// The plain `f64` evaluator.
#[derive(Default)]
pub struct Reference {
    state: HashMap<u64, Vec<f64>>,
}

impl Reference {
    /// Runs a program once. `adjust` sees each node's value as soon as it is known, and may change it for all that
    /// follows.
    pub fn step(
        &mut self,
        program: &Program,
        call: &Inputs,
        adjust: impl FnMut(&Tensor, &mut [f64]),
    ) -> Outputs {
        let mut inputs: HashMap<String, Vec<f64>> = HashMap::new();
        for (name, values) in &call.floats {
            inputs.insert(name.clone(), values.iter().map(|&v| v.into()).collect());
        }
        for (name, values) in &call.integers {
            inputs.insert(name.clone(), values.iter().map(|&v| v.into()).collect());
        }
        let outputs = program.outputs.iter().map(|output| output.1.clone());
        let wanted: Vec<Tensor> = outputs.chain(program.updates.iter().map(|u| u.1.clone())).collect();
        let evaluated = evaluate_adjusted(&wanted, &inputs, &self.state, &HashMap::new(), adjust);
        let mut values = evaluated.unwrap_or_else(|error| panic!("{error}"));
        let updated = values.split_off(program.outputs.len());
        for ((variable, _), value) in program.updates.iter().zip(updated) {
            self.state.insert(variable.id(), value);
        }
        program.outputs.iter().map(|output| output.0.clone()).zip(values).collect()
    }
}

impl Runner for Reference {
    fn name(&self) -> String {
        "f64 reference".into()
    }
    fn is_exact(&self) -> bool {
        true
    }
    fn write(&mut self, variable: &Variable, values: &[f32]) {
        self.state.insert(variable.id(), values.iter().map(|&v| v.into()).collect());
    }
    fn read(&self, variable: &Variable) -> Vec<f64> {
        match self.state.get(&variable.id()) {
            Some(values) => values.clone(),
            None => variable.initial().iter().map(|&v| v.into()).collect(),
        }
    }
    fn run(&mut self, program: &Program, calls: &[Inputs]) -> Vec<Outputs> {
        calls.iter().map(|call| self.step(program, call, |_, _| {})).collect()
    }
}

fn input_name(buffer: &Buffer) -> Option<String> {
    match &buffer.role {
        Role::Input { name, .. } => Some(name.clone()),
        _ => None,
    }
}

/// A device of the project.
pub struct OnDevice {
    device: Box<dyn Device>,
    options: Options,
    /// Held while something runs, where others run on the device as well.
    turn: Option<&'static Mutex<()>>,
}

impl OnDevice {
    pub fn new(device: Box<dyn Device>) -> OnDevice {
        OnDevice { options: device.options(), device, turn: None }
    }
    /// Schedules made otherwise than the device likes them.
    pub fn with_options(device: Box<dyn Device>, options: Options) -> OnDevice {
        OnDevice { device, options, turn: None }
    }

    /// On a GPU that tests of this binary share.
    fn in_turn(Shared { device, turn }: &'static Shared) -> Box<dyn Runner> {
        Box::new(OnDevice { options: device.options(), device: Box::new(device.clone()), turn: Some(turn) })
    }

    fn turn(&self) -> Option<MutexGuard<'static, ()>> {
        self.turn.map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Runner for OnDevice {
    fn name(&self) -> String {
        self.device.name()
    }
    fn is_exact(&self) -> bool {
        false
    }
    fn write(&mut self, variable: &Variable, values: &[f32]) {
        let _turn = self.turn();
        self.device.write(variable, values).unwrap_or_else(|error| panic!("{error}"));
    }
    fn read(&self, variable: &Variable) -> Vec<f64> {
        let _turn = self.turn();
        let values = self.device.read(variable).unwrap_or_else(|error| panic!("{error}"));
        values.into_iter().map(f64::from).collect()
    }
    fn run(&mut self, program: &Program, calls: &[Inputs]) -> Vec<Outputs> {
        let _turn = self.turn();
        let mut step = Step::new().updates(program.updates.iter().cloned());
        for (name, tensor) in &program.outputs {
            step = step.output(name, tensor);
        }
        let schedule = step.schedule_with(self.options).unwrap_or_else(|error| panic!("{error}"));
        let mut executable: Box<dyn Executable> =
            self.device.compile(schedule).unwrap_or_else(|error| panic!("{error}"));
        // Simplification may have left an input without a use, and then a device does not know it.
        let used: Vec<String> = executable.schedule().buffers.iter().filter_map(input_name).collect();
        let mut results = Vec::new();
        for call in calls {
            let floats = call.floats.iter().map(|(name, v)| (name.as_str(), Value::F32(v)));
            let integers = call.integers.iter().map(|(name, v)| (name.as_str(), Value::I32(v)));
            let given = floats.chain(integers).filter(|(name, _)| used.iter().any(|u| u == name));
            let inputs: Vec<(&str, Value)> = given.collect();
            executable.call(&inputs).unwrap_or_else(|error| panic!("{error}"));
            let mut outputs = Outputs::new();
            for (name, _) in &program.outputs {
                let values = executable.output(name).unwrap_or_else(|error| panic!("{error}"));
                outputs.insert(name.clone(), values.into_iter().map(f64::from).collect());
            }
            results.push(outputs);
        }
        results
    }
}
