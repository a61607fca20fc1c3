//! What a training run shows: a bar that moves, and a line an epoch.
//!
//! Lines are columns under a head. As many are shown as the terminal is wide, the most important ones
//! longest; where the output is no terminal, those that fit 80 columns, always the same.

use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressStyle};

use crate::number;
use crate::say;
use crate::training::{EpochResult, Expected, Metric, StepResult};

/// Columns of an output that is no terminal.
const WIDTH: usize = 80;
/// Lines between two heads on a terminal, where the first scrolls away.
const LINES_PER_HEAD: usize = 24;
/// Steps that are timed for the first word on how long it will take, or as many (two at least) as are done in so many
/// seconds.
const TIMED_STEPS: usize = 10;
const TIMED_SECONDS: f64 = 3.0;

/// A number of an epoch.
struct Column {
    head: [&'static str; 2],
    width: usize,
    /// The narrower the terminal, the fewer are shown, from 0 on.
    rank: usize,
    show: fn(&EpochResult) -> Option<String>,
}

const COLUMNS: [Column; 8] = [
    Column { head: ["", "lr"], width: 8, rank: 6, show: |r| Some(number::short(r.rate)) },
    Column { head: ["train", "loss"], width: 7, rank: 2, show: |r| Some(format!("{:.4}", r.train_loss())) },
    Column { head: ["train", "top-1"], width: 7, rank: 5, show: |r| Some(percent(r.train_top1())) },
    Column {
        head: ["held-out", "top-1"],
        width: 8,
        rank: 1,
        show: |r| r.held_out.as_ref().map(|e| percent(e.top1())),
    },
    Column { head: ["test", "loss"], width: 7, rank: 4, show: |r| Some(format!("{:.4}", r.test.loss)) },
    Column { head: ["test", "top-1"], width: 7, rank: 0, show: |r| Some(percent(r.test.top1())) },
    Column { head: ["test", "top-5"], width: 7, rank: 3, show: |r| Some(percent(r.test.top5())) },
    Column {
        head: ["images", "a second"],
        width: 8,
        rank: 7,
        show: |r| Some(format!("{:.0}", r.images_per_second)),
    },
];

/// The columns of a line, and what stands before and after them.
const FIRST: usize = "epoch 240".len();
const GAP: usize = 2;
const BEST: &str = "  best";

/// The columns that fit a width.
fn columns(result: &EpochResult, width: usize) -> Vec<&'static Column> {
    let mut there: Vec<&Column> = COLUMNS.iter().filter(|column| (column.show)(result).is_some()).collect();
    let total = |columns: &[&Column]| {
        FIRST + BEST.len() + columns.iter().map(|column| GAP + column.width).sum::<usize>()
    };
    while total(&there) > width
        && let Some(least) = there.iter().map(|column| column.rank).max()
        && there.len() > 1
    {
        there.retain(|column| column.rank != least);
    }
    there
}

fn head(columns: &[&Column]) -> String {
    let line = |first: &str, at: usize| {
        let cells = columns.iter().map(|column| format!("  {:>1$}", column.head[at], column.width));
        format!("{first:<FIRST$}{}", cells.collect::<String>())
    };
    format!("{}\n{}", line("#", 0), line("#", 1))
}

fn line(result: &EpochResult, columns: &[&Column], is_best: bool) -> String {
    let cells = columns.iter().map(|column| {
        let text = (column.show)(result).unwrap_or_default();
        format!("  {text:>0$}", column.width)
    });
    let best = if is_best { BEST } else { "" };
    format!("epoch {:>3}{}{best}", result.epoch, cells.collect::<String>())
}

fn percent(value: f64) -> String {
    format!("{value:.2}%")
}

/// A bar that counts to `total` things.
pub fn counting(total: u64, things: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{{bar:30}} {{pos}} of {{len}} {things}  {{eta}}"));
    let bar = ProgressBar::new(total);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// A duration as hours, minutes and seconds: "1:02:03", "2:03".
pub fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// The bar's message: of its parts, in the order of importance, what fits; shown in the order of `parts`.
fn message(parts: &[(usize, String)], width: usize) -> String {
    let mut by_rank: Vec<&(usize, String)> = parts.iter().collect();
    by_rank.sort_by_key(|part| part.0);
    let mut free = width;
    let mut shown = Vec::new();
    for (rank, text) in by_rank {
        let needed = text.len() + if shown.is_empty() { 0 } else { GAP };
        if needed > free {
            break;
        }
        free -= needed;
        shown.push(*rank);
    }
    let words: Vec<&str> =
        parts.iter().filter(|part| shown.contains(&part.0)).map(|part| part.1.as_str()).collect();
    words.join("  ")
}

/// How fast steps are, since this process took up the epoch in work.
struct Pace {
    started: Instant,
    /// Images of the epoch that were done when the clock started: with the first step, which says nothing
    /// about speed yet.
    before: usize,
    steps: usize,
}

pub struct Terminal {
    epochs: usize,
    /// Whether the run may end before.
    may_end: bool,
    bar: ProgressBar,
    drawn: Option<Instant>,
    pace: Option<Pace>,
    /// Whether a first estimate of the duration was given.
    estimated: bool,
    /// Of the last evaluation; before it, what it will be.
    evaluation_seconds: f64,
    /// The head that stands above, and the lines since.
    head: String,
    lines: usize,
}

impl Terminal {
    pub fn new(epochs: usize, may_end: bool) -> Terminal {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        Terminal {
            epochs,
            may_end,
            bar,
            drawn: None,
            pace: None,
            estimated: false,
            evaluation_seconds: 0.0,
            head: String::new(),
            lines: 0,
        }
    }

    /// Before the first step.
    pub fn begins(&mut self, expected: Expected) {
        self.evaluation_seconds = expected.evaluation;
        if expected.all > 0.0 {
            self.say(&format!("# about {} in all, to judge by an evaluation", clock(expected.all)));
        }
    }

    /// After a step.
    pub fn step(&mut self, result: &StepResult) {
        let pace = self.pace.get_or_insert_with(|| Pace {
            started: Instant::now(),
            before: result.images,
            steps: 0,
        });
        pace.steps += usize::from(result.images > pace.before);
        let (seconds, done) = (pace.started.elapsed().as_secs_f64(), (result.images - pace.before) as f64);
        let epochs_left = self.epochs.saturating_sub(result.epoch);
        let images_left = result.epoch_images - result.images + epochs_left * result.epoch_images;
        let evaluations = (epochs_left + 1) as f64 * self.evaluation_seconds;
        let left = (done > 0.0).then(|| clock(images_left as f64 * seconds / done + evaluations));
        let speed = done / seconds.max(1e-9);

        if let Some(left) = &left
            && !self.estimated
            && (pace.steps >= TIMED_STEPS
                || (pace.steps >= 2 && seconds > TIMED_SECONDS)
                || result.batch == result.batches)
        {
            self.estimated = true;
            let evaluations = clock(evaluations);
            let less = if self.may_end { "; less if it ends early" } else { "" };
            self.say(&format!(
                "# {speed:.0} images a second: about {left} left, {evaluations} of it for evaluations{less}"
            ));
        }
        let due = self.drawn.is_none_or(|at| at.elapsed() > Duration::from_millis(100));
        if self.bar.is_hidden() || (!due && result.batch < result.batches) {
            return;
        }
        self.drawn = Some(Instant::now());
        let mean = |wanted: Metric| result.means.iter().find(|m| m.0 == wanted).map_or(f64::NAN, |m| m.1);
        let mut parts = vec![
            (1, format!("loss {:.3}", mean(Metric::Loss))),
            (3, format!("top-1 {:.1}%", 100.0 * mean(Metric::Top1))),
        ];
        // The first step begins the clock and says nothing about speed yet.
        if let Some(left) = left {
            parts.push((2, format!("{speed:.0} images/s")));
            parts.push((0, format!("{left} left")));
        }
        let prefix = format!("epoch {}/{}", result.epoch, self.epochs);
        let place = format!("{}/{}", result.batch, result.batches);
        let width = width(&Term::stderr());
        // Between them: three spaces, and a bar of some length where the terminal is not narrow.
        let bar = if width < 60 { 0 } else { 8 };
        let free = width.saturating_sub(prefix.len() + place.len() + 4 + bar);
        self.bar.set_length(result.batches as u64);
        self.bar.set_position(result.batch as u64);
        self.bar.set_prefix(prefix);
        self.bar.set_message(message(&parts, free));
    }

    /// After an epoch.
    pub fn epoch(&mut self, result: &EpochResult, is_best: bool) {
        self.pace = None;
        self.evaluation_seconds = result.evaluation_seconds;
        let columns = columns(result, width(&Term::stdout()));
        let head = head(&columns);
        if head != self.head || (Term::stdout().is_term() && self.lines == LINES_PER_HEAD) {
            self.say(&head);
            (self.head, self.lines) = (head, 0);
        }
        self.lines += 1;
        self.say(&line(result, &columns, is_best));
    }

    /// Leaves nothing of the bar.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Leaves the bar where it stands.
    pub fn abandon(&self) {
        self.bar.abandon();
    }

    /// A line above the bar.
    fn say(&self, text: &str) {
        self.bar.suspend(|| say!("{text}"));
    }
}

/// Columns of a terminal; of anything else, [`WIDTH`].
fn width(term: &Term) -> usize {
    match term.is_term() {
        true => term.size_checked().map_or(WIDTH, |(_, columns)| usize::from(columns)),
        false => WIDTH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::Evaluation;

    fn result(held_out: bool) -> EpochResult {
        let test = Evaluation {
            images: 1000,
            top1_correct: 1000,
            top5_correct: 1000,
            loss: 12.3456,
            ..Default::default()
        };
        EpochResult {
            epoch: 240,
            rate: 0.1 * 0.1 * 0.1 * 0.1 * 0.25,
            train: vec![(Metric::Loss, 12.3456), (Metric::Top1, 1.0), (Metric::Top5, 1.0)],
            held_out: held_out.then(|| test.clone()),
            test,
            images_per_second: 12345.6,
            ..Default::default()
        }
    }

    #[test]
    fn durations_read_as_a_clock_shows_them() {
        for (seconds, shown) in [(0.4, "0:00"), (59.6, "1:00"), (754.0, "12:34"), (3_723.0, "1:02:03")] {
            assert_eq!(clock(seconds), shown);
        }
        assert_eq!(clock(90_000.0), "25:00:00");
    }

    #[test]
    fn lines_fit_and_keep_what_matters() {
        for (held_out, width) in [false, true].into_iter().flat_map(|h| (36..120).map(move |w| (h, w))) {
            let result = result(held_out);
            let columns = columns(&result, width);
            let text = line(&result, &columns, true);
            assert!(text.len() <= width, "{} > {width}: {text}", text.len());
            for head in head(&columns).lines() {
                assert!(head.len() <= width, "{head}");
            }
            let has = |rank| columns.iter().any(|column| column.rank == rank);
            assert!(has(0) && (!held_out || has(1)) && (width < 80 || has(6)), "{text}");
        }
    }

    #[test]
    fn columns_stand_under_their_heads() {
        let result = result(false);
        let columns = columns(&result, 80);
        let (head, line) = (head(&columns), line(&result, &columns, false));
        let second = head.lines().nth(1).unwrap();
        assert_eq!(second.len(), line.len());
        for (at, _) in second.match_indices("top-1") {
            assert_eq!(&line[at + 4..at + 5], "%", "{head}\n{line}");
        }
    }

    #[test]
    fn the_bar_keeps_the_time_left_longest() {
        let parts = [(1, "loss 3.048".to_string()), (2, "414 images/s".into()), (0, "1:02:03 left".into())];
        assert_eq!(message(&parts, 80), "loss 3.048  414 images/s  1:02:03 left");
        assert_eq!(message(&parts, 24), "loss 3.048  1:02:03 left");
        assert_eq!(message(&parts, 23), "1:02:03 left");
        assert_eq!(message(&parts, 5), "");
    }
}
