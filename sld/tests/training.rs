//! Whole runs of the program: exact resuming, kills at any moment, and what refuses to start.

mod small;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const EPOCHS: &str = "8";

/// A short run in a folder beside its images: seven steps an epoch, and as many images held out.
fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sld"));
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/cifar100/vanilla.yaml");
    command.args(["train", "--cfg", config, "--device", "cpu", "--val-fraction", "0.5", "--data"]);
    command.arg(folder.parent().expect("a folder for both").join("data")).arg("--output").arg(folder);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What comes after the options: the config keys of a short run.
fn keys(command: &mut Command) -> &mut Command {
    let student = ["DISTILLER.STUDENT", "resnet8"];
    command.args(student).args(["SOLVER.BATCH_SIZE", "16", "SOLVER.EPOCHS", EPOCHS])
}

fn finish(mut command: Command) -> Output {
    let output = keys(&mut command).output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn refused(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    assert!(!output.status.success(), "it ran: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn same_file(name: &str, a: &Path, b: &Path) {
    let read = |folder: &Path| std::fs::read(folder.join(name)).expect("the run wrote it");
    assert!(read(a) == read(b), "{name} differs between {} and {}", a.display(), b.display());
}

/// Metrics without what depends on the clock.
fn timeless_metrics(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).expect("the run logged");
    let lines = text.lines().map(|line| {
        let mut value: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
        let object = value.as_object_mut().expect("an object");
        object.remove("seconds");
        object.remove("images_per_second");
        value
    });
    lines.collect()
}

fn assert_same_run(a: &Path, b: &Path) {
    for name in ["latest", "student_latest", "best", "student_best", "evaluation.json", "worklog.txt"] {
        same_file(name, a, b);
    }
    assert_eq!(timeless_metrics(a), timeless_metrics(b));
}

#[cfg(unix)]
fn interrupt(child: &Child) {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(status.expect("kill runs").success());
}

/// The report at the end shows every epoch, those before an interruption too.
fn assert_report(folder: &Path) {
    let html = std::fs::read_to_string(folder.join("report.html")).expect("a report at the end");
    for metrics in timeless_metrics(folder) {
        let top1 = metrics["test"]["top1"].as_f64().expect("a number");
        let rounded: f64 = format!("{top1:.4e}").parse().expect("a number");
        assert!(html.contains(&format!("{rounded:?}")), "the report lacks {top1}");
    }
    assert!(!html.contains("The run is not finished"), "finished");
}

#[test]
fn twenty_kills_change_nothing() {
    let folder = small::folder();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let started = Instant::now();
    finish(command(&whole));
    let duration = started.elapsed();

    // Moments spread over the run by a fixed pseudo-random sequence; a finished run is started again
    // too, which must change nothing either.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let share = (state >> 40) as f64 / (1 << 24) as f64;
        let mut resumed = command(&killed);
        let mut child = keys(resumed.arg("--resume")).spawn().expect("the program starts");
        std::thread::sleep(Duration::from_secs_f64(0.1 + 0.5 * share * duration.as_secs_f64()));
        child.kill().ok();
        child.wait().expect("it ends");
        let latest = killed.join("latest");
        if latest.exists() {
            nn::checkpoint::read(&latest).unwrap_or_else(|e| panic!("round {round}: {e}"));
        }
    }
    let mut last = command(&killed);
    last.arg("--resume");
    finish(last);
    assert_same_run(&whole, &killed);
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_between_steps_and_resuming_is_exact() {
    interrupted_and_resumed(&[]);
}

/// All that the optimizer and the learning rate may remember: moments and their steps, an average, a place on a
/// course that changes with every step.
#[cfg(unix)]
#[test]
fn resuming_is_exact_whatever_the_solver() {
    let course = ["SOLVER.SCHEDULE", "one_cycle", "SOLVER.WARMUP", "2", "SOLVER.LR", "0.01"];
    let solver = ["SOLVER.TYPE", "ADAMW", "SOLVER.CLIP", "1", "SOLVER.EMA", "0.9"];
    interrupted_and_resumed(&[&course[..], &solver].concat());
}

#[cfg(unix)]
fn interrupted_and_resumed(more: &[&str]) {
    let folder = small::folder();
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    let finish = |command: &mut Command| {
        let output = keys(command).args(more).output().expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    finish(&mut command(&whole));
    let mut first = command(&stopped);
    let child = keys(&mut first).args(more).spawn().expect("the program starts");
    // Wait for the first epoch's file, then interrupt somewhere in a later one.
    let patience = Instant::now();
    while !stopped.join("latest").exists() && patience.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    interrupt(&child);
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(130), "saved, not finished: {text}");
    let again = text.lines().last().unwrap_or_default().trim();
    assert!(again.starts_with(env!("CARGO_BIN_EXE_sld")) && again.contains(" train --resume "), "{text}");
    let html = std::fs::read_to_string(stopped.join("report.html")).expect("a report of what is done");
    assert!(html.contains("The run is not finished"));
    finish(command(&stopped).arg("--resume"));
    assert_same_run(&whole, &stopped);
    assert_report(&whole);
    assert_report(&stopped);
}

#[test]
fn a_finished_folder_and_a_missing_teacher_are_refused() {
    let folder = small::folder();
    let done = folder.path().join("done");
    finish(command(&done));
    let before = std::fs::read(done.join("latest")).expect("saved");
    let message = refused(keys(&mut command(&done)));
    assert!(message.contains("already holds a run") && message.contains("--resume"), "{message}");
    assert!(before == std::fs::read(done.join("latest")).expect("still there"), "the old run was touched");

    let mut distil = command(&folder.path().join("kd"));
    distil.args(["--teacher", "nowhere.pth", "DISTILLER.TYPE", "KD"]);
    distil.args(["DISTILLER.TEACHER", "resnet14", "DISTILLER.STUDENT", "resnet8"]);
    let message = refused(&mut distil);
    assert!(message.contains("nowhere.pth") && message.contains("--teacher"), "{message}");

    // A teacher of another architecture: the message lists tensors and names the model that fits.
    let mut distil = command(&folder.path().join("wrong"));
    distil.arg("--teacher").arg(done.join("student_best"));
    distil.args(["DISTILLER.TYPE", "KD"]);
    distil.args(["DISTILLER.TEACHER", "resnet14", "DISTILLER.STUDENT", "resnet8"]);
    let message = refused(&mut distil);
    assert!(message.contains("resnet14") && message.contains("resnet8 would fit"), "{message}");
}

#[test]
fn a_rate_that_diverges_stops_with_the_step_and_a_saved_state() {
    let folder = small::folder();
    let run = folder.path().join("run");
    let mut hot = command(&run);
    keys(&mut hot).args(["SOLVER.LR", "1e30"]);
    let message = refused(&mut hot);
    assert!(message.contains("the loss became") && message.contains("step"), "{message}");
    assert!(run.join("diverged").is_file());
}
