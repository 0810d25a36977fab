//! What was written lately, in memory: a write looks at what its key holds first, and most often that
//! was written not long ago.
//!
//! RocksDB has it in memory too, for a while. But its memtable is slow to search, and what has gone
//! from there to a file must be read from that file before it is in the cache of blocks.
//!
//! Invariant: what is here of a key is what its last durable commit left. So only the thread that
//! commits changes anything here, in the order of its commits; what was read is never put here, because
//! a commit may have overtaken the read.

use bytes::Bytes;
use quick_cache::{Weighter, sync::Cache};

use super::{
    commit::{Change, Submission},
    keeper::Upkeep,
    keys::Family,
};

/// Larger ones would push out many small ones, and are read from their file at little extra cost.
const MAX_BYTES: usize = 32 << 10;
/// What an entry takes beside its key and value.
const OVERHEAD_BYTES: usize = 96;
/// About what an entry takes, from which the table is sized.
const USUAL_BYTES: usize = 1 << 10;

/// See the head of this file.
pub(super) struct Recent(Cache<Vec<u8>, Bytes, Bytewise>);

#[derive(Clone)]
struct Bytewise;

impl Weighter<Vec<u8>, Bytes> for Bytewise {
    fn weight(&self, key: &Vec<u8>, value: &Bytes) -> u64 {
        (key.len() + value.len() + OVERHEAD_BYTES) as u64
    }
}

impl Recent {
    /// Of so many bytes at most.
    pub(super) fn new(bytes: usize) -> Self {
        Self(Cache::with_weighter(bytes / USUAL_BYTES, bytes as u64, Bytewise))
    }

    /// What the last durable commit left of a key in the column family of data, if it is here.
    pub(super) fn get(&self, at: &[u8]) -> Option<Bytes> {
        self.0.get(at)
    }

    /// A group was committed, or failed: then what its keys hold is for the disk to say. The hash space is
    /// cut into so many `partitions`.
    pub(super) fn committed(&self, group: &mut [Submission], partitions: u32, is_durable: bool) {
        for submission in group {
            if let Upkeep::Clear(clear) = &submission.upkeep
                && !clear.partitions.is_empty()
            {
                self.0.retain(|at, _| !clear.takes(at, partitions));
            }
            let changes = submission.changes.iter_mut();
            for change in changes.filter(|change| change.family == Family::Data) {
                self.changed(change, is_durable);
            }
        }
    }

    fn changed(&self, Change { key, value, .. }: &mut Change, is_durable: bool) {
        match value.take() {
            Some(value) if is_durable && value.len() <= MAX_BYTES => {
                self.0.insert(std::mem::take(key), value.into_boxed_slice().into());
            }
            _ => drop(self.0.remove(&**key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::commit::{Class, Flag},
        *,
    };

    fn commit(recent: &Recent, changes: &[(&[u8], Option<Vec<u8>>)], is_durable: bool) {
        let change = |(key, value): &(&[u8], Option<Vec<u8>>)| Change {
            family: Family::Data,
            key: key.to_vec(),
            value: value.clone(),
        };
        let mut group = [Submission {
            changes: changes.iter().map(change).collect(),
            upkeep: Upkeep::Nothing,
            flag: Flag::Unconcerned,
            class: Class::Data,
            done: Box::new(|_| ()),
        }];
        recent.committed(&mut group, 4, is_durable);
    }

    #[test]
    fn what_is_durable_is_here_until_it_goes() {
        let recent = Recent::new(1 << 20);
        commit(&recent, &[(b"a", Some(vec![1])), (b"b", Some(vec![2]))], true);
        commit(&recent, &[(b"a", Some(vec![3]))], true);
        assert_eq!(recent.get(b"a"), Some(Bytes::from_static(&[3])));
        commit(&recent, &[(b"a", None)], true);
        assert_eq!((recent.get(b"a"), recent.get(b"b")), (None, Some(Bytes::from_static(&[2]))));
    }

    #[test]
    fn after_a_failure_only_the_disk_knows() {
        let recent = Recent::new(1 << 20);
        commit(&recent, &[(b"a", Some(vec![1])), (b"b", Some(vec![2]))], true);
        commit(&recent, &[(b"a", Some(vec![3]))], false);
        assert_eq!((recent.get(b"a"), recent.get(b"b")), (None, Some(Bytes::from_static(&[2]))));
    }

    #[test]
    fn what_is_too_large_takes_the_place_of_nothing_and_leaves_nothing_stale() {
        let recent = Recent::new(1 << 20);
        commit(&recent, &[(b"a", Some(vec![1])), (b"b", Some(vec![2]))], true);
        commit(&recent, &[(b"a", Some(vec![0; MAX_BYTES + 1]))], true);
        assert_eq!((recent.get(b"a"), recent.get(b"b")), (None, Some(Bytes::from_static(&[2]))));
    }

    #[test]
    fn it_keeps_within_its_bound() {
        let recent = Recent::new(1 << 20);
        for number in 0..10_000_u32 {
            commit(&recent, &[(&number.to_be_bytes(), Some(vec![0; 1000]))], true);
        }
        assert!(recent.0.weight() <= 1 << 20 && recent.0.len() > 500, "{}", recent.0.len());
    }
}
