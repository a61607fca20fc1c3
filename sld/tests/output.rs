//! Outputs that cannot be written, and signals: an error or a lost line, an exit code that says so, never a
//! panic.
#![cfg(unix)]

mod small;

use small::{run, sld, text, train};
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").expect("this system has /dev/full").into()
}

/// Commands whose output is what they are for.
const ASKED: &[&[&str]] = &[
    &["models"],
    &["models", "--json"],
    &["--help"],
    &["train", "--help"],
    &["--version"],
    &["completions", "bash"],
    &["devices"],
    &["explain", "--cfg", "configs/cifar100/vanilla.yaml", "--device", "cpu", "DISTILLER.STUDENT", "resnet8"],
    &["bench", "step", "--eval", "resnet8", "--device", "cpu", "--iterations", "1", "--batch", "1"],
];

#[cfg(target_os = "linux")]
#[test]
fn what_was_asked_for_and_cannot_be_written_is_an_error() {
    for arguments in ASKED {
        let output = sld(arguments).stdout(full()).stderr(Stdio::piped()).output().expect("it starts");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(
            said.contains("error: cannot write to the standard output: No space left"),
            "{arguments:?}: {said}"
        );
        assert!(!said.contains("panicked"), "{said}");
        // Nobody to tell, either.
        let status = sld(arguments).stdout(full()).stderr(full()).status().expect("it starts");
        assert_eq!(status.code(), Some(1), "{arguments:?}");
    }
}

/// `sld models | head -1`, whose reader leaves.
#[test]
fn a_reader_who_leaves_is_no_error() {
    for arguments in ASKED {
        let mut command = Command::new("sh");
        let words: Vec<String> = arguments.iter().map(|word| format!("'{word}'")).collect();
        // The reader has left before anything is written.
        let line = format!(
            "{{ sleep 0.5; {} {}; echo $? >&2; }} | true",
            env!("CARGO_BIN_EXE_sld"),
            words.join(" ")
        );
        let output = run(command.arg("-c").arg(line).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")));
        assert_eq!(text(&output.stderr).trim(), "141", "{arguments:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_training_goes_on_without_its_lines() {
    let folder = small::folder();
    let keys = ["SOLVER.EPOCHS", "2"];
    let finished = |name: &str| folder.path().join(name).join("evaluation.json").is_file();
    let command = |name: &str| {
        train(folder.path(), "vanilla", &["--output", folder.path().join(name).to_str().unwrap()], &keys)
    };
    let output = command("a").stdout(full()).stderr(Stdio::piped()).output().expect("it starts");
    let said = text(&output.stderr);
    assert!(output.status.success() && finished("a"), "{said}");
    assert_eq!(said.matches("No space left").count(), 1, "told once: {said}");
    assert!(
        command("b").stdout(full()).stderr(full()).status().expect("it starts").success() && finished("b")
    );
    let mut child = command("c").stdout(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    assert!(child.wait().expect("it ends").success() && finished("c"));
}

#[test]
fn piped_lines_fit_80_columns_and_have_one_form() {
    let folder = small::folder();
    let keys = ["SOLVER.EPOCHS", "2", "SOLVER.LR", "1e-7"];
    let said = small::succeeds(&mut train(folder.path(), "vanilla", &["--val-fraction", "0.5"], &keys));
    let epochs: Vec<&str> = said.lines().filter(|line| line.starts_with("epoch ")).collect();
    assert_eq!(epochs.len(), 2, "{said}");
    for line in epochs {
        assert!(line.len() <= 80 && line.contains("  1e-7  "), "{line}");
    }
    assert!(said.lines().any(|line| line.starts_with("#") && line.contains("held-out")), "{said}");
    assert!(
        said.contains("after 2 epochs;") && said.contains("chosen by the held-out training images"),
        "{said}"
    );
    assert!(
        said.lines().any(|line| line.starts_with("# ")
            && line.contains("images a second: about ")
            && line.ends_with("of it for evaluations")),
        "{said}"
    );
    let before = said.find("to judge by an evaluation").expect("an estimate");
    assert!(before < said.find("images a second: about ").expect("a better one"), "{said}");
    let one = small::succeeds(&mut train(
        folder.path(),
        "vanilla",
        &["--output", folder.path().join("b").to_str().unwrap()],
        &["SOLVER.EPOCHS", "1"],
    ));
    assert!(one.contains("after 1 epoch;") && !one.contains("held-out"), "{one}");
}

/// The command hears a hang-up also where these tests run under `nohup`.
fn hearing(mut command: Command) -> Command {
    // SAFETY: `signal` may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        })
    };
    command
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(status.expect("kill runs").success());
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let patience = Instant::now();
    while !there() {
        assert!(patience.elapsed() < Duration::from_secs(120), "no {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn endless(root: &Path, name: &str) -> Command {
    let mut command = train(
        root,
        "vanilla",
        &["--output", root.join(name).to_str().unwrap()],
        &["SOLVER.EPOCHS", "100000"],
    );
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn an_interrupted_training_says_so_in_its_exit_code() {
    let folder = small::folder();
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let child = hearing(endless(folder.path(), name)).spawn().expect("it starts");
        wait_for("state", || folder.path().join(name).join("latest").exists());
        signal(&child, name);
        let output = child.wait_with_output().expect("it ends");
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{name}: {said}");
        assert!(said.contains("everything is saved") && said.contains("--resume"), "{said}");
        nn::checkpoint::read(&folder.path().join(name).join("latest")).expect("whole");
    }
}

/// What is started with `&` by a script has Ctrl-C ignored; what is started by `nohup`, the hang-up.
#[test]
fn ignored_signals() {
    let folder = small::folder();
    let shell = |before: &str, name: &str| {
        let words = endless(folder.path(), name);
        let words: Vec<String> =
            words.get_args().map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let mut command = Command::new("sh");
        let line = format!("trap '' {before}; exec '{}' {}", env!("CARGO_BIN_EXE_sld"), words.join(" "));
        command.arg("-c").arg(line).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    };
    let background = shell("INT", "a");
    wait_for("state", || folder.path().join("a/latest").exists());
    signal(&background, "INT");
    assert_eq!(background.wait_with_output().expect("it ends").status.code(), Some(130));

    let mut nohup = shell("HUP", "b");
    wait_for("state", || folder.path().join("b/latest").exists());
    signal(&nohup, "HUP");
    std::thread::sleep(Duration::from_millis(500));
    assert!(nohup.try_wait().expect("asked").is_none(), "a hang-up that nohup keeps away ended the training");
    signal(&nohup, "TERM");
    assert_eq!(nohup.wait_with_output().expect("it ends").status.code(), Some(143));
}

/// Commands without anything to save end at once, also where the signal was ignored before.
#[test]
fn other_commands_end_at_once_with_the_shells_code() {
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let mut command = hearing(sld(&["bench", "augment", "--iterations", "100000000", "--threads", "1"]));
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(1000));
        signal(&child, name);
        let output = child.wait_with_output().expect("it ends");
        assert_eq!((output.status.code(), output.status.signal()), (Some(code), None), "{name}");
        assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    }
}

#[test]
fn an_interrupted_demonstration_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = sld(&["demo", "--device", "cpu", "--output"]);
    let child = command.arg(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.expect("it starts");
    wait_for("run", || folder.path().join("teacher/run.json").exists());
    signal(&child, "INT");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stdout));
}
