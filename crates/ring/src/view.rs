//! Where keys live, as coordinators, vnodes and repairs look it up: the agreed state and its ring, with what
//! is asked for again and again kept at hand.
//!
//! One [`View`] serves all actors of a node. A lookup of a place that was looked up before is a read
//! from memory. Nothing here changes once it is made, but for what it remembers; a new state makes a
//! new view.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use crate::{error::RingError, member::RingMember, ring::Ring};
use anello_protocol::{
    cluster::{ClusterState, KeyspaceConfig},
    id::{Datacenter, Epoch, KeyspaceId, KeyspaceName, NodeId, PartitionId},
    key::{DataKey, Key, KeyHash},
    message::client::{KeyLocation, Place},
};

/// The most nodes of a datacenter that are kept at hand to stand in for a partition's replicas. With more
/// than so many away at once, requests fail.
const MAX_STAND_INS: usize = 8;

/// The replicas of one partition in one keyspace, by datacenter, each datacenter's in the order of its
/// preference list.
#[derive(Debug, PartialEq, Eq)]
pub struct Placement {
    /// The partition.
    pub partition: PartitionId,
    /// Who holds it.
    pub replicas: Vec<Place>,
    /// Who takes the place of a replica that is away, in the order in which they are asked.
    pub stand_ins: Vec<Place>,
}

impl Placement {
    /// Which of the replicas a node is.
    pub fn index_of(&self, node: &NodeId) -> Option<usize> {
        self.replicas.iter().position(|place| place.id == *node)
    }
}

/// One agreed state of the cluster with its ring.
#[derive(Debug)]
pub struct View {
    cluster: Arc<ClusterState>,
    ring: Arc<Ring>,
    keyspaces: BTreeMap<KeyspaceName, KeyspaceView>,
}

/// A keyspace under one agreed state.
#[derive(Debug)]
pub struct KeyspaceView {
    /// Its life.
    pub id: KeyspaceId,
    /// Since when its conflict rule holds.
    pub ruled_since: Epoch,
    /// What was decided for it.
    pub config: KeyspaceConfig,
    /// How many replicas there really are, by datacenter.
    pub replication: Arc<BTreeMap<Datacenter, usize>>,
    /// By partition; filled as they are asked for.
    placements: OnceLock<Box<[OnceLock<Arc<Placement>>]>>,
}

impl View {
    /// The view of a state, with the ring that its owners make.
    pub fn of(cluster: Arc<ClusterState>) -> Result<Self, RingError> {
        let members = cluster.owners().map(|member| RingMember {
            id: member.id.clone(),
            datacenter: member.datacenter.clone(),
            rack: member.rack.clone(),
            weight: member.weight,
        });
        let ring = Ring::build(cluster.epoch, cluster.partitions, members)?;
        Ok(Self::new(cluster, Arc::new(ring)))
    }

    /// The view of a state and its ring, if that is there already.
    pub fn new(cluster: Arc<ClusterState>, ring: Arc<Ring>) -> Self {
        let keyspaces = cluster.keyspaces.iter().map(|(name, keyspace)| {
            let view = KeyspaceView {
                id: keyspace.id,
                ruled_since: keyspace.ruled_since,
                config: keyspace.config.clone(),
                replication: Arc::new(cluster.effective_replication(&keyspace.config.replication)),
                placements: OnceLock::new(),
            };
            (name.clone(), view)
        });
        Self { keyspaces: keyspaces.collect(), cluster, ring }
    }

    /// The agreed state.
    pub fn cluster(&self) -> &Arc<ClusterState> {
        &self.cluster
    }

    /// Its ring.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Its number.
    pub fn epoch(&self) -> Epoch {
        self.cluster.epoch
    }

    /// A keyspace by its name.
    pub fn keyspace(&self, name: &KeyspaceName) -> Option<&KeyspaceView> {
        self.keyspaces.get(name)
    }

    /// All keyspaces, by their names.
    pub fn keyspaces(&self) -> impl Iterator<Item = (&KeyspaceName, &KeyspaceView)> {
        self.keyspaces.iter()
    }

    /// A keyspace by its id.
    pub fn keyspace_of(&self, id: KeyspaceId) -> Option<&KeyspaceView> {
        self.keyspaces.values().find(|keyspace| keyspace.id == id)
    }

    /// The address of a key of a keyspace.
    pub fn data_key(&self, name: &KeyspaceName, keyspace: &KeyspaceView, key: Key) -> DataKey {
        DataKey { hash: KeyHash::of(name, &key), keyspace: keyspace.id, key }
    }

    /// Where a hash lives in a keyspace.
    pub fn placement<'a>(&self, keyspace: &'a KeyspaceView, hash: KeyHash) -> &'a Arc<Placement> {
        self.placement_of(keyspace, self.ring.partition_of(hash))
    }

    /// Who holds a partition in a keyspace.
    pub fn placement_of<'a>(
        &self,
        keyspace: &'a KeyspaceView,
        partition: PartitionId,
    ) -> &'a Arc<Placement> {
        let placements = keyspace
            .placements
            .get_or_init(|| (0..self.ring.partitions()).map(|_| OnceLock::new()).collect());
        placements[partition.0 as usize].get_or_init(|| {
            let list = self.ring.preference_list(partition, &keyspace.replication);
            let place = |member: &RingMember| Place {
                id: member.id.clone(),
                datacenter: member.datacenter.clone(),
                rack: member.rack.clone(),
            };
            let replicas = list.replicas().iter().map(|member| place(member)).collect();
            let stand_ins = list.stand_ins_up_to(MAX_STAND_INS).map(place).collect();
            Arc::new(Placement { partition, replicas, stand_ins })
        })
    }

    /// Where a hash lives in a keyspace, with the stand-ins, for people and clients.
    pub fn locate(&self, keyspace: &KeyspaceView, hash: KeyHash) -> KeyLocation {
        let placement = self.placement(keyspace, hash);
        let list = self.ring.preference_list(placement.partition, &keyspace.replication);
        KeyLocation {
            partition: placement.partition,
            replicas: placement.replicas.clone(),
            fallbacks: list.stand_ins().map(|member| member.id.clone()).collect(),
        }
    }

    /// The partitions of which a node is a replica in some keyspace.
    pub fn held_partitions(&self, node: &NodeId) -> BTreeSet<PartitionId> {
        let replications: BTreeSet<_> =
            self.keyspaces.values().map(|keyspace| &keyspace.replication).collect();
        let held = replications.iter();
        held.flat_map(|replication| self.ring.vnodes_of(node, replication)).collect()
    }

    /// Whether a node is a replica of a partition in the keyspace with this id.
    pub fn holds(&self, node: &NodeId, keyspace: KeyspaceId, partition: PartitionId) -> bool {
        self.keyspace_of(keyspace).is_some_and(|keyspace| {
            let list = self.ring.preference_list(partition, &keyspace.replication);
            list.replicas().iter().any(|member| member.id == *node)
        })
    }
}
