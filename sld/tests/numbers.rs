//! Every number that a run writes, against one computed here from logits and labels, in plain loops.

mod small;

use nn::checkpoint::TensorData;
use nn::layers::Forward;
use schedule::{Device, Step, Value};
use sld::data::cifar::{self, LoadOptions};
use sld::data::loader::{Loader, LoaderConfig, Parts, Position, Views};
use sld::data::{Dataset, Splits, split};
use small::{json, json_lines, run, sld, succeeds, text};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const CLASSES: usize = 100;
/// Classes that images are of; the networks know all hundred.
const USED: usize = 9;
const HELD_OUT: f64 = 0.3;

/// What the numbers should be, from logits `[N, 100]` and labels.
#[derive(Debug, Default)]
struct Expected {
    images: usize,
    /// Images by the rank of their label: 0 where it has the largest logit.
    ranks: BTreeMap<usize, usize>,
    cross_entropy: f64,
    confusion: Vec<Vec<u64>>,
}

impl Expected {
    fn new(logits: &[f32], labels: &[usize]) -> Expected {
        let mut expected = Expected { confusion: vec![vec![0; CLASSES]; CLASSES], ..Default::default() };
        assert_eq!(logits.len(), labels.len() * CLASSES);
        for (image, &label) in labels.iter().enumerate() {
            let row: Vec<f64> =
                (0..CLASSES).map(|class| f64::from(logits[image * CLASSES + class])).collect();
            let mut order: Vec<usize> = (0..CLASSES).collect();
            // Stable: of equal logits the lower class first.
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
            let rank = order.iter().position(|&class| class == label).unwrap();
            *expected.ranks.entry(rank).or_default() += 1;
            expected.cross_entropy -= (softmax(&row, 1.0)[label]).ln();
            expected.confusion[label][order[0]] += 1;
            expected.images += 1;
        }
        expected.cross_entropy /= expected.images as f64;
        expected
    }

    fn correct(&self, k: usize) -> usize {
        self.ranks.range(..k).map(|(_, images)| images).sum()
    }

    fn percent(&self, k: usize) -> f64 {
        100.0 * self.correct(k) as f64 / self.images as f64
    }

    /// Whether another k for top-5, or another row or column, would be noticed.
    fn tells_faults_apart(&self) {
        for (k, other) in [(1, 2), (5, 4), (5, 6)] {
            assert_ne!(self.correct(k), self.correct(other), "top-{k} as top-{other}: {:?}", self.ranks);
        }
        let differs = |a: usize, b: usize| self.confusion[a][b] != self.confusion[b][a];
        assert!((0..USED).any(|a| (0..USED).any(|b| differs(a, b))), "a symmetric confusion");
        let right = |class: usize| self.confusion[class][class];
        assert!((0..USED).filter(|&class| right(class) > 0).count() > 2, "too few classes are known");
        assert!((1..USED).any(|class| right(class) != right(class - 1)), "all classes alike");
    }
}

fn softmax(row: &[f64], temperature: f64) -> Vec<f64> {
    let most = row.iter().fold(f64::NEG_INFINITY, |most, &v| most.max(v));
    let powers: Vec<f64> = row.iter().map(|v| ((v - most) / temperature).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|p| p / sum).collect()
}

fn close(a: &serde_json::Value, b: f64, tolerance: f64, what: &str) {
    let a = a.as_f64().unwrap_or_else(|| panic!("{what}: {a} is no number"));
    assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{what}: {a} written, {b} computed");
}

/// Images whose brightness says a little about their class, more of the earlier classes.
fn data_set(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let mut state = 7u32;
    let mut noise = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 24
    };
    for (split, images) in [("train", 260), ("test", 150)] {
        let mut bytes = Vec::new();
        for image in 0..images {
            let class = image * image % 17 % USED;
            bytes.extend([(class / 5) as u8, class as u8]);
            let shift = noise() % 60;
            bytes.extend((0..3072).map(|_| (12 * class as u32 + shift + noise() % 100) as u8));
        }
        std::fs::write(folder.join(format!("{split}.bin")), bytes).unwrap();
    }
    let names: String = (0..CLASSES).map(|class| format!("class{class}\n")).collect();
    std::fs::write(folder.join("fine_label_names.txt"), names).unwrap();
}

fn command(root: &Path, options: &[&str], keys: &[&str]) -> Command {
    let mut command = sld(&["train", "--cfg", "configs/cifar100/vanilla.yaml", "--device", "cpu"]);
    command.args(["--val-fraction", &HELD_OUT.to_string(), "--output"]).arg(root.join("run"));
    command.arg("--data").arg(root.join("data")).args(options);
    command.args([
        "DISTILLER.STUDENT",
        "resnet8",
        "LOG.SAVE_CHECKPOINT_FREQ",
        "1",
        "LOG.TENSORBOARD_FREQ",
        "1",
    ]);
    command.args(["SOLVER.BATCH_SIZE", "40"]).args(keys);
    command
}

/// The logits and labels that `sld eval --logits` writes, and what it prints.
fn dumped(root: &Path, checkpoint: &Path, more: &[&str]) -> (Vec<f32>, Vec<usize>, serde_json::Value) {
    let logits = root.join("logits.safetensors");
    let mut command = sld(&["eval", "-m", "resnet8", "--device", "cpu", "--json", "-c"]);
    command.arg(checkpoint).arg("--data").arg(root.join("data")).arg("--logits").arg(&logits).args(more);
    let printed = serde_json::from_str(&succeeds(&mut command)).unwrap();
    let file = nn::checkpoint::read(&logits).unwrap();
    let TensorData::I64(labels) = &file.tensor("labels").unwrap().data else { panic!("labels are integers") };
    (file.tensor("logits").unwrap().data.to_f32(), labels.iter().map(|&l| l as usize).collect(), printed)
}

/// The places of the held-out images in the training set: found by what the images are, each being unlike
/// every other.
fn held_out_places(root: &Path) -> (Vec<usize>, Splits) {
    let splits = cifar::load(&root.join("data"), LoadOptions::default()).unwrap().splits;
    let (_, held_out) = split::hold_out(&splits.train, HELD_OUT, 0).unwrap();
    let place = |image: &[u8]| (0..splits.train.len()).find(|&i| splits.train.image(i) == image).unwrap();
    ((0..held_out.len()).map(|i| place(held_out.image(i))).collect(), splits)
}

/// The scalars of all event files by tag and step, read with as little as their format needs.
fn scalars(folder: &Path) -> BTreeMap<(String, u64), f32> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let length = match key & 7 {
                0 => {
                    found.push((key >> 3, varint(&mut bytes).to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                5 => 4,
                _ => varint(&mut bytes) as usize,
            };
            found.push((key >> 3, bytes[..length].to_vec()));
            bytes = &bytes[length..];
        }
        found
    }
    let mut found = BTreeMap::new();
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if !path.to_str().unwrap().contains(".tfevents.") {
            continue;
        }
        let bytes = std::fs::read(path).unwrap();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let event = fields(&rest[12..12 + length]);
            rest = &rest[16 + length..];
            let step = event
                .iter()
                .find(|f| f.0 == 2)
                .map_or(0, |f| u64::from_le_bytes(f.1[..].try_into().unwrap()));
            for summary in event.iter().filter(|f| f.0 == 5) {
                for value in fields(&summary.1) {
                    let value = fields(&value.1);
                    let tag = String::from_utf8(value[0].1.clone()).unwrap();
                    let number = f32::from_le_bytes(value[1].1[..].try_into().unwrap());
                    assert_eq!(found.insert((tag, step), number), None, "a point twice");
                }
            }
        }
    }
    found
}

/// A run of four epochs of cross entropy that learns something, made once.
fn learned(root: &Path) -> PathBuf {
    data_set(&root.join("data"));
    succeeds(&mut command(root, &[], &["SOLVER.EPOCHS", "4"]));
    root.join("run")
}

#[test]
fn what_an_evaluation_writes() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let run = learned(root);
    let (places, splits) = held_out_places(root);
    let metrics = json_lines(&run.join("metrics.jsonl"));
    let points = scalars(&run);
    let mut log = String::new();
    let mut best = (-1.0, 0, 0.0);
    for (epoch, metrics) in (1u64..).zip(&metrics) {
        let checkpoint = run.join(format!("student_{epoch}"));
        let (logits, labels, printed) = dumped(root, &checkpoint, &[]);
        let known: Vec<usize> = splits.test.labels().iter().map(|&label| label as usize).collect();
        assert_eq!(labels, known, "the labels in order");
        let test = Expected::new(&logits, &labels);
        let (all, all_labels, _) = dumped(root, &checkpoint, &["--train-split", "--batch", "33"]);
        let rows: Vec<f32> = places.iter().flat_map(|&i| all[i * CLASSES..][..CLASSES].to_vec()).collect();
        let held_out = Expected::new(&rows, &places.iter().map(|&i| all_labels[i]).collect::<Vec<_>>());
        assert_eq!(held_out.images, places.len());

        // eval --json
        assert_eq!(printed["images"], test.images);
        assert_eq!(
            (&printed["top1_correct"], &printed["top5_correct"]),
            (&test.correct(1).into(), &test.correct(5).into())
        );
        for (key, value) in
            [("top1", test.percent(1)), ("top5", test.percent(5)), ("cross_entropy", test.cross_entropy)]
        {
            close(&printed[key], value, 1e-12, key);
        }
        // metrics.jsonl and TensorBoard
        assert_eq!(metrics["epoch"], epoch);
        for (name, expected) in [("test", &test), ("validation", &held_out)] {
            for (key, value) in [
                ("top1", expected.percent(1)),
                ("top5", expected.percent(5)),
                ("loss", expected.cross_entropy),
            ] {
                close(&metrics[name][key], value, 1e-12, &format!("{name} {key} of epoch {epoch}"));
                assert_eq!(points[&(format!("{name}/{key}"), epoch)], value as f32, "{name}/{key}");
            }
        }
        // worklog.txt, whose train values are metrics.jsonl's: see the other test
        let train = |key: &str| metrics["train"][key].as_f64().unwrap();
        log += &format!(
            "-------------------------\nepoch: {epoch}\nlr: 0.05\ntrain_acc: {:.2}\ntrain_loss: {:.2}\ntest_acc: {:.2}\n\
             test_acc_top5: {:.2}\ntest_loss: {:.2}\n-------------------------\n",
            train("top1"),
            train("loss"),
            test.percent(1),
            test.percent(5),
            test.cross_entropy
        );
        if held_out.percent(1) >= best.0 {
            best = (held_out.percent(1), epoch, test.percent(1));
        }
        if epoch < 4 {
            continue;
        }
        // The end of the run: evaluation.json and the report
        test.tells_faults_apart();
        let evaluation = json(&run.join("evaluation.json"));
        assert_eq!(evaluation["epoch"], 4);
        assert_eq!(evaluation["confusion"], serde_json::json!(test.confusion));
        let names: Vec<String> = (0..CLASSES).map(|class| format!("class{class}")).collect();
        assert_eq!(evaluation["classes"], serde_json::json!(names));
        let read = sld::run::Evaluation::read(&run.join("evaluation.json")).unwrap();
        let report = std::fs::read_to_string(run.join("report.html")).unwrap();
        for (class, shown) in read.per_class().iter().enumerate() {
            let images: u64 = test.confusion[class].iter().sum();
            assert_eq!((shown.class, u64::from(shown.images)), (names[class].as_str(), images));
            if images > 0 {
                let accuracy = 100.0 * test.confusion[class][class] as f64 / images as f64;
                assert_eq!(shown.accuracy, accuracy, "class {class}");
                let words = format!("class{class}: {accuracy:.1}% of {images} images");
                assert!(report.contains(&words), "the report lacks {words}");
            }
        }
        for shown in [test.percent(1), test.percent(5), best.2] {
            assert!(report.contains(&format!("{shown:.2}%")), "the report lacks {shown:.2}%");
        }
    }
    assert_eq!(metrics.len(), 4);
    let said = std::fs::read_to_string(run.join("worklog.txt")).unwrap();
    assert_eq!(said, format!("{log}best_acc\t{:.2}", best.2));
    // The best checkpoint is of the best epoch.
    let file = |name: String| std::fs::read(run.join(name)).unwrap();
    let best_name = format!("student_{}", best.1);
    assert!(file("student_best".into()) == file(best_name), "student_best is not epoch {}'s", best.1);
}

/// Logits of student (in training) and teacher for batches of an epoch, weak views before strong ones.
struct Replay {
    student: Box<dyn schedule::Executable>,
    batch: usize,
}

impl Replay {
    fn new(
        device: &dyn Device,
        student: &nn::Model,
        teacher: &nn::Model,
        batch: usize,
        views: usize,
    ) -> Replay {
        let images = autograd::Tensor::input("images", &[views * batch, 32, 32, 3]);
        let s = student.forward(&images, &mut Forward::train(views)).logits;
        let t = teacher.forward(&images, &mut Forward::eval()).logits;
        let step = Step::new().output("student", &s).output("teacher", &t);
        Replay { student: device.compile_step(&step).unwrap(), batch }
    }

    fn run(&mut self, images: &[f32]) -> [Vec<Vec<f64>>; 2] {
        self.student.call(&[("images", Value::F32(images))]).unwrap();
        let rows = |values: Vec<f32>| {
            values.chunks(CLASSES).map(|row| row.iter().map(|&v| f64::from(v)).collect()).collect()
        };
        [rows(self.student.output("student").unwrap()), rows(self.student.output("teacher").unwrap())]
    }
}

/// The row with its largest entry and the label's exchanged.
fn swapped(row: &[f64], label: usize) -> Vec<f64> {
    let mut row = row.to_vec();
    let largest = (0..row.len()).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
    row.swap(largest, label);
    row
}

/// `T^2 KL(softmax_T(target) || softmax_T(student))`.
fn divergence(target: &[f64], student: &[f64], t: f64) -> f64 {
    let (p, q) = (softmax(target, t), softmax(student, t));
    t * t * p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>()
}

/// Sums over an epoch's images, by the name under which metrics.jsonl has the mean.
type Sums = BTreeMap<&'static str, f64>;

/// What a method's settings make of an epoch.
struct Method {
    config: &'static str,
    views: usize,
    temperatures: Vec<f64>,
    ce_weight: f64,
    kd_weight: f64,
    /// Keys of these settings.
    keys: Vec<String>,
}

/// Of the batches of `epoch`, with the student and the teacher as they are.
fn replayed(root: &Path, method: &Method, train: &Arc<Dataset>, epoch: u64, gate: bool) -> (Sums, f64) {
    let device = cpu::CpuDevice::new(1);
    let network = |path: PathBuf| {
        let model = nn::models::build("resnet8", CLASSES, 0).unwrap();
        model.load(&nn::checkpoint::read(&path).unwrap().tensors, &device).unwrap();
        model
    };
    let (student, teacher) = (network(root.join("run/student_latest")), network(root.join("teacher.pth")));
    let views = if method.views == 2 { Views::WeakAndStrong } else { Views::Weak };
    let config = LoaderConfig {
        batch_size: 40,
        parts: Parts::WHOLE,
        views,
        mixing: None,
        seed: 0,
        threads: 1,
        prefetch: 1,
    };
    let mut loader = Loader::train(train.clone(), config, Position { epoch, batch: 0 }).unwrap();
    let (mut sums, mut seen) = (Sums::new(), 0);
    let mut replays: Vec<Replay> = Vec::new();
    while seen < train.len() {
        let batch = loader.next().unwrap().unwrap();
        assert_eq!(batch.epoch, epoch);
        let n = batch.labels.len();
        if !replays.iter().any(|replay| replay.batch == n) {
            replays.push(Replay::new(&device, &student, &teacher, n, method.views));
        }
        let [s, t] = replays.iter_mut().find(|replay| replay.batch == n).unwrap().run(&batch.images);
        for row in 0..method.views * n {
            let (s, t, label) = (&s[row], &t[row], batch.labels[row % n] as usize);
            let mut add = |name, value: f64| *sums.entry(name).or_default() += value;
            let (own, theirs) = (swapped(s, label), swapped(t, label));
            add("ce", -method.ce_weight * softmax(s, 1.0)[label].ln());
            for &temperature in &method.temperatures {
                let level = divergence(&theirs, s, temperature);
                add("teacher_level", level);
                add("kd_teacher", method.kd_weight * level);
                let level = if gate { divergence(&own, s, temperature) } else { 0.0 };
                add("student_level", level);
                add("kd_student", method.kd_weight * level);
            }
            // The weak view is what accuracy and the swap's statistics are of.
            if row >= n {
                continue;
            }
            let before = |z: &[f64]| {
                z.iter().enumerate().filter(|&(c, &v)| v > z[label] || (v == z[label] && c < label)).count()
            };
            add("top1", f64::from(u8::from(before(s) == 0)));
            add("top5", f64::from(u8::from(before(s) < 5)));
            add("top4", f64::from(u8::from(before(s) < 4)));
            for (share, confidence, after, z) in [
                ("student.share", "student.confidence_before", "student.confidence_after", s),
                ("teacher.share", "teacher.confidence_before", "teacher.confidence_after", t),
            ] {
                let p = softmax(z, 1.0);
                add(share, f64::from(u8::from(before(z) > 0)));
                add(confidence, p[label]);
                add(after, p.iter().fold(0.0, |m, &v| f64::max(m, v)));
            }
        }
        seen += n;
    }
    (sums, seen as f64)
}

/// Two more epochs with a student that stands still (its rate is too small for any bit), so that the logits
/// of every step can be had again: the first with the gate closed, the second with it open.
fn a_methods_numbers(method: &Method) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let run_folder = learned(root);
    // A teacher that is right about some images and wrong about others: the student of another epoch.
    std::fs::copy(run_folder.join("student_2"), root.join("teacher.pth")).unwrap();
    let teacher = root.join("teacher.pth");
    let mut again = sld(&["train", "--device", "cpu", "--resume", "--change", "--cfg"]);
    again.arg(method.config).args(["--val-fraction", &HELD_OUT.to_string(), "--output"]).arg(&run_folder);
    again.arg("--data").arg(root.join("data")).arg("--teacher").arg(&teacher);
    again.args(["DISTILLER.TEACHER", "resnet8", "DISTILLER.STUDENT", "resnet8", "SOLVER.BATCH_SIZE", "40"]);
    again.args([
        "SOLVER.EPOCHS",
        "6",
        "SOLVER.LR",
        "1e-30",
        "SOLVER.MOMENTUM",
        "0",
        "SOLVER.WEIGHT_DECAY",
        "0",
    ]);
    again.args(["SOLVER.LR_DECAY_STAGES", "[150]", "LOG.TENSORBOARD_FREQ", "1"]).args(&method.keys);
    let output = run(&mut again);
    assert!(output.status.success(), "{}", text(&output.stderr));

    let splits = cifar::load(&root.join("data"), LoadOptions::default()).unwrap().splits;
    let (kept, _) = split::hold_out(&splits.train, HELD_OUT, 0).unwrap();
    let kept = Arc::new(kept);
    let metrics = json_lines(&run_folder.join("metrics.jsonl"));
    let points = scalars(&run_folder);
    for (epoch, gate) in [(5u64, false), (6, true)] {
        let (sums, images) = replayed(root, method, &kept, epoch, gate);
        let metrics = &metrics[epoch as usize - 1];
        let mean = |name: &str| sums[name] / images;
        assert_ne!(sums["top5"], sums["top4"], "top-5 as top-4 would not be noticed");
        assert!(
            mean("top1") > 0.05 && mean("student.share") > 0.05 && mean("teacher.share") > 0.05,
            "{sums:?}"
        );
        assert_ne!(sums["student.share"], sums["teacher.share"]);
        let check = |value: &serde_json::Value, tag: &str, expected: f64| {
            close(value, expected, 1e-4, &format!("{tag} of epoch {epoch}"));
            assert_eq!(
                points[&(tag.to_string(), epoch)],
                value.as_f64().unwrap() as f32,
                "{tag} in TensorBoard"
            );
        };
        let train = &metrics["train"];
        check(&train["loss"], "train/loss", mean("ce") + mean("kd_teacher") + mean("kd_student"));
        check(&train["top1"], "train/top1", 100.0 * mean("top1"));
        check(&train["top5"], "train/top5", 100.0 * mean("top5"));
        for term in ["ce", "kd_teacher", "kd_student"] {
            check(&train["terms"][term], &format!("loss/{term}"), mean(term));
        }
        let swap = &metrics["swap"];
        assert_eq!(swap["student_gate"], gate);
        for who in ["student", "teacher"] {
            for what in ["share", "confidence_before", "confidence_after"] {
                check(&swap[who][what], &format!("swap/{who}_{what}"), mean(&format!("{who}.{what}")));
            }
            let level = format!("{who}_level");
            check(&swap[&level], &format!("swap/{level}"), mean(&level));
        }
        assert_eq!(points[&("lr".to_string(), epoch)], 1e-30);
        let steps = kept.len().div_ceil(40) as u64;
        // The running mean at the epoch's last step is the epoch's.
        let last = points[&("step/loss".to_string(), epoch * steps)];
        assert_eq!(last, train["loss"].as_f64().unwrap() as f32);
    }
}

#[test]
fn what_training_with_sld_writes() {
    let keys = [
        "SLD.GATE_EPOCH",
        "5",
        "SLD.TEMPERATURES",
        "[1,2.5]",
        "KD.LOSS.CE_WEIGHT",
        "0.3",
        "KD.LOSS.KD_WEIGHT",
        "0.7",
    ];
    a_methods_numbers(&Method {
        config: "configs/cifar100/sld/res56_res20.yaml",
        views: 2,
        temperatures: vec![1.0, 2.5],
        ce_weight: 0.3,
        kd_weight: 0.7,
        keys: keys.map(String::from).to_vec(),
    });
}

#[test]
fn what_training_with_kd_swap_writes() {
    let keys = [
        "KD_SWAP.GATE_EPOCH",
        "5",
        "KD.TEMPERATURE",
        "3",
        "KD.LOSS.CE_WEIGHT",
        "0.3",
        "KD_SWAP.KD_WEIGHT",
        "1.7",
    ];
    a_methods_numbers(&Method {
        config: "configs/cifar100/kd_swap.yaml",
        views: 1,
        temperatures: vec![3.0],
        ce_weight: 0.3,
        kd_weight: 1.7,
        keys: keys.map(String::from).to_vec(),
    });
}
