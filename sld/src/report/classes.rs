//! Accuracy class by class.

use super::Run;
use super::html::escape;
use crate::run::{ClassAccuracy, Evaluation};
use std::fmt::Write;

/// Bars of all classes, best first.
pub fn section(evaluation: &Evaluation) -> String {
    let mut classes = evaluation.per_class();
    classes.sort_by(|a, b| b.accuracy.total_cmp(&a.accuracy).then_with(|| a.class.cmp(b.class)));
    let mut bars = String::new();
    for class in &classes {
        bars += &bar(class);
    }
    let (best, worst) = (&classes[0], &classes[classes.len() - 1]);
    let middle = classes[classes.len() / 2].accuracy;
    format!(
        "<section><h2>Class by class</h2><p class=\"lead\">Best: <b>{}</b> with {:.1}%. Hardest: <b>{}</b> with {:.1}%. \
         Half of the classes reach {middle:.1}% or more. Weights of epoch {}.</p>\
         <div class=\"card bars\">{bars}</div></section>\n",
        escape(best.class),
        best.accuracy,
        escape(worst.class),
        worst.accuracy,
        evaluation.epoch,
    )
}

fn bar(class: &ClassAccuracy) -> String {
    let mut bar = String::new();
    let _ = write!(
        bar,
        "<div class=\"bar\" title=\"{name}: {accuracy:.1}% of {images} images\"><span>{name}</span>\
         <i><b style=\"width:{accuracy:.1}%\"></b></i><em>{accuracy:.0}</em></div>",
        name = escape(&class.class.replace('_', " ")),
        accuracy = class.accuracy,
        images = class.images,
    );
    bar
}

/// Up to this many classes, a comparison shows them all; above, those that changed most.
const SHOWN: usize = 24;

/// Class by class from one run to another, the largest gain first; `None` unless both were evaluated on
/// the same classes.
pub fn gains(from: &Run, to: &Run) -> Option<String> {
    let (before, after) = (from.evaluation.as_ref()?, to.evaluation.as_ref()?);
    if before.classes != after.classes || before.classes.is_empty() {
        return None;
    }
    let mut pairs: Vec<(ClassAccuracy, ClassAccuracy)> =
        before.per_class().into_iter().zip(after.per_class()).collect();
    pairs.sort_by(|a, b| {
        let gain = |pair: &(ClassAccuracy, ClassAccuracy)| pair.1.accuracy - pair.0.accuracy;
        gain(b).total_cmp(&gain(a)).then_with(|| a.0.class.cmp(b.0.class))
    });
    let better = pairs.iter().filter(|(a, b)| b.accuracy > a.accuracy).count();
    let worse = pairs.iter().filter(|(a, b)| b.accuracy < a.accuracy).count();
    let all = pairs.len();
    let mut rest = "";
    if all > SHOWN {
        pairs.drain(SHOWN / 2..all - SHOWN / 2);
        rest = " Shown are those that changed most.";
    }
    let bars: String = pairs.iter().map(|(a, b)| change(a, b)).collect();
    Some(format!(
        "<section><h2>Class by class: {from} and {to}</h2><p class=\"lead\">At the end of both runs, <b>{to}</b> knows \
         <b>{better}</b> of {all} classes better than {from} and <b>{worse}</b> less well.{rest} The bar is {to}, the mark {from}.</p>\
         <div class=\"card bars wide\">{bars}</div></section>\n",
        from = escape(&from.name),
        to = escape(&to.name),
    ))
}

fn change(before: &ClassAccuracy, after: &ClassAccuracy) -> String {
    let gain = after.accuracy - before.accuracy;
    format!(
        "<div class=\"bar\" title=\"{name}: from {from:.1}% to {to:.1}% of {images} images\"><span>{name}</span>\
         <i class=\"{kind}\"><b style=\"width:{to:.1}%\"></b><u style=\"left:{from:.1}%\"></u></i><em>{gain}</em></div>",
        name = escape(&after.class.replace('_', " ")),
        from = before.accuracy,
        to = after.accuracy,
        images = after.images,
        kind = if gain < 0.0 { "lost" } else { "" },
        gain = format!("{gain:+.0}").replace('-', "\u{2212}"),
    )
}
