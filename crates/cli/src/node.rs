//! `anello node join|leave|remove|replace|weight|drain`: who owns the ring.
//!
//! Each change of the ring begins with its plan: what moves, how long that takes, how safe it is meanwhile. Then
//! a person is asked, or a program has said `--yes`. The change goes on by itself once it has begun;
//! `--wait` shows how far it is, and leaving off to look stops nothing.

mod drain;
mod follow;
mod plan;

use std::io::{self, BufRead, IsTerminal};

use anello_protocol::{
    cluster::{ClusterState, MAX_WEIGHT, Member, MemberState},
    id::{Datacenter, Epoch, NodeId, Rack},
    message::admin::RingRequest,
};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    connect::{Cluster, Session},
    outcome::{Failure, Outcome},
    output,
};
use drain::Drain;
use plan::Plan;

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Show what a node would get that joined: it does so when it is started, and needs no command
    Join(Join),
    /// Have a node hand over what it holds, leave for good, and end
    Leave(One),
    /// Take a dead node out for good: the others copy what it held from each other
    Remove(One),
    /// Take a dead node out for good, and have another one take its place
    Replace(Replace),
    /// Give a node another share of the ring
    Weight(Weight),
    /// Wait until a node keeps nothing for others, before it is stopped for a while
    Drain(Drain),
}

/// How a change is made.
#[derive(Debug, Args)]
struct How {
    /// Only show what would happen
    #[arg(long)]
    plan: bool,
    /// Don't ask
    #[arg(long)]
    yes: bool,
    /// Wait until it is through, and show how far it is
    #[arg(long)]
    wait: bool,
    /// One JSON document on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: Cluster,
}

/// A node that isn't there yet.
#[derive(Debug, Args)]
pub(crate) struct Join {
    /// Show what would move; nothing else can be done here
    #[arg(long)]
    plan: bool,
    /// Its datacenter
    #[arg(long, value_name = "NAME")]
    datacenter: Datacenter,
    /// Its rack there
    #[arg(long, value_name = "NAME")]
    rack: Rack,
    /// Its share of the ring relative to the datacenter's other nodes
    #[arg(long, value_name = "WEIGHT", default_value_t = 1.0, value_parser = weight)]
    weight: f64,
    /// Its name; which partitions it gets depends on it
    #[arg(long, value_name = "ID")]
    id: Option<NodeId>,
    /// One JSON document on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: Cluster,
}

/// A node.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// Its name
    id: NodeId,
    #[command(flatten)]
    how: How,
}

/// Two nodes.
#[derive(Debug, Args)]
pub(crate) struct Replace {
    /// The dead one
    old: NodeId,
    /// The one that takes its place: as soon as it is started, or at once if it is a member
    new: NodeId,
    #[command(flatten)]
    how: How,
}

/// A node and its weight.
#[derive(Debug, Args)]
pub(crate) struct Weight {
    /// Its name
    id: NodeId,
    /// Its share of the ring relative to the datacenter's other nodes
    #[arg(value_parser = weight)]
    weight: f64,
    #[command(flatten)]
    how: How,
}

impl NodeCommand {
    /// Whether a program reads what is printed.
    pub(crate) fn wants_json(&self) -> bool {
        match self {
            Self::Join(join) => join.json,
            Self::Leave(one) | Self::Remove(one) => one.how.json,
            Self::Replace(replace) => replace.how.json,
            Self::Weight(weight) => weight.how.json,
            Self::Drain(drain) => drain.json,
        }
    }
}

/// Does what was asked.
pub(crate) async fn run(command: NodeCommand) -> Result<Outcome, Failure> {
    match command {
        NodeCommand::Join(join) => self::join(join).await,
        NodeCommand::Leave(One { id, how }) => change(RingRequest::Leave(id), how).await,
        NodeCommand::Remove(One { id, how }) => change(RingRequest::Remove(id), how).await,
        NodeCommand::Replace(Replace { old, new, how }) => {
            change(RingRequest::Replace { old, new }, how).await
        }
        NodeCommand::Weight(Weight { id, weight, how }) => {
            change(RingRequest::Weigh { node: id, weight }, how).await
        }
        NodeCommand::Drain(drain) => drain::run(drain).await,
    }
}

async fn join(join: Join) -> Result<Outcome, Failure> {
    if !join.plan {
        return Err(Failure::usage(
            "a node joins when it is started with an empty directory and the cluster's seeds; to see what it \
             would get, say --plan",
        ));
    }
    let session = join.cluster.connect_to_change().await?;
    let state = session.answer(session.client().cluster_state()).await?;
    let id = join.id.clone().map_or_else(|| name_for(&state, &join), Ok)?;
    if state.members.contains_key(&id) {
        return Err(Failure::usage(format_args!("{id} is a member already")));
    }
    if state.removed.contains(&id) {
        return Err(Failure::usage(format_args!(
            "{id} was a member once and is none any more; it can't come back under its name"
        )));
    }
    let Join { datacenter, rack, weight, .. } = &join;
    let mut after = state.clone();
    let (datacenter, rack) = (datacenter.clone(), rack.clone());
    put(&mut after, newcomer(id.clone(), datacenter, rack, *weight));
    let plan = Plan::of(&session, &state, &after, format!("{id} joining")).await?;
    session.close().await;
    plan.show(join.json)?;
    Ok(Outcome::Done)
}

async fn change(request: RingRequest, how: How) -> Result<Outcome, Failure> {
    let session = how.cluster.connect_to_change().await?;
    let state = session.answer(session.client().cluster_state()).await?;
    let (after, what) = after(&state, &request)?;
    let plan = Plan::of(&session, &state, &after, what).await?;
    if how.plan {
        session.close().await;
        plan.show(how.json)?;
        return Ok(Outcome::Done);
    }
    if !how.yes {
        if !io::stdin().is_terminal() {
            return Err(Failure::usage(format_args!(
                "{} moves data for good: say --plan to see what, and --yes if it is meant",
                plan.what()
            )));
        }
        plan.show(false)?;
        if !agreed(&request)? {
            return Err(Failure::failed("nothing was changed"));
        }
    } else if !how.json {
        plan.show(false)?;
    }
    // A person may have thought about it for longer than a command takes.
    let asking = how.cluster.connect_to_change().await?;
    session.close().await;
    let epoch = asking.change(asking.client().alter_ring(request.clone())).await?;
    let outcome = begun(&asking, &request, &how, epoch, plan.what()).await;
    asking.close().await;
    outcome
}

async fn begun(
    session: &Session,
    request: &RingRequest,
    how: &How,
    epoch: Epoch,
    what: &str,
) -> Result<Outcome, Failure> {
    let awaits_newcomer = match request {
        RingRequest::Replace { new, .. } => {
            !session.answer(session.client().cluster_state()).await?.members.contains_key(new)
        }
        _ => false,
    };
    if how.wait {
        if awaits_newcomer && let RingRequest::Replace { new, .. } = request {
            output::note(format_args!("waiting for {new}: start it with an empty directory"));
        }
        follow::to_the_end(session, request, epoch).await?;
    }
    if how.json {
        output::json(&json!({ "epoch": epoch, "began": what, "done": how.wait }))?;
    } else {
        output::line(match (how.wait, request) {
            (true, _) => format!("done: {what}"),
            (false, RingRequest::Replace { new, .. }) if awaits_newcomer => {
                format!("{what}: it begins as soon as {new} is started with an empty directory")
            }
            (false, _) => format!("begun: {what}; `anello status` shows how far it is"),
        })?;
    }
    Ok(Outcome::Done)
}

/// What the members would agree on, and what that is in words.
fn after(state: &ClusterState, request: &RingRequest) -> Result<(ClusterState, String), Failure> {
    let mut after = state.clone();
    let known = |id: &NodeId| {
        state.members.get(id).ok_or_else(|| {
            let members: Vec<_> = state.members.keys().map(NodeId::as_str).collect();
            let was = if state.removed.contains(id) { " any more" } else { "" };
            Failure::failed(format_args!(
                "{id} is no member of the cluster{was}; members are: {}",
                members.join(", ")
            ))
        })
    };
    let what = match request {
        RingRequest::Leave(id) => {
            put(&mut after, Member { state: MemberState::Leaving, ..known(id)?.clone() });
            format!("{id} leaving")
        }
        RingRequest::Remove(id) => {
            put(&mut after, Member { state: MemberState::Removed, ..known(id)?.clone() });
            after.written_off.insert(id.clone());
            format!("{id} being removed")
        }
        RingRequest::Replace { old, new } => {
            let dead = known(old)?.clone();
            if !state.members.contains_key(new) {
                let Member { datacenter, rack, weight, .. } = dead.clone();
                put(&mut after, newcomer(new.clone(), datacenter, rack, weight));
            }
            put(&mut after, Member { state: MemberState::Removed, ..dead });
            after.written_off.insert(old.clone());
            format!("{new} taking the place of {old}")
        }
        RingRequest::Weigh { node, weight } => {
            let before = known(node)?.clone();
            let what = format!("{node} getting the weight {weight} in place of {}", before.weight);
            put(&mut after, Member { weight: *weight, ..before });
            what
        }
    };
    Ok((after, what))
}

fn put(state: &mut ClusterState, member: Member) {
    state.members.insert(member.id.clone(), member);
}

fn newcomer(id: NodeId, datacenter: Datacenter, rack: Rack, weight: f64) -> Member {
    let (quic, http) = (String::new(), String::new());
    Member { id, datacenter, rack, weight, quic, http, state: MemberState::Joining }
}

/// The name that a fleet's next node of a rack would have.
fn name_for(state: &ClusterState, join: &Join) -> Result<NodeId, Failure> {
    let is_taken = |id: &NodeId| state.members.contains_key(id) || state.removed.contains(id);
    let names = (1..).map(|number| format!("{}-{}-{number}", join.datacenter, join.rack));
    let free = names.map(|name| NodeId::new(&name)).find(|id| !id.as_ref().is_ok_and(is_taken));
    free.expect("there are more numbers than members")
        .map_err(|error| Failure::usage(format_args!("say its name with --id: {error}")))
}

/// Asks a person.
fn agreed(request: &RingRequest) -> Result<bool, Failure> {
    let node = match request {
        RingRequest::Leave(id) | RingRequest::Remove(id) => id,
        RingRequest::Replace { old, .. } => old,
        RingRequest::Weigh { node, .. } => node,
    };
    eprint!("Is that meant? Type the name of {node}: ");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| Failure::failed(format_args!("cannot read the answer: {error}")))?;
    Ok(answer.trim() == node.as_str())
}

fn weight(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(weight) if weight > 0.0 && weight <= MAX_WEIGHT => Ok(weight),
        _ => Err(format!("expected a weight above 0 and at most {MAX_WEIGHT}")),
    }
}

#[cfg(test)]
mod tests {
    use anello_protocol::id::ClusterName;

    use super::*;

    fn cluster() -> ClusterState {
        let member = |id: &str| {
            let place = |name: &str| (name.parse().unwrap(), "a".parse().unwrap());
            let (datacenter, rack) = place("eu");
            newcomer(id.parse().unwrap(), datacenter, rack, 2.0)
        };
        let name = ClusterName::new("demo").unwrap();
        let mut state = ClusterState::founded(name, 16, member("eu-a-1"));
        put(&mut state, member("eu-a-2"));
        state.removed.insert("eu-a-3".parse().unwrap());
        state
    }

    fn id(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    #[test]
    fn a_request_is_thought_through() {
        let state = cluster();
        let after = |request| after(&state, &request).unwrap().0;
        let left = after(RingRequest::Leave(id("eu-a-1")));
        assert_eq!(left.owners().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["eu-a-2"]);
        let removed = after(RingRequest::Remove(id("eu-a-1")));
        assert!(removed.is_written_off(&id("eu-a-1")));
        let replaced = after(RingRequest::Replace { old: id("eu-a-1"), new: id("eu-a-9") });
        assert_eq!(replaced.members[&id("eu-a-9")].weight, 2.0);
        assert!(replaced.owners().all(|it| it.id.as_str() != "eu-a-1"));
        let weighed = after(RingRequest::Weigh { node: id("eu-a-1"), weight: 0.5 });
        assert_eq!(weighed.members[&id("eu-a-1")].weight, 0.5);
    }

    #[test]
    fn strangers_are_told_apart() {
        let why = |node| after(&cluster(), &RingRequest::Leave(id(node))).unwrap_err().to_string();
        assert!(why("eu-x-1").contains("no member of the cluster; members are: eu-a-1, eu-a-2"));
        assert!(why("eu-a-3").contains("any more"));
    }

    #[test]
    fn weights_are_within_their_bounds() {
        assert_eq!(weight("0.5"), Ok(0.5));
        for bad in ["0", "-1", "101", "NaN", "x", ""] {
            assert!(weight(bad).is_err(), "{bad}");
        }
    }
}
