//! `worklog.txt`, byte for byte as the reference writes it.

use super::change::Change;
use super::metrics::EpochMetrics;
use std::fmt::Write;

const DASHES: &str = "-------------------------";

/// The block of an epoch. Two decimals throughout: a learning rate of 0.025 reads 0.03 (Python, too,
/// rounds the binary number 0.025000000000000001), later ones 0.00.
pub fn epoch(metrics: &EpochMetrics) -> String {
    let (train, test) = (&metrics.train, &metrics.test);
    let mut text = format!("{DASHES}\nepoch: {}\n", metrics.epoch);
    for (name, value) in [
        ("lr", metrics.lr),
        ("train_acc", train.top1),
        ("train_loss", train.loss),
        ("test_acc", test.top1),
        ("test_acc_top5", test.top5),
        ("test_loss", test.loss),
    ] {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}: {value:.2}");
    }
    text + DASHES + "\n"
}

/// The blocks of all epochs; before one from which a setting is another, a line that says so. The
/// reference has no such line: its runs change without a word.
pub fn epochs(history: &[EpochMetrics], changes: &[Change]) -> String {
    let block = |metrics: &EpochMetrics| {
        let here = changes.iter().filter(|change| change.epoch == metrics.epoch);
        here.map(|change| format!("changed: {change}\n")).collect::<String>() + &epoch(metrics)
    };
    history.iter().map(block).collect()
}

/// The end of a finished run's log: top-1 on the test images of the best epoch. Without a line end, as the
/// reference's.
pub fn end(best_top1: f64) -> String {
    format!("best_acc\t{best_top1:.2}")
}
