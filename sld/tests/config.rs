//! Configs: the committed files mean what the reference's mean; mistakes are told with place and remedy.

use serde_json::{Value, json};
use sld::config::{Config, DatasetKind, DistillerKind, KEYS, Overrides, models_of};
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
    let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
    let overrides = Overrides::from_words(&words).map_err(|why| why.to_string())?;
    Config::from_overrides(&overrides).map_err(|why| why.to_string())
}

#[test]
fn every_reference_config_resolves_to_the_references_values() {
    let resolved = fixture("configs_resolved.json");
    assert!(resolved.len() >= 40, "the fixture lost configs");
    for (name, wanted) in &resolved {
        let config = load(name);
        let (solver, kd, dkd) = (&config.solver, &config.kd, &config.dkd);
        let found = json!({
            "type": config.distiller.kind.name(),
            "teacher": config.distiller.teacher,
            "student": config.distiller.student,
            "trainer": solver.trainer.name(),
            "batch": solver.batch_size,
            "epochs": solver.epochs,
            "lr": solver.lr,
            "stages": solver.lr_decay_stages,
            "wd": solver.weight_decay,
            // The fixture holds 4 and 4.0 for the same temperature, depending on the reference's file.
            "kd": [kd.temperature, kd.ce_weight, kd.kd_weight],
            "dkd": [dkd.ce_weight, dkd.alpha, dkd.beta, dkd.temperature, dkd.warmup],
        });
        let mut wanted = wanted.clone();
        wanted["kd"][0] = json!(wanted["kd"][0].as_f64());
        wanted["dkd"][3] = json!(wanted["dkd"][3].as_f64());
        assert_eq!(found, wanted, "{name}");
        assert_eq!(config.dataset.kind == DatasetKind::Imagenet, name.starts_with("imagenet"), "{name}");
        assert_eq!((solver.momentum, solver.lr_decay_rate), (0.9, 0.1), "{name}");
        assert_eq!(config.sld.temperatures, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "{name}");
        assert_eq!((config.sld.gate_epoch, config.sld.detach_pseudo_teacher), (150, false), "{name}");
    }
}

#[test]
fn every_committed_config_loads_and_is_named_by_the_fixture_or_known() {
    let resolved = fixture("configs_resolved.json");
    let root = workspace().join("configs");
    let files = config_files(&root);
    for path in &files {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        load(&name);
        assert!(
            resolved.contains_key(&name) || name == "cifar100/kd_swap.yaml",
            "{name} is not the reference's"
        );
    }
    assert_eq!(files.len(), resolved.len() + 1);
    let swap = load("cifar100/kd_swap.yaml");
    assert_eq!(swap.distiller.kind, DistillerKind::KdSwap);
    assert_eq!((swap.kd_swap.kd_weight, swap.kd_swap.gate_epoch, swap.kd.ce_weight), (4.0, 150, 0.1));
}

#[test]
fn learning_rates_are_the_references_to_the_last_bit() {
    for (name, stretches) in fixture("lr_schedule.json") {
        let Value::Array(stretches) = stretches else { continue };
        let config = load(&name);
        let mut next = 1;
        for stretch in stretches {
            let (first, last, lr) = (&stretch[0], &stretch[1], stretch[2].as_f64().unwrap());
            assert_eq!(first.as_u64(), Some(next), "{name}");
            for epoch in first.as_u64().unwrap()..=last.as_u64().unwrap() {
                assert_eq!(config.solver.learning_rate(epoch as u32), lr, "{name}, epoch {epoch}");
                next = epoch + 1;
            }
        }
        assert_eq!(next, u64::from(config.solver.epochs) + 1, "{name}");
    }
}

#[test]
fn the_gate_opens_after_its_epoch() {
    let config = load("cifar100/sld/res56_res20.yaml");
    assert_eq!((config.student_swap_gate(150), config.student_swap_gate(151)), (0.0, 1.0));
    let swap = load("cifar100/kd_swap.yaml");
    assert_eq!((swap.student_swap_gate(150), swap.student_swap_gate(151)), (0.0, 1.0));
    assert_eq!(load("cifar100/kd.yaml").student_swap_gate(200), 0.0);
    let dkd = load("cifar100/dkd/res56_res20.yaml");
    assert_eq!((dkd.dkd_warmup(1), dkd.dkd_warmup(20), dkd.dkd_warmup(21)), (0.05, 1.0, 1.0));
}

#[test]
fn the_printed_config_reads_back_as_the_same() {
    let mut config = load("imagenet/r34_r18/sld.yaml");
    config.experiment.name = "a: \"b\" # c\n\\d é".into();
    config.solver.lr = 1e-7;
    config.solver.weight_decay = 0.1 + 0.2;
    config.solver.seed = u64::MAX;
    config.mlkd.weak_temperatures = Vec::new();
    let text = config.to_yaml();
    assert_eq!(parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}")), config);
    assert!(text.contains("DATASET:\n  TYPE: \"imagenet\"\n"), "{text}");
    assert!(text.contains("KD:\n  TEMPERATURE: 1.0\n  LOSS:\n    CE_WEIGHT: 0.5\n"), "{text}");
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(parse("").unwrap(), Config::default());
    assert_eq!(parse("# nothing\nSOLVER:\n").unwrap(), Config::default());
}

#[test]
fn overrides_go_on_top() {
    let config =
        overridden(&["SOLVER.LR", "1e-3", "SOLVER.LR_DECAY_STAGES", "[12,15,18]", "SLD.GATE_EPOCH", "12"]);
    let config = config.unwrap();
    assert_eq!((config.solver.lr, config.sld.gate_epoch), (1e-3, 12));
    assert_eq!(config.solver.lr_decay_stages, [12, 15, 18]);
    let bare =
        overridden(&["SOLVER.LR_DECAY_STAGES", "12,15,18", "SLD.TEMPERATURES", "2", "EXPERIMENT.TAG", "7"]);
    let bare = bare.unwrap();
    assert_eq!((bare.solver.lr_decay_stages, bare.sld.temperatures), (vec![12, 15, 18], vec![2.0]));
    assert_eq!(bare.experiment.tag, "7");
    assert_eq!(overridden(&["EXPERIMENT.TAG", "a: b"]).unwrap().experiment.tag, "a: b");
}

#[test]
fn the_run_folder_is_named_as_the_references() {
    let config = load("cifar100/sld/res32x4_res8x4.yaml");
    let none = config.run_folder(&Overrides::default());
    assert_eq!(none, Path::new("./output/cifar100_baselines/sld,resnet32x4,resnet8x4"));
    let mut some = Overrides::default();
    some.push("SOLVER.LR", "0.1");
    some.push("DATASET.ROOT", "/big/disk");
    let named = config.run_folder(&some);
    let wanted = "./output/cifar100_baselines/sld,resnet32x4,resnet8x4SOLVER.LR:0.1,DATASET.ROOT:_big_disk";
    assert_eq!(named, Path::new(wanted));
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
        message("FITNET:\n  LOSS: 1\n")
            .contains("FITNET is not a config key; choose one of EXPERIMENT, DATASET")
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
        ("SOLVER:\n  LR: .nan\n", "SOLVER.LR: expected a number"),
        ("SOLVER:\n  LR:\n", "SOLVER.LR: expected a number, found nothing"),
        ("SOLVER:\n  EPOCHS: 2.5\n", "SOLVER.EPOCHS: expected a whole number, found 2.5"),
        ("SOLVER:\n  EPOCHS: -1\n", "SOLVER.EPOCHS: expected a whole number from 0 to 4294967295, found -1"),
        ("SOLVER:\n  LR_DECAY_STAGES: [150, x]\n", "item 2: expected a whole number, found \"x\""),
        ("SOLVER:\n  LR_DECAY_STAGES: soon\n", "expected a list such as [150, 180, 210], found \"soon\""),
        ("LOG:\n  WANDB: 3\n", "LOG.WANDB: expected true or false, found 3"),
        ("SOLVER: 3\n", "my.yaml:1:9: SOLVER is a section of keys, found 3"),
        ("SOLVER:\n  LR:\n    X: 1\n", "SOLVER.LR: expected a number, found a section of keys"),
        ("- 1\n- 2\n", "a config is sections of keys such as SOLVER, found a list of 2"),
        ("SOLVER:\n  LR: [1\n", "this is not valid YAML"),
        ("SOLVER:\n  LR: 0.1\n  LR: 0.2\n", "my.yaml:3:3: this is not valid YAML"),
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
        (&["SOLVER.TYPE", "Adam"], "SOLVER.TYPE: only \"SGD\" is known, found \"Adam\""),
        (&["SOLVER.LR_DECAY_STAGES", "[180, 150]"], "must rise from left to right"),
        (&["SOLVER.LR_DECAY_STAGES", "[0, 150]"], "epochs count from 1"),
        (&["DATASET.VAL_FRACTION", "1.5"], "DATASET.VAL_FRACTION: must be in [0, 1), found 1.5"),
        (&["SLD.TEMPERATURES", "[]"], "SLD.TEMPERATURES: needs at least one temperature"),
        (&["SLD.TEMPERATURES", "[1, 0]"], "temperatures must be greater than 0, found 0"),
        (&["DKD.WARMUP", "0"], "DKD.WARMUP: must be at least 1"),
        (&["EXPERIMENT.NAME", "../../etc"], "EXPERIMENT.NAME: must not lead out of the output folder"),
        (&["DISTILLER.TYPE", "SDL"], "DISTILLER.TYPE: there is no distiller \"SDL\"; did you mean SLD?"),
        (&["DISTILLER.TYPE", "FITNET"], "choose one of NONE, KD, KD_SWAP, SLD, MLKD, DKD"),
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
    assert!(missing.starts_with("no/such.yaml: cannot read the config: "), "{missing}");
    let folder = Config::load(Path::new("."), &Overrides::default()).unwrap_err().to_string();
    assert!(folder.contains("cannot read the config"), "{folder}");
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
    let mut seen: Vec<&str> = Vec::new();
    for key in KEYS {
        assert!(key.help.ends_with('.'), "{}", key.path);
        let section = key.path.split('.').next().unwrap();
        match seen.last() {
            Some(last) if *last == section => {}
            _ => {
                assert!(!seen.contains(&section), "{section} is torn apart");
                seen.push(section);
            }
        }
    }
}
