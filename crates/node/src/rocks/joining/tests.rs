//! What is left from former times goes once, and what arrives then stays, whatever restarts come between.

use std::{collections::BTreeMap, sync::Arc};

use anello_protocol::{
    cluster::Phase::{self, Done, Filling, Serving},
    id::KeyspaceId,
    key::DataKey,
    version::Versions,
};
use anello_replica::store::Store;

use super::*;
use crate::rocks::{
    clear::tests::{Bench, Fate},
    tests::{
        PARTITIONS, key,
        rings::{self, node},
        tombstone, tree_agrees, versions, write,
    },
};

/// Three replicas of one, one of the other: of many partitions a node holds one and takes in the other.
const KEYSPACES: &[(u64, u16)] = &[(1, 3), (4, 1)];
const FOUR: &[&str] = &["a", "b", "c", "d"];

fn all_keys() -> Vec<DataKey> {
    (0..2_000).map(|number| key(if number % 2 == 0 { 1 } else { 4 }, number)).collect()
}

fn content(number: usize) -> Versions {
    match number % 5 {
        0 | 1 => tombstone(number as u64),
        _ => versions(number as u64, 50),
    }
}

fn tree_of(key: &DataKey) -> TreeId {
    (key.keyspace, key.hash.partition(PARTITIONS))
}

/// Node `a` while `d` leaves.
fn leaving(epoch: u64, began: u64, phase: Phase) -> Arc<View> {
    rings::leaving(epoch, began, FOUR, KEYSPACES, phase)
}

/// What node `a` takes in while `d` leaves: what it holds afterwards and didn't before.
fn new_trees() -> BTreeSet<TreeId> {
    let before = rings::settled(5, FOUR, KEYSPACES);
    let after = rings::settled(9, &FOUR[..3], KEYSPACES);
    let all = KEYSPACES.iter().flat_map(|(keyspace, _)| {
        (0..PARTITIONS).map(|partition| (*keyspace, PartitionId(partition)))
    });
    let is_new = |(keyspace, partition): &(u64, PartitionId)| {
        rings::holds(&after, "a", *keyspace, *partition)
            && !rings::holds(&before, "a", *keyspace, *partition)
    };
    all.filter(is_new).map(|(keyspace, partition)| (KeyspaceId(keyspace), partition)).collect()
}

/// Adopts a view, as far as this is concerned; how many trees had to be cleared.
fn adopt(store: &Arc<RocksStore>, view: &View) -> usize {
    store.keep_all();
    let joining = store.joining(view, &node("a")).expect("readable");
    let trees = joining.trees.len();
    if !joining.is_empty() {
        clear(&Arc::downgrade(store), &joining).expect("cleared");
    }
    trees
}

fn holds_exactly(store: &RocksStore, held: &BTreeMap<DataKey, Versions>) {
    for key in all_keys() {
        let expected = held.get(&key).cloned().unwrap_or_default();
        assert_eq!(Store::read(store, &key), Ok(expected), "{key:?}");
        tree_agrees(store, tree_of(&key));
    }
}

#[test]
fn what_a_node_takes_in_is_what_it_holds_afterwards_and_did_not_before() {
    let new = new_trees();
    assert!(new.len() > 50, "{}", new.len());
    for phase in [Filling, Serving] {
        assert_eq!(taken_in(&leaving(6, 6, phase), &node("a")), new, "{phase:?}");
    }
    for view in [leaving(6, 6, Done), rings::settled(6, FOUR, KEYSPACES)] {
        assert_eq!(taken_in(&view, &node("a")), BTreeSet::new());
    }
    for phase in [Filling, Serving] {
        assert_eq!(taken_in(&leaving(6, 6, phase), &node("d")), BTreeSet::new(), "it leaves");
    }
}

#[test]
fn what_is_left_from_former_times_goes_once_for_each_change() {
    let mut bench = Bench::new();
    let new = new_trees();
    let before = rings::settled(5, FOUR, KEYSPACES);
    let mut held = BTreeMap::new();
    for (number, key) in all_keys().into_iter().enumerate() {
        let tree = tree_of(&key);
        // What belongs to neither goes with its partition or is left to be released.
        if new.contains(&tree) || before.holds(&node("a"), tree.0, tree.1) {
            write(&bench.store, &key, content(number));
            held.insert(key, content(number));
        }
    }
    assert_eq!(adopt(&bench.store, &leaving(6, 6, Filling)), new.len());
    held.retain(|key, _| !new.contains(&tree_of(key)));
    holds_exactly(&bench.store, &held);
    bench = bench.reopen();
    holds_exactly(&bench.store, &held);
    assert_eq!(adopt(&bench.store, &leaving(6, 6, Filling)), 0, "after a restart");
    // It arrives at the node, from clients and from the old owners.
    for (number, key) in all_keys().into_iter().enumerate() {
        if new.contains(&tree_of(&key)) {
            write(&bench.store, &key, content(number));
            held.insert(key, content(number));
        }
    }
    for (epoch, phase) in [(6, Filling), (7, Filling), (8, Serving), (9, Done)] {
        assert_eq!(adopt(&bench.store, &leaving(epoch, 6, phase)), 0, "{phase:?}");
        bench = bench.reopen();
        holds_exactly(&bench.store, &held);
    }
    assert!(!bench.store.notes().expect("readable").is_empty());
    assert_eq!(adopt(&bench.store, &rings::settled(10, &FOUR[..3], KEYSPACES)), 0);
    assert!(bench.store.notes().expect("readable").is_empty(), "that change is over");
    holds_exactly(&bench.store, &held);

    // In between it came back and took its share over: another change, and other leftovers.
    assert_eq!(adopt(&bench.store, &leaving(20, 20, Serving)), new.len());
    held.retain(|key, _| !new.contains(&tree_of(key)));
    holds_exactly(&bench.store, &held);
}

#[test]
fn of_a_tree_that_is_not_held_any_more_there_is_no_note_within_the_same_change() {
    let bench = Bench::new();
    let new = new_trees().len();
    assert_eq!(adopt(&bench.store, &leaving(6, 6, Filling)), new);
    // The node that was to leave stays after all, and then goes all the same.
    let mut state = (**leaving(7, 6, Filling).cluster()).clone();
    for member in state.members.values_mut() {
        member.state = anello_protocol::cluster::MemberState::Up;
    }
    let stays = View::of(Arc::new(state)).expect("a ring");
    assert_eq!(adopt(&bench.store, &stays), 0);
    assert_eq!(adopt(&bench.store, &leaving(8, 6, Filling)), new);
}

/// As long as there is no note nothing may have arrived; once there is one nothing is left.
#[test]
fn the_note_and_the_clearing_are_one() {
    for fate in [Fate::Lost, Fate::Kept] {
        let mut bench = Bench::new();
        // A keyspace of which nothing is held before, and one where all goes at once.
        let view = rings::joining(6, 6, &["b", "c", "d", "a"], KEYSPACES, Filling);
        let keys = all_keys();
        for (number, key) in keys.iter().enumerate() {
            write(&bench.store, key, content(number));
        }
        let joining = bench.store.joining(&view, &node("a")).expect("readable");
        assert!(joining.trees.len() > 100 && !joining.whole.is_empty());
        // The barrier ahead of it fails as well, so it is given in as it is.
        let clear = Clear { partitions: joining.whole.clone(), trees: BTreeSet::new() };
        let (done, outcome) = std::sync::mpsc::channel();
        bench.fate(fate);
        let given_in = give_in(&bench.store, &joining, clear, done);
        assert!(given_in && outcome.recv().expect("told").is_err());
        bench = bench.reopen();
        let left = keys.iter().filter(|key| {
            let is_new = joining.whole.contains(&tree_of(key).1);
            is_new && !Store::read(&*bench.store, key).expect("readable").is_empty()
        });
        let still = bench.store.joining(&view, &node("a")).expect("readable");
        match fate {
            Fate::Kept => assert!(left.count() == 0 && still.trees.is_empty()),
            _ => assert!(left.count() > 100 && still == joining),
        }
    }
}

/// The last step of [`clear`].
fn give_in(
    store: &RocksStore,
    joining: &Joining,
    clear: Clear,
    done: std::sync::mpsc::Sender<Result<(), String>>,
) -> bool {
    let trees: Vec<_> = joining.trees.iter().copied().collect();
    let (changes, upkeep) = last_step(joining.began, &trees, clear);
    let done = Box::new(move |result| done.send(result).expect("the test listens"));
    store.submit_with(changes, upkeep, Flag::Unconcerned, done).is_ok()
}
