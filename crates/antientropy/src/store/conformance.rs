//! What every implementation of [`TreeStore`] must do, as checks that its own tests call.
//!
//! [`check`] takes a function that makes an empty store with what it takes to write to it. It panics, with
//! a sentence, at the first thing that is not so.

use std::collections::BTreeSet;

use anello_protocol::{
    causality::{ActorId, Context, Dot, Incarnation},
    id::{KeyspaceId, KeyspaceName, PartitionId},
    key::{DataKey, Key, KeyHash},
    merkle::{EntryDigest, HashRange, LEAVES, leaf_of},
    time::HybridTime,
    version::{Content, Value, Version, Versions, WriteId},
};

use super::{Entry, TreeStore};

const ONE: KeyspaceId = KeyspaceId(1);
const TWO: KeyspaceId = KeyspaceId(2);
/// How many keys the checks write into a keyspace.
const KEYS: u64 = 700;

/// A store under test.
pub trait Subject {
    /// The store.
    fn store(&self) -> &dyn TreeStore;
    /// Into how many partitions its hash space is cut.
    fn partitions(&self) -> u32;
    /// Durably replaces what is held of a key, as a vnode's commit does; nothing is held of it if there
    /// are no versions. Returns once it is done.
    fn write(&self, key: &DataKey, versions: &Versions);
    /// Changes the stored digest of a leaf, and nothing else.
    fn damage(&self, keyspace: KeyspaceId, partition: PartitionId, leaf: usize);
}

/// Checks everything. Each check opens a store of its own.
pub fn check(open: impl Fn() -> Box<dyn Subject>) {
    an_empty_store_has_empty_trees(&*open());
    leaves_follow_the_data(&*open());
    children_agree_with_leaves_and_data(&*open());
    entries_come_in_order_and_in_pages(&*open());
    keyspaces_are_apart(&*open());
    a_scrub_mends_what_was_damaged(&*open());
    tombstones_are_found(&*open());
    what_was_written_is_read(&*open());
}

fn an_empty_store_has_empty_trees(subject: &dyn Subject) {
    let store = subject.store();
    let leaves = store.leaves(ONE, PartitionId(0)).expect("an empty tree can be trusted");
    assert_eq!(*leaves, [EntryDigest::default(); LEAVES], "nothing is held");
    let root = HashRange::of_partition(PartitionId(0), subject.partitions());
    let entries = store.entries(ONE, root, None, 10).expect("a healthy store reads");
    assert!(entries.entries.is_empty() && !entries.has_more, "nothing is held");
    assert_eq!(store.scrub(ONE, PartitionId(0)).expect("it scrubs").mended, 0);
    assert_eq!(store.tombstones(ONE, PartitionId(0), None, 10), Ok(Vec::new()));
}

fn leaves_follow_the_data(subject: &dyn Subject) {
    fill(subject, ONE);
    leaves_are_exact(subject, ONE, "after the first writes");
    for number in (0..KEYS).step_by(3) {
        subject.write(&key(ONE, number), &versions(number, 2));
    }
    leaves_are_exact(subject, ONE, "after keys were overwritten");
    for number in (0..KEYS).step_by(5) {
        subject.write(&key(ONE, number), &Versions::new());
    }
    leaves_are_exact(subject, ONE, "after keys were forgotten");
    for number in 0..KEYS {
        subject.write(&key(ONE, number), &Versions::new());
    }
    for partition in partitions(subject) {
        let leaves = subject.store().leaves(ONE, partition).expect("a healthy tree");
        assert_eq!(*leaves, [EntryDigest::default(); LEAVES], "an empty tree is all zero");
    }
}

fn children_agree_with_leaves_and_data(subject: &dyn Subject) {
    fill(subject, ONE);
    for partition in partitions(subject) {
        let leaves = subject.store().leaves(ONE, partition).expect("a healthy tree");
        let root = HashRange::of_partition(partition, subject.partitions());
        let inner = root.children().expect("a partition is large").into_iter();
        let ranges = inner.flat_map(|range| range.children().expect("a leaf's parent is large"));
        for (leaf, range) in ranges.enumerate() {
            let children = subject.store().children(ONE, range).expect("a healthy store reads");
            assert_eq!(children.len(), 16, "a leaf has parts");
            assert_eq!(sum(children.iter().copied()), leaves[leaf], "leaf {leaf} of {partition}");
            let parts = range.children().expect("a leaf is large");
            for (part, digest) in parts.into_iter().zip(children) {
                let held = all(subject, ONE, part);
                assert_eq!(sum(held.iter().map(digest_of)), digest, "a child of leaf {leaf}");
            }
        }
    }
    let mut range = HashRange::of_partition(PartitionId(0), subject.partitions());
    while let Some(children) = range.children() {
        range = children[0];
    }
    let children = subject.store().children(ONE, range).expect("a healthy store reads");
    assert!(children.is_empty(), "what can't be cut has no children");
}

fn entries_come_in_order_and_in_pages(subject: &dyn Subject) {
    fill(subject, ONE);
    fill(subject, TWO);
    let mut seen = BTreeSet::new();
    for partition in partitions(subject) {
        let root = HashRange::of_partition(partition, subject.partitions());
        let whole = subject.store().entries(ONE, root, None, usize::MAX).expect("it reads");
        assert!(!whole.has_more, "there is nothing after everything");
        let mut paged = Vec::new();
        loop {
            let after = paged.last().map(|entry: &Entry| &entry.key);
            let page = subject.store().entries(ONE, root, after, 7).expect("it reads");
            assert!(page.entries.len() <= 7, "the limit holds");
            assert!(page.entries.len() == 7 || !page.has_more, "a page is short only at the end");
            paged.extend(page.entries);
            if !page.has_more {
                break;
            }
        }
        assert_eq!(paged, whole.entries, "the pages are the whole");
        assert!(paged.windows(2).all(|pair| pair[0].key < pair[1].key), "in order, each once");
        for entry in paged {
            assert_eq!(entry.key.keyspace, ONE, "of one keyspace");
            assert!(root.contains(entry.key.hash), "of one range");
            let held = subject.store().read(&entry.key).expect("it reads");
            assert_eq!(entry.digest, held.digest(), "the digest is that of what is held");
            seen.insert(entry.key);
        }
    }
    assert_eq!(seen.len() as u64, KEYS, "every key is in one partition");
}

fn keyspaces_are_apart(subject: &dyn Subject) {
    fill(subject, ONE);
    let before: Vec<_> =
        partitions(subject).map(|partition| subject.store().leaves(ONE, partition)).collect();
    for partition in partitions(subject) {
        let leaves = subject.store().leaves(TWO, partition).expect("a healthy tree");
        assert_eq!(*leaves, [EntryDigest::default(); LEAVES], "the other keyspace is empty");
    }
    fill(subject, TWO);
    let after: Vec<_> =
        partitions(subject).map(|partition| subject.store().leaves(ONE, partition)).collect();
    assert_eq!(before, after, "writes to another keyspace change nothing");
    leaves_are_exact(subject, TWO, "in the other keyspace");
}

fn a_scrub_mends_what_was_damaged(subject: &dyn Subject) {
    fill(subject, ONE);
    let partition = key(ONE, 0).hash.partition(subject.partitions());
    let clean = subject.store().scrub(ONE, partition).expect("it scrubs");
    let root = HashRange::of_partition(partition, subject.partitions());
    let held = all(subject, ONE, root).len() as u64;
    assert_eq!((clean.entries, clean.mended), (held, 0), "a sound tree is left as it is");
    for leaf in [0, LEAVES - 1] {
        subject.damage(ONE, partition, leaf);
    }
    let mended = subject.store().scrub(ONE, partition).expect("it scrubs");
    assert_eq!((mended.entries, mended.mended), (held, 2), "two leaves were wrong");
    leaves_are_exact(subject, ONE, "after the scrub");
    let again = subject.store().scrub(ONE, partition).expect("it scrubs");
    assert_eq!(again.mended, 0, "what is mended stays mended");
}

fn tombstones_are_found(subject: &dyn Subject) {
    fill(subject, ONE);
    let mut deleted = BTreeSet::new();
    for number in (0..KEYS).step_by(4) {
        subject.write(&key(ONE, number), &tombstone(number));
        deleted.insert(key(ONE, number));
    }
    // A tombstone beside a value hides nothing.
    let mut both = tombstone(1);
    both.merge(versions(1, 9), Default::default());
    subject.write(&key(ONE, 1), &both);
    for partition in partitions(subject) {
        let mut found = Vec::new();
        loop {
            let after = found.last();
            let page = subject.store().tombstones(ONE, partition, after, 5).expect("it reads");
            assert!(page.len() <= 5, "the limit holds");
            if page.is_empty() {
                break;
            }
            for tombstone in page {
                let held = subject.store().read(&tombstone.key).expect("it reads");
                assert_eq!(tombstone.digest, held.digest(), "the digest is that of what is held");
                assert_eq!(tombstone.latest, held.latest(), "the latest is that of what is held");
                found.push(tombstone.key);
            }
        }
        assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once");
        for key in found {
            assert!(deleted.remove(&key), "{key:?} is deleted");
        }
    }
    assert!(deleted.is_empty(), "all that is deleted is found");
}

fn what_was_written_is_read(subject: &dyn Subject) {
    fill(subject, ONE);
    assert_eq!(subject.store().read(&key(ONE, 5)), Ok(versions(5, 1)));
    assert_eq!(subject.store().read(&key(TWO, 5)), Ok(Versions::new()));
}

/// The leaves are what the entries say.
fn leaves_are_exact(subject: &dyn Subject, keyspace: KeyspaceId, when: &str) {
    for partition in partitions(subject) {
        let mut expected = [EntryDigest::default(); LEAVES];
        let root = HashRange::of_partition(partition, subject.partitions());
        for entry in all(subject, keyspace, root) {
            expected[leaf_of(entry.key.hash, subject.partitions())].toggle(digest_of(&entry));
        }
        let leaves = subject.store().leaves(keyspace, partition).expect("a healthy tree");
        assert!(*leaves == expected, "the leaves of {partition} are what is held, {when}");
    }
}

fn fill(subject: &dyn Subject, keyspace: KeyspaceId) {
    for number in 0..KEYS {
        subject.write(&key(keyspace, number), &versions(number, 1));
    }
}

fn all(subject: &dyn Subject, keyspace: KeyspaceId, range: HashRange) -> Vec<Entry> {
    subject.store().entries(keyspace, range, None, usize::MAX).expect("it reads").entries
}

fn partitions(subject: &dyn Subject) -> impl Iterator<Item = PartitionId> {
    (0..subject.partitions()).map(PartitionId)
}

fn digest_of(entry: &Entry) -> EntryDigest {
    EntryDigest::of(&entry.key, entry.digest)
}

fn sum(digests: impl Iterator<Item = EntryDigest>) -> EntryDigest {
    digests.fold(EntryDigest::default(), |mut sum, digest| {
        sum.toggle(digest);
        sum
    })
}

fn key(keyspace: KeyspaceId, number: u64) -> DataKey {
    let key = Key::new(format!("key-{number}").into_bytes()).expect("a short key");
    let hash = KeyHash::of(&KeyspaceName::default_keyspace(), &key);
    DataKey { hash, keyspace, key }
}

fn versions(number: u64, counter: u64) -> Versions {
    version(number, counter, Content::Value(Value::new(vec![b'v'; 20]).expect("short")))
}

fn tombstone(number: u64) -> Versions {
    version(number, 2, Content::Tombstone)
}

fn version(number: u64, counter: u64, content: Content) -> Versions {
    let actor = ActorId { incarnation: Incarnation(counter), birth: number + 1 };
    Versions::from(Version {
        dot: Dot { actor, counter },
        past: Context::new(),
        write_id: WriteId(number.into()),
        time: HybridTime::from_wall_ms(1_000 + number),
        expires_ms: None,
        trace_id: None,
        absorbed: Vec::new(),
        content,
    })
}
