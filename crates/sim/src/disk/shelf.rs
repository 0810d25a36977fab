//! Hints on a disk: one for each owner and key, in the order of their numbers for each owner.

use anello_protocol::{id::NodeId, key::DataKey};
use anello_replica::hints::store::{Hint, HintChange, HintTotals, Shelved};

use super::{Disk, DiskWrite, Fresh};

impl Disk {
    /// What is durably kept for an owner of a key.
    pub fn hint(&self, owner: &NodeId, key: &DataKey) -> Option<Hint> {
        self.kept.hints.get(&(owner.clone(), key.clone())).cloned()
    }

    /// How many hints there are, those included that are about to be durable.
    pub fn hints_left(&self) -> u64 {
        let is_hint = |write: &&DiskWrite| matches!(write, DiskWrite::Hint(_, change) if change.hint.is_some());
        let waiting = self.waiting.iter().filter(is_hint).count();
        (self.kept.hints.len() + waiting) as u64
    }

    /// All hints.
    pub fn hints(&self) -> impl Iterator<Item = (&NodeId, &DataKey, &Hint)> {
        self.kept.hints.iter().map(|((owner, key), hint)| (owner, key, hint))
    }

    /// The hints for an owner from a number on, in their order: at most so many, and no more once they
    /// have so many bytes, but one if there is any.
    pub fn hint_page(
        &self,
        owner: &NodeId,
        from: u64,
        count: usize,
        bytes: usize,
    ) -> Vec<(DataKey, Hint)> {
        let own = self.hints().filter(|(of, _, hint)| *of == owner && hint.number >= from);
        let mut own: Vec<_> = own.map(|(_, key, hint)| (key.clone(), hint.clone())).collect();
        own.sort_by_key(|(_, hint)| hint.number);
        let mut weight = 0;
        let fits = |(key, hint): &(DataKey, Hint)| {
            let goes_in = weight < bytes as u64;
            weight += hint.weight(key);
            goes_in
        };
        own.into_iter().take(count).take_while(fits).collect()
    }

    /// What the hint store finds when it starts.
    pub fn shelved(&self) -> Shelved {
        let mut shelved = Shelved { owners: Vec::new(), record: self.kept.hint_record };
        for (owner, key, hint) in self.hints() {
            if shelved.owners.last().is_none_or(|(last, _)| last != owner) {
                let oldest_ms = hint.since_ms;
                let totals = HintTotals { oldest_ms, ..HintTotals::default() };
                shelved.owners.push((owner.clone(), totals));
            }
            if let Some((_, totals)) = shelved.owners.last_mut() {
                totals.count += 1;
                totals.bytes += hint.weight(key);
                totals.oldest_ms = totals.oldest_ms.min(hint.since_ms);
                totals.last_number = totals.last_number.max(hint.number);
            }
        }
        shelved
    }

    pub(super) fn keep_hint(&mut self, change: &HintChange, fresh: &mut Vec<Fresh>) {
        let place = (change.owner.clone(), change.key.clone());
        match &change.hint {
            Some(hint) => {
                let before = self.kept.hints.insert(place, hint.clone());
                let known = before.map(|hint| hint.versions).unwrap_or_default();
                for version in hint.versions.iter() {
                    if !known.iter().any(|held| held == version) {
                        let (owner, key) = (change.owner.clone(), change.key.clone());
                        fresh.push(Fresh::Hint(owner, key, version.clone()));
                    }
                }
            }
            None => {
                self.kept.hints.remove(&place);
            }
        }
        if let Some(record) = change.record {
            self.kept.hint_record = Some(record);
        }
    }
}
