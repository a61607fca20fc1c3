//! Several runs side by side.

use super::chart::{Axis, Chart};
use super::classes;
use super::curves::by_epoch;
use super::html::{Column, duration, escape, percent, table};
use super::run::Run;
use crate::config::decides;
use crate::run::{EpochMetrics, RunInfo};
use std::fmt::Write;

/// Which run is what in a comparison.
pub struct Roles {
    /// The colour of each run: its own, or where seeds are repeated its setting's.
    pub colours: Vec<usize>,
    /// What the others are held against: the first run without a teacher of the network that most runs
    /// train, or the first run.
    baseline: usize,
    /// The most accurate run of the baseline's network.
    winner: usize,
    /// Runs that differ in nothing but the seed, by number.
    settings: Vec<Vec<usize>>,
}

impl Roles {
    /// Assigns them.
    pub fn new(runs: &[Run]) -> Self {
        let students = |name: &str| runs.iter().filter(|run| run.info.student.name == name).count();
        let most = runs.iter().map(|run| students(&run.info.student.name)).max().unwrap_or(0);
        let common = |run: &Run| students(&run.info.student.name) == most;
        let baseline =
            runs.iter().position(|run| common(run) && run.info.teacher.is_none()).unwrap_or_default();
        let network = &runs[baseline].info.student.name;
        let winner = (0..runs.len())
            .filter(|&i| runs[i].info.student.name == *network)
            .fold(baseline, |best, i| if top1(&runs[i]) > top1(&runs[best]) { i } else { best });
        let mut settings: Vec<Vec<usize>> = Vec::new();
        for (i, run) in runs.iter().enumerate() {
            match settings.iter_mut().find(|group| differ_in_seed_only(&runs[group[0]], run)) {
                Some(group) => group.push(i),
                None => settings.push(vec![i]),
            }
        }
        let mut colours: Vec<usize> = (0..runs.len()).collect();
        if settings.len() < runs.len() {
            for (colour, group) in settings.iter().enumerate() {
                group.iter().for_each(|&i| colours[i] = colour);
            }
        }
        Self { colours, baseline, winner, settings }
    }

    /// Whether some setting was run with several seeds.
    fn repeats(&self) -> bool {
        self.settings.iter().any(|group| group.len() > 1)
    }
}

/// What a comparison counts: the best epoch's top-1 on the test images.
fn top1(run: &Run) -> f64 {
    run.best().test.top1
}

fn differ_in_seed_only(a: &Run, b: &Run) -> bool {
    let facts = |run: &Run| {
        let RunInfo { distiller, student, teacher, epochs, settings, precision, .. } = run.info.clone();
        let networks = [Some(student), teacher].map(|model| model.map(|model| (model.name, model.digest)));
        let is_fact = |setting: &String| decides(setting) && !setting.starts_with("SOLVER.SEED:");
        (distiller, networks, epochs, settings.into_iter().filter(is_fact).collect::<Vec<_>>(), precision)
    };
    a.info.seed != b.info.seed && facts(a) == facts(b)
}

/// A difference in points, with a proper minus.
fn points(change: f64) -> String {
    format!("{change:+.2}").replace('-', "\u{2212}")
}

/// The outcome in a sentence.
pub fn sentence(runs: &[Run], roles: &Roles) -> String {
    let (winner, baseline) = (&runs[roles.winner], &runs[roles.baseline]);
    let mut text = format!(
        "Most accurate {}: <b>{}</b> ({}) with <b>{}</b> top-1",
        escape(&winner.info.student.name),
        escape(&winner.name),
        escape(&winner.method()),
        percent(top1(winner)),
    );
    let gain = top1(winner) - top1(baseline);
    if roles.winner != roles.baseline {
        let _ = write!(text, ", <b>{}</b> points against {}", points(gain), escape(&baseline.name));
    }
    if let Some(teacher) = winner.info.teacher.as_ref().and_then(|teacher| teacher.top1) {
        let _ = write!(text, "; its teacher reaches {}", percent(teacher));
    }
    text + ". Best epochs, on the test images."
}

/// The table and the common curves.
pub fn section(runs: &[Run], roles: &Roles) -> String {
    let gains = match (&runs[roles.baseline], &runs[roles.winner]) {
        (baseline, winner) if roles.baseline != roles.winner => classes::gains(baseline, winner),
        _ => None,
    };
    format!(
        "<section>{}{}<div class=\"grid2\">{}</div></section>\n{}",
        if roles.repeats() { summary(runs, roles) } else { String::new() },
        runs_table(runs, roles),
        charts(runs, roles),
        gains.unwrap_or_default(),
    )
}

/// The columns of the table over seeds.
const SUMMARY: [Column; 8] = [
    Column("method", false),
    Column("student", false),
    Column("seeds", true),
    Column("best top-1, %", true),
    Column("final top-1, %", true),
    Column("final top-5, %", true),
    Column("seconds an epoch", true),
    Column("memory, MiB", true),
];

/// Each setting's cells of the table over seeds: mean and standard deviation of accuracies, the median of an epoch's
/// seconds, what the device holds.
fn over_seeds(runs: &[Run], roles: &Roles) -> Vec<[String; 8]> {
    let cells = |group: &Vec<usize>| {
        let first = &runs[group[0]];
        let over = |value: fn(&Run) -> f64| {
            let values: Vec<f64> = group.iter().map(|&i| value(&runs[i])).collect();
            mean_and_deviation(&values)
        };
        let mut seconds: Vec<f64> =
            group.iter().flat_map(|&i| runs[i].metrics.iter().map(|metrics| metrics.seconds)).collect();
        seconds.sort_by(f64::total_cmp);
        let memory = match first.info.device_bytes {
            0 => "\u{2013}".into(),
            bytes => format!("{:.0}", bytes as f64 / f64::from(1 << 20)),
        };
        [
            first.method(),
            first.info.student.name.clone(),
            group.len().to_string(),
            over(top1),
            over(|run| run.last().test.top1),
            over(|run| run.last().test.top5),
            format!("{:.1}", seconds[seconds.len() / 2]),
            memory,
        ]
    };
    roles.settings.iter().map(cells).collect()
}

/// The table over seeds as Markdown, one line a setting.
pub fn markdown(runs: &[Run]) -> String {
    let line = |cells: &[&str]| format!("| {} |\n", cells.join(" | "));
    let rows = over_seeds(runs, &Roles::new(runs));
    let head = line(&SUMMARY.each_ref().map(|column| column.0));
    let rule = line(&SUMMARY.each_ref().map(|column| if column.1 { "--:" } else { "---" }));
    let rows = rows.iter().map(|cells| line(&cells.each_ref().map(String::as_str)));
    head + &rule + &rows.collect::<String>()
}

/// Mean and standard deviation over seeds.
fn summary(runs: &[Run], roles: &Roles) -> String {
    let row = |(colour, cells): (usize, [String; 8])| {
        let mut cells: Vec<String> = cells.iter().map(|cell| escape(cell)).collect();
        cells[0].insert_str(0, &swatch(colour));
        cells[3] = format!("<b>{}</b>", cells[3]);
        ("", cells)
    };
    let rows: Vec<_> = over_seeds(runs, roles).into_iter().enumerate().map(row).collect();
    format!(
        "<div class=\"card\">{}<p>Mean \u{b1} standard deviation over seeds. Curves below have the colour and marks of \
         their method.</p></div>",
        table(&SUMMARY, &rows)
    )
}

/// A run's or a setting's colour, beside its name.
fn swatch(colour: usize) -> String {
    format!("<i class=\"swatch c{}\"></i>", colour % 8)
}

/// "71.25 ± 0.31"; the deviation, with n - 1, only of several values.
fn mean_and_deviation(values: &[f64]) -> String {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return format!("{mean:.2}");
    }
    let square: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    format!("{mean:.2} \u{b1} {:.2}", (square / (n - 1.0)).sqrt())
}

fn runs_table(runs: &[Run], roles: &Roles) -> String {
    let columns = [
        Column("run", false),
        Column("method", false),
        Column("student", false),
        Column("teacher", false),
        Column("best top-1", true),
        Column("points", true),
        Column("final top-1", true),
        Column("final top-5", true),
        Column("test loss", true),
        Column("time", true),
    ];
    let rows: Vec<_> = runs
        .iter()
        .enumerate()
        .map(|(i, run)| {
            let last = &run.last().test;
            let change = match i == roles.baseline {
                true => "baseline".into(),
                false => points(top1(run) - top1(&runs[roles.baseline])),
            };
            let unfinished = match run.epochs_left() {
                0 => String::new(),
                1 => " <small>(1 epoch to go)</small>".into(),
                left => format!(" <small>({left} epochs to go)</small>"),
            };
            let teacher = run.info.teacher.as_ref();
            let cells = vec![
                swatch(roles.colours[i]) + &escape(&run.name) + &unfinished,
                escape(&run.method()),
                escape(&run.info.student.name),
                teacher.map_or("\u{2013}".into(), |teacher| escape(&teacher.name)),
                format!("<b>{}</b>", percent(top1(run))),
                change,
                percent(last.top1),
                percent(last.top5),
                format!("{:.3}", last.loss),
                duration(run.seconds()),
            ];
            (if i == roles.winner { "winner" } else { "" }, cells)
        })
        .collect();
    format!("<div class=\"card\">{}</div>", table(&columns, &rows))
}

fn charts(runs: &[Run], roles: &Roles) -> String {
    let colour = |i: usize| roles.colours[i];
    let overlay = |title: &str, note: &str, quantity: &str, axis, value: fn(&EpochMetrics) -> f64| {
        let chart = Chart::new(title, note, quantity, axis);
        runs.iter()
            .enumerate()
            .fold(chart, |chart, (i, run)| chart.line(&run.name, colour(i), by_epoch(run, value)))
    };
    let mut charts = vec![
        overlay(
            "Top-1 on the test images",
            "Share of images whose largest output is the true class.",
            "top-1",
            Axis::Fit,
            |metrics| metrics.test.top1,
        )
        .percent(),
        overlay("Test loss", "Mean cross entropy.", "cross entropy", Axis::Zero, |metrics| metrics.test.loss),
        overlay("Top-1 on the training images", "Augmented, in train mode.", "top-1", Axis::Fit, |metrics| {
            metrics.train.top1
        })
        .percent(),
    ];
    let share = |metrics: &EpochMetrics| metrics.swap.map_or(f64::NAN, |swap| 100.0 * swap.student.share);
    if runs.iter().any(|run| run.metrics.iter().any(|metrics| metrics.swap.is_some())) {
        let swapping = runs.iter().enumerate().filter(|(_, run)| run.last().swap.is_some());
        let chart = Chart::new(
            "Student rows swapped",
            "Share of training rows whose largest output is not the true class.",
            "rows swapped",
            Axis::Zero,
        );
        charts.push(
            swapping.fold(chart.percent(), |chart, (i, run)| {
                chart.line(&run.name, colour(i), by_epoch(run, share))
            }),
        );
    } else {
        charts.push(overlay(
            "Training speed",
            "Training images a second.",
            "images a second",
            Axis::Zero,
            |metrics| metrics.images_per_second,
        ));
    }
    charts.iter().map(Chart::figure).collect()
}
