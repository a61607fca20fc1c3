//! The page: header, sections, style and script.

use super::html::{count, date, duration, escape, millions, percent};
use super::run::Run;
use super::{classes, comparison, confusion, curves, swap};
use crate::run::exhausted;
use std::fmt::Write;
use std::time::UNIX_EPOCH;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The whole document about runs, together where they were tested on the same images.
pub fn page(groups: &[Vec<Run>]) -> String {
    let runs: usize = groups.iter().map(Vec::len).sum();
    let (title, body) = match groups {
        [group] => match group.as_slice() {
            [run] => (title(run), header(run) + &details(run)),
            runs => (format!("{} runs side by side", runs.len()), several(runs)),
        },
        groups => (format!("{runs} runs on {} data sets", groups.len()), apart(groups)),
    };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{body}<footer>Written by sld {} on {}. This file needs nothing beside it.</footer>\n</main>\n\
         <div id=\"tip\" hidden></div>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        escape(&title),
        escape(crate::VERSION),
        date(UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()),
    )
}

fn title(run: &Run) -> String {
    match &run.info.teacher {
        Some(teacher) => format!("{} \u{2192} {}", teacher.name, run.info.student.name),
        None => run.info.student.name.clone(),
    }
}

/// Runs on several data sets: each set's for themselves.
fn apart(groups: &[Vec<Run>]) -> String {
    let names: Vec<String> = groups.iter().map(|group| data(group, groups)).collect();
    let mut body = format!(
        "<header><h1>{} runs on {} data sets</h1><p class=\"lead\">They were not tested on the same images, so <b>they \
         are not ranked together</b>: {}.</p></header>\n",
        groups.iter().map(Vec::len).sum::<usize>(),
        groups.len(),
        names.join("; "),
    );
    for (group, name) in groups.iter().zip(names) {
        body += &match group.as_slice() {
            [_] => format!("<header class=\"part\"><h1>{name}</h1></header>\n") + &folded(group, &[0]),
            runs => several(runs),
        };
    }
    body
}

/// A group's test images in words, with their checksum where another group's go by the same.
fn data(group: &[Run], groups: &[Vec<Run>]) -> String {
    let words = |run: &Run| format!("{} ({} test images)", run.info.dataset, count(run.info.test_images));
    let own = words(&group[0]);
    let twins = groups.iter().filter(|group| words(&group[0]) == own).count();
    match twins {
        1 => escape(&own),
        _ => format!("{}, checksum {}", escape(&own), escape(&group[0].info.test_digest)),
    }
}

/// Runs on one data set.
fn several(runs: &[Run]) -> String {
    let roles = comparison::Roles::new(runs);
    format!(
        "<header class=\"part\"><p class=\"kicker\">{}</p><h1>{} runs side by side</h1><p class=\"lead\">{}</p></header>\n{}{}",
        escape(&runs[0].info.dataset),
        runs.len(),
        comparison::sentence(runs, &roles),
        comparison::section(runs, &roles),
        folded(runs, &roles.colours),
    )
}

/// Each run's own part, folded.
fn folded(runs: &[Run], colours: &[usize]) -> String {
    let mut body = String::new();
    // The run about which there is most to see lies open.
    let top1 = |i: &usize| runs[*i].best().test.top1;
    let swapping = (0..runs.len()).filter(|&i| runs[i].last().swap.is_some());
    let open = swapping.max_by(|a, b| top1(a).total_cmp(&top1(b))).or((runs.len() == 1).then_some(0));
    for (i, run) in runs.iter().enumerate() {
        let _ = writeln!(
            body,
            "<details class=\"run\"{}><summary><i class=\"swatch c{}\"></i><span>{}</span><small>{}, best {}</small></summary>{}{}</details>",
            if open == Some(i) { " open" } else { "" },
            colours[i] % 8,
            escape(&run.name),
            escape(&run.method()),
            percent(run.best().test.top1),
            header(run),
            details(run)
        );
    }
    body
}

fn header(run: &Run) -> String {
    let (best, last) = (run.best(), run.last());
    let mut tiles = String::new();
    let mut tile = |class: &str, value: String, what: String| {
        let _ = write!(tiles, "<div class=\"tile {class}\"><b>{value}</b><span>{what}</span></div>");
    };
    tile("main", percent(best.test.top1), format!("best top-1, epoch {}", best.epoch));
    tile("", percent(last.test.top1), format!("top-1 at the end, epoch {}", last.epoch));
    tile("", percent(last.test.top5), "top-5 at the end".into());
    if let Some(top1) = run.info.teacher.as_ref().and_then(|teacher| teacher.top1) {
        tile("", percent(top1), "the teacher's top-1".into());
    }
    tile("", duration(run.seconds()), format!("{} epochs", run.metrics.len()));
    format!(
        "<header><p class=\"kicker\">{} \u{b7} {}</p><h1>{}</h1><p class=\"lead\">{}</p><div class=\"tiles\">{tiles}</div></header>\n",
        escape(&run.method()),
        escape(&run.info.dataset),
        escape(&title(run)),
        sentence(run),
    )
}

/// The run in a few sentences.
fn sentence(run: &Run) -> String {
    let info = &run.info;
    let student =
        format!("<b>{}</b> ({} parameters)", escape(&info.student.name), millions(info.student.parameters));
    let mut text = match &info.teacher {
        Some(teacher) => format!(
            "{student} learned from <b>{}</b> ({} parameters)",
            escape(&teacher.name),
            millions(teacher.parameters)
        ),
        None => format!("{student} learned without a teacher"),
    };
    let _ = write!(
        text,
        " on {} training images of {}, in batches of {}, on {}. ",
        count(info.train_images),
        escape(&info.dataset),
        info.batch_size,
        escape(&info.device),
    );
    if let Some(epoch) = exhausted(&run.metrics, info.patience) {
        let _ = write!(
            text,
            "It was stopped early, after {} of {} epochs: none since epoch {epoch} was better. ",
            run.last().epoch,
            info.epochs
        );
    } else if run.epochs_left() > 0 {
        let _ =
            write!(text, "<b>The run is not finished</b>: epoch {} of {}. ", run.last().epoch, info.epochs);
    }
    if info.validation_images > 0 {
        let held = count(info.validation_images);
        let _ = write!(text, "The best epoch was chosen on {held} training images that were held out.");
    } else {
        let held = count(info.test_images);
        let _ = write!(
            text,
            "The best epoch was chosen on the {held} test images themselves, as is usual in this field: read it as a little too good, and the end as it is."
        );
    }
    text
}

fn details(run: &Run) -> String {
    let mut body = format!(
        "<section><h2>How it went</h2><div class=\"grid2\">{}</div></section>\n",
        curves::charts(run)
    );
    body += &swap::section(run).unwrap_or_default();
    if let Some(evaluation) = run.evaluation.as_ref().filter(|evaluation| !evaluation.classes.is_empty()) {
        body += &classes::section(evaluation);
        body += &confusion::section(evaluation);
    }
    body + &settings(run)
}

fn settings(run: &Run) -> String {
    let mut rows = String::new();
    for setting in &run.info.settings {
        let (key, value) = setting.split_once(": ").unwrap_or((setting, ""));
        let _ = write!(
            rows,
            "<tr><td><code>{}</code></td><td><code>{}</code></td></tr>",
            escape(key),
            escape(value)
        );
    }
    for change in &run.info.changes {
        let _ = write!(
            rows,
            "<tr><td><code>{}</code></td><td><code>{}</code> until epoch {}, then <code>{}</code></td></tr>",
            escape(&change.key),
            escape(&change.from),
            change.epoch.saturating_sub(1),
            escape(&change.to)
        );
    }
    format!(
        "<section><h2>Settings</h2><div class=\"card\"><p>What differs from the defaults. Seed {}; trained by sld {}{}.</p>\
         <table class=\"settings\"><tbody>{rows}</tbody></table>\
         <details><summary>The whole config</summary><pre>{}</pre></details></div></section>\n",
        run.info.seed,
        escape(&run.info.version),
        match run.info.started {
            0 => String::new(),
            started => format!(", begun on {}", date(started)),
        },
        escape(&run.config),
    )
}
