//! `anello ring [KEY]`: who owns what; with a key, where it lives and why.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, sync::Arc};

use anello_client::Replication;
use anello_protocol::{
    cluster::{ClusterState, Member},
    id::{KeyspaceName, NodeId},
    key::{Key, KeyHash},
    message::client::KeyLocation,
};
use anello_ring::view::{KeyspaceView, View};
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
    member: &'a Member,
    /// Partitions whose walk begins with it, or will once the change that is under way is through.
    owns: usize,
    /// Partitions that it is a replica of.
    holds: usize,
}

async fn show_all(session: &Session, command: &RingCommand) -> Result<(), Failure> {
    let state = Arc::new(session.answer(session.client().cluster_state()).await?);
    let name = &command.keyspace;
    let view = View::of(Arc::clone(&state)).map_err(|error| {
        Failure::failed(format_args!("the cluster's ring makes no sense: {error}"))
    })?;
    let keyspace = view.keyspace(name).ok_or_else(|| {
        Failure::failed(format_args!(
            "there is no keyspace {name}; create it with `anello keyspace create {name}`"
        ))
    })?;
    let shares = shares(&view, keyspace);
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
            "replication": *keyspace.replication,
            "nodes": nodes,
            "replicas": placement(&view, keyspace),
            "change": state.change.as_ref().map(|change| change.purpose.to_string()),
        }));
    }
    output::line(format_args!(
        "epoch {}, {} partitions; keyspace {name} is replicated {}",
        state.epoch,
        state.partitions,
        replication_text(&keyspace.config.replication)
    ))?;
    if let Some(change) = &state.change {
        output::line(format_args!(
            "under way: {}; what moves is held by old and new owners till it is through",
            change.purpose
        ))?;
    }
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

/// Members that own something or hold something yet, by datacenter and rack.
fn shares<'a>(view: &'a View, keyspace: &KeyspaceView) -> Vec<Share<'a>> {
    let ring = view.ring();
    let share = |member: &'a Member| Share {
        member,
        owns: ring
            .partition_ids()
            .filter(|partition| {
                let owner = ring.owner(*partition, &member.datacenter);
                owner.is_some_and(|owner| owner.id == member.id)
            })
            .count(),
        holds: view.held_in(keyspace, &member.id).len(),
    };
    let shares = view.cluster().members.values().map(share);
    let is_there = |share: &Share<'_>| share.holds > 0 || ring.member(&share.member.id).is_some();
    let mut shares: Vec<_> = shares.filter(is_there).collect();
    shares.sort_by_key(|share| {
        let Member { datacenter, rack, id, .. } = share.member;
        (datacenter, rack, id)
    });
    shares
}

/// The replicas of every partition, by its number: who holds it and is written to.
fn placement<'a>(view: &'a View, keyspace: &'a KeyspaceView) -> Vec<Vec<&'a NodeId>> {
    let partitions = view.ring().partition_ids();
    partitions
        .map(|partition| {
            let placement = view.placement_of(keyspace, partition);
            placement.replicas.iter().map(|place| &place.id).collect()
        })
        .collect()
}
