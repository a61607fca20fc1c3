//! Everything that the program prints, apart from progress bars.
//!
//! [`outln!`](crate::outln) and [`out!`](crate::out) print what a command was asked for: that it cannot be
//! written ends the command with an error. [`say!`](crate::say) and [`warn!`](crate::warn) tell what
//! happens along the way: a full disk or a reader who left loses their lines and nothing else.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// What was asked for could not be printed.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to the standard output: {0}")]
pub struct OutputError(#[from] io::Error);

impl OutputError {
    /// Whether the reader simply left, as `head` does when it has enough.
    pub fn reader_left(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Prints text to the standard output.
///
/// # Errors
/// [`OutputError`].
pub fn print(text: Arguments) -> Result<(), OutputError> {
    let mut stdout = io::stdout().lock();
    stdout.write_fmt(text).and_then(|()| stdout.flush()).map_err(OutputError)
}

/// Whether this process keeps to itself what it would tell along the way: others tell it.
static QUIET: AtomicBool = AtomicBool::new(false);

/// From now on only [`print()`] and [`last_words`] print.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Prints a line to the standard error output if that is possible, before the program ends.
pub fn last_words(text: Arguments) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// An error and its causes; a cause that the text before already ends in is not said again.
pub fn error_text(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match text.is_empty() {
            true => cause,
            false if text.contains(&cause) => text,
            false => format!("{text}: {cause}"),
        }
    })
}

/// Prints text to the standard output if that is possible. The first time it is not, the standard error
/// output gets a word about it.
pub fn try_print(text: Arguments) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if QUIET.load(Ordering::Relaxed) {
        return;
    }
    if let Err(why) = print(text)
        && !TOLD.swap(true, Ordering::Relaxed)
    {
        try_print_error(format_args!("note: {why}; going on without it\n"));
    }
}

/// Prints text to the standard error output if that is possible.
pub fn try_print_error(text: Arguments) {
    if QUIET.load(Ordering::Relaxed) {
        return;
    }
    // There is nobody left to tell.
    let _ = io::stderr().lock().write_fmt(text);
}

/// A line of what the command was asked for, to the standard output: gives a `Result`.
#[macro_export]
macro_rules! outln {
    ($($text:tt)*) => { $crate::cli::output::print(format_args!("{}\n", format_args!($($text)*))) };
}

/// As `outln!`, without the line's end.
#[macro_export]
macro_rules! out {
    ($($text:tt)*) => { $crate::cli::output::print(format_args!($($text)*)) };
}

/// A line about what happens, to the standard output; lost where it cannot be written.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::output::try_print(format_args!("{}\n", format_args!($($text)*))) };
}

/// A line of warning or advice, to the standard error output; lost where it cannot be written.
#[macro_export]
macro_rules! warn {
    ($($text:tt)*) => { $crate::cli::output::try_print_error(format_args!("{}\n", format_args!($($text)*))) };
}
