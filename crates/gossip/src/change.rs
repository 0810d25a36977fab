//! Changes of the cluster state: what makes one valid, what it turns a state into, and which data it would
//! move. Pure functions of the agreed state.

use std::collections::{BTreeMap, BTreeSet};

use anello_protocol::{
    cluster::{
        ClusterState, Keyspace, KeyspaceConfig, MAX_KEYSPACES, MAX_MEMBERS,
        MAX_REPLICAS_PER_DATACENTER, Member, MemberState, Replication,
    },
    consistency::Consistency,
    id::{Datacenter, Epoch, KeyspaceId, KeyspaceName, NodeId},
    message::{
        admin::{AlterError, AlterKeyspace, KeyspaceChange, RingRequest},
        gossip::{Candidate, Decree},
    },
    version::ConflictRule,
};

use crate::ring_change::{self, Advance};

/// The longest tombstone grace: a hundred years.
const TOMBSTONE_GRACE_MAX_S: u64 = 100 * 366 * 86_400;

/// A change of the cluster state.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// Takes nodes in, as owners at once: of a cluster that holds no data.
    Admit(Vec<Candidate>),
    /// Takes nodes in, to be filled.
    Join(Vec<Candidate>),
    /// A member has other addresses than before.
    Readdress { node: NodeId, quic: String, http: String },
    /// Creates, alters or drops a keyspace, whose replicas are others at once: it holds no data.
    Keyspace(AlterKeyspace),
    /// The same, and its data goes to its new replicas.
    KeyspaceWithData(AlterKeyspace),
    /// Changes who owns the ring.
    Ring(RingRequest),
    /// Partitions of the change that is under way go on.
    Advance(Advance),
}

impl Change {
    /// The decree that follows `from` by this change; none if there is nothing to change.
    pub(crate) fn apply(&self, from: &Decree) -> Result<Option<Decree>, AlterError> {
        let mut next = from.clone();
        let state = &mut next.state;
        let epoch = state.epoch.next();
        match self {
            Change::Admit(candidates) => {
                for Candidate { member, birth } in candidates {
                    let room = state.members.len() < MAX_MEMBERS;
                    if room
                        && !state.members.contains_key(&member.id)
                        && !state.removed.contains(&member.id)
                    {
                        let member = Member { state: MemberState::Up, ..member.clone() };
                        next.admitted.insert(member.id.clone(), *birth);
                        state.members.insert(member.id.clone(), member);
                    }
                }
            }
            Change::Join(candidates) => ring_change::join(&mut next, candidates)?,
            Change::Ring(request) => ring_change::request(&mut next, request)?,
            Change::Advance(advance) => ring_change::advance(&mut next, advance)?,
            Change::KeyspaceWithData(AlterKeyspace { name, change }) => {
                if let KeyspaceChange::Set(config) = change {
                    ring_change::replicate(&mut next, name, config)?;
                }
            }
            Change::Readdress { node, quic, http } => {
                if let Some(member) = state.members.get_mut(node) {
                    member.quic.clone_from(quic);
                    member.http.clone_from(http);
                }
            }
            Change::Keyspace(AlterKeyspace { name, change: KeyspaceChange::Set(config) }) => {
                set_keyspace(state, name, config, epoch)?;
            }
            Change::Keyspace(AlterKeyspace { name, change: KeyspaceChange::Drop }) => {
                if *name == KeyspaceName::default_keyspace() {
                    return Err(invalid("the keyspace `default` can't be dropped"));
                }
                if state.keyspaces.remove(name).is_none() {
                    return Err(AlterError::NoSuchKeyspace(name.clone()));
                }
            }
        }
        let changed = next != *from;
        next.state.epoch = epoch;
        Ok(changed.then_some(next))
    }
}

pub(crate) fn invalid(message: impl Into<String>) -> AlterError {
    AlterError::Invalid(message.into())
}

pub(crate) fn set_keyspace(
    state: &mut ClusterState,
    name: &KeyspaceName,
    config: &KeyspaceConfig,
    epoch: Epoch,
) -> Result<(), AlterError> {
    check_keyspace(state, config)?;
    if let Some(keyspace) = state.keyspaces.get_mut(name) {
        if keyspace.config.conflict != config.conflict {
            keyspace.ruled_since = epoch;
        }
        keyspace.config = config.clone();
        return Ok(());
    }
    if state.keyspaces.len() >= MAX_KEYSPACES {
        return Err(invalid(format!("there can be at most {MAX_KEYSPACES} keyspaces")));
    }
    let keyspace = Keyspace { id: KeyspaceId(epoch.0), ruled_since: epoch, config: config.clone() };
    state.keyspaces.insert(name.clone(), keyspace);
    Ok(())
}

fn check_keyspace(state: &ClusterState, config: &KeyspaceConfig) -> Result<(), AlterError> {
    if let Replication::PerDatacenter(counts) = &config.replication {
        let known = state.datacenters();
        if let Some(unknown) = counts.keys().find(|datacenter| !known.contains_key(datacenter)) {
            let known: Vec<&str> = known.keys().map(Datacenter::as_str).collect();
            return Err(invalid(format!(
                "there is no datacenter {unknown:?}; there are: {}",
                known.join(", ")
            )));
        }
        if let Some((datacenter, count)) =
            counts.iter().find(|(_, count)| **count > MAX_REPLICAS_PER_DATACENTER)
        {
            return Err(invalid(format!(
                "{count} replicas in {datacenter:?}: a datacenter has 0 to {MAX_REPLICAS_PER_DATACENTER} of a key"
            )));
        }
        if counts.values().all(|count| *count == 0) {
            return Err(invalid("the replication leaves no replica anywhere"));
        }
    }
    let replicas: usize = state.effective_replication(&config.replication).values().sum();
    if config.read == Consistency::EachQuorum {
        return Err(invalid("`each_quorum` is a level of writes; reads can't default to it"));
    }
    for (what, level) in [("read", config.read), ("write", config.write)] {
        let needed = match level {
            Consistency::Two => 2,
            Consistency::Three => 3,
            Consistency::Count(count) => usize::from(count),
            _ => 1,
        };
        if !(1..=replicas).contains(&needed) {
            return Err(invalid(format!(
                "the {what} level {level} asks for {needed} replicas, and the keyspace has {replicas}"
            )));
        }
    }
    if config.tombstone_grace_s > TOMBSTONE_GRACE_MAX_S {
        return Err(invalid(format!("tombstone_grace_s is at most {TOMBSTONE_GRACE_MAX_S}")));
    }
    Ok(())
}

/// The keyspaces whose data would not be sound under the second state as it is: it would have other
/// owners, or it was written under last-write-wins, which keeps no causal past, and would turn into
/// siblings of what it had replaced.
pub(crate) fn moved(from: &ClusterState, to: &ClusterState) -> BTreeSet<KeyspaceId> {
    let owners = |state: &ClusterState| -> BTreeMap<NodeId, _> {
        let place = |member: &Member| {
            (member.datacenter.clone(), member.rack.clone(), member.weight.to_bits())
        };
        state.owners().map(|member| (member.id.clone(), place(member))).collect()
    };
    let same_owners = owners(from) == owners(to);
    let stays = |name: &KeyspaceName, keyspace: &Keyspace| match to.keyspaces.get(name) {
        // Dropped: nothing of it is ever asked for again.
        None => true,
        Some(next) if next.id != keyspace.id => true,
        Some(next) => {
            let keeps_its_past = keyspace.config.conflict == next.config.conflict
                || keyspace.config.conflict == ConflictRule::Siblings;
            same_owners
                && keeps_its_past
                && from.effective_replication(&keyspace.config.replication)
                    == to.effective_replication(&next.config.replication)
        }
    };
    let keyspaces = from.keyspaces.iter();
    keyspaces
        .filter(|(name, keyspace)| !stays(name, keyspace))
        .map(|(_, keyspace)| keyspace.id)
        .collect()
}

#[cfg(test)]
mod tests;
