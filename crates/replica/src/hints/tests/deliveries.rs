//! Runs: when they begin, what they send and to whom, what ends them, and what lets hints go.

use super::*;

fn messages(world: &World) -> Vec<(&str, &Outgoing)> {
    world.mail.iter().map(|mail| (mail.to.as_str(), &mail.message)).collect()
}

fn fill(world: &mut World, owner: &str, count: usize) -> Vec<DataKey> {
    let keys = keys_of(owner, count);
    for (birth, key) in (1..).zip(&keys) {
        assert_eq!(world.tell(store(owner, key, version(birth, &[], b"v"))), stored());
    }
    keys
}

#[test]
fn an_owner_that_is_back_gets_the_oldest_first_many_at_once() {
    let mut world = World::new();
    let keys = fill(&mut world, "a", 100);
    world.pass(60_000);
    assert!(world.mail.is_empty(), "nothing is sent to who is away");
    world.reach("a", true);
    world.pass(0);
    let bytes = world.machine.figures(world.now).owners[&node("a")].bytes;
    let ask = anello_protocol::message::hint::RequestCredit { waiting_bytes: bytes };
    assert_eq!(messages(&world), [("a", &Outgoing::Credit(ask))], "at once");
    let mail = world.mail.pop_front().expect("it was there");
    let answer = world.serve(&mail);
    world.answer(mail.call, Ok(answer));
    let sent = world.mail.iter().map(|mail| match &mail.message {
        Outgoing::Store(store) => (store.epoch, store.rule, store.key.clone()),
        other => panic!("{other:?}"),
    });
    let expected = keys.iter().map(|key| (Epoch(1), ConflictRule::Siblings, key.clone()));
    assert_eq!(sent.collect::<Vec<_>>(), expected.take(64).collect::<Vec<_>>());
    assert_eq!(world.deliver(), 100);
    world.pass(1_000);
    let figures = world.machine.figures(world.now);
    assert_eq!((figures.delivered, figures.owners.len()), (100, 0));
    assert_eq!(world.machine.next_wake(), None, "there is nothing to wake for");
}

#[test]
fn an_owner_that_answers_at_the_start_is_served_at_once() {
    let mut world = World::new();
    fill(&mut world, "a", 1);
    let shelved = world.shelf.load().expect("memory reads");
    world.machine = HintStore::new(own(), HintStoreConfig::default(), 2, shelved);
    world.input(Input::ClusterChanged(view(1)));
    world.pass(0);
    assert_eq!(world.deliver(), 1);
}

#[test]
fn what_was_joined_meanwhile_stays_and_goes_next() {
    // The later write is on its way to the disk when the answer comes, or durable.
    for is_durable in [false, true] {
        let mut world = World::new();
        let key = &fill(&mut world, "a", 1)[0];
        world.reach("a", true);
        world.pass(0);
        let mail = world.mail.pop_front().expect("it asks");
        world.answer(mail.call, Ok(Incoming::Credit(Credit { bytes: 4 << 20, retry_ms: 0 })));
        let mail = world.mail.pop_front().expect("the hint");
        world.ask(store("a", key, version(9, &[], b"x")));
        while world.read_one() || is_durable && world.commit_one(CommitOutcome::Durable, true) {}
        assert_eq!(world.commits.len(), usize::from(!is_durable));
        let answer = world.serve(&mail);
        world.answer(mail.call, Ok(answer));
        assert_eq!(world.count("a"), 1, "the owner has less than is kept");
        assert!(world.is_kept(key));
        world.pass(500);
        world.deliver();
        assert_eq!(world.holds("a", key).len(), 2);
        assert!(!world.is_kept(key));
    }
}

#[test]
fn an_owner_that_was_there_all_along_gets_its_hint_in_a_moment() {
    let mut world = World::new();
    world.reach("a", true);
    world.tell(store("a", &keys_of("a", 1)[0], version(1, &[], b"v")));
    world.pass(900);
    assert!(world.mail.is_empty(), "it was too slow just before");
    world.pass(200);
    assert_eq!(world.deliver(), 1);
}

/// What is there at once is bounded: owners beyond have their turn once another's run has ended.
#[test]
fn a_bounded_number_of_owners_is_served_at_once() {
    let ids: Vec<_> = (0..40).map(|n| format!("n{n}")).collect();
    let mut names: Vec<_> = ids.iter().map(String::as_str).collect();
    names.push("s");
    let mut world = World::new();
    world.view = view_of(cluster(1, &names));
    names.pop();
    names.iter().for_each(|id| world.reach(id, false));
    world.begin();
    let mut birth = 0;
    for key in (0..400).map(|number| key(&format!("k{number}"))) {
        let replicas = replicas(&world.view, &key);
        if replicas.contains(&own()) {
            continue;
        }
        for owner in replicas {
            birth += 1;
            world.tell(store(owner.as_str(), &key, version(birth, &[], b"v")));
        }
    }
    names.iter().for_each(|id| world.reach(id, true));
    world.pass(0);
    assert_eq!(world.mail.len(), 16, "as many have been asked");
    world.deliver();
    for _ in 0..20 {
        world.pass(100);
        world.deliver();
    }
    assert_eq!(world.machine.figures(world.now).owners.len(), 0, "all have had theirs");
}

#[test]
fn an_owner_that_fails_is_asked_again_from_the_oldest_on() {
    let mut world = World::new();
    let keys = fill(&mut world, "a", 10);
    world.reach("a", true);
    let mut runs = Vec::new();
    for _ in 0..200 {
        world.pass(50);
        while let Some(mail) = world.mail.pop_front() {
            runs.push(world.now.moment);
            world.answer(mail.call, Err(CallFailure::Unreachable));
        }
    }
    let pauses: Vec<_> = runs.windows(2).map(|two| two[1].since(two[0]).as_millis()).collect();
    assert!(pauses.iter().all(|pause| (100..=2_050).contains(pause)), "{pauses:?}");
    assert!(pauses[0] < 250 && pauses.last() >= Some(&2_000), "{pauses:?}");
    world.pass(2_000);
    assert_eq!(world.deliver(), 10);
    assert!(keys.iter().all(|key| !world.holds("a", key).is_empty()));
}

/// Nothing of what a vnode refuses for itself is lost or goes elsewhere.
#[test]
fn what_an_owner_refuses_stays() {
    for refusal in [
        Refusal::NotOwner,
        Refusal::StaleEpoch(Epoch(2)),
        Refusal::Behind(Epoch(0)),
        Refusal::Frozen,
        Refusal::Busy,
    ] {
        let mut world = World::new();
        let keys = fill(&mut world, "a", 3);
        world.reach("a", true);
        for _ in 0..20 {
            world.pass(100);
            while let Some(mail) = world.mail.pop_front() {
                assert_eq!(mail.to, node("a"));
                let answer = match &mail.message {
                    Outgoing::Store(_) => Incoming::Stored(Err(refusal.clone())),
                    _ => world.serve(&mail),
                };
                world.answer(mail.call, Ok(answer));
            }
        }
        assert_eq!(world.count("a"), 3, "{refusal:?}");
        world.pass(2_500);
        world.deliver();
        world.pass(2_500);
        world.deliver();
        assert!(keys.iter().all(|key| !world.holds("a", key).is_empty()), "{refusal:?}");
    }
}

#[test]
fn hints_of_who_is_gone_go_to_the_replicas_of_the_day() {
    let mut world = World::new();
    let keys = fill(&mut world, "a", 20);
    let after = view_of(cluster(2, &["b", "c", "d", "s"]));
    world.view = after.clone();
    world.input(Input::ClusterChanged(after.clone()));
    world.pass(1_000);
    // This node is one of them for some keys, and reaches itself.
    let own_count = keys.iter().filter(|key| replicas(&after, key).contains(&own())).count();
    assert!(own_count > 0);
    assert!(world.mail.iter().all(|mail| mail.to == own()));
    world.deliver();
    assert_eq!(world.count("a") as usize, 20 - own_count, "the others have nobody yet");
    world.reach("b", true);
    world.reach("c", true);
    for _ in 0..60 {
        world.pass(100);
        while let Some(mail) = world.mail.pop_front() {
            assert!(matches!(mail.message, Outgoing::Store(_)), "nobody grants it");
            // One of the two never takes anything.
            let outcome = match mail.to == node("c") {
                true => Err(CallFailure::Timeout),
                false => Ok(world.serve(&mail)),
            };
            world.answer(mail.call, outcome);
        }
    }
    for key in &keys {
        let replicas = replicas(&after, key);
        let takers = [node("b"), own()];
        let has = takers.iter().any(|id| !world.holds(id.as_str(), key).is_empty());
        let can = takers.iter().any(|id| replicas.contains(id));
        assert_eq!(has, can, "at least one of {replicas:?} took it");
        let is_kept = world.shelf.read(&node("a"), key) != Ok(None);
        assert_eq!(is_kept, !has, "and only then it goes");
    }
}

#[test]
fn hints_of_a_dropped_keyspace_go() {
    let mut world = World::new();
    fill(&mut world, "a", 100);
    let mut after = cluster(2, &["a", "b", "c", "d", "s"]);
    after.keyspaces.clear();
    world.input(Input::ClusterChanged(view_of(after)));
    world.pass(1_000);
    assert_eq!(world.count("a"), 0);
    assert_eq!(world.machine.figures(world.now).dropped, 0, "nobody misses them");
    assert_eq!(world.shelf.load().expect("memory reads").owners, []);
}

#[test]
fn a_hint_past_its_age_is_dropped_counted_and_marked() {
    let mut world = World::new();
    fill(&mut world, "a", 2);
    world.pass(2 * 3600 * 1000);
    world.tell(store("a", &keys_of("a", 3)[2], version(9, &[], b"v")));
    assert_eq!(world.machine.figures(world.now).owners[&node("a")].oldest_s, 2 * 3600);
    // A sweep may be late by a part of the age.
    world.pass(3600 * 1000 + 400_000);
    let figures = world.machine.figures(world.now);
    let owner = figures.owners[&node("a")];
    assert_eq!((figures.dropped, owner.count), (2, 1));
    assert!((1..=2).contains(&owner.marked), "{}", owner.marked);
    assert!((3600..4100).contains(&owner.oldest_s), "{}", owner.oldest_s);
    world.reach("a", true);
    world.pass(0);
    let marks = world.mail.iter().filter(|mail| matches!(mail.message, Outgoing::Mark(_)));
    assert_eq!(marks.count(), 1);
    world.deliver();
    assert_eq!(world.machine.figures(world.now).owners.len(), 0);
}
