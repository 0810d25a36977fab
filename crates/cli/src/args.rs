//! The command line: which commands there are. What each one takes is in its own file.

use clap::{Parser, Subcommand};

use crate::{
    bench::Bench,
    completions::Completions,
    data::{Delete, Get, Put},
    fleet::FleetCommand,
    import::Import,
    keyspace::KeyspaceCommand,
    node::NodeCommand,
    repair::Repair,
    ring::RingCommand,
    status::Status,
    tls::command::TlsCommand,
};

/// Talks to an Anello cluster, and runs one on this machine.
#[derive(Debug, Parser)]
#[command(name = "anello", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "\
Where and as whom: --profile FILE, else $ANELLO_PROFILE, else ./.anello/profile.toml (which
`anello fleet up` writes), else ~/.config/anello/profile.toml.
Exit codes: 0 done, 1 failed, 2 bad usage, 3 siblings, 4 not found, 5 too few replicas.")]
pub(crate) struct Cli {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Put(Put),
    Get(Get),
    Delete(Delete),
    Status(Status),
    Repair(Repair),
    Ring(RingCommand),
    /// Create, list, alter or drop keyspaces
    #[command(subcommand)]
    Keyspace(KeyspaceCommand),
    /// Let nodes join, leave, be removed or replaced, get another weight; each with a plan first
    #[command(subcommand)]
    Node(NodeCommand),
    Import(Import),
    Bench(Box<Bench>),
    /// Make the cluster's certificate authority and its certificates
    #[command(subcommand)]
    Tls(TlsCommand),
    /// Run a whole fleet on this machine, and break it by hand
    #[command(subcommand)]
    Fleet(FleetCommand),
    Completions(Completions),
}

impl Command {
    /// Whether a program reads what the command prints.
    pub(crate) fn wants_json(&self) -> bool {
        match self {
            Command::Put(command) => command.common.wants_json(),
            Command::Get(command) => command.common.wants_json(),
            Command::Delete(command) => command.common.wants_json(),
            Command::Status(command) => command.json,
            Command::Repair(command) => command.json,
            Command::Ring(command) => command.json,
            Command::Keyspace(command) => command.wants_json(),
            Command::Node(command) => command.wants_json(),
            Command::Import(command) => command.json,
            Command::Bench(command) => command.json,
            Command::Tls(command) => command.wants_json(),
            Command::Fleet(command) => command.wants_json(),
            Command::Completions(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
