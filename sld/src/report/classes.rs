//! Accuracy class by class.

use super::confusion;
use super::html::{escape, spoken};
use super::run::Run;
use crate::run::{ClassAccuracy, Evaluation};
use std::fmt::Write;

/// Bars of all classes with test images, best first.
pub fn section(evaluation: &Evaluation) -> String {
    let mut classes: Vec<(usize, ClassAccuracy)> =
        evaluation.per_class().into_iter().enumerate().filter(|(_, class)| class.images > 0).collect();
    classes.sort_by(|(_, a), (_, b)| b.accuracy.total_cmp(&a.accuracy).then_with(|| a.class.cmp(b.class)));
    let Some((_, middle)) = classes.get(classes.len() / 2) else { return String::new() };
    // Where the confusion map has room for numbers only, this is where they are looked up.
    let numbered = !confusion::named(evaluation);
    let bars: String = classes
        .iter()
        .map(|(i, class)| bar(class, if numbered { format!("<small>{i}</small> ") } else { String::new() }))
        .collect();
    format!(
        "<section><h2>Class by class</h2><p class=\"lead\">{}Half of the classes reach {:.1}% or more. Weights of \
         epoch {}.</p>{}{bars}</div></section>\n",
        extremes(&classes),
        middle.accuracy,
        evaluation.epoch,
        list("", evaluation),
    )
}

/// The best and the hardest class, if they are: of equal classes one is always best by chance.
fn extremes(sorted: &[(usize, ClassAccuracy)]) -> String {
    let images: f64 = sorted.iter().map(|(_, class)| f64::from(class.images)).sum();
    let right: f64 = sorted.iter().map(|(_, class)| f64::from(class.images) * class.accuracy / 100.0).sum();
    let all = right / images;
    // About what the luckiest of so many equal classes is away from their mean, in standard errors.
    let chance = (2.0 * (sorted.len() as f64).ln()).sqrt().max(2.0);
    let stands_out = |class: &ClassAccuracy| {
        let error = (all * (1.0 - all) / f64::from(class.images)).sqrt();
        (class.accuracy / 100.0 - all).abs() > chance * error
    };
    let mut text = String::new();
    for (what, class, next) in
        [("Best", sorted.first(), sorted.get(1)), ("Hardest", sorted.last(), sorted.iter().rev().nth(1))]
    {
        let (Some((_, class)), Some((_, next))) = (class, next) else { continue };
        if class.accuracy != next.accuracy && stands_out(class) {
            let _ = write!(text, "{what}: <b>{}</b> with {:.1}%. ", spoken(class.class), class.accuracy);
        }
    }
    match text.is_empty() {
        true => "No single class stands out. ".into(),
        false => text,
    }
}

/// The opening of a list of bars, with room for the longest name.
fn list(kind: &str, evaluation: &Evaluation) -> String {
    let longest = evaluation.classes.iter().map(|class| class.chars().count()).max().unwrap_or(0);
    format!("<div class=\"card bars{kind}\" tabindex=\"0\" style=\"--name:{}ch\">", longest.clamp(6, 24) + 3)
}

fn bar(class: &ClassAccuracy, number: String) -> String {
    format!(
        "<div class=\"bar\" data-tip=\"{name}: {accuracy:.1}% of {images} images\"><span>{number}{name}</span>\
         <i><b style=\"width:{accuracy:.1}%\"></b></i><em>{accuracy:.0}%</em></div>",
        name = spoken(class.class),
        accuracy = class.accuracy,
        images = class.images,
    )
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
         {list}{bars}</div></section>\n",
        from = escape(&from.name),
        to = escape(&to.name),
        list = list(" wide", after),
    ))
}

fn change(before: &ClassAccuracy, after: &ClassAccuracy) -> String {
    let gain = after.accuracy - before.accuracy;
    format!(
        "<div class=\"bar\" data-tip=\"{name}: from {from:.1}% to {to:.1}% of {images} images\"><span>{name}</span>\
         <i class=\"{kind}\"><b style=\"width:{to:.1}%\"></b><u style=\"left:{from:.1}%\"></u></i><em>{gain}</em></div>",
        name = spoken(after.class),
        from = before.accuracy,
        to = after.accuracy,
        images = after.images,
        kind = if gain < 0.0 { "lost" } else { "" },
        // Of what rounds to nothing no sign.
        gain = format!("{:+.0}", gain.round() + 0.0).replace('-', "\u{2212}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of classes of so many images and so many percent.
    fn said(classes: &[(u32, f64)]) -> String {
        let names: Vec<String> = (0..classes.len()).map(|i| format!("c{i}")).collect();
        let of = |(i, &(images, accuracy)): (usize, &(u32, f64))| {
            (i, ClassAccuracy { class: &names[i], images, accuracy })
        };
        extremes(&classes.iter().enumerate().map(of).collect::<Vec<_>>())
    }

    /// Half of all images are right, so that a class of 100 has a standard error of 5 points: the first and the last
    /// have to be two of them away, of a hundred classes three.
    #[test]
    fn a_class_stands_out_that_chance_does_not_explain() {
        assert_eq!(
            said(&[(100, 59.0), (100, 50.0), (100, 50.0), (100, 41.0)]),
            "No single class stands out. "
        );
        assert_eq!(
            said(&[(100, 61.0), (100, 50.0), (100, 50.0), (100, 39.0)]),
            "Best: <b>c0</b> with 61.0%. Hardest: <b>c3</b> with 39.0%. "
        );
        // With four times the images half of the distance is enough, and they count four times.
        assert_eq!(
            said(&[(400, 56.0), (100, 50.0), (100, 50.0), (400, 44.0)]),
            "Best: <b>c0</b> with 56.0%. Hardest: <b>c3</b> with 44.0%. "
        );
        let hundred = |best: f64| {
            let mut classes = vec![(100, 50.0); 100];
            classes[0].1 = best;
            said(&classes)
        };
        assert_eq!(hundred(65.0), "No single class stands out. ");
        assert_eq!(hundred(65.5), "Best: <b>c0</b> with 65.5%. ");
    }
}
