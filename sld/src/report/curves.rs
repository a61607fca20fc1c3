//! The curves of a run: accuracy, loss, learning rate, speed.

use super::chart::{Axis, Chart};
use super::event::Event;
use super::run::Run;
use crate::number::short;
use crate::run::EpochMetrics;

/// The values of a run by epoch.
pub fn by_epoch<'a>(
    run: &'a Run,
    value: impl Fn(&EpochMetrics) -> f64 + 'a,
) -> impl Iterator<Item = (f64, f64)> + 'a {
    run.metrics.iter().map(move |metrics| (f64::from(metrics.epoch), value(metrics)))
}

/// The epochs to mark: where the learning rate falls, and where the student's swap sets in.
pub fn events(run: &Run) -> Vec<Event> {
    let mut events = Vec::new();
    let gate = |metrics: &EpochMetrics| metrics.swap.is_some_and(|swap| swap.student_gate);
    for pair in run.metrics.windows(2) {
        let fell = pair[1].lr < pair[0].lr;
        let opened = gate(&pair[1]) && !gate(&pair[0]);
        let name = match (fell, opened) {
            (true, true) => format!("lr {}, student swap on", short(pair[1].lr)),
            (true, false) => format!("lr {}", short(pair[1].lr)),
            (false, true) => "student swap on".into(),
            (false, false) => continue,
        };
        events.push(Event { epoch: f64::from(pair[1].epoch), name, gate: opened });
    }
    // More marks than can be read are noise.
    if events.len() > 6 { Vec::new() } else { events }
}

/// The charts every run has.
pub fn charts(run: &Run) -> String {
    let marks = events(run);
    let teacher = run.info.teacher.as_ref();
    let mut accuracy = Chart::new(
        "Top-1 accuracy",
        "Share of images whose largest output is the true class. Training images are augmented, so the train curve can lie below.",
        "top-1",
        Axis::Fit,
    )
    .percent()
    .line("test", 0, by_epoch(run, |metrics| metrics.test.top1));
    if run.metrics.iter().any(|metrics| metrics.validation.is_some()) {
        let held_out = by_epoch(run, |metrics| metrics.validation.map_or(f64::NAN, |accuracy| accuracy.top1));
        accuracy = accuracy.line("held out", 2, held_out);
    }
    accuracy = accuracy
        .faint_line("train", 1, by_epoch(run, |metrics| metrics.train.top1))
        .level(teacher.and_then(|teacher| teacher.top1), "teacher")
        .events(&marks);

    let top5 = Chart::new(
        "Top-5 accuracy",
        "Share of images whose true class is among the five largest outputs.",
        "top-5",
        Axis::Fit,
    )
    .percent()
    .line("test", 0, by_epoch(run, |metrics| metrics.test.top5))
    .faint_line("train", 1, by_epoch(run, |metrics| metrics.train.top5))
    .events(&marks);

    let mut loss = Chart::new(
        "Training loss",
        "The whole loss and the terms it is the sum of, with their weights.",
        "loss",
        Axis::Zero,
    )
    .line("total", 1, by_epoch(run, |metrics| metrics.train.loss))
    .events(&marks);
    let mut names: Vec<&String> = run.metrics.iter().flat_map(|metrics| metrics.train.terms.keys()).collect();
    names.sort();
    names.dedup();
    // A single term is the total again.
    for (i, name) in names.iter().enumerate().filter(|_| names.len() > 1) {
        // What is exactly zero is not in the loss yet.
        let term = by_epoch(run, |metrics| match metrics.train.terms.get(*name) {
            None | Some(0.0) => f64::NAN,
            Some(term) => *term,
        });
        loss = loss.line(name, 2 + i, term);
    }
    let test = Chart::new("Test loss", "Mean cross entropy on the test images.", "cross entropy", Axis::Zero)
        .line("test", 0, by_epoch(run, |metrics| metrics.test.loss))
        .events(&marks);
    let rate = Chart::new("Learning rate", "By magnitude.", "learning rate", Axis::Logarithmic)
        .steps("learning rate", 3, by_epoch(run, |metrics| metrics.lr))
        .decimals(None);
    let speed = Chart::new("Speed", "Training images a second.", "images a second", Axis::Zero)
        .line("images a second", 2, by_epoch(run, |metrics| metrics.images_per_second))
        .decimals(Some(0));
    [accuracy, top5, loss, test, rate, speed].iter().map(Chart::figure).collect()
}
