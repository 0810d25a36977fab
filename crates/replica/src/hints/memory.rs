//! A shelf in memory, for tests and for nodes that live as long as a test.
//!
//! Changes are kept on the spot, on the caller's thread. Nothing outlives the last [`std::sync::Arc`].

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anello_protocol::{id::NodeId, key::DataKey};

use super::store::{Hint, HintChange, HintShelf, HintTotals, Shelved};
use crate::store::{CommitDone, NotTaken, StoreError, VnodeRecord};

/// See the head of this file.
#[derive(Debug, Default)]
pub struct MemoryShelf {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    hints: BTreeMap<(NodeId, DataKey), Hint>,
    order: BTreeMap<(NodeId, u64), DataKey>,
    record: Option<VnodeRecord>,
}

impl MemoryShelf {
    /// An empty shelf.
    pub fn new() -> Self {
        Self::default()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while it holds the lock.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HintShelf for MemoryShelf {
    fn read(&self, owner: &NodeId, key: &DataKey) -> Result<Option<Hint>, StoreError> {
        Ok(self.kept().hints.get(&(owner.clone(), key.clone())).cloned())
    }

    fn page(
        &self,
        owner: &NodeId,
        from: u64,
        count: usize,
        bytes: usize,
    ) -> Result<Vec<(DataKey, Hint)>, StoreError> {
        let kept = self.kept();
        let mut page: Vec<(DataKey, Hint)> = Vec::new();
        let mut weight = 0;
        for (_, key) in kept.order.range((owner.clone(), from)..=(owner.clone(), u64::MAX)) {
            let Some(hint) = kept.hints.get(&(owner.clone(), key.clone())) else { continue };
            weight += hint.weight(key);
            if page.len() >= count || (weight > bytes as u64 && !page.is_empty()) {
                break;
            }
            page.push((key.clone(), hint.clone()));
        }
        Ok(page)
    }

    fn commit(&self, change: HintChange, done: CommitDone) -> Result<(), NotTaken> {
        {
            let HintChange { owner, key, hint, removed, record } = change;
            let mut kept = self.kept();
            if let Some(number) = removed {
                kept.order.remove(&(owner.clone(), number));
            }
            match hint {
                Some(hint) => {
                    kept.order.insert((owner.clone(), hint.number), key.clone());
                    kept.hints.insert((owner, key), hint);
                }
                None => {
                    kept.hints.remove(&(owner, key));
                }
            }
            kept.record = record.or(kept.record);
        }
        done(Ok(()));
        Ok(())
    }

    fn load(&self) -> Result<Shelved, StoreError> {
        let kept = self.kept();
        let mut owners: BTreeMap<NodeId, HintTotals> = BTreeMap::new();
        for ((owner, key), hint) in &kept.hints {
            let totals = owners.entry(owner.clone()).or_default();
            totals.oldest_ms = match totals.count {
                0 => hint.since_ms,
                _ => totals.oldest_ms.min(hint.since_ms),
            };
            totals.count += 1;
            totals.bytes += hint.weight(key);
            totals.last_number = totals.last_number.max(hint.number);
        }
        Ok(Shelved { owners: owners.into_iter().collect(), record: kept.record })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::hints::conformance;

    #[test]
    fn is_a_shelf() {
        conformance::check(|| Arc::new(MemoryShelf::new()));
    }

    #[test]
    fn outlives_its_references() {
        let shelf = Arc::new(MemoryShelf::new());
        conformance::check_reopening(|| shelf.clone());
    }
}
