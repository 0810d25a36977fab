//! Writes, what they delete for good, and whether that stays so.

use std::{collections::BTreeSet, time::Duration};

use anello_protocol::{
    causality::{Context, Dot},
    key::DataKey,
    time::HybridTime,
    version::{ConflictRule, Version, Versions},
};

use super::{
    bench::{config, version},
    fleet::{Event, Fleet, Issued},
};

impl Fleet {
    /// A client's write, coordinated by a replica: the version, which that replica holds.
    pub(super) fn write(
        &mut self,
        at: usize,
        key: &DataKey,
        past: Context,
        delete: bool,
    ) -> Versions {
        let held = self.held(at, key);
        let time = HybridTime::after(held.latest(), self.clock(at).wall_ms);
        let number = self.next_version;
        self.next_version += 1;
        let past = match self.rule {
            ConflictRule::Siblings => past,
            ConflictRule::Lww => Context::new(),
        };
        let new = version(number, past, time, (!delete).then_some("v"));
        let history = self.history.entry(key.clone()).or_default();
        if delete {
            let is_victim = |Issued { dot, rank }: &&Issued| match self.rule {
                ConflictRule::Siblings => new.past.covers(*dot),
                ConflictRule::Lww => *rank < (new.time, new.dot),
            };
            let victims = history.iter().filter(is_victim).map(|issued| issued.dot).collect();
            self.victims.insert(new.dot, victims);
        }
        history.push(Issued { dot: new.dot, rank: (new.time, new.dot) });
        let versions = Versions::from(new);
        self.join(at, key, versions.clone());
        versions
    }

    /// Something is being forgotten: its victims have to be extinct, and everybody asked.
    pub(super) fn judge(&mut self, key: &DataKey, tombstones: &Versions) {
        self.forgotten += 1;
        let of = |version: &Version| self.victims[&version.dot].clone();
        let victims: BTreeSet<Dot> = tombstones.iter().flat_map(of).collect();
        let has_some = |versions: &Versions| versions.iter().any(|it| victims.contains(&it.dot));
        for node in &self.nodes {
            let held = node.data.get(key).is_some_and(has_some);
            assert!(!held, "{} holds a victim of what is purged", node.id);
            let mut hints = node.hints.iter().filter(|((_, hint), _)| hint == key);
            assert!(!hints.any(|(_, kept)| has_some(kept)), "a hint at {} is one", node.id);
            let longest = 2 * config().settle + 4 * config().persistence;
            let away = self.now - if node.is_up { self.now } else { node.last_up };
            assert!(Duration::from_micros(away) < longest, "{} was not asked", node.id);
        }
        for event in self.events.values() {
            let is_one = match event {
                Event::Store { key: other, versions, .. }
                | Event::Hint { key: other, versions, .. } => other == key && has_some(versions),
                _ => false,
            };
            assert!(!is_one, "a victim of what is purged is on its way: {event:?}");
        }
    }

    /// What is left once all is over: nothing deleted, and the same everywhere.
    pub(super) fn assert_settled(&self) {
        for key in self.history.keys() {
            let first = self.held(self.replicas[0], key);
            assert!(!first.is_deleted(), "a tombstone stays for ever");
            for at in &self.replicas {
                assert_eq!(self.held(*at, key), first, "{} differs", self.nodes[*at].id);
            }
        }
        for node in &self.nodes {
            assert!(node.hints.is_empty(), "{} keeps hints", node.id);
        }
    }
}
