//! Random expression graphs mean the same everywhere, and random views stay inside their buffers.
//!
//! `SLD_PROPERTY_CASES` sets the number of graphs (a tenth of them goes to the GPU as well),
//! `SLD_PROPERTY_SEED` the seed of the first: `SLD_PROPERTY_CASES=1 SLD_PROPERTY_SEED=7` repeats one.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use autograd::{Tensor, grad, nodes};
use schedule::{Body, Bound, BufferId, Instr, Options, Program, Role, Schedule, Step, Store, View};
use sld_tests::adapter;
use sld_tests::compare::relative;
use sld_tests::dice::Dice;
use sld_tests::graphs::{Graph, graph};
use sld_tests::primitives;
use sld_tests::runner::{OnDevice, Reference, Runner};

/// Random cases of each property.
const CASES: u64 = 100;
/// Operations that each graph tries.
const OPERATIONS: usize = 14;
/// Every so many graphs one goes to the GPU.
const ON_GPU: u64 = 10;
const TOLERANCE: f64 = 1e-5;

fn environment(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")),
        Err(_) => otherwise,
    }
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    let first = environment("SLD_PROPERTY_SEED", 0);
    first..first + environment("SLD_PROPERTY_CASES", count)
}

/// What differs from the reference; nothing if all agrees.
fn disagreement(case: &Graph, runner: &mut dyn Runner) -> Option<String> {
    let calls = std::slice::from_ref(&case.inputs);
    let mut reference = Reference::default();
    let expected = reference.run(&case.program, calls).remove(0);
    let ran = catch_unwind(AssertUnwindSafe(|| runner.run(&case.program, calls).remove(0)));
    let actual = match ran {
        Ok(outputs) => outputs,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            return Some(text.unwrap_or_else(|| "a panic".into()));
        }
    };
    let mut compared: Vec<(String, Vec<f64>, Vec<f64>)> = Vec::new();
    for (name, expected) in expected {
        compared.push((name.clone(), actual[&name].clone(), expected));
    }
    for variable in &case.variables {
        compared.push((variable.name().into(), runner.read(variable), reference.read(variable)));
    }
    compared.sort_by(|a, b| a.0.cmp(&b.0));
    let wrong = compared.into_iter().filter_map(|(name, actual, expected)| {
        let error = relative(&actual, &expected, 0.0);
        let head = |values: &[f64]| values.iter().take(8).copied().collect::<Vec<_>>();
        (error > TOLERANCE)
            .then(|| format!("{name}: {error:.2e}, is {:?}, should be {:?}", head(&actual), head(&expected)))
    });
    wrong.reduce(|all, one| format!("{all}\n{one}"))
}

/// The failures of a runner, each with the fewest operations that show it.
fn failures(seeds: impl Iterator<Item = u64>, mut runner: impl FnMut(u64) -> Box<dyn Runner>) -> Vec<String> {
    let mut found = Vec::new();
    for seed in seeds {
        let mut runner = runner(seed);
        if disagreement(&graph(seed, OPERATIONS), &mut *runner).is_none() {
            continue;
        }
        let smallest = (0..=OPERATIONS).find_map(|operations| {
            let case = graph(seed, operations);
            disagreement(&case, &mut *runner).map(|what| (operations, what, case.text))
        });
        let (operations, what, text) =
            smallest.unwrap_or((OPERATIONS, "not repeatable".into(), String::new()));
        found.push(format!("seed {seed}, {operations} operations, {}:\n{what}\n{text}", runner.name()));
        if found.len() == 5 {
            break;
        }
    }
    found
}

/// What the other tests say about random graphs they say about every primitive.
#[test]
fn random_graphs_have_every_primitive() {
    let mut found: BTreeSet<usize> = BTreeSet::new();
    for seed in seeds(CASES) {
        let program = graph(seed, OPERATIONS).program;
        let updates = program.updates.into_iter().map(|(_, value)| value);
        let roots = program.outputs.into_iter().map(|(_, output)| output).chain(updates);
        found.extend(nodes(roots).iter().map(|node| primitives::number(node.op())));
    }
    let missing: Vec<usize> = (1..primitives::COUNT).filter(|number| !found.contains(number)).collect();
    let is_partial = environment("SLD_PROPERTY_CASES", CASES) < CASES;
    assert!(missing.is_empty() || is_partial, "primitives in no graph, by `primitives::number`: {missing:?}");
}

fn cpu(options: Options) -> Box<dyn Runner> {
    Box::new(OnDevice::with_options(Box::new(cpu::CpuDevice::new(2)), options))
}

#[test]
fn random_graphs_agree_on_the_cpu() {
    let defaults = schedule::Device::options(&cpu::CpuDevice::new(1));
    let found = failures(seeds(CASES), |_| cpu(defaults));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn random_graphs_agree_on_the_cpu_without_fusion() {
    let found = failures(seeds(CASES), |_| cpu(Options { fuse: false, ..Options::default() }));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn random_graphs_agree_whatever_a_kernel_may_bind() {
    let found = failures(seeds(CASES), |seed| {
        let most = 4 + seed as usize % 9;
        cpu(Options { max_buffers: most, group_buffers: most, ..Options::default() })
    });
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn random_graphs_agree_on_the_gpu() {
    let options = gpu::Options { checked: true, ..Default::default() };
    let Some(device) = adapter::open(options) else { return };
    let seeds = seeds(CASES).filter(|seed| seed % ON_GPU == 0 || environment("SLD_PROPERTY_CASES", 0) == 1);
    let found = failures(seeds, |seed| {
        let device = Box::new(device.clone());
        let limits = schedule::Device::options(&*device);
        // Turns: as the device likes it, as WebGPU's least limits allow, and without fusion.
        let options = match seed / ON_GPU % 4 {
            0 | 1 => limits,
            2 => Options { max_buffers: 7, group_buffers: 7, ..limits },
            _ => Options { fuse: false, ..limits },
        };
        Box::new(OnDevice::with_options(device, options))
    });
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// A chain of views on `x`, with arithmetic and concatenations between them.
fn rearranged(dice: &mut Dice, x: &Tensor) -> Tensor {
    let mut y = x.clone();
    for _ in 0..dice.between(1, 9) {
        y = match dice.below(8) {
            0 => &y * 2.0 + 1.0,
            1 if y.rank() > 0 && y.len() < 300 => {
                let axis = dice.below(y.rank());
                let start = dice.below(y.dim(axis));
                let part = y.slice(axis, start, dice.between(1, y.dim(axis) - start), 1);
                let other = if dice.chance(2) { part.clone() } else { part.relu() };
                let parts = [&y, &part, &other, &y];
                let count = dice.between(2, 4);
                Tensor::concatenate(&parts[..count], axis)
            }
            _ => dice.view(&y, 600),
        };
    }
    y
}

/// All programs of a kernel with the spaces that they run over, and its stores.
fn spaces(body: &Body) -> Vec<(&[usize], &Program, &[Store])> {
    match body {
        Body::Map { parts } => parts.iter().map(|p| (&p.shape[..], &p.program, &p.stores[..])).collect(),
        Body::Reduce { shape, outer, program, finish, stores, .. } => {
            vec![(shape, program, &[]), (&shape[..*outer], finish, stores)]
        }
        Body::MatMul { lhs, rhs, epilogue, .. } | Body::Convolution { lhs, rhs, epilogue, .. } => vec![
            (&lhs.shape, &lhs.program, &[]),
            (&rhs.shape, &rhs.program, &[]),
            (&epilogue.shape, &epilogue.program, &epilogue.stores),
        ],
        Body::Pool { .. } | Body::AllReduce { .. } => vec![],
    }
}

fn indices(shape: &[usize]) -> Vec<Vec<i64>> {
    shape.iter().fold(vec![vec![]], |found, &size| {
        let longer = |index: Vec<i64>| (0..size as i64).map(move |i| [&index[..], &[i]].concat());
        found.into_iter().flat_map(longer).collect()
    })
}

fn affine(offset: i64, strides: &[i64], index: &[i64]) -> i64 {
    assert_eq!(strides.len(), index.len(), "a stride for each dim");
    offset + strides.iter().zip(index).map(|(s, i)| s * i).sum::<i64>()
}

fn exists(view: &View, index: &[i64]) -> bool {
    view.bounds
        .iter()
        .all(|Bound { offset, strides, extent }| (0..*extent).contains(&affine(*offset, strides, index)))
}

/// Checks every load and store of a schedule at every index; gives the loads with bounds it has seen.
fn check_views(schedule: &Schedule) -> Result<usize, String> {
    let mut bounded = 0;
    let mut written: BTreeMap<BufferId, HashSet<i64>> = BTreeMap::new();
    for kernel in schedule.prepare.iter().chain(&schedule.kernels) {
        let mut kernel_writes: BTreeMap<BufferId, HashSet<i64>> = BTreeMap::new();
        for (shape, program, stores) in spaces(&kernel.body) {
            let indices = indices(shape);
            let within = |buffer: BufferId, view: &View, index: &[i64]| {
                let at = affine(view.offset, &view.strides, index);
                let len = schedule.buffers[buffer].len();
                if (0..len as i64).contains(&at) {
                    return Ok(at);
                }
                let label = &kernel.label;
                Err(format!("`{label}` over {shape:?}: element {at} of {len} at {index:?} by {view:?}"))
            };
            for instr in &program.instrs {
                let Instr::Load { buffer, view } = instr else { continue };
                bounded += usize::from(!view.bounds.is_empty());
                for index in indices.iter().filter(|index| exists(view, index)) {
                    within(*buffer, view, index)?;
                }
            }
            for store in stores {
                let elements = kernel_writes.entry(store.buffer).or_default();
                for index in &indices {
                    if !elements.insert(within(store.buffer, &store.view, index)?) {
                        return Err(format!("`{}` writes an element twice: {:?}", kernel.label, store.view));
                    }
                }
            }
        }
        for (buffer, elements) in kernel_writes {
            written.entry(buffer).or_default().extend(elements);
        }
    }
    for (buffer, elements) in written {
        let len = schedule.buffers[buffer].len();
        if elements.len() != len {
            return Err(format!("{} of {len} elements of buffer {buffer} are written", elements.len()));
        }
    }
    Ok(bounded)
}

/// Checks that every kernel finds in memory what it reads: written before, and not overwritten since.
fn check_memory(schedule: &Schedule) -> Result<(), String> {
    let slot = |buffer: BufferId| match schedule.buffers[buffer].role {
        Role::Temporary { slot } => Some(slot),
        _ => None,
    };
    let mut written: HashSet<BufferId> = HashSet::new();
    let mut holds: BTreeMap<usize, BufferId> = BTreeMap::new();
    for kernel in schedule.prepare.iter().chain(&schedule.kernels) {
        let (reads, writes, label) = (kernel.reads(), kernel.writes(), &kernel.label);
        for &buffer in &reads {
            let made = matches!(
                schedule.buffers[buffer].role,
                Role::Temporary { .. } | Role::Prepared | Role::Output
            );
            if made && !written.contains(&buffer) {
                return Err(format!("`{label}` reads buffer {buffer} before it is written"));
            }
            if slot(buffer).is_some_and(|slot| holds[&slot] != buffer) {
                return Err(format!("`{label}` reads buffer {buffer}, which was overwritten"));
            }
        }
        // Only maps may overwrite what they read.
        let is_map = matches!(kernel.body, Body::Map { .. });
        let taken: HashSet<usize> = reads.iter().filter_map(|&b| slot(b)).collect();
        for &buffer in &writes {
            let same = reads.contains(&buffer) || slot(buffer).is_some_and(|slot| taken.contains(&slot));
            if same && !is_map {
                return Err(format!("`{label}` overwrites buffer {buffer} while it reads it"));
            }
            holds.extend(slot(buffer).map(|slot| (slot, buffer)));
        }
        written.extend(writes);
    }
    Ok(())
}

#[test]
fn random_schedules_read_what_was_written() {
    for seed in seeds(CASES) {
        let case = graph(seed, OPERATIONS);
        let mut step = Step::new().updates(case.program.updates);
        for (name, output) in &case.program.outputs {
            step = step.output(name, output);
        }
        for (fuse, most) in [(true, 24), (true, 4 + seed as usize % 9), (false, 8)] {
            let schedule = step
                .schedule_with(Options { fuse, max_buffers: most, group_buffers: most, ..Options::default() })
                .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let checked = check_memory(&schedule);
            checked.unwrap_or_else(|message| panic!("seed {seed}: {message}\n{}", schedule.table()));
        }
    }
}

#[test]
fn random_views_stay_inside_their_buffers() {
    let mut bounded = 0;
    for seed in seeds(CASES) {
        let mut dice = Dice::new(seed);
        let rank = dice.between(1, 4);
        let x = Tensor::input("x", &(0..rank).map(|_| dice.between(1, 6)).collect::<Vec<_>>());
        let y = rearranged(&mut dice, &x);
        let z = rearranged(&mut dice, &y);
        let sum = z.sum(&(0..z.rank()).filter(|_| dice.chance(2)).collect::<Vec<_>>());
        let row = z.reshape(&[1, z.len()]);
        let product = row.matmul(&row.transpose());
        let gradient = grad(&(&z * &z).sum_all(), std::slice::from_ref(&x)).remove(0);
        let step = Step::new()
            .output("y", &y)
            .output("z", &z)
            .output("sum", &sum)
            .output("gradient", &gradient)
            .output("product", &product);
        for (fuse, max_buffers) in [(true, 24), (true, 4), (false, 8)] {
            let schedule = step
                .schedule_with(Options {
                    fuse,
                    max_buffers,
                    group_buffers: max_buffers,
                    ..Options::default()
                })
                .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            bounded += check_views(&schedule).unwrap_or_else(|message| panic!("seed {seed}: {message}"));
        }
    }
    assert!(
        bounded > 100 || environment("SLD_PROPERTY_CASES", CASES) < CASES,
        "only {bounded} loads had bounds"
    );
}
