//! What is said of a command line that can't be read: one line, and where the help is.

use std::{env, ffi::OsString, process::ExitCode};

use clap::{CommandFactory, error::ErrorKind};

use crate::{
    args::Cli,
    outcome::{Failure, Outcome},
};

/// Prints what was asked for (help, a version), or what is wrong.
pub(crate) fn report(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
        _ => {
            let arguments: Vec<_> = env::args_os().skip(1).collect();
            let json = arguments.iter().any(|argument| argument == "--json");
            let line =
                format!("{}; see `{} --help`", one_line(&error.to_string()), command(&arguments));
            Outcome::report(Err(Failure::usage(line)), json)
        }
    }
}

/// The first paragraph as one line: tips and usage come after it.
fn one_line(error: &str) -> String {
    let paragraph = error.split("\n\n").next().unwrap_or_default();
    let words: Vec<_> = paragraph.split_whitespace().collect();
    words.join(" ").trim_start_matches("error: ").into()
}

/// The command that was meant, as far as there is one of that name: `anello fleet stop`.
fn command(arguments: &[OsString]) -> String {
    let root = Cli::command();
    let (mut at, mut path) = (&root, String::from("anello"));
    for argument in arguments {
        let Some(next) = at.find_subcommand(argument) else { break };
        path = format!("{path} {}", next.get_name());
        at = next;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_is_that_of_the_command() {
        for (arguments, expected) in [
            (&["fleet", "stop", "get"][..], "anello fleet stop"),
            (&["put", "get"], "anello put"),
            (&["nonsense"], "anello"),
            (&[], "anello"),
        ] {
            let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
            assert_eq!(command(&arguments), expected);
        }
    }

    #[test]
    fn tips_and_usage_are_left_out() {
        let error = "error: the following were not provided:\n  <KEY>\n  <FILE>\n\nUsage: x";
        assert_eq!(one_line(error), "the following were not provided: <KEY> <FILE>");
    }
}
