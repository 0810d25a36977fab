//! What went wrong with hints in systems of this family, played through.

use super::*;
use crate::hints::Pressure;

fn tombstone(birth: u64, past: &[Dot]) -> Versions {
    let versions = version(birth, past, b"");
    let versions = versions.into_iter().map(|it| Version { content: Content::Tombstone, ..it });
    Versions::from(versions.last().expect("there is one"))
}

/// T4: a delete reaches two replicas and a stand-in, which goes away. As long as it may hand its tombstone
/// over, and until the owner has it, it says so to whoever wants to purge.
#[test]
fn t4_no_key_of_a_hint_is_free_to_be_purged() {
    let key = &keys_of("a", 1)[0];
    let mut world = World::new();
    let token = world.ask(store("a", key, tombstone(1, &[])));
    assert!(world.is_kept(key), "it may be kept at any moment");
    assert_eq!(world.replies.remove(&token), Some(stored()));
    world.crash();
    assert!(world.is_kept(key), "the stand-in is back");

    world.reach("a", true);
    world.pass(10);
    assert!(world.is_kept(key), "the owner is there, but does not have it");
    assert_eq!(world.deliver(), 1);
    assert_eq!(world.holds("a", key), tombstone(1, &[]));
    assert!(!world.is_kept(key));
}

/// T4: what is on its way may arrive, whatever became of the hint.
#[test]
fn t4_a_message_without_an_answer_counts_until_it_can_be_handled_no_more() {
    let key = &keys_of("a", 1)[0];
    let mut world = World::new();
    world.tell(store("a", key, tombstone(1, &[])));
    world.reach("a", true);
    world.pass(10);
    let credit = world.mail.pop_front().expect("it asks first");
    let answer = world.serve(&credit);
    world.answer(credit.call, Ok(answer));
    let sent = world.mail.pop_front().expect("the hint");
    world.answer(sent.call, Err(CallFailure::Closed));
    world.pass(1_000);
    assert_eq!(world.deliver(), 1, "once more, and now it is there");
    assert_eq!(world.count("a"), 0);
    assert!(world.is_kept(key), "the first message may yet be in a queue there");
    world.pass(3_000);
    assert!(world.is_kept(key));
    world.pass(6_000);
    assert!(!world.is_kept(key), "it is handed on with a deadline, which is over");
}

/// T4: a hint that is dropped while it is on its way.
#[test]
fn t4_what_is_on_its_way_counts_without_its_hint() {
    let key = &keys_of("a", 1)[0];
    let mut world = World::new();
    world.tell(store("a", key, tombstone(1, &[])));
    world.reach("a", true);
    world.pass(10);
    let credit = world.mail.pop_front().expect("it asks first");
    let answer = world.serve(&credit);
    world.answer(credit.call, Ok(answer));
    let sent = world.mail.pop_front().expect("the hint");
    world.turn_clock(world.now.moment + Duration::from_secs(4 * 3600));
    world.pass(20_000);
    assert_eq!(world.count("a"), 0, "it is too old");
    assert!(world.is_kept(key), "but on its way");
    let answer = world.serve(&sent);
    world.answer(sent.call, Ok(answer));
    assert!(!world.is_kept(key));
}

/// T7: a node holds a hint and dies; the key is deleted elsewhere; the node returns and replays.
#[test]
fn t7_a_replay_brings_exactly_what_was_kept_and_says_so_before() {
    let key = &keys_of("a", 1)[0];
    let old = version(1, &[], b"old");
    let mut world = World::new();
    world.tell(store("a", key, old.clone()));
    world.crash();
    assert!(world.is_kept(key), "so the tombstone is not purged meanwhile");
    let dot = old.iter().next().expect("one").dot;
    let deleted = tombstone(2, &[dot]);
    world.held.insert((node("a"), key.clone()), deleted.clone());
    world.reach("a", true);
    world.pass(10);
    assert_eq!(world.deliver(), 1);
    assert_eq!(world.holds("a", key), deleted, "the deleted stays deleted");
    assert!(!world.is_kept(key), "from here on it may be purged");
    world.crash();
    world.reach("a", true);
    world.pass(5_000);
    assert_eq!(world.deliver(), 0, "nothing is replayed twice");
}

/// T8: a replay during which some entries fail.
#[test]
fn t8_progress_never_passes_an_undelivered_hint() {
    let keys = keys_of("a", 200);
    let mut world = World::new();
    for (birth, key) in (1..).zip(&keys) {
        assert_eq!(world.tell(store("a", key, version(birth, &[], b"v"))), stored());
    }
    let poisonous =
        |key: &DataKey| keys.iter().position(|it| it == key).expect("one of them") % 7 == 3;
    let mut tries = 0;
    world.reach("a", true);
    for _ in 0..200 {
        world.pass(50);
        while let Some(mail) = world.mail.pop_front() {
            let is_bad = matches!(&mail.message, Outgoing::Store(store) if poisonous(&store.key));
            tries += usize::from(is_bad);
            let outcome = match is_bad {
                true => Ok(Incoming::Stored(Err(Refusal::Storage("this one".into())))),
                false => Ok(world.serve(&mail)),
            };
            world.answer(mail.call, outcome);
        }
    }
    let bad: Vec<_> = keys.iter().filter(|key| poisonous(key)).collect();
    assert_eq!(world.count("a") as usize, bad.len(), "all others are delivered, and no more");
    for key in &keys {
        assert_eq!(world.is_kept(key), poisonous(key));
        assert_eq!(world.holds("a", key).is_empty(), poisonous(key));
    }
    let rounds = tries / bad.len();
    assert!((3..=12).contains(&rounds), "tried again every two seconds or so, not {rounds} times");
    world.pass(3_000);
    world.deliver();
    world.pass(3_000);
    world.deliver();
    assert_eq!(world.count("a"), 0, "once they can be delivered they are");
}

/// T20: the receiver crashes in mid-batch, again and again.
#[test]
fn t20_only_what_was_acknowledged_is_deleted() {
    let keys = keys_of("a", 300);
    let mut world = World::new();
    for (birth, key) in (1..).zip(&keys) {
        world.tell(store("a", key, version(birth, &[], b"v")));
    }
    let mut crashes = 0;
    while world.count("a") > 0 {
        crashes += 1;
        assert!(crashes < 100, "it makes progress");
        world.reach("a", true);
        world.pass(10);
        // It takes a few, and what it had of the others when it died is lost.
        let mut left = 20;
        while let Some(mail) = world.mail.pop_front() {
            if left == 0 {
                world.answer(mail.call, Err(CallFailure::Closed));
                continue;
            }
            left -= 1;
            let answer = world.serve(&mail);
            world.answer(mail.call, Ok(answer));
        }
        world.reach("a", false);
        for (birth, key) in (1..).zip(&keys) {
            let has = !world.holds("a", key).is_empty();
            assert!(has || world.shelf.read(&node("a"), key) != Ok(None), "lost: {birth}");
        }
        if crashes % 5 == 0 {
            world.crash();
        }
    }
    assert!(crashes >= 15);
}

/// T21: hints for an owner that has no room; then, with a little.
#[test]
fn t21_an_owner_gets_no_more_than_it_grants() {
    let keys = keys_of("a", 40);
    let mut world = World::new();
    for (birth, key) in (1..).zip(&keys) {
        world.tell(store("a", key, version(birth, &[], &[b'x'; 100 << 10])));
    }
    world.reach("a", true);
    let (mut granted, mut sent, mut asked) = (0, 0, 0);
    for round in 0..400 {
        world.pass(50);
        while let Some(mail) = world.mail.pop_front() {
            let answer = match &mail.message {
                Outgoing::Credit(ask) => {
                    asked += 1;
                    assert!(ask.waiting_bytes > 0);
                    // Less than one hint has, and often nothing.
                    let bytes = if round % 3 == 0 { 64 << 10 } else { 0 };
                    granted += u64::from(bytes);
                    Incoming::Credit(Credit { bytes, retry_ms: 250 })
                }
                Outgoing::Store(store) => {
                    sent += store.versions.value_bytes() as u64;
                    world.serve(&mail)
                }
                Outgoing::Mark(_) => panic!("nothing was dropped"),
            };
            world.answer(mail.call, Ok(answer));
            assert!(sent <= granted, "{sent} bytes sent, {granted} granted");
        }
    }
    assert!(sent >= granted / 2, "what is granted is used: {sent} of {granted}");
    let turns = 400 * 50 / 250 + granted / (64 << 10);
    assert!(asked <= turns, "it asks when it was told to, not {asked} times in {turns}");
    assert!(world.count("a") < 40, "hints progress");
}

/// T21: the foreground is never refused because of hints: the coordinator is told to do without.
#[test]
fn t21_past_the_bound_hints_are_dropped_and_the_range_marked() {
    let config = HintStoreConfig { bytes_max: 10_000, ..HintStoreConfig::default() };
    let mut world = World::with(config);
    let keys = keys_of("a", 100);
    let replies = keys.iter().zip(1..).map(|(key, birth)| {
        let reply = world.tell(store("a", key, version(birth, &[], &[b'x'; 1000])));
        (key.clone(), reply)
    });
    let (kept, full): (Vec<_>, Vec<_>) = replies.partition(|(_, reply)| *reply == stored());
    assert!((5..10).contains(&kept.len()), "{}", kept.len());
    assert!(full.iter().all(|(_, reply)| *reply == refused(Refusal::HintsFull)));
    let figures = world.machine.figures(world.now);
    assert_eq!(figures.dropped as usize, full.len());
    assert!(figures.owners[&node("a")].bytes <= 10_000);
    world.input(Input::PressureChanged(Pressure::Heavy));
    assert_eq!(world.machine.figures(world.now).pressure, Pressure::Heavy);

    world.reach("a", true);
    world.pass(10);
    let marks = world.mail.iter().find_map(|mail| match &mail.message {
        Outgoing::Mark(marks) => Some((mail.call, marks.ranges.clone())),
        _ => None,
    });
    let (call, ranges) = marks.expect("the owner is told");
    for (key, _) in &full {
        assert!(ranges.contains(&(key.keyspace, key.hash.partition(16))));
    }
    world.mail.retain(|mail| mail.call != call);
    world.answer(call, Err(CallFailure::Timeout));
    world.pass(3_000);
    let again = world.mail.iter().filter(|mail| matches!(mail.message, Outgoing::Mark(_))).count();
    assert_eq!(again, 1, "until it has answered");
    world.deliver();
    world.pass(10_000);
    world.deliver();
    assert_eq!(world.machine.figures(world.now).owners, BTreeMap::new(), "all is done");
}
