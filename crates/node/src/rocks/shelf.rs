//! The port of the hints: one entry for each owner and key, and beside it its place in the order in which
//! they are delivered.
//!
//! Invariant: every hint has exactly one place, and every place its hint; both change in one batch, with
//! the hint store's record. All that must be known at a start is in the places, which are small.

#[cfg(test)]
mod tests;

use anello_protocol::{
    codec::{DecodeError, decode_stored, encode_stored},
    id::NodeId,
    key::DataKey,
};
use anello_replica::{
    hints::store::{Hint, HintChange, HintShelf, HintTotals, Shelved},
    store::{CommitDone, NotTaken, StoreError},
};
use rocksdb::ReadOptions;
use serde::{Deserialize, Serialize};

use super::{
    commit::{Change, Flag},
    keys::{self, Family},
    store::RocksStore,
};

/// Whose place in the order it is, and what has to be known of the hint without reading it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    key: DataKey,
    bytes: u64,
    since_ms: u64,
}

impl HintShelf for RocksStore {
    fn read(&self, owner: &NodeId, key: &DataKey) -> Result<Option<Hint>, StoreError> {
        let bytes = self.shared().get(Family::Hints, &keys::hint(owner, key)).map_err(failed)?;
        bytes.map(|bytes| decode_stored(&bytes).map_err(damaged)).transpose()
    }

    fn page(
        &self,
        owner: &NodeId,
        from: u64,
        count: usize,
        bytes: usize,
    ) -> Result<Vec<(DataKey, Hint)>, StoreError> {
        let shared = self.shared();
        // A hint and its place are of one moment.
        let snapshot = shared.db.snapshot();
        let family = shared.family(Family::Hints);
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound([&*keys::hint_place(owner, u64::MAX), &[0]].concat());
        let mut places = snapshot.raw_iterator_cf_opt(family, options);
        places.seek(keys::hint_place(owner, from));
        let mut hints = Vec::new();
        let mut taken = 0;
        while hints.len() < count
            && taken < bytes.max(1)
            && let Some(place) = places.value()
        {
            let place: Place = decode_stored(place).map_err(damaged)?;
            let hint = snapshot.get_pinned_cf(family, keys::hint(owner, &place.key));
            places.next();
            let Some(hint) = hint.map_err(|error| shared.read_failed(error))? else {
                // The trees find what the owner misses. To stop here would cost it all that comes after.
                tracing::warn!(%owner, "the hint of {:?} is gone", place.key);
                continue;
            };
            taken = taken.saturating_add(usize::try_from(place.bytes).unwrap_or(usize::MAX));
            hints.push((place.key, decode_stored(&hint).map_err(damaged)?));
        }
        places.status().map_err(|error| shared.read_failed(error))?;
        Ok(hints)
    }

    fn commit(&self, change: HintChange, done: CommitDone) -> Result<(), NotTaken> {
        let HintChange { owner, key, hint, removed, record } = change;
        let place = |number| keys::hint_place(&owner, number);
        let of = |family, key, value| Change { family, key, value };
        let mut changes = Vec::with_capacity(3);
        if let Some(number) = removed {
            changes.push(of(Family::Hints, place(number), None));
        }
        let value = hint.as_ref().map(encode_stored);
        changes.push(of(Family::Hints, keys::hint(&owner, &key), value));
        if let Some(hint) = hint {
            let Hint { number, since_ms, .. } = hint;
            let value = encode_stored(&Place { bytes: hint.weight(&key), key, since_ms });
            changes.push(of(Family::Hints, place(number), Some(value)));
        }
        if let Some(record) = record {
            let value = Some(encode_stored(&record));
            changes.push(of(Family::Meta, keys::HINT_STORE.to_vec(), value));
        }
        let done = Box::new(|outcome: Result<(), String>| done(outcome.map_err(StoreError)));
        self.submit(changes, Flag::Unconcerned, done)
    }

    fn load(&self) -> Result<Shelved, StoreError> {
        let shared = self.shared();
        let record = shared.get(Family::Meta, keys::HINT_STORE).map_err(failed)?;
        let record = record.map(|bytes| decode_stored(&bytes).map_err(damaged)).transpose()?;
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mut places = shared.db.raw_iterator_cf_opt(shared.family(Family::Hints), options);
        places.seek(keys::all_hint_places());
        let mut owners: Vec<(NodeId, HintTotals)> = Vec::new();
        while let Some((at, place)) = places.item() {
            let Some((owner, number)) = keys::hint_place_at(at) else {
                let at = at.escape_ascii();
                return Err(StoreError(format!("the key {at} of a hint's place is damaged")));
            };
            let place: Place = decode_stored(place).map_err(damaged)?;
            if owners.last().is_none_or(|(last, _)| *last != owner) {
                let totals = HintTotals { oldest_ms: place.since_ms, ..HintTotals::default() };
                owners.push((owner, totals));
            }
            let (_, totals) = owners.last_mut().expect("one was pushed if there was none");
            totals.count += 1;
            totals.bytes += place.bytes;
            totals.oldest_ms = totals.oldest_ms.min(place.since_ms);
            totals.last_number = number;
            places.next();
        }
        places.status().map_err(|error| shared.read_failed(error))?;
        Ok(Shelved { owners, record })
    }
}

fn failed(error: rocksdb::Error) -> StoreError {
    StoreError(error.into_string())
}

fn damaged(reason: DecodeError) -> StoreError {
    StoreError(format!("a hint is damaged: {reason}"))
}
