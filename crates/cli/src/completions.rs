//! `anello completions SHELL`: a script that completes commands, flags and their values.

use std::io;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{
    args::Cli,
    outcome::{Failure, Outcome},
    output,
};

/// Print a script that completes `anello`'s commands and flags
///
/// bash: source <(anello completions bash) · fish: anello completions fish | source
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell to complete in
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(command: &Completions) -> Result<Outcome, Failure> {
    let mut script = io::Cursor::new(Vec::new());
    clap_complete::generate(command.shell, &mut Cli::command(), "anello", &mut script);
    output::bytes(script.get_ref())?;
    Ok(Outcome::Done)
}
