//! A vnode while the ring changes: what it takes in, and what it may say once it has moved on.

use std::{collections::BTreeMap, sync::Arc};

use anello_protocol::{
    causality::Context,
    cluster::{
        ClusterState, Keyspace, KeyspaceConfig, MemberState, Phase, Purpose, Replication,
        RingChange,
    },
    id::{ClusterName, Epoch, KeyspaceId, KeyspaceName, NodeId, PartitionId},
    message::{
        repair::PurgeVersions,
        replica::{Refusal, Stored},
    },
    version::{ConflictRule, Versions},
};
use anello_ring::view::View;

use super::{bench::Bench, key, member, mint, read, replica, store};
use crate::replica::{CommitOutcome, Input, Replica, ReplicaConfig, Reply, Request};

const SIBLINGS: ConflictRule = ConflictRule::Siblings;

fn cluster(epoch: u64, ids: &[&str]) -> ClusterState {
    let name = ClusterName::new("test").expect("a good name");
    let mut cluster = ClusterState::founded(name, 1, member(ids[0]));
    cluster.epoch = Epoch(epoch);
    cluster.members = ids.iter().map(|id| (member(id).id, member(id))).collect();
    cluster
}

fn view(cluster: ClusterState) -> Arc<View> {
    Arc::new(View::of(Arc::new(cluster)).expect("a valid cluster"))
}

/// `a` leaves, `d` joins, `b` and `c` stay.
fn moving(epoch: u64, phase: Phase) -> ClusterState {
    let mut cluster = cluster(epoch, &["a", "b", "c", "d"]);
    let id = |id: &str| NodeId::new(id).expect("a good name");
    let old = self::cluster(1, &["a", "b", "c"]).layout();
    for (name, state) in [("a", MemberState::Leaving), ("d", MemberState::Joining)] {
        cluster.members.get_mut(&id(name)).expect("a member").state = state;
    }
    let purpose = Purpose::Replace { old: id("a"), new: id("d") };
    let change = RingChange { began: Epoch(2), asked: Epoch(2), purpose, old, phases: vec![phase] };
    cluster.change = Some(Box::new(change));
    cluster
}

/// A vnode of a node that has been told of these states.
fn vnode(id: &str, states: impl IntoIterator<Item = ClusterState>) -> Bench {
    let id = NodeId::new(id).expect("a good name");
    let replica = Replica::new(id, PartitionId(0), ReplicaConfig::default(), 1, None);
    let mut bench = Bench::of(replica);
    states.into_iter().for_each(|state| bench.input(Input::ClusterChanged(view(state))));
    bench
}

fn under(epoch: u64, mut request: Request) -> Request {
    let own = match &mut request {
        Request::Read(read) => &mut read.epoch,
        Request::Store(store) => &mut store.epoch,
        Request::Mint(mint) => &mut mint.epoch,
        Request::Purge(purge) => &mut purge.epoch,
    };
    *own = Epoch(epoch);
    request
}

fn minting(epoch: u64, write_id: u128) -> Request {
    under(epoch, Request::Mint(mint(&key("k"), write_id, &Context::new(), SIBLINGS)))
}

/// A version that some other vnode has issued.
fn issued() -> Versions {
    let mut bench = Bench::with(replica(7));
    bench.write(1, &Context::new(), SIBLINGS, &Versions::new()).1
}

fn storing(epoch: u64) -> Request {
    under(epoch, Request::Store(store(&key("k"), issued(), SIBLINGS)))
}

#[test]
fn only_who_is_read_issues_dots() {
    let k = key("k");
    for (id, phase, is_read) in [
        ("a", Phase::Filling, true),
        ("d", Phase::Filling, false),
        ("b", Phase::Filling, true),
        ("a", Phase::Serving, false),
        ("d", Phase::Serving, true),
        ("b", Phase::Serving, true),
    ] {
        let digest = Versions::new().digest();
        let purge = PurgeVersions { epoch: Epoch(2), key: k.clone(), digest };
        for (request, is_taken) in [
            (under(2, Request::Read(read(&k))), true),
            (minting(2, 1), is_read),
            (storing(2), true),
            (Request::Purge(purge), true),
        ] {
            let mut bench = vnode(id, [moving(2, phase)]);
            let token = bench.ask(request);
            match is_taken {
                true => bench.load(Versions::new()),
                false => assert_eq!(bench.refused(token), Refusal::NotOwner, "{id} {phase:?}"),
            }
        }
    }
    let mut bench = vnode("a", [moving(2, Phase::Done)]);
    let token = bench.ask(storing(2));
    assert_eq!(bench.refused(token), Refusal::NotOwner, "it is none of theirs any more");
}

/// Who counts it would count it under the state before, and the new owners may have been found to be in step
/// without it.
#[test]
fn what_is_durable_only_under_another_phase_is_not_acknowledged() {
    let mut settled = cluster(1, &["a", "b", "c"]);
    settled.members.insert(member("d").id, member("d"));
    settled.members.get_mut(&member("d").id).expect("a member").state = MemberState::Leaving;
    let states =
        [settled, moving(2, Phase::Filling), moving(3, Phase::Serving), moving(4, Phase::Done)];
    for (number, pair) in (1..).zip(states.windows(2)) {
        for request in [minting(number, 1), storing(number)] {
            // `b` is a replica all along.
            let mut bench = vnode("b", [pair[0].clone()]);
            let token = bench.ask(request);
            bench.load(Versions::new());
            let (commit, _) = bench.commit();
            bench.input(Input::ClusterChanged(view(pair[1].clone())));
            bench.nothing();
            bench.durable(commit);
            assert_eq!(bench.refused(token), Refusal::StaleEpoch(Epoch(number + 1)));
            bench.nothing();
            assert_eq!(bench.replica.waiting(), 0);
        }
    }
}

#[test]
fn what_fails_under_another_phase_says_so() {
    let mut bench = vnode("b", [moving(2, Phase::Filling)]);
    let token = bench.ask(minting(2, 1));
    bench.load(Versions::new());
    let (commit, _) = bench.commit();
    bench.input(Input::ClusterChanged(view(moving(3, Phase::Serving))));
    bench.input(Input::Committed(commit, CommitOutcome::Failed("the disk is gone".into())));
    assert_eq!(bench.refused(token), Refusal::Storage("the disk is gone".into()));
}

#[test]
fn what_moves_nothing_overtakes_nothing() {
    let config = KeyspaceConfig::default();
    let other = Keyspace { id: KeyspaceId(3), ruled_since: Epoch(3), config: config.clone() };
    let name = KeyspaceName::new("other").expect("a good name");
    let mut created = moving(3, Phase::Filling);
    created.keyspaces.insert(name.clone(), other.clone());
    // What is altered of another keyspace is of no account either.
    let mut altered = moving(4, Phase::Filling);
    let counts = BTreeMap::from([(member("a").datacenter, 1)]);
    let config = KeyspaceConfig { replication: Replication::PerDatacenter(counts), ..config };
    altered.keyspaces.insert(name, Keyspace { config, ..other });

    let mut bench = vnode("b", [moving(2, Phase::Filling)]);
    let token = bench.ask(minting(2, 1));
    bench.load(Versions::new());
    let (commit, _) = bench.commit();
    let storing = bench.ask(under(2, Request::Store(store(&key("k"), issued(), SIBLINGS))));
    let (second, _) = bench.commit();
    bench.input(Input::ClusterChanged(view(created)));
    bench.input(Input::ClusterChanged(view(altered)));
    bench.durable(commit);
    bench.minted(token);
    bench.durable(second);
    let stored = Stored { lost_to: None, is_quarantined: false };
    assert_eq!(bench.reply(storing), Reply::Store(Ok(stored)));
}

/// E, F: that it was told to begin again does not make a second event of it.
#[test]
fn a_write_that_was_overtaken_is_the_same_when_it_comes_again() {
    // It comes again before the commit has ended, or after.
    for is_early in [true, false] {
        let mut bench = vnode("b", [moving(2, Phase::Filling)]);
        let first = bench.ask(minting(2, 1));
        bench.load(Versions::new());
        let (commit, kept) = bench.commit();
        bench.input(Input::ClusterChanged(view(moving(3, Phase::Serving))));
        let again = match is_early {
            true => {
                let again = bench.ask(minting(3, 1));
                bench.durable(commit);
                assert_eq!(bench.refused(first), Refusal::StaleEpoch(Epoch(3)));
                again
            }
            false => {
                bench.durable(commit);
                assert_eq!(bench.refused(first), Refusal::StaleEpoch(Epoch(3)));
                let again = bench.ask(minting(3, 1));
                bench.load((*kept).clone());
                again
            }
        };
        assert_eq!(bench.minted(again).versions, *kept, "no second version");
        bench.nothing();
    }
}

#[test]
fn a_purge_is_of_one_phase() {
    let mut bench = vnode("b", [moving(2, Phase::Filling)]);
    let k = key("k");
    let mut tombstone = mint(&k, 1, &Context::new(), SIBLINGS);
    tombstone.content = anello_protocol::version::Content::Tombstone;
    let token = bench.ask(under(2, Request::Mint(tombstone)));
    bench.load(Versions::new());
    let (commit, kept) = bench.commit();
    bench.durable(commit);
    bench.minted(token);
    let purge = PurgeVersions { epoch: Epoch(2), key: k, digest: kept.digest() };
    let token = bench.ask(Request::Purge(purge));
    bench.load((*kept).clone());
    let (commit, _) = bench.commit();
    bench.input(Input::ClusterChanged(view(moving(3, Phase::Serving))));
    bench.durable(commit);
    assert_eq!(bench.refused(token), Refusal::StaleEpoch(Epoch(3)));
}

/// Whoever is two phases behind, or ahead, is refused whatever it asks for.
#[test]
fn who_is_phases_apart_is_refused() {
    let mut ahead = vnode("b", [moving(2, Phase::Filling), moving(4, Phase::Done)]);
    let mut behind = vnode("b", [moving(2, Phase::Filling)]);
    for (early, late) in
        [(minting(2, 1), minting(4, 1)), (storing(2), storing(4))].into_iter().chain([(
            under(2, Request::Read(read(&key("k")))),
            under(4, Request::Read(read(&key("k")))),
        )])
    {
        let token = ahead.ask(early);
        assert_eq!(ahead.refused(token), Refusal::StaleEpoch(Epoch(4)));
        let token = behind.ask(late);
        assert_eq!(behind.refused(token), Refusal::Behind(Epoch(2)));
    }
}
