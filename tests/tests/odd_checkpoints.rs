//! Checkpoints as people have them: other kinds of tensors, other layouts, other containers. Whatever is
//! not read is refused with its name or listed as left out.
//!
//! `fixtures/ckpt/odd` was written by PyTorch (`make_odd.py`); containers that PyTorch writes only under
//! some names, or that other tools write, are made here.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use nn::checkpoint::{self, Checkpoint, NamedTensor, Role, Scalar, TensorData};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/ckpt")
}

fn odd(name: &str) -> PathBuf {
    fixtures().join(format!("odd/{name}.pth"))
}

fn read(name: &str) -> Checkpoint {
    checkpoint::read(&odd(name)).unwrap_or_else(|e| panic!("{e}"))
}

fn parse(bytes: &[u8]) -> Result<Checkpoint, String> {
    checkpoint::parse(bytes, Path::new("some.pth")).map_err(|e| e.to_string())
}

fn names(checkpoint: &Checkpoint) -> Vec<&str> {
    checkpoint.tensors.iter().map(|t| t.name.as_str()).collect()
}

const VALUES: [f64; 4] = [1.0, -2.0, 3.0, 0.5];

#[test]
fn tensors_that_are_not_their_storage_are_refused_by_name() {
    for (name, why) in [
        ("negated", "marked as negated"),
        ("negated_parameter", "marked as negated"),
        ("conjugated", "marked as conjugated"),
        ("complex", "complex numbers"),
        ("bits", "complex32"),
        ("quantised", "quantised"),
        ("quantised_by_channel", "quantised"),
        ("sparse", "sparse"),
        ("sparse_csr", "sparse"),
        ("nested_tensor", "nested"),
        ("meta", "a meta tensor"),
        ("float8", "float8_e4m3fn"),
    ] {
        let message = checkpoint::read(&odd(name)).expect_err("refused").to_string();
        assert!(message.contains("tensor \"odd\"") && message.contains(why), "{name}: {message}");
    }
    for (name, object) in [("nested_jagged", "_rebuild_njt"), ("module", "torch.nn.modules.linear.Linear")] {
        let message = checkpoint::read(&odd(name)).expect_err("refused").to_string();
        assert!(message.contains(object) && message.contains("nothing was executed"), "{name}: {message}");
    }
}

#[test]
fn tensors_in_another_wrapping_are_read() {
    for name in ["parameter", "parameter_with_attribute", "tensor_with_attribute", "buffer"] {
        let file = read(name);
        assert_eq!(names(&file), ["w"], "{name}");
        assert_eq!(file.tensors[0].data.to_f64(), VALUES, "{name}");
    }
    let file = read("uint16");
    assert_eq!(file.tensor("w").map(|t| &t.data), Some(&TensorData::U16(vec![1, 65535])));
    assert_eq!(file.tensor("v").map(|t| &t.data), Some(&TensorData::U64(vec![7, 1 << 63])));
    let shapes: Vec<Vec<usize>> = read("scalars").tensors.into_iter().map(|t| t.shape).collect();
    assert_eq!(shapes, [vec![], vec![0, 3], vec![2, 0]]);
    let file = read("expanded");
    assert_eq!(file.tensors[0].data.to_f64(), [1.0, 2.0, 1.0, 2.0]);
    assert_eq!(file.tensors[1].data.to_f64(), [1.0, 3.0, 5.0, 7.0]);
}

#[test]
fn every_protocol_in_both_containers_is_read_alike() {
    let first = read("protocol1");
    assert_eq!(names(&first), ["fc.weight", "bn.bias"]);
    assert_eq!((first.epoch, first.best_acc), (Some(300), Some(71.5)));
    assert_eq!(first.extra["big"], Scalar::Int(1 << 40));
    assert_eq!(first.extra["flag"], Scalar::Bool(true));
    assert_eq!(first.extra["note"], Scalar::Text("é".into()));
    assert_eq!(first.tensors[0].data.to_f64(), VALUES);
    for protocol in 1..=5 {
        assert_eq!(read(&format!("protocol{protocol}")), first, "{protocol}");
        assert_eq!(read(&format!("protocol{protocol}_legacy")), first, "{protocol}");
    }
    // A storage of a class that is not read has to be passed over.
    let file = read("complex_legacy");
    assert_eq!(file.tensors[0].data.to_f64(), VALUES);
    assert_eq!(file.left_out, ["z (a tensor)"]);
}

#[test]
fn the_only_dict_of_tensors_is_the_state_dict() {
    for key in ["net", "model_state_dict", "params", "weights", "network", "ema"] {
        let file = read(&format!("under_{key}"));
        assert_eq!(names(&file), ["fc.weight", "bn.bias"], "{key}");
        assert_eq!(file.notes, [format!("its state dict is its {key:?}")]);
        assert_eq!((file.epoch, &file.extra["acc"]), (Some(3), &Scalar::Float(1.5)));
        assert!(file.left_out.is_empty(), "{:?}", file.left_out);
    }
    for (name, left_out) in [
        ("model_is_a_name", &[][..]),
        (
            "lightning",
            &[
                "loops (a dict)",
                "callbacks (a dict)",
                "optimizer_states (a list)",
                "hyper_parameters (a dict)",
            ],
        ),
        ("timm", &["state_dict_ema (a dict)"]),
        ("deit", &["model_ema (a dict)", "args (an object of Namespace)"]),
        ("flat_with_numbers", &["history (a list)"]),
        ("model_is_none", &[]),
    ] {
        let file = read(name);
        let network = file.clone().into_network(Role::Student);
        assert_eq!(names(&network), ["fc.weight", "bn.bias"], "{name}");
        assert_eq!(network.tensors[0].data.to_f64(), VALUES, "{name}");
        assert_eq!(file.left_out, left_out, "{name}");
    }
    assert_eq!(read("model_is_a_name").extra["model"], Scalar::Text("resnet20".into()));
    assert_eq!(read("flat_with_numbers").epoch, Some(3));
    let averaged = read("averaged").into_network(Role::Student);
    assert_eq!(names(&averaged), ["0.weight", "0.bias", "1.weight", "1.bias"]);
}

#[test]
fn where_several_could_be_meant_they_are_listed_and_one_can_be_taken() {
    for (name, listed, part) in [
        ("two_nets", "\"net\", \"ema\"", "ema"),
        ("both_usual", "\"model\", \"state_dict\"", "model"),
        ("student_and_teacher", "\"student\", \"teacher\"", "teacher"),
        ("flat_and_dict", "its top level, \"ema\"", "ema"),
    ] {
        let message = checkpoint::read(&odd(name)).expect_err("refused").to_string();
        assert!(message.contains(listed) && message.contains("--part"), "{name}: {message}");
        let taken = checkpoint::read_part(&odd(name), part).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(names(&taken), ["fc.weight", "bn.bias"], "{name}");
        let message = checkpoint::read_part(&odd("timm"), "none").expect_err("refused").to_string();
        assert!(message.contains("has no part \"none\""), "{message}");
    }
}

#[test]
fn a_role_takes_its_dict_of_a_distillation() {
    for role in [Role::Student, Role::Teacher] {
        let file =
            checkpoint::read_network(&odd("student_and_teacher"), role).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(names(&file), ["fc.weight", "bn.bias"]);
        let key = format!("{role:?}").to_lowercase();
        assert_eq!(file.notes, [format!("its state dict is its {key:?}")]);
    }
    // A random state beside the only state dict is none.
    let file = read("net_and_random_state");
    assert_eq!(names(&file), ["fc.weight", "bn.bias"]);
    assert_eq!(file.left_out, ["rng_state (a tensor)"]);
}

#[test]
fn what_is_no_state_dict_is_said_with_what_is_there() {
    for (name, part) in [
        ("nested", "under \"model\"; there are \"encoder\" (a dict), \"head\" (a dict)"),
        ("numbered", "under \"model\"; there are 0 (a tensor), 1 (a tensor)"),
        ("list_of_tensors", "under \"model\"; it is a list"),
        ("list", "holds a list where a dict is expected"),
        ("empty", "under \"model\"; it is empty"),
        ("nothing", "it is empty"),
    ] {
        let message = checkpoint::read(&odd(name)).expect_err("refused").to_string();
        assert!(message.contains(part), "{name}: {message}");
    }
    let file = read("numbered_and_named");
    assert_eq!(file.left_out, ["model.0 (a tensor)", "model.a tuple (a tensor)"]);
    let file = read("nested_beside_tensors");
    assert_eq!(file.left_out, ["model.head (a dict)", "model.list (a list)"]);
}

#[test]
fn everything_beside_the_weights_is_read_or_left_out_by_name() {
    let file = read("beside");
    assert_eq!(file.extra.into_iter().collect::<Vec<_>>(), [("number".into(), Scalar::Float(0.5))]);
    let left_out: Vec<&str> =
        file.left_out.iter().map(|entry| entry.split(' ').next().unwrap_or_default()).collect();
    let expected = [
        "set", "complex", "array", "path", "args", "counter", "default", "device", "dtype", "size", "bytes",
        "layout", "tensor", "long",
    ];
    assert_eq!(left_out, expected);
}

#[test]
fn of_optimizers_the_known_are_read_and_never_by_half() {
    for (name, momenta, rates, left_out) in [
        ("sgd", 2, &[0.1][..], &[][..]),
        ("sgd_fresh", 0, &[0.1], &[]),
        ("sgd_plain", 0, &[0.1], &[]),
        ("sgd_groups", 2, &[0.0, 0.1], &[]),
        ("sgd_named", 2, &[0.1], &["optimizer.param_groups.0.param_names (a list)"]),
    ] {
        let file = read(&format!("optimizer_{name}"));
        let optimizer = file.optimizer.unwrap_or_else(|| panic!("{name}"));
        assert_eq!(optimizer.momentum.len(), momenta, "{name}");
        let found: Vec<f64> = optimizer.param_groups.iter().filter_map(|group| group.number("lr")).collect();
        assert_eq!(found, rates, "{name}");
        assert_eq!(file.left_out, left_out, "{name}");
    }
    let adam = read("optimizer_adam");
    let state = adam.optimizer.expect("its state");
    for kind in [&state.exp_avg, &state.exp_avg_sq] {
        assert_eq!(
            kind.values().map(|tensor| tensor.shape.as_slice()).collect::<Vec<_>>(),
            [&[1, 2][..], &[1]]
        );
    }
    assert!(state.step.values().all(|count| count.data.to_f32() == [1.0]), "{:?}", state.step);
    let betas = ["betas.0", "betas.1"].map(|key| state.param_groups[0].number(key));
    assert_eq!((betas, adam.left_out), ([Some(0.9), Some(0.999)], vec![]));
    let state = read("optimizer_rmsprop").optimizer.expect("its state");
    assert_eq!((state.square_avg.len(), state.momentum.len(), state.exp_avg.len()), (2, 2, 0));
    for (name, state) in [("adam_fresh", "not SGD"), ("adamw_amsgrad", "max_exp_avg_sq"), ("adagrad", "sum")]
    {
        let file = read(&format!("optimizer_{name}"));
        assert!(file.optimizer.is_none(), "{name}");
        let [left_out] = file.left_out.as_slice() else { panic!("{name}: {:?}", file.left_out) };
        assert!(left_out.starts_with("optimizer (not SGD") && left_out.contains(state), "{left_out}");
    }
}

/// A zip file as PyTorch lays it out: entries padded with an extra field so that their content is aligned,
/// sizes after the content, and always the zip64 end record and locator.
fn zip(entries: &[(&str, &[u8])], zip64: bool) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let start = file.len() as u32;
        let padding = (64 - (file.len() + 30 + name.len() + 4) % 64) % 64;
        let extra = [b"FB", &(padding as u16).to_le_bytes()[..], &vec![b'Z'; padding]].concat();
        let mut crc = flate2::Crc::new();
        crc.update(content);
        let sizes = [crc.sum(), content.len() as u32, content.len() as u32].map(u32::to_le_bytes).concat();
        let name_length = (name.len() as u16).to_le_bytes();
        file.extend([b"PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0", &[0; 12][..], &name_length].concat());
        file.extend([&(extra.len() as u16).to_le_bytes(), name.as_bytes(), &extra, content].concat());
        file.extend([b"PK\x07\x08", &sizes[..]].concat());
        directory.extend([b"PK\x01\x02\0\0\0\0\x08\x08\0\0\0\0\0\0", &sizes[..], &name_length].concat());
        directory.extend([&[0; 12][..], &start.to_le_bytes(), name.as_bytes()].concat());
    }
    let (at, count) = (file.len() as u64, entries.len() as u64);
    let size = directory.len() as u64;
    file.extend(directory);
    if zip64 {
        let end = file.len() as u64;
        file.extend([b"PK\x06\x06", &44u64.to_le_bytes()[..], &[0x1e, 3, 45, 0], &[0; 8]].concat());
        file.extend([count, count, size, at].map(u64::to_le_bytes).concat());
        file.extend([b"PK\x06\x07", &[0; 4][..], &end.to_le_bytes(), &1u32.to_le_bytes()].concat());
    }
    let counts = [count as u16, count as u16].map(u16::to_le_bytes).concat();
    file.extend([b"PK\x05\x06\0\0\0\0", &counts[..]].concat());
    file.extend([size as u32, at as u32].map(u32::to_le_bytes).concat());
    file.extend([0, 0]);
    file
}

/// `{key: tensor of two floats}` for the storage "0".
fn pickle(keys: &[&str]) -> Vec<u8> {
    let mut pickle = b"\x80\x02}(".to_vec();
    for key in keys {
        pickle.extend([&[b'U', key.len() as u8], key.as_bytes()].concat());
        pickle.extend(
            b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x02tQ",
        );
        pickle.extend(b"K\0K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR");
    }
    pickle.extend(b"u.");
    pickle
}

const STORAGE: &[u8] = &[0, 0, 128, 63, 0, 0, 0, 64];

#[test]
fn files_saved_under_names_of_every_length_are_read() {
    for length in 1..=80 {
        for zip64 in [true, false] {
            let folder = "n".repeat(length);
            let entry = |name: &str| format!("{folder}/{name}");
            let names = ["data.pkl", ".format_version", "byteorder", "data/0", "version"].map(entry);
            let contents = [&pickle(&["w"])[..], b"1", b"little", STORAGE, b"3\n"];
            let entries: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(contents).collect();
            let file = parse(&zip(&entries, zip64)).unwrap_or_else(|e| panic!("{length}: {e}"));
            assert_eq!(file.tensors[0].data, TensorData::F32(vec![1.0, 2.0]), "{length}");
        }
    }
    // The same within an archive.
    let folder = tempfile::tempdir().expect("a folder");
    let name = "wrn_40_2_vanilla_best";
    let entries =
        [(format!("{name}/data.pkl"), pickle(&["w"])), (format!("{name}/data/0"), STORAGE.to_vec())];
    let entries: Vec<(&str, &[u8])> = entries.iter().map(|(n, c)| (n.as_str(), c.as_slice())).collect();
    let path = folder.path().join("teachers.tar.gz");
    let gz =
        flate2::write::GzEncoder::new(fs::File::create(&path).expect("created"), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gz);
    let content = zip(&entries, true);
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, format!("a/{name}.pth"), &content[..]).expect("appended");
    tar.into_inner().expect("finished").finish().expect("finished").flush().expect("flushed");
    let file = checkpoint::read(&path.join(format!("a/{name}.pth"))).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(names(&file), ["w"]);
}

#[test]
fn a_compressed_container_is_read() {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    for (name, content) in [("x/data.pkl", &pickle(&["w"])[..]), ("x/data/0", STORAGE)] {
        zip.start_file(name, options).expect("started");
        zip.write_all(content).expect("written");
    }
    let file = parse(&zip.finish().expect("finished").into_inner()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(file.tensors[0].data, TensorData::F32(vec![1.0, 2.0]));
}

#[test]
fn two_entries_of_one_name_are_refused() {
    let one = pickle(&["w"]);
    let sound = [("a/data.pkl", &one[..]), ("a/data/0", STORAGE)];
    assert!(parse(&zip(&sound, true)).is_ok());
    for (name, content) in [("a/data.pkl", &one[..]), ("a/data/0", &[0; 8])] {
        for zip64 in [true, false] {
            let entries = [&sound[..], &[(name, content)]].concat();
            let message = parse(&zip(&entries, zip64)).expect_err("refused");
            assert!(message.contains("two entries of the name") && message.contains(name), "{message}");
        }
    }
    // A key of a dict.
    let twice = pickle(&["w", "v", "w"]);
    let message = parse(&zip(&[("a/data.pkl", &twice), ("a/data/0", STORAGE)], true)).expect_err("refused");
    assert!(message.contains("the key \"w\" twice"), "{message}");
    // A tensor of a safetensors file, and its metadata.
    let w = r#""w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    let safetensors =
        |json: String| parse(&[&(json.len() as u64).to_le_bytes(), json.as_bytes(), STORAGE].concat());
    assert!(safetensors(format!(r#"{{"__metadata__":{{"a":"1","b":"1"}},{w}}}"#)).is_ok());
    for json in [
        format!("{{{w},{w}}}"),
        format!(r#"{{"__metadata__":{{"w":"1","w":"2"}},{w}}}"#),
        format!(r#"{{{w},"\u0077":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}}}"#),
    ] {
        let message = safetensors(json).expect_err("refused");
        assert!(message.contains("the key \"w\" twice"), "{message}");
    }
    // A member of an archive.
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["a/w.pth", "b/w.pth", "a/w.pth"] {
        let content = zip(&sound, true);
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, &content[..]).expect("appended");
    }
    let tar = tar.into_inner().expect("finished");
    let member = |name| checkpoint::parse_archive(&tar, name, Path::new("x.tar")).map_err(|e| e.to_string());
    assert!(member("a/w.pth").expect_err("refused").contains("2 members have the name \"a/w.pth\""));
    assert!(member("b/w.pth").is_ok());
}

#[test]
fn safetensors_of_others_are_read_with_their_metadata_named() {
    let w = r#""w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    for (metadata, left_out) in [
        (r#"{"format":"pt"}"#, &["metadata \"format\" (a str)"][..]),
        (r#"{"checkpoint":"epoch 5"}"#, &["metadata \"checkpoint\" (a str)"]),
        (r#"{"checkpoint":"{\"steps\":5}"}"#, &["metadata \"checkpoint\" (a str)"]),
        (r#"{"checkpoint":"5","z":"{}"}"#, &["metadata \"checkpoint\" (a str)", "metadata \"z\" (a str)"]),
        (r#"{"checkpoint":"{}"}"#, &[]),
        ("null", &[]),
        ("{}", &[]),
    ] {
        let json = format!(r#"{{"__metadata__":{metadata},{w}}}"#);
        let file = parse(&[&(json.len() as u64).to_le_bytes(), json.as_bytes(), STORAGE].concat());
        let file = file.unwrap_or_else(|e| panic!("{metadata}: {e}"));
        assert_eq!(names(&file), ["w"]);
        assert_eq!(file.left_out, left_out, "{metadata}");
    }
}

#[test]
fn an_archive_alone_lists_its_checkpoints() {
    let folder = tempfile::tempdir().expect("a folder");
    let legacy = fs::read(fixtures().join("training_legacy.pth")).expect("there");
    let safe = folder.path().join("w.safetensors");
    let tensors = vec![NamedTensor::f32("w", &[1], vec![1.0])];
    checkpoint::write_safetensors(&safe, &Checkpoint { tensors, ..Checkpoint::default() }).expect("written");
    let archive = |members: &[(String, Vec<u8>)]| {
        let path = folder.path().join("teachers.tar");
        let mut tar = tar::Builder::new(fs::File::create(&path).expect("created"));
        for (name, content) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, name, &content[..]).expect("appended");
        }
        tar.finish().expect("finished");
        checkpoint::read(&path).expect_err("refused").to_string()
    };
    let zip = zip(&[("a/data.pkl", &pickle(&["w"])), ("a/data/0", STORAGE)], true);
    let message = archive(&[
        ("readme.txt".into(), b"hello".to_vec()),
        ("a/zip.pth".into(), zip.clone()),
        ("a/legacy".into(), legacy),
        ("b.safetensors".into(), fs::read(&safe).expect("there")),
        ("empty".into(), vec![]),
    ]);
    assert!(message.ends_with("a slash: \"a/zip.pth\", \"a/legacy\", \"b.safetensors\""), "{message}");
    let message = archive(&[("readme.txt".into(), b"hello".to_vec())]);
    assert!(message.contains("none of its 1 files is a checkpoint"), "{message}");
    let many: Vec<(String, Vec<u8>)> = (0..50).map(|i| (format!("{i}.pth"), zip.clone())).collect();
    let message = archive(&many);
    assert!(message.ends_with("\"19.pth\", and more"), "{message}");
}
