//! `anello fleet`: a whole fleet on this machine, and faults by hand.
//!
//! [`mod@file`] is what a person writes, [`layout`] where everything is, [`process`] what runs; [`up`]
//! starts and watches a fleet, [`control`] reaches into it from another terminal. The two share
//! nothing but files below `./.anello/`.

mod control;
mod file;
mod hints;
mod keyspaces;
pub(crate) mod layout;
mod node_config;
mod ports;
mod probe;
mod process;
pub(crate) mod signal;
mod stop;
mod up;
mod watch;

use std::path::PathBuf;

use anello_protocol::id::{ClusterName, NodeId};
use clap::{Args, Subcommand};

use crate::{
    outcome::{Failure, Outcome},
    runtime,
};

/// What to do with fleets on this machine.
#[derive(Debug, Subcommand)]
pub(crate) enum FleetCommand {
    /// Start a fleet and watch it; Ctrl-C stops it all
    ///
    /// Everything is kept below `./.anello/<name>/`: data, certificates, config files, logs. A fleet
    /// that was up before comes up again with its data. Node i listens on 127.0.0.1, ports 7400+i
    /// (QUIC, UDP) and 7480+i (HTTP).
    Up(Up),
    /// Stop nodes in order, as before maintenance
    Stop(Which),
    /// Start nodes that are down
    Start(Which),
    /// Kill nodes at once (kill -9), as a crash would
    Kill(Which),
    /// Freeze nodes (SIGSTOP): they hold their connections and answer nothing
    Pause(Which),
    /// Let paused nodes go on
    Resume(Which),
    /// List the fleets of this directory and what their nodes are doing
    Ls(List),
}

/// What to start.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// A fleet file, such as deploy/fleets/two-dc.toml
    file: PathBuf,
    /// The first node's QUIC port, when other than 7400
    #[arg(long, value_name = "PORT", requires = "base_http_port")]
    base_quic_port: Option<u16>,
    /// The first node's HTTP port, when other than 7480
    #[arg(long, value_name = "PORT", requires = "base_quic_port")]
    base_http_port: Option<u16>,
    /// A JSON document a line, one for each thing that happens
    #[arg(long)]
    json: bool,
}

/// Which nodes.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The nodes' ids, as `anello fleet ls` shows them
    #[arg(required_unless_present = "all", value_name = "NODE")]
    nodes: Vec<NodeId>,
    /// All nodes of the fleet
    #[arg(long, conflicts_with = "nodes")]
    all: bool,
    /// The fleet's name, when more than one has such a node
    #[arg(long, value_name = "NAME")]
    fleet: Option<ClusterName>,
    /// One JSON document on standard output
    #[arg(long)]
    json: bool,
}

/// How to list.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// One JSON document instead of a table
    #[arg(long)]
    json: bool,
}

impl FleetCommand {
    /// Whether a program reads what is printed.
    pub(crate) fn wants_json(&self) -> bool {
        match self {
            FleetCommand::Up(up) => up.json,
            FleetCommand::Stop(which)
            | FleetCommand::Start(which)
            | FleetCommand::Kill(which)
            | FleetCommand::Pause(which)
            | FleetCommand::Resume(which) => which.json,
            FleetCommand::Ls(list) => list.json,
        }
    }
}

/// Does what was asked.
pub(crate) fn run(command: FleetCommand) -> Result<Outcome, Failure> {
    use control::Action;
    let act = |which: Which, action| runtime::run(control::act(which, action));
    match command {
        FleetCommand::Up(up) => runtime::run(up::run(up)),
        FleetCommand::Stop(which) => act(which, Action::Stop),
        FleetCommand::Start(which) => act(which, Action::Start),
        FleetCommand::Kill(which) => act(which, Action::Kill),
        FleetCommand::Pause(which) => act(which, Action::Pause),
        FleetCommand::Resume(which) => act(which, Action::Resume),
        FleetCommand::Ls(list) => runtime::run(control::list(list.json)),
    }
}

/// The processes of the nodes of a cluster, as far as they were started from this directory.
pub(crate) fn processes(cluster: &ClusterName) -> Result<Vec<signal::Pid>, Failure> {
    let fleets = layout::Layout::all(&home()?)?;
    let fleet = fleets.iter().find(|layout| layout.name() == cluster);
    let places =
        fleet.into_iter().flat_map(|layout| layout.nodes().iter().map(move |p| (layout, p)));
    let found = places.filter_map(|(layout, place)| process::find(layout, place.id()));
    Ok(found.map(|(pid, _)| pid).collect())
}

/// The directory that holds the fleets of the working directory.
fn home() -> Result<PathBuf, Failure> {
    std::path::absolute(layout::HOME)
        .map_err(|error| Failure::failed(format_args!("there is no working directory: {error}")))
}
