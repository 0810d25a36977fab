//! The cluster as the client knows it: who holds which key, and who else could be asked.
//!
//! Made whole from one agreed [`ClusterState`] and never changed; a newer state makes a new view.

use std::collections::BTreeMap;

use anello_protocol::{
    cluster::ClusterState,
    id::{Datacenter, Epoch, KeyspaceName, NodeId, PartitionId},
    key::{Key, KeyHash},
};
use anello_ring::{ReplicaCounts, Ring, RingError, RingMember};

use crate::routing::{Candidates, Target};

/// Who holds what, as of one epoch.
#[derive(Debug)]
pub(crate) struct RingView {
    state: ClusterState,
    ring: Ring,
    /// The client's own datacenter, if it said.
    datacenter: Option<Datacenter>,
    replication: BTreeMap<KeyspaceName, ReplicaCounts>,
    /// Members of the client's datacenter, and of the others.
    members: [Vec<Target>; 2],
}

impl RingView {
    /// The view of a state from a datacenter; from nowhere in particular all nodes are equally near.
    pub(crate) fn new(
        state: ClusterState,
        datacenter: Option<Datacenter>,
    ) -> Result<Self, RingError> {
        let owners = state.owners().map(|member| RingMember {
            id: member.id.clone(),
            datacenter: member.datacenter.clone(),
            rack: member.rack.clone(),
            weight: member.weight,
        });
        let ring = Ring::build(state.epoch, state.partitions, owners)?;
        let replication = state.keyspaces.iter().map(|(name, keyspace)| {
            (name.clone(), state.effective_replication(&keyspace.config.replication))
        });
        let replication = replication.collect();
        let mut members = [Vec::new(), Vec::new()];
        for member in state.owners() {
            let away = usize::from(!is_near(datacenter.as_ref(), &member.datacenter));
            members[away].push(Target::Node(member.id.clone()));
        }
        Ok(Self { state, ring, datacenter, replication, members })
    }

    /// The number of the state that this is the view of.
    pub(crate) fn epoch(&self) -> Epoch {
        self.state.epoch
    }

    /// The state that this is the view of.
    pub(crate) fn state(&self) -> &ClusterState {
        &self.state
    }

    /// Whether the keyspace exists.
    pub(crate) fn knows(&self, keyspace: &KeyspaceName) -> bool {
        self.replication.contains_key(keyspace)
    }

    /// The partition that a key lies in.
    pub(crate) fn partition_of(&self, keyspace: &KeyspaceName, key: &Key) -> PartitionId {
        self.ring.partition_of(KeyHash::of(keyspace, key))
    }

    /// Members that can be asked, with their addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&NodeId, &str)> {
        self.state.owners().map(|member| (&member.id, member.quic.as_str()))
    }

    /// Whom to ask for a key, the best first; in a keyspace that isn't known, anybody.
    pub(crate) fn for_key(&self, keyspace: &KeyspaceName, key: &Key) -> Candidates<'_> {
        let mut replicas = [Vec::new(), Vec::new()];
        let partition = self.partition_of(keyspace, key);
        for (datacenter, count) in self.replication.get(keyspace).into_iter().flatten() {
            let away = usize::from(!is_near(self.datacenter.as_ref(), datacenter));
            let nodes = self.ring.replicas(partition, datacenter, *count);
            replicas[away].extend(nodes.map(|member| Target::Node(member.id.clone())));
        }
        Candidates { replicas, ..self.for_anything() }
    }

    /// Whom to ask for what every node knows.
    pub(crate) fn for_anything(&self) -> Candidates<'_> {
        let [here, there] = &self.members;
        Candidates { members: [here, there], ..Candidates::default() }
    }
}

fn is_near(own: Option<&Datacenter>, other: &Datacenter) -> bool {
    own.is_none_or(|own| own == other)
}

#[cfg(test)]
mod tests {
    use anello_protocol::{
        cluster::{Keyspace, KeyspaceConfig, Member, MemberState, Replication},
        id::{ClusterName, KeyspaceId},
    };

    use super::*;

    fn member(id: &str, datacenter: &str, state: MemberState) -> Member {
        Member {
            id: id.parse().unwrap(),
            datacenter: datacenter.parse().unwrap(),
            rack: "a".parse().unwrap(),
            weight: 1.0,
            quic: format!("{id}:7400"),
            http: format!("{id}:7480"),
            state,
        }
    }

    /// Five nodes in each of two datacenters, and a keyspace that lives in only one.
    fn state() -> ClusterState {
        let founder = member("eu-0", "eu", MemberState::Up);
        let mut state = ClusterState::founded(ClusterName::new("demo").unwrap(), 64, founder);
        for (datacenter, at) in (1..5).map(|at| ("eu", at)).chain((0..5).map(|at| ("us", at))) {
            let member = member(&format!("{datacenter}-{at}"), datacenter, MemberState::Up);
            state.members.insert(member.id.clone(), member);
        }
        let gone = member("us-gone", "us", MemberState::Left);
        state.members.insert(gone.id.clone(), gone);
        let counts = BTreeMap::from([(Datacenter::new("us").unwrap(), 2)]);
        let config = KeyspaceConfig {
            replication: Replication::PerDatacenter(counts),
            ..KeyspaceConfig::default()
        };
        let keyspace = Keyspace { id: KeyspaceId(2), ruled_since: Epoch(2), config };
        state.keyspaces.insert("abroad".parse().unwrap(), keyspace);
        state
    }

    fn names(targets: &[Target]) -> Vec<String> {
        let name = |target: &Target| match target {
            Target::Node(id) => id.to_string(),
            Target::Seed(seed) => seed.to_string(),
        };
        targets.iter().map(name).collect()
    }

    fn groups(view: &RingView, keyspace: &str, key: &'static str) -> [Vec<String>; 4] {
        let key = Key::new(key).unwrap();
        let candidates = view.for_key(&keyspace.parse().unwrap(), &key);
        let [near, far] = &candidates.replicas;
        let [here, there] = candidates.members;
        [names(near), names(far), names(here), names(there)]
    }

    #[test]
    fn replicas_are_sorted_by_nearness() {
        let view = RingView::new(state(), Some("us".parse().unwrap())).unwrap();
        let [near, far, here, there] = groups(&view, "default", "k");
        assert!(near.len() == 3 && near.iter().all(|id| id.starts_with("us-")), "{near:?}");
        assert!(far.len() == 3 && far.iter().all(|id| id.starts_with("eu-")), "{far:?}");
        assert_eq!(here, ["us-0", "us-1", "us-2", "us-3", "us-4"]);
        assert_eq!(there.len(), 5);
        assert_eq!(view.addresses().count(), 10);
    }

    #[test]
    fn a_keyspace_may_live_elsewhere() {
        let view = RingView::new(state(), Some("eu".parse().unwrap())).unwrap();
        let [near, far, ..] = groups(&view, "abroad", "k");
        assert_eq!((near.len(), far.len()), (0, 2));
    }

    #[test]
    fn from_nowhere_in_particular_all_are_near() {
        let view = RingView::new(state(), None).unwrap();
        let [near, far, here, there] = groups(&view, "default", "k");
        assert_eq!((near.len(), far.len(), here.len(), there.len()), (6, 0, 10, 0));
    }

    #[test]
    fn an_unknown_keyspace_can_be_asked_for_anywhere() {
        let view = RingView::new(state(), None).unwrap();
        let [near, far, here, _] = groups(&view, "unheard-of", "k");
        assert_eq!((near.len(), far.len(), here.len()), (0, 0, 10));
        assert!(!view.knows(&"unheard-of".parse().unwrap()));
    }
}
