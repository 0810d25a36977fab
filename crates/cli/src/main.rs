//! `anello`: what a person types to talk to a cluster, and to run one on this machine.
//!
//! Each command has a file of its own; [`args`] says which there are. A command returns how it ended,
//! and this file alone turns that into a line on stderr and an exit code.

mod args;
mod bench;
mod completions;
mod connect;
mod data;
mod fleet;
mod import;
mod interrupt;
mod keyspace;
mod node;
mod outcome;
mod output;
mod progress;
mod repair;
mod ring;
mod runtime;
mod status;
mod table;
mod tls;
mod usage;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use outcome::Outcome;

fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => return usage::report(&error),
    };
    let json = command.wants_json();
    let ended = match command {
        Command::Put(command) => runtime::run(data::put(command)),
        Command::Get(command) => runtime::run(data::get(command)),
        Command::Delete(command) => runtime::run(data::delete(command)),
        Command::Status(command) => runtime::run(status::run(command)),
        Command::Repair(command) => runtime::run(repair::run(command)),
        Command::Ring(command) => runtime::run(ring::run(command)),
        Command::Keyspace(command) => runtime::run(keyspace::run(command)),
        Command::Node(command) => runtime::run(node::run(command)),
        Command::Import(command) => runtime::run(import::run(command)),
        Command::Bench(command) => bench::run(*command),
        Command::Tls(command) => tls::command::run(command),
        Command::Fleet(command) => fleet::run(command),
        Command::Completions(command) => completions::run(&command),
    };
    Outcome::report(ended, json)
}
