//! What the members of a cluster agree on: who they are, what keyspaces there are, under a number.
//!
//! A [`ClusterState`] is never changed, only followed by the one with the next [`Epoch`], which exists
//! once a majority of the members of the one before has accepted it. Liveness is no part of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    consistency::Consistency,
    id::{ClusterName, Datacenter, Epoch, KeyspaceId, KeyspaceName, NodeId, PartitionId, Rack},
    version::ConflictRule,
};

/// The most replicas of a key in one datacenter.
pub const MAX_REPLICAS_PER_DATACENTER: u16 = 16;
/// The most keyspaces of a cluster.
pub const MAX_KEYSPACES: usize = 1024;
/// The most members of a cluster.
pub const MAX_MEMBERS: usize = 4096;
/// The most partitions of a cluster.
pub const MAX_PARTITIONS: u32 = 1 << 16;
/// The largest share of the ring that a node can ask for, relative to one of weight 1.
pub const MAX_WEIGHT: f64 = 100.0;
/// The replicas that [`Replication::Auto`] puts in every datacenter, where it has so many nodes.
pub const AUTO_REPLICAS: u16 = 3;

/// Where a member is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// Taken in, being filled.
    Joining,
    /// Owns its share.
    Up,
    /// Handing its share over.
    Leaving,
    /// Gone of its own will.
    Left,
    /// Taken out for good.
    Removed,
}

/// A node as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub id: NodeId,
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// Its rack there.
    pub rack: Rack,
    /// Its share of the ring relative to the datacenter's other nodes.
    pub weight: f64,
    /// Where peers and clients reach it: its advertised QUIC address, `host:port`.
    pub quic: String,
    /// Where people reach it: its advertised HTTP address, `host:port`.
    pub http: String,
    /// Where it is in its life.
    pub state: MemberState,
}

/// How many replicas a keyspace has, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Replication {
    /// Up to [`AUTO_REPLICAS`] in every datacenter that has nodes.
    #[default]
    Auto,
    /// That many in each datacenter named.
    PerDatacenter(BTreeMap<Datacenter, u16>),
}

/// What an operator decides for a keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceConfig {
    /// How many replicas, and where.
    pub replication: Replication,
    /// What becomes of concurrent writes.
    pub conflict: ConflictRule,
    /// The level of reads that name none.
    pub read: Consistency,
    /// The level of writes that name none.
    pub write: Consistency,
    /// How long a tombstone stays at least, in seconds.
    pub tombstone_grace_s: u64,
}

impl Default for KeyspaceConfig {
    fn default() -> Self {
        Self {
            replication: Replication::Auto,
            conflict: ConflictRule::Siblings,
            read: Consistency::Quorum,
            write: Consistency::Quorum,
            tombstone_grace_s: 864_000,
        }
    }
}

/// A keyspace as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyspace {
    /// Which life of the name this is.
    pub id: KeyspaceId,
    /// The epoch that gave it its conflict rule: its first, or the last that changed the rule. See
    /// [`crate::causality::Incarnation::under`].
    pub ruled_since: Epoch,
    /// What was decided for it.
    pub config: KeyspaceConfig,
}

/// What the members agree on, under its number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterState {
    /// The cluster's name.
    pub name: ClusterName,
    /// The number of this state.
    pub epoch: Epoch,
    /// Into how many partitions the hash space is cut, a power of two.
    pub partitions: u32,
    /// The members, by their names.
    pub members: BTreeMap<NodeId, Member>,
    /// The keyspaces.
    pub keyspaces: BTreeMap<KeyspaceName, Keyspace>,
    /// Names that never come back.
    pub removed: BTreeSet<NodeId>,
    /// Members that an operator has declared dead: nobody waits for them, and they are on their way out.
    pub written_off: BTreeSet<NodeId>,
    /// Nodes that are to take a dead one's place as soon as they ask to be taken in: the new one's name,
    /// and the dead one's.
    pub expected: BTreeMap<NodeId, NodeId>,
    /// The change of the ring that is under way, if one is.
    pub change: Option<Box<RingChange>>,
}

/// Who owns the ring, and how many replicas there are where: what makes the owners of all partitions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Layout {
    /// The nodes that own a share, with their weights.
    pub owners: BTreeMap<NodeId, f64>,
    /// The replication of every keyspace.
    pub replication: BTreeMap<KeyspaceId, Replication>,
}

/// A change of the ring on its way, partition by partition.
///
/// It leads from the layout `old` to the one that the rest of the state describes
/// ([`ClusterState::layout`]): the members that are joining own their share in it, those that are leaving
/// or taken out own none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RingChange {
    /// The epoch that it began with: its name.
    pub began: Epoch,
    /// Since when the same is asked of its owners: the epoch that it began with, or the last one in which a
    /// member was declared dead meanwhile. What an owner was asked before says nothing of that.
    pub asked: Epoch,
    /// What it is for.
    pub purpose: Purpose,
    /// Where it leads away from.
    pub old: Layout,
    /// How far each partition is.
    pub phases: Vec<Phase>,
}

/// What a change of the ring is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// These nodes join.
    Join(BTreeSet<NodeId>),
    /// This node leaves.
    Leave(NodeId),
    /// These nodes are taken out for good: they are dead.
    Remove(BTreeSet<NodeId>),
    /// A dead node is taken out, and another one takes its place.
    Replace {
        /// The dead one.
        old: NodeId,
        /// The new one.
        new: NodeId,
    },
    /// This node gets a larger or a smaller share.
    Weigh(NodeId),
    /// The replication of this keyspace is altered.
    Replicate(KeyspaceName),
}

/// How far a partition is on its way from its old owners to its new ones. A phase begins once all those
/// who hold the partition act under the one before, so nobody is ever two phases apart from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Both are written to, the old ones are read. The new ones fetch what there is.
    Filling,
    /// Both are written to, the new ones are read. What has come to the old ones in the end is handed over.
    Serving,
    /// The new ones are written to and read. The old ones drop what they hold.
    Done,
}

impl Phase {
    /// The one that follows.
    pub fn next(self) -> Self {
        match self {
            Phase::Filling => Phase::Serving,
            Phase::Serving | Phase::Done => Phase::Done,
        }
    }
}

impl std::fmt::Display for Purpose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |nodes: &BTreeSet<NodeId>| {
            let names: Vec<&str> = nodes.iter().map(NodeId::as_str).collect();
            names.join(", ")
        };
        match self {
            Self::Join(nodes) => write!(f, "{} joining", list(nodes)),
            Self::Leave(node) => write!(f, "{node} leaving"),
            Self::Remove(nodes) => write!(f, "{} being removed", list(nodes)),
            Self::Replace { old, new } => write!(f, "{new} taking the place of {old}"),
            Self::Weigh(node) => write!(f, "another weight for {node}"),
            Self::Replicate(keyspace) => write!(f, "another replication of keyspace {keyspace}"),
        }
    }
}

impl RingChange {
    /// How far a partition is.
    pub fn phase(&self, partition: PartitionId) -> Phase {
        self.phases.get(partition.0 as usize).copied().unwrap_or(Phase::Done)
    }
}

impl ClusterState {
    /// The first state of a cluster: its founder alone, and the default keyspace.
    pub fn founded(name: ClusterName, partitions: u32, founder: Member) -> Self {
        let epoch = Epoch(1);
        let default = Keyspace {
            id: KeyspaceId(epoch.0),
            ruled_since: epoch,
            config: KeyspaceConfig::default(),
        };
        Self {
            name,
            epoch,
            partitions,
            members: BTreeMap::from([(founder.id.clone(), founder)]),
            keyspaces: BTreeMap::from([(KeyspaceName::default_keyspace(), default)]),
            removed: BTreeSet::new(),
            written_off: BTreeSet::new(),
            expected: BTreeMap::new(),
            change: None,
        }
    }

    /// Members that own a share of the ring, or will once the change that is under way is through, by
    /// their names.
    pub fn owners(&self) -> impl Iterator<Item = &Member> {
        let owns = |state| matches!(state, MemberState::Up | MemberState::Joining);
        self.members.values().filter(move |member| owns(member.state))
    }

    /// The members whose votes count: all but those that were declared dead.
    pub fn voters(&self) -> impl Iterator<Item = &NodeId> {
        self.members.keys().filter(|id| !self.written_off.contains(*id))
    }

    /// Whether a node was declared dead, or is no member: nobody waits for it.
    pub fn is_written_off(&self, node: &NodeId) -> bool {
        let is_out = |member: &Member| member.state == MemberState::Removed;
        self.written_off.contains(node) || self.members.get(node).is_none_or(is_out)
    }

    /// The layout that the members and keyspaces describe: the one that holds, or the one that the change
    /// that is under way leads to.
    pub fn layout(&self) -> Layout {
        let replication = |keyspace: &Keyspace| (keyspace.id, keyspace.config.replication.clone());
        Layout {
            owners: self.owners().map(|member| (member.id.clone(), member.weight)).collect(),
            replication: self.keyspaces.values().map(replication).collect(),
        }
    }

    /// Datacenters that have members with a share, with how many.
    pub fn datacenters(&self) -> BTreeMap<Datacenter, usize> {
        datacenters_of(self.owners())
    }

    /// The owners of a layout, with the weights that they have in it.
    pub fn owners_in<'a>(&'a self, layout: &'a Layout) -> impl Iterator<Item = (&'a Member, f64)> {
        let owners = layout.owners.iter();
        owners.filter_map(|(id, weight)| Some((self.members.get(id)?, *weight)))
    }

    /// How many replicas there are in each datacenter under a replication, as the members stand:
    /// never more than the datacenter has nodes, and only datacenters that have some.
    pub fn effective_replication(&self, replication: &Replication) -> BTreeMap<Datacenter, usize> {
        effective(self.datacenters(), replication)
    }

    /// The same in a layout.
    pub fn effective_replication_in(
        &self,
        layout: &Layout,
        replication: &Replication,
    ) -> BTreeMap<Datacenter, usize> {
        let owners = self.owners_in(layout).map(|(member, _)| member);
        effective(datacenters_of(owners), replication)
    }
}

fn datacenters_of<'a>(owners: impl Iterator<Item = &'a Member>) -> BTreeMap<Datacenter, usize> {
    let mut datacenters = BTreeMap::new();
    for member in owners {
        *datacenters.entry(member.datacenter.clone()).or_insert(0) += 1;
    }
    datacenters
}

fn effective(
    nodes: BTreeMap<Datacenter, usize>,
    replication: &Replication,
) -> BTreeMap<Datacenter, usize> {
    let effective = nodes.into_iter().map(|(datacenter, nodes)| {
        let wanted = match replication {
            Replication::Auto => AUTO_REPLICAS,
            Replication::PerDatacenter(counts) => counts.get(&datacenter).copied().unwrap_or(0),
        };
        (datacenter, nodes.min(wanted.into()))
    });
    effective.filter(|(_, replicas)| *replicas > 0).collect()
}
