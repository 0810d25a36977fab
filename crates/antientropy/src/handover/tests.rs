//! What is awaited, what proves it, and when the word is given.

use std::{collections::BTreeSet, sync::Arc};

use anello_protocol::{
    cluster::{ClusterState, Member, MemberState, Phase, Purpose, RingChange},
    id::{ClusterName, Datacenter, Epoch, KeyspaceId, NodeId, PartitionId, Rack},
};
use anello_ring::view::View;

use super::{Handovers, Word};

const KEYSPACE: KeyspaceId = KeyspaceId(1);
const TREE: (KeyspaceId, PartitionId) = (KEYSPACE, PartitionId(0));

fn node(id: &str) -> NodeId {
    NodeId::new(id).expect("within the grammar")
}

fn member(id: &str, state: MemberState) -> Member {
    Member {
        id: node(id),
        datacenter: Datacenter::new("eu").expect("within the grammar"),
        rack: Rack::new("r").expect("within the grammar"),
        weight: 1.0,
        quic: String::new(),
        http: String::new(),
        state,
    }
}

/// `d` takes the place of `c` beside `a` and `b`, in two partitions, which are in these phases.
fn replacing(epoch: u64, phases: [Phase; 2], c: MemberState) -> View {
    let name = ClusterName::new("test").expect("within the grammar");
    let up = |id| (node(id), member(id, MemberState::Up));
    let mut cluster = ClusterState::founded(name, 2, member("a", MemberState::Up));
    cluster.members = ["a", "b", "c"].map(up).into();
    let old = cluster.layout();
    cluster.members.insert(node("c"), member("c", c));
    cluster.members.insert(node("d"), member("d", MemberState::Joining));
    let purpose = Purpose::Replace { old: node("c"), new: node("d") };
    let began = Epoch(5);
    cluster.change =
        Some(Box::new(RingChange { began, asked: began, purpose, old, phases: phases.into() }));
    cluster.epoch = Epoch(epoch);
    View::of(Arc::new(cluster)).expect("within the grammar")
}

fn filling(epoch: u64) -> View {
    replacing(epoch, [Phase::Filling; 2], MemberState::Leaving)
}

fn word(partition: u32, phase: Phase) -> Word {
    Word { change: Epoch(5), partition: PartitionId(partition), phase }
}

fn prove(handovers: &mut Handovers, began: u64, peers: &[&str]) -> Vec<Word> {
    let proved = |peer: &&str| handovers.proved(Epoch(began), TREE, &node(peer));
    peers.iter().filter_map(proved).collect()
}

#[test]
fn who_awaits_nothing_gives_its_word_at_once_and_once() {
    for id in ["a", "b", "c"] {
        let mut handovers = Handovers::default();
        let both = [0, 1].map(|partition| word(partition, Phase::Filling));
        assert_eq!(handovers.adopt(&node(id), &filling(5)), both, "{id}");
        assert_eq!(handovers.adopt(&node(id), &filling(6)), []);
        let next = replacing(7, [Phase::Serving, Phase::Filling], MemberState::Leaving);
        assert_eq!(handovers.adopt(&node(id), &next), [word(0, Phase::Serving)]);
    }
    assert_eq!(Handovers::default().adopt(&node("e"), &filling(5)), [], "it holds nothing");
}

#[test]
fn a_new_owner_gives_it_with_the_last_proof() {
    let mut handovers = Handovers::default();
    assert_eq!(handovers.adopt(&node("d"), &filling(5)), []);
    let peers: BTreeSet<_> = handovers.peers().cloned().collect();
    assert_eq!(peers, ["a", "b", "c"].map(node).into());
    assert_eq!(prove(&mut handovers, 5, &["a", "b", "a", "e"]), []);
    assert!(handovers.awaits(TREE, &node("c")) && !handovers.awaits(TREE, &node("a")));
    assert_eq!(handovers.left_with(&node("a")).collect::<Vec<_>>(), [(KEYSPACE, PartitionId(1))]);
    assert_eq!(prove(&mut handovers, 6, &["c"]), [word(0, Phase::Filling)]);
    assert_eq!(prove(&mut handovers, 6, &["a", "b", "c"]), [], "once");
    assert_eq!(handovers.left().map(|left| left.filling), Some(1));
}

#[test]
fn what_began_before_the_phase_proves_nothing() {
    let mut handovers = Handovers::default();
    handovers.adopt(&node("d"), &filling(8));
    assert_eq!(prove(&mut handovers, 7, &["a", "b", "c"]), []);
    // The state of another partition changes: what is proved stays so, and may have begun before.
    handovers
        .adopt(&node("d"), &replacing(9, [Phase::Filling, Phase::Serving], MemberState::Leaving));
    assert_eq!(prove(&mut handovers, 8, &["a", "b", "c"]), [word(0, Phase::Filling)]);
    handovers.adopt(&node("d"), &replacing(10, [Phase::Serving; 2], MemberState::Leaving));
    assert_eq!(prove(&mut handovers, 9, &["a", "b", "c"]), []);
    assert_eq!(prove(&mut handovers, 10, &["a", "b", "c"]), [word(0, Phase::Serving)]);
}

#[test]
fn who_is_written_off_is_waited_for_no_more_and_the_others_prove_more() {
    let written_off = replacing(6, [Phase::Filling; 2], MemberState::Removed);
    let mut handovers = Handovers::default();
    handovers.adopt(&node("d"), &filling(5));
    assert_eq!(prove(&mut handovers, 5, &["a", "b"]), []);
    assert_eq!(handovers.adopt(&node("d"), &written_off), [word(0, Phase::Filling)]);
    let mut handovers = Handovers::default();
    assert_eq!(handovers.adopt(&node("a"), &filling(5)).len(), 2);
    assert_eq!(handovers.adopt(&node("a"), &written_off), [], "what it said covers less");
    assert_eq!(prove(&mut handovers, 5, &["b"]), [word(0, Phase::Filling)]);
}

#[test]
fn another_change_and_a_loss_begin_anew() {
    let mut handovers = Handovers::default();
    handovers.adopt(&node("d"), &filling(5));
    assert_eq!(prove(&mut handovers, 5, &["a", "b", "c"]).len(), 1);
    assert_eq!(handovers.begin_anew(Epoch(5)), []);
    assert_eq!(prove(&mut handovers, 5, &["a", "b", "c"]), [word(0, Phase::Filling)]);
    let mut cluster = (**filling(9).cluster()).clone();
    cluster.change.as_mut().expect("one is under way").began = Epoch(9);
    handovers.adopt(&node("d"), &View::of(Arc::new(cluster.clone())).expect("valid"));
    assert_eq!(handovers.left().map(|left| (left.change, left.filling)), Some((Epoch(9), 2)));
    (cluster.change, cluster.epoch) = (None, Epoch(10));
    handovers.adopt(&node("d"), &View::of(Arc::new(cluster)).expect("valid"));
    assert_eq!(handovers.left(), None);
    assert_eq!(handovers.peers().count(), 0);
}

#[test]
fn who_fills_itself_is_known_to_the_others() {
    let mut handovers = Handovers::default();
    handovers.adopt(&node("a"), &filling(5));
    assert!(handovers.is_filled(TREE, &node("d")));
    assert!(!handovers.is_filled(TREE, &node("b")));
}
