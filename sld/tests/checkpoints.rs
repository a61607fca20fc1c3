//! Checkpoints on the command line: what is recognised, what is refused, and what is said about it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nn::checkpoint::{self, Checkpoint, NamedTensor};

/// `sld` with the repository as its folder, so that `configs/` is found.
fn sld(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sld"));
    command.args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// What the command says on success.
fn succeeds(mut command: Command, parts: &[&str]) -> String {
    let output = command.output().expect("the program starts");
    let said = said(&output);
    assert!(output.status.success(), "{command:?}\nsaid: {said}");
    parts.iter().for_each(|part| assert!(said.contains(part), "{command:?}\nsaid: {said}\nwanted: {part}"));
    said
}

/// What the command says in failing with exit code 1.
fn refused(mut command: Command, parts: &[&str]) {
    let output = command.output().expect("the program starts");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{command:?}\nsaid: {said}");
    parts.iter().for_each(|part| assert!(said.contains(part), "{command:?}\nsaid: {said}\nwanted: {part}"));
}

/// The weights of a new network; `bias` is that of the classifier, to tell one from another.
fn weights(model: &str, classes: usize, bias: f32) -> Vec<NamedTensor> {
    let model = nn::models::build(model, classes, 7).expect("a known model");
    let mut tensors = model.save(&cpu::CpuDevice::new(1)).expect("saved");
    let last = tensors.last_mut().expect("a bias");
    *last = NamedTensor::f32(last.name.clone(), &last.shape, vec![bias; classes]);
    tensors
}

fn under(prefix: &str, tensors: &[NamedTensor]) -> Vec<NamedTensor> {
    tensors.iter().map(|t| NamedTensor { name: format!("{prefix}{}", t.name), ..t.clone() }).collect()
}

fn write(path: &Path, tensors: Vec<NamedTensor>) {
    let checkpoint = Checkpoint { tensors, ..Checkpoint::default() };
    match path.extension().is_some_and(|ending| ending == "safetensors") {
        true => checkpoint::write_safetensors(path, &checkpoint),
        false => checkpoint::write_pth(path, &checkpoint),
    }
    .expect("written");
}

fn eval(checkpoint: &Path, more: &[&str]) -> Command {
    let mut command = sld(&["eval", "--dataset", "synthetic", "--device", "cpu", "-c"]);
    command.arg(checkpoint).args(more);
    command
}

fn odd(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/fixtures/ckpt/odd/{name}.pth"))
}

#[test]
fn a_prefix_that_all_names_share_is_taken_off_in_every_format() {
    let folder = tempfile::tempdir().expect("a folder");
    let tensors = weights("resnet8", 20, 0.5);
    let mut results = Vec::new();
    for (prefix, name) in [
        ("", "w.pth"),
        ("module.", "w.pth"),
        ("module.", "w.safetensors"),
        ("module._orig_mod.", "w.safetensors"),
        ("backbone.net.", "w.pth"),
        ("student.module.", "w.safetensors"),
    ] {
        let path = folder.path().join(name);
        write(&path, under(prefix, &tensors));
        let output = eval(&path, &["-m", "resnet8", "--json"]).output().expect("the program starts");
        assert!(output.status.success(), "{prefix}: {}", said(&output));
        let notes = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(prefix.is_empty(), notes.is_empty(), "{prefix}: {notes}");
        results.push(output.stdout);
    }
    assert!(results.iter().all(|result| *result == results[0]));
    // Not where only some names have it.
    let path = folder.path().join("some.pth");
    let some = [under("module.", &tensors[..10]), tensors[10..].to_vec()].concat();
    write(&path, some);
    refused(eval(&path, &["-m", "resnet8"]), &["9 missing", "module.conv1.weight"]);
}

#[test]
fn the_checkpoint_tells_its_network() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("w.pth");
    // By names and shapes, whatever is around them.
    write(&path, under("module.", &weights("resnet8", 20, 0.0)));
    succeeds(eval(&path, &[]), &["those of a resnet8 of 20 classes", "resnet8 on synthetic test"]);
    write(&path, vec![NamedTensor::f32("w", &[2, 2], vec![0.0; 4])]);
    refused(eval(&path, &[]), &["none of the networks", "-m"]);
    // With another one given, the difference.
    write(&path, weights("resnet14", 20, 0.0));
    refused(eval(&path, &["-m", "resnet8"]), &["does not fit resnet8", "the model resnet14 would fit"]);
}

#[test]
fn a_checkpoint_of_another_number_of_classes_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("w.pth");
    for (model, classes) in [("resnet8", 100), ("resnet8", 10), ("vgg8", 21), ("MobileNetV2", 5)] {
        write(&path, under("module.", &weights(model, classes, 0.0)));
        let wanted = format!(
            "it is a {model} of {classes} classes, the data set has 20; choose the data set it was trained on with \
             --dataset"
        );
        for more in [&[][..], &["-m", model]] {
            refused(eval(&path, more), &[&wanted]);
        }
    }
}

#[test]
fn a_runs_checkpoints_carry_what_they_were_trained_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = folder.path().join("run");
    let mut train = sld(&["train", "--cfg", "configs/cifar100/vanilla.yaml", "--device", "cpu"]);
    train.args(["--val-fraction", "0.95", "--output"]).arg(&run);
    train.args(["DATASET.TYPE", "synthetic", "DISTILLER.STUDENT", "resnet8", "SOLVER.EPOCHS", "1"]);
    succeeds(train, &[]);
    for file in ["student_best", "student_latest", "latest"] {
        let network = checkpoint::read(&run.join(file)).expect("read").network.expect("a description");
        assert_eq!(
            (network.model.as_str(), network.classes.len(), network.size),
            ("resnet8", 20, [32, 32]),
            "{file}"
        );
        assert!(network.std.iter().all(|&std| std > 0.0), "{network:?}");
        succeeds(eval(&run.join(file), &[]), &["resnet8 on synthetic test"]);
        let converted = folder.path().join(format!("{file}.safetensors"));
        let mut convert = sld(&["convert"]);
        convert.arg(run.join(file)).arg(&converted);
        succeeds(convert, &[]);
        assert_eq!(checkpoint::read(&converted).expect("read").network, Some(network));
    }
    // The constants are the checkpoint's, not the data set's.
    let mut other = checkpoint::read(&run.join("student_best")).expect("read");
    let path = folder.path().join("other.pth");
    checkpoint::write_pth(&path, &other).expect("written");
    let same = succeeds(eval(&path, &["--json"]), &[]);
    other.network.as_mut().expect("set").std = [9.0; 3];
    checkpoint::write_pth(&path, &other).expect("written");
    assert_ne!(succeeds(eval(&path, &["--json"]), &[]), same);
    // And other classes are not measured in silence.
    other.network.as_mut().expect("set").classes[0] = "apple".into();
    checkpoint::write_pth(&path, &other).expect("written");
    refused(eval(&path, &[]), &["its classes are apple, ", "--dataset"]);
}

#[test]
fn a_trainers_state_gives_its_teacher_as_teacher_and_its_student_to_eval() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("latest.pth");
    let (student, teacher) = (weights("resnet8", 20, 0.0), weights("resnet14", 20, 19.0));
    write(&path, [under("module.student.", &student), under("module.teacher.", &teacher)].concat());
    succeeds(eval(&path, &[]), &["taken is the student", "--part teacher", "resnet8 on synthetic test"]);
    let taken = folder.path().join("taken.pth");
    for (part, network) in [("teacher", "resnet14"), ("student", "resnet8")] {
        let mut convert = sld(&["convert", "--force", "--part", part]);
        convert.arg(&path).arg(&taken);
        succeeds(convert, &[]);
        let model = nn::models::build(network, 20, 0).expect("a known model");
        let tensors = checkpoint::read(&taken).expect("read").tensors;
        assert!(checkpoint::match_names(&model.manifest(), &tensors).is_ok(), "{part}");
    }
    let mut train = sld(&["train", "--cfg", "configs/cifar100/kd.yaml", "--device", "cpu", "--teacher"]);
    train.arg(&path).args(["--val-fraction", "0.95", "--output"]).arg(folder.path().join("run"));
    train.args([
        "DATASET.TYPE",
        "synthetic",
        "DISTILLER.TEACHER",
        "resnet14",
        "DISTILLER.STUDENT",
        "resnet8",
    ]);
    train.args(["SOLVER.EPOCHS", "1"]);
    succeeds(train, &["taken is the teacher", "--part student"]);
    // The only one there is.
    write(&path, under("module.teacher.", &teacher));
    succeeds(eval(&path, &[]), &["all of it is a teacher", "resnet14 on synthetic test"]);
}

#[test]
fn an_archive_as_teacher_lists_its_checkpoints() {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder.path().join("w.pth"), weights("resnet8", 20, 0.0));
    let path = folder.path().join("teachers.tar");
    let mut tar = tar::Builder::new(fs::File::create(&path).expect("created"));
    for name in ["a/resnet8.pth", "b/resnet8.pth"] {
        tar.append_path_with_name(folder.path().join("w.pth"), name).expect("appended");
    }
    tar.finish().expect("finished");
    let mut train = sld(&["train", "--cfg", "configs/cifar100/kd.yaml", "--device", "cpu", "--teacher"]);
    train.arg(&path).arg("--output").arg(folder.path().join("run"));
    train.args(["DATASET.TYPE", "synthetic", "DISTILLER.TEACHER", "resnet8", "DISTILLER.STUDENT", "resnet8"]);
    refused(train, &["teachers.tar", "\"a/resnet8.pth\", \"b/resnet8.pth\""]);
    refused(eval(&path, &[]), &["\"a/resnet8.pth\", \"b/resnet8.pth\""]);
    succeeds(eval(&path.join("a/resnet8.pth"), &[]), &["resnet8 on synthetic test"]);
}

#[test]
fn logits_replace_nothing_that_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("w.safetensors");
    write(&path, weights("resnet8", 20, 0.0));
    let before = fs::read(&path).expect("there");
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).expect("made");
    let mut spellings = vec![path.clone(), inner.join("../w.safetensors"), inner.join(".././w.safetensors")];
    #[cfg(unix)]
    {
        for (link, soft) in [("soft.safetensors", true), ("hard.safetensors", false)] {
            let link = folder.path().join(link);
            match soft {
                true => std::os::unix::fs::symlink(&path, &link).expect("linked"),
                false => fs::hard_link(&path, &link).expect("linked"),
            }
            spellings.push(link);
        }
        std::os::unix::fs::symlink(folder.path(), folder.path().join("folder")).expect("linked");
        spellings.push(folder.path().join("folder/w.safetensors"));
    }
    for spelling in &spellings {
        let mut command = eval(&path, &["--logits"]);
        command.arg(spelling);
        refused(command, &["would overwrite", "w.safetensors"]);
    }
    assert_eq!(fs::read(&path).expect("there"), before);
    // Images are inputs too.
    let images = inner.join("train.bin");
    fs::write(&images, b"images").expect("written");
    let mut command = eval(&path, &["--logits"]);
    command.arg(&images).arg("--data").arg(&inner);
    refused(command, &["would overwrite", "train.bin"]);
    // Older outputs are replaced.
    let output = folder.path().join("logits.safetensors");
    for _ in 0..2 {
        let mut command = eval(&path, &["--logits"]);
        command.arg(&output);
        succeeds(command, &[]);
    }
    assert_eq!(checkpoint::read(&output).expect("read").tensors.len(), 2);
}

#[test]
fn convert_names_what_it_leaves_out_and_writes_no_empty_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let convert = |name: &str, to: &str| {
        let mut command = sld(&["convert"]);
        command.arg(odd(name)).arg(folder.path().join(to));
        command
    };
    for (name, left_out) in [
        ("nested_beside_tensors", &["model.head (a dict)", "model.list (a list)"][..]),
        ("optimizer_adagrad", &["optimizer (not SGD", "sum"]),
        ("timm", &["state_dict_ema (a dict)"]),
        ("beside", &["array (an object of _reconstruct)", "long (an int)", "args (an object of Namespace)"]),
    ] {
        for ending in ["pth", "safetensors"] {
            let to = format!("{name}.{ending}");
            let said = succeeds(convert(name, &to), left_out);
            assert!(said.contains("left out: "), "{said}");
            let written = checkpoint::read(&folder.path().join(&to)).expect("read");
            assert!(written.optimizer.is_none());
        }
    }
    for (name, part) in [
        ("nested", "no tensor with a name"),
        ("numbered", "no tensor with a name"),
        ("empty", "it is empty"),
        ("negated", "tensor \"odd\""),
        ("two_nets", "--part"),
    ] {
        refused(convert(name, "refused.pth"), &[part]);
        assert!(!folder.path().join("refused.pth").exists(), "{name}");
    }
    // Names stay as they are.
    succeeds(convert("timm", "names.safetensors"), &[]);
    let names: Vec<String> = checkpoint::read(&folder.path().join("names.safetensors"))
        .expect("read")
        .tensors
        .into_iter()
        .map(|t| t.name)
        .collect();
    assert!(names.iter().all(|name| name.starts_with("module.")), "{names:?}");
}

#[test]
fn export_writes_a_model_that_says_how_it_sees_and_harms_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let weights_path = folder.path().join("w.pth");
    write(&weights_path, weights("resnet8", 20, 0.5));
    let export = |to: &str, more: &[&str]| {
        let mut command = sld(&["export"]);
        command.arg(&weights_path).arg(folder.path().join(to)).args(more);
        command
    };
    succeeds(export("a.onnx", &[]), &["resnet8 of 20 classes, images [batch, 3, 32, 32] normalised"]);
    let plain = fs::read(folder.path().join("a.onnx")).expect("written");
    let holds = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds(&plain, "[0.5071,0.4867,0.4408]") && holds(&plain, "class 19") && !holds(&plain, "sub"));
    refused(export("a.onnx", &["--levels"]), &["exists", "--force"]);
    assert_eq!(fs::read(folder.path().join("a.onnx")).expect("still there"), plain);
    succeeds(export("a.onnx", &["--levels", "--force"]), &["in levels from 0 to 1"]);
    let levels = fs::read(folder.path().join("a.onnx")).expect("written");
    assert!(holds(&levels, "sub") && holds(&levels, "div"));
    refused(export("a.pth", &[]), &[".onnx", "sld convert"]);
    refused(export("b.onnx", &["--size", "7"]), &["images of 7x7"]);
    assert!(!folder.path().join("b.onnx").exists());
}
