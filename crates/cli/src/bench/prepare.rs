//! Before anything is measured: the keyspace is there, and it is known where the nodes are.

use std::time::{Duration, Instant};

use anello_client::{Client, ConflictRule, KeyspaceConfig};
use anello_protocol::{
    id::Epoch,
    message::admin::{ClusterView, NodeView},
};
use tokio::time::sleep;

use super::Bench;
use crate::{
    fleet::{self, signal::Pid},
    outcome::Failure,
    output,
};

/// How long nodes have to hear of a new keyspace.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

/// What the phases go by.
pub(super) struct Prepared {
    /// Whether the keyspace was created here, and so is empty.
    pub(super) is_new: bool,
    /// Where nodes serve HTTP: those of the client's own datacenter, if it has some.
    pub(super) http: Vec<String>,
    /// The nodes' processes, as far as they are on this machine.
    pub(super) servers: Vec<Pid>,
}

/// Prepares.
pub(super) async fn prepare(command: &Bench) -> Result<Prepared, Failure> {
    let client = command.cluster.connect_with(|builder| builder).await?;
    let is_new = keyspace(command, &client).await?;
    let view = client.cluster().await?;
    client.close().await;
    let own = command.cluster.datacenter()?;
    let near = |node: &&NodeView| own.as_ref().is_none_or(|own| *own == node.datacenter);
    let reachable = || view.nodes.iter().filter(|node| node.reachable);
    let mut http: Vec<_> = reachable().filter(near).map(|node| node.http.clone()).collect();
    if http.is_empty() {
        http = reachable().map(|node| node.http.clone()).collect();
    }
    let servers = match &command.server_pid[..] {
        [] => fleet::processes(&view.name)?,
        named => named.to_vec(),
    };
    Ok(Prepared { is_new, http, servers })
}

/// Makes sure of the keyspace; whether it is new.
async fn keyspace(command: &Bench, client: &Client) -> Result<bool, Failure> {
    let name = &command.keyspace;
    let writes = command.load || command.mix().writes();
    match client.keyspaces().await?.get(name) {
        Some(config) if config.conflict == ConflictRule::Siblings && writes => {
            Err(Failure::usage(format_args!(
                "keyspace {name} keeps siblings, and the benchmark's blind updates would pile them up: name one in which the last write wins (`anello keyspace create NAME --conflict lww`), or leave --keyspace out"
            )))
        }
        Some(_) => Ok(false),
        None => {
            let config = KeyspaceConfig { conflict: ConflictRule::Lww, ..Default::default() };
            let set = client.set_keyspace(name.as_str(), config).await;
            let epoch = set.map_err(Failure::of_change)?;
            known_everywhere(client, epoch).await?;
            output::note(format_args!("created keyspace {name}, in which the last write wins"));
            Ok(true)
        }
    }
}

async fn known_everywhere(client: &Client, epoch: Epoch) -> Result<(), Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        let view = client.cluster().await?;
        if behind(client, &view, epoch).await.is_none() {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(Failure::failed("not all nodes have heard of the new keyspace; try again"));
        }
        sleep(PAUSE).await;
    }
}

/// A node that has not heard of the epoch yet.
async fn behind<'a>(client: &Client, view: &'a ClusterView, epoch: Epoch) -> Option<&'a NodeView> {
    for node in view.nodes.iter().filter(|node| node.reachable) {
        match client.to_node(&node.quic).status().await {
            Ok(status) if status.epoch >= epoch => {}
            _ => return Some(node),
        }
    }
    None
}
