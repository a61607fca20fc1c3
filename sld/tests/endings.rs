//! Where a run ends: early, when it no longer gets better; and several of them, one for each seed.

mod small;

use small::{contents, json, json_lines, refused, succeeds, train};
use std::path::Path;

/// Top-1 on the test images of each epoch.
fn accuracies(run: &Path) -> Vec<f64> {
    let lines = json_lines(&run.join("metrics.jsonl"));
    lines.iter().map(|line| line["test"]["top1"].as_f64().unwrap()).collect()
}

/// The epoch after which a run of this patience ends, and the last better one.
fn end(accuracies: &[f64], patience: usize) -> (usize, usize) {
    let (mut best, mut at) = (f64::MIN, 0);
    for (i, &accuracy) in accuracies.iter().enumerate() {
        if accuracy > best {
            (best, at) = (accuracy, i + 1);
        }
        if i + 1 - at == patience {
            return (i + 1, at);
        }
    }
    panic!("no end in {accuracies:?}");
}

#[test]
fn a_run_that_no_longer_gets_better_ends_and_says_why() {
    let folder = small::folder();
    let root = folder.path();
    let latest = |run: &str| std::fs::read(root.join(run).join("latest")).unwrap();
    let go = |run: &str, options: &[&str], epochs: &str, patience: &str| {
        let output = root.join(run);
        let options = [&["--output", output.to_str().unwrap()], options].concat();
        // So small a rate that nothing is learned.
        let keys = ["SOLVER.LR", "1e-9", "SOLVER.EPOCHS", epochs, "SOLVER.PATIENCE", patience];
        succeeds(&mut train(root, "vanilla", &options, &keys))
    };
    go("whole", &[], "12", "0");
    let all = accuracies(&root.join("whole"));
    let (last, better) = end(&all, 2);
    assert!(last < 11, "{all:?}");

    let said = go("early", &[], "12", "2");
    assert!(said.contains("for evaluations; less if it ends early"), "{said}");
    let why = format!("stopped early: no epoch since {better} was better (SOLVER.PATIENCE)");
    assert!(said.contains(&why) && said.contains(&format!("after {last} epochs;")), "{said}");
    assert_eq!(accuracies(&root.join("early")), all[..last]);
    assert_eq!(json(&root.join("early/evaluation.json"))["epoch"], last);
    let report = std::fs::read_to_string(root.join("early/report.html")).unwrap();
    assert!(report.contains(&format!("stopped early, after {last} of 12 epochs: none since epoch {better}")));
    assert!(!report.contains("The run is not finished"));

    // Resumed, it is at its end as before. In two parts, of which the first ends for another reason, it ends there too.
    let before = latest("early");
    assert!(go("early", &["--resume"], "12", "2").contains(&why) && latest("early") == before);
    go("parts", &[], &(last - 1).to_string(), "2");
    assert!(go("parts", &["--resume"], "12", "2").contains(&why) && latest("parts") == before);

    // With more patience it goes on, as if it had had that all along.
    go("early", &["--resume"], &(last + 1).to_string(), "12");
    assert_eq!(accuracies(&root.join("early")), all[..=last]);
    go("patient", &[], &(last + 1).to_string(), "12");
    assert!(latest("early") == latest("patient"));
}

#[test]
fn seeds_are_trained_by_one_command_and_summed_up() {
    let folder = small::folder();
    let root = folder.path();
    let command = |options: &[&str], epochs: &str| {
        train(root, "vanilla", options, &["SOLVER.EPOCHS", epochs, "SOLVER.PATIENCE", "9"])
    };
    refused(
        train(root, "vanilla", &["--seeds", "2"], &["SOLVER.SEED", "3"]).arg("SOLVER.EPOCHS").arg("1"),
        &["SOLVER.SEED follows from --seeds"],
    );
    for other in [&["--seed", "1"][..], &["--resume"]] {
        let output = small::run(&mut command(&[&["--seeds", "2"], other].concat(), "1"));
        assert!(!output.status.success() && small::text(&output.stderr).contains("cannot be used with"));
    }
    assert!(!root.join("run").exists());

    let said = succeeds(&mut command(&["--seeds", "2"], "1"));
    let of = |seed: usize| accuracies(&root.join(format!("run/seed-{seed}")))[0];
    let summary = |seeds: usize| {
        let values: Vec<f64> = (1..=seeds).map(of).collect();
        let n = seeds as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
        format!("| Cross entropy | resnet8 | {seeds} | {mean:.2} \u{b1} {:.2} |", variance.sqrt())
    };
    assert!(said.contains(&summary(2)), "{said}\n{}", summary(2));
    assert!(json(&root.join("run/seed-2/run.json"))["seed"] == 2);
    let report = std::fs::read_to_string(root.join("run/report.html")).unwrap();
    assert!(report.contains("seed-1") && report.contains("seed-2"));

    // One seed more: what is finished stays as it is.
    let before = contents(&root.join("run/seed-1"));
    let said = succeeds(&mut command(&["--seeds", "3"], "1"));
    assert!(said.matches("finished before").count() == 2 && said.contains(&summary(3)), "{said}");
    assert!(contents(&root.join("run/seed-1")) == before);
    // Settings that decide nothing, too.
    let mut more = command(&["--seeds", "3"], "1");
    let said = succeeds(more.args(["DATASET.NUM_WORKERS", "1", "DATASET.TEST.BATCH_SIZE", "7"]));
    assert!(said.matches("finished before").count() == 3, "{said}");
    // Other settings are none that they were finished under.
    assert!(!succeeds(&mut command(&["--seeds", "1"], "2")).contains("finished before"));
}
