//! Changes of the ring that move data: how one begins, goes on partition by partition, and ends. Pure
//! functions of the agreed state.
//!
//! One change is under way at a time: a second one is refused, and its operator told. Only that a node is
//! dead can be said at any time, because what is under way may wait for just that node; it is taken out of
//! the ring when the change is through.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anello_protocol::{
    cluster::{
        ClusterState, KeyspaceConfig, MAX_MEMBERS, MAX_WEIGHT, Member, MemberState, Phase, Purpose,
        RingChange,
    },
    id::{Epoch, KeyspaceName, NodeId, PartitionId},
    message::{
        admin::{AlterError, RingRequest},
        gossip::{Candidate, Decree},
    },
    version::ConflictRule,
};
use anello_ring::view::View;

use crate::change::{invalid, set_keyspace};

/// Partitions that leave their phases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Advance {
    /// The change that they are part of.
    pub(crate) change: Epoch,
    /// The partitions, with the phases that they leave.
    pub(crate) partitions: BTreeMap<PartitionId, Phase>,
}

/// Takes nodes in, as owners of the shares that they are filled for.
pub(crate) fn join(next: &mut Decree, candidates: &[Candidate]) -> Result<(), AlterError> {
    let state = &next.state;
    let is_new = |candidate: &&Candidate| {
        let id = &candidate.member.id;
        !state.members.contains_key(id) && !state.removed.contains(id)
    };
    let room = MAX_MEMBERS.saturating_sub(state.members.len());
    let mut new: Vec<&Candidate> = candidates.iter().filter(is_new).take(room).collect();
    // One that takes a dead node's place is a change of its own: so it moves what the dead one held.
    let expected = new.iter().find_map(|candidate| {
        let old = state.expected.get(&candidate.member.id)?;
        Some((candidate.member.id.clone(), old.clone()))
    });
    let purpose = match expected {
        Some((new_id, old)) => {
            new.retain(|candidate| candidate.member.id == new_id);
            Purpose::Replace { old, new: new_id }
        }
        None => Purpose::Join(new.iter().map(|it| it.member.id.clone()).collect()),
    };
    if new.is_empty() {
        return Ok(());
    }
    let admitted: Vec<_> = new.iter().map(|it| (it.member.id.clone(), it.birth)).collect();
    begin(&mut next.state, purpose.clone(), |state| {
        for Candidate { member, .. } in new {
            let member = Member { state: MemberState::Joining, ..member.clone() };
            state.members.insert(member.id.clone(), member);
        }
        if let Purpose::Replace { old, new } = &purpose {
            state.expected.remove(new);
            write_off(state, old);
        }
    })?;
    next.admitted.extend(admitted);
    Ok(())
}

/// What an operator asks for.
pub(crate) fn request(next: &mut Decree, request: &RingRequest) -> Result<(), AlterError> {
    match request {
        RingRequest::Leave(node) => leave(next, node),
        RingRequest::Remove(node) => remove(next, node),
        RingRequest::Replace { old, new } => replace(next, old, new),
        RingRequest::Weigh { node, weight } => weigh(next, node, *weight),
    }
}

fn leave(next: &mut Decree, node: &NodeId) -> Result<(), AlterError> {
    let state = &mut next.state;
    if state.removed.contains(node) {
        return Ok(());
    }
    match member(state, node)?.state {
        MemberState::Leaving | MemberState::Left => return Ok(()),
        _ if state.written_off.contains(node) => return Ok(()),
        _ => {}
    }
    must_leave_some(state, node)?;
    begin(state, Purpose::Leave(node.clone()), |state| set_state(state, node, MemberState::Leaving))
}

fn remove(next: &mut Decree, node: &NodeId) -> Result<(), AlterError> {
    let state = &mut next.state;
    if state.removed.contains(node) || state.written_off.contains(node) {
        return Ok(());
    }
    member(state, node)?;
    must_leave_some(state, node)?;
    state.expected.retain(|_, old| old != node);
    state.written_off.insert(node.clone());
    let epoch = state.epoch.next();
    match &mut state.change {
        // Who stays has to hold more now that one is gone that was to hold it too.
        Some(change) => change.asked = epoch,
        None => take_out_the_dead(state)?,
    }
    Ok(())
}

fn replace(next: &mut Decree, old: &NodeId, new: &NodeId) -> Result<(), AlterError> {
    let state = &mut next.state;
    if old == new {
        return Err(invalid("a node can't take its own place"));
    }
    if state.removed.contains(new) {
        return Err(invalid(format!("{new} was removed; it can't come back under its name")));
    }
    if state.members.contains_key(new) {
        return remove(next, old);
    }
    if state.removed.contains(old) {
        return Err(invalid(format!("{old} is no member any more: {new} can simply join")));
    }
    member(state, old)?;
    must_leave_some(state, old)?;
    state.expected.retain(|_, other| other != old);
    state.expected.insert(new.clone(), old.clone());
    Ok(())
}

fn weigh(next: &mut Decree, node: &NodeId, weight: f64) -> Result<(), AlterError> {
    if !(weight > 0.0 && weight <= MAX_WEIGHT) {
        return Err(invalid(format!("a weight is above 0 and at most {MAX_WEIGHT}, not {weight}")));
    }
    let state = &mut next.state;
    if member(state, node)?.weight.to_bits() == weight.to_bits() {
        return Ok(());
    }
    begin(state, Purpose::Weigh(node.clone()), |state| {
        if let Some(member) = state.members.get_mut(node) {
            member.weight = weight;
        }
    })
}

/// Gives a keyspace that holds data another configuration, replicas included.
pub(crate) fn replicate(
    next: &mut Decree,
    name: &KeyspaceName,
    config: &KeyspaceConfig,
) -> Result<(), AlterError> {
    let state = &mut next.state;
    let epoch = state.epoch.next();
    let Some(before) = state.keyspaces.get(name) else {
        return set_keyspace(state, name, config, epoch);
    };
    if before.config == *config {
        return Ok(());
    }
    if before.config.conflict != config.conflict && before.config.conflict == ConflictRule::Lww {
        return Err(invalid(format!(
            "the keyspace {name:?} holds data, and going from last-write-wins to siblings is not possible \
             then: what was replaced would come back as siblings"
        )));
    }
    if before.config.replication == config.replication {
        return set_keyspace(state, name, config, epoch);
    }
    let mut failed = None;
    begin(state, Purpose::Replicate(name.clone()), |state| {
        failed = set_keyspace(state, name, config, epoch).err();
    })?;
    failed.map_or(Ok(()), Err)
}

/// Lets partitions go on, and ends the change with the last of them.
pub(crate) fn advance(next: &mut Decree, advance: &Advance) -> Result<(), AlterError> {
    let state = &mut next.state;
    let Some(change) = state.change.as_mut().filter(|it| it.began == advance.change) else {
        return Ok(());
    };
    for (partition, phase) in &advance.partitions {
        if let Some(now) = change.phases.get_mut(partition.0 as usize)
            && now == phase
        {
            *now = phase.next();
        }
    }
    end_if_done(state)
}

/// Begins a change: `alter` makes the state what it is to lead to.
fn begin(
    state: &mut ClusterState,
    purpose: Purpose,
    alter: impl FnOnce(&mut ClusterState),
) -> Result<(), AlterError> {
    if let Some(change) = &state.change {
        return Err(AlterError::UnderWay(change.purpose.to_string()));
    }
    let (old, epoch) = (state.layout(), state.epoch);
    let began = epoch.next();
    alter(state);
    let phases = vec![Phase::Filling; state.partitions as usize];
    state.change = Some(Box::new(RingChange { began, asked: began, purpose, old, phases }));
    skip_those_that_stay(state)?;
    end_if_done(state)
}

/// What has the same owners before and after has nothing to wait for.
fn skip_those_that_stay(state: &mut ClusterState) -> Result<(), AlterError> {
    let view = View::of(Arc::new(state.clone())).map_err(|error| invalid(error.to_string()))?;
    let stays: Vec<PartitionId> = view
        .moving()
        .map(|(partition, _)| partition)
        .filter(|partition| view.handover(*partition).awaited.is_empty())
        .collect();
    if let Some(change) = &mut state.change {
        for partition in stays {
            change.phases[partition.0 as usize] = Phase::Done;
        }
    }
    Ok(())
}

fn end_if_done(state: &mut ClusterState) -> Result<(), AlterError> {
    let is_done = |change: &RingChange| change.phases.iter().all(|phase| *phase == Phase::Done);
    if state.change.take_if(|change| is_done(change)).is_none() {
        return Ok(());
    }
    for (id, mut member) in std::mem::take(&mut state.members) {
        match member.state {
            MemberState::Leaving | MemberState::Left | MemberState::Removed => {
                state.written_off.remove(&id);
                state.expected.retain(|_, old| *old != id);
                state.removed.insert(id);
                continue;
            }
            MemberState::Joining => member.state = MemberState::Up,
            MemberState::Up => {}
        }
        state.members.insert(id, member);
    }
    take_out_the_dead(state)
}

/// Begins to take out those who were declared dead.
fn take_out_the_dead(state: &mut ClusterState) -> Result<(), AlterError> {
    let dead: BTreeSet<NodeId> = state.written_off.clone();
    if dead.is_empty() {
        return Ok(());
    }
    begin(state, Purpose::Remove(dead.clone()), |state| {
        dead.iter().for_each(|node| set_state(state, node, MemberState::Removed));
    })
}

fn write_off(state: &mut ClusterState, node: &NodeId) {
    state.written_off.insert(node.clone());
    set_state(state, node, MemberState::Removed);
}

fn set_state(state: &mut ClusterState, node: &NodeId, to: MemberState) {
    if let Some(member) = state.members.get_mut(node) {
        member.state = to;
    }
}

fn member<'a>(state: &'a ClusterState, node: &NodeId) -> Result<&'a Member, AlterError> {
    let no_member = || {
        let known: Vec<&str> = state.members.keys().map(NodeId::as_str).collect();
        invalid(format!("{node} is no member of the cluster; members are: {}", known.join(", ")))
    };
    state.members.get(node).ok_or_else(no_member)
}

/// A cluster keeps an owner that is alive, and a keyspace a replica.
fn must_leave_some(state: &ClusterState, node: &NodeId) -> Result<(), AlterError> {
    let stays = |id: &NodeId| id != node && !state.written_off.contains(id);
    let mut left = state.clone();
    left.members.retain(|id, _| stays(id));
    if left.owners().next().is_none() {
        return Err(invalid(format!("{node} is the last node of the cluster")));
    }
    for (name, keyspace) in &state.keyspaces {
        if left.effective_replication(&keyspace.config.replication).is_empty() {
            return Err(invalid(format!(
                "without {node} the keyspace {name} would have no replica anywhere: alter its \
                 replication first"
            )));
        }
    }
    Ok(())
}
