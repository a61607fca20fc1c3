//! A CIFAR-100 of a few hundred images of noise, and runs on it that take a second.
#![allow(dead_code)] // each test takes what it needs

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

/// `sld` with the repository as its folder, so that `configs/` is found.
pub fn sld(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sld"));
    command.args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn run(command: &mut Command) -> Output {
    command.output().expect("the program starts")
}

/// Runs a command that must succeed; what it printed.
pub fn succeeds(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}\n{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Runs a command that must end with exit code 1 and an `error:` with each part in it; the message.
pub fn refused(command: &mut Command, parts: &[&str]) -> String {
    let output = run(command);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{command:?}\nsaid: {said}\n{}", text(&output.stdout));
    assert!(said.contains("error: ") && !said.contains("panicked"), "{command:?}\nsaid: {said}");
    for part in parts {
        assert!(said.contains(part), "{command:?}\nsaid: {said}\nwanted: {part}");
    }
    said
}

/// Writes a data set into `folder`: of every class two training images and a test image, of noise around a
/// colour of its own. `paint` has the last word on each byte, given the split and the image.
pub fn data_set(folder: &Path, paint: impl Fn(&str, usize, u8) -> u8) {
    std::fs::create_dir_all(folder).expect("made");
    let mut state = 1u32;
    let mut noise = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 25) as u8
    };
    for (split, images) in [("train", 200), ("test", 100)] {
        let mut bytes = Vec::new();
        for image in 0..images {
            let class = (image % 100) as u8;
            bytes.extend([class / 5, class]);
            bytes.extend((0..3072).map(|_| paint(split, image, class + noise())));
        }
        std::fs::write(folder.join(format!("{split}.bin")), bytes).expect("written");
    }
    let names: String = (0..100).map(|class| format!("class{class}\n")).collect();
    std::fs::write(folder.join("fine_label_names.txt"), names).expect("written");
}

/// A folder with such a data set in `data`.
pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    data_set(&folder.path().join("data"), |_, _, byte| byte);
    folder
}

/// A training of a resnet8 on `root/data` into `root/run`: four steps an epoch. `options` stand before the
/// config's keys, `keys` after them.
pub fn train(root: &Path, config: &str, options: &[&str], keys: &[&str]) -> Command {
    let mut command = sld(&["train", "--device", "cpu", "--cfg"]);
    command.arg(format!("configs/cifar100/{config}.yaml"));
    if !options.contains(&"--data") {
        command.arg("--data").arg(root.join("data"));
    }
    if !options.contains(&"--output") {
        command.arg("--output").arg(root.join("run"));
    }
    command.args(options).args(["DISTILLER.STUDENT", "resnet8"]).args(keys);
    command
}

/// A checkpoint of fresh weights for 100 classes, changed by `change`.
pub fn checkpoint(path: &Path, model: &str, change: impl FnOnce(&mut Vec<nn::checkpoint::NamedTensor>)) {
    let model = nn::models::build(model, 100, 1).expect("a known model");
    let mut tensors = model.save(&cpu::CpuDevice::new(1)).expect("saved");
    change(&mut tensors);
    let checkpoint = nn::checkpoint::Checkpoint { tensors, ..Default::default() };
    nn::checkpoint::write_pth(path, &checkpoint).expect("written");
}

/// Every file of a folder: its bytes and the time of its last change.
pub fn contents(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let file = |path: PathBuf| {
        let changed = path.metadata().and_then(|m| m.modified()).expect("a time");
        (path.clone(), (std::fs::read(&path).expect("a file"), changed))
    };
    entries.map(file).collect()
}

/// A copy of a run's folder, times included.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for (path, (bytes, changed)) in contents(from) {
        let copy = to.join(path.file_name().expect("a name"));
        std::fs::write(&copy, bytes).expect("written");
        std::fs::File::options().write(true).open(&copy).and_then(|f| f.set_modified(changed)).expect("set");
    }
}

pub fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

pub fn json_lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).expect("a file");
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}
