//! What a method's settings do to a run, read from the run's own files.

use std::path::Path;
use std::process::Command;

/// The epochs' lines of a short run with a teacher of fresh weights: an epoch is four steps.
fn metrics(config: &str, overrides: &[&str]) -> Vec<serde_json::Value> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let teacher = folder.path().join("teacher.pth");
    let model = nn::models::build("resnet8", 20, 1).expect("a known model");
    let tensors = model.save(&cpu::CpuDevice::new(1)).expect("saved");
    let checkpoint = nn::checkpoint::Checkpoint { tensors, ..Default::default() };
    nn::checkpoint::write_pth(&teacher, &checkpoint).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sld"));
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    command.args(["train", "--cfg", config, "--device", "cpu", "--val-fraction", "0.95", "--output"]);
    command.arg(folder.path().join("run")).arg("--teacher").arg(&teacher);
    command.args([
        "DATASET.TYPE",
        "synthetic",
        "DISTILLER.TEACHER",
        "resnet8",
        "DISTILLER.STUDENT",
        "resnet8",
    ]);
    let output = command.args(["SOLVER.EPOCHS", "2"]).args(overrides).output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(folder.path().join("run/metrics.jsonl")).expect("the run logged");
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

/// A level is a divergence; its term of the loss is the level times the method's own weight.
#[test]
fn the_levels_of_a_swap_are_without_the_methods_own_weight() {
    let swap = ("configs/cifar100/kd_swap.yaml", "KD_SWAP");
    let sld = ("configs/cifar100/sld/res56_res20.yaml", "SLD");
    for ((config, section), key, weight) in
        [(swap, "KD_SWAP.KD_WEIGHT", 2.5), (swap, "KD_SWAP.KD_WEIGHT", 0.0), (sld, "KD.LOSS.KD_WEIGHT", 0.25)]
    {
        let gate = format!("{section}.GATE_EPOCH");
        let epochs = metrics(config, &[&gate, "1", key, &weight.to_string()]);
        for (metrics, open) in epochs.iter().zip([false, true]) {
            let (terms, swap) = (&metrics["train"]["terms"], &metrics["swap"]);
            let names: Vec<&String> = terms.as_object().expect("terms").keys().collect();
            assert_eq!(names, ["ce", "kd_student", "kd_teacher"], "terms are the loss's, nothing else");
            assert_eq!(swap["student_gate"], open);
            for who in ["teacher", "student"] {
                let number = |value: &serde_json::Value| value.as_f64().expect("a number");
                let level = number(&swap[format!("{who}_level")]);
                let term = number(&terms[format!("kd_{who}")]);
                assert!(
                    (term - weight * level).abs() <= 1e-5 * level,
                    "{section} {weight} {who}: {term} {level}"
                );
                assert_eq!(level > 0.0, who == "teacher" || open, "{section} {weight} {who}: {level}");
            }
        }
    }
}
