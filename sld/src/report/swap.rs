//! What swapping did: how often, what it changed, and what it weighs in the loss.

use super::chart::{Axis, Chart};
use super::curves::{by_epoch, events};
use super::html::percent;
use super::run::Run;
use crate::run::{EpochMetrics, SwapMetrics, SwapSide};

/// The section of a run that swaps; `None` for methods that do not.
pub fn section(run: &Run) -> Option<String> {
    let first = run.metrics.first()?.swap?;
    let last = run.last().swap?;
    let marks = events(run);
    let of = |value: fn(&SwapMetrics) -> f64| {
        by_epoch(run, move |metrics: &EpochMetrics| metrics.swap.as_ref().map_or(f64::NAN, value))
    };
    let share = Chart::new(
        "How often logits are swapped",
        "Share of training rows whose largest output is not the true class. The teacher's changes only with the augmentation.",
        "rows swapped",
        Axis::Zero,
    )
    .percent()
    .line("teacher", 3, of(|swap| 100.0 * swap.teacher.share))
    .line("student", 0, of(|swap| 100.0 * swap.student.share))
    .events(&marks);
    let levels = Chart::new(
        "The two loss levels",
        "Divergence of the student from the swapped teacher, and, once it sets in, from its own swapped outputs; summed over views and temperatures.",
        "divergence",
        Axis::Zero,
    )
    .line("teacher level", 3, of(|swap| swap.teacher_level))
    .line("student level", 0, of(|swap| if swap.student_gate { swap.student_level } else { f64::NAN }))
    .events(&marks);
    let teacher = Chart::new(
        "Teacher: confidence in the true class",
        "Mean probability of the true class, before and after the swap. The filled space is what the swap corrects.",
        "mean probability",
        Axis::Fit,
    )
    .percent()
    .line("after the swap", 3, of(|swap| 100.0 * swap.teacher.confidence_after))
    .faint_line("before", 3, of(|swap| 100.0 * swap.teacher.confidence_before))
    .band(0, 1)
    .events(&marks);
    let student = Chart::new(
        "Student: confidence in the true class",
        "The same for the student. It learns from the upper curve only where its own swap is on (tinted).",
        "mean probability",
        Axis::Fit,
    )
    .percent()
    .line("after the swap", 0, of(|swap| 100.0 * swap.student.confidence_after))
    .faint_line("before", 0, of(|swap| 100.0 * swap.student.confidence_before))
    .band(0, 1)
    .events(&marks);
    let charts: String = [share, levels, teacher, student].iter().map(Chart::figure).collect();
    Some(format!(
        "<section><h2>What the swap did</h2>{}<div class=\"grid2\">{charts}</div></section>\n",
        summary(run, &first, &last)
    ))
}

fn summary(run: &Run, first: &SwapMetrics, last: &SwapMetrics) -> String {
    let change = |side: &SwapSide| 100.0 * (side.confidence_after - side.confidence_before);
    let shares: Vec<f64> =
        run.metrics.iter().filter_map(|metrics| Some(metrics.swap?.teacher.share)).collect();
    let mean = 100.0 * shares.iter().sum::<f64>() / shares.len().max(1) as f64;
    format!(
        "<p class=\"lead\">The teacher's largest output was not the true class in <b>{}</b> of all rows; exchanging \
         the two raised its mean confidence in the true class by <b>{:.1}</b> points in the last epoch. For the \
         student the share went from <b>{}</b> in the first epoch to <b>{}</b> in the last.</p>",
        percent(mean),
        change(&last.teacher),
        percent(100.0 * first.student.share),
        percent(100.0 * last.student.share),
    )
}
