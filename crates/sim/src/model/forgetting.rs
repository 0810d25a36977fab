//! Tombstones that were forgotten, and what they had deleted: from the moment at which the first node forgets
//! one, no node may keep, and no read show, any of that.
//!
//! A version is known by its dot, so what a client writes anew, be it the same write, is another.

use std::{collections::BTreeSet, time::Duration};

use anello_protocol::{
    causality::Dot,
    id::NodeId,
    key::DataKey,
    time::Moment,
    version::{ConflictRule, Content, Version, Versions},
};

use super::{Fate, Model, ReadSeen, Written, reads::dots_of};

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    grace: Option<Duration>,
    /// What was deleted by a tombstone that was forgotten.
    victims: BTreeSet<(DataKey, Dot)>,
    /// The tombstones.
    tombstones: BTreeSet<(DataKey, Dot)>,
}

impl Forgotten {
    pub(super) fn new(grace: Option<Duration>) -> Self {
        Self { grace, ..Self::default() }
    }
}

impl Model {
    /// A node has forgotten a key of which it held these versions, when it was so late in truth. One whose disk
    /// was put back from a copy may forget what it alone has held for longer than the grace, if nobody was
    /// told that it was written.
    pub fn purged(
        &mut self,
        (node, was_restored): (&NodeId, bool),
        key: &DataKey,
        held: &Versions,
        (at, wall_ms): (Moment, u64),
    ) {
        for version in held {
            let place = (key.clone(), version.dot);
            if !version.is_tombstone() {
                let write = self.writes.get(&version.write_id);
                let is_told = write.is_none_or(|it| matches!(it.fate, Fate::Acknowledged { .. }));
                let may_go = was_restored && !is_told;
                if !may_go && !self.forgotten.victims.contains(&place) {
                    let what = format!("{node} forgot {:?}, which is no tombstone", version.dot);
                    self.report("A: only tombstones are forgotten", at, what);
                }
                continue;
            }
            let age = Duration::from_millis(wall_ms.saturating_sub(version.time.wall_ms()));
            // A clock that is a little ahead, within the time that its node may count in logical steps.
            let slack = Duration::from_millis(10);
            if self.forgotten.grace.is_some_and(|grace| age + slack < grace) {
                let what = format!("{node} forgot a tombstone of {age:?}: {:?}", version.dot);
                self.report("B: a tombstone stays for the grace", at, what);
            }
            let id = version.write_id;
            let rule = self.writes.get(&id).map(|write| write.rule).unwrap_or_default();
            let victims: Vec<Dot> = match rule {
                ConflictRule::Siblings => dots_of(&version.past).collect(),
                ConflictRule::Lww => self.outranked(key, version),
            };
            let of_key = victims.into_iter().map(|dot| (key.clone(), dot));
            self.forgotten.victims.extend(of_key);
            self.forgotten.tombstones.insert(place);
        }
    }

    /// Whether a write can be missing because it was deleted and forgotten, or is a forgotten tombstone.
    pub(super) fn is_forgotten(&self, write: &Written) -> bool {
        write.issued.keys().any(|dot| {
            let place = (write.key.clone(), *dot);
            self.forgotten.victims.contains(&place) || self.forgotten.tombstones.contains(&place)
        })
    }

    /// What every node holds, at a time when all is said to be mended.
    pub fn check_held(&mut self, node: &NodeId, key: &DataKey, held: &Versions, at: Moment) {
        for version in held {
            self.check_extinct(node, key, version, at);
        }
    }

    pub(super) fn check_extinct(
        &mut self,
        node: &NodeId,
        key: &DataKey,
        version: &Version,
        at: Moment,
    ) {
        if self.forgotten.victims.contains(&(key.clone(), version.dot)) {
            let what = format!("{node} keeps {:?}, which was deleted and forgotten", version.dot);
            self.report("B: the deleted stay deleted", at, what);
        }
    }

    /// Nothing is shown of which every version was deleted and forgotten.
    pub(super) fn check_deleted(&mut self, read: &ReadSeen<'_>) {
        let is_victim = |dot: &Dot| self.forgotten.victims.contains(&(read.key.clone(), *dot));
        let shown = |write: &Written| {
            matches!(write.content, Content::Value(_)) && read.shown.contains(&write.content)
        };
        let back = self.writes_of(read.key).filter(|(_, write)| {
            shown(write) && !write.issued.is_empty() && write.issued.keys().all(is_victim)
        });
        let back: Vec<_> = back.map(|(id, _)| id).collect();
        for id in back {
            let what = format!("{id:?} was deleted and forgotten, and is shown");
            self.report("B: the deleted stay deleted", read.at, what);
        }
    }

    /// What of a key is known to have been issued and is less than this version.
    fn outranked(&self, key: &DataKey, version: &Version) -> Vec<Dot> {
        let issued = self.writes_of(key).flat_map(|(_, write)| &write.issued);
        let less =
            issued.filter(|(dot, issued)| (issued.time, **dot) < (version.time, version.dot));
        less.map(|(dot, _)| *dot).collect()
    }
}
