//! What every implementation of [`HintShelf`] must do, as checks that its own tests call.
//!
//! [`check`] takes a function that opens an empty shelf, and [`check_reopening`] one that opens the
//! same place again and again, for shelves that outlive a process. Both panic, with a sentence, at the
//! first thing that is not so.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use anello_protocol::{
    causality::{ActorId, Context, Dot, Incarnation},
    id::{KeyspaceId, KeyspaceName, NodeId},
    key::{DataKey, Key, KeyHash},
    time::HybridTime,
    version::{ConflictRule, Content, Value, Version, Versions, WriteId},
};

use super::store::{Hint, HintChange, HintShelf, HintTotals, Shelved};
use crate::store::{StoreError, VnodeRecord};

/// How long a commit may take in a test.
const PATIENCE: Duration = Duration::from_secs(10);

/// Checks everything that shows within one life of a shelf.
pub fn check(open: impl Fn() -> Arc<dyn HintShelf>) {
    an_empty_shelf_holds_nothing(&*open());
    a_change_replaces_what_was_kept_and_keeps_its_place(&*open());
    pages_come_in_order_within_their_bounds(&*open());
    owners_and_keyspaces_are_apart(&*open());
    what_goes_is_gone(&*open());
    changes_are_kept_in_order(&*open());
    records_are_remembered_with_the_hints(&*open());
    all_sizes_of_values_come_back(&*open());
}

/// Checks what must outlive the shelf's object: `open` opens the same place every time.
pub fn check_reopening(open: impl Fn() -> Arc<dyn HintShelf>) {
    let record = VnodeRecord { incarnation: Incarnation(77), births_reserved: 2048 };
    let (kept, gone) = (hint(3, 50, b"value"), hint(4, 40, b"gone"));
    let shelf = open();
    put(&*shelf, "a", "kept", &kept, Some(record));
    put(&*shelf, "a", "gone", &gone, None);
    put(&*shelf, "b", "kept", &hint(9, 60, b"other"), None);
    remove(&*shelf, "a", "gone", 4);
    drop(shelf);

    let shelf = open();
    assert_eq!(shelf.read(&node("a"), &key("kept")), Ok(Some(kept.clone())), "it is there again");
    assert_eq!(shelf.read(&node("a"), &key("gone")), Ok(None), "what was removed is not");
    let Shelved { mut owners, record: found } = shelf.load().expect("a healthy shelf reads");
    owners.sort_by(|(one, _), (other, _)| one.cmp(other));
    let totals = |name, hint: &Hint| HintTotals {
        count: 1,
        bytes: hint.weight(&key(name)),
        oldest_ms: hint.since_ms,
        last_number: hint.number,
    };
    let other = hint(9, 60, b"other");
    let expected = [(node("a"), totals("kept", &kept)), (node("b"), totals("kept", &other))];
    assert_eq!(owners, expected, "all that is kept is counted, and nothing else");
    assert_eq!(found, Some(record), "and the record with it");
}

fn an_empty_shelf_holds_nothing(shelf: &dyn HintShelf) {
    assert_eq!(shelf.read(&node("a"), &key("k")), Ok(None));
    assert_eq!(shelf.page(&node("a"), 0, 64, 1 << 20), Ok(Vec::new()));
    assert_eq!(shelf.load(), Ok(Shelved::default()));
}

fn a_change_replaces_what_was_kept_and_keeps_its_place(shelf: &dyn HintShelf) {
    put(shelf, "a", "first", &hint(1, 10, b"v"), None);
    put(shelf, "a", "second", &hint(2, 20, b"v"), None);
    let grown = Hint { versions: versions(2, b"another value"), ..hint(1, 10, b"v") };
    put(shelf, "a", "first", &grown, None);
    assert_eq!(shelf.read(&node("a"), &key("first")), Ok(Some(grown.clone())));
    let page = shelf.page(&node("a"), 0, 64, 1 << 20).expect("a healthy shelf reads");
    let expected = [(key("first"), grown.clone()), (key("second"), hint(2, 20, b"v"))];
    assert_eq!(page, expected, "one hint a key, the oldest first");
    let totals = totals(shelf, "a");
    assert_eq!((totals.count, totals.oldest_ms, totals.last_number), (2, 10, 2));
    let bytes = grown.weight(&key("first")) + hint(2, 20, b"v").weight(&key("second"));
    assert_eq!(totals.bytes, bytes, "the weight of what is kept, not of what was");
}

fn pages_come_in_order_within_their_bounds(shelf: &dyn HintShelf) {
    // Past one byte of a number, so that an order by text or by little-endian bytes shows.
    for number in (1..=300u64).rev() {
        put(shelf, "a", &format!("key-{number}"), &hint(number, number, &[b'x'; 100]), None);
    }
    let numbers = |from, count, bytes| -> Vec<u64> {
        let page = shelf.page(&node("a"), from, count, bytes).expect("a healthy shelf reads");
        page.iter().map(|(_, hint)| hint.number).collect()
    };
    assert_eq!(numbers(0, 5, 1 << 20), [1, 2, 3, 4, 5], "so many");
    assert_eq!(numbers(254, 4, 1 << 20), [254, 255, 256, 257], "from a number on, itself included");
    assert_eq!(numbers(300, 5, 1 << 20), [300]);
    assert_eq!(numbers(301, 5, 1 << 20), [0; 0], "there are no more");
    assert_eq!(numbers(7, 5, 1), [7], "one, however large");
    let one = hint(10, 10, &[b'x'; 100]).weight(&key("key-10")) as usize;
    let within = numbers(10, 64, 3 * one).len();
    assert!((1..=4).contains(&within), "about so many bytes, not {within} hints");
}

fn owners_and_keyspaces_are_apart(shelf: &dyn HintShelf) {
    // One name begins with the other.
    for (number, owner) in [(5, "a"), (1, "a-1"), (3, "b")] {
        put(shelf, owner, "k", &hint(number, 10, owner.as_bytes()), None);
    }
    for (number, owner) in [(5, "a"), (1, "a-1"), (3, "b")] {
        let kept = hint(number, 10, owner.as_bytes());
        assert_eq!(shelf.read(&node(owner), &key("k")), Ok(Some(kept.clone())));
        assert_eq!(shelf.page(&node(owner), 0, 9, 1 << 20), Ok(vec![(key("k"), kept)]));
        assert_eq!(totals(shelf, owner).count, 1);
    }
    let other = DataKey { keyspace: KeyspaceId(2), ..key("k") };
    assert_eq!(shelf.read(&node("a"), &other), Ok(None), "keyspaces are apart");
}

fn what_goes_is_gone(shelf: &dyn HintShelf) {
    put(shelf, "a", "first", &hint(1, 10, b"v"), None);
    put(shelf, "a", "second", &hint(2, 20, b"v"), None);
    remove(shelf, "a", "first", 1);
    assert_eq!(shelf.read(&node("a"), &key("first")), Ok(None));
    let page = shelf.page(&node("a"), 0, 64, 1 << 20);
    assert_eq!(page, Ok(vec![(key("second"), hint(2, 20, b"v"))]));
    let left = totals(shelf, "a");
    assert_eq!((left.count, left.oldest_ms), (1, 20), "the next one is the oldest");
    // Twice changes nothing: after a failure nobody knows whether it is there.
    remove(shelf, "a", "first", 1);
    put(shelf, "a", "first", &hint(3, 30, b"v"), None);
    let page = shelf.page(&node("a"), 0, 64, 1 << 20).expect("a healthy shelf reads");
    let numbers: Vec<_> = page.iter().map(|(_, hint)| hint.number).collect();
    assert_eq!(numbers, [2, 3], "it has another place when it comes again");
    remove(shelf, "a", "second", 2);
    remove(shelf, "a", "first", 3);
    assert_eq!(shelf.load().expect("a healthy shelf reads").owners, []);
}

fn changes_are_kept_in_order(shelf: &dyn HintShelf) {
    let (sender, done) = mpsc::channel();
    let mut taken = 0;
    for counter in 1..=200 {
        let kept = Hint { versions: versions(counter, b"v"), ..hint(1, 10, b"v") };
        let record = VnodeRecord { incarnation: Incarnation(1), births_reserved: counter };
        let sender = sender.clone();
        let done = Box::new(move |result| sender.send((counter, result)).unwrap_or_default());
        // A full queue is an answer too; what was taken before must still come out in order.
        if shelf.commit(change("a", "k", Some(kept), None, Some(record)), done).is_ok() {
            taken = counter;
        }
    }
    drop(sender);
    let mut last = 0;
    while let Ok((counter, result)) = done.recv_timeout(PATIENCE) {
        assert_eq!(result, Ok(()), "a healthy shelf commits");
        assert!(counter > last, "change {counter} was done after {last}");
        last = counter;
    }
    assert_eq!(last, taken, "every change that was taken is done");
    let kept = shelf.read(&node("a"), &key("k")).expect("a healthy shelf reads");
    assert_eq!(kept.map(|hint| hint.versions), Some(versions(taken, b"v")));
    let record = shelf.load().expect("a healthy shelf reads").record;
    assert_eq!(record.map(|record| record.births_reserved), Some(taken));
}

fn records_are_remembered_with_the_hints(shelf: &dyn HintShelf) {
    let record = VnodeRecord { incarnation: Incarnation(9), births_reserved: 1024 };
    put(shelf, "a", "k", &hint(1, 10, b"v"), Some(record));
    put(shelf, "b", "k", &hint(1, 10, b"v"), None);
    remove(shelf, "a", "k", 1);
    let found = shelf.load().expect("a healthy shelf reads").record;
    assert_eq!(found, Some(record), "no record changes nothing");
}

fn all_sizes_of_values_come_back(shelf: &dyn HintShelf) {
    for (number, size) in (1..).zip([0, 1, 1024, 64 << 10, 1 << 20]) {
        let name = format!("size-{size}");
        let kept = hint(number, 10, &vec![b'x'; size]);
        put(shelf, "a", &name, &kept, None);
        assert_eq!(shelf.read(&node("a"), &key(&name)), Ok(Some(kept)), "a value of {size} bytes");
    }
}

fn put(shelf: &dyn HintShelf, owner: &str, name: &str, hint: &Hint, record: Option<VnodeRecord>) {
    commit_and_wait(shelf, change(owner, name, Some(hint.clone()), None, record));
}

fn remove(shelf: &dyn HintShelf, owner: &str, name: &str, number: u64) {
    commit_and_wait(shelf, change(owner, name, None, Some(number), None));
}

fn change(
    owner: &str,
    name: &str,
    hint: Option<Hint>,
    removed: Option<u64>,
    record: Option<VnodeRecord>,
) -> HintChange {
    HintChange { owner: node(owner), key: key(name), hint, removed, record }
}

fn commit_and_wait(shelf: &dyn HintShelf, change: HintChange) {
    let (sender, done) = mpsc::channel::<Result<(), StoreError>>();
    let done_sender = Box::new(move |result| sender.send(result).unwrap_or_default());
    shelf.commit(change, done_sender).expect("an idle shelf has room");
    done.recv_timeout(PATIENCE).expect("a commit ends").expect("a healthy shelf commits");
}

fn totals(shelf: &dyn HintShelf, owner: &str) -> HintTotals {
    let owners = shelf.load().expect("a healthy shelf reads").owners;
    let found = owners.into_iter().find(|(id, _)| *id == node(owner));
    found.map(|(_, totals)| totals).unwrap_or_default()
}

fn node(id: &str) -> NodeId {
    NodeId::new(id).expect("a good name")
}

fn key(key: &str) -> DataKey {
    let key = Key::new(key.as_bytes().to_vec()).expect("a short key");
    let hash = KeyHash::of(&KeyspaceName::default_keyspace(), &key);
    DataKey { hash, keyspace: KeyspaceId(1), key }
}

fn hint(number: u64, since_ms: u64, value: &[u8]) -> Hint {
    let minted = Dot { actor: ActorId { incarnation: Incarnation(1), birth: 1 }, counter: 1 };
    Hint {
        number,
        since_ms,
        rule: ConflictRule::Siblings,
        versions: versions(1, value),
        minted: Some(minted),
        joined_ms: since_ms + 5,
        counts: true,
    }
}

fn versions(counter: u64, value: &[u8]) -> Versions {
    let actor = ActorId { incarnation: Incarnation(1), birth: 1 };
    let past: Context = (1..counter).map(|counter| Dot { actor, counter }).collect();
    Versions::from(Version {
        dot: Dot { actor, counter },
        past,
        write_id: WriteId(counter.into()),
        time: HybridTime::from_wall_ms(counter),
        expires_ms: None,
        trace_id: None,
        absorbed: Vec::new(),
        content: Content::Value(Value::new(value.to_vec()).expect("within the bound")),
    })
}
