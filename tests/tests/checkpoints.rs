//! Checkpoints against PyTorch's own files: read, compared, written again, and read by PyTorch.
//!
//! The files in `fixtures/ckpt` are always there. Larger ones in the optional folder `../shared` beside
//! the workspace are used when it exists, and the test says so when it does not. With the environment
//! variable `SLD_TORCH_PYTHON` naming a Python that has torch, what is written is opened in PyTorch.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use nn::checkpoint::{
    self, Checkpoint, DType, NamedTensor, NetworkInfo, OptimizerState, ParamGroup, Role, Scalar, TensorData,
};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/ckpt")
}

/// A folder of `../shared`, or `None` with a loud word.
fn shared(folder: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(folder);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is not there", path.display());
    None
}

fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn read(path: &Path) -> Checkpoint {
    checkpoint::read(path).unwrap_or_else(|e| panic!("{e}"))
}

/// As a network is read: under the names of its definition.
fn read_network(path: &Path) -> Checkpoint {
    Checkpoint { notes: vec![], ..read(path).into_network(Role::Student) }
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().expect("a list");
    list.iter().map(|v| v.as_f64().expect("a number")).collect()
}

fn assert_tensor(tensor: &NamedTensor, expected: &Value, context: &str) {
    assert_eq!(tensor.data.dtype().name(), expected["dtype"], "{context}");
    let shape: Vec<f64> = tensor.shape.iter().map(|&dim| dim as f64).collect();
    assert_eq!(shape, numbers(&expected["shape"]), "{context}");
    assert_eq!(tensor.data.to_f64(), numbers(&expected["values"]), "{context}");
}

/// The files of `fixtures/ckpt` with what `expected.json` says of them.
fn tiny_files() -> Vec<(PathBuf, Value)> {
    let expected = json(&fixtures().join("expected.json"));
    let files = expected.as_object().expect("an object");
    files.iter().map(|(name, file)| (fixtures().join(format!("{name}.pth")), file.clone())).collect()
}

#[test]
fn small_files_hold_what_pytorch_put_there() {
    for (path, expected) in tiny_files() {
        let mut file = read(&path);
        // DataParallel's prefix, which is the file's.
        file.tensors.iter_mut().for_each(|t| t.name = t.name.trim_start_matches("module.").to_owned());
        let context = path.display().to_string();
        let tensors = expected["tensors"].as_object().expect("an object");
        assert_eq!(file.tensors.len(), tensors.len(), "{context}");
        for tensor in &file.tensors {
            let place = format!("{context} {}", tensor.name);
            assert_tensor(tensor, &tensors[&tensor.name], &place);
        }
        assert_eq!(file.epoch, expected["epoch"].as_f64().map(|e| e as i64), "{context}");
        assert_eq!(file.accuracy, expected["accuracy"].as_f64(), "{context}");
        assert_eq!(file.best_acc, expected["best_acc"].as_f64(), "{context}");

        let Some(momentum) = expected["momentum"].as_object() else {
            assert!(file.optimizer.is_none(), "{context}");
            continue;
        };
        let optimizer = file.optimizer.expect("an optimizer");
        assert_eq!(optimizer.momentum.len(), momentum.len(), "{context}");
        for (position, buffer) in &optimizer.momentum {
            assert_tensor(buffer, &momentum[&position.to_string()], &context);
        }
        let [group] = optimizer.param_groups.as_slice() else {
            panic!("{context}: {} groups", optimizer.param_groups.len());
        };
        for (option, value) in expected["group"].as_object().expect("an object") {
            assert_eq!(group.number(option), value.as_f64(), "{context} {option}");
        }
        let params: Vec<f64> = group.params.iter().map(|&p| p as f64).collect();
        assert_eq!(params, numbers(&expected["params"]), "{context}");
    }
}

#[test]
fn state_dict_order_and_extra_values_are_kept() {
    for name in ["training.pth", "training_legacy.pth"] {
        let file = read(&fixtures().join(name));
        let names: Vec<&str> = file.tensors.iter().map(|t| t.name.as_str()).collect();
        let expected = [
            "conv.weight",
            "bn.weight",
            "bn.bias",
            "bn.running_mean",
            "bn.running_var",
            "bn.num_batches_tracked",
            "fc.weight",
            "fc.bias",
        ];
        assert_eq!(names, expected, "{name}");
        assert_eq!(file.extra["host"], Scalar::Text("node é".into()), "{name}");
        assert_eq!(file.left_out, ["opt (an object of Namespace)", "history (a list)"], "{name}");
    }
}

/// A checkpoint that uses every field and element type that both formats can write.
fn full_checkpoint() -> Checkpoint {
    let mut checkpoint = read(&fixtures().join("views.pth"));
    checkpoint.epoch = Some(-3_000_000_000);
    checkpoint.network = Some(NetworkInfo {
        model: "resnet8x4".into(),
        classes: vec!["apple".into(), "aquarium fish".into(), "b\u{e4}r".into()],
        size: [32, 48],
        resize: 55,
        mean: [0.5071, 0.4867, 1e-30],
        std: [0.2675, 0.2565, f32::MAX],
    });
    checkpoint.accuracy = Some(0.1);
    checkpoint.best_acc = Some(71.25);
    checkpoint.extra = BTreeMap::from([
        ("none".into(), Scalar::None),
        ("yes".into(), Scalar::Bool(true)),
        ("seed".into(), Scalar::Int(i64::MAX)),
        ("rate".into(), Scalar::Float(-1e-300)),
        ("host".into(), Scalar::Text("nœud \"1\"\n".into())),
    ]);
    let buffer = |len: usize| NamedTensor::f32("", &[len], vec![0.5; len]);
    checkpoint.optimizer = Some(OptimizerState {
        momentum: BTreeMap::from([(0, buffer(3)), (2, buffer(1))]),
        momentum_kd: BTreeMap::from([(1, buffer(5)), (2, buffer(1))]),
        param_groups: vec![
            ParamGroup {
                params: vec![0, 1],
                options: vec![
                    ("lr".into(), Scalar::Float(0.05)),
                    ("nesterov".into(), Scalar::Bool(false)),
                    ("foreach".into(), Scalar::None),
                ],
            },
            ParamGroup { params: vec![2, 300], options: vec![("dampening".into(), Scalar::Int(0))] },
        ],
        exp_avg: BTreeMap::from([(1, buffer(5))]),
        step: BTreeMap::from([(1, NamedTensor::f32("", &[], vec![7.0]))]),
        ..OptimizerState::default()
    });
    checkpoint
}

#[test]
fn what_is_written_reads_back_equal() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut checkpoint = full_checkpoint();
    // .pth renumbers parameters by position, as PyTorch does, so the last one becomes 3.
    let pth = folder.path().join("full.pth");
    checkpoint::write_pth(&pth, &checkpoint).expect("written");
    let written = fs::read(&pth).expect("there");
    let read_back = read(&pth);
    checkpoint.optimizer.as_mut().expect("set").param_groups[1].params = vec![2, 3];
    assert_eq!(read_back, checkpoint);

    // The same checkpoint gives the same bytes.
    checkpoint.optimizer.as_mut().expect("set").param_groups[1].params = vec![2, 300];
    checkpoint::write_pth(&pth, &checkpoint).expect("written over");
    assert_eq!(fs::read(&pth).expect("there"), written);

    let safe = folder.path().join("full.safetensors");
    checkpoint.tensors.push(NamedTensor {
        name: "unsigned".into(),
        shape: vec![2],
        data: TensorData::U64(vec![1, u64::MAX]),
    });
    checkpoint::write_safetensors(&safe, &checkpoint).expect("written");
    let bytes = fs::read(&safe).expect("there");
    let mut read_back = read(&safe);
    let by_name = |c: &mut Checkpoint| c.tensors.sort_by(|a, b| a.name.cmp(&b.name));
    by_name(&mut read_back);
    by_name(&mut checkpoint);
    assert_eq!(read_back, checkpoint);
    checkpoint::write_safetensors(&safe, &checkpoint).expect("written over");
    assert_eq!(fs::read(&safe).expect("there"), bytes);

    let leftovers = fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(leftovers, 2, "files were left aside");
}

#[test]
fn storages_are_aligned_as_pytorch_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("aligned.pth");
    let marker = [1.25e-7f32, -3.5e9];
    let tensor = NamedTensor::f32("w", &[2], marker.to_vec());
    let checkpoint =
        Checkpoint { tensors: vec![NamedTensor::i64_scalar("n", 5), tensor], ..Checkpoint::default() };
    checkpoint::write_pth(&path, &checkpoint).expect("written");
    let bytes = fs::read(&path).expect("there");
    let wanted: Vec<u8> = marker.iter().flat_map(|v| v.to_le_bytes()).collect();
    let at = bytes.windows(8).position(|window| window == wanted);
    assert_eq!(at.expect("the data is there, uncompressed") % 64, 0);
}

#[test]
fn what_cannot_be_written_leaves_the_old_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kept");
    fs::write(&path, b"old").expect("written");
    let tensor = |name: &str| NamedTensor::f32(name, &[1], vec![1.0]);
    let refuse = |checkpoint: Checkpoint, part: &str| {
        for write in [checkpoint::write_pth, checkpoint::write_safetensors] {
            let message = write(&path, &checkpoint).expect_err("refused").to_string();
            assert!(message.contains(part), "{part:?} not in: {message}");
            assert!(message.contains("kept"), "{message}");
        }
    };
    let of = |tensors: Vec<NamedTensor>| Checkpoint { tensors, ..Checkpoint::default() };
    refuse(of(vec![tensor("a"), tensor("a")]), "two tensors have the name");
    refuse(of(vec![NamedTensor::f32("a", &[3], vec![1.0])]), "does not go with 1 elements");

    let unsigned = NamedTensor { name: "u".into(), shape: vec![1], data: TensorData::U32(vec![1]) };
    let message = checkpoint::write_pth(&path, &of(vec![unsigned])).expect_err("refused");
    assert!(message.to_string().contains("uint32"), "{message}");
    let mut nan = of(vec![]);
    nan.best_acc = Some(f64::NAN);
    let message = checkpoint::write_safetensors(&path, &nan).expect_err("refused");
    assert!(message.to_string().contains("best_acc"), "{message}");
    let mut reserved = of(vec![]);
    reserved.extra.insert("model".into(), Scalar::None);
    let message = checkpoint::write_pth(&path, &reserved).expect_err("refused");
    assert!(message.to_string().contains("model"), "{message}");

    let failing = checkpoint::write_atomically(&path, |file| {
        file.write_all(b"half")?;
        Err(std::io::Error::other("disk full"))
    });
    assert_eq!(failing.expect_err("fails").to_string(), "disk full");
    assert_eq!(fs::read(&path).expect("there"), b"old");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    let nowhere = folder.path().join("no folder/file.pth");
    let message = checkpoint::write_pth(&nowhere, &of(vec![])).expect_err("refused");
    assert!(message.to_string().contains("no folder"), "{message}");
}

/// A tar of the tiny files under `top/`, gzipped if asked.
fn tar_of_fixtures(path: &Path, gzipped: bool) {
    let file = fs::File::create(path).expect("created");
    let out: Box<dyn Write> = if gzipped {
        Box::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()))
    } else {
        Box::new(file)
    };
    let mut tar = tar::Builder::new(out);
    for (name, source) in [
        ("top/readme.txt", "expected.json"),
        ("top/a_vanilla/ckpt.pth", "training.pth"),
        ("top/b_vanilla/ckpt.pth", "views_legacy.pth"),
        ("top/other.pth", "parallel_cuda.pth"),
    ] {
        tar.append_path_with_name(fixtures().join(source), name).expect("appended");
    }
    tar.into_inner().expect("finished").flush().expect("flushed");
}

#[test]
fn members_of_archives_are_read_by_path() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, gzipped) in [("teachers.tar", false), ("teachers.tar.gz", true)] {
        let tar = folder.path().join(name);
        tar_of_fixtures(&tar, gzipped);
        let training = read(&fixtures().join("training.pth"));
        assert_eq!(read(&tar.join("top/a_vanilla/ckpt.pth")), training, "{name}");
        // Leading folders may be left out where that is unambiguous.
        assert_eq!(read(&tar.join("a_vanilla/ckpt.pth")), training, "{name}");
        let views = read(&fixtures().join("views_legacy.pth"));
        assert_eq!(read(&tar.join("top/b_vanilla/ckpt.pth")), views, "{name}");
        let bytes = fs::read(&tar).expect("there");
        let parsed = checkpoint::parse_archive(&bytes, "b_vanilla/ckpt.pth", &tar);
        assert_eq!(parsed.expect("read"), views);

        for (member, part) in [
            ("", "and a slash: \"top/a_vanilla/ckpt.pth\", \"top/b_vanilla/ckpt.pth\", \"top/other.pth\""),
            ("ckpt.pth", "2 members end in"),
            ("c_vanilla/ckpt.pth", "\"top/b_vanilla/ckpt.pth\""),
            ("top/readme.txt", "not a checkpoint"),
            ("_vanilla/ckpt.pth", "no member"),
        ] {
            let path = if member.is_empty() { tar.clone() } else { tar.join(member) };
            let message = checkpoint::read(&path).expect_err("refused").to_string();
            assert!(message.contains(part), "{part:?} not in: {message}");
            assert!(message.contains(name), "{message}");
        }
    }
}

#[test]
fn files_that_are_no_checkpoints_are_named_for_what_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let refuse = |content: &[u8], part: &str| {
        let path = folder.path().join("file.pth");
        fs::write(&path, content).expect("written");
        let message = checkpoint::read(&path).expect_err("refused").to_string();
        assert!(message.contains(part), "{part:?} not in: {message}");
        assert!(message.contains("file.pth"), "{message}");
    };
    refuse(b"", "the file is empty");
    refuse(b"hello, world", "begins with \"hello, w\"");
    refuse(b"\x80\x02}.", "without PyTorch's header");
    refuse(b"PK\x03\x04 and nothing else", "cut short");
    refuse(b"\x09\0\0\0\0\0\0\0{\"a\": 1}!", "safetensors");
    refuse(b"\x80\x04\x95\x02\0\0\0\0\0\0\0}.", "without PyTorch's header");
    let message = |path: &Path| checkpoint::read(path).expect_err("refused").to_string();
    assert!(message(folder.path()).contains("it is a folder"));
    assert!(message(&folder.path().join("none.pth")).contains("none.pth: cannot read"));
    let plain = folder.path().join("file.pth/inner.pth");
    assert!(message(&plain).contains("neither a .tar nor a .tar.gz"));
}

fn sum(tensor: &NamedTensor) -> f64 {
    tensor.data.to_f64().iter().sum()
}

fn assert_sum(tensor: &NamedTensor, expected: f64, context: &str) {
    let tolerance = 1e-9 * (1.0 + expected.abs());
    let found = sum(tensor);
    assert!((found - expected).abs() <= tolerance, "{context}: {found}, not {expected}");
}

/// Every tensor of `tensors` has the sum that `info` gives for it; all of `keys` are there, in order.
fn assert_model(tensors: &[NamedTensor], info: &Value, counters: bool, context: &str) {
    let keys = info["keys"].as_array().expect("keys").iter();
    let keys: Vec<&str> = keys.map(|key| key.as_str().expect("a name")).collect();
    let keys: Vec<&str> =
        keys.into_iter().filter(|key| counters || !key.ends_with("num_batches_tracked")).collect();
    let names: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, keys, "{context}");
    for tensor in tensors {
        let expected = info["sum"][&tensor.name].as_f64().expect("a sum");
        assert_sum(tensor, expected, &format!("{context} {}", tensor.name));
    }
}

#[test]
fn reference_teacher_files_have_the_known_sums() {
    let Some(folder) = shared("fixtures/ckpt") else { return };
    let info = json(&folder.join("info.json"));
    for (model, files) in [
        (
            "resnet8",
            &[
                "",
                "_legacy",
                "_module_prefix",
                "_opt",
                "_opt_cuda_tags",
                "_opt_cuda_tags_legacy",
                "_opt_legacy",
            ][..],
        ),
        ("wrn_16_1", &["", "_legacy", "_module_prefix"]),
    ] {
        for suffix in files {
            let path = folder.join(format!("{model}_vanilla/ckpt_epoch_240{suffix}.pth"));
            let file = read_network(&path);
            let context = path.display().to_string();
            assert_model(&file.tensors, &info[model], true, &context);
            if suffix.contains("opt") {
                assert_eq!(file.epoch, Some(240), "{context}");
                assert!(file.accuracy.is_some(), "{context}");
                let optimizer = file.optimizer.expect("an optimizer");
                assert_eq!(optimizer.param_groups[0].number("lr"), Some(0.05));
                let parameters = file
                    .tensors
                    .iter()
                    .filter(|t| t.data.dtype() == DType::F32 && !t.name.contains("running"));
                for (position, parameter) in parameters.enumerate() {
                    assert_eq!(optimizer.momentum[&position].shape, parameter.shape);
                }
            }
        }
    }
    for name in ["odd_views.pth", "odd_views_legacy.pth"] {
        let file = read(&folder.join("resnet8_vanilla").join(name));
        assert_model(&file.tensors, &info["resnet8"], false, name);
    }
}

#[test]
fn reference_trainer_files_have_the_known_sums() {
    let Some(folder) = shared("fixtures/ckpt/trainer") else { return };
    let info = json(&folder.join("../info.json"));
    let latest = read(&folder.join("latest"));
    let sums = info["latest"]["model_sum"].as_object().expect("sums");
    let (mut students, mut teachers) = (0, 0);
    for tensor in &latest.tensors {
        // The sums cover the student; the teacher's values are checked below.
        match sums.get(&tensor.name) {
            Some(expected) => {
                assert_sum(tensor, expected.as_f64().expect("a sum"), &tensor.name);
                students += 1;
            }
            None => teachers += usize::from(tensor.name.starts_with("module.teacher.")),
        }
    }
    assert_eq!(students, sums.len());
    assert_eq!(students + teachers, latest.tensors.len());
    assert_eq!(latest.epoch, Some(2));
    assert_eq!(latest.best_acc, Some(0.0));
    let optimizer = latest.optimizer.as_ref().expect("an optimizer");
    let momentum = numbers(&info["latest"]["momentum_sum"]);
    assert_eq!(optimizer.momentum.len(), momentum.len());
    for (position, buffer) in &optimizer.momentum {
        assert_sum(buffer, momentum[*position], &format!("momentum {position}"));
    }
    assert_eq!(optimizer.param_groups[0].number("lr"), Some(0.025));

    let mut parts = latest.clone();
    let (student, teacher) = (parts.take_submodule("student"), parts.take_submodule("teacher"));
    assert!(parts.tensors.is_empty());
    assert_eq!(student.len() + teacher.len(), latest.tensors.len());
    assert_model(&teacher, &info["resnet8"], true, "the teacher in latest");
    let alone = read(&folder.join("student_latest"));
    let names = |tensors: &[NamedTensor]| -> Vec<String> { tensors.iter().map(|t| t.name.clone()).collect() };
    assert_eq!(names(&alone.tensors), names(&student));

    let decayed = read(&folder.join("latest_epoch151"));
    assert_eq!(decayed.epoch, Some(151));
    let group = &decayed.optimizer.expect("an optimizer").param_groups[0];
    assert_eq!(group.number("lr"), Some(0.0025000000000000005));
}

#[test]
fn trained_teachers_agree_in_both_containers() {
    let Some(folder) = shared("teachers/resnet20_vanilla") else { return };
    let zip = read(&folder.join("ckpt_epoch_10.pth"));
    let legacy = read(&folder.join("ckpt_epoch_10_legacy.pth"));
    assert_eq!(zip.epoch, Some(10));
    assert!(zip.optimizer.is_some());
    assert_eq!(zip.tensors, legacy.tensors);
    assert_eq!(zip.optimizer, legacy.optimizer);
    assert!(zip.tensor("fc.weight").is_some_and(|t| t.shape == [100, 64]));
}

/// Every `.pth` at hand, read and written again in both formats, opened by PyTorch.
#[test]
fn pytorch_opens_what_is_written() {
    let Some(python) = std::env::var_os("SLD_TORCH_PYTHON") else {
        eprintln!("SKIPPED: set SLD_TORCH_PYTHON to a Python that has torch");
        return;
    };
    let mut originals: Vec<PathBuf> = tiny_files().into_iter().map(|(path, _)| path).collect();
    for folder in ["resnet8_vanilla", "wrn_16_1_vanilla", "trainer"] {
        let files = shared("fixtures/ckpt").and_then(|shared| fs::read_dir(shared.join(folder)).ok());
        let files = files.into_iter().flatten();
        originals.extend(files.map(|file| file.expect("an entry").path()));
    }
    let teachers = shared("teachers/resnet20_vanilla").and_then(|t| fs::read_dir(t).ok());
    originals.extend(teachers.into_iter().flatten().map(|file| file.expect("an entry").path()));
    originals.retain(|path| path.extension().is_none_or(|extension| extension != "txt"));

    let folder = tempfile::tempdir().expect("a folder");
    let script = fixtures().join("../check_pth.py");
    let mut check = Command::new(python);
    check.arg(script);
    for (index, original) in originals.iter().enumerate() {
        let file = read(original);
        let name = original.file_name().expect("a name").to_string_lossy().into_owned();
        let pth = folder.path().join(format!("{index}_{name}.pth"));
        checkpoint::write_pth(&pth, &file).expect("written");
        let safe = folder.path().join(format!("{index}_{name}.safetensors"));
        checkpoint::write_safetensors(&safe, &file).expect("written");
        check.args([original, &pth, original, &safe]);
    }
    let output = check.output().expect("Python runs");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}
