//! What is known of the process that used the store before: whether its last writes can be trusted to
//! be there.
//!
//! With durability `os` an acknowledged write is in the page cache, which survives the end of the
//! process and not of the machine. A vnode must then not go on counting dots where its record says: it
//! may have issued more, that others have. So when the machine has restarted since, and the process did
//! not end cleanly, the vnodes' records are forgotten, and each begins a new incarnation.
//!
//! The same goes for a store that was put back from a copy of its files: it remembers less than its
//! vnodes have issued. A copy shows by where it lies, because its files are others than those that the
//! process before had open. What does not show is a whole volume set back to a snapshot of itself.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use serde::{Deserialize, Serialize};

/// Written at the start of a process, and again at its clean end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    /// Identifies the time from one start of the machine to the next.
    boot_id: String,
    /// Identifies the file that the database made at its birth and never writes again: device and inode.
    place: (u64, u64),
    /// Whether every acknowledged write was on disk.
    is_synced: bool,
    /// Whether it ended after all was written to disk.
    is_clean: bool,
}

impl Run {
    /// The process that begins, on the database in a directory.
    pub(super) fn beginning(database: &Path, is_synced: bool) -> io::Result<Self> {
        let birth = fs::metadata(database.join("IDENTITY"))?;
        // Where there is no boot id, every start counts as the machine's.
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot_id = boot_id.trim().into();
        let place = (birth.dev(), birth.ino());
        Ok(Self { boot_id, place, is_synced, is_clean: false })
    }

    /// The same, at its clean end.
    pub(super) fn ended(self) -> Self {
        Self { is_clean: true, ..self }
    }

    /// Whether this is a copy of the store that the process before had.
    pub(super) fn is_copy(&self, before: &Run) -> bool {
        self.place != before.place
    }

    /// Whether writes that the process before acknowledged may have gone with the machine.
    pub(super) fn may_have_lost(&self, before: &Run) -> bool {
        let same_boot = !self.boot_id.is_empty() && self.boot_id == before.boot_id;
        !before.is_synced && !before.is_clean && !same_boot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unsynced_run_that_the_machines_end_cut_off_may_have_lost_writes() {
        let run = |boot: &str, is_synced, is_clean| Run {
            boot_id: boot.into(),
            place: (1, 2),
            is_synced,
            is_clean,
        };
        let current = run("b", false, false);
        assert!(current.may_have_lost(&run("a", false, false)));
        assert!(!current.may_have_lost(&run("a", false, true)), "it ended cleanly");
        assert!(!current.may_have_lost(&run("a", true, false)), "all was on disk");
        assert!(!current.may_have_lost(&run("b", false, false)), "the page cache is still there");
        let unknown = run("", false, false);
        assert!(unknown.may_have_lost(&run("", false, false)), "nobody knows");
    }

    #[test]
    fn a_copy_is_told_from_what_it_was_copied_from() {
        let (original, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(original.path().join("IDENTITY"), "x").unwrap();
        fs::copy(original.path().join("IDENTITY"), copy.path().join("IDENTITY")).unwrap();
        let before = Run::beginning(original.path(), true).unwrap();
        assert!(!Run::beginning(original.path(), true).unwrap().is_copy(&before));
        assert!(Run::beginning(copy.path(), true).unwrap().is_copy(&before));
    }
}
