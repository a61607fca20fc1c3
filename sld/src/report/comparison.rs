//! Several runs side by side.

use super::Run;
use super::chart::{Axis, Chart};
use super::curves::by_epoch;
use super::html::{duration, escape, percent};
use crate::run::EpochMetrics;
use std::fmt::Write;

/// The table and the common curves.
pub fn section(runs: &[Run]) -> String {
    format!(
        "<section><h2>Side by side</h2>{}<div class=\"grid2\">{}</div></section>\n",
        table(runs),
        charts(runs)
    )
}

fn table(runs: &[Run]) -> String {
    let best = |run: &Run| run.best().test.top1;
    let highest = runs.iter().map(best).fold(f64::NEG_INFINITY, f64::max);
    let mut rows = String::new();
    for (i, run) in runs.iter().enumerate() {
        let last = &run.last().test;
        let change = best(run) - best(&runs[0]);
        let change =
            if i == 0 { "baseline".into() } else { format!("{change:+.2}").replace('-', "\u{2212}") };
        let winner = if best(run) == highest { " class=\"winner\"" } else { "" };
        let unfinished = match run.info.epochs.saturating_sub(run.last().epoch) {
            0 => String::new(),
            left => format!(" <small>({left} epochs to go)</small>"),
        };
        let _ = write!(
            rows,
            "<tr{winner}><td><i class=\"swatch c{}\"></i>{}{unfinished}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td class=\"number\"><b>{}</b></td><td class=\"number\">{change}</td><td class=\"number\">{}</td>\
             <td class=\"number\">{}</td><td class=\"number\">{:.3}</td><td class=\"number\">{}</td></tr>",
            i % 8,
            escape(&run.name),
            escape(run.method()),
            escape(&run.info.student.name),
            run.info.teacher.as_ref().map_or("\u{2013}".into(), |teacher| escape(&teacher.name)),
            percent(best(run)),
            percent(last.top1),
            percent(last.top5),
            last.loss,
            duration(run.seconds()),
        );
    }
    format!(
        "<div class=\"card scroll\"><table class=\"comparison\"><thead><tr><th>run</th><th>method</th><th>student</th>\
         <th>teacher</th><th class=\"number\">best top-1</th><th class=\"number\">points</th><th class=\"number\">final top-1</th>\
         <th class=\"number\">final top-5</th><th class=\"number\">test loss</th><th class=\"number\">time</th></tr></thead>\
         <tbody>{rows}</tbody></table></div>"
    )
}

fn charts(runs: &[Run]) -> String {
    let overlay = |title: &str, note: &str, axis, value: fn(&EpochMetrics) -> f64| {
        let chart = Chart::new(title, note, axis);
        runs.iter().enumerate().fold(chart, |chart, (i, run)| chart.line(&run.name, i, by_epoch(run, value)))
    };
    let mut charts = vec![
        overlay("Top-1 on the test images", "By epoch.", Axis::Fit, |metrics| metrics.test.top1).percent(),
        overlay("Test loss", "Mean cross entropy.", Axis::Zero, |metrics| metrics.test.loss),
        overlay("Top-1 on the training images", "Augmented, in train mode.", Axis::Fit, |metrics| {
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
            Axis::Zero,
        );
        charts.push(
            swapping.fold(chart.percent(), |chart, (i, run)| chart.line(&run.name, i, by_epoch(run, share))),
        );
    } else {
        charts.push(overlay("Training speed", "Images a second.", Axis::Zero, |metrics| {
            metrics.images_per_second
        }));
    }
    charts.iter().map(Chart::figure).collect()
}
