//! Why a store can't be opened, and reading what every start needs of it.
//!
//! Damage is told apart from all else that can go wrong, wherever an opening meets it: a damaged store is
//! replaced, and what can be read of it comes back.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anello_protocol::codec::DecodeError;
use rocksdb::{DB, Direction, ErrorKind, IteratorMode};
use thiserror::Error;

use super::{
    keys::{self, Family},
    leaves::{TreeId, Trees},
    room::is_no_space,
};

/// Why a store can't be opened; nothing in it was changed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// RocksDB won't open it.
    #[error("store {path}: {reason}")]
    Database {
        /// Where it is.
        path: PathBuf,
        /// What RocksDB says.
        reason: String,
    },
    /// Something of it reads back otherwise than it was written.
    #[error("store {path}: it is damaged: {reason}")]
    Corrupt {
        /// Where it is.
        path: PathBuf,
        /// What RocksDB says.
        reason: String,
    },
    /// Something of it can't be understood.
    #[error(
        "store {path}: the record {record:?} is damaged: {reason}; restore the data directory from a backup, or give the node an empty one"
    )]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// Which record.
        record: &'static str,
        /// What is wrong with it.
        reason: DecodeError,
    },
    /// One of its threads can't be started.
    #[error("can't start a thread of the store: {0}")]
    Thread(std::io::Error),
}

impl OpenError {
    /// What RocksDB says as a store is opened.
    pub(super) fn of(path: &Path, error: rocksdb::Error) -> Self {
        let (path, kind) = (path.into(), error.kind());
        let reason = error.into_string();
        match kind {
            ErrorKind::Corruption => Self::Corrupt { path, reason },
            _ => Self::Database { path, reason },
        }
    }

    /// Whether it could be opened if there were more room on the disk.
    pub(crate) fn is_no_space(&self) -> bool {
        matches!(self, Self::Database { reason, .. } if is_no_space(reason))
    }
}

/// The trees that are stored, and which of them can't be trusted.
pub(super) fn load_trees(
    db: &DB,
    path: &Path,
    partitions: u32,
) -> Result<(Trees, BTreeSet<TreeId>), OpenError> {
    let family = |family: Family| {
        db.cf_handle(family.name()).expect("every family is made when the store is opened")
    };
    let from = IteratorMode::From(keys::all_unsure(), Direction::Forward);
    let mut unsure = BTreeSet::new();
    for entry in db.iterator_cf(family(Family::Meta), from) {
        let (key, _) = entry.map_err(|error| OpenError::of(path, error))?;
        match keys::unsure_tree(&key) {
            Some(tree) => unsure.insert(tree),
            None => break,
        };
    }
    Ok((Trees::load(db, family(Family::Trees), path, &unsure, partitions)?, unsure))
}
