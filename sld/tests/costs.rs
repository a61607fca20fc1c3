//! What trainings cost: steps that are timed, where their time goes, what a run will take, and memory for people.

use nn::checkpoint::Checkpoint;
use nn::models;
use nn::{Rule, Schedule};
use sld::augment::Normalization;
use sld::data::Dataset;
use sld::distill::{Distiller, FitNet, Sld, Vanilla};
use sld::training::memory::shown;
use sld::training::snapshot::Progress;
use sld::training::timing::{Effort, Subject, Timing, time};
use sld::training::{
    Changed, EpochResult, Evaluator, Expected, Memory, Networks, Observer, RunData, Settings, Setup,
    StepResult, Team, Trainer,
};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);
const EFFORT: Effort = Effort { batch: 3, side: 32, iterations: 3, patience: HOUR, profile: false };

#[test]
fn iterations_end_by_their_number_or_with_the_patience() {
    let device = cpu::CpuDevice::new(1);
    let iterations = |iterations, patience| {
        let begun = Instant::now();
        let effort = Effort { iterations, patience, ..EFFORT };
        let timing = time(&device, &Subject::Evaluate("resnet8".into()), effort).unwrap();
        let (sum, all) = (timing.milliseconds.iter().sum::<f64>(), begun.elapsed().as_secs_f64() * 1e3);
        assert!(0.0 < sum && sum <= all, "{sum} of {all} ms");
        timing.milliseconds.len()
    };
    assert_eq!(
        [(2, HOUR), (7, HOUR), (7, Duration::ZERO)].map(|(n, patience)| iterations(n, patience)),
        [2, 7, 3]
    );
}

#[test]
fn a_profile_is_of_the_whole_step() {
    let device = cpu::CpuDevice::new(1);
    let pair =
        Subject::Distill { method: "SLD".into(), teacher: "resnet14".into(), student: "resnet8".into() };
    for subject in [Subject::Vanilla("resnet8".into()), pair] {
        let timing = time(&device, &subject, Effort { profile: true, ..EFFORT }).unwrap();
        assert_eq!((timing.images, timing.milliseconds.len()), (3, 3));
        let profile = &timing.profile;
        assert_eq!(profile.iter().map(|kernel| kernel.count).sum::<usize>(), timing.kernels);
        assert_eq!(profile.iter().map(|kernel| kernel.flops).sum::<u64>(), timing.flops);
        assert_eq!(profile.iter().map(|kernel| kernel.bytes).sum::<u64>(), timing.moved);
        assert!(timing.flops > 0 && timing.moved > 0 && timing.bytes > 0);
        assert!(profile.is_sorted_by(|a, b| a.seconds >= b.seconds));
        assert_eq!(profile.iter().map(|kernel| &kernel.label).collect::<BTreeSet<_>>().len(), profile.len());
        // But for noise, and what passes between kernels.
        let (kernels, step) =
            (profile.iter().map(|kernel| kernel.seconds).sum::<f64>(), timing.median() / 1e3);
        assert!((step / 20.0..step * 20.0).contains(&kernels), "{kernels} s in {step} s");
    }
}

/// The time of a batch for each batch; the first of the two that it takes warms up.
#[test]
fn an_evaluation_is_estimated_by_a_batch() {
    let device = cpu::CpuDevice::new(1);
    let mut evaluator =
        Evaluator::compile(&device, &models::build("resnet8", 2, 1).unwrap(), 2, [32, 32]).unwrap();
    let images = data(400);
    for (range, batches) in [(0..2, 1.0), (0..400, 200.0), (100..103, 2.0)] {
        let begun = Instant::now();
        let seconds = evaluator.estimate(&images, range, 1).unwrap();
        let all = begun.elapsed().as_secs_f64();
        // A batch takes some part of the time that both took, and not next to nothing.
        assert!(seconds < batches * all && seconds > batches * all / 1e4, "{seconds} of {batches} x {all}");
    }
}

#[test]
fn the_middle_and_the_fastest() {
    let of = |milliseconds: &[f64]| {
        let milliseconds = milliseconds.to_vec();
        let timing =
            Timing { milliseconds, images: 1, bytes: 0, flops: 0, moved: 0, kernels: 0, profile: vec![] };
        (timing.median(), timing.fastest())
    };
    assert_eq!(of(&[9.0, 2.0, 4.0, 3.0, 8.0]), (4.0, 2.0));
    assert_eq!(of(&[6.0]), (6.0, 6.0));
}

#[test]
fn memory_is_told_in_three_digits() {
    assert_eq!(shown(640 << 20), "640 MiB");
    assert_eq!(shown((999 << 20) + (1 << 18)), "999 MiB");
    assert_eq!(shown(1000 << 20), "0.98 GiB");
    assert_eq!(shown(3 << 29), "1.50 GiB");
    assert_eq!(Memory { state: 3, step: 40 }.total(), 43);
}

/// The reference's number of FitNet's regressor for this pair.
#[test]
fn what_a_method_trains_beside_the_student_is_counted() {
    let build = |name| models::build(name, 100, 1).unwrap();
    let extra = |teacher, method: &dyn Distiller| {
        Networks::new(build("resnet8x4"), teacher, method, Setup::default()).unwrap().extra_values()
    };
    assert_eq!(extra(Some(build("resnet32x4")), &FitNet::default()), 16_768);
    assert_eq!(extra(None, &Vanilla {}), 0);
}

/// Keeps what is expected; stops after some step.
struct Watcher<'a> {
    stop: &'a AtomicBool,
    at: u64,
    expected: Option<Expected>,
    latest: Option<(Progress, Checkpoint)>,
}

impl Observer for Watcher<'_> {
    fn begins(&mut self, expected: Expected) {
        self.expected = Some(expected);
    }
    fn step(&mut self, result: &StepResult) {
        self.stop.store(result.step >= self.at, Ordering::Relaxed);
    }
    fn epoch(&mut self, _: &EpochResult, _: &Checkpoint, _: &Checkpoint, _: bool) -> anyhow::Result<()> {
        Ok(())
    }
    fn interrupted(&mut self, progress: &Progress, latest: &Checkpoint) -> anyhow::Result<()> {
        self.latest = Some((progress.clone(), latest.clone()));
        Ok(())
    }
}

fn data(images: usize) -> Arc<Dataset> {
    let pixels = (0..images * 32 * 32 * 3).map(|i| (i * i >> 7) as u8).collect();
    let labels = (0..images).map(|i| (i % 2) as u32).collect();
    let classes = ["even", "odd"].map(String::from).to_vec();
    Arc::new(Dataset::new("drawn", (32, 32), pixels, labels, classes, Normalization::CIFAR10).unwrap())
}

/// By one evaluation of 5 images: an image of a step is worth three of the student's evaluations and one of the
/// teacher's, with each view.
#[test]
fn a_run_is_reckoned_from_an_evaluation() {
    let device = cpu::CpuDevice::new(1);
    let macs = |name| models::build(name, 2, 1).unwrap().macs(32, 32).unwrap() as f64;
    let sld = Sld::default();
    let methods: [(&dyn Distiller, f64); 2] =
        [(&Vanilla {}, 3.0), (&sld, 2.0 * (3.0 + macs("resnet14") / macs("resnet8")))];
    for (method, evaluations) in methods {
        let teacher = method.needs_teacher().then(|| models::build("resnet14", 2, 2).unwrap());
        let setup = Setup { images: 8, ..Setup::default() };
        let networks =
            Networks::new(models::build("resnet8", 2, 1).unwrap(), teacher, method, setup).unwrap();
        let settings = Settings {
            epochs: 3,
            batch_size: 2,
            test_batch_size: 5,
            schedule: Schedule::multi_step(0.01, &[], 0.1),
            seed: 3,
            workers: 1,
            ..Settings::default()
        };
        let stop = AtomicBool::new(false);
        let images = RunData::of(data(8), data(5));
        let begun = |at, from: Option<Checkpoint>| {
            stop.store(false, Ordering::Relaxed);
            let team = Team::alone(&device, &networks, method);
            let mut trainer = Trainer::new(team, settings.clone(), images.clone()).unwrap().stop_when(&stop);
            if let Some(latest) = from {
                trainer.resume(latest, Path::new("latest"), Changed::Nothing).unwrap();
            }
            let mut watcher = Watcher { stop: &stop, at, expected: None, latest: None };
            trainer.run(&mut watcher).unwrap();
            let Expected { evaluation, all } = watcher.expected.unwrap();
            assert!(evaluation > 0.0);
            (watcher.latest, all / evaluation)
        };
        let (stopped, whole) = begun(5, None);
        let (Progress { epoch, images: done, .. }, latest) = stopped.unwrap();
        assert!(epoch == 2 && (1..8).contains(&done), "stopped in epoch {epoch} after {done} images");
        let (_, rest) = begun(u64::MAX, Some(latest));
        let left = (2 * 8 - done) as f64;
        for (found, wanted) in
            [(whole, 24.0 / 5.0 * evaluations + 3.0), (rest, left / 5.0 * evaluations + 2.0)]
        {
            assert!((found / wanted - 1.0).abs() < 1e-9, "{found} evaluations, not {wanted}");
        }
    }
}

#[test]
fn the_state_counts_all_that_an_optimizer_keeps() {
    let bytes = |rule: Option<Rule>| {
        let student = models::build("resnet8", 10, 0).unwrap();
        let parameters: usize = student.parameters().iter().map(|p| p.len()).sum();
        let networks = Networks::new(student, None, &Vanilla {}, Setup { rule, ..Setup::default() }).unwrap();
        (networks.state_bytes(), 4 * parameters as u64)
    };
    let ((sgd, parameters), (adam, _)) = (bytes(None), bytes(Some(Rule::adam(0.0))));
    // Two numbers a parameter in the place of one, and each one's count of steps.
    assert!((parameters + 1..parameters + 1000).contains(&(adam - sgd)), "{sgd} and {adam}");
}
