//! Training that begins with given weights: `--init`.

mod small;

use nn::checkpoint::{self, NamedTensor, Role};
use small::{contents, refused, succeeds, train};
use std::path::Path;

/// What a run of no effect ends with: the weights that it began with, as it found them.
const STILL: [&str; 6] = ["SOLVER.EPOCHS", "1", "SOLVER.LR", "1e-30", "SOLVER.WEIGHT_DECAY", "0"];

fn tensors(path: &Path) -> Vec<NamedTensor> {
    checkpoint::read_network(path, Role::Student).unwrap_or_else(|error| panic!("{error}")).tensors
}

fn is_learned(name: &str) -> bool {
    !name.contains("running_") && !name.ends_with("num_batches_tracked")
}

fn assert_still(given: &NamedTensor, trained: &NamedTensor) {
    assert_eq!((&given.name, &given.shape), (&trained.name, &trained.shape));
    for (before, after) in given.data.to_f32().into_iter().zip(trained.data.to_f32()) {
        assert!((before - after).abs() < 1e-25, "{}: {before} became {after}", given.name);
    }
}

/// Writes a network of so many classes, drawn from a seed.
fn drawn(path: &Path, model: &str, classes: usize, seed: u64) {
    let model = nn::models::build(model, classes, seed).unwrap();
    let tensors = model.save(&cpu::CpuDevice::new(1)).unwrap();
    let checkpoint = nn::checkpoint::Checkpoint { tensors, ..Default::default() };
    checkpoint::write_pth(path, &checkpoint).unwrap();
}

#[test]
fn training_begins_with_the_weights_of_a_checkpoint() {
    let folder = small::folder();
    let root = folder.path();
    let init = root.join("init.pth");
    drawn(&init, "resnet8", 100, 77);
    let said = succeeds(&mut train(root, "vanilla", &["--init", init.to_str().unwrap()], &STILL));
    assert!(!said.contains("classifier"), "{said}");
    let (given, trained) = (tensors(&init), tensors(&root.join("run/student_latest")));
    assert_eq!(given.len(), trained.len());
    for (given, trained) in given.iter().zip(&trained).filter(|(given, _)| is_learned(&given.name)) {
        assert_still(given, trained);
    }
}

#[test]
fn a_classifier_of_other_classes_is_drawn_and_that_is_said() {
    let folder = small::folder();
    let root = folder.path();
    let init = root.join("init.pth");
    drawn(&init, "resnet8", 10, 77);
    let options = ["--seed", "3", "--init", init.to_str().unwrap()];
    let said = succeeds(&mut train(root, "vanilla", &options, &STILL));
    let parts = ["init.pth: its classifier is of 10 classes, this data set has 100", "a new one is drawn"];
    assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    // The new classifier is the one that a student without --init has.
    drawn(&root.join("drawn.pth"), "resnet8", 100, 3);
    let (given, drawn) = (tensors(&init), tensors(&root.join("drawn.pth")));
    let trained = tensors(&root.join("run/student_latest"));
    for ((given, drawn), trained) in given.iter().zip(&drawn).zip(&trained) {
        if is_learned(&given.name) {
            assert_still(if given.name.starts_with("fc.") { drawn } else { given }, trained);
        }
    }
}

#[test]
fn weights_that_do_not_fit_are_refused_by_name() {
    let folder = small::folder();
    let root = folder.path();
    let init = |name: &str| root.join(name).to_str().unwrap().to_owned();
    drawn(&root.join("other.pth"), "resnet14", 100, 1);
    drawn(&root.join("both.pth"), "resnet14", 10, 1);
    small::checkpoint(&root.join("renamed.pth"), "resnet8", |tensors| tensors[0].name = "stem.weight".into());
    std::fs::write(root.join("text.pth"), "no checkpoint").unwrap();
    for (name, parts) in [
        ("other.pth", &["--init", "does not fit resnet8", "layer1.1.conv1.weight", "resnet14 would fit"][..]),
        ("both.pth", &["--init", "layer1.1.conv1.weight", "fc.weight is [10, 64]"]),
        ("renamed.pth", &["--init", "conv1.weight", "stem.weight"]),
        ("text.pth", &["--init", "text.pth"]),
        ("none.pth", &["--init", "none.pth"]),
    ] {
        refused(&mut train(root, "vanilla", &["--init", &init(name)], &STILL), parts);
        assert!(!root.join("run").exists(), "{name}: nothing was begun");
    }
}

#[test]
fn a_resumed_run_began_with_the_same_weights() {
    let folder = small::folder();
    let root = folder.path();
    let init = |name: &str| root.join(name).to_str().unwrap().to_owned();
    drawn(&root.join("a.pth"), "resnet8", 10, 77);
    drawn(&root.join("copy.pth"), "resnet8", 10, 77);
    drawn(&root.join("b.pth"), "resnet8", 10, 78);
    let epochs = |options: &[&str], epochs: &str| train(root, "vanilla", options, &["SOLVER.EPOCHS", epochs]);
    succeeds(&mut epochs(&["--init", &init("a.pth")], "1"));

    let refused_always = |options: &[&str], parts: &[&str]| {
        for change in [&["--resume"][..], &["--resume", "--change"]] {
            let before = contents(&root.join("run"));
            refused(&mut epochs(&[change, options].concat(), "2"), parts);
            assert!(before == contents(&root.join("run")), "{options:?} changed a file");
        }
    };
    let key = "DISTILLER.STUDENT_CHECKPOINT";
    refused_always(&["--init", &init("b.pth")], &[key, "other contents", "to go on as it was, give --init"]);
    refused_always(&[], &[key, "a.pth there, \"\" now", "that began with other weights"]);

    // A copy is the same, and when the file is gone it is not needed.
    succeeds(&mut epochs(&["--resume", "--init", &init("copy.pth")], "2"));
    std::fs::remove_file(root.join("copy.pth")).unwrap();
    let said = succeeds(&mut epochs(&["--resume", "--init", &init("copy.pth")], "3"));
    assert!(said.contains("copy.pth") && said.contains("not needed to go on"), "{said}");

    let options = ["--init", &init("a.pth"), "--output", &init("whole")];
    succeeds(&mut epochs(&options, "3"));
    assert!(
        tensors(&root.join("run/student_latest")) == tensors(&root.join("whole/student_latest")),
        "resumed twice is not as never stopped"
    );
    // A run that drew its weights cannot be told afterwards that it did not.
    let drew = ["--output", &init("drew")];
    succeeds(&mut epochs(&drew, "1"));
    let parts = [key, "\"\" there", "a.pth now"];
    refused(
        &mut epochs(&[&drew[..], &["--resume", "--change", "--init", &init("a.pth")]].concat(), "2"),
        &parts,
    );
}
