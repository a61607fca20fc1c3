//! Runs the programs of the book, and writes what they print and draw to where the book includes it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs, io};

use book::{PICTURES, PROGRAMS, excerpt};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["write"] => write(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generated")),
        ["write", folder] => write(&PathBuf::from(folder)),
        [name] if PROGRAMS.iter().any(|(other, _)| *other == name) => run(name),
        _ => {
            println!("usage: book PROGRAM | book write [FOLDER]\n\nprograms:");
            PROGRAMS.iter().for_each(|(name, _)| println!("  {name}"));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str) -> io::Result<()> {
    let (_, program) = PROGRAMS.iter().find(|(other, _)| *other == name).expect("a program's name");
    program().map_err(io::Error::other)
}

/// Writes every output, picture and excerpt to a folder.
fn write(folder: &Path) -> io::Result<()> {
    for (name, _) in PROGRAMS {
        // A process of its own, because programs print.
        let printed = Command::new(env::current_exe()?).arg(name).output()?;
        if !printed.status.success() {
            return Err(io::Error::other(format!("{name}: {}", String::from_utf8_lossy(&printed.stderr))));
        }
        fs::write(folder.join(name).with_extension("txt"), printed.stdout)?;
    }
    for (name, picture) in PICTURES {
        fs::write(folder.join(name).with_extension("svg"), picture().map_err(io::Error::other)?)?;
    }
    for excerpt in excerpt::EXCERPTS {
        fs::write(folder.join(excerpt.name), excerpt.text().map_err(io::Error::other)?)?;
    }
    Ok(())
}
