//! What a change of the ring will do, told before it is begun: what moves from whom to whom, how many replicas
//! there are on the way, and what nobody has any more.
//!
//! A pure comparison of two agreed states, the one that holds and the one that is thought of, with what is known
//! of the nodes besides. A node that was declared dead holds nothing here; one that can't be reached holds what
//! it holds, and a change that concerns it waits for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anello_protocol::{
    cluster::ClusterState,
    id::{Datacenter, KeyspaceName, NodeId, PartitionId},
    message::client::Place,
};

use crate::{
    error::RingError,
    ring::ReplicaCounts,
    view::{Placement, View},
};

/// What is known of the nodes.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Who answers.
    pub reachable: BTreeSet<NodeId>,
    /// About how many bytes each partition has that a node holds.
    pub partition_bytes: BTreeMap<NodeId, u64>,
}

/// See the head of this file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forecast {
    /// What nodes get that they don't hold.
    pub gains: BTreeMap<NodeId, Gain>,
    /// How many partitions nodes let go of.
    pub releases: BTreeMap<NodeId, usize>,
    /// Replicas that answer as the ring is, while partitions are filled, and once all is through.
    pub redundancy: [Redundancy; 3],
    /// In which datacenters there are fewer racks than replicas once all is through: both numbers.
    pub short_of_racks: BTreeMap<Datacenter, (usize, usize)>,
    /// Partitions of which two replicas share a rack once all is through, though another rack is left.
    pub shared_racks: usize,
    /// Partitions that have something to move and no owner that has it and answers.
    pub lost: BTreeSet<(KeyspaceName, PartitionId)>,
    /// Nodes that the change waits for, because they take part in it and can't be reached.
    pub waits_for: BTreeSet<NodeId>,
}

/// What a node gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gain {
    /// How many partitions.
    pub partitions: usize,
    /// About how many bytes.
    pub bytes: u64,
    /// How many partitions each of those has who hold them, the nearest one of each partition.
    pub from: BTreeMap<NodeId, usize>,
}

/// How many replicas answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redundancy {
    /// Of the partition that has the fewest.
    pub least: usize,
    /// Of as many partitions as of any other number.
    pub typical: usize,
}

impl Forecast {
    /// What it takes for the ring of one state to become that of another. A change that is under way counts
    /// as through.
    pub fn of(
        before: &ClusterState,
        after: &ClusterState,
        known: &Known,
    ) -> Result<Self, RingError> {
        let (old, new) = (settled(before)?, settled(after)?);
        let mut forecast = Self::default();
        let mut counts = [BTreeMap::new(), BTreeMap::new(), BTreeMap::new()];
        let answers = |place: &&Place| known.reachable.contains(&place.id);
        let is_dead = |place: &&Place| after.is_written_off(&place.id);
        let is_new = |place: &&Place| !before.members.contains_key(&place.id);
        let mut gained: BTreeMap<(NodeId, PartitionId), Option<&Place>> = BTreeMap::new();
        let mut released = BTreeSet::new();
        for (name, keyspace) in new.keyspaces() {
            let former = old.keyspace(name);
            for partition in new.ring().partition_ids() {
                let from = former.map_or(&[][..], |it| held(old.placement_of(it, partition)));
                let to = new.placement_of(keyspace, partition);
                let sources: Vec<&Place> = from.iter().filter(|it| !is_dead(it)).collect();
                let alive = sources.iter().copied().filter(answers).count();
                for (counts, replicas) in counts.iter_mut().zip([
                    from.iter().filter(answers).count(),
                    alive,
                    // New ones are there, or there would be nothing to think of.
                    held(to).iter().filter(|it| answers(it) || is_new(it)).count(),
                ]) {
                    *counts.entry(replicas).or_insert(0_usize) += 1;
                }
                let is_in = |list: &[Place], id: &NodeId| list.iter().any(|place| place.id == *id);
                let fresh = held(to).iter().filter(|place| !is_in(from, &place.id));
                let gone = from.iter().filter(|place| !is_in(held(to), &place.id));
                released.extend(gone.clone().map(|place| (place.id.clone(), partition)));
                let fresh: Vec<&Place> = fresh.collect();
                if fresh.is_empty() && gone.count() == 0 {
                    continue;
                }
                if !from.is_empty() && alive == 0 {
                    forecast.lost.insert((name.clone(), partition));
                }
                let takes_part = sources.iter().copied().chain(held(to));
                let silent = takes_part.filter(|it| !answers(it) && !is_new(it));
                forecast.waits_for.extend(silent.map(|place| place.id.clone()));
                for place in fresh {
                    let near = |it: &&&Place| it.datacenter == place.datacenter;
                    let source = sources.iter().find(near).or_else(|| sources.first()).copied();
                    let gain = gained.entry((place.id.clone(), partition)).or_default();
                    *gain = gain.or(source);
                }
            }
            forecast.look_at_racks(&new, &keyspace.replication, |partition| {
                held(new.placement_of(keyspace, partition))
            });
        }
        for ((node, _), source) in gained {
            let gain = forecast.gains.entry(node).or_default();
            gain.partitions += 1;
            if let Some(source) = source {
                *gain.from.entry(source.id.clone()).or_insert(0) += 1;
                gain.bytes += known.bytes_of(&source.id);
            }
        }
        for (node, _) in released {
            *forecast.releases.entry(node).or_insert(0) += 1;
        }
        forecast.redundancy = counts.map(|counts| Redundancy::of(&counts));
        Ok(forecast)
    }

    /// Whether nothing moves.
    pub fn is_empty(&self) -> bool {
        self.gains.is_empty() && self.releases.is_empty()
    }

    /// How many partitions get another holder, each counted for every new one.
    pub fn moves(&self) -> usize {
        self.gains.values().map(|gain| gain.partitions).sum()
    }

    /// About how many bytes that is.
    pub fn bytes(&self) -> u64 {
        self.gains.values().map(|gain| gain.bytes).sum()
    }

    /// How long the node takes that gets the most, when each gets so many bytes a second.
    pub fn takes(&self, bytes_per_s: u64) -> Duration {
        let most = self.gains.values().map(|gain| gain.bytes).max().unwrap_or(0);
        Duration::from_secs(most.div_ceil(bytes_per_s.max(1)))
    }

    fn look_at_racks<'a>(
        &mut self,
        view: &View,
        replication: &ReplicaCounts,
        replicas: impl Fn(PartitionId) -> &'a [Place],
    ) {
        for (datacenter, count) in replication {
            let racks: BTreeSet<_> =
                view.ring().members_in(datacenter).map(|member| &member.rack).collect();
            if racks.len() < *count {
                let short = self.short_of_racks.entry(datacenter.clone()).or_default();
                *short = (racks.len(), short.1.max(*count));
            }
            for partition in view.ring().partition_ids() {
                let here = replicas(partition).iter().filter(|it| it.datacenter == *datacenter);
                let used: BTreeSet<_> = here.map(|place| &place.rack).collect();
                self.shared_racks += usize::from(used.len() < racks.len().min(*count));
            }
        }
    }
}

impl Known {
    /// A node that doesn't say has as much as the others do.
    fn bytes_of(&self, node: &NodeId) -> u64 {
        let all = &self.partition_bytes;
        let typical = || all.values().sum::<u64>() / (all.len() as u64).max(1);
        all.get(node).copied().unwrap_or_else(typical)
    }
}

impl Redundancy {
    fn of(counts: &BTreeMap<usize, usize>) -> Self {
        let least = counts.keys().next().copied().unwrap_or(0);
        let typical = counts.iter().max_by_key(|(_, partitions)| **partitions);
        Self { least, typical: typical.map_or(0, |(replicas, _)| *replicas) }
    }
}

/// The view of a state once its change is through.
fn settled(state: &ClusterState) -> Result<View, RingError> {
    View::of(Arc::new(ClusterState { change: None, ..state.clone() }))
}

fn held(placement: &Placement) -> &[Place] {
    &placement.replicas
}

#[cfg(test)]
mod tests {
    use anello_protocol::{
        cluster::{Member, MemberState, Replication},
        id::ClusterName,
    };

    use super::*;

    const MIB: u64 = 1 << 20;

    fn id(name: &str) -> NodeId {
        NodeId::new(name).expect("a good name")
    }

    fn member(name: &str, state: MemberState) -> Member {
        let mut parts = name.split('-');
        let mut part = || parts.next().expect("a datacenter, a rack, a number");
        Member {
            id: id(name),
            datacenter: part().parse().expect("a good name"),
            rack: part().parse().expect("a good name"),
            weight: 1.0,
            quic: String::new(),
            http: String::new(),
            state,
        }
    }

    fn cluster(nodes: &[&str]) -> ClusterState {
        let name = ClusterName::new("demo").expect("a good name");
        let mut state = ClusterState::founded(name, 64, member(nodes[0], MemberState::Up));
        nodes.iter().for_each(|node| put(&mut state, node, MemberState::Up));
        state
    }

    fn put(state: &mut ClusterState, node: &str, to: MemberState) {
        state.members.insert(id(node), member(node, to));
    }

    /// All answer but these, and have 2 MiB of each partition.
    fn known(state: &ClusterState, away: &[&str]) -> Known {
        let there = state.members.keys().filter(|node| !away.contains(&node.as_str()));
        Known {
            reachable: there.clone().cloned().collect(),
            partition_bytes: there.map(|node| (node.clone(), 2 * MIB)).collect(),
        }
    }

    fn forecast(before: &ClusterState, after: &ClusterState, away: &[&str]) -> Forecast {
        Forecast::of(before, after, &known(before, away)).expect("both have a ring")
    }

    const SIX: [&str; 6] = ["eu-a-1", "eu-b-1", "eu-c-1", "us-a-1", "us-b-1", "us-c-1"];

    #[test]
    fn who_joins_gets_its_share_from_its_own_datacenter() {
        let before = cluster(&SIX);
        let mut after = before.clone();
        put(&mut after, "eu-a-2", MemberState::Joining);
        let forecast = forecast(&before, &after, &[]);
        assert_eq!(forecast.gains.keys().collect::<Vec<_>>(), [&id("eu-a-2")]);
        let gain = &forecast.gains[&id("eu-a-2")];
        assert!((20..=44).contains(&gain.partitions), "{gain:?}");
        assert_eq!(gain.from.values().sum::<usize>(), gain.partitions);
        assert!(gain.from.keys().all(|node| node.as_str().starts_with("eu-")), "{gain:?}");
        assert_eq!(gain.bytes, gain.partitions as u64 * 2 * MIB);
        assert_eq!(forecast.releases.values().sum::<usize>(), forecast.moves());
        assert_eq!(forecast.takes(8 * MIB).as_secs(), (forecast.bytes() / (8 * MIB)).max(1));
        let all = Redundancy { least: 6, typical: 6 };
        assert_eq!(forecast.redundancy, [all; 3]);
        assert_eq!((forecast.shared_racks, forecast.short_of_racks.len()), (0, 0));
        assert!(forecast.lost.is_empty() && forecast.waits_for.is_empty());
    }

    #[test]
    fn the_last_rack_is_missed() {
        let before = cluster(&["eu-a-1", "eu-a-2", "eu-b-1", "eu-c-1"]);
        let mut after = before.clone();
        put(&mut after, "eu-c-1", MemberState::Leaving);
        let forecast = forecast(&before, &after, &[]);
        assert_eq!(forecast.releases[&id("eu-c-1")], 64);
        assert_eq!(forecast.short_of_racks, [("eu".parse().unwrap(), (2, 3))].into());
        assert_eq!(forecast.shared_racks, 0, "no rack is left");
        assert_eq!(forecast.redundancy[2], Redundancy { least: 3, typical: 3 });
    }

    #[test]
    fn what_only_the_dead_had_is_lost() {
        let mut before = cluster(&["eu-a-1", "eu-b-1", "eu-c-1", "eu-a-2"]);
        for keyspace in before.keyspaces.values_mut() {
            let one = [("eu".parse().unwrap(), 1)].into();
            keyspace.config.replication = Replication::PerDatacenter(one);
        }
        let mut after = before.clone();
        put(&mut after, "eu-b-1", MemberState::Removed);
        after.written_off.insert(id("eu-b-1"));
        let dead = forecast(&before, &after, &["eu-b-1"]);
        assert_eq!(dead.lost.len(), dead.releases[&id("eu-b-1")]);
        // Some others move too, so that the shares stay even.
        let moved = dead.moves() - dead.lost.len();
        assert_eq!(dead.bytes(), moved as u64 * 2 * MIB, "nobody has what is lost");
        assert_eq!(dead.redundancy.map(|it| it.least), [0, 0, 1]);
        assert!(dead.waits_for.is_empty(), "nobody waits for the dead");
    }

    #[test]
    fn who_is_silent_is_waited_for() {
        let before = cluster(&["eu-a-1", "eu-b-1", "eu-c-1", "eu-a-2"]);
        let mut after = before.clone();
        put(&mut after, "eu-a-2", MemberState::Leaving);
        let forecast = forecast(&before, &after, &["eu-c-1"]);
        assert_eq!(forecast.waits_for, [id("eu-c-1")].into());
        assert!(forecast.lost.is_empty());
        assert_eq!(forecast.redundancy.map(|it| it.least), [2, 2, 2]);
    }

    #[test]
    fn nothing_moves_where_nothing_changes() {
        let before = cluster(&SIX);
        let forecast = forecast(&before, &before, &[]);
        assert!(forecast.is_empty());
        assert_eq!((forecast.moves(), forecast.takes(1)), (0, Duration::ZERO));
    }
}
