//! A real teacher on real images, where they are at hand: equal to PyTorch's counts.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

fn shared(path: &str) -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(path);
    if found.exists() {
        return Some(found);
    }
    // Written past the test harness, which shows what a passed test prints to nobody.
    let line = format!("SKIPPED the_teacher_scores_what_pytorch_says: {} is not there\n", found.display());
    let _ = std::io::stderr().write_all(line.as_bytes());
    None
}

fn evaluate(checkpoint: &Path, data: &Path, more: &[&str]) -> serde_json::Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sld"));
    command.args(["eval", "-m", "resnet20", "--json", "--device", "cpu", "-c"]).arg(checkpoint);
    let output = command.arg("--data").arg(data).args(more).output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn the_teacher_scores_what_pytorch_says() {
    let (Some(teachers), Some(data)) = (shared("teachers/resnet20_vanilla"), shared("data/cifar-100-binary"))
    else {
        return;
    };
    for file in ["ckpt_epoch_10.pth", "ckpt_epoch_10_legacy.pth"] {
        let result = evaluate(&teachers.join(file), &data, &[]);
        assert_eq!(
            (&result["top1_correct"], &result["top5_correct"]),
            (&1176.into(), &1700.into()),
            "{file}"
        );
        let loss = result["cross_entropy"].as_f64().expect("a number");
        assert!((loss - 1.529111).abs() < 1e-6, "{loss}");
    }
    let result = evaluate(&teachers.join("ckpt_epoch_10.pth"), &data, &["--train-split", "--batch", "100"]);
    assert_eq!((&result["top1_correct"], &result["top5_correct"]), (&6217.into(), &8902.into()));
    assert!((result["cross_entropy"].as_f64().expect("a number") - 1.302387).abs() < 1e-6);
}
