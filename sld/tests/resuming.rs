//! Going on with a run: as it was, or with a word; and nothing is written where it is refused.

mod small;

use small::{contents, copy, data_set, json, json_lines, refused, succeeds, text, train};
use std::path::Path;

/// A run of two epochs, and the folder that it and its data lie in.
fn base() -> tempfile::TempDir {
    let folder = small::folder();
    succeeds(&mut train(folder.path(), "vanilla", &[], &["SOLVER.EPOCHS", "2"]));
    folder
}

/// What is refused names the parts and changes no file: neither bytes nor times.
fn refused_without_a_trace(root: &Path, command: &mut std::process::Command, parts: &[&str]) -> String {
    let before = contents(&root.join("run"));
    let said = refused(command, parts);
    assert!(before == contents(&root.join("run")), "{command:?} changed a file\nsaid: {said}");
    said
}

#[test]
fn other_settings_are_refused_by_name_and_change_no_file() {
    let folder = base();
    let root = folder.path();
    let other = root.join("other");
    data_set(&other, |split, image, byte| if split == "train" && image == 7 { byte ^ 1 } else { byte });
    let other_test = root.join("other_test");
    data_set(&other_test, |split, image, byte| if split == "test" && image == 7 { byte ^ 1 } else { byte });
    let (other, other_test) = (other.to_str().unwrap(), other_test.to_str().unwrap());
    type Words<'a> = &'a [&'a str];
    let cases: &[(Words, Words, Words)] = &[
        (&[], &["SOLVER.LR", "0.01"], &["SOLVER.LR", "0.05 there, 0.01 now", "SOLVER.LR 0.05", "--change"]),
        (&[], &["SOLVER.BATCH_SIZE", "32"], &["SOLVER.BATCH_SIZE", "64 there, 32 now"]),
        (&[], &["SOLVER.MOMENTUM", "0.5"], &["SOLVER.MOMENTUM", "0.9 there, 0.5 now"]),
        (&[], &["SOLVER.WEIGHT_DECAY", "0"], &["SOLVER.WEIGHT_DECAY"]),
        (&[], &["SOLVER.LR_DECAY_STAGES", "[1,2]"], &["SOLVER.LR_DECAY_STAGES [150,180,210]"]),
        (&[], &["SOLVER.LR_DECAY_RATE", "0.5"], &["SOLVER.LR_DECAY_RATE"]),
        (&[], &["DISTILLER.TYPE", "KD", "DISTILLER.TEACHER", "resnet14"], &["DISTILLER.TYPE", "there", "KD"]),
        (&["--seed", "7"], &[], &["SOLVER.SEED", "0 there, 7 now", "--seed 0"]),
        (&["--val-fraction", "0.5"], &[], &["DATASET.VAL_FRACTION", "0.5 now"]),
        (&["--data", other], &[], &["DATASET.ROOT", "other contents", "--data"]),
        (&["--data", other_test], &[], &["DATASET.ROOT", "other contents"]),
        // Also in company of what is allowed.
        (&[], &["SOLVER.EPOCHS", "5", "SOLVER.LR", "0.01"], &["SOLVER.LR"]),
    ];
    for (options, keys, parts) in cases {
        let options = [&["--resume"], *options].concat();
        let keys = [&["SOLVER.EPOCHS", "2"], *keys].concat();
        refused_without_a_trace(root, &mut train(root, "vanilla", &options, &keys), parts);
    }
    let several = ["SOLVER.LR", "0.01", "SOLVER.MOMENTUM", "0.5", "SOLVER.EPOCHS", "3"];
    refused_without_a_trace(
        root,
        &mut train(root, "vanilla", &["--resume"], &several),
        &[
            "to go on as it was, give SOLVER.LR 0.05 SOLVER.MOMENTUM 0.9, or add --change to go on so from epoch 3 on",
        ],
    );
}

#[test]
fn another_student_is_refused_even_as_a_change() {
    let folder = base();
    let keys = ["SOLVER.EPOCHS", "3", "DISTILLER.STUDENT", "resnet14"];
    for options in [&["--resume"][..], &["--resume", "--change"]] {
        let parts = ["DISTILLER.STUDENT", "resnet8", "resnet14", "cannot become another network", "--output"];
        refused_without_a_trace(folder.path(), &mut train(folder.path(), "vanilla", options, &keys), &parts);
    }
    // Where nothing says which network it was, the tensors do.
    std::fs::remove_file(folder.path().join("run/config.yaml")).unwrap();
    let parts = ["does not fit resnet14", "resnet8 would fit"];
    let mut command = train(folder.path(), "vanilla", &["--resume"], &keys);
    refused_without_a_trace(folder.path(), &mut command, &parts);
}

#[test]
fn a_run_becomes_longer_but_not_shorter() {
    let folder = base();
    let root = folder.path();
    for options in [&["--resume"][..], &["--resume", "--change"]] {
        let mut shorter = train(root, "vanilla", options, &["SOLVER.EPOCHS", "1"]);
        refused_without_a_trace(root, &mut shorter, &["has 2 epochs already", "SOLVER.EPOCHS is 1"]);
    }
    // Equal: nothing is trained, and the same is said of it.
    let said = succeeds(&mut train(root, "vanilla", &["--resume"], &["SOLVER.EPOCHS", "2"]));
    assert!(said.contains("after 2 epochs;"), "{said}");
    assert_eq!(json(&root.join("run/run.json")).get("changes"), None);
    let said = succeeds(&mut train(root, "vanilla", &["--resume"], &["SOLVER.EPOCHS", "3"]));
    assert!(
        said.contains("# SOLVER.EPOCHS 2 until epoch 2, then 3") && said.contains("after 3 epochs;"),
        "{said}"
    );
    assert_eq!(json_lines(&root.join("run/metrics.jsonl")).len(), 3);
    assert_eq!(json(&root.join("run/evaluation.json"))["epoch"], 3);

    // As long as if it had been so from the start.
    succeeds(&mut train(
        root,
        "vanilla",
        &["--output", root.join("whole").to_str().unwrap()],
        &["SOLVER.EPOCHS", "3"],
    ));
    for name in ["latest", "student_best"] {
        let read = |run: &str| std::fs::read(root.join(run).join(name)).unwrap();
        assert!(read("run") == read("whole"), "{name}");
    }
}

#[test]
fn what_does_not_matter_may_differ() {
    let folder = base();
    let root = folder.path();
    data_set(&root.join("moved"), |_, _, byte| byte);
    let moved = root.join("moved");
    let options = ["--resume", "--data", moved.to_str().unwrap()];
    let keys = [
        "SOLVER.EPOCHS",
        "3",
        "DATASET.NUM_WORKERS",
        "1",
        "DATASET.TEST.BATCH_SIZE",
        "7",
        "LOG.TENSORBOARD_FREQ",
        "1",
    ];
    succeeds(&mut train(root, "vanilla", &options, &keys));
}

#[test]
fn a_change_is_made_when_it_is_asked_for_and_kept_on_record() {
    let folder = base();
    let root = folder.path();
    let keys = ["SOLVER.EPOCHS", "3", "SOLVER.LR", "0.01"];
    let said = succeeds(&mut train(root, "vanilla", &["--resume", "--change"], &keys));
    assert!(said.contains("# SOLVER.LR 0.05 until epoch 2, then 0.01"), "{said}");
    // Going on with the changed run is nothing new.
    succeeds(&mut train(root, "vanilla", &["--resume"], &["SOLVER.EPOCHS", "4", "SOLVER.LR", "0.01"]));
    let rates: Vec<f64> =
        json_lines(&root.join("run/metrics.jsonl")).iter().map(|m| m["lr"].as_f64().unwrap()).collect();
    assert_eq!(rates, [0.05, 0.05, 0.01, 0.01]);
    let changes = json(&root.join("run/run.json"))["changes"].clone();
    let lr = serde_json::json!({ "epoch": 3, "key": "SOLVER.LR", "from": "0.05", "to": "0.01" });
    assert!(changes.as_array().unwrap().contains(&lr), "{changes}");
    assert_eq!(changes.as_array().unwrap().len(), 1, "the length is none: {changes}");
    let log = std::fs::read_to_string(root.join("run/worklog.txt")).unwrap();
    let (before, after) =
        log.split_once("changed: SOLVER.LR 0.05 until epoch 2, then 0.01\n").expect("on record");
    assert!(before.contains("epoch: 2\n") && after.contains("epoch: 3\nlr: 0.01\n"), "{log}");
    let report = std::fs::read_to_string(root.join("run/report.html")).unwrap();
    assert!(report.contains("SOLVER.LR") && report.contains("until epoch 2"), "the report tells");

    // Another method in the epoch in work: the epoch begins again, and its sums are of one method only.
    small::checkpoint(&root.join("teacher.pth"), "resnet14", |_| ());
    let teacher = root.join("teacher.pth");
    let options = ["--resume", "--change", "--teacher", teacher.to_str().unwrap()];
    let keys =
        ["SOLVER.EPOCHS", "5", "SOLVER.LR", "0.01", "DISTILLER.TYPE", "KD", "DISTILLER.TEACHER", "resnet14"];
    succeeds(&mut train(root, "vanilla", &options, &keys));
    let metrics = json_lines(&root.join("run/metrics.jsonl"));
    assert!(
        metrics[4]["train"]["terms"].get("kd").is_some() && metrics[3]["train"]["terms"].get("kd").is_none()
    );
}

#[test]
fn a_run_goes_on_in_the_precision_it_had() {
    let folder = base();
    let root = folder.path();
    let file = root.join("run/run.json");
    let mut info = json(&file);
    assert_eq!(info["precision"], "f32");
    let again = |options: &[&str]| train(root, "vanilla", options, &["SOLVER.EPOCHS", "3"]);
    info["precision"] = "mixed".into();
    std::fs::write(&file, info.to_string()).unwrap();
    let parts =
        ["--precision  mixed there, f32 now", "to go on as it was, give --precision mixed", "--change"];
    refused_without_a_trace(root, &mut again(&["--resume"]), &parts);
    let said = succeeds(&mut again(&["--resume", "--change"]));
    assert!(said.contains("# --precision mixed until epoch 2, then f32"), "{said}");
    // Older versions did not say.
    let mut info = json(&file);
    assert_eq!(info["precision"], "f32");
    info.as_object_mut().unwrap().remove("precision");
    std::fs::write(&file, info.to_string()).unwrap();
    succeeds(&mut again(&["--resume"]));
}

#[test]
fn a_teacher_is_known_by_its_weights() {
    let folder = small::folder();
    let root = folder.path();
    let teacher = |name: &str, seed: f32| {
        small::checkpoint(&root.join(name), "resnet8", |tensors| {
            let bias = tensors.iter_mut().find(|t| t.name == "fc.bias").unwrap();
            bias.data = nn::checkpoint::TensorData::F32(vec![seed; 100]);
        });
        root.join(name).to_str().unwrap().to_owned()
    };
    let (first, copy, second) = (teacher("a.pth", 0.5), teacher("copy.pth", 0.5), teacher("b.pth", 0.25));
    let kd = |options: &[&str], epochs: &str| {
        train(root, "kd", options, &["DISTILLER.TEACHER", "resnet8", "SOLVER.EPOCHS", epochs])
    };
    succeeds(&mut kd(&["--teacher", &first], "1"));
    let parts = ["DISTILLER.TEACHER_CHECKPOINT", "other contents", "--teacher", "a.pth"];
    refused_without_a_trace(root, &mut kd(&["--resume", "--teacher", &second], "2"), &parts);
    succeeds(&mut kd(&["--resume", "--teacher", &copy], "2"));
    succeeds(&mut kd(&["--resume", "--change", "--teacher", &second], "3"));
    let changes = json(&root.join("run/run.json"))["changes"].to_string();
    assert!(changes.contains("b.pth (other contents)"), "{changes}");
}

#[test]
fn a_run_without_its_latest_is_not_begun_again() {
    let folder = base();
    let root = folder.path();
    let again = |keys: &[&str]| train(root, "vanilla", &["--resume"], keys);
    let run = root.join("run");
    std::fs::remove_file(run.join("latest")).unwrap();
    let said = refused_without_a_trace(
        root,
        &mut again(&["SOLVER.EPOCHS", "3"]),
        &["a run of 2 epochs", "no `latest`"],
    );
    assert!(
        said.contains(&format!("cp {} {}", run.join("best").display(), run.join("latest").display())),
        "{said}"
    );
    // Any trace of training will do.
    std::fs::remove_file(run.join("metrics.jsonl")).unwrap();
    refused_without_a_trace(
        root,
        &mut again(&["SOLVER.EPOCHS", "3"]),
        &["less than an epoch", "no `latest`"],
    );
    for name in ["best", "student_best"] {
        std::fs::remove_file(run.join(name)).unwrap();
    }
    refused_without_a_trace(root, &mut again(&["SOLVER.EPOCHS", "3"]), &["no `latest`"]);
    let mut without = train(root, "vanilla", &[], &["SOLVER.EPOCHS", "1"]);
    refused_without_a_trace(root, &mut without, &["already holds"]);
    // Nothing that was trained is left: this is a beginning.
    std::fs::remove_file(run.join("student_latest")).unwrap();
    let said = succeeds(&mut again(&["SOLVER.EPOCHS", "1"]));
    assert!(said.contains("starting from the beginning") && said.contains("after 1 epoch;"), "{said}");
}

#[test]
fn a_start_that_fails_leaves_no_folder() {
    let folder = small::folder();
    let root = folder.path();
    small::checkpoint(&root.join("nan.pth"), "resnet8", |tensors| {
        let bias = tensors.iter_mut().find(|t| t.name == "fc.bias").unwrap();
        bias.data = nn::checkpoint::TensorData::F32(vec![f32::NAN; 100]);
    });
    let nan = root.join("nan.pth");
    let kd = ["DISTILLER.TEACHER", "resnet8", "SOLVER.EPOCHS", "1"];
    for (teacher, why) in [("nowhere.pth", "nowhere.pth"), (nan.to_str().unwrap(), "fc.bias")] {
        refused(&mut train(root, "kd", &["--teacher", teacher], &kd), &[why, "--teacher"]);
        assert!(!root.join("run").exists(), "{teacher}");
    }
    // A folder that was there before stays as it was.
    std::fs::create_dir(root.join("run")).unwrap();
    refused(&mut train(root, "kd", &["--teacher", "nowhere.pth"], &kd), &["nowhere.pth"]);
    assert!(contents(&root.join("run")).is_empty());
}

/// A state that was copied without the rest of its folder still goes on, with a word.
#[test]
fn a_latest_alone_goes_on() {
    let folder = base();
    let root = folder.path();
    copy(&root.join("run"), &root.join("old"));
    std::fs::remove_dir_all(root.join("run")).unwrap();
    std::fs::create_dir(root.join("run")).unwrap();
    std::fs::copy(root.join("old/latest"), root.join("run/latest")).unwrap();
    refused(
        &mut train(root, "vanilla", &["--resume", "--seed", "7"], &["SOLVER.EPOCHS", "3"]),
        &["seed 0", "--seed 0"],
    );
    let output = small::run(&mut train(root, "vanilla", &["--resume"], &["SOLVER.EPOCHS", "3"]));
    assert!(output.status.success() && text(&output.stdout).contains("cannot be told"));
}
