//! `sld completions`.

use crate::out;
use clap::{Args, Command};
use clap_complete::Shell;

const EXAMPLES: &str = "\
Examples:
  bash:  sld completions bash > ~/.local/share/bash-completion/completions/sld
  zsh:   sld completions zsh  > ~/.zfunc/_sld        (with ~/.zfunc in $fpath)
  fish:  sld completions fish > ~/.config/fish/completions/sld.fish";

/// Print the completion script of a shell.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: Shell,
}

/// Prints the script for the program whose commands these are.
pub fn run(args: CompletionsArgs, mut program: Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "sld", &mut script);
    Ok(out!("{}", String::from_utf8_lossy(&script))?)
}
