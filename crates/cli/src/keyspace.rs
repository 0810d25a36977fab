//! `anello keyspace create|list|alter|drop`: replication, conflict rule, defaults.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, IsTerminal},
};

use anello_client::{ConflictRule, Consistency, KeyspaceConfig, Replication};
use anello_protocol::{
    cluster::{MAX_REPLICAS_PER_DATACENTER, Purpose},
    consistency::BadConsistency,
    id::{Datacenter, KeyspaceName},
};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::{
    connect::{Cluster, Level},
    outcome::{Failure, Outcome},
    output::{self, Palette},
    table::{Align, Table},
};

/// Why `each_quorum` is no level of reads.
pub(crate) const WRITES_ONLY: &str =
    "each_quorum is a level of writes; expected such as quorum, local_quorum or all";

/// What to do with keyspaces.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyspaceCommand {
    /// Create a keyspace
    Create(Set),
    /// List the keyspaces
    List(List),
    /// Alter a keyspace: what is not named stays as it is; another replication moves data, while it is
    /// read and written
    Alter(Set),
    /// Drop a keyspace with all its data
    Drop(Drop),
}

/// What a keyspace is to be.
#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Its name
    name: KeyspaceName,
    /// Replicas per datacenter, such as eu=3,us=3, or auto: up to 3 in each
    #[arg(long, value_name = "REPLICATION", value_parser = replication)]
    replication: Option<Replication>,
    /// What becomes of concurrent writes: siblings keeps all, lww the last one
    #[arg(long, value_name = "RULE", value_parser = conflict)]
    conflict: Option<ConflictRule>,
    /// How many replicas answer a read that names no level
    #[arg(long, value_name = "LEVEL", value_parser = read_level)]
    read: Option<Consistency>,
    /// How many replicas acknowledge a write that names no level
    #[arg(long, value_name = "LEVEL")]
    write: Option<Consistency>,
    /// How long a tombstone stays at least, in seconds
    #[arg(long, value_name = "SECONDS")]
    tombstone_grace_s: Option<u64>,
    /// One JSON document on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: Cluster,
}

/// How to list.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// One JSON document on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: Cluster,
}

/// What to drop.
#[derive(Debug, Args)]
pub(crate) struct Drop {
    /// Its name
    name: KeyspaceName,
    /// Don't ask
    #[arg(long)]
    yes: bool,
    /// One JSON document on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: Cluster,
}

impl KeyspaceCommand {
    /// Whether a program reads what is printed.
    pub(crate) fn wants_json(&self) -> bool {
        match self {
            KeyspaceCommand::Create(set) | KeyspaceCommand::Alter(set) => set.json,
            KeyspaceCommand::List(list) => list.json,
            KeyspaceCommand::Drop(drop) => drop.json,
        }
    }
}

/// Does what was asked.
pub(crate) async fn run(command: KeyspaceCommand) -> Result<Outcome, Failure> {
    match command {
        KeyspaceCommand::Create(set) => create(set).await,
        KeyspaceCommand::Alter(set) => alter(set).await,
        KeyspaceCommand::List(list) => self::list(list).await,
        KeyspaceCommand::Drop(drop) => self::drop(drop).await,
    }
}

async fn create(set: Set) -> Result<Outcome, Failure> {
    let session = set.cluster.connect_to_change().await?;
    let (client, name) = (session.client(), &set.name);
    if session.answer(client.keyspaces()).await?.contains_key(name) {
        return Err(Failure::failed(format_args!(
            "keyspace {name} is there already; change it with `anello keyspace alter {name}`"
        )));
    }
    let config = set.over(KeyspaceConfig::default());
    session.change(client.set_keyspace(name.as_str(), config.clone())).await?;
    session.close().await;
    report(&set, &config, "created")
}

async fn alter(set: Set) -> Result<Outcome, Failure> {
    let session = set.cluster.connect_to_change().await?;
    let (client, name) = (session.client(), &set.name);
    let Some(before) = session.answer(client.keyspaces()).await?.remove(name) else {
        return Err(Failure::failed(format_args!(
            "there is no keyspace {name}; create it with `anello keyspace create {name}`"
        )));
    };
    let config = set.over(before.clone());
    let mut is_moving = false;
    if config != before {
        session.change(client.set_keyspace(name.as_str(), config.clone())).await?;
        if config.replication != before.replication {
            let state = session.answer(client.cluster_state()).await?;
            let purpose = state.change.as_ref().map(|change| &change.purpose);
            is_moving = matches!(purpose, Some(Purpose::Replicate(moving)) if moving == name);
        }
    }
    session.close().await;
    let moving = "altered; its data moves, and `anello status` shows how far that is";
    report(&set, &config, if is_moving { moving } else { "altered" })
}

fn report(set: &Set, config: &KeyspaceConfig, done: &str) -> Result<Outcome, Failure> {
    if set.json {
        output::json(&document(config))?;
    } else {
        output::line(format_args!("keyspace {} {done}", set.name))?;
    }
    Ok(Outcome::Done)
}

async fn list(list: List) -> Result<Outcome, Failure> {
    let session = list.cluster.connect(&Level::default()).await?;
    let keyspaces = session.answer(session.client().keyspaces()).await?;
    session.close().await;
    if list.json {
        let documents = keyspaces.iter().map(|(name, config)| (name.to_string(), document(config)));
        output::json(&documents.collect::<Map<_, _>>())?;
        return Ok(Outcome::Done);
    }
    let mut table = Table::new(&[
        ("keyspace", Align::Left),
        ("replication", Align::Left),
        ("conflict", Align::Left),
        ("read", Align::Left),
        ("write", Align::Left),
        ("tombstone grace", Align::Right),
    ]);
    for (name, config) in &keyspaces {
        table.row([
            name.as_str().into(),
            replication_text(&config.replication).into(),
            conflict_text(config.conflict).into(),
            config.read.into(),
            config.write.into(),
            format!("{} s", config.tombstone_grace_s).into(),
        ]);
    }
    output::line(table.render(Palette::of_stdout()))?;
    Ok(Outcome::Done)
}

async fn drop(drop: Drop) -> Result<Outcome, Failure> {
    let name = &drop.name;
    if !drop.yes && !agreed(name)? {
        return Err(Failure::failed(format_args!("keyspace {name} is as it was")));
    }
    let session = drop.cluster.connect_to_change().await?;
    session.change(session.client().drop_keyspace(name.as_str())).await?;
    session.close().await;
    if drop.json {
        output::json(&json!({ "dropped": name }))?;
    } else {
        output::line(format_args!("keyspace {name} dropped"))?;
    }
    Ok(Outcome::Done)
}

/// Asks a person. A program has to say `--yes`.
fn agreed(name: &KeyspaceName) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format_args!(
            "dropping keyspace {name} deletes all its data: say --yes if that is meant"
        )));
    }
    eprint!("Drop keyspace {name} with all its data, on all nodes? Type its name: ");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| Failure::failed(format_args!("cannot read the answer: {error}")))?;
    Ok(answer.trim() == name.as_str())
}

impl Set {
    fn over(&self, before: KeyspaceConfig) -> KeyspaceConfig {
        KeyspaceConfig {
            replication: self.replication.clone().unwrap_or(before.replication),
            conflict: self.conflict.unwrap_or(before.conflict),
            read: self.read.unwrap_or(before.read),
            write: self.write.unwrap_or(before.write),
            tombstone_grace_s: self.tombstone_grace_s.unwrap_or(before.tombstone_grace_s),
        }
    }
}

/// The document of `GET /admin/keyspaces/{name}`.
fn document(config: &KeyspaceConfig) -> Value {
    let replication = match &config.replication {
        Replication::Auto => json!("auto"),
        Replication::PerDatacenter(counts) => json!(counts),
    };
    json!({
        "replication": replication,
        "conflict": config.conflict,
        "read": config.read,
        "write": config.write,
        "tombstone_grace_s": config.tombstone_grace_s,
    })
}

/// A replication as the command line takes it.
pub(crate) fn replication_text(replication: &Replication) -> String {
    match replication {
        Replication::Auto => "auto".into(),
        Replication::PerDatacenter(counts) => {
            let counts: Vec<_> = counts.iter().map(|(dc, count)| format!("{dc}={count}")).collect();
            counts.join(",")
        }
    }
}

fn conflict_text(rule: ConflictRule) -> &'static str {
    match rule {
        ConflictRule::Siblings => "siblings",
        ConflictRule::Lww => "lww",
    }
}

fn conflict(text: &str) -> Result<ConflictRule, String> {
    match text {
        "siblings" => Ok(ConflictRule::Siblings),
        "lww" => Ok(ConflictRule::Lww),
        _ => Err("expected siblings or lww".into()),
    }
}

fn read_level(text: &str) -> Result<Consistency, String> {
    match text.parse().map_err(|error: BadConsistency| error.to_string())? {
        Consistency::EachQuorum => Err(WRITES_ONLY.into()),
        level => Ok(level),
    }
}

fn replication(text: &str) -> Result<Replication, String> {
    if text == "auto" {
        return Ok(Replication::Auto);
    }
    let mut counts = BTreeMap::new();
    for part in text.split(',') {
        let (name, count) = part.split_once('=').ok_or("expected auto, or such as eu=3,us=3")?;
        let datacenter = Datacenter::new(name).map_err(|error| error.to_string())?;
        let count = count.parse().map_err(|_| format!("{count:?} is no number of replicas"))?;
        if counts.insert(datacenter, count).is_some() {
            return Err(format!("{name} is there twice"));
        }
    }
    if counts.values().all(|count| *count == 0) {
        return Err("it leaves no replica anywhere; expected such as eu=3,us=3".into());
    }
    if let Some((datacenter, _)) = counts.iter().find(|(_, n)| **n > MAX_REPLICAS_PER_DATACENTER) {
        let most = MAX_REPLICAS_PER_DATACENTER;
        return Err(format!("a datacenter has at most {most} replicas of a key: {datacenter}"));
    }
    Ok(Replication::PerDatacenter(counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replication_reads_back() {
        for text in ["auto", "eu=3", "eu=3,us=1"] {
            assert_eq!(replication_text(&replication(text).unwrap()), text);
        }
        for bad in ["", "3", "eu", "eu=x", "EU=3", "eu=1,eu=2", "eu=-1", "eu=0,us=0", "eu=9999"] {
            assert!(replication(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn documents_are_those_of_the_http_api() {
        assert_eq!(
            document(&KeyspaceConfig::default()),
            json!({
                "replication": "auto",
                "conflict": "siblings",
                "read": "quorum",
                "write": "quorum",
                "tombstone_grace_s": 864_000,
            })
        );
    }
}
