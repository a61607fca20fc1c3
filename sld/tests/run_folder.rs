//! The files of a run: exact formats, one writer, nothing half written.

mod sample;

use sld::config::Config;
use sld::run::{
    Claim, EpochMetrics, Evaluation, Reached, RunError, RunFolder, RunLock, best_epoch, read_metrics, worklog,
};
use std::fs;
use std::path::{Path, PathBuf};

fn start(folder: &Path) -> Result<RunFolder, RunError> {
    Claim::new(folder)?.begin(Some(&Config::default()), &sample::info("SLD", 240))
}

/// Goes on after `epoch` epochs of a hundred steps.
fn go_on(folder: &Path, epoch: u32) -> Result<RunFolder, RunError> {
    let reached = Reached { epoch, step: 100 * u64::from(epoch) };
    Claim::new(folder)?.go_on(Some(&Config::default()), &sample::info("SLD", 5), reached)
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

#[test]
fn the_worklog_is_the_references() {
    // Written by the reference's trainer: three epochs at learning rates 0.025 and 0.0025.
    let reference = "-------------------------\nepoch: 1\nlr: 0.03\ntrain_acc: 0.00\ntrain_loss: 19.60\ntest_acc: 0.00\n\
                     test_acc_top5: 0.00\ntest_loss: 5.03\n-------------------------\n\
                     -------------------------\nepoch: 151\nlr: 0.00\ntrain_acc: 0.00\ntrain_loss: 12.58\ntest_acc: 0.00\n\
                     test_acc_top5: 0.00\ntest_loss: 4.84\n-------------------------\n";
    let mut first = sample::metrics(240, 0.0, false, 1).remove(0);
    first.lr = 0.025;
    (first.train.top1, first.train.loss) = (0.0, 19.6);
    (first.test.top1, first.test.top5, first.test.loss) = (0.0, 0.0, 5.03);
    let mut later = first.clone();
    (later.epoch, later.lr, later.train.loss, later.test.loss) = (151, 0.0025, 12.58, 4.84);
    assert_eq!(worklog::epoch(&first) + &worklog::epoch(&later), reference);
    assert_eq!(worklog::end(77.6543), "best_acc\t77.65");
}

#[test]
fn a_run_writes_all_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b");
    let metrics = sample::metrics(3, 70.0, true, 1);
    let mut run = start(&path).unwrap();
    for epoch in &metrics {
        run.log_epoch(epoch.clone()).unwrap();
    }
    let evaluation = sample::evaluation(10, 70.0);
    run.finish(&evaluation).unwrap();

    assert_eq!(read_metrics(&path.join("metrics.jsonl")).unwrap(), metrics, "every bit comes back");
    assert_eq!(read(path.join("metrics.jsonl")).lines().count(), 3);
    let config = Config::parse(&read(path.join("config.yaml")), &path, &Default::default()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(Evaluation::read(&path.join("evaluation.json")).unwrap(), evaluation);
    let blocks: String = metrics.iter().map(worklog::epoch).collect();
    let best = metrics.iter().map(|epoch| epoch.test.top1).fold(-1.0, f64::max);
    assert_eq!(read(path.join("worklog.txt")), format!("{blocks}best_acc\t{best:.2}"));
    drop(run);
    let report = path.join("report.html");
    sld::report::write(&[&path], &report).unwrap();
    assert!(read(report).contains("resnet8x4"));
}

#[test]
fn a_resumed_run_drops_what_came_after_its_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = sample::metrics(5, 70.0, true, 1);
    let whole = {
        let mut run = start(folder.path()).unwrap();
        metrics.iter().for_each(|epoch| run.log_epoch(epoch.clone()).unwrap());
        (read(folder.path().join("metrics.jsonl")), read(folder.path().join("worklog.txt")))
    };
    // Killed in the middle of a line, and of a block.
    let cut = &whole.0[..whole.0.len() - 40];
    fs::write(folder.path().join("metrics.jsonl"), cut).unwrap();
    fs::write(folder.path().join("worklog.txt"), &whole.1[..whole.1.len() - 40]).unwrap();
    let mut run = go_on(folder.path(), 3).unwrap();
    assert_eq!(run.history(), &metrics[..3]);
    metrics[3..].iter().for_each(|epoch| run.log_epoch(epoch.clone()).unwrap());
    assert_eq!(read(folder.path().join("metrics.jsonl")), whole.0);
    assert_eq!(read(folder.path().join("worklog.txt")), whole.1);
}

#[test]
fn two_runs_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = start(folder.path()).unwrap();
    let why = start(folder.path()).unwrap_err();
    let me = std::process::id();
    assert!(matches!(&why, RunError::InUse { process, .. } if *process == Some(me)), "{why}");
    assert!(why.to_string().contains(&format!("another run (process {me}) is writing to ")), "{why}");
    assert!(why.to_string().contains("choose another folder with --output"), "{why}");
    drop(first);
    start(folder.path()).unwrap();
}

#[test]
fn a_lock_dies_with_its_process() {
    // Not the file but the system holds it: a file that a killed run left behind blocks nobody.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".lock"), "4000000\n").unwrap();
    RunLock::acquire(folder.path()).unwrap();
}

#[test]
fn a_finished_run_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = sample::metrics(2, 70.0, false, 1);
    let mut run = start(folder.path()).unwrap();
    metrics.iter().for_each(|epoch| run.log_epoch(epoch.clone()).unwrap());
    drop(run);
    let why = start(folder.path()).unwrap_err();
    assert!(why.to_string().contains("already holds a run of 2 epochs: go on with --resume"), "{why}");
    assert_eq!(read_metrics(&folder.path().join("metrics.jsonl")).unwrap(), metrics);
}

#[test]
fn folders_that_cannot_be_used_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let why = start(&file.join("run")).unwrap_err();
    assert!(matches!(why, RunError::Write { .. }), "{why}");
    let missing = folder.path().join("none");
    let why = go_on(&missing, 3).unwrap_err();
    assert!(why.to_string().contains("holds no run"), "{why}");
}

#[test]
fn system_errors_say_what_to_do() {
    let error =
        |kind: std::io::ErrorKind| RunError::Write { path: "x".into(), source: kind.into() }.to_string();
    assert!(error(std::io::ErrorKind::StorageFull).contains("free some space, then go on with --resume"));
    assert!(
        error(std::io::ErrorKind::ReadOnlyFilesystem)
            .contains("choose a folder that can be written with --output")
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_keeps_what_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(folder.path())
        .output();
    if !mount.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED a_full_disk_keeps_what_was_saved: mounting a tmpfs needs root");
        return;
    }
    let path = folder.path().join("run");
    let metrics = sample::metrics(2000, 70.0, true, 1);
    let mut run = start(&path).unwrap();
    let failed = metrics.iter().find_map(|epoch| run.log_epoch(epoch.clone()).err());
    let kept = read_metrics(&path.join("metrics.jsonl"));
    // A file that is replaced is replaced whole or not at all.
    let config = fs::read_to_string(path.join("config.yaml"));
    let finished = run.finish(&sample::evaluation(100, 70.0));
    let halves = path.join("evaluation.json").exists();
    drop(run);
    let unmounted = std::process::Command::new("umount").arg(folder.path()).status().unwrap();
    assert!(unmounted.success());

    let said = failed.expect("64 KiB hold no 2000 epochs").to_string();
    assert!(said.contains("free some space, then go on with --resume"), "{said}");
    let kept = kept.unwrap();
    assert!(kept.len() > 10 && kept[..] == metrics[..kept.len()]);
    assert_eq!(config.unwrap(), Config::default().to_yaml());
    assert!(finished.is_err() && !halves);
}

#[test]
fn damaged_metrics_are_told_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let line = serde_json::to_string(&sample::metrics(1, 70.0, false, 1)[0]).unwrap();
    fs::write(&path, format!("{line}\n{}\n{line}\n", &line[..20])).unwrap();
    let why = read_metrics(&path).unwrap_err().to_string();
    assert!(why.contains("metrics.jsonl, line 2: "), "{why}");
}

#[test]
fn a_loss_that_is_no_number_stays_readable() {
    let folder = tempfile::tempdir().unwrap();
    let mut metrics = sample::metrics(1, 70.0, false, 1).remove(0);
    metrics.test.loss = f64::INFINITY;
    let mut run = start(folder.path()).unwrap();
    run.log_epoch(metrics).unwrap();
    let back = read_metrics(&folder.path().join("metrics.jsonl")).unwrap();
    assert!(back[0].test.loss.is_nan());
}

#[test]
fn the_best_epoch_is_chosen_as_the_reference_does() {
    let mut metrics = sample::metrics(4, 70.0, false, 1);
    for (epoch, top1) in metrics.iter_mut().zip([10.0, 50.0, 50.0, 40.0]) {
        epoch.test.top1 = top1;
    }
    assert_eq!(best_epoch(&metrics).unwrap().epoch, 3, "a tie goes to the later");
    for (epoch, top1) in metrics.iter_mut().zip([10.0, 60.0, 50.0, 40.0]) {
        epoch.validation = Some(sld::run::Accuracy { top1, top5: 90.0, loss: 1.0 });
    }
    let best = best_epoch(&metrics).unwrap();
    assert_eq!((best.epoch, best.test.top1), (2, 50.0), "held-out images choose, test images tell");
    assert!(best_epoch(&[]).is_none());
}

#[test]
fn an_evaluation_counts_by_class() {
    let mut evaluation = Evaluation::new(1, vec!["a".into(), "b".into(), "c".into()]);
    for (label, prediction) in [(0, 0), (0, 0), (0, 1), (1, 0), (1, 0), (1, 2)] {
        evaluation.count(label, prediction);
    }
    let accuracy: Vec<f64> = evaluation.per_class().iter().map(|class| class.accuracy).collect();
    assert_eq!(accuracy, [200.0 / 3.0, 0.0, 0.0]);
    assert_eq!(evaluation.confusions(2), [(1, 0, 2), (0, 1, 1)]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evaluation.json");
    fs::write(&path, r#"{"epoch": 1, "classes": ["a", "b"], "confusion": [[1, 2]]}"#).unwrap();
    assert!(Evaluation::read(&path).unwrap_err().to_string().contains("not 2 by 2"));
}

/// TensorBoard's reader, in the few lines its format needs: the records of a file, each CRC checked.
mod tensorboard {
    pub fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_at(12);
            let length = u64::from_le_bytes(head[..8].try_into().unwrap()) as usize;
            assert_eq!(masked_crc(&head[..8]).to_le_bytes(), head[8..]);
            let (data, rest) = rest.split_at(length);
            let (crc, rest) = rest.split_at(4);
            assert_eq!(masked_crc(data).to_le_bytes(), crc);
            records.push(data.to_vec());
            bytes = rest;
        }
        records
    }

    /// CRC-32C bit by bit, from its definition.
    fn masked_crc(bytes: &[u8]) -> u32 {
        let mut crc = !0u32;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            }
        }
        let crc = !crc;
        crc.rotate_right(15).wrapping_add(0xa282_ead8)
    }

    #[test]
    fn the_crc_here_is_the_published_one() {
        // RFC 3720, B.4: 32 bytes of zeros give 0x8a9136aa.
        let masked = masked_crc(&[0; 32]).wrapping_sub(0xa282_ead8);
        assert_eq!(masked.rotate_left(15), 0x8a91_36aa);
    }

    /// A message's fields: number and content, numbers as their bytes.
    pub fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let length = match key & 7 {
                0 => {
                    let value = varint(&mut bytes);
                    found.push((key >> 3, value.to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                2 => varint(&mut bytes) as usize,
                5 => 4,
                other => panic!("wire type {other}"),
            };
            let (value, rest) = bytes.split_at(length);
            found.push((key >> 3, value.to_vec()));
            bytes = rest;
        }
        found
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    /// (tag, step, value) of every scalar of a file.
    pub fn scalars(bytes: &[u8]) -> Vec<(String, u64, f32)> {
        let mut found = Vec::new();
        for record in records(bytes) {
            let event = fields(&record);
            let number =
                |wanted| event.iter().find(|(field, _)| *field == wanted).map(|(_, value)| value.clone());
            let step = number(2).map_or(0, |value| u64::from_le_bytes(value.try_into().unwrap()));
            for (_, summary) in event.iter().filter(|(field, _)| *field == 5) {
                for (_, value) in fields(summary) {
                    let value = fields(&value);
                    let tag = String::from_utf8(value[0].1.clone()).unwrap();
                    found.push((tag, step, f32::from_le_bytes(value[1].1.clone().try_into().unwrap())));
                }
            }
        }
        found
    }
}

#[test]
fn tensorboard_finds_every_value() {
    let folder = tempfile::tempdir().unwrap();
    let metrics: Vec<EpochMetrics> = sample::metrics(300, 70.0, true, 1);
    let mut run = start(folder.path()).unwrap();
    run.log_step(782 * 300, 12.5, 0.025).unwrap();
    metrics.iter().for_each(|epoch| run.log_epoch(epoch.clone()).unwrap());
    let events = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let file: Vec<PathBuf> =
        events.filter(|path| path.file_name().unwrap().to_str().unwrap().contains(".tfevents.")).collect();
    assert_eq!(file.len(), 1);
    let bytes = fs::read(&file[0]).unwrap();
    let version = tensorboard::fields(&tensorboard::records(&bytes)[0]);
    assert!(version.contains(&(3, b"brain.Event:2".to_vec())));
    let scalars = tensorboard::scalars(&bytes);
    let find = |tag: &str, step: u64| {
        let found = scalars.iter().find(|scalar| scalar.0 == tag && scalar.1 == step);
        found.unwrap_or_else(|| panic!("no {tag} at {step}")).2
    };
    assert_eq!(find("step/loss", 782 * 300), 12.5);
    for epoch in &metrics {
        let swap = epoch.swap.unwrap();
        for (tag, value) in [
            ("train/loss", epoch.train.loss),
            ("test/top1", epoch.test.top1),
            ("loss/kd", epoch.train.terms["kd"]),
            ("swap/teacher_share", swap.teacher.share),
            ("swap/student_level", swap.student_level),
            ("lr", epoch.lr),
        ] {
            assert_eq!(find(tag, epoch.epoch.into()), value as f32, "{tag}, epoch {}", epoch.epoch);
        }
    }
}

/// Every (tag, step) that the folder's event files hold, read one after another as TensorBoard does.
fn points(folder: &Path) -> Vec<(String, u64)> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().contains(".tfevents."))
        .collect();
    files.sort();
    let scalars = files.iter().flat_map(|file| tensorboard::scalars(&fs::read(file).unwrap()));
    scalars.map(|(tag, step, _)| (tag, step)).collect()
}

#[test]
fn a_resumed_run_has_no_step_twice() {
    let metrics = sample::metrics(4, 70.0, true, 1);
    // Killed in the middle of a record, between epoch and checkpoint, and within an epoch; of one step an
    // epoch, too, where steps and epochs are numbered alike.
    for (steps, saved) in [(100u64, 2u32), (100, 0), (1, 2)] {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Claim::new(folder.path())
            .unwrap()
            .begin(Some(&Config::default()), &sample::info("SLD", 5))
            .unwrap();
        let train = |run: &mut RunFolder, epochs: std::ops::RangeInclusive<u32>| {
            for epoch in epochs {
                for step in 1..=steps {
                    run.log_step(u64::from(epoch - 1) * steps + step, 1.0, 0.1).unwrap();
                }
                run.log_epoch(metrics[epoch as usize - 1].clone()).unwrap();
            }
        };
        train(&mut run, 1..=3);
        drop(run);
        let events = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let file = events.into_iter().find(|path| path.to_str().unwrap().contains("tfevents")).unwrap();
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() - 7]).unwrap();

        let reached = Reached { epoch: saved, step: steps * u64::from(saved) };
        let mut run = Claim::new(folder.path())
            .unwrap()
            .go_on(Some(&Config::default()), &sample::info("SLD", 5), reached)
            .unwrap();
        train(&mut run, saved + 1..=4);
        drop(run);
        let points = points(folder.path());
        let of = |tag: &str| points.iter().filter(|p| p.0 == tag).map(|p| p.1).collect::<Vec<_>>();
        assert_eq!(of("step/loss"), (1..=4 * steps).collect::<Vec<_>>(), "{steps} {saved}");
        assert_eq!(of("test/top1"), [1, 2, 3, 4], "{steps} {saved}");
    }
}

/// What TensorBoard, when it has read the older file already, takes as the word to drop later points.
#[test]
fn an_event_file_says_where_it_starts() {
    let folder = tempfile::tempdir().unwrap();
    drop(go_on(folder.path(), 3).unwrap());
    let events = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let file = events.into_iter().find(|path| path.to_str().unwrap().contains("tfevents")).unwrap();
    let records = tensorboard::records(&fs::read(file).unwrap());
    let event = tensorboard::fields(&records[1]);
    let field = |wanted: u64| &event.iter().find(|(field, _)| *field == wanted).expect("the field").1;
    assert_eq!(field(2)[..], 301u64.to_le_bytes(), "the first step to come");
    assert_eq!(
        tensorboard::fields(field(7)),
        [(1, 1u64.to_le_bytes().to_vec())],
        "SessionLog.status = START"
    );
}

#[test]
fn a_claim_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = start(folder.path()).unwrap();
    run.log_epoch(sample::metrics(1, 70.0, false, 1).remove(0)).unwrap();
    drop(run);
    let files = || {
        let entries = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
        let mut all: Vec<_> = entries
            .map(|e| (e.path(), fs::read(e.path()).unwrap(), e.metadata().unwrap().modified().unwrap()))
            .collect();
        all.sort();
        all
    };
    let before = files();
    let claim = Claim::new(folder.path()).unwrap();
    assert!(Claim::new(folder.path()).is_err(), "one at a time");
    assert!(!claim.is_empty() && claim.require_empty().is_err() && claim.latest().is_none());
    let (config, info) = claim.recorded().unwrap().unwrap();
    assert_eq!((config, info), (Config::default(), sample::info("SLD", 240)));
    drop(claim);
    assert_eq!(files(), before);
    // Of a folder that is not there, nothing comes to be.
    let missing = folder.path().join("missing");
    assert!(Claim::new(&missing).unwrap().is_empty() && !missing.exists());
}
