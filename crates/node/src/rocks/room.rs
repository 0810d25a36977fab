//! Whether there is room on the disk for more data.
//!
//! Data writes are refused before the disk is full, while nothing of them is kept yet. What is kept free
//! is for what must go on without them: writing out what lies in memory and in the log, votes, the
//! bookkeeping of files, and the next start, which replays the log. They are taken again when there is a
//! quarter more than that, so that a disk at the brink doesn't go back and forth.
//!
//! The disk is looked at once a second or so. Between two looks no more is taken than there was room
//! for at the last one, so it is only others that can use up the reserve.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

const MIB: u64 = 1 << 20;
/// The least that is kept free: votes and bookkeeping, also on the tiniest disk.
const RESERVE_MIN: u64 = 16 * MIB;
/// The most, beside what memory holds: a few tables under way. More would only lie idle.
const RESERVE_MAX: u64 = 1024 * MIB;
/// Between these, this part of the disk: a twentieth, as file systems keep for their own administrators.
const RESERVE_PART: u64 = 20;
/// What is written goes to the log first, and once more to a table.
const COPIES: u64 = 2;

/// What is seen of the disk at one moment, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) total: u64,
    pub(super) free: u64,
    /// What lies in memory and has yet to be written to tables.
    pub(super) unwritten: u64,
}

/// What a look has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// From here on data writes are refused.
    Full,
    /// From here on they are taken again.
    Room,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Room {
    is_full: AtomicBool,
    /// A write failed for want of room, and none has succeeded since.
    has_failed: AtomicBool,
    /// What may be taken before the next look.
    left: AtomicI64,
}

impl Room {
    /// As much as one wants, until the first look.
    pub(super) fn new() -> Self {
        let (is_full, has_failed) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { is_full, has_failed, left: AtomicI64::new(i64::MAX) }
    }

    /// Takes room for a data write of so many bytes; false if there is none.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let bytes = i64::try_from(bytes as u64 * COPIES).unwrap_or(i64::MAX);
        !self.is_full.load(Ordering::Relaxed)
            && self.left.fetch_sub(bytes, Ordering::Relaxed) >= bytes
    }

    /// Whether data writes are refused.
    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// The disk was looked at.
    pub(super) fn looked(&self, look: Look) -> Option<Change> {
        let was_full = self.is_full.load(Ordering::Relaxed);
        let needed = if was_full { look.enough() } else { look.reserve() };
        let is_full = look.free < needed || self.has_failed();
        let left = look.free.saturating_sub(look.reserve());
        self.left.store(i64::try_from(left).unwrap_or(i64::MAX), Ordering::Relaxed);
        self.is_full.store(is_full, Ordering::Relaxed);
        match (was_full, is_full) {
            (false, true) => Some(Change::Full),
            (true, false) => Some(Change::Room),
            _ => None,
        }
    }

    /// A write failed for want of room: whatever the last look showed, there is none.
    pub(super) fn ran_out(&self) {
        self.has_failed.store(true, Ordering::Relaxed);
        self.is_full.store(true, Ordering::Relaxed);
    }

    /// Whether a write has failed and none has succeeded since. Then the store must show that it writes
    /// again before data is taken.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// It has.
    pub(super) fn writes_again(&self) {
        self.has_failed.store(false, Ordering::Relaxed);
    }
}

impl Look {
    /// What is kept free.
    pub(super) fn reserve(&self) -> u64 {
        let part = (self.total / RESERVE_PART).clamp(RESERVE_MIN, RESERVE_MAX);
        part.saturating_add(self.unwritten)
    }

    /// From how much on data is taken again.
    pub(super) fn enough(&self) -> u64 {
        let reserve = self.reserve();
        reserve.saturating_add(reserve / 4)
    }
}

/// Whether the sentence of an error is about a disk, or a quota of it, that is full. RocksDB's C
/// interface hands on nothing but the sentence.
pub(super) fn is_no_space(sentence: &str) -> bool {
    ["No space left on device", "Disk quota exceeded"].iter().any(|words| sentence.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1024 * MIB;

    fn look(total: u64, free: u64) -> Look {
        Look { total, free, unwritten: 0 }
    }

    #[test]
    fn the_reserve_suits_small_disks_and_large_ones() {
        assert_eq!(look(200 * MIB, 0).reserve(), 16 * MIB);
        assert_eq!(look(10 * GIB, 0).reserve(), 512 * MIB);
        assert_eq!(look(4096 * GIB, 0).reserve(), GIB);
        let look = Look { total: 200 * MIB, free: 0, unwritten: 64 * MIB };
        assert_eq!(look.reserve(), 80 * MIB, "what is in memory has a place to go");
    }

    #[test]
    fn it_is_full_before_the_disk_is_and_takes_more_only_with_some_to_spare() {
        let room = Room::new();
        assert_eq!(room.looked(look(200 * MIB, 100 * MIB)), None);
        assert!(room.take(1));
        assert_eq!(room.looked(look(200 * MIB, 16 * MIB - 1)), Some(Change::Full));
        assert!(!room.take(1));
        assert_eq!(room.looked(look(200 * MIB, 19 * MIB)), None, "too little to begin again");
        assert!(!room.take(1));
        assert_eq!(room.looked(look(200 * MIB, 20 * MIB)), Some(Change::Room));
        assert!(room.take(1));
    }

    #[test]
    fn between_two_looks_no_more_is_taken_than_there_was_room_for() {
        let room = Room::new();
        assert_eq!(room.looked(look(200 * MIB, 36 * MIB)), None);
        let taken = (0..100).filter(|_| room.take(MIB as usize)).count();
        assert_eq!(taken, 10, "20 MiB to spare, and each is written twice");
        assert_eq!(room.looked(look(200 * MIB, 36 * MIB)), None);
        assert!(room.take(MIB as usize));
    }

    #[test]
    fn after_a_failure_room_alone_is_not_enough() {
        let room = Room::new();
        room.ran_out();
        assert!(!room.take(1));
        assert_eq!(room.looked(look(200 * MIB, 100 * MIB)), None);
        assert!(!room.take(1));
        room.writes_again();
        assert_eq!(room.looked(look(200 * MIB, 100 * MIB)), Some(Change::Room));
        assert!(room.take(1));
    }

    #[test]
    fn a_full_disk_is_told_by_the_sentence() {
        assert!(is_no_space(
            "IO error: No space left on device: While appending to file: db/4.log"
        ));
        assert!(!is_no_space("IO error: Input/output error: While pread"));
    }
}
