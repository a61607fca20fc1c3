//! Every operation of the language, forward and gradients, on the GPU device: against float64 and
//! against the CPU device, as the program opens the adapter and within what WebGPU guarantees everywhere.

use std::time::Instant;

use gpu::Options;
use schedule::Device;
use sld_tests::adapter;
use sld_tests::compare::relative;
use sld_tests::operations::{Case, Values, fixture_cases, own_cases};

/// A case and what is right: PyTorch's results, or those of the f64 evaluator where there are none.
struct Expected {
    case: Case,
    float64: (Values, Values),
    cpu: (Values, Values),
}

fn expected() -> Vec<Expected> {
    let cpu = cpu::CpuDevice::new(2);
    let of = |case: Case, float64| {
        let on_cpu = case.run(&cpu, cpu.options()).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        Expected { case, float64, cpu: on_cpu }
    };
    let from_fixture = fixture_cases().into_iter().map(|mut case| {
        let float64 = (std::mem::take(&mut case.outputs), std::mem::take(&mut case.gradients));
        of(case, float64)
    });
    let own = own_cases().into_iter().map(|case| {
        let float64 = case.reference();
        of(case, float64)
    });
    from_fixture.chain(own).collect()
}

/// The most that a device may be off from what is right, of the tensor's norm.
const MOST: f64 = 1e-5;

/// What of `actual` is further than `most` of the tensor's norm from `expected`.
fn misses(what: &str, actual: &Values, expected: &Values, most: f64) -> Vec<String> {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let errors = expected.iter().map(|(name, expected)| {
        let actual = actual.get(name).unwrap_or_else(|| panic!("{what}: no {name}"));
        (name, relative(actual, expected, 0.0))
    });
    errors
        .filter(|(_, error)| *error > most)
        .map(|(name, error)| format!("{what} {name}: {error:.2e}"))
        .collect()
}

#[test]
fn the_gpu_device_agrees_with_float64_and_the_cpu_device() {
    let table = &expected();
    assert!(table.len() >= 250, "only {} cases", table.len());
    let configurations = [
        ("the adapter's own limits and features", Options::default()),
        ("WebGPU's default limits", Options { webgpu_limits: true, checked: true, ..Options::default() }),
    ];
    // Side by side: a software driver compiles the kernels of one device on one thread.
    std::thread::scope(|scope| {
        for (name, options) in configurations {
            scope.spawn(move || check(name, options, table));
        }
    });
}

fn check(name: &str, options: Options, table: &[Expected]) {
    let start = Instant::now();
    let Some(device) = adapter::open(options) else { return };
    let mut failures = Vec::new();
    for Expected { case, float64, cpu } in table {
        let (outputs, gradients) =
            case.run(&device, device.options()).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let what = |part: &str| format!("{} {part}", case.name);
        failures.extend(misses(&what("of float64, out"), &outputs, &float64.0, MOST));
        failures.extend(misses(&what("of float64, grad"), &gradients, &float64.1, MOST));
        // Each may be off to its side.
        failures.extend(misses(&what("of the CPU, out"), &outputs, &cpu.0, 2.0 * MOST));
        failures.extend(misses(&what("of the CPU, grad"), &gradients, &cpu.1, 2.0 * MOST));
    }
    assert!(failures.is_empty(), "{name}\n{}", failures.join("\n"));
    println!("{} cases agree with {name}, {:.1} s", table.len(), start.elapsed().as_secs_f64());
}
