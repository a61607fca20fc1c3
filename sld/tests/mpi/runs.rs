//! Runs of several processes, started by `mpirun`.

use super::machines::Machines;
use super::process::{ALONE, distance, plain, trained_by};
use super::small::{self, json, json_lines, text};
use nn::checkpoint::{self, Checkpoint};
use sld::distill::{Distiller, Kd, Sld, Vanilla};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// `sld train` of a run in `root`, by so many processes.
fn train(
    root: &Path,
    processes: usize,
    config: &str,
    output: &str,
    options: &[&str],
    keys: &[&str],
) -> Command {
    let output = root.join(output);
    let output = ["--output", output.to_str().expect("a name")];
    let one = small::train(root, config, &[&output[..], options].concat(), keys);
    if processes == 1 {
        return one;
    }
    let mut command = Command::new("mpirun");
    command.args(["-np", &processes.to_string(), "--oversubscribe", "--allow-run-as-root"]);
    command.arg(one.get_program()).args(one.get_args());
    command.current_dir(one.get_current_dir().unwrap_or(root));
    command
}

fn finished(mut command: Command) -> String {
    let output = command.output().expect("mpirun starts: install openmpi-bin");
    let said = text(&output.stdout);
    assert!(output.status.success(), "{command:?}\n{said}\n{}", text(&output.stderr));
    said
}

/// It fails and says all of these; gives how long that took.
fn refused(mut command: Command, parts: &[&str]) -> Duration {
    let begun = Instant::now();
    let output: Output = command.output().expect("mpirun starts");
    let said = text(&output.stderr);
    assert!(!output.status.success(), "it ran: {}", text(&output.stdout));
    for part in parts {
        assert!(said.contains(part), "`{part}` is not in\n{said}");
    }
    begun.elapsed()
}

fn latest(root: &Path, run: &str) -> Checkpoint {
    checkpoint::read(&root.join(run).join("latest")).expect("a checkpoint")
}

/// Rounding errors must not grow over the steps.
const SLOWLY: [&str; 2] = ["SOLVER.LR", "0.001"];

/// Batches of 61 of 200 images, the last one of 17: no number of processes shares one equally.
#[test]
fn two_and_three_processes_are_as_one_and_the_same_when_repeated() {
    let folder = small::folder();
    let root = folder.path();
    let apart = [&SLOWLY[..], &["SOLVER.EPOCHS", "2", "SOLVER.BATCH_SIZE", "61"]].concat();
    let keys = [&apart[..], &["SOLVER.SYNC_BN", "true"]].concat();
    let said = finished(train(root, 1, "vanilla", "one", &[], &keys));
    let one = latest(root, "one");
    // Without synchronized statistics it is another run: how far away that is, is the measure of what is near.
    finished(train(root, 2, "vanilla", "apart", &[], &apart));
    let far = distance(&one, &latest(root, "apart"));
    // The settings at the beginning, epochs, the result.
    let headings = |said: &str| said.matches("# run folder").count() + said.matches("epoch").count();
    for processes in [2, 3] {
        let (run, again) = (format!("of{processes}"), format!("again{processes}"));
        let of_all = finished(train(root, processes, "vanilla", &run, &[], &keys));
        assert_eq!(headings(&of_all), headings(&said), "the user sees one run\n{of_all}");
        let apart = distance(&one, &latest(root, &run));
        assert!(
            apart < far / 50.0,
            "{processes} processes are {apart:e} away, {far:e} without synchronizing"
        );
        let (a, b) =
            (json_lines(&root.join("one/metrics.jsonl")), json_lines(&root.join(&run).join("metrics.jsonl")));
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(&b) {
            for part in ["train", "test"] {
                let loss = |line: &serde_json::Value| line[part]["loss"].as_f64().expect("a number");
                assert!((loss(a) - loss(b)).abs() < 1e-4, "{part} loss {} and {}", loss(a), loss(b));
            }
        }
        let images = |run: &str| json(&root.join(run).join("evaluation.json"))["confusion"].to_string();
        assert_eq!(images("one"), images(&run), "every test image is measured once");

        finished(train(root, processes, "vanilla", &again, &[], &keys));
        let read = |run: &str| std::fs::read(root.join(run).join("latest")).expect("a file");
        assert!(read(&run) == read(&again), "{processes} processes, repeated");
    }
    // Gradients of 16 bits: another run, not far away.
    finished(train(root, 2, "vanilla", "half", &[], &[&apart[..], &["SOLVER.TRANSFER", "bf16"]].concat()));
    let half = distance(&latest(root, "apart"), &latest(root, "half"));
    assert!((1e-7..1e-2).contains(&half), "{half:e}");
}

/// Seeds are trained one after the other, each by all processes; the same command goes on.
#[test]
fn seeds_are_trained_by_all_processes() {
    let folder = small::folder();
    let root = folder.path();
    let go = |seeds: &str| {
        finished(train(root, 2, "vanilla", "run", &["--seeds", seeds], &["SOLVER.EPOCHS", "1"]))
    };
    assert!(!go("1").contains("finished before"));
    assert_eq!(go("2").matches("finished before").count(), 1, "rank 0 alone says it");
    for seed in [1, 2] {
        let info = json(&root.join(format!("run/seed-{seed}/run.json")));
        assert!(info["seed"] == seed && info["device"].to_string().contains("and 1 more"), "{info}");
    }
    let table = std::fs::read_to_string(root.join("run/comparison.md")).expect("a table");
    assert!(table.contains("| Cross entropy | resnet8 | 2 |"), "{table}");
}

/// Without batch norm it does not matter who computes what. All networks with a name have it, so `mpirun` starts this
/// test as the processes.
#[test]
fn a_network_without_batch_norm_is_trained_as_by_one() {
    const FOLDER: &str = "FOLDER_OF_RANK_0";
    let methods: [&dyn Distiller; 3] = [&Vanilla {}, &Kd::default(), &Sld::default()];
    let train = |root: &Path| {
        let cluster = sld::cluster::join(Duration::from_secs(60)).expect("the others");
        for method in methods {
            let trained = trained_by(cluster.as_ref(), plain, method, ALONE, None, u64::MAX);
            if let Some((latest, _)) = trained {
                checkpoint::write_pth(&root.join(method.name()), &latest).expect("written");
            }
        }
    };
    if let Some(root) = std::env::var_os(FOLDER) {
        return train(Path::new(&root));
    }
    let state = |folder: &Path, method: &dyn Distiller| {
        checkpoint::read(&folder.join(method.name())).expect("a checkpoint")
    };
    let folder = small::folder();
    let one = folder.path().join("1");
    std::fs::create_dir(&one).expect("made");
    train(&one);
    for processes in ["2", "3"] {
        let several = folder.path().join(processes);
        std::fs::create_dir(&several).expect("made");
        let mut command = Command::new("mpirun");
        command.args(["-np", processes, "--oversubscribe", "--allow-run-as-root"]);
        command.arg(std::env::current_exe().expect("this test"));
        command
            .args(["--exact", "runs::a_network_without_batch_norm_is_trained_as_by_one"])
            .env(FOLDER, &several);
        finished(command);
        for method in methods {
            let apart = distance(&state(&one, method), &state(&several, method));
            assert!(apart < 2e-6, "{} by {processes} processes is {apart:e} away", method.name());
        }
    }
}

/// The process ids of the processes that `mpirun` started.
fn processes_of(launcher: &Child) -> Vec<u32> {
    let listed = Command::new("ps").args(["-o", "pid=", "--ppid", &launcher.id().to_string()]).output();
    text(&listed.expect("ps").stdout).split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status().expect("kill runs");
    assert!(sent.success());
}

/// Started, and past its first epoch.
fn under_way(mut command: Command, latest: &Path) -> Child {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("mpirun starts");
    let begun = Instant::now();
    while !latest.exists() {
        assert!(begun.elapsed() < Duration::from_secs(120), "no epoch in two minutes");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

#[test]
fn a_killed_process_ends_all_and_the_run_goes_on_with_another_number() {
    let folder = small::folder();
    let root = folder.path();
    let keys =
        [&SLOWLY[..], &["SOLVER.BATCH_SIZE", "50", "SOLVER.SYNC_BN", "true", "SOLVER.EPOCHS"]].concat();
    let long = [&keys[..], &["500"]].concat();
    let child = under_way(train(root, 2, "vanilla", "killed", &[], &long), &root.join("killed/latest"));
    let begun = Instant::now();
    signal("-9", *processes_of(&child).last().expect("processes"));
    let output = child.wait_with_output().expect("it ends");
    assert!(!output.status.success() && begun.elapsed() < Duration::from_secs(30));
    let said = text(&output.stderr);
    assert!(said.contains("signal 9"), "{said}");
    let epoch = latest(root, "killed").epoch.expect("an epoch");

    // From there on by three processes, and by one: the same as without a stop.
    let until = (epoch + 2).to_string();
    let keys = [&keys[..], &[&until]].concat();
    finished(train(root, 1, "vanilla", "whole", &[], &keys));
    small::copy(&root.join("killed"), &root.join("copy"));
    for (processes, run) in [(3, "killed"), (1, "copy")] {
        finished(train(root, processes, "vanilla", run, &["--resume"], &keys));
        let apart = distance(&latest(root, "whole"), &latest(root, run));
        assert!(apart < 1e-4, "resumed by {processes}: {apart:e} away");
    }
}

#[test]
fn a_process_that_hangs_is_named() {
    let folder = small::folder();
    let root = folder.path();
    let keys = ["SOLVER.EPOCHS", "500"];
    let timeout = ["--rank-timeout", "8"];
    for (place, named) in [(1, "rank 1 has not answered"), (0, "rank 0 has not answered")] {
        let run = format!("hangs{place}");
        let child =
            under_way(train(root, 2, "vanilla", &run, &timeout, &keys), &root.join(&run).join("latest"));
        let hanging = processes_of(&child)[place];
        signal("-STOP", hanging);
        let begun = Instant::now();
        let output = child.wait_with_output().expect("it ends");
        assert!(!output.status.success() && begun.elapsed() < Duration::from_secs(60));
        let said = text(&output.stderr);
        assert!(said.contains(named), "{said}");
        checkpoint::read(&root.join(&run).join("latest")).expect("whole");
    }
}

/// Two processes with data and keys of their own.
fn unlike(root: &Path, data: [&Path; 2], keys: [&[&str]; 2]) -> Command {
    let part = |rank: usize| {
        let data = ["--data", data[rank].to_str().expect("a name")];
        small::train(root, "vanilla", &data, keys[rank])
    };
    let (a, b) = (part(0), part(1));
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "--allow-run-as-root", "-np", "1"]);
    command.arg(a.get_program()).args(a.get_args()).args([":", "-np", "1"]);
    command.arg(b.get_program()).args(b.get_args());
    command.current_dir(a.get_current_dir().unwrap_or(root));
    command
}

#[test]
fn processes_that_are_not_alike_are_refused_before_anything_is_written() {
    let folder = small::folder();
    let root = folder.path();
    let (data, other) = (root.join("data"), root.join("other"));
    small::data_set(
        &other,
        |split, image, byte| if split == "train" && image == 7 { byte ^ 1 } else { byte },
    );
    let (here, there) = ([data.as_path(), &data], [data.as_path(), &other]);
    let rates: [&[&str]; 2] = [&["SOLVER.LR", "0.1"], &["SOLVER.LR", "0.2"]];
    refused(unlike(root, here, rates), &["not alike", "SOLVER.LR: 0.1 on rank 0, 0.2 on rank 1"]);
    refused(unlike(root, there, [&[], &[]]), &["not alike", "training images (checksum)"]);
    // What one process alone cannot do ends all.
    let nowhere = root.join("nowhere");
    let took = refused(unlike(root, [&data, &nowhere], [&[], &[]]), &["rank 1", "nowhere"]);
    assert!(took < Duration::from_secs(30));
    // What none can do, rank 0 says for all.
    refused(train(root, 3, "vanilla", "run", &[], &["SOLVER.LR", "-1"]), &["error: rank 0", "SOLVER.LR"]);
    assert!(!root.join("run/config.yaml").exists());
}

#[test]
fn two_machines_are_as_one() {
    let Some(machines) = Machines::new() else {
        println!("no network namespaces here: skipped");
        return;
    };
    let folder = small::folder();
    let root = folder.path();
    let own = [&SLOWLY[..], &["SOLVER.EPOCHS", "1"]].concat();
    let keys = [&own[..], &["SOLVER.SYNC_BN", "true"]].concat();
    finished(train(root, 1, "vanilla", "one", &[], &keys));
    // As far as each machine's own statistics would lead: rounding, and a value near ReLU's kink, do not.
    finished(train(root, 2, "vanilla", "apart", &[], &own));
    let far = distance(&latest(root, "one"), &latest(root, "apart"));
    let two = train(root, 2, "vanilla", "two", &[], &keys);
    finished(machines.across(root, &two));
    let apart = distance(&latest(root, "one"), &latest(root, "two"));
    assert!(apart < far / 50.0, "{apart:e} away, {far:e} with statistics apart");
}
