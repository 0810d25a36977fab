use std::sync::mpsc;

use anello_protocol::version::ConflictRule;
use anello_replica::{hints::conformance, store::Store};

use super::*;
use crate::rocks::tests::{key, open, versions};

fn owner() -> NodeId {
    NodeId::new("n-1").expect("a name")
}

fn hint(number: u64, bytes: usize) -> Hint {
    Hint {
        number,
        since_ms: 1_000 + number,
        rule: ConflictRule::Siblings,
        versions: versions(number, bytes),
        minted: None,
        joined_ms: 2_000 + number,
        counts: false,
    }
}

fn change(store: &RocksStore, key: DataKey, hint: Option<Hint>, removed: Option<u64>) {
    let (sender, outcome) = mpsc::channel();
    let change = HintChange { owner: owner(), key, hint, removed, record: None };
    let done = Box::new(move |result| sender.send(result).expect("the test listens"));
    HintShelf::commit(store, change, done).expect("room");
    outcome.recv().expect("told").expect("durable");
}

#[test]
fn a_store_with_nothing_but_a_hint_is_not_empty_and_is_again_without() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    change(&store, key(1, 1), Some(hint(1, 10)), None);
    assert_eq!(store.is_empty(), Ok(false));
    assert_eq!(
        Store::read(&*store, &key(1, 1)),
        Ok(Default::default()),
        "it is no data of its own"
    );
    change(&store, key(1, 1), None, Some(1));
    assert_eq!(store.is_empty(), Ok(true), "nothing of it is left");
}

#[test]
fn a_hint_that_is_gone_keeps_nobody_from_those_after_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    for number in 1..=3 {
        change(&store, key(1, number), Some(hint(number, 10)), None);
    }
    let shared = store.shared();
    let at = keys::hint(&owner(), &key(1, 2));
    shared.db.delete_cf(shared.family(Family::Hints), at).expect("written");
    let page = store.page(&owner(), 0, 9, 1 << 20).expect("readable");
    let numbers: Vec<_> = page.iter().map(|(_, hint)| hint.number).collect();
    assert_eq!(numbers, [1, 3]);
}

#[test]
fn what_is_damaged_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    change(&store, key(1, 1), Some(hint(1, 10)), None);
    let shared = store.shared();
    let family = shared.family(Family::Hints);
    shared.db.put_cf(family, keys::hint(&owner(), &key(1, 1)), [9, 9]).expect("written");
    assert!(HintShelf::read(&*store, &owner(), &key(1, 1)).is_err());
    assert!(store.page(&owner(), 0, 9, 1 << 20).is_err());
    assert!(HintShelf::load(&*store).is_ok(), "places are all that a start reads");
    shared.db.put_cf(family, keys::hint_place(&owner(), 1), [9, 9]).expect("written");
    assert!(HintShelf::load(&*store).is_err());
}

#[test]
fn is_a_shelf() {
    let dirs = std::sync::Mutex::new(Vec::new());
    conformance::check(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(&dir);
        dirs.lock().expect("not poisoned").push(dir);
        store
    });
    let dir = tempfile::tempdir().expect("a directory");
    conformance::check_reopening(|| open(&dir));
}
