//! Accuracy class by class.

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
