//! Everything a user can get wrong, or a machine can refuse: each ends the program with a message that
//! names the culprit and a remedy, and leaves what was there before as it was.

use flate2::{Compression, write::GzEncoder};
use nn::checkpoint::{self, Checkpoint};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// `sld` with the repository as its folder, so that `configs/` is found.
fn sld(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sld"));
    command.args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command
}

/// A short training of a resnet8 on a twentieth of the synthetic task: an epoch is four steps.
fn short_run(output: &Path, epochs: &str, more: &[&str]) -> Command {
    let mut command = sld(&["train", "--cfg", "configs/cifar100/vanilla.yaml", "--device", "cpu"]);
    command.args(["--val-fraction", "0.95", "--output"]).arg(output).args(more);
    command.args(["DATASET.TYPE", "synthetic", "DISTILLER.STUDENT", "resnet8", "SOLVER.EPOCHS", epochs]);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(command: &mut Command) -> Output {
    command.output().expect("the program starts")
}

fn succeeds(mut command: Command) -> String {
    let output = run(&mut command);
    assert!(output.status.success(), "{command:?}\n{}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs a command that must end with exit code 1 and an `error:` that contains each part. Gives the message.
fn refused(mut command: Command, parts: &[&str]) -> String {
    let output = run(&mut command);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{command:?}\nsaid: {said}\n{}", text(&output.stdout));
    assert!(said.contains("error: "), "{command:?}\nsaid: {said}");
    assert!(!said.contains("panicked"), "{command:?}\nsaid: {said}");
    for part in parts {
        assert!(said.contains(part), "{command:?}\nsaid: {said}\nwanted: {part}");
    }
    said
}

/// A training on the CIFAR-100 in `data`, which must not get as far as its output folder.
fn cifar_run(data: &Path) -> Command {
    let mut command = sld(&["train", "--cfg", "configs/cifar100/vanilla.yaml", "--device", "cpu", "--data"]);
    command.arg(data).arg("--output").arg(data.join("run")).args(["DISTILLER.STUDENT", "resnet8"]);
    command
}

/// Records of the CIFAR-100 binary format: coarse label, fine label, 3,072 bytes; every class once.
fn records() -> Vec<u8> {
    let record = |class: u8| [&[class / 5, class][..], &[class; 3072]].concat();
    (0..100).flat_map(record).collect()
}

/// A folder with a small CIFAR-100 in the binary format, its training batch changed.
fn cifar_folder(change: impl FnOnce(&mut Vec<u8>)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).expect("written");
    let mut train = records();
    change(&mut train);
    put("train.bin", &train);
    put("test.bin", &records());
    put("fine_label_names.txt", class_names().as_bytes());
    folder
}

fn class_names() -> String {
    (0..100).map(|class| format!("class{class}\n")).collect()
}

#[test]
fn missing_data() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    refused(
        cifar_run(&folder.path().join("nowhere")),
        &["nowhere does not exist", "sld data fetch cifar100"],
    );
    refused(cifar_run(folder.path()), &["no CIFAR-100 data in", "train.bin", "sld data fetch cifar100"]);
    let incomplete = cifar_folder(|_| ());
    std::fs::remove_file(incomplete.path().join("test.bin")).expect("removed");
    refused(cifar_run(incomplete.path()), &["has no test.bin"]);
}

#[test]
fn a_truncated_batch_file() {
    let folder = cifar_folder(|train| train.truncate(train.len() - 1000));
    refused(cifar_run(folder.path()), &["train.bin has 306400 bytes", "cut off", "download it again"]);
    assert!(!folder.path().join("run").exists(), "the run began before the data was read");
}

#[test]
fn a_label_out_of_range() {
    let folder = cifar_folder(|train| train[7 * 3074 + 1] = 100);
    refused(cifar_run(folder.path()), &["train.bin: image 7 has label 100", "fine labels are 0 to 99"]);
}

/// A complete release, as the published archive is, but of black images.
#[test]
fn a_complete_archive_with_a_wrong_md5() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("cifar-100-binary.tar.gz");
    let file = std::fs::File::create(&path).expect("created");
    let mut tar = tar::Builder::new(GzEncoder::new(file, Compression::fast()));
    let names = class_names();
    let batches: [(&str, u64); 2] = [("train.bin", 50_000 * 3074), ("test.bin", 10_000 * 3074)];
    for (name, length) in batches {
        let black = std::io::Read::take(std::io::repeat(0), length);
        tar.append_data(&mut header(length), format!("cifar-100-binary/{name}"), black).expect("appended");
    }
    let length = names.len() as u64;
    tar.append_data(&mut header(length), "cifar-100-binary/fine_label_names.txt", names.as_bytes())
        .expect("appended");
    tar.into_inner().and_then(GzEncoder::finish).expect("finished");
    refused(
        cifar_run(folder.path()),
        &["cifar-100-binary.tar.gz has md5 ", "the published file has 03b5dce01913d631647c71ecec9e9cb8"],
    );
}

fn header(length: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(length);
    header.set_mode(0o644);
    header
}

/// A server on this machine that answers everything with one file; its address.
fn serve(file: &'static [u8]) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/file", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 4096];
            // One read holds the few lines of the request; what a client does next is its own affair.
            let _ = std::io::Read::read(&mut stream, &mut request);
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", file.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(file));
        }
    });
    url
}

#[test]
fn a_download_with_a_wrong_md5() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = serve(b"not the archive");
    let mut command = sld(&["data", "fetch", "cifar100", "--url", &url, "--output"]);
    command.arg(folder.path());
    refused(command, &["the md5 of what came from", &url, "not eb9058c3a382ffc7106e4002c42a8d85", "--url"]);
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("listed").collect();
    assert!(left.is_empty(), "the wrong file was kept: {left:?}");
}

/// A checkpoint of fresh weights, as a teacher's.
fn teacher(folder: &Path, model: &str, classes: usize) -> PathBuf {
    let model = nn::models::build(model, classes, 0).expect("a known model");
    let device = cpu::CpuDevice::new(1);
    let tensors = model.save(&device).expect("saved");
    let path = folder.join("teacher.pth");
    checkpoint::write_pth(&path, &Checkpoint { tensors, ..Checkpoint::default() }).expect("written");
    path
}

/// The synthetic task has 20 classes.
fn distillation(folder: &Path, teacher: &Path, config: &[&str]) -> Command {
    let mut command = sld(&["train", "--cfg", "configs/cifar100/sld/res56_res20.yaml", "--device", "cpu"]);
    command.arg("--teacher").arg(teacher).arg("--output").arg(folder.join("run"));
    command.args(["DATASET.TYPE", "synthetic", "DISTILLER.STUDENT", "resnet8"]).args(config);
    command
}

#[test]
fn a_teacher_of_another_architecture() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = teacher(folder.path(), "resnet14", 20);
    let command = distillation(folder.path(), &path, &["DISTILLER.TEACHER", "resnet20"]);
    refused(
        command,
        &["the teacher resnet20 cannot be read", "missing from the checkpoint", "resnet14 would fit"],
    );
}

#[test]
fn a_teacher_of_another_number_of_classes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = teacher(folder.path(), "resnet14", 100);
    let command = distillation(folder.path(), &path, &["DISTILLER.TEACHER", "resnet14"]);
    refused(
        command,
        &[
            "the teacher resnet14 cannot be read",
            "it is a resnet14 of 100 classes, the data set has 20; choose",
        ],
    );
}

#[test]
fn a_teacher_that_is_no_checkpoint_or_not_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("teacher.pth");
    let command = |path: &Path| distillation(folder.path(), path, &["DISTILLER.TEACHER", "resnet14"]);
    refused(command(&path), &["teacher.pth", "give its checkpoint with --teacher"]);
    std::fs::write(&path, "not a checkpoint").expect("written");
    refused(command(&path), &["teacher.pth", "the teacher resnet14 cannot be read"]);
}

#[test]
fn an_unknown_model_is_answered_with_the_nearest() {
    let config = ["train", "--cfg", "configs/cifar100/vanilla.yaml"];
    refused(
        sld(&[&config[..], &["DISTILLER.STUDENT", "resnet8x5"]].concat()),
        &["resnet8x5", "did you mean resnet8x4?"],
    );
    refused(
        sld(&["eval", "-m", "wrn_16_3", "-c", "x.pth", "--dataset", "synthetic"]),
        &["wrn_16_3", "did you mean wrn_16_"],
    );
    refused(sld(&["bench", "step", "--vanilla", "resnet21", "--device", "cpu"]), &["did you mean resnet20?"]);
}

#[test]
fn a_batch_of_0() {
    let config = ["train", "--cfg", "configs/cifar100/vanilla.yaml", "SOLVER.BATCH_SIZE", "0"];
    refused(sld(&config), &["SOLVER.BATCH_SIZE", "must be at least 1, found 0"]);
}

#[test]
fn an_unreadable_config() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let with = |name: &str, parts: &[&str]| {
        let mut command = sld(&["train", "--cfg"]);
        command.arg(folder.path().join(name));
        refused(command, parts)
    };
    with("none.yaml", &["none.yaml: there is no such config"]);
    std::fs::create_dir(folder.path().join("folder.yaml")).expect("made");
    with("folder.yaml", &["folder.yaml: this is a folder, a config is a file"]);
    std::fs::write(folder.path().join("binary.yaml"), [0xff, 0xfe, 0x00]).expect("written");
    with("binary.yaml", &["binary.yaml: cannot read the config"]);
    std::fs::write(folder.path().join("broken.yaml"), "SOLVER:\n  LR: [0.1\n").expect("written");
    with("broken.yaml", &["broken.yaml:2:7: this is not valid YAML: this bracket is never closed"]);
}

/// Names that YAML, a shell's habits or UTF-8 would make something else of.
#[cfg(unix)]
fn odd_names() -> Vec<std::ffi::OsString> {
    use std::os::unix::ffi::OsStringExt;
    let bytes = [&b"set #2"[..], b"1e3", b"~", b"yes", b"a: b", b"[a]", b"caf\xe9"];
    bytes.iter().map(|name| std::ffi::OsString::from_vec(name.to_vec())).collect()
}

/// Beside the odd names lies what they would be taken for, with other contents.
#[cfg(unix)]
#[test]
fn paths_are_taken_character_for_character() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let configs = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/cifar100");
    let configs = std::fs::canonicalize(configs).expect("the configs");
    let set = |name: &std::ffi::OsStr, images: usize| {
        let folder = root.path().join(name);
        std::fs::create_dir_all(&folder).expect("made");
        std::fs::write(folder.join("train.bin"), &records()[..images * 3074]).expect("written");
        std::fs::write(folder.join("test.bin"), &records()[..10 * 3074]).expect("written");
        std::fs::write(folder.join("fine_label_names.txt"), class_names()).expect("written");
    };
    for taken_for in ["set", "1000", "true", "a", "caf\u{fffd}"] {
        set(taken_for.as_ref(), 10);
    }
    for (i, name) in odd_names().iter().enumerate() {
        set(name, 20 + i);
        let mut command = sld(&["train", "--device", "cpu", "--data"]);
        command.current_dir(root.path()).arg(name).arg("--output").arg(Path::new("runs").join(name));
        command.arg("--cfg").arg(configs.join("vanilla.yaml"));
        command.args(["DISTILLER.STUDENT", "resnet8", "SOLVER.EPOCHS", "1"]);
        succeeds(command);
        let run = root.path().join("runs").join(name);
        let info = std::fs::read_to_string(run.join("run.json")).expect("the run's description");
        assert!(info.contains(&format!("\"train_images\": {}", 20 + i)), "{name:?}: {info}");
        // What the run wrote down means the same again.
        let read =
            sld::config::Config::load(&run.join("config.yaml"), &Default::default()).expect("it reads back");
        assert_eq!((read.dataset.root.as_os_str(), read.warnings.len()), (name.as_os_str(), 0));
    }
    // A teacher, as an option and as a key, and the names of a run.
    let teacher = teacher(root.path(), "resnet8", 100);
    std::fs::create_dir(root.path().join("teachers")).expect("made");
    for (i, name) in odd_names().iter().rev().take(4).enumerate() {
        let file = Path::new("teachers").join(name);
        std::fs::copy(&teacher, root.path().join(&file)).expect("copied");
        let mut command = sld(&["train", "--device", "cpu", "--data", "set", "--cfg"]);
        command.current_dir(root.path()).arg(configs.join("kd.yaml"));
        if i % 2 == 0 {
            command.arg("--teacher").arg(&file);
        }
        command.args(["DISTILLER.TEACHER", "resnet8", "DISTILLER.STUDENT", "resnet8", "SOLVER.EPOCHS", "1"]);
        if i % 2 == 1 {
            command.arg("DISTILLER.TEACHER_CHECKPOINT").arg(&file);
        }
        for key in ["LOG.PREFIX", "EXPERIMENT.PROJECT", "EXPERIMENT.NAME"] {
            command.arg(key).arg(name);
        }
        succeeds(command);
        let project = root.path().join(name).join(name);
        let run = std::fs::read_dir(project).expect("made").next().expect("a run").expect("an entry");
        let begins = run.file_name().as_encoded_bytes().starts_with(name.as_encoded_bytes());
        assert!(begins && run.path().join("student_best").is_file(), "{}", run.path().display());
    }
}

/// The batch of an evaluation is cut to the images there are; the result does not depend on it.
#[test]
fn an_evaluation_batch_beyond_the_set() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = teacher(folder.path(), "resnet8", 20);
    let measured = |batch: &str| {
        let mut command =
            sld(&["eval", "-m", "resnet8", "--dataset", "synthetic", "--device", "cpu", "--json"]);
        command.args(["--batch", batch, "-c"]).arg(&path);
        succeeds(command)
    };
    let usual = measured("64");
    for batch in ["4294967295", "20000"] {
        assert_eq!(measured(batch), usual, "batch {batch}");
    }
    let mut command = short_run(&folder.path().join("run"), "1", &[]);
    command.args(["DATASET.TEST.BATCH_SIZE", "4294967295", "SOLVER.BATCH_SIZE", "4294967295"]);
    succeeds(command);
    let mut command = short_run(&folder.path().join("other"), "1", &[]);
    command.args(["DATASET.NUM_WORKERS", "4294967295"]);
    refused(command, &["must be at most 1024"]);
}

/// A checkpoint tells which drawn task it is for: its size, its seed, how hard it is.
#[test]
fn an_evaluation_draws_the_task_that_the_checkpoint_was_trained_on() {
    use sld::data::synthetic::{self, SyntheticConfig};
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = nn::models::build("resnet8", 20, 0).expect("a known model");
    let measured = |config: SyntheticConfig| {
        let drawn = synthetic::generate(&config).expect("a task");
        let recipe = drawn.test.recipe().expect("a recipe").to_owned();
        let extra = [("dataset_recipe".to_owned(), checkpoint::Scalar::Text(recipe))].into();
        let tensors = model.save(&cpu::CpuDevice::new(1)).expect("saved");
        let path = folder.path().join("network");
        checkpoint::write_pth(&path, &Checkpoint { tensors, extra, ..Checkpoint::default() })
            .expect("written");
        let mut command =
            sld(&["eval", "-m", "resnet8", "--dataset", "synthetic", "--device", "cpu", "--json", "-c"]);
        command.arg(&path);
        serde_json::from_str::<serde_json::Value>(&succeeds(command)).expect("JSON")
    };
    let config = SyntheticConfig { test: 90, train: 60, ..SyntheticConfig::default() };
    let [first, other] = [0, 1].map(|seed| measured(SyntheticConfig { seed, ..config }));
    assert_eq!((&first["images"], &other["images"]), (&90.into(), &90.into()));
    assert_ne!(first["cross_entropy"], other["cross_entropy"], "another seed is another task");
    // A run's own checkpoints say so.
    let run = folder.path().join("run");
    succeeds(short_run(&run, "1", &[]));
    for name in ["student_best", "latest"] {
        let saved = checkpoint::read(&run.join(name)).expect("a checkpoint");
        let recipe = saved.extra.get("dataset_recipe");
        let Some(checkpoint::Scalar::Text(recipe)) = recipe else { panic!("{name}: {recipe:?}") };
        assert_eq!(
            SyntheticConfig::from_recipe(recipe).expect("settings"),
            SyntheticConfig::default(),
            "{name}"
        );
    }
}

/// Small and large learning rates are shown as what they are.
#[test]
fn learning_rates_are_shown_as_they_are() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for rate in ["1e-7", "3", "0.025"] {
        let mut command = short_run(&folder.path().join(rate), "1", &[]);
        command.args(["SOLVER.LR", rate]);
        let said = succeeds(command);
        let epochs = said.split("# run folder").nth(1).expect("the epochs below the settings");
        assert!(epochs.split_whitespace().any(|word| word == rate), "{said}");
    }
}

/// Ends the process when the test ends, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn two_runs_in_one_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = folder.path().join("run");
    let mut first = short_run(&output, "1000", &[]);
    let first = Running(first.stdout(Stdio::null()).spawn().expect("the program starts"));
    let patience = Instant::now();
    while !output.join("latest").exists() {
        assert!(patience.elapsed() < Duration::from_secs(120), "the first run saved nothing");
        std::thread::sleep(Duration::from_millis(10));
    }
    let process = format!("(process {})", first.0.id());
    for mode in [&[][..], &["--resume"]] {
        refused(short_run(&output, "1000", mode), &["another run", &process, "--output"]);
    }
    drop(first);
    refused(short_run(&output, "1000", &[]), &["already holds a run of", "--resume"]);
}

/// A file system in memory, unmounted when dropped.
#[cfg(target_os = "linux")]
struct Tmpfs(tempfile::TempDir);

#[cfg(target_os = "linux")]
impl Tmpfs {
    /// `None`, and a loud word, where mounting is not permitted.
    fn mount(test: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(folder.path()).output();
        let why = match mount {
            Ok(output) if output.status.success() => return Some(Tmpfs(folder)),
            Ok(output) => text(&output.stderr),
            Err(why) => why.to_string(),
        };
        eprintln!("SKIPPED: {test}: this user may not mount a file system ({})", why.trim());
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let status = Command::new("mount").args(["-o", &options]).arg(self.path()).status();
        assert!(status.expect("mount runs").success(), "{options}");
    }
}

#[cfg(target_os = "linux")]
impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

/// Every file below `folder` and its contents, but the lock, which names the last process.
#[cfg(target_os = "linux")]
fn contents(folder: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries
        .filter(|path| path.file_name().is_some_and(|name| name != ".lock"))
        .map(|path| (path.clone(), std::fs::read(&path).expect("a file")))
        .collect()
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let Some(disk) = Tmpfs::mount("a_full_disk") else { return };
    let whole = tempfile::tempdir().expect("a temporary folder");
    let whole = whole.path().join("run");
    succeeds(short_run(&whole, "4", &[]));

    let folder = disk.path().join("run");
    succeeds(short_run(&folder, "2", &[]));
    let before = checkpoint::read(&folder.join("latest")).expect("the first part's state");
    // Leave room for the logs but not for a checkpoint: a file as large as what is left, less 100 KiB.
    fill(&disk.path().join("filler"), 100 << 10);
    let said = refused(
        short_run(&folder, "4", &["--resume"]),
        &["cannot write", "No space left on device", "free some space", "--resume"],
    );
    assert_eq!(said.matches("No space").count(), 1, "the cause is told once: {said}");
    for name in ["latest", "best", "student_latest", "student_best"] {
        checkpoint::read(&folder.join(name)).unwrap_or_else(|why| panic!("{name} is damaged: {why}"));
    }
    let after = checkpoint::read(&folder.join("latest")).expect("the old state");
    assert_eq!((after.epoch, after.tensors.len()), (before.epoch, before.tensors.len()));
    let names: Vec<String> = contents(&folder)
        .keys()
        .map(|path| path.file_name().expect("a name").to_string_lossy().into())
        .collect();
    assert!(
        names.iter().all(|name| !name.contains("tmp") && !name.contains("part")),
        "half-written: {names:?}"
    );

    // With room again, the run ends as if the disk had never been full.
    std::fs::remove_file(disk.path().join("filler")).expect("removed");
    succeeds(short_run(&folder, "4", &["--resume"]));
    for name in ["latest", "student_latest", "best", "worklog.txt", "evaluation.json"] {
        let read = |folder: &Path| std::fs::read(folder.join(name)).expect("written");
        assert!(read(&whole) == read(&folder), "{name} differs");
    }
}

/// Writes until the disk is full, then gives back `room` bytes.
#[cfg(target_os = "linux")]
fn fill(path: &Path, room: u64) {
    let mut file = std::fs::File::create(path).expect("created");
    let page = [1; 4096];
    while file.write_all(&page).is_ok() {}
    let length = file.metadata().expect("its length").len();
    file.set_len(length - room).expect("shortened");
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_can_only_be_read() {
    let Some(disk) = Tmpfs::mount("an_output_that_can_only_be_read") else { return };
    let folder = disk.path().join("run");
    succeeds(short_run(&folder, "1", &[]));
    disk.remount("ro");
    let before = contents(&folder);
    let said = ["cannot write", "Read-only file system", "choose a folder that can be written with --output"];
    refused(short_run(&disk.path().join("other"), "1", &[]), &said);
    refused(short_run(&folder, "2", &["--resume"]), &said);
    let mut report = sld(&["report"]);
    report.arg(&folder);
    refused(report, &["cannot write", "report.html", "Read-only file system"]);
    assert!(before == contents(&folder), "the read-only run changed");
}
