//! Hints while the ring changes: whose they are, and where they go.

use anello_protocol::{
    cluster::{Phase, Purpose, RingChange},
    id::PartitionId,
};

use super::*;

const ALL: [&str; 5] = ["a", "b", "c", "d", "s"];

/// `a` leaves the others.
fn leaving(epoch: u64, phase: Phase) -> Arc<View> {
    let mut state = cluster(epoch, &ALL);
    let a = state.members.get_mut(&node("a")).expect("a member");
    a.state = MemberState::Leaving;
    changing(state, Purpose::Leave(node("a")), cluster(1, &ALL), phase)
}

/// `a` joins the others.
fn joining(epoch: u64, phase: Phase) -> Arc<View> {
    let mut state = cluster(epoch, &ALL);
    let a = state.members.get_mut(&node("a")).expect("a member");
    a.state = MemberState::Joining;
    let purpose = Purpose::Join([node("a")].into());
    changing(state, purpose, cluster(1, &ALL[1..]), phase)
}

/// `a` is dead, and taken out.
fn removing(epoch: u64, phase: Phase) -> Arc<View> {
    let mut state = cluster(epoch, &ALL);
    let a = state.members.get_mut(&node("a")).expect("a member");
    a.state = MemberState::Removed;
    state.written_off.insert(node("a"));
    changing(
        state,
        Purpose::Remove(std::collections::BTreeSet::from([node("a")])),
        cluster(1, &ALL),
        phase,
    )
}

fn changing(
    mut state: ClusterState,
    purpose: Purpose,
    old: ClusterState,
    phase: Phase,
) -> Arc<View> {
    let phases = vec![phase; state.partitions as usize];
    let change =
        RingChange { began: Epoch(2), asked: Epoch(2), purpose, old: old.layout(), phases };
    state.change = Some(Box::new(change));
    view_of(state)
}

fn under(epoch: u64, mut request: Request) -> Request {
    match &mut request {
        Request::Store(hint) => hint.store.epoch = Epoch(epoch),
        Request::Mint(hint) => hint.mint.epoch = Epoch(epoch),
        other => panic!("{other:?}"),
    }
    request
}

fn changed(world: &mut World, view: &Arc<View>) {
    world.view = view.clone();
    world.input(Input::ClusterChanged(view.clone()));
}

/// Those who are read.
fn readers(view: &View, key: &DataKey) -> Vec<NodeId> {
    let keyspace = view.keyspace_of(key.keyspace).expect("it is there");
    view.readers(keyspace, key.hash).replicas.iter().map(|place| place.id.clone()).collect()
}

/// Everybody answers for a while; who was sent versions.
fn settle(world: &mut World, ms: u64) -> std::collections::BTreeSet<NodeId> {
    let mut receivers = std::collections::BTreeSet::new();
    for _ in 0..ms / 50 {
        world.pass(50);
        while let Some(mail) = world.mail.pop_front() {
            if matches!(mail.message, Outgoing::Store(_)) {
                receivers.insert(mail.to.clone());
            }
            let answer = world.serve(&mail);
            world.answer(mail.call, Ok(answer));
        }
    }
    receivers
}

#[test]
fn a_hint_of_who_is_about_to_go_goes_to_those_who_are_read() {
    for is_away in [false, true] {
        let mut world = World::new();
        let keys = keys_of("a", 8);
        for (birth, key) in (1..).zip(&keys) {
            world.tell(store("a", key, version(birth, &[], b"v")));
        }
        ["b", "c", "d"].iter().for_each(|id| world.reach(id, true));
        // While the new ones are filled it is the owner's, and waits for it.
        changed(&mut world, &leaving(2, Phase::Filling));
        assert!(settle(&mut world, 3_000).is_empty());
        assert_eq!(world.count("a"), 8);
        if !is_away {
            world.reach("a", true);
        }
        let after = leaving(3, Phase::Serving);
        changed(&mut world, &after);
        world.pass(0);
        assert!(!world.mail.is_empty(), "at once");
        let receivers = settle(&mut world, 3_000);
        assert!(!receivers.contains(&node("a")));
        assert_eq!(world.count("a"), 0);
        for key in &keys {
            for reader in readers(&after, key) {
                assert!(!world.holds(reader.as_str(), key).is_empty(), "{reader} has it");
            }
        }
    }
}

#[test]
fn while_the_new_ones_are_filled_hints_go_to_their_owners() {
    for view in [leaving(2, Phase::Filling), joining(2, Phase::Filling)] {
        let mut world = World::new();
        changed(&mut world, &view);
        ["b", "c", "d"].iter().for_each(|id| world.reach(id, true));
        let keys = keys_of("a", 8);
        for (birth, key) in (1..).zip(&keys) {
            assert_eq!(world.tell(under(2, store("a", key, version(birth, &[], b"v")))), stored());
        }
        assert!(settle(&mut world, 3_000).is_empty());
        world.reach("a", true);
        assert_eq!(settle(&mut world, 3_000), [node("a")].into());
        assert_eq!(world.count("a"), 0);
    }
}

/// Whatever phase it is, hints are kept for all who are written to.
#[test]
fn hints_are_kept_for_both_sides() {
    let key = &keys_of("a", 1)[0];
    for view in [
        leaving(2, Phase::Filling),
        leaving(2, Phase::Serving),
        joining(2, Phase::Filling),
        joining(2, Phase::Serving),
    ] {
        let mut world = World::new();
        changed(&mut world, &view);
        let keyspace = view.keyspace_of(key.keyspace).expect("it is there");
        let placement = view.placement(keyspace, key.hash);
        assert_eq!(placement.replicas.len(), 4);
        for place in placement.replicas.iter().filter(|place| place.id != own()) {
            let hint = under(2, store(place.id.as_str(), key, version(1, &[], b"v")));
            assert_eq!(world.tell(hint), stored());
            // In the place of those who aren't read nobody issues dots.
            let is_free = placement.is_read(&place.id) && placement.index_of(&own()).is_none();
            let mint = world.tell(under(2, mint(place.id.as_str(), key, 1, &Context::new())));
            assert_eq!(matches!(mint, Reply::Mint(Ok(_))), is_free, "{}: {mint:?}", place.id);
        }
    }
}

#[test]
fn what_comes_for_who_is_about_to_go_while_it_is_away_goes_on_soon() {
    let mut world = World::new();
    let after = leaving(2, Phase::Serving);
    changed(&mut world, &after);
    ["b", "c", "d"].iter().for_each(|id| world.reach(id, true));
    settle(&mut world, 3_000);
    let key = &keys_of("a", 1)[0];
    assert_eq!(world.tell(under(2, store("a", key, version(1, &[], b"v")))), stored());
    let receivers = settle(&mut world, 2_000);
    assert!(!receivers.is_empty() && !receivers.contains(&node("a")));
    assert_eq!(world.count("a"), 0);
}

#[test]
fn hints_of_the_dead_go_to_those_who_are_read() {
    for phase in [Phase::Filling, Phase::Serving, Phase::Done] {
        let mut world = World::new();
        let keys = keys_of("a", 8);
        for (birth, key) in (1..).zip(&keys) {
            world.tell(store("a", key, version(birth, &[], b"v")));
        }
        ["b", "c", "d"].iter().for_each(|id| world.reach(id, true));
        let view = removing(2, phase);
        changed(&mut world, &view);
        let receivers = settle(&mut world, 3_000);
        assert!(!receivers.contains(&node("a")), "{phase:?}");
        assert_eq!(world.count("a"), 0);
        for key in &keys {
            let alive = readers(&view, key).into_iter().filter(|id| *id != node("a"));
            for reader in alive {
                assert!(!world.holds(reader.as_str(), key).is_empty(), "{reader} has it");
            }
        }
    }
}

/// Only some partitions have moved: what is left for an owner that is away waits for it, and is not read
/// again and again.
#[test]
fn what_has_not_moved_waits_for_its_owner() {
    let mut world = World::new();
    let keys = keys_of("a", 40);
    for (birth, key) in (1..).zip(&keys) {
        world.tell(store("a", key, version(birth, &[], b"v")));
    }
    ["b", "c", "d"].iter().for_each(|id| world.reach(id, true));
    let mut state = (**leaving(2, Phase::Filling).cluster()).clone();
    let moved = |key: &DataKey| key.hash.partition(16).0.is_multiple_of(2);
    let change = state.change.as_mut().expect("one is under way");
    for (partition, phase) in change.phases.iter_mut().enumerate() {
        if PartitionId(partition as u32).0.is_multiple_of(2) {
            *phase = Phase::Serving;
        }
    }
    let view = view_of(state);
    changed(&mut world, &view);
    settle(&mut world, 3_000);
    let left = keys.iter().filter(|key| !moved(key)).count();
    assert!(left > 0 && left < 40);
    assert_eq!(world.count("a") as usize, left);
    let wake = world.machine.next_wake().expect("a sweep");
    assert!(wake.since(world.now.moment) > Duration::from_secs(5), "nothing to do until then");
    world.reach("a", true);
    assert_eq!(settle(&mut world, 3_000), [node("a")].into());
    assert_eq!(world.count("a"), 0);
    for key in &keys {
        assert_eq!(world.holds("a", key).is_empty(), moved(key));
    }
}

/// Nobody who is read can be reached at first: it is tried again, and stays until then.
#[test]
fn what_nobody_takes_yet_is_tried_again() {
    let mut world = World::new();
    let keys = keys_of("a", 8);
    for (birth, key) in (1..).zip(&keys) {
        world.tell(store("a", key, version(birth, &[], b"v")));
    }
    changed(&mut world, &leaving(2, Phase::Serving));
    settle(&mut world, 10_000);
    let before = world.count("a");
    assert!(before > 0);
    ["b", "c", "d"].iter().for_each(|id| world.reach(id, true));
    settle(&mut world, 5_000);
    assert_eq!(world.count("a"), 0);
}
