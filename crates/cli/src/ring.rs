//! `anello ring [KEY]`: who owns what; with a key, where it lives and why.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use anello_client::Replication;
use anello_protocol::{
    cluster::ClusterState,
    id::{KeyspaceName, NodeId},
    key::{Key, KeyHash},
    message::client::KeyLocation,
};
use anello_ring::{ReplicaCounts, Ring, RingMember};
use clap::Args;
use serde_json::json;

use crate::{
    connect::{Cluster, Level, Session},
    keyspace::replication_text,
    outcome::{Failure, Outcome},
    output::{self, Palette},
    table::{Align, Table},
};

/// Show who owns what; with KEY, where it lives and why
#[derive(Debug, Args)]
pub(crate) struct RingCommand {
    /// A key
    key: Option<OsString>,
    /// The keyspace
    #[arg(long, value_name = "NAME", default_value = "default")]
    keyspace: KeyspaceName,
    /// One JSON document on standard output
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    cluster: Cluster,
}

/// Shows it.
pub(crate) async fn run(command: RingCommand) -> Result<Outcome, Failure> {
    let session = command.cluster.connect(&Level::default()).await?;
    let shown = match &command.key {
        Some(key) => show_key(&session, &command, key.clone().into_vec()).await,
        None => show_all(&session, &command).await,
    };
    session.close().await;
    shown.map(|()| Outcome::Done)
}

async fn show_key(session: &Session, command: &RingCommand, key: Vec<u8>) -> Result<(), Failure> {
    let name = &command.keyspace;
    let keyspace = session.client().keyspace(name.as_str());
    let location = session.answer(keyspace.locate(&key)).await?;
    if command.json {
        return output::json(&json!({
            "partition": location.partition,
            "replicas": location.replicas,
            "fallbacks": location.fallbacks,
        }));
    }
    let state = session.answer(session.client().cluster_state()).await?;
    let key = Key::new(key).map_err(Failure::usage)?;
    let replication = state.keyspaces.get(name).map(|keyspace| &keyspace.config.replication);
    output::line(why(&state, name, &key, replication, &location))?;
    let mut table = Table::new(&[
        ("datacenter", Align::Left),
        ("rack", Align::Left),
        ("node", Align::Left),
        ("role", Align::Left),
    ]);
    for place in &location.replicas {
        let cells = [place.datacenter.as_str(), place.rack.as_str(), place.id.as_str(), "replica"];
        table.row(cells.map(Into::into));
    }
    for (at, id) in location.fallbacks.iter().enumerate() {
        let member = state.members.get(id);
        let datacenter = member.map_or("", |member| member.datacenter.as_str());
        let rack = member.map_or("", |member| member.rack.as_str());
        let role = format!("stand-in {}", at + 1);
        table.row([datacenter.into(), rack.into(), id.as_str().into(), role.into()]);
    }
    output::line(table.render(Palette::of_stdout()))
}

fn why(
    state: &ClusterState,
    name: &KeyspaceName,
    key: &Key,
    replication: Option<&Replication>,
    location: &KeyLocation,
) -> String {
    let hash = KeyHash::of(name, key).0;
    let bits = state.partitions.trailing_zeros();
    let replication = replication.map_or_else(|| "unknown".into(), replication_text);
    format!(
        "the key's hash is {hash:016x}, whose first {bits} bits name partition {} of {}; keyspace {name} \
         is replicated {replication}",
        location.partition, state.partitions
    )
}

/// What a node has of a keyspace.
struct Share<'a> {
    member: &'a RingMember,
    /// Partitions whose walk begins with it.
    owns: usize,
    /// Partitions that it is a replica of.
    holds: usize,
}

async fn show_all(session: &Session, command: &RingCommand) -> Result<(), Failure> {
    let state = session.answer(session.client().cluster_state()).await?;
    let name = &command.keyspace;
    let keyspace = state.keyspaces.get(name).ok_or_else(|| {
        Failure::failed(format_args!(
            "there is no keyspace {name}; create it with `anello keyspace create {name}`"
        ))
    })?;
    let replication = state.effective_replication(&keyspace.config.replication);
    let ring = ring_of(&state)?;
    let shares = shares(&ring, &replication);
    if command.json {
        let nodes: Vec<_> = shares
            .iter()
            .map(|Share { member, owns, holds }| {
                json!({
                    "id": member.id,
                    "datacenter": member.datacenter,
                    "rack": member.rack,
                    "weight": member.weight,
                    "owns": owns,
                    "holds": holds,
                })
            })
            .collect();
        return output::json(&json!({
            "epoch": state.epoch,
            "partitions": state.partitions,
            "keyspace": name,
            "replication": replication,
            "nodes": nodes,
            "replicas": placement(&ring, &replication),
        }));
    }
    output::line(format_args!(
        "epoch {}, {} partitions; keyspace {name} is replicated {}",
        state.epoch,
        state.partitions,
        replication_text(&keyspace.config.replication)
    ))?;
    let mut table = Table::new(&[
        ("datacenter", Align::Left),
        ("rack", Align::Left),
        ("node", Align::Left),
        ("weight", Align::Right),
        ("owns", Align::Right),
        ("holds", Align::Right),
        ("share", Align::Right),
    ]);
    for Share { member, owns, holds } in &shares {
        let share = 100.0 * *holds as f64 / f64::from(state.partitions.max(1));
        table.row([
            member.datacenter.as_str().into(),
            member.rack.as_str().into(),
            member.id.as_str().into(),
            member.weight.into(),
            owns.into(),
            holds.into(),
            format!("{share:.1} %").into(),
        ]);
    }
    output::line(table.render(Palette::of_stdout()))
}

/// The ring of a cluster's agreed state.
fn ring_of(state: &ClusterState) -> Result<Ring, Failure> {
    let members = state.owners().map(|member| RingMember {
        id: member.id.clone(),
        datacenter: member.datacenter.clone(),
        rack: member.rack.clone(),
        weight: member.weight,
    });
    Ring::build(state.epoch, state.partitions, members).map_err(|error| {
        Failure::failed(format_args!("the cluster's ring makes no sense: {error}"))
    })
}

fn shares<'a>(ring: &'a Ring, replication: &ReplicaCounts) -> Vec<Share<'a>> {
    let mut shares: Vec<_> = ring
        .members()
        .iter()
        .map(|member| Share {
            member,
            owns: ring
                .partition_ids()
                .filter(|partition| {
                    let owner = ring.owner(*partition, &member.datacenter);
                    owner.is_some_and(|owner| owner.id == member.id)
                })
                .count(),
            holds: ring.vnodes_of(&member.id, replication).len(),
        })
        .collect();
    shares.sort_by_key(|share| {
        let RingMember { datacenter, rack, id, .. } = share.member;
        (datacenter, rack, id)
    });
    shares
}

/// The replicas of every partition, by its number.
fn placement<'a>(ring: &'a Ring, replication: &ReplicaCounts) -> Vec<Vec<&'a NodeId>> {
    ring.partition_ids()
        .map(|partition| {
            let in_datacenters = replication
                .iter()
                .flat_map(|(datacenter, count)| ring.replicas(partition, datacenter, *count));
            in_datacenters.map(|member| &member.id).collect()
        })
        .collect()
}
