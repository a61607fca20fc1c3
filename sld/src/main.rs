//! The `sld` program.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    keep_mesa_from_looking_for_a_screen();
    end_quietly_when_the_reader_leaves();
    match sld::cli::run(sld::cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {}", message(&why));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes; a cause that the text before already ends in is not said again.
fn message(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match text.is_empty() {
            true => cause,
            false if text.contains(&cause) => text,
            false => format!("{text}: {cause}"),
        }
    })
}

/// `sld explain ... | head` closes the pipe early, which makes `println` panic: an end, not an accident.
fn end_quietly_when_the_reader_leaves() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.payload().downcast_ref::<String>().map_or("", String::as_str);
        if text.starts_with("failed printing to stdout") && text.contains("Broken pipe") {
            // As a shell counts the end by SIGPIPE.
            std::process::exit(141);
        }
        usual(info);
    }));
}

/// Where nobody is logged in at a screen (containers, servers), Mesa's device selection looks for one when
/// GPUs are listed and writes an `error:` that is none. This program chooses the GPU itself.
fn keep_mesa_from_looking_for_a_screen() {
    if cfg!(target_os = "linux") && std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: the first statement of `main`; no other thread can be reading the environment.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
