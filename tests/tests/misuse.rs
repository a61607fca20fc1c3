//! Bad use gives an error that says what is wrong, never a panic, and leaves the device usable.

use autograd::{Error, Tensor, Variable, VariableStore};
use cpu::CpuDevice;
use schedule::{Device, Executable, Step, Value};

/// A device with a variable, and a step that was compiled before anything went wrong.
struct Bench {
    device: CpuDevice,
    variable: Variable,
    executable: Box<dyn Executable>,
}

const LABELS: [i32; 2] = [0, 1];
const IMAGE: [f32; 2] = [3.0, 4.0];

impl Bench {
    fn new() -> Bench {
        let device = CpuDevice::new(2);
        let variable = Variable::new("weight", &[2], vec![1.0, 2.0]).expect("two values");
        let x = Tensor::input("x", &[2]) * variable.tensor();
        let y = x + Tensor::input_i32("labels", &[2]).float();
        let executable = device.compile_step(&Step::new().output("y", &y)).expect("a good step");
        Bench { device, variable, executable }
    }

    /// What a good call gives is right, in the old step and in a new one.
    fn still_works(&mut self) {
        let good = [("x", Value::F32(&IMAGE)), ("labels", Value::I32(&LABELS))];
        self.executable.call(&good).expect("a good call");
        assert_eq!(self.executable.output("y").expect("an output"), [3.0, 9.0]);
        let sum = Step::new().output("sum", &self.variable.tensor().sum_all());
        let mut fresh = self.device.compile_step(&sum).expect("a good step");
        fresh.call(&[]).expect("a good call");
        assert_eq!(fresh.output("sum").expect("an output"), [3.0]);
        assert_eq!(self.device.read(&self.variable).expect("a variable"), [1.0, 2.0]);
    }

    /// The error of a step with this output.
    fn compile_error(&self, output: &Tensor) -> Error {
        match self.device.compile_step(&Step::new().output("bad", output)) {
            Ok(_) => panic!("{output:?} compiled"),
            Err(error) => error,
        }
    }
}

#[track_caller]
fn says(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "`{text}` does not say `{part}`");
    }
}

#[test]
fn shapes_that_do_not_fit_name_the_op_the_shapes_and_the_line() {
    let mut bench = Bench::new();
    let (a, b) = (Tensor::input("a", &[2, 3]), Tensor::input("b", &[4, 5]));
    // The expressions stand on one line, two below this one.
    let line = line!() + 2;
    let bad =
        [("matmul", a.matmul(&b)), ("add", &a + &b), ("reshape", a.reshape(&[7])), ("sum", a.sum(&[2]))];
    for (op, tensor) in bad {
        // What is built on it hands the first error on.
        let error = bench.compile_error(&(tensor.exp() * 2.0).sum_all());
        assert!(matches!(error, Error::Expression { .. }), "{error}");
        says(&error, &[op, "[2, 3]", &format!("misuse.rs:{line}:")]);
        if matches!(op, "matmul" | "add") {
            says(&error, &["`a` [2, 3]", "`b` [4, 5]"]);
        }
    }
    bench.still_works();
}

#[test]
fn types_that_do_not_fit() {
    let mut bench = Bench::new();
    let (x, labels) = (Tensor::input("x", &[2]), Tensor::input_i32("labels", &[2]));
    let bad =
        [("add", &x + &labels), ("exp", labels.exp()), ("one_hot", x.one_hot(3)), ("sum", labels.sum(&[0]))];
    for (op, tensor) in bad {
        let error = bench.compile_error(&tensor);
        assert!(matches!(error, Error::Expression { .. }), "{error}");
        says(&error, &[op, "misuse.rs:"]);
    }
    bench.still_works();
}

#[test]
fn inputs_that_are_missing_unknown_or_do_not_fit() {
    let mut bench = Bench::new();
    let (x, labels) = (("x", Value::F32(&IMAGE)), ("labels", Value::I32(&LABELS)));
    let calls: [(&str, &[(&str, Value)]); 8] = [
        ("labels", &[x]),
        ("picture", &[x, labels, ("picture", Value::F32(&IMAGE))]),
        ("x", &[("x", Value::F32(&IMAGE[..1])), labels]),
        ("x", &[("x", Value::F32(&[1.0, 2.0, 3.0])), labels]),
        ("x", &[("x", Value::I32(&LABELS)), labels]),
        ("labels", &[x, ("labels", Value::F32(&IMAGE))]),
        ("labels", &[x, ("labels", Value::I32(&[0, (1 << 24) + 1]))]),
        ("labels", &[x, ("labels", Value::I32(&[-(1 << 24) - 1, 0]))]),
    ];
    for (culprit, inputs) in calls {
        let error = bench.executable.call(inputs).expect_err("a bad call");
        assert!(matches!(&error, Error::Input { name, .. } if name == culprit), "{culprit}: {error}");
        bench.still_works();
    }
    // The largest that `f32` holds with all smaller ones.
    let largest = [x, ("labels", Value::I32(&[1 << 24, -(1 << 24)]))];
    bench.executable.call(&largest).expect("whole numbers up to 2^24");
    bench.still_works();
    let unknown = bench.executable.output("z").expect_err("no such output");
    says(&unknown, &["`z`", "`y`"]);
    bench.still_works();
}

#[test]
fn one_name_for_two_inputs() {
    let mut bench = Bench::new();
    let both = Tensor::input("x", &[2]).sum_all() + Tensor::input("x", &[3]).sum_all();
    let error = bench.compile_error(&both);
    says(&error, &["`x`", "[2]", "[3]", "misuse.rs:"]);
    bench.still_works();
}

#[test]
fn updates_that_contradict_or_do_not_fit() {
    let mut bench = Bench::new();
    let weight = bench.variable.clone();
    let value = weight.tensor() * 2.0;
    let twice = Step::new().update(&weight, &value).update(&weight, &(&value + 1.0));
    let error = bench.device.compile_step(&twice).err().expect("two updates of one variable");
    says(&error, &["`weight`", "twice"]);
    bench.still_works();

    let wide = Step::new().update(&weight, &Tensor::full(&[3], 1.0));
    let error = bench.device.compile_step(&wide).err().expect("an update of another shape");
    says(&error, &["weight[2]", "[3]", "misuse.rs:"]);
    bench.still_works();

    let same = Step::new().output("y", &value).output("y", &value);
    says(&bench.device.compile_step(&same).err().expect("two outputs of one name"), &["`y`"]);
    bench.still_works();
}

#[test]
fn values_that_may_not_be_written() {
    let mut bench = Bench::new();
    for (values, part) in [
        (&[1.0, f32::NAN][..], "position 1"),
        (&[f32::INFINITY, 1.0], "position 0"),
        (&[f32::NEG_INFINITY, 1.0], "position 0"),
        (&[1.0], "[2]"),
        (&[1.0, 2.0, 3.0], "[2]"),
    ] {
        let error = bench.device.write(&bench.variable, values).expect_err("a bad value");
        assert!(matches!(&error, Error::State { name, .. } if name == "weight"), "{error}");
        says(&error, &[part]);
        bench.still_works();
    }
    let short = Variable::new("short", &[2, 2], vec![0.0; 3]).expect_err("too few values");
    says(&short, &["`short`", "[2, 2]", "3"]);
}
