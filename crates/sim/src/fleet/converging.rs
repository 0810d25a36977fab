//! Whether the replicas have become equal, as the disks say; whether repair has come to an end; and whether
//! the trees are what their data says.

use std::collections::BTreeSet;

use anello_protocol::key::DataKey;

use super::Fleet;

impl Fleet {
    /// What differs between replicas of a key, or is still kept for one; nothing if they are equal.
    pub(super) fn differing(&self) -> Option<String> {
        for slot in &self.slots {
            if let Some((owner, key, _)) = slot.node.disk.hints().next() {
                let keeper = slot.node.id();
                return Some(format!("{keeper} keeps a hint of {:?} for {owner}", key.key));
            }
        }
        let keys: BTreeSet<DataKey> = self.held_keys();
        keys.into_iter().find_map(|key| {
            let replicas = self.replicas_of(&key);
            let mut held = Vec::new();
            for slot in &self.slots {
                if replicas.contains(slot.node.id()) {
                    held.push((slot.node.id(), slot.node.disk.read(&key)));
                }
            }
            // A tombstone that some have forgotten already is no difference.
            let forgets = self.bounds.grace.is_some();
            let is_passing = forgets
                && held.iter().all(|(_, versions)| versions.is_empty() || versions.is_deleted());
            let is_equal = held.windows(2).all(|two| two[0].1.digest() == two[1].1.digest());
            (!is_equal && !is_passing).then(|| {
                let said = held.iter().map(|(node, versions)| {
                    let ids: Vec<_> =
                        versions.iter().map(|version| (version.write_id, version.dot)).collect();
                    format!("{node}: {ids:?}")
                });
                format!("{:?}: {}", key.key, said.collect::<Vec<_>>().join("; "))
            })
        })
    }

    pub(super) fn say_what_differs(&mut self) {
        if let Some(what) = self.differing() {
            self.broke("C: replicas converge", what);
        }
    }

    /// Whether all tombstones are to go within the run.
    pub(super) fn forgets_all(&self) -> bool {
        self.bounds.grace.is_some() && !self.bounds.skews
    }

    /// How many keys of which nothing but tombstones is held there are on all disks together.
    pub(super) fn tombstones_left(&self) -> usize {
        let disks = self.stays().map(|node| self.slots[node].node.disk.data().values());
        disks.map(|held| held.filter(|versions| versions.is_deleted()).count()).sum()
    }

    /// What the disks hold after a time in which nobody wrote and nothing failed.
    pub(super) fn check_held(&mut self) {
        let now = self.schedule.now();
        // What is still on the disk of somebody who is out of the cluster is nobody's.
        for slot in self.stays().collect::<Vec<_>>() {
            let node = self.slots[slot].node.id().clone();
            let disk = &self.slots[slot].node.disk;
            let (wrong, untrusted) = (disk.wrong_trees(), disk.untrusted_trees());
            let data = disk.data().clone();
            if !wrong.is_empty() {
                let what = format!("{node}: the trees {wrong:?} are other than their data");
                self.broke("C: trees are what the data says", what);
            }
            if !untrusted.is_empty() {
                let what = format!("{node}: the trees {untrusted:?} are trusted by nobody");
                self.broke("C: trees are what the data says", what);
            }
            for (key, held) in &data {
                self.model.check_held(&node, key, held, now);
            }
        }
    }

    fn held_keys(&self) -> BTreeSet<DataKey> {
        let disks = self.slots.iter().map(|slot| slot.node.disk.data().keys());
        disks.flatten().cloned().collect()
    }
}
