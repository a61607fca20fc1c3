//! The program on folders of pictures: trained, killed, resumed, measured; broken, vanished and left-out files.

mod small;

use image::{ImageFormat, RgbImage};
use small::{refused, run, sld, succeeds, text};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Pictures of three classes, of several sizes and formats: a class is a colour with noise.
fn photos(root: &Path) {
    const FORMATS: [(&str, ImageFormat); 3] =
        [("png", ImageFormat::Png), ("bmp", ImageFormat::Bmp), ("webp", ImageFormat::WebP)];
    let mut state = 1u32;
    for (part, count) in [("train", 10), ("val", 4)] {
        for (class, name) in ["ash", "birch", "cedar"].into_iter().enumerate() {
            let folder = root.join(part).join(name);
            std::fs::create_dir_all(&folder).unwrap();
            for number in 0..count {
                let (ending, format) = FORMATS[number % 3];
                let mut picture = RgbImage::new(20 + 7 * number as u32, 61 - 3 * number as u32);
                for pixel in picture.pixels_mut() {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    pixel.0 = [(state >> 26) as u8; 3];
                    pixel.0[class] += 120;
                }
                picture.save_with_format(folder.join(format!("{number}.{ending}")), format).unwrap();
            }
        }
    }
}

/// A training of a resnet8 on squares of 32 pixels: four steps an epoch.
fn train(root: &Path, output: &str, options: &[&str], keys: &[&str]) -> Command {
    let mut command = sld(&["train", "--cfg", "configs/cifar100/vanilla.yaml", "--device", "cpu", "--data"]);
    command.arg(root).arg("--output").arg(root.with_extension(output)).args(options);
    command.args(["DATASET.TYPE", "imagefolder", "DATASET.SIZE", "32", "DISTILLER.STUDENT", "resnet8"]);
    command.args(["SOLVER.BATCH_SIZE", "8", "SOLVER.EPOCHS", "3", "DATASET.TEST.BATCH_SIZE", "5"]).args(keys);
    command
}

fn same_run(root: &Path, a: &str, b: &str) {
    for name in ["latest", "student_latest", "student_best", "evaluation.json", "worklog.txt"] {
        let read = |run: &str| std::fs::read(root.with_extension(run).join(name)).unwrap();
        assert!(read(a) == read(b), "{name} differs between {a} and {b}");
    }
}

#[test]
fn kills_and_threads_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = &folder.path().join("photos");
    photos(root);
    let started = Instant::now();
    succeeds(&mut train(root, "whole", &[], &["DATASET.NUM_WORKERS", "3"]));
    let duration = started.elapsed();
    for round in 0..6 {
        let mut command = train(root, "killed", &["--resume"], &["DATASET.NUM_WORKERS", "1"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(duration.mul_f64(0.15 + 0.14 * f64::from(round)));
        child.kill().ok();
        child.wait().unwrap();
    }
    succeeds(&mut train(root, "killed", &["--resume"], &[]));
    same_run(root, "whole", "killed");
}

#[test]
fn a_file_that_breaks_ends_the_run_with_its_path_and_loses_no_step() {
    let folder = tempfile::tempdir().unwrap();
    let root = &folder.path().join("photos");
    photos(root);
    succeeds(&mut train(root, "whole", &[], &[]));
    // In training, and in evaluation; the length stays, so that the list of files is the same.
    for (run, path) in [("train", "train/birch/4.bmp"), ("val", "val/cedar/2.webp")] {
        let file = root.join(path);
        let contents = std::fs::read(&file).unwrap();
        std::fs::write(&file, vec![0; contents.len()]).unwrap();
        let said =
            refused(&mut train(root, run, &[], &[]), &[path, "it is no picture", "SKIP_BROKEN", "--resume"]);
        let steps: u32 =
            said.split("stopped after ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert_eq!((0..4).contains(&steps), run == "train", "{said}");
        let saved = nn::checkpoint::read(&root.with_extension(run).join("latest")).unwrap();
        assert_eq!(saved.extra["steps"].as_i64(), Some(steps.into()), "{said}");
        // Still broken: the same, and nothing is lost.
        refused(&mut train(root, run, &["--resume"], &[]), &[path]);
        std::fs::write(&file, contents).unwrap();
        succeeds(&mut train(root, run, &["--resume"], &[]));
        same_run(root, "whole", run);
    }
    std::fs::remove_file(root.join("train/ash/0.png")).unwrap();
    // Gone before the start: it is another data set.
    refused(
        &mut train(root, "whole", &["--resume"], &["SOLVER.EPOCHS", "4"]),
        &["DATASET.ROOT", "other contents"],
    );
}

#[test]
fn broken_files_are_listed_and_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let root = &folder.path().join("photos");
    photos(root);
    std::fs::write(root.join("train/ash/zero.jpg"), "").unwrap();
    let cut = std::fs::read(root.join("val/ash/0.png")).unwrap();
    std::fs::write(root.join("val/ash/cut.png"), &cut[..cut.len() / 2]).unwrap();
    std::fs::copy(root.join("val/ash/1.bmp"), root.join("train/ash/copy.bmp")).unwrap();
    let output = run(sld(&["data", "inspect"]).arg(root));
    let said = text(&output.stdout);
    for part in [
        "photos (train): 32 pictures in 3 classes",
        "zero.jpg: the file is empty",
        "cut.png: the file is cut off",
        "20x61 to 83x34",
        "12  ash",
        "1 pictures to test on are also there to train on",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(text(&output.stderr).contains("2 pictures cannot be read"), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(1));
    refused(&mut train(root, "stops", &[], &[]), &["train/ash/zero.jpg: the file is empty", "SKIP_BROKEN"]);
    let said = succeeds(&mut train(root, "skips", &[], &["DATASET.SKIP_BROKEN", "true"]));
    assert!(
        said.contains("left out 1 of 32 pictures") && said.contains("cut.png: the file is cut off"),
        "{said}"
    );
    assert!(!said.contains("`sld data inspect` lists all"), "both were named: {said}");
    // Of many, ten are named.
    for number in 0..11 {
        std::fs::write(root.join(format!("train/birch/zero{number}.jpg")), "").unwrap();
    }
    let said = succeeds(&mut train(root, "skips_more", &[], &["DATASET.SKIP_BROKEN", "true"]));
    assert!(said.contains("left out 12 of 43") && said.contains("#   and 2 more"), "{said}");
}

#[test]
fn one_folder_is_divided_and_names_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let root = &folder.path().join("photos");
    photos(root);
    let parts = root.join("train");
    refused(&mut train(&parts, "run", &[], &[]), &["has no folder val/ or test/", "--val-fraction"]);
    let said = succeeds(&mut train(&parts, "run", &["--val-fraction", "0.2"], &[]));
    assert!(said.contains("report"), "{said}");
    let run = parts.with_extension("run");
    let report = std::fs::read_to_string(run.join("report.html")).unwrap();
    assert!(["ash", "birch", "cedar"].iter().all(|name| report.contains(name)));
    let checkpoint = run.join("student_best");
    let network = nn::checkpoint::read(&checkpoint).unwrap().network.unwrap();
    assert_eq!((network.size, network.resize), ([32, 32], 36));

    let predict = |more: &[&str]| {
        let mut command = sld(&["predict", "--device", "cpu", "-c"]);
        command.arg(&checkpoint).args(more);
        command
    };
    let val = root.join("val");
    let json = succeeds(predict(&["--json"]).arg(&val));
    let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 12);
    for row in rows {
        let classes = row["classes"].as_array().unwrap();
        let sum: f64 = classes.iter().map(|class| class["probability"].as_f64().unwrap()).sum();
        assert!(classes.len() == 3 && (sum - 1.0).abs() < 1e-6, "{row}");
    }
    // What it says is what an evaluation counts.
    let right = |row: &&serde_json::Value| {
        let guess = row["classes"][0]["name"].as_str().unwrap();
        row["picture"].as_str().unwrap().contains(&format!("/{guess}/"))
    };
    let right = rows.iter().filter(right).count();
    let mut eval = sld(&["eval", "--device", "cpu", "--json", "-c"]);
    let measured = succeeds(eval.arg(&checkpoint).arg("--data").arg(root));
    let measured: serde_json::Value = serde_json::from_str(&measured).unwrap();
    assert_eq!(measured["top1_correct"], right);
    assert_eq!(measured["images"], 12);

    // A folder with some of the network's classes is enough, one with others is not.
    let some = folder.path().join("some");
    std::fs::create_dir_all(some.join("val")).unwrap();
    std::fs::rename(root.join("val/birch"), some.join("val/birch")).unwrap();
    let evaluate = || {
        let mut eval = sld(&["eval", "--device", "cpu", "--json", "-c"]);
        eval.arg(&checkpoint).arg("--data").arg(&some);
        eval
    };
    let measured: serde_json::Value = serde_json::from_str(&succeeds(&mut evaluate())).unwrap();
    let birches = |row: &&serde_json::Value| row["picture"].as_str().unwrap().contains("/birch/");
    let right = rows.iter().filter(birches).filter(|row| row["classes"][0]["name"] == "birch").count();
    assert_eq!((&measured["images"], &measured["top1_correct"]), (&4.into(), &right.into()));
    std::fs::rename(some.join("val/birch"), some.join("val/palm")).unwrap();
    refused(&mut evaluate(), &["the class \"palm\"", "none of its 3 (ash, birch, cedar"]);

    let table = succeeds(predict(&["--top", "2"]).arg(val.join("ash/0.png")));
    assert_eq!(table.lines().filter(|line| line.contains('%')).count(), 2, "{table}");
    std::fs::write(val.join("none.png"), "not found").unwrap();
    let mut csv = predict(&["--format", "csv"]);
    let output = csv.args([val.join("ash/0.png"), val.join("none.png")]).output().unwrap();
    let (rows, said) = (text(&output.stdout), text(&output.stderr));
    assert!(rows.starts_with("picture,rank,class,probability\n") && rows.lines().count() == 4, "{rows}");
    assert!(said.contains("none.png: it is no picture") && output.status.code() == Some(1), "{said}");
}

#[test]
fn tiny_imagenets_layout_is_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let (root, tiny) = (&folder.path().join("photos"), &folder.path().join("tiny"));
    photos(root);
    let mut list = String::new();
    for class in ["ash", "birch", "cedar"] {
        std::fs::create_dir_all(tiny.join("train").join(class)).unwrap();
        std::fs::rename(root.join("train").join(class), tiny.join("train").join(class).join("images"))
            .unwrap();
        std::fs::create_dir_all(tiny.join("val/images")).unwrap();
        for (number, ending) in [(0, "png"), (1, "bmp"), (2, "webp")] {
            let name = format!("{class}_{number}.{ending}");
            std::fs::rename(
                root.join(format!("val/{class}/{number}.{ending}")),
                tiny.join("val/images").join(&name),
            )
            .unwrap();
            list += &format!("{name}\t{class}\t0\t0\t9\t9\n");
        }
    }
    std::fs::write(tiny.join("val/val_annotations.txt"), list).unwrap();
    std::fs::write(tiny.join("wnids.txt"), "cedar\nash\nbirch\n").unwrap();
    std::fs::write(tiny.join("words.txt"), "ash\tash tree, Fraxinus\nbirch\tbirch, Betula\n").unwrap();
    let keys = ["DATASET.TYPE", "tiny_imagenet", "SOLVER.EPOCHS", "1"];
    succeeds(&mut train(tiny, "run", &[], &keys));
    let report = std::fs::read_to_string(tiny.with_extension("run").join("report.html")).unwrap();
    assert!(["ash tree", "birch", "cedar"].iter().all(|name| report.contains(name)));
}

#[cfg(unix)]
#[test]
fn a_run_whose_reading_stalls_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let root = &folder.path().join("photos");
    photos(root);
    let mut command = train(root, "stalled", &[], &["SOLVER.EPOCHS", "5000"]);
    let fifo = root.join("pipe");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A pipe that nobody writes to, from the moment when the files are listed.
    let patience = Instant::now();
    while !root.with_extension("stalled").join("run.json").exists() {
        assert!(patience.elapsed() < Duration::from_secs(60), "the run does not begin");
        std::thread::sleep(Duration::from_millis(2));
    }
    std::fs::rename(&fifo, root.join("train/ash/1.bmp")).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}\n{}", text(&output.stdout), text(&output.stderr));
    nn::checkpoint::read(&root.with_extension("stalled").join("latest")).unwrap();
}

/// ImageNet's folders have numbers, whose names are known; another set's folders are their names.
#[test]
fn imagenets_classes_have_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let root = &folder.path().join("photos");
    photos(root);
    for part in ["train", "val"] {
        for (from, to) in [("ash", "n01440764"), ("birch", "n01443537"), ("cedar", "n01484850")] {
            std::fs::rename(root.join(part).join(from), root.join(part).join(to)).unwrap();
        }
    }
    let classes = |run: &str, keys: &[&str]| {
        succeeds(&mut train(root, run, &[], keys));
        small::json(&root.with_extension(run).join("evaluation.json"))["classes"].clone()
    };
    assert_eq!(classes("own", &[]), serde_json::json!(["n01440764", "n01443537", "n01484850"]));
    let names = classes("imagenet", &["DATASET.TYPE", "imagenet", "DISTILLER.STUDENT", "MobileNetV1_025"]);
    let names = names.as_array().unwrap();
    assert_eq!(
        (names.len(), &names[..3]),
        (1000, &["tench", "goldfish", "great white shark"].map(Into::into)[..])
    );
}
