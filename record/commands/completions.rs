//! `bpfrec completions`: what a shell needs to complete this command line, made from it.

use std::io::Write;

use anyhow::Result;
use clap::CommandFactory;

/// Arguments of `bpfrec completions`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  source <(bpfrec completions bash)                     bash, this once
  bpfrec completions zsh > ~/.zfunc/_bpfrec             zsh, in a folder of $fpath
  bpfrec completions fish > ~/.config/fish/completions/bpfrec.fish")]
pub struct CompletionsArgs {
    /// Shell that will read them
    pub shell: clap_complete::Shell,
}

/// Runs the command.
pub fn run(args: CompletionsArgs) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::cli::Cli::command(), "bpfrec", &mut script);
    super::to_stdout(|out| {
        out.write_all(&script)?;
        Ok(super::DONE)
    })
}
