//! Damage that no request may ever meet, because only what goes on in the background reads that far.

use std::{path::PathBuf, sync::mpsc};

use anello_antientropy::store::TreeStore;
use anello_protocol::{
    id::{KeyspaceId, NodeId, PartitionId},
    merkle::HashRange,
    version::{ConflictRule, Content, Version, Versions},
};
use anello_replica::hints::store::{Hint, HintChange, HintShelf};

use super::{PARTITIONS, disk, key, open, versions, write};
use crate::rocks::{RocksStore, Trouble};

fn hint_owner() -> NodeId {
    NodeId::new("n-1").expect("a name")
}

/// Keeps a hint.
pub(crate) fn keep_hint(store: &RocksStore) {
    let hint = Hint {
        number: 1,
        since_ms: 1,
        rule: ConflictRule::Siblings,
        versions: versions(1, 10),
        minted: None,
        joined_ms: 1,
        counts: true,
    };
    let (owner, key, hint) = (hint_owner(), key(1, 1), Some(hint));
    let (done, outcome) = mpsc::channel();
    let done = Box::new(move |result| done.send(result).expect("the test listens"));
    let change = HintChange { owner, key, hint, removed: None, record: None };
    HintShelf::commit(store, change, done).expect("room");
    outcome.recv().expect("told").expect("durable");
}

/// The largest table of a column family, with all that was written to it.
pub(crate) fn table_of(store: &RocksStore, family: &str) -> PathBuf {
    let db = &store.shared().db;
    let handle = db.cf_handle(family).expect("a family");
    db.flush_cf(handle).expect("flushed");
    let files = db.live_files().expect("listed");
    let files = files.into_iter().filter(|file| file.column_family_name == family);
    let file = files.max_by_key(|file| file.size).expect("something was written");
    db.path().join(file.name.trim_start_matches('/'))
}

/// One that no request may ever meet, because only what goes on in the background reads that far.
#[test]
fn damage_that_background_work_meets_is_told() {
    type Work = fn(&RocksStore) -> bool;
    const PARTITION: PartitionId = PartitionId(0);
    let works: [(&str, &str, Work); 6] = [
        ("scrubbing the data", "data", |store| store.scrub(KeyspaceId(1), PARTITION).is_err()),
        ("scrubbing the leaves", "trees", |store| store.scrub(KeyspaceId(1), PARTITION).is_err()),
        ("listing entries", "data", |store| {
            let range = HashRange::of_partition(PARTITION, PARTITIONS);
            store.entries(KeyspaceId(1), range, None, 9).is_err()
        }),
        ("listing tombstones", "tombstones", |store| {
            store.tombstones(KeyspaceId(1), PARTITION, None, 9).is_err()
        }),
        ("delivering hints", "hints", |store| store.page(&hint_owner(), 0, 9, 1 << 20).is_err()),
        ("loading hints", "hints", |store| HintShelf::load(store).is_err()),
    ];
    for (name, family, work) in works {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(&dir);
        // Of a hash in the first partition.
        let tombstone = versions(0, 0)
            .into_iter()
            .map(|version| Versions::from(Version { content: Content::Tombstone, ..version }));
        write(&store, &key(1, 0), tombstone.last().expect("one version"));
        keep_hint(&store);
        disk::damage(&table_of(&store, family), 0, 1);
        assert!(work(&store), "{name} reads the damage");
        let told = store.trouble().borrow().clone();
        assert!(matches!(told, Some(Trouble::Damaged(_))), "{name} tells of it");
    }
}
