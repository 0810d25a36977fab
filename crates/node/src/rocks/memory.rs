//! What the node remembers from one life to the next, beside its data: when it was last alive, and whether
//! its store was lost, or put back from a copy, and has not been found in step with others since.

use anello_antientropy::quarantine::LastAlive;
use anello_protocol::codec::{decode_stored, encode_stored};

use super::{
    commit::{Change, Flag},
    keys::{self, Family},
    store::RocksStore,
};

impl RocksStore {
    /// When the node was last alive, if the store has been told.
    pub fn last_alive(&self) -> Result<Option<LastAlive>, String> {
        let bytes = self.shared().get(Family::Meta, keys::LAST_ALIVE);
        let bytes = bytes.map_err(|error| error.into_string())?;
        let last = bytes.map(|bytes| decode_stored::<(u64, u64)>(&bytes)).transpose();
        let last =
            last.map_err(|error| format!("the record \"last-alive\" is damaged: {error}"))?;
        Ok(last.map(|(alive_ms, contact_ms)| LastAlive { alive_ms, contact_ms }))
    }

    /// Whether the store was put back from a copy of its files.
    pub fn was_restored(&self) -> Result<bool, String> {
        let flag = self.shared().get(Family::Meta, keys::RESTORED);
        Ok(flag.map_err(|error| error.into_string())?.is_some())
    }

    /// Whether the node lost what it held, and has not been filled since.
    pub fn was_lost(&self) -> Result<bool, String> {
        let flag = self.shared().get(Family::Meta, keys::LOST);
        Ok(flag.map_err(|error| error.into_string())?.is_some())
    }

    /// What the node held is gone. Whatever is submitted later is durable later.
    pub fn note_lost(&self) {
        self.insist(vec![Change {
            family: Family::Meta,
            key: keys::LOST.to_vec(),
            value: Some(Vec::new()),
        }]);
    }

    /// Keeps when the node was last alive. It is said again soon, so nobody waits for it.
    pub fn note_alive(&self, last: LastAlive) {
        let value = encode_stored(&(last.alive_ms, last.contact_ms));
        self.note(keys::LAST_ALIVE, Some(value));
    }

    /// What the store holds has been found in step with others, wherever it came from.
    pub fn note_in_step(&self) {
        self.note(keys::RESTORED, None);
        self.note(keys::LOST, None);
    }

    fn note(&self, key: &[u8], value: Option<Vec<u8>>) {
        let changes = vec![Change { family: Family::Meta, key: key.to_vec(), value }];
        // What is lost makes the next start more careful than it need be.
        if let Err(refused) = self.submit(changes, Flag::Unconcerned, Box::new(|_| ())) {
            tracing::debug!("not noted: {refused}");
        }
    }
}
