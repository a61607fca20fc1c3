//! The `sld` program.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match sld::cli::run(sld::cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why:#}");
            ExitCode::FAILURE
        }
    }
}
