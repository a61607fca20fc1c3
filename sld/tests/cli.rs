//! The command line as a user meets it: the built program, run.

use std::path::Path;
use std::process::{Command, Output};

fn sld(arguments: &[&str]) -> Output {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    Command::new(env!("CARGO_BIN_EXE_sld")).args(arguments).current_dir(workspace).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const COMMANDS: &[&str] = &[
    "train",
    "eval",
    "data",
    "convert",
    "devices",
    "models",
    "explain",
    "bench",
    "report",
    "completions",
    "demo",
];

#[test]
fn every_command_has_help() {
    let top = out(&sld(&["--help"]));
    for name in COMMANDS {
        assert!(top.contains(&format!("\n  {name} ")), "{name} is not in\n{top}");
        let help = sld(&[name, "--help"]);
        assert!(help.status.success(), "{name}");
        assert!(out(&help).contains("Usage: sld "), "{name}: {}", out(&help));
        assert!(out(&help).contains("Examples:"), "{name} teaches by no example");
    }
    assert!(top.contains("Examples:"), "{top}");
    for nested in
        [["data", "fetch"], ["data", "inspect"], ["bench", "step"], ["bench", "growth"], ["bench", "augment"]]
    {
        let help = sld(&[nested[0], nested[1], "--help"]);
        assert!(help.status.success() && out(&help).contains("Examples:"), "{nested:?}");
    }
}

#[test]
fn the_examples_in_the_help_name_commands_and_configs_that_exist() {
    let texts: Vec<String> = [&[][..], COMMANDS]
        .concat()
        .iter()
        .map(|name| out(&sld(&[name, "--help"])))
        .chain([out(&sld(&["--help"]))])
        .collect();
    let mut found = 0;
    for word in
        texts.iter().flat_map(|text| text.split_whitespace()).filter(|word| word.starts_with("configs/"))
    {
        if word.ends_with(".yaml") {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(word);
            assert!(path.is_file(), "the help names {word}, which is not there");
            found += 1;
        }
    }
    assert!(found >= 5, "{found}");
}

/// A reader that leaves early, such as `head`.
#[test]
fn a_closed_pipe_ends_the_program_quietly() {
    use std::process::Stdio;
    let mut child = Command::new(env!("CARGO_BIN_EXE_sld"))
        .args(["explain", "--device", "cpu", "--cfg", "configs/cifar100/sld/res56_res20.yaml"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(141));
    assert_eq!(err(&ended), "");
}

#[test]
fn completions_are_printed_for_each_shell() {
    for (shell, mark) in [
        ("bash", "_sld()"),
        ("zsh", "#compdef sld"),
        ("fish", "complete -c sld"),
        ("powershell", "Register-ArgumentCompleter"),
        ("elvish", "edit:completion"),
    ] {
        let script = sld(&["completions", shell]);
        assert!(script.status.success() && out(&script).contains(mark), "{shell}");
        assert!(out(&script).contains("val-fraction"), "{shell}");
    }
}

#[test]
fn a_bad_config_is_refused_before_anything_happens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.yaml");
    std::fs::write(&path, "SOLVER:\n  LR: 0.1\n  BATCHSIZE: 64\n").unwrap();
    let run = sld(&["train", "--cfg", path.to_str().unwrap()]);
    assert_eq!(run.status.code(), Some(1));
    let said = err(&run);
    assert!(
        said.contains("mine.yaml:3:3: SOLVER.BATCHSIZE is not a config key; did you mean SOLVER.BATCH_SIZE?"),
        "{said}"
    );
    assert!(out(&run).is_empty());
}

/// What prevents a run is told alone, not below a page of settings.
#[test]
fn errors_come_before_the_config_is_printed() {
    let kd = ["train", "--cfg", "configs/cifar100/kd.yaml"];
    let cases: &[&[&str]] = &[
        &["--device", "gpu:none-such"],
        &["--device", "cpu", "--data", "no/such/data"],
        &[
            "--device",
            "cpu",
            "--teacher",
            "no/such.pth",
            "--output",
            "target/tmp/never",
            "DATASET.TYPE",
            "synthetic",
        ],
        &["--device", "cpu", "--output", "Cargo.toml", "DATASET.TYPE", "synthetic"],
        &["--device", "cpu", "SLD.GATE_EPOCH", "3"],
    ];
    for rest in cases {
        let run = sld(&[&kd[..], rest].concat());
        assert_eq!((run.status.code(), out(&run)), (Some(1), String::new()), "{rest:?}: {}", err(&run));
    }
}

#[test]
fn the_help_of_training_lists_every_key_and_method() {
    // However the lines are broken.
    let help = out(&sld(&["train", "--help"])).split_whitespace().collect::<Vec<_>>().join(" ");
    for key in sld::config::keys() {
        assert!(help.contains(&format!(" {} (", key.path)) && help.contains(key.help()), "{}", key.path);
    }
    for method in sld::distill::METHODS {
        let about = method.make().about();
        assert!(help.contains(&format!(" {}: {} ", about.name, about.title)), "{}", about.name);
    }
}

#[test]
fn bad_arguments_are_told_with_what_is_allowed() {
    let cases: &[(&[&str], &str)] = &[
        (&["train"], "--cfg <FILE>"),
        (&["trian"], "similar subcommand exists: 'train'"),
        (
            &["train", "--cfg", "configs/cifar100/kd.yaml", "--device", "tpu"],
            "cannot compute on `gpu:tpu` (--device takes auto, cpu, gpu or a GPU's name)",
        ),
        (&["train", "--cfg", "configs/cifar100/kd.yaml", "--device", "gpu:"], "name the GPU after the colon"),
        (&["train", "--cfg", "configs/cifar100/kd.yaml", "--seed", "-1"], "--seed"),
        (
            &["train", "--cfg", "configs/cifar100/kd.yaml", "SOLVER.BATCH_SIZE", "0"],
            "must be at least 1, found 0",
        ),
        (
            &["train", "--cfg", "configs/cifar100/kd.yaml", "SOLVER.LR", "-1"],
            "must be greater than 0, found -1",
        ),
        (
            &["train", "--cfg", "configs/cifar100/kd.yaml", "--val-fraction", "2"],
            "DATASET.VAL_FRACTION: must be in [0, 1), found 2",
        ),
        (
            &["train", "--cfg", "configs/none.yaml"],
            "configs/none.yaml: there is no such config; configs holds cifar100, imagenet",
        ),
        (&["bench", "step"], "--teacher"),
        (&["bench", "step", "--teacher", "resnet20"], "--student"),
        (&["bench", "step", "--vanilla", "resnet20", "--batch", "0"], "0 is not in 1.."),
        (&["eval", "-m", "resnet20"], "--checkpoint"),
        (&["data", "fetch", "mnist"], "possible values: cifar100, cifar10"),
        (&["data", "inspect", "no/such/folder"], "does not exist"),
        (&["report"], "<RUN>"),
        (&["models", "nosuch"], "no network has \"nosuch\" in its name; choose one of resnet8"),
        (&["models", "resnet2O"], "did you mean resnet20?"),
        (&["models", "--classes", "4294967295"], "4294967295 is not in 1..=100000"),
        (&["bench", "step", "--vanilla", "resnet20", "--batch", "4294967295"], "is not in 1..=65536"),
        (&["bench", "step", "--vanilla", "resnet20", "--side", "4294967295"], "is not in 1..=1024"),
        (&["bench", "step", "--vanilla", "resnet20", "--threads", "100000"], "100000 is not in 1..=1024"),
        (
            &["bench", "step", "--teacher", "resnet20", "--student", "resnet8", "--method", "KD-Zero"],
            "there is no method \"KD-Zero\"; choose one of NONE, KD, KD_SWAP, SLD, MLKD, DKD",
        ),
        (
            &["eval", "-m", "resnet8", "-c", "x", "--dataset", "mnist"],
            "there is no dataset \"mnist\"; choose one of",
        ),
    ];
    for (arguments, wanted) in cases {
        let run = sld(arguments);
        assert!(!run.status.success(), "{arguments:?} must fail");
        assert!(err(&run).contains(wanted), "{arguments:?}\nsaid: {}\nwanted: {wanted}", err(&run));
        assert!(!err(&run).contains("panicked"), "{arguments:?}");
    }
}
