//! Reports: complete, self-contained, and about the numbers they were given.

mod sample;

use sld::report::{Run, render};
use sld::run::{Accuracy, RunError};
use std::path::{Path, PathBuf};

fn run(name: &str, distiller: &str, top: f64, seed: u64) -> Run {
    Run {
        name: name.into(),
        info: sample::info(distiller, 240),
        metrics: sample::metrics(240, top, distiller == "SLD", seed),
        evaluation: Some(sample::evaluation(100, top)),
        config: sld::config::Config::default().to_yaml(),
    }
}

/// Keeps the report where a person can open it.
fn keep(name: &str, html: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, html).unwrap();
    path
}

/// Whether every element that is opened is closed, in order. Void elements and comments aside.
fn check_nesting(html: &str) {
    const VOID: &[&str] = &["meta", "!DOCTYPE"];
    let mut open: Vec<String> = Vec::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag without end");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        let name = |tag: &str| tag.split([' ', '\n', '/']).next().unwrap().to_owned();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(closed), "before {}", &rest[..rest.len().min(200)]);
        } else if !tag.ends_with('/') && !VOID.contains(&&*name(tag)) {
            open.push(name(tag));
        }
        if matches!(open.last().map(String::as_str), Some("script" | "style")) && !tag.starts_with('/') {
            let close = format!("</{}>", open.pop().unwrap());
            rest = &rest[rest.find(&close).expect("an open script or style") + close.len()..];
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

/// The data that a chart's script reads, by the chart's title.
fn chart_data(html: &str, title: &str) -> serde_json::Value {
    let from = html.find(&format!("<h3>{title}</h3>")).unwrap_or_else(|| panic!("no chart {title}"));
    let marker = "<script type=\"application/json\">";
    let start = from + html[from..].find(marker).unwrap() + marker.len();
    let end = start + html[start..].find("</script>").unwrap();
    serde_json::from_str(&html[start..end]).unwrap()
}

#[test]
fn a_run_is_shown_whole_and_from_one_file() {
    let run = run("sld", "SLD", 77.6, 1);
    let html = render(std::slice::from_ref(&run));
    keep("report_single.html", &html);
    check_nesting(&html);
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        // The name of SVG is an address that nobody visits.
        let visits =
            html.matches(outside).count() - html.matches(&format!("{outside}www.w3.org/2000/svg")).count();
        assert_eq!(visits, 0, "{outside}");
    }
    let best = run.metrics.iter().map(|m| m.test.top1).fold(0.0, f64::max);
    let last = run.metrics.last().unwrap();
    for wanted in [
        "resnet32x4 \u{2192} resnet8x4".to_string(),
        format!("<b>{best:.2}%</b><span>best top-1"),
        format!("<b>{:.2}%</b><span>top-1 at the end, epoch 240", last.test.top1),
        "<b>79.42%</b><span>the teacher&#39;s top-1".replace("&#39;", "'"),
        "What the swap did".into(),
        "How often logits are swapped".into(),
        "The two loss levels".into(),
        "Class by class".into(),
        "What is taken for what".into(),
        "aquarium fish".into(),
        "prefers-color-scheme: dark".into(),
        "@media print".into(),
    ] {
        assert!(html.contains(&wanted), "{wanted}");
    }
    assert_eq!(html.matches("<div class=\"bar\"").count(), 100);
    assert!(html.len() < 600_000, "{} bytes", html.len());
}

#[test]
fn the_curves_hold_the_values_they_were_given() {
    let run = run("sld", "SLD", 77.6, 1);
    let html = render(std::slice::from_ref(&run));
    let close = |found: &serde_json::Value, wanted: f64| {
        let found = found.as_f64().unwrap();
        assert!((found - wanted).abs() <= 1e-4 * wanted.abs(), "{found} is not {wanted}");
    };
    let accuracy = chart_data(&html, "Top-1 accuracy");
    let swap = chart_data(&html, "How often logits are swapped");
    let levels = chart_data(&html, "The two loss levels");
    let student = chart_data(&html, "Student: confidence in the true class");
    for (i, metrics) in run.metrics.iter().enumerate() {
        let measured = metrics.swap.unwrap();
        assert_eq!(accuracy["e"][i], f64::from(metrics.epoch));
        close(&accuracy["s"][0]["v"][i], metrics.test.top1);
        close(&accuracy["s"][1]["v"][i], metrics.train.top1);
        close(&swap["s"][0]["v"][i], 100.0 * measured.teacher.share);
        close(&swap["s"][1]["v"][i], 100.0 * measured.student.share);
        close(&levels["s"][0]["v"][i], measured.teacher_level);
        match measured.student_gate {
            true => close(&levels["s"][1]["v"][i], measured.student_level),
            false => assert!(levels["s"][1]["v"][i].is_null()),
        }
        close(&student["s"][0]["v"][i], 100.0 * measured.student.confidence_after);
        close(&student["s"][1]["v"][i], 100.0 * measured.student.confidence_before);
    }
    assert!(html.contains("lr 0.0025, student swap on"), "the gate is marked");
}

#[test]
fn the_line_on_the_paper_is_where_its_value_belongs() {
    let mut run = run("two", "NONE", 60.0, 1);
    run.metrics.truncate(3);
    for (metrics, top1) in run.metrics.iter_mut().zip([10.0, 20.0, 15.0]) {
        (metrics.test.top1, metrics.train.top1) = (top1, 10.0);
    }
    let html = render(&[run]);
    // The plot is 408 wide from 58 and 190 high from 36; the axis runs from 10 to 20.
    assert!(
        html.contains("<path class=\"line c0\" d=\"M58.0 226.0L262.0 36.0L466.0 131.0\"/>"),
        "{}",
        &html[html.find("line c0").unwrap()..][..120]
    );
}

#[test]
fn names_of_near_events_do_not_run_into_each_other() {
    let mut run = run("short", "SLD", 60.0, 1);
    run.metrics.truncate(7);
    for metrics in &mut run.metrics {
        metrics.lr = [0.05, 0.005, 0.0005][usize::from(metrics.epoch > 1) + usize::from(metrics.epoch > 3)];
        metrics.swap.as_mut().unwrap().student_gate = metrics.epoch > 1;
    }
    let html = render(&[run]);
    let height = |name: &str| {
        let end = html.find(&format!("\">{name}</text>")).unwrap_or_else(|| panic!("no {name}"));
        let start = html[..end].rfind(" y=\"").unwrap() + 4;
        html[start..end].split('"').next().unwrap().to_owned()
    };
    // Two epochs apart: on one line they would overlap.
    assert_ne!(height("lr 0.005, student swap on"), height("lr 0.0005"));
}

#[test]
fn several_runs_stand_side_by_side() {
    let runs = [run("alone", "NONE", 72.5, 2), run("kd", "KD", 74.9, 3), run("sld", "SLD", 77.6, 1)];
    let html = render(&runs);
    keep("report_several.html", &html);
    check_nesting(&html);
    assert!(html.contains("3 runs side by side"));
    let best = |run: &Run| run.metrics.iter().map(|m| m.test.top1).fold(0.0, f64::max);
    let gained = format!("{:+.2}", best(&runs[2]) - best(&runs[0]));
    assert!(html.contains(&format!("<td class=\"number\" data-of=\"points\">{gained}</td>")), "{gained}");
    let winner = html.find("<tr class=\"winner\">").unwrap();
    assert!(
        html[winner..].starts_with("<tr class=\"winner\"><td data-of=\"run\"><i class=\"swatch c2\"></i>sld")
    );
    assert_eq!(chart_data(&html, "Top-1 on the test images")["s"].as_array().unwrap().len(), 3);
    assert_eq!(chart_data(&html, "Student rows swapped")["s"].as_array().unwrap().len(), 1);
}

#[test]
fn the_student_alone_is_the_baseline_wherever_it_stands() {
    // A larger network, such as the teacher, comes first and is better than all students.
    let mut teacher = run("teacher", "NONE", 79.0, 4);
    teacher.info.student.name = "resnet32x4".into();
    let runs = [teacher, run("sld", "SLD", 77.6, 1), run("alone", "NONE", 72.5, 2)];
    let html = render(&runs);
    check_nesting(&html);
    let row = |name: &str| {
        let start = html.find(&format!("</i>{name}</td>")).unwrap();
        &html[start..start + html[start..].find("</tr>").unwrap()]
    };
    assert!(
        row("alone").contains("<td class=\"number\" data-of=\"points\">baseline</td>"),
        "{}",
        row("alone")
    );
    assert!(html.contains("<tr class=\"winner\"><td data-of=\"run\"><i class=\"swatch c1\"></i>sld"));
    let best = |run: &Run| run.metrics.iter().map(|m| m.test.top1).fold(0.0, f64::max);
    let gain = best(&runs[1]) - best(&runs[2]);
    assert!(html.contains(&format!("<b>{gain:+.2}</b> points against alone")), "{gain}");
    assert!(html.contains("its teacher reaches 79.42%"));
    // The run that swaps lies open, the others are folded.
    assert_eq!(html.matches("<details class=\"run\" open>").count(), 1);
}

#[test]
fn a_comparison_shows_which_classes_gained() {
    let (mut alone, mut sld) = (run("alone", "NONE", 70.0, 2), run("sld", "SLD", 75.0, 1));
    let classes = || ["cat", "dog", "emu"].map(String::from).to_vec();
    let evaluation = |confusion: [[u32; 3]; 3]| {
        let mut evaluation = sld::run::Evaluation::new(240, classes());
        evaluation.confusion = confusion.map(|row| row.to_vec()).to_vec();
        Some(evaluation)
    };
    alone.evaluation = evaluation([[50, 25, 25], [10, 80, 10], [0, 0, 100]]);
    sld.evaluation = evaluation([[75, 15, 10], [20, 70, 10], [0, 0, 100]]);
    let html = render(&[alone, sld]);
    check_nesting(&html);
    assert!(html.contains("<b>1</b> of 3 classes better than alone and <b>1</b> less well"));
    let gains: Vec<usize> =
        ["cat: from 50.0% to 75.0%", "emu: from 100.0% to 100.0%", "dog: from 80.0% to 70.0%"]
            .map(|text| html.find(text).unwrap_or_else(|| panic!("{text}")))
            .to_vec();
    assert!(gains.is_sorted(), "the largest gain first");
}

#[test]
fn seeds_of_one_setting_are_summed_up() {
    let mut runs = Vec::new();
    for (distiller, top1) in [("NONE", [70.0, 71.0, 72.0]), ("SLD", [74.0, 74.0, 77.0])] {
        for (seed, top1) in top1.into_iter().enumerate() {
            let mut run = run(&format!("{distiller}-{seed}"), distiller, 70.0, 1);
            run.info.seed = seed as u64;
            run.info.settings.push(format!("SOLVER.SEED: {seed}"));
            run.metrics.truncate(1);
            run.metrics[0].test = Accuracy { top1, top5: 90.0, loss: 1.0 };
            runs.push(run);
        }
    }
    let html = render(&runs);
    check_nesting(&html);
    // Deviations with n - 1: of 70, 71, 72 it is 1, of 74, 74, 77 the root of 3.
    for wanted in ["71.00 \u{b1} 1.00", "75.00 \u{b1} 1.73"] {
        let row = format!(
            "<td class=\"number\" data-of=\"seeds\">3</td><td class=\"number\" data-of=\"best top-1, %\"><b>{wanted}</b></td>"
        );
        assert!(html.contains(&row), "{wanted}");
    }
    // A colour a method, not a run.
    for series in chart_data(&html, "Top-1 on the test images")["s"].as_array().unwrap() {
        let swaps = series["n"].as_str().unwrap().starts_with("SLD");
        assert_eq!(series["c"], i32::from(swaps), "{series}");
    }
    // What decides nothing is none; another setting, or another teacher, is another line of the summary.
    let has = |runs: &[Run], of: &str| render(runs).contains(of);
    runs[0].info.settings.push("DATASET.NUM_WORKERS: 7".into());
    assert!(has(&runs, "71.00 \u{b1} 1.00"));
    runs[0].info.settings.push("SOLVER.LR: 0.2".into());
    assert!(!has(&runs, "71.00 \u{b1} 1.00") && has(&runs, "75.00 \u{b1} 1.73"));
    if let Some(teacher) = &mut runs[4].info.teacher {
        teacher.digest = "another".into();
    }
    assert!(!has(&runs, "75.00 \u{b1} 1.73"));
}

#[test]
fn runs_of_the_same_name_are_told_apart() {
    let html = render(&[run("a", "KD", 70.0, 1), run("a", "KD", 71.0, 2)]);
    assert!(html.contains("a (1)") && html.contains("a (2)"));
}

#[test]
fn what_is_missing_or_strange_does_not_break_the_page() {
    // One epoch, no evaluation, loss gone wrong, names that are HTML.
    let mut odd = run("<script>alert(1)</script>", "KD", 50.0, 1);
    odd.metrics.truncate(1);
    odd.metrics[0].train.loss = f64::NAN;
    odd.metrics[0].test.loss = f64::INFINITY;
    odd.evaluation = None;
    odd.info.dataset = "a & b </script><b>".into();
    let html = render(&[odd.clone(), run("b", "SLD", 60.0, 2)]);
    keep("report_odd.html", &html);
    check_nesting(&html);
    assert!(!html.contains("<script>alert(1)"), "a name became a script");
    let mut few = odd.clone();
    few.evaluation = Some(sample::evaluation(3, 100.0));
    few.metrics[0].validation = Some(Accuracy { top1: 50.0, top5: 80.0, loss: 2.0 });
    check_nesting(&render(&[few]));
    assert!(render(&[odd]).contains("epoch 1 of 240"), "an unfinished run says so");
}

/// Writes a run's files as training does.
fn folder_of(run: &Run, path: &Path) {
    std::fs::create_dir_all(path).unwrap();
    let lines: Vec<String> = run.metrics.iter().map(|m| serde_json::to_string(m).unwrap() + "\n").collect();
    std::fs::write(path.join("metrics.jsonl"), lines.concat()).unwrap();
    std::fs::write(path.join("run.json"), serde_json::to_string(&run.info).unwrap()).unwrap();
    std::fs::write(path.join("config.yaml"), &run.config).unwrap();
}

#[test]
fn folders_without_a_finished_epoch_are_skipped_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    folder_of(&run("whole", "KD", 70.0, 1), &at("whole"));
    std::fs::create_dir(at("empty")).unwrap();
    folder_of(&run("begun", "KD", 70.0, 1), &at("begun"));
    std::fs::write(at("begun").join("metrics.jsonl"), "").unwrap();
    std::fs::write(at("a file"), "").unwrap();
    let out = at("out.html");
    let all = [at("empty"), at("whole"), at("begun"), at("a file")];
    let all: Vec<&Path> = all.iter().map(PathBuf::as_path).collect();
    let skipped: Vec<String> =
        sld::report::write(&all, &out).unwrap().1.iter().map(ToString::to_string).collect();
    assert!(skipped[0].contains("empty holds no run"), "{skipped:?}");
    assert!(
        skipped[1].contains("no epoch is finished yet in ") && skipped[1].contains("begun"),
        "{skipped:?}"
    );
    assert!(skipped[2].contains("a file holds no run"), "{skipped:?}");
    assert_eq!(skipped.len(), 3);
    let html = std::fs::read_to_string(&out).unwrap();
    assert!(html.contains("best top-1") && !html.contains("side by side"), "the one run as if alone");

    // Nothing is left: an error that says why of each, and no file.
    std::fs::remove_file(&out).unwrap();
    let none = sld::report::write(&[all[0], all[2]], &out).unwrap_err().to_string();
    assert!(none.starts_with("nothing to report on:"), "{none}");
    assert!(none.contains("empty holds no run") && none.contains("no epoch is finished yet in "), "{none}");
    // A name that does not exist is a mistake, not a run that has only begun.
    let typo = sld::report::write(&[all[1], &at("whale")], &out).unwrap_err().to_string();
    assert!(typo.contains("whale"), "{typo}");
    assert!(!out.exists());
}

#[test]
fn runs_on_different_data_are_not_ranked_together() {
    let mut other = run("other", "SLD", 90.0, 4);
    other.info.dataset = "synthetic".into();
    let mut redrawn = other.clone();
    (redrawn.name, redrawn.info.test_digest) = ("redrawn".into(), "0badcafe".into());
    let html = render(&[run("alone", "NONE", 72.5, 2), other, run("kd", "KD", 74.9, 3), redrawn]);
    keep("report_data.html", &html);
    check_nesting(&html);
    assert!(html.contains("<h1>4 runs on 3 data sets</h1>"));
    assert!(html.contains("they are not ranked together"));
    let count = html.matches("synthetic (10\u{202f}000 test images), checksum").count();
    assert_eq!(count, 4, "data of one name are told apart, above and where they are reported");
    // Only the two that can be compared are, though both others are better.
    assert_eq!(html.matches("<table class=\"comparison\">").count(), 1);
    assert!(html.contains("2 runs side by side"));
    assert!(html.contains("<tr class=\"winner\"><td data-of=\"run\"><i class=\"swatch c1\"></i>kd"));
    assert_eq!(chart_data(&html, "Top-1 on the test images")["s"].as_array().unwrap().len(), 2);
}

#[test]
fn data_of_older_runs_go_by_name_and_size() {
    let (mut old, new) = (run("old", "NONE", 72.5, 2), run("new", "KD", 74.9, 3));
    old.info.test_digest.clear();
    assert!(render(&[old.clone(), new.clone()]).contains("2 runs side by side"));
    old.info.test_images = 400;
    let html = render(&[old, new]);
    assert!(html.contains("2 runs on 2 data sets"));
    assert_eq!(
        html.matches("<details class=\"run\" open>").count(),
        2,
        "alone with its data, a run lies open"
    );
}

#[test]
fn a_report_says_what_made_it_and_when() {
    let html = render(&[run("sld", "SLD", 77.6, 1)]);
    assert!(html.contains("trained by sld 0.1.0 (95be2d8), begun on 2026-11-27 03:18 UTC"));
    let footer = &html[html.find("<footer>").unwrap()..];
    assert!(footer.starts_with(&format!("<footer>Written by sld {} on 20", sld::VERSION)), "{footer}");
    let mut old = run("old", "SLD", 77.6, 1);
    old.info.started = 0;
    assert!(!render(&[old]).contains("1970"), "a run that does not know says nothing");
}

#[test]
fn folders_that_hold_no_run_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.html");
    let none = sld::report::write(&[folder.path()], &out).unwrap_err();
    assert!(matches!(none, RunError::NoRun { .. }), "{none}");
    assert!(none.to_string().contains("holds no run"), "{none}");
    std::fs::write(folder.path().join("metrics.jsonl"), "").unwrap();
    let empty = sld::report::write(&[folder.path()], &out).unwrap_err();
    assert!(empty.to_string().contains("no epoch is finished yet"), "{empty}");
    std::fs::write(folder.path().join("metrics.jsonl"), "{\"epoch\": 1}\n").unwrap();
    let damaged = sld::report::write(&[folder.path()], &out).unwrap_err();
    assert!(damaged.to_string().contains("metrics.jsonl, line 1: missing field"), "{damaged}");
    assert!(!out.exists());
}
