//! The `sld` program.

use clap::Parser;
use sld::cli;
use sld::cli::interrupt::{self, Interrupted};
use sld::cli::output::{OutputError, error_text, last_words};
use std::process::ExitCode;

fn main() -> ExitCode {
    keep_mesa_from_looking_for_a_screen();
    interrupt::listen();
    match run() {
        Ok(code) => code,
        Err(why) => exit_code(&why),
    }
}

fn run() -> anyhow::Result<ExitCode> {
    match cli::Cli::try_parse() {
        Ok(arguments) => cli::run(arguments).map(|()| ExitCode::SUCCESS),
        Err(said) => {
            let printed = said.print();
            if !said.use_stderr() {
                // Help and version are what was asked for.
                printed.map_err(OutputError::from)?;
            }
            Ok(ExitCode::from(said.exit_code() as u8))
        }
    }
}

/// Tells of the error, where there is something to tell.
fn exit_code(why: &anyhow::Error) -> ExitCode {
    if let Some(interrupted) = why.downcast_ref::<Interrupted>() {
        return interrupted.exit_code();
    }
    if why.downcast_ref::<OutputError>().is_some_and(OutputError::reader_left) {
        // `sld explain ... | head`: as a shell counts the end by SIGPIPE.
        return ExitCode::from(141);
    }
    last_words(format_args!("error: {}", error_text(why)));
    ExitCode::FAILURE
}

/// Where nobody is logged in at a screen (containers, servers), Mesa's device selection looks for one when
/// GPUs are listed and writes an `error:` that is none. This program chooses the GPU itself.
fn keep_mesa_from_looking_for_a_screen() {
    if cfg!(target_os = "linux") && std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: the first statement of `main`; no other thread can be reading the environment.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
