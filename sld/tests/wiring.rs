//! The way from a config key to what it is for: each key is set to an unusual value and must arrive, in the
//! compiled step, the method or the run. Both tables are complete by construction: a key without a row fails.

use autograd::{Tensor, VariableStore, grad};
use nn::layers::Modules;
use schedule::{Device, Step, Value};
use sld::augment::Mixing;
use sld::cli::session::{self, RunData};
use sld::config::{Config, Overrides, keys};
use sld::distill::{self, Distiller, METHODS, Method};
use sld::training::{Scalars, TrainStep};
use std::collections::BTreeMap;
use std::process::Command;

/// A config with these keys, in which every other key is the default.
fn config(pairs: &[(&str, &str)]) -> Config {
    let mut overrides = Overrides::default();
    pairs.iter().for_each(|(key, value)| overrides.push(key, value));
    Config::from_overrides(&overrides).unwrap_or_else(|why| panic!("{why}"))
}

// --- The keys of the methods: the terms of the loss against formulas that read the config's own keys. ---

/// For each key of a method a value that no other key has.
const UNUSUAL: &[(&str, &str)] = &[
    ("KD.TEMPERATURE", "2.75"),
    ("KD.LOSS.CE_WEIGHT", "0.37"),
    ("KD.LOSS.KD_WEIGHT", "1.83"),
    ("KD_SWAP.KD_WEIGHT", "2.41"),
    ("KD_SWAP.GATE_EPOCH", "7"),
    ("KD_SWAP.DETACH_PSEUDO_TEACHER", "true"),
    ("SLD.TEMPERATURES", "[1.5, 3.25]"),
    ("SLD.GATE_EPOCH", "11"),
    ("SLD.DETACH_PSEUDO_TEACHER", "true"),
    ("MLKD.STRONG_TEMPERATURES", "[2.25, 4.5]"),
    ("MLKD.WEAK_TEMPERATURES", "[1.25]"),
    ("DKD.CE_WEIGHT", "0.61"),
    ("DKD.ALPHA", "1.37"),
    ("DKD.BETA", "3.19"),
    ("DKD.T", "2.5"),
    ("DKD.WARMUP", "13"),
];

type Row = Vec<f64>;

/// What formulas read: numbers by key.
struct Constants(BTreeMap<String, Row>);

impl Constants {
    fn of(method: &dyn Distiller) -> Self {
        let number = |text: &str| match text.trim() {
            "true" => 1.0,
            "false" => 0.0,
            other => other.parse().unwrap(),
        };
        let list = |text: &str| {
            text.trim_matches(['[', ']']).split(',').filter(|t| !t.trim().is_empty()).map(number).collect()
        };
        Self(method.values().into_iter().map(|(path, value)| (path.to_owned(), list(&value))).collect())
    }
    fn list(&self, key: &str) -> Row {
        self.0[key].clone()
    }
    fn get(&self, key: &str) -> f64 {
        self.0[key][0]
    }
}

fn softmax(z: &[f64], t: f64) -> Row {
    let largest = z.iter().copied().fold(f64::MIN, f64::max);
    let e: Row = z.iter().map(|z| ((z - largest) / t).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

/// `T^2` times the mean over rows of `KL(softmax_T(target) || softmax_T(student))`.
fn kl(student: &[Row], target: &[Row], t: f64) -> f64 {
    let row = |(s, a): (&Row, &Row)| {
        let (p, q) = (softmax(a, t), softmax(s, t));
        p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>()
    };
    t * t * student.iter().zip(target).map(row).sum::<f64>() / student.len() as f64
}

fn cross_entropy(z: &[Row], labels: &[usize]) -> f64 {
    -z.iter().zip(labels).map(|(z, &y)| softmax(z, 1.0)[y].ln()).sum::<f64>() / z.len() as f64
}

fn swapped(z: &[Row], labels: &[usize]) -> Vec<Row> {
    let row = |(z, &y): (&Row, &usize)| {
        let largest = (0..z.len()).fold(0, |best, i| if z[i] > z[best] { i } else { best });
        let mut z = z.clone();
        z.swap(largest, y);
        z
    };
    z.iter().zip(labels).map(row).collect()
}

fn median_share(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
    values.iter().filter(|v| **v <= median).count() as f64 / n as f64
}

/// `|| A' A - B' B ||^2` for matrices of rows, or of columns.
fn gram_distance(a: &[Row], b: &[Row]) -> f64 {
    let dot = |x: &Row, y: &Row| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let pairs = (0..a.len()).flat_map(|i| (0..a.len()).map(move |j| (i, j)));
    pairs.map(|(i, j)| (dot(&a[i], &a[j]) - dot(&b[i], &b[j])).powi(2)).sum()
}

fn transposed(rows: &[Row]) -> Vec<Row> {
    (0..rows[0].len()).map(|c| rows.iter().map(|row| row[c]).collect()).collect()
}

/// Both views of a batch: weak and strong rows.
struct Batch {
    student: [Vec<Row>; 2],
    teacher: [Vec<Row>; 2],
    labels: Vec<usize>,
}

/// The terms of the loss by name, from the papers' formulas. The swapped student is taken from `own`, which is
/// the student itself or, where no gradient is to flow, what it was.
fn formulas(
    name: &str,
    c: &Constants,
    batch: &Batch,
    own: &[Vec<Row>; 2],
    epoch: f64,
) -> BTreeMap<String, f64> {
    let Batch { student: s, teacher: t, labels: y } = batch;
    let gate = |key: &str| f64::from(u8::from(epoch > c.get(key)));
    let terms: Vec<(&str, f64)> = match name {
        "NONE" => vec![("ce", cross_entropy(&s[0], y))],
        "KD" => vec![
            ("ce", c.get("KD.LOSS.CE_WEIGHT") * cross_entropy(&s[0], y)),
            ("kd", c.get("KD.LOSS.KD_WEIGHT") * kl(&s[0], &t[0], c.get("KD.TEMPERATURE"))),
        ],
        "KD_SWAP" => {
            let (weight, temperature) = (c.get("KD_SWAP.KD_WEIGHT"), c.get("KD.TEMPERATURE"));
            vec![
                ("ce", c.get("KD.LOSS.CE_WEIGHT") * cross_entropy(&s[0], y)),
                ("kd_teacher", weight * kl(&s[0], &swapped(&t[0], y), temperature)),
                (
                    "kd_student",
                    weight * gate("KD_SWAP.GATE_EPOCH") * kl(&s[0], &swapped(&own[0], y), temperature),
                ),
            ]
        }
        "SLD" => {
            let weight = c.get("KD.LOSS.KD_WEIGHT");
            let over = |targets: [&Vec<Row>; 2]| -> f64 {
                let pairs = c.list("SLD.TEMPERATURES").into_iter().flat_map(|t| [(0, t), (1, t)]);
                pairs.map(|(view, t)| kl(&s[view], &swapped(targets[view], y), t)).sum()
            };
            let both = cross_entropy(&s[0], y) + cross_entropy(&s[1], y);
            vec![
                ("ce", c.get("KD.LOSS.CE_WEIGHT") * both),
                ("kd_teacher", weight * over([&t[0], &t[1]])),
                ("kd_student", weight * gate("SLD.GATE_EPOCH") * over([&own[0], &own[1]])),
            ]
        }
        "MLKD" => {
            let weight = c.get("KD.LOSS.KD_WEIGHT");
            let strong = [c.list("KD.TEMPERATURE"), c.list("MLKD.STRONG_TEMPERATURES")].concat();
            let weak = c.list("MLKD.WEAK_TEMPERATURES");
            let all = [strong.clone(), weak.clone()].concat();
            let p: Vec<Row> = t[0].iter().map(|z| softmax(z, 1.0)).collect();
            let confidence: Row = p.iter().map(|p| p.iter().copied().fold(0.0, f64::max)).collect();
            let f = median_share(&confidence);
            let g = median_share(&transposed(&p).iter().map(|p| p.iter().sum()).collect::<Row>());
            let soft = |z: &[Row], t: f64| z.iter().map(|z| softmax(z, t)).collect::<Vec<_>>();
            let sum = |list: &[f64], of: &dyn Fn(f64) -> f64| list.iter().map(|&t| of(t)).sum::<f64>();
            let (n, classes) = (y.len() as f64, s[0][0].len() as f64);
            let instances = f * sum(&all, &|u| kl(&s[0], &t[0], u))
                + sum(&strong, &|u| kl(&s[1], &t[1], u))
                + sum(&weak, &|u| kl(&s[0], &t[0], u));
            let class =
                |u| gram_distance(&transposed(&soft(&t[0], u)), &transposed(&soft(&s[0], u))) / classes;
            let within = |u| gram_distance(&soft(&t[0], u), &soft(&s[0], u)) / n;
            let both = cross_entropy(&s[0], y) + cross_entropy(&s[1], y);
            vec![
                ("ce", c.get("KD.LOSS.CE_WEIGHT") * both),
                ("kd", weight * instances),
                ("cc", weight * g * sum(&all, &class)),
                ("bc", weight * f * sum(&all, &within)),
            ]
        }
        "DKD" => {
            let u = c.get("DKD.T");
            let warm = (epoch / c.get("DKD.WARMUP")).min(1.0);
            let binary = |z: &[Row]| -> Vec<Row> {
                let row =
                    |(z, &y): (&Row, &usize)| vec![softmax(z, u)[y].ln(), (1.0 - softmax(z, u)[y]).ln()];
                z.iter().zip(y).map(row).collect()
            };
            let rest = |z: &[Row]| -> Vec<Row> {
                let row = |(z, &y): (&Row, &usize)| [&z[..y], &z[y + 1..]].concat();
                z.iter().zip(y).map(row).collect()
            };
            let tckd = u * u * kl(&binary(&s[0]), &binary(&t[0]), 1.0);
            let nckd = kl(&rest(&s[0]), &rest(&t[0]), u);
            vec![
                ("ce", c.get("DKD.CE_WEIGHT") * cross_entropy(&s[0], y)),
                ("tckd", warm * c.get("DKD.ALPHA") * tckd),
                ("nckd", warm * c.get("DKD.BETA") * nckd),
            ]
        }
        other => panic!("no formulas for {other}: write them here"),
    };
    terms.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn batch(images: usize, classes: usize) -> Batch {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Exact in f32.
        f64::from((state >> 50) as u16) / 2048.0 - 4.0
    };
    let mut rows = || (0..images).map(|_| (0..classes).map(|_| next()).collect()).collect::<Vec<Row>>();
    Batch {
        student: [rows(), rows()],
        teacher: [rows(), rows()],
        labels: (0..images).map(|i| i * 3 % classes).collect(),
    }
}

/// The compiled loss: terms, total, and the total's gradient by the student's logits.
fn compiled(method: &dyn Distiller, batch: &Batch, epoch: usize) -> (BTreeMap<String, f64>, f64, Row) {
    let (images, classes) = (batch.labels.len(), batch.student[0][0].len());
    let [student, teacher] = ["student", "teacher"].map(|name| Tensor::input(name, &[2 * images, classes]));
    let rows = method.views() * images;
    let made = distill::Batch::of_logits(
        student.slice(0, 0, rows, 1),
        method.needs_teacher().then(|| teacher.slice(0, 0, rows, 1)),
        Tensor::input_i32("labels", &[images]),
        if method.factor(1).is_some() { Tensor::input("factor", &[]) } else { Tensor::scalar(1.0) },
    );
    let loss = method.loss(&made, &mut Modules::new(0));
    let gradient = grad(&loss.total, std::slice::from_ref(&student)).remove(0);
    let mut step = Step::new().output("total", &loss.total).output("gradient", &gradient);
    for (name, term) in &loss.terms {
        step = step.output(*name, term);
    }
    let mut executable = cpu::CpuDevice::new(1).compile_step(&step).unwrap();
    let flat =
        |views: &[Vec<Row>; 2]| views.iter().flatten().flatten().map(|&v| v as f32).collect::<Vec<_>>();
    let (s, t) = (flat(&batch.student), flat(&batch.teacher));
    let labels: Vec<i32> = batch.labels.iter().map(|&y| y as i32).collect();
    let factor = [method.factor(epoch).unwrap_or(1.0) as f32];
    let mut inputs = vec![("student", Value::F32(&s)), ("labels", Value::I32(&labels))];
    inputs.extend(method.needs_teacher().then_some(("teacher", Value::F32(&t))));
    inputs.extend(method.factor(1).map(|_| ("factor", Value::F32(&factor[..]))));
    executable.call(&inputs).unwrap();
    let mut read =
        |name: &str| executable.output(name).unwrap().iter().map(|&v| f64::from(v)).collect::<Row>();
    let terms = loss.terms.iter().map(|(name, _)| ((*name).to_owned(), read(name)[0])).collect();
    (terms, read("total")[0], read("gradient"))
}

fn close(what: &str, found: f64, wanted: f64, scale: f64) {
    assert!((found - wanted).abs() <= 2e-4 * scale.max(1e-3), "{what}: {found}, expected {wanted}");
}

#[test]
fn every_key_of_every_method_arrives_in_its_loss() {
    let batch = batch(6, 5);
    let mut checked = Vec::new();
    let of_features = |method: &Method| FEATURES.iter().any(|row| row.0 == method.make().name());
    for method in METHODS.iter().filter(|method| !of_features(method)) {
        let name = method.make().name();
        let trainer = if method.make().views() == 2 { "ours" } else { "base" };
        let base = [("DISTILLER.TYPE", name), ("SOLVER.TRAINER", trainer)];
        let own: Vec<&str> = method.make().keys().iter().map(|key| key.path).collect();
        let value = |path: &str| {
            let row = UNUSUAL.iter().find(|row| row.0 == path);
            row.unwrap_or_else(|| panic!("{path} has no row in the table")).1
        };
        // No key, each alone, all together.
        let mut settings = vec![vec![], own.clone()];
        settings.extend(own.iter().map(|path| vec![*path]));
        let mut seen: BTreeMap<Vec<&str>, String> = BTreeMap::new();
        for set in settings {
            let pairs: Vec<_> =
                base.iter().copied().chain(set.iter().map(|path| (*path, value(path)))).collect();
            let config = config(&pairs);
            let constants = Constants::of(config.method());
            for path in &set {
                let given =
                    value(path).trim_matches(['[', ']']).split(',').map(str::trim).collect::<Vec<_>>();
                let shown = given.iter().map(|v| v.parse().unwrap_or(1.0)).collect::<Row>();
                assert_eq!(constants.list(path), shown, "{name} {path}");
            }
            let mut found = String::new();
            for epoch in [1, 5, 7, 8, 11, 12, 20, 150, 151] {
                let (terms, total, gradient) = compiled(config.method(), &batch, epoch);
                let wanted = formulas(name, &constants, &batch, &batch.student, epoch as f64);
                assert_eq!(terms.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{name}");
                for (term, wanted) in &wanted {
                    close(
                        &format!("{name} {set:?} epoch {epoch} {term}"),
                        terms[term],
                        *wanted,
                        wanted.abs(),
                    );
                }
                let sum: f64 = wanted.values().sum();
                close(&format!("{name} {set:?} epoch {epoch} total"), total, sum, sum);
                found += &format!("{total:.5} {:.4?}\n", gradient);
                // A slope against a difference: along the gradient, with the swapped student held where it is
                // detached.
                if [12, 151].contains(&epoch) {
                    let length = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
                    let detached = constants.0.iter().any(|(key, on)| key.contains("DETACH") && on[0] == 1.0);
                    let at = |h: f64| {
                        let mut moved = gradient.iter().map(|g| h * g / length);
                        let student = batch.student.clone().map(|view| {
                            let mut shift =
                                |row: Row| row.iter().map(|z| z + moved.next().unwrap()).collect::<Row>();
                            view.into_iter().map(&mut shift).collect::<Vec<_>>()
                        });
                        let own = if detached { batch.student.clone() } else { student.clone() };
                        let moved =
                            Batch { student, teacher: batch.teacher.clone(), labels: batch.labels.clone() };
                        formulas(name, &constants, &moved, &own, epoch as f64).values().sum::<f64>()
                    };
                    let slope = (at(1e-4) - at(-1e-4)) / 2e-4;
                    close(&format!("{name} {set:?} epoch {epoch} slope"), length, slope, slope);
                }
            }
            seen.insert(set, found);
        }
        for path in own {
            assert!(seen[&vec![path]] != seen[&vec![]], "{name}: {path} changes nothing");
            checked.push(path);
        }
    }
    for (path, _) in UNUSUAL {
        assert!(checked.contains(path), "{path} is no method's key");
    }
}

// --- The keys of methods that read features. That their formulas are right is shown with the reference's
// values, for several values of most keys, in the tests of the workspace: here each key must arrive. ---

/// Method, what its default needs to fit the features below, and its keys with unusual values.
const FEATURES: &[(&str, &[(&str, &str)], &[(&str, &str)])] = &[
    (
        "FITNET",
        &[],
        &[("FITNET.HINT_LAYER", "3"), ("FITNET.LOSS.CE_WEIGHT", "0.37"), ("FITNET.LOSS.FEAT_WEIGHT", "1.83")],
    ),
    ("AT", &[], &[("AT.P", "3"), ("AT.LOSS.CE_WEIGHT", "0.37"), ("AT.LOSS.FEAT_WEIGHT", "1.83")]),
    ("NST", &[], &[("NST.LOSS.CE_WEIGHT", "0.37"), ("NST.LOSS.FEAT_WEIGHT", "1.83")]),
    ("PKT", &[], &[("PKT.LOSS.CE_WEIGHT", "0.37"), ("PKT.LOSS.FEAT_WEIGHT", "1.83")]),
    ("KDSVD", &[], &[("KDSVD.K", "2"), ("KDSVD.LOSS.CE_WEIGHT", "0.37"), ("KDSVD.LOSS.FEAT_WEIGHT", "1.83")]),
    (
        "OFD",
        &[],
        &[
            ("OFD.CONNECTOR.KERNEL_SIZE", "3"),
            ("OFD.LOSS.CE_WEIGHT", "0.37"),
            ("OFD.LOSS.FEAT_WEIGHT", "1.83"),
        ],
    ),
    (
        "RKD",
        &[],
        &[
            ("RKD.DISTANCE_WEIGHT", "3.1"),
            ("RKD.ANGLE_WEIGHT", "4.3"),
            ("RKD.LOSS.CE_WEIGHT", "0.37"),
            ("RKD.LOSS.FEAT_WEIGHT", "1.83"),
            // Larger than some squared distances.
            ("RKD.PDIST.EPSILON", "1.5"),
            ("RKD.PDIST.SQUARED", "true"),
        ],
    ),
    (
        "VID",
        &[],
        &[("VID.INIT_PRED_VAR", "2.5"), ("VID.LOSS.CE_WEIGHT", "0.37"), ("VID.LOSS.FEAT_WEIGHT", "1.83")],
    ),
    ("SP", &[], &[("SP.LOSS.CE_WEIGHT", "0.37"), ("SP.LOSS.FEAT_WEIGHT", "1.83")]),
    (
        "CRD",
        &[
            ("SOLVER.TRAINER", "crd"),
            ("CRD.FEAT.STUDENT_DIM", "8"),
            ("CRD.FEAT.TEACHER_DIM", "9"),
            ("CRD.NCE.K", "7"),
        ],
        &[
            ("CRD.MODE", "relax"),
            ("CRD.FEAT.DIM", "24"),
            ("CRD.FEAT.STUDENT_DIM", "11"),
            ("CRD.FEAT.TEACHER_DIM", "12"),
            ("CRD.LOSS.CE_WEIGHT", "0.37"),
            ("CRD.LOSS.FEAT_WEIGHT", "1.83"),
            ("CRD.NCE.K", "5"),
            ("CRD.NCE.MOMENTUM", "0.25"),
            ("CRD.NCE.TEMPERATURE", "0.3"),
        ],
    ),
    (
        "REVIEWKD",
        &[
            ("REVIEWKD.SHAPES", "[1, 2, 4, 8]"),
            ("REVIEWKD.OUT_SHAPES", "[1, 2, 4, 8]"),
            ("REVIEWKD.IN_CHANNELS", "[4, 6, 8, 8]"),
            ("REVIEWKD.OUT_CHANNELS", "[5, 7, 9, 9]"),
        ],
        &[
            ("REVIEWKD.CE_WEIGHT", "0.37"),
            ("REVIEWKD.REVIEWKD_WEIGHT", "1.83"),
            ("REVIEWKD.WARMUP_EPOCHS", "9"),
            ("REVIEWKD.SHAPES", "[1, 2, 4, 4]"),
            ("REVIEWKD.OUT_SHAPES", "[1, 2, 4, 4]"),
            ("REVIEWKD.IN_CHANNELS", "[4, 6, 9, 8]"),
            ("REVIEWKD.OUT_CHANNELS", "[5, 7, 8, 9]"),
            ("REVIEWKD.STU_PREACT", "true"),
        ],
    ),
];

/// Keys that are read for the sake of the reference's files and change nothing.
const WITHOUT_EFFECT: &[&str] =
    &["FITNET.INPUT_SIZE", "VID.INPUT_SIZE", "VID.EPS", "REVIEWKD.MAX_MID_CHANNEL"];

/// The names and values of the loss's terms on fixed features of a batch of four, in epoch 7, their total, and the
/// sum of what the method remembers; or why it cannot take them.
fn terms_on_features(method: &dyn Distiller) -> Result<Vec<(String, f32)>, String> {
    let mut given: Vec<(String, Vec<f32>)> = Vec::new();
    let mut input = |name: String, shape: &[usize]| {
        let count: usize = shape.iter().product();
        let start = given.len() * 97;
        given.push((
            name.clone(),
            (start..start + count).map(|i| (i * 37 % 101) as f32 / 50.0 - 0.5).collect(),
        ));
        Tensor::input(&name, shape)
    };
    let mut output = |side: &str, channels: [usize; 4]| {
        let mut maps = |kind: &str| -> Vec<Tensor> {
            let sizes = [8, 8, 4, 2].into_iter().zip(channels).enumerate();
            sizes.map(|(i, (size, c))| input(format!("{side} {kind} {i}"), &[4, size, size, c])).collect()
        };
        let (stages, before_relu) = (maps("after"), maps("before"));
        let norm = |c: &usize| (Tensor::full(&[*c], 0.7), Tensor::full(&[*c], -0.2));
        let norms = channels[1..].iter().map(norm).collect();
        let pooled = input(format!("{side} pooled"), &[4, channels[3]]);
        let logits = input(format!("{side} logits"), &[4, 5]);
        nn::Output { logits, features: nn::Features { stages, before_relu, norms, pooled } }
    };
    let batch = distill::Batch::new(
        output("student", [3, 4, 6, 8]),
        Some(output("teacher", [3, 5, 7, 9])),
        Tensor::input_i32("labels", &[4]),
        method.factor(1).map_or(Tensor::scalar(1.0), |_| Tensor::input("factor", &[])),
        20,
    );
    let mut modules = Modules::new(3);
    let loss = method.loss(&batch, &mut modules);
    loss.total.check().map_err(|why| why.to_string())?;
    let remembered =
        modules.into_updates().into_iter().filter(|(variable, _)| variable.name().contains("memory"));
    let remembered = remembered.fold(Tensor::scalar(0.0), |sum, (_, value)| sum + value.sum_all());
    let mut step = Step::new().output("total", &loss.total);
    for (name, term) in &loss.terms {
        step = step.output(*name, term);
    }
    let step = step.output("memory", &remembered);
    let mut executable = cpu::CpuDevice::new(1).compile_step(&step).unwrap();
    let used: Vec<String> = executable
        .schedule()
        .buffers
        .iter()
        .filter_map(|buffer| match &buffer.role {
            schedule::Role::Input { name, .. } => Some(name.clone()),
            _ => None,
        })
        .collect();
    let factor = [method.factor(7).unwrap_or(1.0) as f32];
    let labels: Vec<u32> = (0..20).map(|i| i % 5).collect();
    let drawn = distill::Drawn { seed: 1, epoch: 7, indices: &[3, 8, 11, 17], labels: &labels };
    let own = method.inputs(&drawn);
    let mut inputs: Vec<(&str, Value)> =
        vec![("labels", Value::I32(&[3, 3, 1, 2])), ("factor", Value::F32(&factor))];
    inputs.extend(given.iter().map(|(name, values)| (name.as_str(), Value::F32(values))));
    inputs.extend(own.iter().map(|(name, value)| match value {
        distill::Own::F32(values) => (*name, Value::F32(values)),
        distill::Own::I32(values) => (*name, Value::I32(values)),
    }));
    inputs.retain(|(name, _)| used.iter().any(|used| used == name));
    executable.call(&inputs).unwrap();
    let terms = loss.terms.iter().map(|term| term.0).chain(["total", "memory"]);
    Ok(terms.map(|name| (name.to_owned(), executable.output(name).unwrap()[0])).collect())
}

#[test]
fn every_key_of_methods_with_features_arrives() {
    for (name, fitting, rows) in FEATURES {
        let with = |pairs: &[(&str, &str)]| config(&[&[("DISTILLER.TYPE", *name)], *fitting, pairs].concat());
        let plain = with(&[]);
        let before = terms_on_features(plain.method()).unwrap();
        let terms = before.len() - 2;
        let sum: f32 = before[..terms].iter().map(|term| term.1).sum();
        close(&format!("{name} total"), f64::from(before[terms].1), f64::from(sum), f64::from(sum));
        for key in plain.method().keys().iter().filter(|key| !WITHOUT_EFFECT.contains(&key.path)) {
            let row = rows.iter().find(|row| row.0 == key.path);
            let row = row.unwrap_or_else(|| panic!("{} has no row in the table", key.path));
            let changed = with(&[*row]);
            let after = match terms_on_features(changed.method()) {
                Ok(after) => after,
                // A key that says what the features are is seen in the refusal.
                Err(why) => {
                    assert!(why.contains(key.path.rsplit('.').next().unwrap()), "{row:?}: {why}");
                    continue;
                }
            };
            assert_ne!(before, after, "{row:?} changes nothing");
            // A weight is a factor of its own term, and of no other.
            let (wanted, default): (f32, String) = match row.1.parse() {
                Ok(value)
                    if row.0.ends_with("WEIGHT")
                        && !row.0.contains("DISTANCE")
                        && !row.0.contains("ANGLE") =>
                {
                    (value, plain.method().get(row.0).unwrap())
                }
                _ => continue,
            };
            let ratio = wanted / default.parse::<f32>().unwrap();
            for (i, ((term, was), (_, is))) in before.iter().zip(&after).enumerate().take(terms) {
                let of_task = row.0.contains("CE_WEIGHT");
                let expected = if (i == 0) == of_task { was * ratio } else { *was };
                close(
                    &format!("{name} {row:?} {term}"),
                    f64::from(*is),
                    f64::from(expected),
                    f64::from(expected.abs()),
                );
            }
        }
        let known = |row: &&(&str, &str)| plain.method().get(row.0).is_some();
        assert_eq!(rows.iter().filter(known).count(), rows.len(), "{name} has rows of no key");
    }
}

// --- All other keys: where each arrives. ---

const SYNTHETIC: (&str, &str) = ("DATASET.TYPE", "synthetic");
const TAUGHT: (&str, &str) = ("DISTILLER.TYPE", "KD");
const PICTURES: (&str, &str) = ("DATASET.TYPE", "imagefolder");

type Arrives = fn(&Config) -> bool;

/// Key, unusual value, what else must be set, where it is seen.
const ROWS: &[(&str, &str, &[(&str, &str)], Arrives)] = &[
    ("EXPERIMENT.PROJECT", "my project", &[], |c| folder(c) == "./output/my project/vanilla,resnet32"),
    ("EXPERIMENT.NAME", "my name", &[("EXPERIMENT.TAG", "t")], |c| folder(c) == "./output/distill/my name"),
    ("EXPERIMENT.TAG", "my tag", &[], |c| folder(c) == "./output/distill/my tag"),
    ("DATASET.TYPE", "cifar10", &[], |c| session::classes(c.dataset.kind) == 10),
    ("DATASET.ROOT", "no/such root", &[], |c| {
        let said = session::load_splits(c.dataset.kind, &c.dataset.root).map(|_| ()).unwrap_err();
        said.to_string().contains("no/such root")
    }),
    ("DATASET.NUM_WORKERS", "3", &[], |c| session::settings(c).workers == 3),
    ("DATASET.TEST.BATCH_SIZE", "77", &[], |c| session::settings(c).test_batch_size == 77),
    ("DATASET.VAL_FRACTION", "0.25", &[SYNTHETIC], |c| {
        let data = RunData::new(c, session::load_splits(c.dataset.kind, &c.dataset.root).unwrap()).unwrap();
        data.held_out
            .is_some_and(|held| held.len().abs_diff(1024) <= 20 && held.len() + data.train.len() == 4096)
    }),
    ("DATASET.SIZE", "96", &[PICTURES], |c| {
        c.dataset.sight().is_some_and(|sight| (sight.side, sight.resize) == (96, 109))
    }),
    ("DATASET.RESIZE", "240", &[PICTURES], |c| {
        c.dataset.sight().is_some_and(|sight| (sight.side, sight.resize) == (224, 240))
    }),
    ("DATASET.SKIP_BROKEN", "true", &[PICTURES, ("DATASET.VAL_FRACTION", "0.5")], |c| {
        let root = tempfile::tempdir().unwrap();
        let class = root.path().join("class");
        std::fs::create_dir(&class).unwrap();
        let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/pictures/files/420.jpg");
        for name in ["1.jpg", "2.jpg"] {
            std::fs::copy(picture, class.join(name)).unwrap();
        }
        std::fs::write(class.join("3.jpg"), "").unwrap();
        let mut config = c.clone();
        config.dataset.root = root.path().into();
        let data = RunData::load(&config).unwrap();
        (data.train.len(), data.test.len()) == (1, 1)
    }),
    ("DISTILLER.TYPE", "DKD", &[], |c| c.method().name() == "DKD"),
    ("DISTILLER.TEACHER", "wrn_16_1", &[TAUGHT], |c| networks(c).teacher.unwrap().name() == "wrn_16_1"),
    ("DISTILLER.STUDENT", "wrn_16_1", &[], |c| networks(c).student.name() == "wrn_16_1"),
    ("DISTILLER.TEACHER_CHECKPOINT", "some/where", &[TAUGHT], |c| {
        c.distiller.teacher_path() == std::path::Path::new("some/where")
    }),
    // What is read from there is seen in a run: see `init.rs`.
    ("DISTILLER.STUDENT_CHECKPOINT", "some/where", &[], |c| {
        c.distiller.student_checkpoint == std::path::Path::new("some/where")
    }),
    ("SOLVER.TRAINER", "ours", &[("DISTILLER.TYPE", "SLD")], |c| c.method().views() == 2),
    ("SOLVER.BATCH_SIZE", "37", &[], |c| session::settings(c).batch_size == 37),
    ("SOLVER.ACCUMULATE", "5", &[], |c| session::settings(c).accumulate == 5),
    ("SOLVER.SYNC_BN", "true", &[], |c| session::settings(c).sync_batch_norm),
    ("SOLVER.TRANSFER", "bf16", &[], |c| session::settings(c).transfer == autograd::tensor::Transfer::Bf16),
    ("SOLVER.EPOCHS", "17", &[], |c| session::settings(c).epochs == 17),
    ("SOLVER.PATIENCE", "7", &[], |c| session::settings(c).patience == 7),
    ("SOLVER.LR", "0.0123", &[], |c| rates(c, [1, 150, 151]) == [0.0123, 0.0123, 0.0123 * 0.1]),
    ("SOLVER.LR_DECAY_STAGES", "[3]", &[], |c| rates(c, [3, 4, 240]) == [0.05, 0.05 * 0.1, 0.05 * 0.1]),
    ("SOLVER.LR_DECAY_RATE", "0.25", &[], |c| rates(c, [150, 151, 181]) == [0.05, 0.0125, 0.003125]),
    ("SOLVER.WEIGHT_DECAY", "0.0625", &[], |c| step(c)[0] == 0.0625),
    ("SOLVER.MOMENTUM", "0.375", &[], |c| step(c)[1] == 0.375),
    ("SOLVER.DOT.DELTA", "0.0625", &[TAUGHT, ("SOLVER.TRAINER", "dot")], |c| {
        let saved = networks(c).optimizer.save(0.1, &cpu::CpuDevice::new(1)).unwrap();
        let group = &saved.param_groups[0];
        let momenta = ["momentum", "momentum_kd"].map(|name| group.number(name).unwrap());
        momenta == [0.9 - 0.0625, 0.9 + 0.0625]
    }),
    ("SOLVER.TYPE", "ADAMW", &[], |c| {
        let saved = networks(c).optimizer.save(0.1, &cpu::CpuDevice::new(1)).unwrap();
        !saved.exp_avg_sq.is_empty() && saved.param_groups[0].number("weight_decay") == Some(1e-4)
    }),
    ("SOLVER.SCHEDULE", "cosine", &[("SOLVER.EPOCHS", "4")], |c| {
        rates(c, [1, 3, 4]).map(|rate| (rate * 1e6).round()) == [50_000.0, 25_000.0, 7322.0]
    }),
    ("SOLVER.WARMUP", "4", &[], |c| rates(c, [1, 2, 5]) == [0.0125, 0.025, 0.05]),
    ("SOLVER.EMA", "0.75", &[], |c| networks(c).average.is_some_and(|(average, _)| average.decay() == 0.75)),
    ("SOLVER.LABEL_SMOOTHING", "0.25", &[], |c| networks(c).smoothing == 0.25),
    ("SOLVER.MIXUP", "0.5", &[], |c| {
        let both = Config { solver: sld::config::Solver { cutmix: 2.0, ..c.solver.clone() }, ..c.clone() };
        networks(c).mixing == Mixing::new(0.5, 0.0) && networks(&both).mixing == Mixing::new(0.5, 2.0)
    }),
    ("SOLVER.CUTMIX", "2", &[], |c| networks(c).mixing == Mixing::new(0.0, 2.0)),
    ("SOLVER.CLIP", "0.001", &[], |c| {
        // What a step at rate 0 leaves in the momenta, less weight decay, is as long as the clipped gradient.
        let mut config = c.clone();
        config.solver.weight_decay = 0.0;
        let device = cpu::CpuDevice::new(1);
        let networks = networks(&config);
        let mut step = TrainStep::compile(&device, &networks, config.method(), 4, [32, 32]).unwrap();
        let images: Vec<f32> = (0..4 * 32 * 32 * 3).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        step.run(&images, &[0, 5, 11, 19], Scalars::new(0.0, None), &[]).unwrap();
        let saved = networks.optimizer.save(0.0, &device).unwrap();
        let momenta = saved.momentum.values().flat_map(|m| m.data.to_f32());
        let length = momenta.map(|m| f64::from(m).powi(2)).sum::<f64>().sqrt();
        (length / 0.001 - 1.0).abs() < 1e-3
    }),
    ("SOLVER.SEED", "12345678901234567890", &[("DISTILLER.STUDENT", "resnet8")], |c| {
        let model = nn::models::build("resnet8", 20, 12_345_678_901_234_567_890).unwrap();
        let same = networks(c).student.parameters()[0].initial() == model.parameters()[0].initial();
        same && session::settings(c).seed == 12_345_678_901_234_567_890
    }),
    // These two are seen in a run: see below.
    ("LOG.TENSORBOARD_FREQ", "3", &[], |c| c.log.tensorboard_freq == 3),
    ("LOG.SAVE_CHECKPOINT_FREQ", "2", &[], |c| c.log.save_checkpoint_freq == 2),
    ("LOG.PREFIX", "some/where", &[], |c| folder(c) == "some/where/distill/vanilla,resnet32"),
    // Accepted, and nothing is done.
    ("LOG.WANDB", "true", &[], |c| c.log.wandb),
    ("MODEL.WRN_DOUBLE_BN_UPDATE", "false", &[("DISTILLER.STUDENT", "wrn_16_1")], |c| {
        !networks(c).repeat_wrn_updates
    }),
];

fn folder(config: &Config) -> String {
    config.run_folder(&Overrides::default()).to_str().unwrap().to_owned()
}

fn networks(config: &Config) -> sld::training::Networks {
    session::networks(config, session::Images { classes: 20, ..session::Images::of(config) }).unwrap()
}

fn rates(config: &Config, epochs: [usize; 3]) -> [f64; 3] {
    epochs.map(|epoch| session::settings(config).schedule.rate(epoch, 0, 1))
}

/// Weight decay and momentum of a compiled step, seen in what two steps at rate 0 leave in a momentum buffer:
/// `m1 = g + w p`, `m2 = momentum m1 + m1`. To the nearest 1/1024.
fn step(config: &Config) -> [f64; 2] {
    let after = |config: &Config, steps: usize| {
        let device = cpu::CpuDevice::new(1);
        let networks = networks(config);
        let mut step = TrainStep::compile(&device, &networks, config.method(), 4, [32, 32]).unwrap();
        let images: Vec<f32> = (0..4 * 32 * 32 * 3).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        for _ in 0..steps {
            step.run(&images, &[0, 5, 11, 19], Scalars::new(0.0, None), &[]).unwrap();
        }
        let at = networks.optimizer.parameters().iter().rposition(|p| p.shape().len() == 2).unwrap();
        let saved = networks.optimizer.save(0.0, &device).unwrap();
        let weight = &networks.optimizer.parameters()[at];
        (saved.momentum[&at].data.to_f32(), device.read(weight).unwrap())
    };
    let mut without = config.clone();
    without.solver.weight_decay = 0.0;
    let ((m1, p), (m2, _), (plain, _)) = (after(config, 1), after(config, 2), after(&without, 1));
    let round = |ratio: f32| f64::from((ratio * 1024.0).round() / 1024.0);
    let at = (0..p.len()).max_by(|&a, &b| p[a].abs().total_cmp(&p[b].abs())).unwrap();
    let largest = (0..m1.len()).max_by(|&a, &b| m1[a].abs().total_cmp(&m1[b].abs())).unwrap();
    [round((m1[at] - plain[at]) / p[at]), round(m2[largest] / m1[largest] - 1.0)]
}

#[test]
fn every_other_key_arrives_where_it_is_used() {
    let of_methods = |path: &str| METHODS.iter().any(|method| method.make().get(path).is_some());
    for key in keys().iter().filter(|key| !of_methods(key.path)) {
        let row = ROWS.iter().find(|row| row.0 == key.path);
        let (path, value, rest, arrives) =
            row.unwrap_or_else(|| panic!("{} has no row in the table", key.path));
        let with = [*rest, &[(*path, *value)]].concat();
        assert!(arrives(&config(&with)), "{path} {value} does not arrive");
        // The row would notice: with the default, or another value where there is no default, it is not so.
        assert!(*path == "SOLVER.TRAINER" || !arrives(&config(rest)), "{path}: the row sees nothing");
    }
    for (path, ..) in ROWS {
        assert!(keys().iter().any(|key| key.path == *path), "{path} is no key");
    }
}

/// An epoch is four steps.
#[test]
fn how_often_a_run_logs_and_saves_is_what_the_config_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sld"));
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command.args([
        "train",
        "--cfg",
        "configs/cifar100/vanilla.yaml",
        "--device",
        "cpu",
        "--val-fraction",
        "0.95",
    ]);
    command.arg("--output").arg(folder.path()).args([
        "DATASET.TYPE",
        "synthetic",
        "DISTILLER.STUDENT",
        "resnet8",
    ]);
    command.args(["SOLVER.EPOCHS", "3", "LOG.TENSORBOARD_FREQ", "5", "LOG.SAVE_CHECKPOINT_FREQ", "2"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut saved: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| name.starts_with("epoch_")).collect();
    saved.sort_unstable();
    assert_eq!(saved, ["epoch_2"]);
    let events = names.iter().find(|name| name.starts_with("events.out")).unwrap();
    let bytes = std::fs::read(folder.path().join(events)).unwrap();
    let points = bytes.windows(9).filter(|window| window == b"step/loss").count();
    assert_eq!(points, 2, "steps 5 and 10 of 12");
}
