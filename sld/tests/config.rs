//! Configs: the committed files mean what the reference's mean; mistakes are told with place and remedy.

use serde_json::{Value, json};
use sld::config::{Config, DatasetKind, Overrides, keys, models_of};
use sld::distill::{KdSwap, METHODS};
use sld::setting::{Choice, Settings};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn fixture(name: &str) -> serde_json::Map<String, Value> {
    let path = workspace().join("tests/fixtures/misc").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn config_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(config_files(&path));
        } else {
            files.push(path);
        }
    }
    files
}

fn load(name: &str) -> Config {
    Config::load(&workspace().join("configs").join(name), &Overrides::default())
        .unwrap_or_else(|why| panic!("{why}"))
}

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("my.yaml"), &Overrides::default()).map_err(|why| why.to_string())
}

fn message(text: &str) -> String {
    parse(text).expect_err("this config must be refused")
}

fn overridden(words: &[&str]) -> Result<Config, String> {
    let overrides = Overrides::from_words(words).map_err(|why| why.to_string())?;
    Config::from_overrides(&overrides).map_err(|why| why.to_string())
}

#[test]
fn every_reference_config_resolves_to_the_references_values() {
    let resolved = fixture("configs_resolved.json");
    assert!(resolved.len() >= 40, "the fixture lost configs");
    for (name, wanted) in &resolved {
        let config = load(name);
        let solver = &config.solver;
        let method = config.method();
        let mut found = json!({
            "type": method.name(),
            "student": config.distiller.student,
            "trainer": solver.trainer.name(),
            "batch": solver.batch_size,
            "epochs": solver.epochs,
            "lr": solver.lr,
            "stages": solver.lr_decay_stages,
            "wd": solver.weight_decay,
        });
        if method.needs_teacher() {
            found["teacher"] = json!(config.distiller.teacher);
        }
        for (key, value) in found.as_object().unwrap() {
            assert_eq!(value, &wanted[key], "{name}: {key}");
        }
        // Of the methods' constants, those that this method reads; the fixture holds 4 and 4.0 alike.
        let constants = [
            ("kd", ["KD.TEMPERATURE", "KD.LOSS.CE_WEIGHT", "KD.LOSS.KD_WEIGHT"].as_slice()),
            ("dkd", &["DKD.CE_WEIGHT", "DKD.ALPHA", "DKD.BETA", "DKD.T", "DKD.WARMUP"]),
        ];
        let mut read = 0;
        for (section, keys) in constants {
            for (i, key) in keys.iter().enumerate() {
                if let Some(value) = method.get(key) {
                    assert_eq!(value.parse().ok(), wanted[section][i].as_f64(), "{name}: {key}");
                    read += 1;
                }
            }
        }
        let own = match method.name() {
            "NONE" => 0,
            "SLD" => 2,
            "DKD" => 5,
            _ => 3,
        };
        assert_eq!(read, own, "{name}");
        assert_eq!(config.dataset.kind == DatasetKind::Imagenet, name.starts_with("imagenet"), "{name}");
        assert_eq!((solver.momentum, solver.lr_decay_rate), (0.9, 0.1), "{name}");
        if method.name() == "SLD" {
            assert_eq!(method.get("SLD.TEMPERATURES").unwrap(), "[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]", "{name}");
            assert_eq!(method.get("SLD.GATE_EPOCH").unwrap(), "150", "{name}");
            assert_eq!(method.get("SLD.DETACH_PSEUDO_TEACHER").unwrap(), "false", "{name}");
        }
    }
}

#[test]
fn every_committed_config_loads_and_is_named_by_the_fixture_or_known() {
    let (resolved, of_features) = (fixture("configs_resolved.json"), fixture("../features/configs.json"));
    let root = workspace().join("configs");
    let files = config_files(&root);
    for path in &files {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        assert_eq!(load(&name).warnings, [], "{name}");
        let known = resolved.contains_key(&name) || of_features.contains_key(&name);
        let ours = ["cifar100/kd_swap.yaml", "own/", "tiny_imagenet/"];
        assert!(known || ours.iter().any(|ours| name.starts_with(ours)), "{name} is not the reference's");
    }
    assert!(files.len() > resolved.len() + 1);
    let swap = load("cifar100/kd_swap.yaml");
    assert_eq!(swap.method().name(), "KD_SWAP");
    assert_eq!(swap.method().values(), KdSwap::default().values());
}

/// Every key that the reference's files of these methods, or its defaults, give a value.
#[test]
fn configs_of_feature_methods_say_what_the_references_do() {
    let mut files = fixture("../features/configs.json");
    let Some(Value::Object(defaults)) = files.remove("defaults") else { panic!("no defaults") };
    let mut checked = 0;
    for (name, differences) in &files {
        let config = load(name);
        let found: std::collections::BTreeMap<_, _> = config.values().into_iter().collect();
        for (key, value) in &defaults {
            let wanted = differences.get(key).unwrap_or(value);
            // How a run is filed and logged is this program's.
            if ["EXPERIMENT.TAG", "LOG.WANDB", "LOG.TENSORBOARD_FREQ", "DATASET.NUM_WORKERS"]
                .contains(&key.as_str())
            {
                continue;
            }
            let Some(is) = found.get(key.as_str()) else { continue };
            let is: Value = serde_json::from_str(is).unwrap_or_else(|_| json!(is));
            let same = match (is.as_f64(), wanted.as_f64()) {
                (Some(is), Some(wanted)) => is == wanted,
                _ => is == *wanted,
            };
            assert!(same, "{name}: {key} is {is}, not {wanted}");
            checked += 1;
        }
    }
    assert!(checked > 500, "{checked}");
}

#[test]
fn learning_rates_are_the_references() {
    for (name, stretches) in fixture("lr_schedule.json") {
        let Value::Array(stretches) = stretches else { continue };
        let config = load(&name);
        let mut next = 1;
        for stretch in stretches {
            let (first, last, lr) = (&stretch[0], &stretch[1], stretch[2].as_f64().unwrap());
            assert_eq!(first.as_u64(), Some(next), "{name}");
            for epoch in first.as_u64().unwrap()..=last.as_u64().unwrap() {
                // The last bit of a number read from JSON is not certain.
                let ours = sld::cli::session::settings(&config).schedule.rate(epoch as usize, 0, 1);
                assert!((ours - lr).abs() <= 4e-16 * lr, "{name}, epoch {epoch}: {ours} {lr}");
                next = epoch + 1;
            }
        }
        assert_eq!(next, u64::from(config.solver.epochs) + 1, "{name}");
    }
}

#[test]
fn names_of_networks_are_those_of_the_data_sets_family() {
    let student = |kind: &str, name: &str| {
        let mut overrides = Overrides::default();
        overrides.push("DATASET.TYPE", kind);
        overrides.push("DISTILLER.STUDENT", name);
        Config::from_overrides(&overrides).map(|config| config.student_model())
    };
    for (kind, name, model) in [
        ("cifar100", "MobileNetV2", "MobileNetV2"),
        ("tiny_imagenet", "MobileNetV2", "tiny_imagenet/MobileNetV2"),
        ("tiny_imagenet", "ResNet18", "ResNet18"),
        ("tiny_imagenet", "imagenet/ResNet18", "imagenet/ResNet18"),
        ("imagenet", "MobileNetV2", "imagenet/MobileNetV1"),
        ("imagenet", "mobilenet_v2", "imagenet/mobilenet_v2"),
        ("imagefolder", "ResNet18", "imagenet/ResNet18"),
        ("imagefolder", "resnet8", "resnet8"),
    ] {
        assert_eq!(student(kind, name).unwrap_or_else(|why| panic!("{why}")), model, "{kind}");
    }
    for (kind, name) in
        [("cifar100", "mobilenet_v2"), ("cifar100", "imagenet/ResNet18"), ("imagenet", "resnet8")]
    {
        assert!(student(kind, name).is_err(), "{kind} {name}");
    }
}

#[test]
fn the_gate_opens_after_its_epoch() {
    let factors = |name: &str, epochs: [usize; 2]| epochs.map(|epoch| load(name).method().factor(epoch));
    assert_eq!(factors("cifar100/sld/res56_res20.yaml", [150, 151]), [Some(0.0), Some(1.0)]);
    assert_eq!(factors("cifar100/kd_swap.yaml", [150, 151]), [Some(0.0), Some(1.0)]);
    assert_eq!(factors("cifar100/kd.yaml", [1, 200]), [None, None]);
    assert_eq!(factors("cifar100/dkd/res56_res20.yaml", [1, 20]), [Some(0.05), Some(1.0)]);
    assert_eq!(factors("cifar100/dkd/res56_res20.yaml", [21, 240]), [Some(1.0), Some(1.0)]);
}

#[test]
fn the_printed_config_reads_back_as_the_same() {
    let mut config = load("imagenet/r34_r18/sld.yaml");
    config.experiment.name = "a: \"b\" # c\n\\d é".into();
    config.solver.lr = 1e-7;
    config.solver.weight_decay = 0.1 + 0.2;
    config.solver.seed = u64::MAX;
    config.dataset.root = "a: 'b' %20 ~".into();
    let text = config.to_yaml();
    assert_eq!(parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}")), config);
    assert!(text.contains("DATASET:\n  TYPE: \"imagenet\"\n"), "{text}");
    assert!(text.contains("KD:\n  LOSS:\n    CE_WEIGHT: 0.5\n"), "{text}");
    assert!(text.contains("SLD:\n  TEMPERATURES: ") && !text.contains("DKD"), "{text}");
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(parse("").unwrap(), Config::default());
    assert_eq!(parse("# nothing\nSOLVER:\n").unwrap(), Config::default());
}

#[test]
fn overrides_go_on_top() {
    let sld = ["DISTILLER.TYPE", "SLD", "SOLVER.TRAINER", "ours", "DISTILLER.TEACHER", "resnet20"];
    let with = |words: &[&str]| overridden(&[&sld[..], words].concat()).unwrap();
    let config = with(&["SOLVER.LR", "1e-3", "SOLVER.LR_DECAY_STAGES", "[12,15,18]", "SLD.GATE_EPOCH", "12"]);
    assert_eq!((config.solver.lr, config.method().get("SLD.GATE_EPOCH").unwrap()), (1e-3, "12".into()));
    assert_eq!(config.solver.lr_decay_stages, [12, 15, 18]);
    let bare = with(&["SOLVER.LR_DECAY_STAGES", "12,15,18", "SLD.TEMPERATURES", "2"]);
    assert_eq!(bare.solver.lr_decay_stages, [12, 15, 18]);
    assert_eq!(bare.method().get("SLD.TEMPERATURES").unwrap(), "[2.0]");
    // As Python writes a list.
    assert_eq!(with(&["SOLVER.LR_DECAY_STAGES", "(12, 15, 18)"]).solver.lr_decay_stages, [12, 15, 18]);
}

/// Names that YAML would read as something else.
const NAMES: &[&str] = &[
    "set #2",
    "1e3",
    "0123",
    "2024_01_01",
    "1_000",
    "yes",
    "no",
    "True",
    "~",
    "null",
    "0x10",
    ".nan",
    "-.inf",
    "1.50",
    "a: b",
    ": ",
    "#",
    " leading",
    "trailing ",
    "[a]",
    "{a: b}",
    "%41",
    "a%",
    "new\nline",
    "tab\t",
    "'single'",
    "\"double\"",
    "\"half",
    "- item",
    "? key",
    "!tag",
    "&anchor",
    "*alias",
    "|",
    ">",
    "@at",
    "`tick`",
    "back\\slash",
    "\u{e9}\u{4e16}\u{1f600}",
    "e\u{301}",
    "---",
    "...",
    "a,b",
    "$HOME",
    "\u{7f}",
    "\u{85}",
    "\u{feff}x",
    "\u{2028}",
];

#[test]
fn names_and_paths_are_taken_character_for_character_and_read_back() {
    for name in NAMES {
        let mut all = Overrides::default();
        for key in ["EXPERIMENT.PROJECT", "EXPERIMENT.NAME", "EXPERIMENT.TAG", "LOG.PREFIX", "DATASET.ROOT"] {
            all.push(key, name);
        }
        all.push("DISTILLER.TYPE", "KD");
        all.push("DISTILLER.TEACHER", "resnet20");
        all.option("--teacher", "DISTILLER.TEACHER_CHECKPOINT", name);
        let config = Config::from_overrides(&all).unwrap_or_else(|why| panic!("{why}"));
        let Config { experiment, dataset, distiller, log, .. } = &config;
        let paths = [&dataset.root, &distiller.teacher_checkpoint, &log.prefix].map(|path| path.as_os_str());
        let names = [&experiment.project, &experiment.name, &experiment.tag];
        assert!(paths.iter().all(|path| path == name), "{name:?}: {paths:?}");
        assert!(names.iter().all(|found| found == name), "{name:?}: {names:?}");
        let again = parse(&config.to_yaml()).unwrap_or_else(|why| panic!("{name:?}: {why}"));
        assert_eq!(again, config, "{name:?}");
        assert_eq!(again.dataset.root.as_os_str(), *name);
        assert_eq!(config.run_folder(&Overrides::default()), Path::new(name).join(name).join(name));
    }
}

#[cfg(unix)]
#[test]
fn paths_that_are_not_unicode_are_paths_like_others() {
    use std::os::unix::ffi::OsStrExt;
    for bytes in [&b"\xff"[..], b"set\xe9/\xc3\xa9", b"\xe9", b"a\xf0\x9f", b"\xc3(\"\n"] {
        let path = OsStr::from_bytes(bytes);
        let words = [OsStr::new("DATASET.ROOT"), path, OsStr::new("EXPERIMENT.NAME"), path];
        let config = Config::from_overrides(&Overrides::from_words(&words).unwrap()).unwrap();
        assert_eq!((config.dataset.root.as_os_str(), &*config.experiment.name), (path, path));
        let text = config.to_yaml();
        let again = parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}"));
        assert_eq!(again.dataset.root.as_os_str(), path, "{text}");
        assert_eq!(again, config, "{text}");
    }
    let words = [OsStr::new("SOLVER.LR"), OsStr::from_bytes(b"\xff")];
    let said = Config::from_overrides(&Overrides::from_words(&words).unwrap()).unwrap_err().to_string();
    assert!(said.contains("SOLVER.LR: expected text in UTF-8"), "{said}");
}

#[test]
fn a_name_in_a_file_is_what_is_written() {
    for (written, name) in [
        ("1e3", "1e3"),
        ("0123", "0123"),
        ("2024_01_01", "2024_01_01"),
        ("yes", "yes"),
        ("0x10", "0x10"),
        ("1.50", "1.50"),
        ("\"~\"", "~"),
        ("'a #b'", "a #b"),
        ("set # two", "set"),
        ("a%41", "a%41"),
    ] {
        let text =
            format!("# comment \u{e9}\nDATASET:\n  ROOT: {written}\nEXPERIMENT:\n  TAG: {written}  \n");
        let config = parse(&text).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(config.dataset.root, Path::new(name), "{text}");
        assert_eq!(config.experiment.tag, name, "{text}");
    }
}

#[test]
fn a_run_is_filed_under_its_networks_and_what_the_command_line_changed() {
    let folder = |file: &str, words: &[&str]| {
        let overrides = Overrides::from_words(words).unwrap();
        let path = workspace().join("configs").join(file);
        let config = Config::load(&path, &overrides).unwrap_or_else(|why| panic!("{why}"));
        config
            .run_folder(&overrides)
            .to_str()
            .unwrap()
            .strip_prefix("./output/cifar100_baselines/")
            .unwrap()
            .to_owned()
    };
    let sld = "cifar100/sld/res32x4_res8x4.yaml";
    for (file, words, wanted) in [
        (sld, &[][..], "sld,resnet32x4,resnet8x4"),
        (sld, &["SOLVER.LR", "0.1"], "sld,resnet32x4,resnet8x4,SOLVER.LR=0.1"),
        (sld, &["SOLVER.LR", "1e-1"], "sld,resnet32x4,resnet8x4,SOLVER.LR=0.1"),
        (
            sld,
            &["SOLVER.EPOCHS", "3", "SOLVER.LR", "0.1"],
            "sld,resnet32x4,resnet8x4,SOLVER.EPOCHS=3,SOLVER.LR=0.1",
        ),
        (
            sld,
            &["SOLVER.LR", "0.1", "SOLVER.EPOCHS", "3"],
            "sld,resnet32x4,resnet8x4,SOLVER.EPOCHS=3,SOLVER.LR=0.1",
        ),
        (sld, &["DATASET.ROOT", "/big:disk"], "sld,resnet32x4,resnet8x4,DATASET.ROOT=_big_disk"),
        (sld, &["DISTILLER.STUDENT", "resnet20"], "sld,resnet32x4,resnet20"),
        (sld, &["DISTILLER.TYPE", "KD", "SOLVER.TRAINER", "base"], "kd,resnet32x4,resnet8x4"),
        (sld, &["DISTILLER.TEACHER", "vgg13", "SLD.GATE_EPOCH", "9"], "sld,vgg13,resnet8x4,SLD.GATE_EPOCH=9"),
        (sld, &["EXPERIMENT.TAG", "mine", "DISTILLER.STUDENT", "vgg8"], "mine,DISTILLER.STUDENT=vgg8"),
        (
            sld,
            &["EXPERIMENT.NAME", "mine", "SOLVER.LR_DECAY_STAGES", "3,4"],
            "mine,SOLVER.LR_DECAY_STAGES=[3,4]",
        ),
        (sld, &["LOG.SAVE_CHECKPOINT_FREQ", "1"], "sld,resnet32x4,resnet8x4"),
        ("cifar100/vanilla.yaml", &["DISTILLER.STUDENT", "resnet32x4"], "vanilla,resnet32x4"),
        ("cifar100/vanilla.yaml", &[], "vanilla,resnet8x4"),
    ] {
        let name = folder(file, words);
        assert_eq!(name, wanted, "{words:?}");
        assert!(
            !name.contains(['<', '>', ':', '"', '/', '\\', '|', '?', '*']),
            "{name} is not allowed on Windows"
        );
    }
}

#[test]
fn unknown_keys_name_the_place_and_the_key_meant() {
    let text = "SOLVER:\n  BATCH_SIZE: 64\n  LERNING_RATE: 0.1\n  BATCHSIZE: 32\n";
    let said = message(text);
    assert!(said.starts_with("my.yaml:3:3: SOLVER.LERNING_RATE is not a config key"), "{said}");
    let said = message("SOLVER:\n  BATCHSIZE: 32\n");
    assert_eq!(
        said,
        "my.yaml:2:3: SOLVER.BATCHSIZE is not a config key; did you mean SOLVER.BATCH_SIZE?\n  2 |   BATCHSIZE: 32\n    |   ^"
    );
    assert!(message("LR: 0.1\n").contains("my.yaml:1:1: LR is not a config key; did you mean SOLVER.LR?"));
    assert!(message("SOLVR:\n  LR: 0.1\n").contains("SOLVR is not a config key; did you mean SOLVER?"));
    assert!(
        message("GRADCAM:\n  LOSS: 1\n")
            .contains("GRADCAM is not a config key; choose one of EXPERIMENT, DATASET")
    );
    assert!(
        message("SLD:\n  TEMPERATURE: 4\n")
            .contains("SLD.TEMPERATURE is not a config key; did you mean SLD.TEMPERATURES?")
    );
    assert!(message("solver:\n  LR: 0.1\n").contains("did you mean SOLVER?"));
    let said = overridden(&["SOLVER.LRR", "0.1"]).unwrap_err();
    assert_eq!(
        said,
        "command line, `SOLVER.LRR 0.1`: SOLVER.LRR is not a config key; did you mean SOLVER.LR?"
    );
    assert!(
        overridden(&["SOLVER", "1"])
            .unwrap_err()
            .contains("SOLVER is a section, not a key; its keys are SOLVER.TRAINER")
    );
    assert!(overridden(&["SOLVER.LR"]).unwrap_err().contains("overrides come in pairs, KEY VALUE"));
}

#[test]
fn values_of_the_wrong_type_name_the_place_and_what_was_expected() {
    let cases = [
        ("SOLVER:\n  LR: fast\n", "my.yaml:2:7: SOLVER.LR: expected a number, found \"fast\""),
        ("SOLVER:\n  LR: .nan\n", "SOLVER.LR: expected a number, found .nan"),
        ("SOLVER:\n  LR:\n", "SOLVER.LR: expected a number, found nothing"),
        ("SOLVER:\n  EPOCHS: 2.5\n", "SOLVER.EPOCHS: expected a whole number, found 2.5"),
        ("SOLVER:\n  EPOCHS: -1\n", "SOLVER.EPOCHS: expected a whole number from 0 to 4294967295, found -1"),
        ("SOLVER:\n  LR_DECAY_STAGES: [150, x]\n", "item 2: expected a whole number, found \"x\""),
        ("SOLVER:\n  LR_DECAY_STAGES: soon\n", "expected a list such as [150, 180, 210], found \"soon\""),
        ("LOG:\n  WANDB: 3\n", "LOG.WANDB: expected true or false, found 3"),
        ("SOLVER: 3\n", "my.yaml:1:9: SOLVER is a section of keys, found 3"),
        ("SOLVER:\n  LR:0.1\n", "found \"LR:0.1\"; a colon needs a space behind it, KEY: value"),
        ("SOLVER:\n  LR:\n    X: 1\n", "SOLVER.LR: expected a number, found a section of keys"),
        ("- 1\n- 2\n", "a config is sections of keys such as SOLVER, found a list of 2"),
        ("SOLVER:\n  LR: [1\n", "this is not valid YAML"),
        (
            "SOLVER:\n  LR: 0.1\n  LR: 0.2\n",
            "my.yaml:3:3: this is not valid YAML: LR is set twice, in lines 2 and 3",
        ),
    ];
    for (text, wanted) in cases {
        let said = message(text);
        assert!(said.contains(wanted), "{text}\nsaid:   {said}\nwanted: {wanted}");
        assert!(said.starts_with("my.yaml:"), "{said}");
    }
}

#[test]
fn values_out_of_range_say_what_is_allowed() {
    let cases: &[(&[&str], &str)] = &[
        (&["SOLVER.BATCH_SIZE", "0"], "SOLVER.BATCH_SIZE: must be at least 1, found 0"),
        (&["SOLVER.LR", "-0.1"], "SOLVER.LR: must be greater than 0, found -0.1"),
        (&["SOLVER.EPOCHS", "0"], "SOLVER.EPOCHS: must be at least 1"),
        (&["SOLVER.MOMENTUM", "1"], "SOLVER.MOMENTUM: must be in [0, 1), found 1"),
        (&["SOLVER.TYPE", "Adagrad"], "SOLVER.TYPE: there is no optimizer \"Adagrad\"; choose one of SGD"),
        (&["SOLVER.TYPE", "AdamX"], "SOLVER.TYPE: there is no optimizer \"AdamX\"; did you mean ADAM?"),
        (&["SOLVER.CLIP", "-1"], "SOLVER.CLIP: must not be negative"),
        (&["SOLVER.EMA", "1"], "SOLVER.EMA: must be in [0, 1), found 1"),
        (&["SOLVER.WARMUP", "241"], "SOLVER.WARMUP: must be at most SOLVER.EPOCHS, 240"),
        (
            &["SOLVER.SCHEDULE", "step", "SOLVER.LR_DECAY_STAGES", "[]"],
            "SOLVER.SCHEDULE: needs in SOLVER.LR_DECAY_STAGES the number of epochs between two falls",
        ),
        (
            &["DISTILLER.TYPE", "KD", "SOLVER.TRAINER", "dot", "SOLVER.TYPE", "ADAM"],
            "SOLVER.TYPE: \"dot\" is an optimizer of its own, by SGD: set SOLVER.TYPE to \"SGD\"",
        ),
        (&["DATASET.NUM_WORKERS", "4294967295"], "DATASET.NUM_WORKERS: must be at most 1024"),
        (&["SOLVER.LR_DECAY_STAGES", "[180, 150]"], "must rise from left to right"),
        (&["SOLVER.LR_DECAY_STAGES", "[0, 150]"], "epochs count from 1"),
        (&["DATASET.VAL_FRACTION", "1.5"], "DATASET.VAL_FRACTION: must be in [0, 1), found 1.5"),
        (
            &["DISTILLER.TYPE", "SLD", "SLD.TEMPERATURES", "[]"],
            "SLD.TEMPERATURES: needs at least one temperature",
        ),
        (
            &["DISTILLER.TYPE", "SLD", "SLD.TEMPERATURES", "[1, 0]"],
            "temperatures must be greater than 0, found 0",
        ),
        (&["DISTILLER.TYPE", "DKD", "DKD.WARMUP", "0"], "DKD.WARMUP: must be at least 1"),
        (&["EXPERIMENT.NAME", "../../etc"], "EXPERIMENT.NAME: must not lead out of the output folder"),
        (&["DISTILLER.TYPE", "SDL"], "DISTILLER.TYPE: there is no method \"SDL\"; did you mean SLD?"),
        (&["DISTILLER.TYPE", "KD-Zero"], "choose one of NONE, KD, KD_SWAP, SLD, MLKD, DKD"),
        (&["DATASET.TYPE", "cifar1000"], "there is no dataset \"cifar1000\"; did you mean cifar100?"),
        (
            &["DISTILLER.STUDENT", "resnet33"],
            "DISTILLER.STUDENT: there is no network \"resnet33\" for 32x32 images; did you mean resnet32?",
        ),
        (&["DISTILLER.STUDENT", "vit"], "choose one of resnet8, resnet14"),
        (
            &["DATASET.TYPE", "imagenet", "DISTILLER.STUDENT", "resnet20"],
            "there is no network \"resnet20\" for ImageNet",
        ),
        (
            &["DISTILLER.TYPE", "SLD"],
            "\"base\" does not fit SLD, which reads a weak and a strong view of each image; set SOLVER.TRAINER to \"ours\"",
        ),
        (
            &["SOLVER.TRAINER", "ours"],
            "command line, `SOLVER.TRAINER ours`: SOLVER.TRAINER: \"ours\" does not fit NONE, which reads one view",
        ),
    ];
    for (words, wanted) in cases {
        let said = overridden(words).expect_err(wanted);
        assert!(said.contains(wanted), "{words:?}\nsaid:   {said}\nwanted: {wanted}");
    }
}

#[test]
fn checks_across_keys_point_at_the_line_that_is_to_blame() {
    let said = message("SOLVER:\n  TRAINER: ours\nDISTILLER:\n  TYPE: KD\n");
    assert!(said.starts_with("my.yaml:2:12: SOLVER.TRAINER: \"ours\" does not fit KD"), "{said}");
}

#[test]
fn an_unreadable_config_is_told_with_its_path() {
    let missing = Config::load(Path::new("no/such.yaml"), &Overrides::default()).unwrap_err().to_string();
    assert!(missing.starts_with("no/such.yaml: there is no such config; . holds "), "{missing}");
    let folder = Config::load(Path::new("."), &Overrides::default()).unwrap_err().to_string();
    assert!(folder.contains("this is a folder, a config is a file; . holds "), "{folder}");
}

#[test]
fn every_network_a_config_may_name_is_in_the_registry() {
    let known: Vec<&str> = nn::models::names().collect();
    let mut config = Config::default();
    for kind in [DatasetKind::Cifar100, DatasetKind::Imagenet] {
        config.dataset.kind = kind;
        assert!(models_of(kind).len() >= 5);
        for name in models_of(kind) {
            config.distiller.student = name.into();
            let model = config.student_model();
            assert!(known.contains(&&*model) || nn::models::build(&model, 10, 0).is_ok(), "{model}");
        }
    }
}

#[test]
fn every_key_has_a_help_text_and_sections_stand_together() {
    let stand_together = |paths: &mut dyn Iterator<Item = &str>| {
        let mut seen: Vec<String> = Vec::new();
        for path in paths {
            let section = path.split('.').next().unwrap();
            if seen.last().is_none_or(|last| last != section) {
                assert!(!seen.iter().any(|known| known == section), "{section} is torn apart");
                seen.push(section.into());
            }
        }
    };
    stand_together(&mut keys().iter().map(|key| key.path));
    for key in keys() {
        assert!(key.help().ends_with('.') && !key.help().starts_with(' '), "{}: {}", key.path, key.help());
    }
    for method in METHODS.iter().map(|method| method.make()) {
        stand_together(&mut method.keys().iter().map(|key| key.path));
        for (path, value) in method.values() {
            // A key that several methods read has one default.
            for other in METHODS.iter().map(|other| other.make()) {
                assert!(other.get(path).is_none_or(|theirs| theirs == value), "{path}");
            }
        }
    }
}

#[test]
fn a_key_that_changes_nothing_is_refused_from_the_command_line_and_warned_of_from_a_file() {
    let mut refused = 0;
    for about in METHODS.iter().map(|method| method.make().about()) {
        let name = about.name;
        let trainer = match (about.knows_images, about.views) {
            (true, _) => "crd",
            (_, 2) => "ours",
            _ => "base",
        };
        let mut words = vec!["DISTILLER.TYPE", name, "SOLVER.TRAINER", trainer];
        if about.needs_teacher {
            words.extend(["DISTILLER.TEACHER", "resnet20"]);
        }
        let plain = overridden(&words).unwrap();
        // Every key of every method, with another value than the default.
        for key in keys().iter().filter(|key| METHODS.iter().any(|m| m.make().get(key.path).is_some())) {
            let default = METHODS.iter().find_map(|m| m.make().get(key.path)).unwrap();
            let value = match default.as_str() {
                "true" => "false",
                "false" => "true",
                "\"exact\"" => "relax",
                _ if key.path.ends_with("MOMENTUM") => "0.25",
                _ => "3",
            };
            let given = overridden(&[&words[..], &[key.path, value]].concat());
            match plain.method().get(key.path) {
                // The reference's, for what is not done here.
                Some(_)
                    if ["INPUT_SIZE", "MAX_MID_CHANNEL", "VID.EPS"]
                        .iter()
                        .any(|last| key.path.ends_with(last)) =>
                {
                    assert!(given.unwrap_err().contains("has no effect"), "{name} {}", key.path);
                }
                Some(_) => assert!(given.unwrap() != plain, "{name} {}", key.path),
                None => {
                    refused += 1;
                    let said = given.unwrap_err();
                    assert!(said.contains(&format!("{} has no effect on {name}", key.path)), "{said}");
                }
            }
        }
    }
    assert!(refused > 50, "{refused}");
    let swap = ["DISTILLER.TYPE", "KD_SWAP", "DISTILLER.TEACHER", "resnet20", "KD.LOSS.KD_WEIGHT", "0"];
    assert_eq!(
        overridden(&swap).unwrap_err(),
        "command line, `KD.LOSS.KD_WEIGHT 0`: KD.LOSS.KD_WEIGHT has no effect on KD_SWAP; it reads KD_SWAP.KD_WEIGHT"
    );
    for (words, wanted) in [
        (
            &["DISTILLER.TEACHER", "resnet20"][..],
            "DISTILLER.TEACHER has no effect on NONE, which has no teacher",
        ),
        (&["DISTILLER.TEACHER_CHECKPOINT", "x"], "has no effect on NONE, which has no teacher"),
        (&["SOLVER.TYPE", "ADAMW", "SOLVER.MOMENTUM", "0.5"], "SOLVER.MOMENTUM has no effect on"),
        (
            &["DATASET.TYPE", "synthetic", "DATASET.ROOT", "x"],
            "DATASET.ROOT has no effect on the synthetic data set",
        ),
        (&["MODEL.WRN_DOUBLE_BN_UPDATE", "false"], "has no effect on resnet32, which is no wide ResNet"),
        (&["KD.LOSS.CE_WEIGHT", "1"], "KD.LOSS.CE_WEIGHT has no effect on NONE; it reads no keys of its own"),
    ] {
        let said = overridden(words).unwrap_err();
        assert!(said.contains(wanted), "{said}");
    }
    // From a file: a warning with its place, whatever the order; the value is left out of what is printed.
    let text = "DKD:\n  T: 3\nDISTILLER:\n  TYPE: KD\n  TEACHER: resnet20\nSLD:\n  GATE_EPOCH: 9\n";
    let config = parse(text).unwrap();
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].starts_with("my.yaml:2:6: DKD.T has no effect on KD; it reads KD.TEMPERATURE"),
        "{warnings:?}"
    );
    assert!(warnings[1].starts_with("my.yaml:7:15: SLD.GATE_EPOCH has no effect on KD"), "{warnings:?}");
    assert!(!config.to_yaml().contains("GATE_EPOCH"));
    // A method chosen on the command line decides what the file's keys mean.
    let mut kd = Overrides::default();
    kd.push("DISTILLER.TYPE", "DKD");
    let config = Config::parse(text, Path::new("my.yaml"), &kd).unwrap();
    assert_eq!((config.warnings.len(), config.method().get("DKD.T").unwrap()), (1, "3.0".into()));
    // A wrong value is wrong although nothing reads it.
    assert!(message("DKD:\n  T: hot\n").contains("DKD.T: expected a number"));
}

#[test]
fn configs_of_other_repositories_mean_what_they_say() {
    let config = |rest: &str| parse(&format!("EXPERIMENT:\n  NAME: \"\"\n  TAG: \"a,res56,res20\"\n{rest}"));
    let networks = "  TEACHER: \"resnet56\"\n  STUDENT: \"resnet20\"\n";
    for (name, trainer, method) in [
        ("NONE", "base", "NONE"),
        ("KD", "base", "KD"),
        ("DKD", "base", "DKD"),
        ("KD_ours", "ours", "MLKD"),
        ("MLKD", "ours", "MLKD"),
        ("SLD", "ours", "SLD"),
        ("vanilla", "base", "NONE"),
    ] {
        let text = format!(
            "DISTILLER:\n  TYPE: \"{name}\"\n{networks}SOLVER:\n  TRAINER: {trainer}\n  TYPE: \"SGD\"\nLOG:\n  WANDB: False\n"
        );
        assert_eq!(config(&text).unwrap_or_else(|why| panic!("{why}")).method().name(), method);
    }
    let known = "choose one of NONE, KD, KD_SWAP, SLD, MLKD, DKD";
    for name in ["DKD_aug", "KD-Zero"] {
        // Its own section, before and behind, is not what is wrong.
        for text in [
            format!("DISTILLER:\n  TYPE: {name}\n{networks}{name}:\n  P: 2\nSOLVER:\n  TRAINER: crd\n"),
            format!("{name}:\n  P: 2\nSOLVER:\n  TRAINER: crd\nDISTILLER:\n{networks}  TYPE: {name}\n"),
        ] {
            let said = config(&text).unwrap_err();
            let wanted = format!("DISTILLER.TYPE: there is no method \"{name}\"; {known}");
            assert!(said.contains(&wanted), "{said}");
        }
    }
    let said = config(&format!(
        "DISTILLER:\n  TYPE: KD\n{networks}SOLVER:\n  TRAINER: dot\n  DOT:\n    DELTA: 0.09\n"
    ));
    let solver = said.unwrap_or_else(|why| panic!("{why}")).solver;
    assert!(solver.trainer.is_dot() && solver.dot_delta == 0.09);
    let said = config(&format!("DISTILLER:\n  TYPE: KD\n{networks}SOLVER:\n  TRAINER: lars\n"));
    assert!(said.unwrap_err().contains("there is no trainer \"lars\"; choose one of base, ours, crd, dot"));
}

#[test]
fn a_mistyped_path_of_a_config_is_answered_with_the_one_meant() {
    let root = tempfile::tempdir().unwrap();
    for file in [
        "cifar100/sld/res32x4_res8x4.yaml",
        "cifar100/sld/vgg13_vgg8.yaml",
        "cifar100/kd.yaml",
        "notes/a.txt",
    ] {
        let path = root.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    let meant = |file: &str| format!("; did you mean {}?", root.path().join(file).display());
    let holds = |folder: &str, names: &str| format!("; {} holds {names}", root.path().join(folder).display());
    let sld = "cifar100/sld/res32x4_res8x4.yaml";
    for (typed, wanted) in [
        ("cifar100/SLD/res32x4_res8x4.yaml", meant(sld)),
        ("CIFAR100/SLD/RES32x4_RES8x4.yaml", meant(sld)),
        ("cifar-100/sld/res32x4-res8x4.yaml", meant(sld)),
        ("cifar100/sld/res32x4_res8x4.yml", meant(sld)),
        ("cifar100/sld/res32x4_res8x4", meant(sld)),
        ("cifar100/kd", meant("cifar100/kd.yaml")),
        ("cifar100/dkd.yaml", meant("cifar100/kd.yaml")),
        (
            "cifar100/sld",
            "this is a folder, a config is a file".to_owned()
                + &holds("cifar100/sld", "res32x4_res8x4.yaml, vgg13_vgg8.yaml"),
        ),
        ("cifar100/SLD", holds("cifar100/sld", "res32x4_res8x4.yaml, vgg13_vgg8.yaml")),
        ("cifar100/sld/mobilenet.yaml", holds("cifar100/sld", "res32x4_res8x4.yaml, vgg13_vgg8.yaml")),
        ("cifar100", holds("cifar100", "kd.yaml, sld")),
        ("imagenet/kd.yaml", format!("; {} holds cifar100, notes", root.path().display())),
        ("notes", format!("; {} holds no config", root.path().join("notes").display())),
    ] {
        let said = Config::load(&root.path().join(typed), &Overrides::default()).unwrap_err().to_string();
        assert!(said.ends_with(&wanted), "{typed}\nsaid:   {said}\nwanted: {wanted}");
    }
    let path = root.path().join("latin1.yaml");
    std::fs::write(&path, b"# caf\xe9\n").unwrap();
    let said = Config::load(&path, &Overrides::default()).unwrap_err().to_string();
    assert!(said.ends_with("latin1.yaml: cannot read the config: it is no text in UTF-8"), "{said}");
}

#[test]
fn differences_are_the_keys_whose_value_is_not_the_default() {
    assert_eq!(Config::default().differences(), Vec::<String>::new());
    let config = overridden(&["DISTILLER.TYPE", "KD", "KD.TEMPERATURE", "3", "SOLVER.LR", "0.125"]).unwrap();
    let changed = config.differences();
    assert!(
        changed.contains(&"KD.TEMPERATURE: 3.0".into()) && changed.contains(&"SOLVER.LR: 0.125".into()),
        "{changed:?}"
    );
    // What the method has by itself is no difference.
    assert!(
        changed.iter().all(|line| !line.contains("KD_WEIGHT") && !line.contains("EPOCHS")),
        "{changed:?}"
    );
    // Nor are keys at their defaults which only these settings read.
    for (key, value, own) in
        [("DISTILLER.STUDENT", "wrn_16_1", "WRN_DOUBLE"), ("DATASET.TYPE", "tiny_imagenet", "SKIP_BROKEN")]
    {
        let config = overridden(&[key, value]).unwrap();
        assert!(config.to_yaml().contains(own), "{own} is read");
        assert_eq!(config.differences(), [format!("{key}: \"{value}\"")]);
    }
}

#[test]
fn momenta_of_a_distillation_oriented_trainer_are_below_1() {
    let taught =
        ["DISTILLER.TYPE", "KD", "DISTILLER.TEACHER", "resnet56", "SOLVER.TRAINER", "dot", "SOLVER.MOMENTUM"];
    let with = |momentum: &str| overridden(&[&taught[..], &[momentum]].concat());
    for (momentum, most) in [("0.95", "at most 0.0500"), ("0.05", "at most 0.0500")] {
        let why = with(momentum).unwrap_err().to_string();
        assert!(why.contains("SOLVER.DOT.DELTA") && why.contains(most), "{why}");
    }
    assert!(with("0.92").is_ok());
}
