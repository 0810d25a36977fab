//! The list of the keys of which nothing but tombstones is held.
//!
//! It changes in the same batch as the data, and only with writes to deleted keys.

use anello_antientropy::store::{Tombstone, TreeError};
use anello_protocol::{
    time::HybridTime,
    version::{Versions, VersionsDigest},
};
use anello_replica::store::Commit;

use super::{
    commit::Change,
    keys::{self, Family},
};

const FORMAT: u8 = 1;

/// What the list says of a key that holds these; nothing if it is not to be in it.
pub(super) fn encode(versions: &Versions) -> Option<Vec<u8>> {
    versions.is_deleted().then(|| {
        let (digest, latest) = (versions.digest().0, versions.latest().bits());
        [&[FORMAT][..], &digest.to_le_bytes(), &latest.to_le_bytes()].concat()
    })
}

/// What an entry of the list says.
pub(super) fn decode(at: &[u8], value: &[u8]) -> Result<Tombstone, TreeError> {
    let damaged = || TreeError(format!("the tombstone {} is damaged", at.escape_ascii()));
    let key = keys::data_key(at).ok_or_else(damaged)?;
    let (digest, latest) = match value.split_first() {
        Some((&FORMAT, rest)) => rest.split_first_chunk::<8>().ok_or_else(damaged)?,
        _ => return Err(damaged()),
    };
    let latest = u64::from_le_bytes(latest.try_into().map_err(|_| damaged())?);
    let digest = VersionsDigest(u64::from_le_bytes(*digest));
    Ok(Tombstone { key, digest, latest: HybridTime::from_bits(latest) })
}

/// How a commit changes the list.
pub(super) fn change(commit: &Commit) -> Option<Change> {
    let value = encode(&commit.versions);
    let changes = value.is_some() || commit.replaced.is_deleted;
    changes.then(|| Change { family: Family::Tombstones, key: keys::data(&commit.key), value })
}
