//! Keeping, reading, checking and minting: inputs in, effects compared.

use anello_protocol::message::hint::MAX_CHECKED;

use super::*;
use crate::hints::store::Hint;

pub(super) fn minted(reply: Reply) -> Version {
    match reply {
        Reply::Mint(Ok(minted)) => minted.versions.into_iter().last().expect("a version"),
        other => panic!("it is minted, not {other:?}"),
    }
}

#[test]
fn a_hint_counts_once_it_is_durable() {
    let key = &keys_of("a", 1)[0];
    let versions = version(1, &[], b"v");
    let mut world = World::new();
    let (token, other) = (world.ask(store("a", key, versions.clone())), world.ask(read(key)));
    assert_eq!(world.reads, [Effect::Load(node("a"), key.clone())], "once for both");
    assert!(world.read_one());
    let hint = Hint {
        number: 1,
        since_ms: 1_000_000,
        rule: ConflictRule::Siblings,
        versions: versions.clone(),
        minted: None,
        joined_ms: 1_000_000,
        counts: false,
    };
    let (owner, key) = (node("a"), key.clone());
    let change =
        HintChange { owner, key: key.clone(), hint: Some(hint), removed: None, record: None };
    assert_eq!(world.commits, [(CommitNumber(0), change)]);
    let nothing = full(Versions::new());
    assert_eq!(world.replies, BTreeMap::from([(other, nothing)]), "no answer, and nothing shown");
    let again = world.ask(store("a", &key, versions.clone()));
    assert_eq!(world.commits.len(), 1, "twice changes nothing");
    assert!(!world.replies.contains_key(&again), "but the answer rests on the same commit");
    assert!(world.commit_one(CommitOutcome::Durable, true));
    assert_eq!((&world.replies[&token], &world.replies[&again]), (&stored(), &stored()));
    assert_eq!(world.tell(read(&key)), full(versions));
    assert_eq!(world.machine.waiting(), 0);
}

#[test]
fn a_commit_of_unknown_outcome_is_looked_up() {
    let key = &keys_of("a", 1)[0];
    for is_kept in [false, true] {
        let mut world = World::new();
        let token = world.ask(store("a", key, version(1, &[], b"v")));
        world.read_one();
        world.commit_one(CommitOutcome::Failed("the disk".into()), is_kept);
        assert_eq!(world.replies[&token], refused(Refusal::Storage("the disk".into())));
        world.disk();
        assert_eq!(world.is_kept(key), is_kept);
        assert_eq!(world.count("a"), u64::from(is_kept));
    }
}

#[test]
fn what_the_shelf_has_no_room_for_was_never_there() {
    let key = &keys_of("a", 1)[0];
    let mut world = World::new();
    world.is_full = true;
    assert_eq!(world.tell(store("a", key, version(1, &[], b"v"))), refused(Refusal::Busy));
    assert_eq!(world.count("a"), 0);
    assert_eq!(world.machine.waiting(), 0);
    assert_eq!(world.tell(store("a", key, version(1, &[], b"v"))), stored());
}

#[test]
fn who_is_not_to_keep_it_refuses() {
    let key = &keys_of("a", 1)[0];
    let other = ["b", "c", "d"].iter().find(|id| !replicas(&view(1), key).contains(&node(id)));
    let own_key = (0..).map(|n| super::key(&format!("o{n}")));
    let own_key = own_key.into_iter().find(|key| replicas(&view(1), key).contains(&own()));
    let own_key = own_key.expect("some key is its own");
    let owner = replicas(&view(1), &own_key).into_iter().find(|id| *id != own());
    let owner = owner.expect("there are three");
    let mut world = World::new();
    let v = || version(1, &[], b"v");
    let refusal = |world: &mut World, request| match world.tell(request) {
        Reply::Store(Err(refusal)) | Reply::Mint(Err(refusal)) | Reply::Read(Err(refusal)) => {
            refusal
        }
        other => panic!("it is refused, not {other:?}"),
    };
    let no_owner = other.expect("three of four");
    assert_eq!(refusal(&mut world, store(no_owner, key, v())), Refusal::NotOwner);
    assert_eq!(refusal(&mut world, store(own().as_str(), &own_key, v())), Refusal::NotOwner);
    let request = mint(owner.as_str(), &own_key, 1, &Context::new());
    assert_eq!(refusal(&mut world, request), Refusal::NotOwner);
    let elsewhere = DataKey { keyspace: KeyspaceId(99), ..key.clone() };
    assert_eq!(refusal(&mut world, store("a", &elsewhere, v())), Refusal::NotOwner);
    assert_eq!(refusal(&mut world, read(&elsewhere)), Refusal::NotOwner);

    world.input(Input::ClusterChanged(view(2)));
    assert_eq!(refusal(&mut world, store("a", key, v())), Refusal::StaleEpoch(Epoch(2)));
    assert_eq!(refusal(&mut world, read(key)), Refusal::StaleEpoch(Epoch(2)));
    world.machine = HintStore::new(own(), HintStoreConfig::default(), 1, Default::default());
    assert_eq!(refusal(&mut world, store("a", key, v())), Refusal::Behind(Epoch(0)));
    world.input(Input::ClusterChanged(view(0)));
    assert_eq!(refusal(&mut world, store("a", key, v())), Refusal::Behind(Epoch(0)));
    assert!(world.commits.is_empty());
}

#[test]
fn a_freeze_waits_for_what_is_under_way_and_keeps_the_rest_out() {
    let keys = keys_of("a", 2);
    let mut world = World::new();
    let first = world.ask(store("a", &keys[0], version(1, &[], b"v")));
    world.read_one();
    let late = world.ask(store("a", &keys[1], version(2, &[], b"v")));
    world.input(Input::Freeze);
    assert_eq!(world.quiet, 0, "a commit is under way");
    world.disk();
    assert_eq!((world.quiet, &world.replies[&first]), (1, &stored()));
    assert_eq!(world.replies[&late], refused(Refusal::Frozen), "it had only waited");
    assert_eq!(world.tell(read(&keys[0])), full(version(1, &[], b"v")), "reads go on");
    world.reach("a", true);
    world.pass(5_000);
    assert!(world.mail.is_empty(), "nothing is delivered meanwhile");
    world.input(Input::Thaw);
    world.pass(0);
    assert_eq!(world.deliver(), 1);
}

#[test]
fn what_waits_is_bounded_by_count_and_bytes() {
    let keys = keys_of("a", 8);
    let config = HintStoreConfig { requests_max: 3, ..HintStoreConfig::default() };
    let mut world = World::with(config);
    let request = |key| store("a", key, version(1, &[], &[b'x'; 400]));
    let tokens: Vec<_> = keys.iter().map(|key| world.ask(request(key))).collect();
    assert_eq!(world.replies.len(), 5);
    assert!(world.replies.values().all(|reply| *reply == refused(Refusal::Busy)));
    world.disk();
    assert_eq!(tokens.iter().filter(|token| world.replies[token] == stored()).count(), 3);

    let config = HintStoreConfig { requests_bytes_max: 1_500, ..HintStoreConfig::default() };
    let mut world = World::with(config);
    for key in &keys {
        world.ask(request(key));
    }
    assert_eq!(world.replies.len(), 6);
    let large = store("a", &keys[0], version(1, &[], &[b'x'; 4000]));
    world.disk();
    assert_eq!(world.tell(large), stored(), "one that is larger than the bound, alone");
}

#[test]
fn under_lww_the_later_one_is_told() {
    let key = &keys_of("a", 1)[0];
    let mut world = World::new();
    world.view = lww(1);
    world.begin();
    let store = |birth| {
        let Request::Store(mut hint) = store("a", key, version(birth, &[], b"v")) else {
            panic!("it is a store")
        };
        hint.store.rule = ConflictRule::Lww;
        Request::Store(hint)
    };
    assert_eq!(world.tell(store(9)), stored());
    let lost_to = Some(HybridTime::from_wall_ms(9));
    assert_eq!(world.tell(store(3)), Reply::Store(Ok(Stored { lost_to, is_quarantined: false })));
    assert_eq!(world.tell(read(key)), full(version(9, &[], b"v")));
}

#[test]
fn a_read_joins_what_is_kept_for_all_owners() {
    let key = &keys_of("a", 1)[0];
    let owners: Vec<_> = replicas(&view(1), key);
    let mut world = World::new();
    let digest = |key: &DataKey| {
        let key = key.clone();
        Request::Read(ReadHints { epoch: Epoch(1), key, want: Want::Digest })
    };
    assert_eq!(world.tell(read(key)), full(Versions::new()));
    assert!(world.reads.is_empty(), "nobody is looked up for whom there is nothing");
    assert_eq!(world.tell(digest(key)), Reply::Read(Ok(Held::Digest(Default::default()))));
    let mut all = Versions::new();
    for (birth, owner) in (1..).zip(&owners) {
        let versions = version(birth, &[], b"v");
        world.tell(store(owner.as_str(), key, versions.clone()));
        all.merge(versions, ConflictRule::Siblings);
    }
    assert_eq!(world.tell(read(key)), full(all.clone()));
    assert_eq!(world.tell(digest(key)), Reply::Read(Ok(Held::Digest(all.digest()))));
    let token = world.ask(read(key));
    world.reads.clear();
    for owner in owners {
        let (key, found) = (key.clone(), Err("the disk".to_owned()));
        world.input(Input::Loaded { owner, key, found });
    }
    let failed = Reply::Read(Err(Refusal::Storage("the disk".into())));
    assert_eq!(world.replies[&token], failed, "half of the truth is none");
    assert_eq!(world.machine.waiting(), 0);
}

#[test]
fn a_check_is_exact() {
    let keys = keys_of("a", 3);
    let mut world = World::new();
    world.tell(store("a", &keys[1], version(1, &[], b"v")));
    let reply = world.tell(check(&[&keys[0], &keys[1], &keys[2]]));
    assert_eq!(reply, Reply::Check(Ok(vec![false, true, false])));
    let _ = world.ask(store("a", &keys[2], version(2, &[], b"v")));
    let token = world.ask(check(&[&keys[2]]));
    assert_eq!(world.replies[&token], Reply::Check(Ok(vec![true])), "it only waits for the disk");
    let many = vec![&keys[0]; MAX_CHECKED + 1];
    assert_eq!(world.tell(check(&many)), Reply::Check(Err(Refusal::Busy)));
}

#[test]
fn a_minted_dot_is_never_issued_again() {
    let key = &keys_of("a", 1)[0];
    let other = replicas(&view(1), key).into_iter().find(|id| *id != node("a")).expect("three");
    let mut world = World::new();
    let first = minted(world.tell(mint("a", key, 1, &Context::new())));
    assert_eq!(first.dot.counter, 1);
    let again = minted(world.tell(mint("a", key, 1, &Context::new())));
    assert_eq!(again.dot, first.dot, "a retry is the same event");
    let seen: Context = [first.dot].into_iter().collect();
    let second = minted(world.tell(mint("a", key, 2, &seen)));
    assert_eq!(second.dot, Dot { counter: 2, ..first.dot }, "it counts on");
    world.crash();
    let seen: Context = [first.dot, second.dot].into_iter().collect();
    let third = minted(world.tell(mint("a", key, 3, &seen)));
    assert_eq!(third.dot, Dot { counter: 3, ..first.dot }, "also after a start");

    // The same version is kept for somebody else too, for whom another is minted then.
    world.tell(store(other.as_str(), key, Versions::from(first.clone())));
    let elsewhere = minted(world.tell(mint(other.as_str(), key, 4, &Context::new())));
    assert_ne!(elsewhere.dot.actor, first.dot.actor);
    assert_eq!(elsewhere.dot.actor.incarnation, first.dot.actor.incarnation);

    // Delivered and gone; a client that has seen only the first of the three writes on.
    world.reach("a", true);
    world.pass(10);
    world.deliver();
    assert!(world.count("a") == 0);
    world.reach("a", false);
    world.tell(store("a", key, Versions::from(first.clone())));
    let fourth = minted(world.tell(mint("a", key, 5, &[first.dot].into_iter().collect())));
    let used = [first.dot.actor, elsewhere.dot.actor];
    assert!(!used.contains(&fourth.dot.actor), "a birth of its own");
}

#[test]
fn a_life_ends_with_a_mint_of_unknown_outcome() {
    let key = &keys_of("a", 1)[0];
    let mut world = World::new();
    let first = minted(world.tell(mint("a", key, 1, &Context::new())));
    let seen: Context = [first.dot].into_iter().collect();
    let token = world.ask(mint("a", key, 2, &seen));
    while world.read_one() {}
    world.commit_one(CommitOutcome::Failed("the disk".into()), false);
    let storage = Refusal::Storage("the disk".into());
    assert_eq!(world.replies[&token], Reply::Mint(Err(storage)));
    world.disk();
    let second = minted(world.tell(mint("a", key, 3, &seen)));
    assert_ne!(second.dot.actor.incarnation, first.dot.actor.incarnation);
}
