//! What a compiled step says about itself: every kernel knows its place, and it can be read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use autograd::Variable;
use nn::models;
use schedule::{Body, ConvKind, Kernel, Options, Schedule, Step};
use sld::cli::session;
use sld::config::{Config, Overrides};
use sld::distill;
use sld::training::{Networks, Setup, step};

fn configs() -> Vec<PathBuf> {
    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { files(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs"), &mut found);
    found.sort();
    assert!(found.len() > 20);
    found
}

/// The step of a config for small batches, as `sld explain` makes it.
fn step_of(config: &Config) -> (Step, Networks) {
    let images = session::Images::of(config);
    let networks = session::networks(config, images).unwrap();
    (step::expressions(&networks, config.method(), 2, images.size).0, networks)
}

/// Where kernels can belong in a step of these networks.
fn check_places(schedule: &Schedule, networks: &Networks, what: &str) {
    let layers = |state: &[nn::layers::StateEntry]| -> BTreeSet<String> {
        let names = state.iter().map(|entry| entry.variable.name().to_owned()).collect::<Vec<_>>();
        // And what several layers' paths begin with: kernels for all of them.
        let ends =
            |name: &str| name.match_indices('.').map(|(at, _)| name[..at].to_owned()).collect::<Vec<_>>();
        names.iter().flat_map(|name| ends(name)).collect()
    };
    let student = layers(networks.student.state());
    let teacher = networks.teacher.as_ref().map(|teacher| layers(teacher.state())).unwrap_or_default();
    // The method's own, and of the teacher where its statistics move.
    let modules = layers(&networks.modules);
    let moving = networks.learning_teacher().map(|teacher| layers(teacher.state())).unwrap_or_default();
    for kernel in schedule.all_kernels() {
        let scope = schedule.scope(kernel);
        let layer = scope.layer.as_deref();
        let writes = kernel.writes().len();
        let known = match (scope.part, layer) {
            // One launch may work for layers whose paths have nothing in common.
            ("student" | "teacher" | "backward" | "update", None) => writes > 1,
            ("student", Some(layer)) => student.contains(layer),
            ("teacher", Some(layer)) => teacher.contains(layer),
            ("backward", Some(layer)) => {
                layer == "loss" || student.contains(layer) || modules.contains(layer)
            }
            ("update", Some(layer)) => {
                [&student, &modules, &moving].iter().any(|known| known.contains(layer))
            }
            ("loss", layer) => layer.is_none_or(|layer| modules.contains(layer)),
            _ => false,
        };
        assert!(known, "{what}: `{}` belongs to {scope:?}", kernel.label);
        // (One launch may also hold an update and a map that others wait for.)
        let updates = kernel.writes().into_iter().all(|buffer| schedule.variable(buffer).is_some());
        assert!(!updates || scope.part == "update", "{what}: `{}` updates, but is {scope:?}", kernel.label);
    }
}

/// The layer of the variable that a convolution's or product's operand is.
fn weight_of<'a>(schedule: &'a Schedule, kernel: &Kernel) -> Option<(&'a Variable, &'a str)> {
    let (lhs, rhs) = match &kernel.body {
        Body::Convolution { lhs, rhs, .. } | Body::MatMul { lhs, rhs, .. } => (lhs, rhs),
        _ => return None,
    };
    let variables =
        [lhs, rhs].into_iter().flat_map(|o| o.program.buffers()).filter_map(|b| schedule.variable(b));
    let weight = { variables }.find(|variable| variable.name().ends_with(".weight"))?;
    // Of batch norms before it the operand has the scale, but from memory of its own.
    Some((weight, weight.name().strip_suffix(".weight")?))
}

#[test]
fn every_kernel_of_every_config_has_its_place_and_every_line_fits() {
    for path in configs() {
        let config = Config::load(&path, &Overrides::default()).unwrap();
        let (step, networks) = step_of(&config);
        let schedule = step.schedule().unwrap();
        check_places(&schedule, &networks, &path.display().to_string());
        check_lines(&schedule);
    }
}

fn check_lines(schedule: &Schedule) {
    for line in schedule.table().lines() {
        assert!(line.chars().count() <= 120, "{line}");
    }
}

#[test]
fn large_groups_have_their_place_too() {
    let (step, networks) = step_of(&Config::load(&pair_config(), &Overrides::default()).unwrap());
    let options = Options { group_buffers: 1 << 20, max_buffers: 64, ..Options::default() };
    let schedule = step.schedule_with(options).unwrap();
    check_places(&schedule, &networks, "in large groups");
    check_lines(&schedule);
}

#[test]
fn every_kernel_of_every_network_has_its_place() {
    for name in models::names().filter(|name| models::side(name) == 32) {
        let build = || models::build(name, 10, 0).unwrap();
        let student = build();
        let sld = distill::Sld::default();
        let networks = Networks::new(student, Some(build()), &sld, Setup::default()).unwrap();
        let (step, _) = step::expressions(&networks, &sld, 2, [32, 32]);
        let schedule = step.schedule().unwrap();
        check_places(&schedule, &networks, name);
        let trained = networks.student.parameters();
        for kernel in &schedule.kernels {
            let scope = schedule.scope(kernel);
            let Some((weight, layer)) = weight_of(&schedule, kernel) else { continue };
            assert_eq!(scope.layer.as_deref(), Some(layer), "{name}: {}", kernel.label);
            let part = match &kernel.body {
                Body::Convolution { kind: ConvKind::InputGrad, .. } => "backward",
                Body::Convolution { kind: ConvKind::Forward, .. } if trained.contains(weight) => "student",
                Body::Convolution { kind: ConvKind::Forward, .. } => "teacher",
                _ => continue,
            };
            assert_eq!(scope.part, part, "{name}: {}", kernel.label);
        }
    }
}

fn pair_config() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/cifar100/sld/res32x4_res8x4.yaml")
}

fn pair() -> (Schedule, Networks) {
    let (step, networks) = step_of(&Config::load(&pair_config(), &Overrides::default()).unwrap());
    (step.schedule().unwrap(), networks)
}

#[test]
fn all_methods_have_the_same_parts() {
    for method in distill::METHODS {
        let mut method = method.make();
        for (key, value) in [
            ("CRD.FEAT.STUDENT_DIM", "64"),
            ("CRD.FEAT.TEACHER_DIM", "64"),
            ("CRD.NCE.K", "8"),
            ("REVIEWKD.IN_CHANNELS", "[16, 32, 64, 64]"),
            ("REVIEWKD.OUT_CHANNELS", "[16, 32, 64, 64]"),
        ] {
            if let Some(set) = method.set(key, &sld::setting::Given::Word(value.into())) {
                set.unwrap();
            }
        }
        let name = method.name();
        let build = |name| models::build(name, 10, 0).unwrap();
        let setup = Setup { images: 20, ..Setup::default() };
        let networks = Networks::new(build("resnet8"), Some(build("resnet14")), &*method, setup).unwrap();
        let schedule = step::expressions(&networks, &*method, 2, [32, 32]).0.schedule().unwrap();
        check_places(&schedule, &networks, name);
        let parts: BTreeSet<&str> = schedule.kernels.iter().map(|k| schedule.scope(k).part).collect();
        let wanted = ["backward", "loss", "student", "teacher", "update"];
        let wanted = wanted.into_iter().filter(|part| *part != "teacher" || method.needs_teacher());
        assert_eq!(parts, wanted.collect(), "{name}");
    }
}

#[test]
fn a_graph_of_a_pair_fits_a_screen() {
    let (schedule, _) = pair();
    for (graph, node, edge) in
        [(schedule.mermaid(), "[\"", " --> "), (schedule.graphviz(), " [label=", " -> ")]
    {
        let nodes = graph.lines().filter(|line| line.contains(node) && line.starts_with("    n")).count();
        assert!((15..=30).contains(&nodes), "{nodes} nodes\n{graph}");
        assert!(graph.lines().filter(|line| line.contains(edge)).count() <= 90, "{graph}");
        for part in ["teacher", "student", "loss", "backward", "update", "layer3", "images", "metrics"] {
            assert!(graph.contains(part), "{part}");
        }
    }
    // No arrow ends where nothing is.
    let graph = schedule.mermaid();
    for line in graph.lines().filter(|line| line.contains(" --> ")) {
        for end in line.trim().split(" --> ") {
            assert!(graph.contains(&format!("  {end}[")) || graph.contains(&format!("  {end}([")), "{end}");
        }
    }
}

#[test]
fn a_shader_is_found_by_number_and_by_text() {
    let (schedule, _) = pair();
    let found = schedule.find("3");
    assert_eq!(found.len(), 1);
    assert!(std::ptr::eq(found[0].1, &schedule.kernels[3]));
    assert!(std::ptr::eq(schedule.find("p1")[0].1, &schedule.prepare[1]));
    let found = schedule.find("student layer1.0.conv1 ");
    assert!(!found.is_empty());
    for (number, kernel) in found {
        assert_eq!(schedule.scope(kernel).layer.as_deref(), Some("layer1.0.conv1"), "{number}");
    }
    assert!(schedule.find("no such kernel").is_empty());
    // Every kernel has one, and it is a whole module.
    let (step, _) = step_of(&Config::load(&pair_config(), &Overrides::default()).unwrap());
    let schedule = step.schedule_with(gpu::webgpu_options()).unwrap();
    for kernel in schedule.all_kernels() {
        let text = gpu::webgpu_source(&schedule, kernel).unwrap();
        assert!(text.contains("@compute") && text.contains("fn main("), "{}: {text}", kernel.label);
        assert!(text.contains("// binding 1: "), "{text}");
    }
}

#[test]
fn the_command_prints_a_shader_or_says_what_there_is() {
    let shader = |kernel: &str| {
        std::process::Command::new(env!("CARGO_BIN_EXE_sld"))
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
            .args(["explain", "--device", "cpu", "--cfg", "configs/cifar100/kd.yaml", "--wgsl", kernel])
            .args(["SOLVER.BATCH_SIZE", "2"])
            .output()
            .unwrap()
    };
    let (one, unknown) = (shader("student fc"), shader("nosuch"));
    let text = String::from_utf8(one.stdout).unwrap();
    assert!(text.starts_with("// kernel ") && text.contains("WebGPU's least limits"), "{text}");
    assert!(text.contains("@compute"), "{text}");
    let why = String::from_utf8(unknown.stderr).unwrap();
    assert!(!unknown.status.success() && unknown.stdout.is_empty());
    assert!(
        why.contains("no kernel `nosuch`: these are the kernels for WebGPU's least limits")
            && why.contains("matmul"),
        "{why}"
    );
}

/// What the rows of the table of launches say adds up to what its last lines say.
#[test]
fn the_table_of_launches_has_them_all() {
    let (step, _) = step_of(&Config::load(&pair_config(), &Overrides::default()).unwrap());
    let text = gpu::webgpu_launches(&step.schedule_with(gpu::webgpu_options()).unwrap()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let [rows @ .., _, last] = &lines[1..] else { panic!("{text}") };
    let is_row = |line: &&str| !line.starts_with("--");
    // The column after number, layer and kernel.
    let column = |line: &str| line.chars().skip(76).take(22).collect::<String>();
    // Launches and workgroups of `4x64+2`.
    let of_each = |alike: &str| match alike.split_once('x') {
        Some((times, groups)) => (times.trim().parse().unwrap(), groups.trim().parse().unwrap()),
        None => (1, alike.trim().parse().unwrap()),
    };
    let each: Vec<(u64, u64)> = rows
        .iter()
        .copied()
        .filter(is_row)
        .flat_map(|row| column(row).split('+').map(of_each).collect::<Vec<_>>())
        .collect();
    let in_rows: u64 = each.iter().map(|(times, groups)| times * groups).sum();
    let launched: u64 = each.iter().map(|(times, _)| times).sum();
    let numbers: Vec<u64> =
        last.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    let [launches, groups, ahead, groups_ahead, ..] = numbers[..] else { panic!("{last}") };
    assert!(ahead > 0);
    assert_eq!([launched + ahead, in_rows + groups_ahead], [launches, groups], "{last}");
    assert!(lines.iter().all(|line| line.chars().count() <= 120));
}

/// What is held out is not learned from, and pictures that are there are counted.
#[test]
fn images_are_as_many_as_training_has() {
    let count = |words: &[&str]| {
        let config = Config::from_overrides(&Overrides::from_words(words).unwrap()).unwrap();
        session::Images::of(&config).count
    };
    assert_eq!(count(&["DATASET.VAL_FRACTION", "0.1"]), 45_000);
    let root = tempfile::tempdir().unwrap();
    for (class, pictures) in [("a", 3), ("b", 4)] {
        let folder = root.path().join("train").join(class);
        std::fs::create_dir_all(&folder).unwrap();
        (0..pictures).for_each(|i| std::fs::write(folder.join(format!("{i}.png")), "").unwrap());
    }
    let root = root.path().to_str().unwrap();
    assert_eq!(count(&["DATASET.TYPE", "imagefolder", "DATASET.ROOT", root]), 7);
}
