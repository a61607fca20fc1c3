//! `sld completions`.

use crate::out;
use clap::{Args, CommandFactory};
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

/// Prints the script.
pub fn run(args: CompletionsArgs) -> anyhow::Result<()> {
    let mut command = super::Cli::command();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "sld", &mut script);
    Ok(out!("{}", String::from_utf8_lossy(&script))?)
}
