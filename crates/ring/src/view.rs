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

use anello_protocol::{
    cluster::{ClusterState, KeyspaceConfig, Layout, Member, Phase},
    id::{Datacenter, Epoch, KeyspaceId, KeyspaceName, NodeId, PartitionId},
    key::{DataKey, Key, KeyHash},
    message::client::KeyLocation,
};

pub use crate::placement::Placement;
use crate::{
    error::RingError,
    handover::Handover,
    member::RingMember,
    placement::{Placements, Side},
    ring::Ring,
};

/// One agreed state of the cluster with its ring.
#[derive(Debug)]
pub struct View {
    cluster: Arc<ClusterState>,
    /// The ring that holds, or that the change leads to.
    ring: Arc<Ring>,
    /// The ring that the change leads away from, if one is under way.
    old_ring: Option<Arc<Ring>>,
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
    /// How many replicas there really are, by datacenter; while the ring changes, how many there will be.
    pub replication: Arc<BTreeMap<Datacenter, usize>>,
    /// How many there were in the ring that a change leads away from; if none is under way, the same.
    old_replication: Arc<BTreeMap<Datacenter, usize>>,
    /// By partition; filled as they are asked for.
    placements: OnceLock<Box<[OnceLock<Placements>]>>,
}

impl View {
    /// The view of a state, with the rings that its owners make.
    pub fn of(cluster: Arc<ClusterState>) -> Result<Self, RingError> {
        let ring_of = |layout: &Layout| {
            let owners = cluster.owners_in(layout);
            let members = owners.map(|(member, weight)| ring_member(member, weight));
            Ring::build(cluster.epoch, cluster.partitions, members).map(Arc::new)
        };
        let ring = ring_of(&cluster.layout())?;
        let old = cluster.change.as_ref().map(|change| ring_of(&change.old));
        let old_ring = old.transpose()?;
        let keyspaces = cluster.keyspaces.iter().map(|(name, keyspace)| {
            let replication = &keyspace.config.replication;
            let now = Arc::new(cluster.effective_replication(replication));
            let before = cluster.change.as_ref().map(|change| {
                // One that was created since then has held nothing anywhere else.
                let before = change.old.replication.get(&keyspace.id).unwrap_or(replication);
                Arc::new(cluster.effective_replication_in(&change.old, before))
            });
            let view = KeyspaceView {
                id: keyspace.id,
                ruled_since: keyspace.ruled_since,
                config: keyspace.config.clone(),
                old_replication: before.unwrap_or_else(|| Arc::clone(&now)),
                replication: now,
                placements: OnceLock::new(),
            };
            (name.clone(), view)
        });
        Ok(Self { keyspaces: keyspaces.collect(), ring, old_ring, cluster })
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

    /// Who holds a partition in a keyspace, and is written to.
    pub fn placement_of<'a>(
        &self,
        keyspace: &'a KeyspaceView,
        partition: PartitionId,
    ) -> &'a Arc<Placement> {
        &self.placements_of(keyspace, partition).all
    }

    /// Those only, with their stand-ins, who are read and issue dots: the same unless the ring changes.
    pub fn readers<'a>(&self, keyspace: &'a KeyspaceView, hash: KeyHash) -> &'a Arc<Placement> {
        &self.placements_of(keyspace, self.ring.partition_of(hash)).readers
    }

    fn placements_of<'a>(
        &self,
        keyspace: &'a KeyspaceView,
        partition: PartitionId,
    ) -> &'a Placements {
        let placements = keyspace
            .placements
            .get_or_init(|| (0..self.ring.partitions()).map(|_| OnceLock::new()).collect());
        placements[partition.0 as usize].get_or_init(|| {
            let new = Side { ring: &self.ring, counts: &keyspace.replication };
            match (&self.old_ring, &self.cluster.change) {
                (Some(ring), Some(change)) => {
                    let old = Side { ring, counts: &keyspace.old_replication };
                    Placements::moving(partition, old, new, change.phase(partition))
                }
                _ => Placements::settled(partition, new),
            }
        })
    }

    /// Where a hash lives in a keyspace, with the stand-ins, for people and clients: those who are read.
    pub fn locate(&self, keyspace: &KeyspaceView, hash: KeyHash) -> KeyLocation {
        let placement = self.readers(keyspace, hash);
        let list = self.ring.preference_list(placement.partition, &keyspace.replication);
        let stands_in = |id: &&NodeId| placement.index_of(id).is_none();
        let fallbacks = list.replicas().iter().copied().chain(list.stand_ins());
        KeyLocation {
            partition: placement.partition,
            replicas: placement.replicas.clone(),
            fallbacks: fallbacks.map(|it| &it.id).filter(stands_in).cloned().collect(),
        }
    }

    /// The partitions of which a node is a replica in a keyspace, in their order.
    pub fn held_in(&self, keyspace: &KeyspaceView, node: &NodeId) -> Vec<PartitionId> {
        if self.old_ring.is_none() {
            return self.ring.vnodes_of(node, &keyspace.replication);
        }
        let holds = |partition: &PartitionId| {
            self.placement_of(keyspace, *partition).index_of(node).is_some()
        };
        self.ring.partition_ids().filter(holds).collect()
    }

    /// The partitions of which a node is a replica in some keyspace.
    pub fn held_partitions(&self, node: &NodeId) -> BTreeSet<PartitionId> {
        self.keyspaces.values().flat_map(|keyspace| self.held_in(keyspace, node)).collect()
    }

    /// Whether a node is a replica of a partition in the keyspace with this id.
    pub fn holds(&self, node: &NodeId, keyspace: KeyspaceId, partition: PartitionId) -> bool {
        self.keyspace_of(keyspace).is_some_and(|keyspace| {
            partition.0 < self.ring.partitions()
                && self.placement_of(keyspace, partition).index_of(node).is_some()
        })
    }

    /// The partitions that are on their way to other owners in some keyspace, with how far they are.
    pub fn moving(&self) -> impl Iterator<Item = (PartitionId, Phase)> {
        let change = self.cluster.change.as_deref();
        let phases = change.into_iter().flat_map(|change| {
            let phases = change.phases.iter().enumerate();
            phases.map(|(partition, phase)| (PartitionId(partition as u32), *phase))
        });
        phases.filter(|(_, phase)| *phase != Phase::Done)
    }

    /// What the end of a partition's phase takes.
    pub fn handover(&self, partition: PartitionId) -> Handover {
        let keyspaces = self.keyspaces.values();
        let placements =
            keyspaces.map(|keyspace| (keyspace.id, self.placement_of(keyspace, partition)));
        let phase = self.cluster.change.as_ref().map_or(Phase::Done, |it| it.phase(partition));
        Handover::of(&self.cluster, phase, placements)
    }
}

fn ring_member(member: &Member, weight: f64) -> RingMember {
    RingMember {
        id: member.id.clone(),
        datacenter: member.datacenter.clone(),
        rack: member.rack.clone(),
        weight,
    }
}
