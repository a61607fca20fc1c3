//! Every method in whole runs: going on from a saved state is exact, modules, memories and the teacher's statistics
//! included; and methods side by side in one command.

mod small;

use nn::Schedule;
use nn::checkpoint::{self, Checkpoint};
use nn::models;
use sld::augment::{Mixing, Normalization};
use sld::data::Dataset;
use sld::distill::{Distiller, METHODS, Method};
use sld::setting::Given;
use sld::training::snapshot::Progress;
use sld::training::{
    Changed, EpochResult, Networks, Observer, Outcome, RunData, Settings, Setup, StepResult, Team, Trainer,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const CLASSES: usize = 5;
const IMAGES: usize = 12;

/// Keeps the last state; stops after some step.
struct Watcher<'a> {
    stop: &'a AtomicBool,
    at: u64,
    latest: Option<Checkpoint>,
}

impl Observer for Watcher<'_> {
    fn step(&mut self, result: &StepResult) {
        self.stop.store(result.step == self.at, Ordering::Relaxed);
    }
    fn epoch(&mut self, _: &EpochResult, latest: &Checkpoint, _: &Checkpoint, _: bool) -> anyhow::Result<()> {
        self.latest = Some(latest.clone());
        Ok(())
    }
    fn interrupted(&mut self, _: &Progress, latest: &Checkpoint) -> anyhow::Result<()> {
        self.latest = Some(latest.clone());
        Ok(())
    }
}

/// Images of noise.
fn data() -> Arc<Dataset> {
    let pixels =
        (0..IMAGES * 32 * 32 * 3).map(|i| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]);
    let labels = (0..IMAGES).map(|i| (i % CLASSES) as u32).collect();
    let classes = (0..CLASSES).map(|class| class.to_string()).collect();
    let drawn = Dataset::new("drawn", (32, 32), pixels.collect(), labels, classes, Normalization::CIFAR10);
    Arc::new(drawn.unwrap())
}

/// The method with constants that fit resnet14 -> resnet8.
fn fitting(method: &Method) -> Box<dyn Distiller> {
    let mut made = method.make();
    for (key, value) in [
        ("CRD.FEAT.STUDENT_DIM", "64"),
        ("CRD.FEAT.TEACHER_DIM", "64"),
        ("CRD.NCE.K", "7"),
        ("REVIEWKD.IN_CHANNELS", "[16, 32, 64, 64]"),
        ("REVIEWKD.OUT_CHANNELS", "[16, 32, 64, 64]"),
    ] {
        if let Some(set) = made.set(key, &Given::Word(value.into())) {
            set.unwrap();
        }
    }
    made
}

/// States of two epochs of three steps: after step 4, in the middle of the second epoch, and at the end. With
/// `latest`, going on from it.
fn trained(method: &dyn Distiller, dot: bool, latest: Option<Checkpoint>) -> [Option<Checkpoint>; 2] {
    let device = cpu::CpuDevice::new(2);
    let build = |name, seed| models::build(name, CLASSES, seed).unwrap();
    let teacher = method.needs_teacher().then(|| build("resnet14", 2));
    let setup = Setup { images: IMAGES, dot: dot.then_some(0.075), ..Setup::default() };
    let networks = Networks::new(build("resnet8", 1), teacher, method, setup).unwrap();
    let settings = Settings {
        epochs: 2,
        batch_size: 4,
        test_batch_size: 12,
        schedule: Schedule::multi_step(0.01, &[1], 0.1),
        seed: 3,
        workers: 1,
        ..Settings::default()
    };
    let stop = AtomicBool::new(false);
    let images = data();
    let team = Team::alone(&device, &networks, method);
    let trainer = Trainer::new(team, settings, RunData::of(images.clone(), images));
    let mut trainer = trainer.unwrap().stop_when(&stop);
    let mut watcher = Watcher { stop: &stop, at: 4, latest: None };
    let middle = match latest {
        Some(latest) => {
            trainer.resume(latest, Path::new("latest"), Changed::Nothing).unwrap();
            None
        }
        None => {
            assert_eq!(trainer.run(&mut watcher).unwrap(), Outcome::Interrupted);
            watcher.latest.take()
        }
    };
    stop.store(false, Ordering::Relaxed);
    trainer.run(&mut watcher).unwrap();
    [middle, watcher.latest]
}

#[test]
fn every_method_goes_on_exactly_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latest");
    for method in METHODS {
        let made = fitting(method);
        let with_dot = ["kd", "dkd", "sld", "fitnet", "crd"].contains(&method.tag);
        for dot in [false, true].into_iter().take(if with_dot { 2 } else { 1 }) {
            let what = format!("{}{}", method.tag, if dot { " with two momenta" } else { "" });
            let [stopped, whole] = trained(&*made, dot, None).map(Option::unwrap);
            assert_ne!(whole.tensors, stopped.tensors, "{what}");
            // By way of a file, into another process's memory, so to speak.
            checkpoint::write_pth(&path, &stopped).unwrap();
            let [_, resumed] = trained(&*made, dot, Some(checkpoint::read(&path).unwrap()));
            let resumed = resumed.unwrap();
            let names = |c: &Checkpoint| c.tensors.iter().map(|t| t.name.clone()).collect::<Vec<_>>();
            assert_eq!(names(&whole), names(&resumed), "{what}");
            for (a, b) in whole.tensors.iter().zip(&resumed.tensors) {
                assert!(a == b, "{what}: {} differs", a.name);
            }
            assert!(whole == resumed, "{what}: the optimizer's state or the metrics differ");
        }
    }
}

/// Methods whose labels are in the cross entropy alone learn from mixed images; the others say so, and which do.
#[test]
fn methods_that_need_one_label_refuse_mixed_images() {
    let build = |name, seed| models::build(name, CLASSES, seed).unwrap();
    let setup = Setup { images: IMAGES, mixing: Mixing::new(0.2, 0.0), ..Setup::default() };
    let mut refusing = Vec::new();
    for method in METHODS.iter().map(fitting) {
        let teacher = method.needs_teacher().then(|| build("resnet14", 2));
        let Err(why) = Networks::new(build("resnet8", 1), teacher.clone(), &*method, setup) else { continue };
        let (why, name) = (why.to_string(), method.name());
        for part in [
            &format!("{name} cannot learn from mixed images (SOLVER.MIXUP"),
            "methods that can",
            "NONE, KD, MLKD, FITNET, AT",
        ] {
            assert!(why.contains(part), "{why}");
        }
        assert!(why.contains("the one label of each image") || name == "CRD", "{why}");
        // Smoothed labels are for all.
        let smoothed = Setup { mixing: None, smoothing: 0.1, ..setup };
        Networks::new(build("resnet8", 1), teacher, &*method, smoothed).unwrap();
        refusing.push(name);
    }
    assert_eq!(refusing, ["KD_SWAP", "SLD", "DKD", "CRD"]);
}

/// What `latest` holds beside the student: the method's modules, and for OFD the teacher, whose statistics moved.
#[test]
fn states_hold_what_belongs_to_the_method() {
    let names = |name: &str, wanted: &str| {
        let [state, _] = trained(&*fitting(Method::find(name).unwrap()), false, None).map(Option::unwrap);
        state
            .tensors
            .iter()
            .filter(|t| t.name.starts_with(wanted))
            .map(|t| t.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("sp", "module.teacher"), Vec::<String>::new());
    assert!(names("ofd", "module.teacher.").len() > 50);
    assert_eq!(
        names("crd", "module.contrast."),
        ["module.contrast.params", "module.contrast.memory_v1", "module.contrast.memory_v2"]
    );
    assert_eq!(names("fitnet", "module.conv_reg.").len(), 7);
    assert!(names("kd", "module.").iter().all(|name| name.starts_with("module.student.")));
}

/// One command: the runs, the table, the report; and what is finished is not repeated.
#[test]
fn methods_are_compared_in_one_command() {
    let folder = small::folder();
    let root = folder.path();
    small::checkpoint(&root.join("teacher.pth"), "resnet14", |_| ());
    let command = |methods: &str, seeds: &str, keys: &[&str]| {
        let mut command = small::sld(&["compare", "--device", "cpu", "--cfg", "configs/cifar100/kd.yaml"]);
        command.args(["--methods", methods, "--seeds", seeds]);
        command.arg("--data").arg(root.join("data")).arg("--teacher").arg(root.join("teacher.pth"));
        command.arg("--output").arg(root.join("runs"));
        command.args(["DISTILLER.TEACHER", "resnet14", "DISTILLER.STUDENT", "resnet8", "SOLVER.EPOCHS", "1"]);
        command.args(keys);
        command
    };
    let fit = ["FITNET.HINT_LAYER", "1", "KD.TEMPERATURE", "3"];
    small::refused(&mut command("kd,kdd", "1", &[]), &["no method \"kdd\"", "kd"]);
    small::refused(&mut command("kd,kd", "1", &[]), &["kd is there twice"]);
    small::refused(&mut command("kd", "1", &["SOLVER.SEED", "3"]), &["SOLVER.SEED", "--seeds"]);
    small::refused(&mut command("kd", "1", &["AT.P", "2"]), &["AT.P is read by none"]);
    // A pair that a method cannot take, before any run.
    small::refused(
        &mut command("kd,crd", "1", &[]),
        &["CRD cannot take resnet14 -> resnet8", "CRD.FEAT.STUDENT_DIM is 256", "set it to 64"],
    );
    assert!(!root.join("runs").exists());

    let said = small::succeeds(&mut command("none,kd+dot,fitnet", "2", &fit));
    let rows: Vec<&str> = said.lines().filter(|line| line.starts_with("| ")).collect();
    assert_eq!(rows.len(), 5, "{said}");
    for (row, method) in
        rows[2..].iter().zip(["Cross entropy", "Knowledge distillation + DOT", "Hints (FitNet)"])
    {
        assert!(
            row.starts_with(&format!("| {method} | resnet8 | 2 | ")) && row.contains(" \u{b1} "),
            "{row}"
        );
    }
    let written = std::fs::read_to_string(root.join("runs/comparison.md")).unwrap();
    assert!(said.contains(&written), "{said}\n{written}");
    let report = std::fs::read_to_string(root.join("runs/report.html")).unwrap();
    assert!(["fitnet-1", "kd+dot-2", "vanilla-1"].iter().all(|run| report.contains(run)));
    let log = small::json_lines(&root.join("runs/fitnet-2/metrics.jsonl"));
    assert!(log[0]["train"]["terms"]["hint"].as_f64().is_some_and(|hint| hint > 0.0), "{:?}", log[0]);

    // Again with one seed more: the others stay as they are, to the byte and the second.
    let before = small::contents(&root.join("runs/fitnet-1"));
    let said = small::succeeds(&mut command("none,kd+dot,fitnet", "3", &fit));
    assert_eq!(said.matches("finished before").count(), 6, "{said}");
    assert_eq!(small::contents(&root.join("runs/fitnet-1")), before);
}
