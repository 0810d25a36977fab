//! The cluster as the client knows it: who holds which key, and who else could be asked.
//!
//! Made whole from one agreed [`ClusterState`] and never changed; a newer state makes a new view. While the
//! ring changes, a key's replicas are those who are read: they alone can coordinate for it without passing
//! the request on. Nodes that join are asked for nothing but what they hold by then; those that were
//! declared dead are asked for nothing.

use std::sync::Arc;

use anello_protocol::{
    cluster::{ClusterState, Member, MemberState},
    id::{Datacenter, Epoch, KeyspaceName, NodeId, PartitionId},
    key::{Key, KeyHash},
};
use anello_ring::{RingError, view::View};

use crate::routing::{Candidates, Target};

/// Who holds what, as of one epoch.
#[derive(Debug)]
pub(crate) struct RingView {
    view: View,
    /// The client's own datacenter, if it said.
    datacenter: Option<Datacenter>,
    /// Members of the client's datacenter, and of the others.
    members: [Vec<Target>; 2],
}

impl RingView {
    /// The view of a state from a datacenter; from nowhere in particular all nodes are equally near.
    pub(crate) fn new(
        state: ClusterState,
        datacenter: Option<Datacenter>,
    ) -> Result<Self, RingError> {
        let view = View::of(Arc::new(state))?;
        let mut members = [Vec::new(), Vec::new()];
        for member in there(view.cluster()).filter(|it| it.state == MemberState::Up) {
            let away = usize::from(!is_near(datacenter.as_ref(), &member.datacenter));
            members[away].push(Target::Node(member.id.clone()));
        }
        Ok(Self { view, datacenter, members })
    }

    /// The number of the state that this is the view of.
    pub(crate) fn epoch(&self) -> Epoch {
        self.view.epoch()
    }

    /// The state that this is the view of.
    pub(crate) fn state(&self) -> &ClusterState {
        self.view.cluster()
    }

    /// Whether the keyspace exists.
    pub(crate) fn knows(&self, keyspace: &KeyspaceName) -> bool {
        self.view.keyspace(keyspace).is_some()
    }

    /// The partition that a key lies in.
    pub(crate) fn partition_of(&self, keyspace: &KeyspaceName, key: &Key) -> PartitionId {
        self.view.ring().partition_of(KeyHash::of(keyspace, key))
    }

    /// Members that may be asked, with their addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&NodeId, &str)> {
        there(self.view.cluster()).map(|member| (&member.id, member.quic.as_str()))
    }

    /// Whom to ask for a key, the best first; in a keyspace that isn't known, anybody.
    pub(crate) fn for_key(&self, keyspace: &KeyspaceName, key: &Key) -> Candidates<'_> {
        let mut replicas = [Vec::new(), Vec::new()];
        if let Some(known) = self.view.keyspace(keyspace) {
            let placement = self.view.readers(known, KeyHash::of(keyspace, key));
            for place in &placement.replicas {
                if !self.view.cluster().is_written_off(&place.id) {
                    let away = usize::from(!is_near(self.datacenter.as_ref(), &place.datacenter));
                    replicas[away].push(Target::Node(place.id.clone()));
                }
            }
        }
        Candidates { replicas, ..self.for_anything() }
    }

    /// Whom to ask for what every node knows.
    pub(crate) fn for_anything(&self) -> Candidates<'_> {
        let [here, there] = &self.members;
        Candidates { members: [here, there], ..Candidates::default() }
    }
}

/// Members that hold something, or will, and were not declared dead.
fn there(state: &ClusterState) -> impl Iterator<Item = &Member> {
    let holds =
        |state| matches!(state, MemberState::Joining | MemberState::Up | MemberState::Leaving);
    let members = state.members.values();
    members.filter(move |it| holds(it.state) && !state.written_off.contains(&it.id))
}

fn is_near(own: Option<&Datacenter>, other: &Datacenter) -> bool {
    own.is_none_or(|own| own == other)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use anello_protocol::{
        cluster::{Keyspace, KeyspaceConfig, Phase, Purpose, Replication, RingChange},
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

    /// The same, while `eu-5` joins and every partition is that far; with one that was declared dead.
    fn joining(phase: Phase) -> ClusterState {
        let mut state = state();
        let old = state.layout();
        let new = member("eu-5", "eu", MemberState::Joining);
        let purpose = Purpose::Join([new.id.clone()].into());
        state.members.insert(new.id.clone(), new);
        state.written_off.insert("us-4".parse().unwrap());
        let (began, asked, phases) = (Epoch(9), Epoch(9), vec![phase; 64]);
        state.change = Some(Box::new(RingChange { began, asked, purpose, old, phases }));
        state
    }

    /// How many of the partitions have a node among the replicas that are asked first.
    fn asked(view: &RingView, node: &str) -> usize {
        let node = Target::Node(node.parse().unwrap());
        let keys = (0..500).map(|at| Key::new(format!("key {at}")).unwrap());
        let is_asked = |key: &Key| {
            let candidates = view.for_key(&"default".parse().unwrap(), key);
            candidates.replicas.iter().flatten().any(|target| *target == node)
        };
        keys.filter(is_asked).count()
    }

    #[test]
    fn who_joins_is_asked_for_what_it_is_read_for() {
        let there = |phase| RingView::new(joining(phase), None).unwrap();
        let [filling, serving, done] = [Phase::Filling, Phase::Serving, Phase::Done].map(there);
        assert_eq!(asked(&filling, "eu-5"), 0);
        assert!(asked(&serving, "eu-5") > 100);
        assert_eq!(asked(&done, "eu-5"), asked(&serving, "eu-5"));
        for view in [&filling, &serving, &done] {
            let [members, _] = view.for_anything().members;
            assert!(!names(members).contains(&"eu-5".to_owned()), "not for anything else");
            assert!(view.addresses().any(|(id, _)| id.as_str() == "eu-5"), "its address is known");
        }
    }

    #[test]
    fn the_dead_are_asked_for_nothing() {
        let view = RingView::new(joining(Phase::Filling), None).unwrap();
        assert_eq!(asked(&view, "us-4"), 0);
        let [members, _] = view.for_anything().members;
        assert!(!names(members).contains(&"us-4".to_owned()));
        assert!(view.addresses().all(|(id, _)| id.as_str() != "us-4"));
    }

    #[test]
    fn who_leaves_is_asked_as_long_as_it_is_read() {
        let leaving = |phase| {
            let mut state = joining(phase);
            state.members.remove(&NodeId::new("eu-5").unwrap());
            let leaver = NodeId::new("eu-0").unwrap();
            state.members.get_mut(&leaver).unwrap().state = MemberState::Leaving;
            if let Some(change) = &mut state.change {
                change.purpose = Purpose::Leave(leaver);
            }
            RingView::new(state, None).unwrap()
        };
        assert!(asked(&leaving(Phase::Filling), "eu-0") > 100);
        assert_eq!(asked(&leaving(Phase::Serving), "eu-0"), 0);
        let view = leaving(Phase::Filling);
        assert!(view.addresses().any(|(id, _)| id.as_str() == "eu-0"));
    }
}
