//! What went wrong in other systems, told step by step to a fleet; each has the number and the system of its
//! row in the table of scenarios that Anello was designed against. At the end of each the replicas must have
//! become equal, repair must have come to an end, and reads at ALL must show every acknowledged write.

use std::time::Duration;

use anello_protocol::{
    cluster::{KeyspaceConfig, Replication},
    consistency::{Consistency, QuorumKind},
    message::client::{ContextToken, RequestError},
    version::{Content, Value},
};
use anello_sim::fleet::story::{ALL, Manner, ONE, SLOPPY, STRICT, Seen, Story};

const GRACE: Duration = Duration::from_secs(10);
/// Within this a tombstone is forgotten, if nothing is in the way.
const FORGOTTEN: Duration = Duration::from_secs(70);

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn all_sloppy() -> Manner {
    Manner { level: Consistency::All, quorum: QuorumKind::Sloppy }
}

/// T2, Riak: a replica flaps while a strict quorum needs it. The write fails, however often; no stand-in is
/// counted. A sloppy one is kept by the stand-in.
#[test]
fn t2_a_strict_quorum_while_a_replica_flaps() {
    let mut story = Story::begin(&[("eu", 5)], None);
    let (replicas, _) = story.walk(0);
    let (asked, flapping) = (replicas[0], replicas[2]);
    for round in 0..6 {
        story.kill(flapping);
        story.pass(ms(700 * round));
        let strict = story.put(asked, 0, &format!("strict {round}"), None, ALL);
        assert!(strict.is_err(), "one of three is dead: {strict:?}");
        let sloppy = story.put(asked, 0, &format!("sloppy {round}"), None, all_sloppy());
        assert!(sloppy.is_ok(), "a stand-in keeps it: {sloppy:?}");
        story.start(flapping);
    }
    story.end();
}

/// T3, riak_kv#679: the node that issued a key's dots is put back from an old copy, and a client writes
/// there without a context. What it issues has a new name, so nothing takes it for what it issued before.
#[test]
fn t3_a_blind_write_at_a_node_that_was_put_back_from_a_copy() {
    let mut story = Story::begin(&[("eu", 3)], None);
    let issuer = story.walk(0).0[0];
    story.put(issuer, 0, "one", None, STRICT).expect("all is well");
    story.back_up(issuer);
    for value in ["two", "three", "four"] {
        story.put(issuer, 0, value, None, STRICT).expect("all is well");
    }
    story.pass(s(1));
    story.restore(issuer);
    story.start(issuer);
    story.until_it_serves(issuer);
    story.put(issuer, 0, "five", None, STRICT).expect("all is well");
    let seen = story.get(issuer, 0, ALL).expect("all is well");
    assert!(["one", "two", "three", "four", "five"].iter().all(|it| seen.shows(it)), "{seen:?}");
    story.end();
}

/// T4, riak_kv#1094: a delete reaches two replicas and a stand-in, which goes away. While it does, the
/// tombstone stays; the key is written anew; the stand-in comes back and hands its tombstone over.
#[test]
fn t4_a_stand_in_comes_back_with_an_old_tombstone() {
    let mut story = Story::begin(&[("eu", 5)], Some(GRACE));
    let (replicas, _) = story.walk(0);
    let (asked, away) = (replicas[0], replicas[2]);
    story.put(asked, 0, "old", None, ALL).expect("all is well");
    story.kill(away);
    story.notice();
    story.delete(asked, 0, None, SLOPPY).expect("a stand-in keeps it");
    story.pass(ms(100));
    let stand_in = story.keeper().expect("somebody keeps the tombstone");
    story.kill(stand_in);
    story.start(away);
    story.pass(FORGOTTEN);
    assert!(story.tombstones() > 0, "nobody knows what the stand-in keeps");
    story.put(asked, 0, "new", None, STRICT).expect("two are there");
    story.start(stand_in);
    story.pass(s(5));
    assert!(story.get(away, 0, ALL).expect("all are there").shows("new"));
    story.end();
}

/// T5, riak_kv#1865: all vnodes begin at the same instant, after a crash that forgot what they had not
/// synced, and issue dots for one key. All of them differ.
#[test]
fn t5_all_begin_at_the_same_instant() {
    let mut story = Story::begin(&[("eu", 3)], None);
    for round in 0..4 {
        (0..3).for_each(|node| story.kill(node));
        (0..3).for_each(|node| story.switch_on(node));
        story.gather();
        for node in 0..3 {
            story.put(node, 0, &format!("{round} of {node}"), None, STRICT).expect("all are there");
        }
    }
    assert_eq!(story.get(0, 0, ALL).expect("all are there").values.len(), 12);
    story.end();
}

/// T6, riak_kv#1813: tombstones are forgotten while replicas of two datacenters, whose link comes and goes,
/// are compared. Nothing is resurrected, nothing goes round, all is forgotten in the end.
#[test]
fn t6_forgetting_while_datacenters_are_compared() {
    let mut story = Story::begin(&[("eu", 3), ("us", 3)], Some(GRACE));
    let written: Vec<_> =
        (0..6).map(|key| story.put(0, key, "a", None, ALL).expect("all is well")).collect();
    story.cut(&[0, 1, 2], &[3, 4, 5]);
    let local = Manner { level: Consistency::LocalQuorum, quorum: QuorumKind::Strict };
    story.pass(s(4));
    for (key, context) in (0..6).zip(written) {
        story.delete(0, key, Some(context), local).expect("three are there");
    }
    for _ in 0..5 {
        story.pass(s(5));
        story.heal();
        story.pass(s(3));
        story.cut(&[0, 1, 2], &[3, 4, 5]);
    }
    assert!(story.tombstones() > 0, "no proof was possible");
    story.heal();
    story.gather();
    story.pass(FORGOTTEN * 2);
    assert_eq!(story.tombstones(), 0);
    for key in 0..6 {
        assert!(story.get(4, key, ONE).expect("all is well").values.is_empty());
    }
    story.end();
}

/// T7, scylla#23712: a node that keeps a hint dies. The key is deleted and repaired, and would be forgotten;
/// the node comes back and delivers the hint. The value stays deleted.
#[test]
fn t7_a_hint_for_what_was_deleted_since() {
    let mut story = Story::begin(&[("eu", 5)], Some(GRACE));
    let (replicas, _) = story.walk(0);
    let (asked, away) = (replicas[0], replicas[2]);
    story.kill(away);
    story.notice();
    story.put(asked, 0, "old", None, SLOPPY).expect("a stand-in keeps it");
    story.pass(ms(100));
    let stand_in = story.keeper().expect("somebody keeps a hint");
    story.kill(stand_in);
    story.start(away);
    story.delete(asked, 0, None, ALL).expect("all replicas are there");
    story.pass(FORGOTTEN * 2);
    assert!(story.tombstones() > 0, "nobody knows what the stand-in keeps");
    story.start(stand_in);
    story.pass(s(5));
    assert_eq!(story.hints_at(stand_in), 0, "it was delivered");
    assert!(story.get(away, 0, ONE).expect("all is well").is_missing());
    story.pass(FORGOTTEN * 2);
    assert_eq!(story.tombstones(), 0);
    assert!(story.get(away, 0, ALL).expect("all is well").values.is_empty());
    story.end();
}

/// T8, scylla#24415: the owner takes only some of what is delivered to it. What it refused stays a hint until
/// it has it.
#[test]
fn t8_a_delivery_of_which_some_fails() {
    let mut story = Story::begin(&[("eu", 5)], None);
    let away = story.walk(0).0[2];
    story.kill(away);
    story.notice();
    let asked = (away + 1) % 5;
    for round in 0..4 {
        for key in 0..8 {
            story.put(asked, key, &format!("{round}"), None, SLOPPY).expect("stand-ins are there");
        }
    }
    story.pass(s(1));
    assert!(story.keeper().is_some());
    story.fill_store(away, true);
    story.start(away);
    story.pass(s(3));
    story.fill_store(away, false);
    story.pass(s(8));
    assert_eq!(story.keeper(), None, "all are delivered");
    story.end();
}

/// T9, Cassandra: a replica comes back after longer than the grace. It shows nobody what it holds before it is
/// back in step, and what was deleted meanwhile stays deleted.
#[test]
fn t9_a_replica_away_for_longer_than_the_grace() {
    let mut story = Story::begin(&[("eu", 3)], Some(GRACE));
    story.put(0, 0, "old", None, ALL).expect("all is well");
    story.pass(s(6));
    story.kill(2);
    story.notice();
    story.delete(0, 0, None, STRICT).expect("two are there");
    story.pass(FORGOTTEN);
    assert!(story.tombstones() > 0, "one replica has not confirmed it");
    story.switch_on(2);
    story.until_it_is_quarantined(2);
    story.until_it_serves(2);
    for node in 0..3 {
        assert!(story.get(node, 0, ONE).expect("all serve").is_missing());
    }
    story.pass(FORGOTTEN * 2);
    assert_eq!(story.tombstones(), 0);
    story.end();
}

/// T10, riak_kv#311: the key is read and deleted again all the time while its tombstone is to be forgotten. It
/// goes as soon as that ends.
#[test]
fn t10_reads_while_a_tombstone_is_forgotten() {
    let mut story = Story::begin(&[("eu", 4)], Some(GRACE));
    story.put(0, 0, "old", None, ALL).expect("all is well");
    story.delete(0, 0, None, ALL).expect("all is well");
    for round in 0..800 {
        let seen = story.get(round % 4, 0, ONE).expect("all is well");
        assert!(seen.is_missing(), "{seen:?}");
        story.pass(ms(100));
    }
    story.pass(FORGOTTEN);
    assert_eq!(story.tombstones(), 0);
    story.end();
}

/// T12, riak_kv#1156: two sides of a partition each take as many concurrent versions as they may. Together they
/// are more than a client's write could leave, and repair stores them all the same.
#[test]
fn t12_repair_past_the_limit_of_siblings() {
    let mut story = Story::begin(&[("eu", 2)], None);
    story.cut(&[0], &[1]);
    story.notice();
    for number in 0..520 {
        for node in 0..2 {
            story.put(node, 0, &format!("{number} of {node}"), None, ONE).expect("one is enough");
        }
    }
    story.heal();
    story.gather();
    story.pass(s(30));
    let seen = story.get(0, 0, ALL).expect("both are there");
    assert_eq!(seen.values.len(), 1040);
    let refused = story.put(0, 0, "one more", None, ONE);
    assert!(matches!(refused, Err(RequestError::BadRequest(_))), "{refused:?}");
    story.put(0, 0, "merged", seen.context, ONE).expect("it replaces them all");
    story.end();
}

/// T16, CASSANDRA-2434: a write is acknowledged by A and B; B loses its disk, and is rebuilt while only C, which
/// has never heard of it, is there. No quorum says that it is missing, and in the end it is read.
#[test]
fn t16_rebuilt_from_a_stale_replica() {
    let mut story = Story::begin(&[("eu", 3)], None);
    let (a, b, c) = (0, 1, 2);
    story.kill(c);
    story.notice();
    story.put(a, 0, "acknowledged", None, STRICT).expect("two are there");
    story.kill(a);
    story.kill(b);
    story.wipe(b);
    story.switch_on(b);
    story.switch_on(c);
    story.pass(s(40));
    for node in [b, c] {
        let seen = story.get(node, 0, STRICT);
        assert!(seen.is_err(), "B has lost what it acknowledged, and A is away: {seen:?}");
    }
    story.start(a);
    story.gather();
    assert!(story.get(b, 0, STRICT).expect("all are there").shows("acknowledged"));
    story.end();
}

/// T20, riak_kv#847: the owner of hints crashes in the middle of their delivery, again and again. Nothing is
/// deleted that it has not acknowledged, and it needs nobody's help.
#[test]
fn t20_the_receiver_crashes_again_and_again() {
    let mut story = Story::begin(&[("eu", 5)], None);
    let away = story.walk(0).0[2];
    story.kill(away);
    story.notice();
    let asked = (away + 1) % 5;
    for key in 0..8 {
        for round in 0..3 {
            story.put(asked, key, &format!("{round}"), None, SLOPPY).expect("stand-ins are there");
        }
    }
    for round in 0..8 {
        story.switch_on(away);
        story.pass(ms(300 + 200 * round));
        story.kill(away);
    }
    story.start(away);
    story.pass(s(12));
    assert_eq!(story.keeper(), None, "all are delivered");
    story.end();
}

/// T22, scylla#1165: one replica has gone through a key's whole history, another has heard of its last version
/// only. Their digests are equal, and no repair follows (the end of every story checks that).
#[test]
fn t22_digests_are_of_what_is_held_not_of_how_it_came() {
    let mut story = Story::begin(&[("eu", 3)], None);
    story.kill(2);
    story.notice();
    let mut context = None;
    for version in 0..10 {
        let value = format!("{version}");
        context = Some(story.put(0, 0, &value, context, STRICT).expect("two are there"));
    }
    story.start(2);
    story.gather();
    story.pass(s(30));
    assert_eq!(story.get(2, 0, ONE).expect("all is well").values, [Some("9".into())]);
    story.end();
}

/// T24, Riak: a request reaches a vnode that has just stopped to be one: its keyspace was dropped, or dropped and
/// created anew. It is refused at once. That data moves from node to node can't occur: a change of who holds
/// what is refused while there is any.
#[test]
fn t24_requests_for_a_keyspace_that_was_dropped() {
    let mut story = Story::begin(&[("eu", 4)], None);
    let config = story.usual_config();
    story.operate("carts", Some(config.clone()));
    let value = || Content::Value(Value::new("v").expect("within the bound"));
    story.write(0, "carts", 0, value(), None, ALL).expect("all is well");
    story.operate("carts", None);
    let began = story.now();
    for node in 0..4 {
        let seen = story.read(node, "carts", 0, STRICT);
        assert!(matches!(seen, Err(RequestError::NoSuchKeyspace(_))), "{seen:?}");
    }
    assert!(story.now().since(began) < ms(200), "nobody waits");
    story.operate("carts", Some(config));
    let seen = story.read(1, "carts", 0, ALL).expect("all is well");
    assert_eq!(seen.values, [], "what was dropped is no part of the new one");
    story.end();
}

/// T26, voldemort#290: a node's membership record is zeroed, cut off or empty while it holds data. It refuses to
/// start, says why, and serves nobody as if it were empty; the others go on.
#[test]
fn t26_a_damaged_membership_record() {
    type Damage = fn(&[u8]) -> Vec<u8>;
    let damages: [Damage; 3] =
        [|record| vec![0; record.len()], |record| record[..record.len() / 2].to_vec(), |_| vec![]];
    for damage in damages {
        let mut story = Story::begin(&[("eu", 3)], None);
        story.put(0, 0, "kept", None, ALL).expect("all is well");
        story.kill(1);
        story.damage_record(1, damage);
        story.switch_on(1);
        let why = story.refusal(1).expect("it refuses to start");
        assert!(why.contains("record"), "{why}");
        assert!(story.get(1, 0, ONE).is_err(), "nobody is there");
        assert!(story.get(0, 0, STRICT).expect("two are there").shows("kept"));
    }
}

/// T29, scylla#27893: `local_quorum` in a datacenter that has no replicas is a clear error, at once.
#[test]
fn t29_a_local_quorum_without_local_replicas() {
    let mut story = Story::begin(&[("eu", 3), ("us", 2)], None);
    let eu = [("eu".parse().expect("a name"), 3)].into();
    let replication = Replication::PerDatacenter(eu);
    story.operate("far", Some(KeyspaceConfig { replication, ..story.usual_config() }));
    let began = story.now();
    let local = Manner { level: Consistency::LocalQuorum, quorum: QuorumKind::Sloppy };
    let value = || Content::Value(Value::new("v").expect("within the bound"));
    let said = [
        story.read(3, "far", 0, local).map(drop),
        story.write(4, "far", 0, value(), None, local).map(drop),
    ];
    for error in said {
        assert!(matches!(error, Err(RequestError::BadConsistency(_))), "{error:?}");
    }
    assert!(story.now().since(began) < ms(100), "nobody waits");
    story.write(3, "far", 0, value(), None, STRICT).expect("a quorum is reached from abroad");
    story.end();
}

/// T31, OpenRiak#164: writes with a context, against a missing key, a tombstone, siblings.
///
/// | context of | the key holds | put | delete |
/// | --- | --- | --- | --- |
/// | nothing | nothing | the value | nothing is written |
/// | nothing | a value | a sibling | nothing is written |
/// | a value | that value | replaces it | replaces it |
/// | a value | a tombstone over it | a sibling of the tombstone, so the value is there | the same |
/// | a tombstone | that tombstone | replaces it | replaces it |
/// | one of two siblings | both | replaces that one | the other one is left |
/// | both siblings | both | replaces both | nothing is left |
#[test]
fn t31_writes_with_a_context() {
    let mut story = Story::begin(&[("eu", 3)], None);
    let shown = |story: &mut Story, key| story.get(0, key, ALL).expect("all is well");
    let some = |values: &[&str]| -> Vec<Option<String>> {
        values.iter().map(|value| Some((*value).to_owned())).collect()
    };
    let sorted = |seen: Seen| {
        let mut values = seen.values;
        values.sort();
        values
    };
    let nothing = shown(&mut story, 0).context;
    // A missing key.
    story.delete(0, 0, nothing.clone(), STRICT).expect("there is nothing to delete");
    assert_eq!(shown(&mut story, 0).values, []);
    let one = story.put(0, 0, "one", nothing.clone(), STRICT).expect("all is well");
    assert_eq!(shown(&mut story, 0).values, some(&["one"]));
    story.delete(0, 0, nothing.clone(), STRICT).expect("its writer has seen nothing");
    assert_eq!(shown(&mut story, 0).values, some(&["one"]));
    // A tombstone.
    let gone = story.delete(0, 0, Some(one.clone()), STRICT).expect("all is well");
    assert!(shown(&mut story, 0).is_missing());
    story.put(0, 0, "late", Some(one), STRICT).expect("all is well");
    assert_eq!(sorted(shown(&mut story, 0)), [None, Some("late".into())]);
    story.put(0, 0, "two", Some(gone), STRICT).expect("all is well");
    assert_eq!(sorted(shown(&mut story, 0)), some(&["late", "two"]));
    // Siblings.
    let left: ContextToken = story.put(0, 1, "left", None, STRICT).expect("all is well");
    story.put(0, 1, "right", None, STRICT).expect("all is well");
    story.put(0, 1, "newer left", Some(left), STRICT).expect("all is well");
    assert_eq!(sorted(shown(&mut story, 1)), some(&["newer left", "right"]));
    let both = shown(&mut story, 1).context;
    story.delete(0, 1, both.clone(), STRICT).expect("all is well");
    assert!(shown(&mut story, 1).is_missing());
    story.put(0, 1, "merged", both, STRICT).expect("all is well");
    assert_eq!(sorted(shown(&mut story, 1)), [None, Some("merged".into())]);
    story.end();
}
