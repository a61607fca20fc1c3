//! Batches computed in parts, and in several processes: the same step as in one, odd last batches and continuing
//! included. The processes are threads here.

mod process;
mod threads;

use autograd::tensor::Transfer;
use nn::Model;
use nn::checkpoint::Checkpoint;
use process::{ALONE, CLASSES, How, Trained, data, distance, numbers, plain, settings, trained_by};
use schedule::Alone;
use sld::distill::{Crd, Distiller, FitNet, Kd, Ofd, Sld, Vanilla};
use sld::training::{Memory, Metric, Networks, RunData, Settings, Setup, Team, Trainer};
use threads::{Hub, Member};

/// What all processes together make of it: see [`trained_by`].
fn trained(
    make: impl Fn(u64) -> Model + Sync,
    method: &dyn Distiller,
    how: How,
    latest: Option<Checkpoint>,
    until: u64,
) -> Trained {
    let hub = Hub::new(how.processes);
    let process = |rank| {
        let member = Member { hub: hub.clone(), rank };
        trained_by(&member, &make, method, how, latest.clone(), until)
    };
    match how.processes {
        1 => trained_by(&Alone, &make, method, how, latest, until),
        _ => std::thread::scope(|scope| {
            let process = &process;
            let threads: Vec<_> = (0..how.processes).map(|rank| scope.spawn(move || process(rank))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).next().flatten()
        }),
    }
    .expect("something was saved")
}

fn assert_same_metrics(a: &[(Metric, f64)], b: &[(Metric, f64)], tolerance: f64) {
    for ((metric, a), (other, b)) in a.iter().zip(b) {
        assert_eq!(metric, other);
        assert!((a - b).abs() <= tolerance * a.abs().max(1.0), "{metric:?} is {b} and not {a}");
    }
}

fn resnet(seed: u64) -> Model {
    nn::models::build("resnet8", CLASSES, seed).unwrap()
}

/// Losses that are means over images: the same however batches are shared out, also by an optimizer that wants
/// the gradients of two.
#[test]
fn however_batches_are_shared_out_the_step_is_the_same_without_batch_norm() {
    let methods: [(&dyn Distiller, Option<f64>, bool); 4] = [
        (&Vanilla {}, None, true),
        (&Kd::default(), None, false),
        (&Kd::default(), Some(0.075), true),
        (&Sld::default(), None, false),
    ];
    for (method, dot, mixed) in methods {
        let alone = How { dot, mixed, ..ALONE };
        let (whole, metrics) = trained(plain, method, alone, None, u64::MAX);
        // Parts of equal size; of sizes 4, 3 and 3; of one image, where the last batch has empty ones.
        for (processes, parts) in [(1, 2), (1, 3), (1, 10), (2, 1), (3, 1), (5, 1), (2, 2), (3, 2), (2, 5)] {
            let (shared, same) = trained(plain, method, How { processes, parts, ..alone }, None, u64::MAX);
            let apart = distance(&whole, &shared);
            assert!(apart < 2e-6, "{}: {processes}x{parts} parts are {apart:e} away", method.name());
            assert_same_metrics(&metrics, &same, 1e-5);
        }
    }
}

/// Batch norm sees the parts, so that the result is another, but a definite one: it is the same after a stop
/// between any two steps.
#[test]
fn a_run_in_parts_goes_on_bit_for_bit() {
    let method = Kd::default();
    let (whole, _) = trained(resnet, &method, ALONE, None, u64::MAX);
    for how in [How { parts: 3, ..ALONE }, How { processes: 2, ..ALONE }, How { mixed: true, ..ALONE }] {
        let (in_parts, metrics) = trained(resnet, &method, how, None, u64::MAX);
        assert!(distance(&whole, &in_parts) > 1e-4, "batch norm sees the parts, or images are mixed");
        for step in [2, 4] {
            let (stopped, _) = trained(resnet, &method, how, None, step);
            let (resumed, same) = trained(resnet, &method, how, Some(stopped), u64::MAX);
            assert!(numbers(&resumed) == numbers(&in_parts), "stopped after step {step}");
            assert_eq!(metrics, same);
        }
    }
}

/// With statistics of all processes' images a network with batch norm is trained as by one process, also where
/// a process has no image of its own, by two views, and by another number of processes after a stop. So are a
/// method's own layers, and a teacher whose statistics move.
#[test]
fn synchronized_batch_norm_is_that_of_one_process() {
    let hints = FitNet { feat_weight: 1.0, ..FitNet::default() };
    let methods: [&dyn Distiller; 4] = [&Kd::default(), &Sld::default(), &hints, &Ofd::default()];
    for method in methods {
        // Slowly, or rounding errors grow from step to step.
        let alone = How { rate: 0.001, ..ALONE };
        let (whole, metrics) = trained(resnet, method, alone, None, u64::MAX);
        let (apart, _) = trained(resnet, method, How { processes: 2, ..alone }, None, u64::MAX);
        let own_statistics = distance(&whole, &apart);
        // (A value near a kink, ReLU's or OFD's margin, may fall on its other side: in some runs a small step away.)
        let near = own_statistics / 50.0;
        for processes in [3, 5] {
            let how = How { processes, sync_batch_norm: true, ..alone };
            let (shared, same) = trained(resnet, method, how, None, u64::MAX);
            let apart = distance(&whole, &shared);
            assert!(apart < near, "{}: {processes} processes are {apart:e} away", method.name());
            assert_same_metrics(&metrics, &same, 1e-3);
            let (stopped, _) = trained(resnet, method, how, None, 2);
            let other = How { processes: 7 - processes, ..how };
            let (resumed, _) = trained(resnet, method, other, Some(stopped), u64::MAX);
            let apart = distance(&whole, &resumed);
            assert!(apart < near, "{} by {} processes: {apart:e} away", method.name(), other.processes);
        }
    }
}

/// What a method remembers of every image is the same in all processes, whoever met the image.
#[test]
fn memories_are_those_of_one_process() {
    let method = Crd { dim: 8, student_dim: 12, teacher_dim: 12, negatives: 4, ..Crd::default() };
    let (whole, metrics) = trained(plain, &method, ALONE, None, u64::MAX);
    for (processes, parts) in [(2, 1), (3, 1), (5, 1)] {
        let how = How { processes, parts, ..ALONE };
        let (shared, same) = trained(plain, &method, how, None, u64::MAX);
        let apart = distance(&whole, &shared);
        assert!(apart < 2e-6, "{processes} processes are {apart:e} away");
        assert_same_metrics(&metrics, &same, 1e-5);
        let (stopped, _) = trained(plain, &method, how, None, 2);
        let (resumed, _) = trained(plain, &method, How { processes: 2, ..how }, Some(stopped), u64::MAX);
        let apart = distance(&whole, &resumed);
        assert!(apart < 2e-6, "resumed by 2 of {processes}: {apart:e} away");
    }
}

/// Gradients of 16 bits: near, and not the same.
#[test]
fn gradients_may_travel_in_16_bits() {
    let (whole, _) = trained(plain, &Vanilla {}, ALONE, None, u64::MAX);
    let half = How { processes: 2, transfer: Transfer::Bf16, ..ALONE };
    let (rounded, _) = trained(plain, &Vanilla {}, half, None, u64::MAX);
    let apart = distance(&whole, &rounded);
    assert!((1e-6..1e-2).contains(&apart), "{apart:e} away");
}

/// A device that refuses a batch for want of memory: the message proposes parts that fit, and they do.
#[test]
fn what_does_not_fit_is_told_with_the_parts_that_do() {
    let images = data(64);
    let begin = |most_bytes: Option<u64>, accumulate: usize| {
        let device = cpu::CpuDevice::with_memory(1, most_bytes);
        let student = resnet(1);
        let networks = Networks::new(student, None, &Vanilla {}, Setup::default()).unwrap();
        let settings = Settings { batch_size: 64, ..settings(How { parts: accumulate, ..ALONE }) };
        let memory = Memory::of_training(&device, &networks, &Vanilla {}, 64, accumulate, [32, 32]).unwrap();
        let team = Team::alone(&device, &networks, &Vanilla {});
        let trainer = Trainer::new(team, settings, RunData::of(images.clone(), images.clone()));
        let beside_state = |trainer: Trainer| trainer.device_bytes() - networks.state_bytes();
        (memory, trainer.map(beside_state).map_err(|why| format!("{why:#}")))
    };
    let (whole, made) = begin(None, 1);
    made.unwrap();
    let (quarter, made) = begin(None, 4);
    assert!(quarter.step < whole.step / 3, "{quarter:?} and {whole:?}");
    // Parts take the sums of their gradients, which are state here. A device keeps packed weights beside it all.
    let least = quarter.total() - whole.state;
    let held = made.unwrap();
    assert!((least..2 * least).contains(&held), "{held} bytes, not {least}");
    // Room for a quarter of the batch, not for a half.
    let room = quarter.step + quarter.step / 4;
    let (_, refused) = begin(Some(room), 1);
    let why = refused.unwrap_err();
    assert!(why.contains("SOLVER.ACCUMULATE 4 fits") && why.contains("out of memory: a step needs"), "{why}");
    begin(Some(room), 4).1.unwrap();
    // From two parts on; and room for a sixth, where the next number of parts tried is eight.
    assert!(begin(Some(room), 2).1.unwrap_err().contains("SOLVER.ACCUMULATE 4 fits"));
    let sixth = begin(None, 6).0.step;
    assert!(begin(Some(sixth + sixth / 20), 1).1.unwrap_err().contains("SOLVER.ACCUMULATE 8 fits"));
    assert!(begin(Some(1 << 16), 1).1.unwrap_err().contains("in however many parts"));
}
