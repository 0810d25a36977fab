//! A damaged store is set aside, and an empty one comes in its place.
//!
//! ```text
//! data_dir/
//!   damage.toml    a store is damaged; written before anything else is done about it, removed at the end
//!   db.damaged-1   the first store that was; never changed, never deleted by the node
//!   db.fresh       the one that is to replace it, as long as it isn't complete
//! ```
//!
//! A node that is killed on the way goes on from where it was: each step shows in what is there. Every vnode
//! of the new store begins a new incarnation, because it holds no vnode's record. It keeps the
//! membership record, as it is where the whole log could be read; else without its votes, which may have been
//! others; and where there is none, it asks the cluster as a node without a disk does, and never founds one.
//! What else can be read is [`crate::salvage`]d while the node serves.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anello_replica::hints::store as shelf;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    config::Durability,
    data_dir::{DataDir, STORE, write_whole},
    node::StartError,
    rocks::{Belonging, OpenError, Replacement, RocksStore, Trouble, Wreck},
    steward::Memory,
};

const DAMAGE: &str = "damage.toml";
const FRESH: &str = "db.fresh";
const ASIDE: &str = "db.damaged-";

/// Why a damaged store can't be replaced. The next start tries again.
#[derive(Debug, Error)]
pub enum MendError {
    /// The file system failed.
    #[error("data directory {path}: a damaged store can't be set aside: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// The note of the damage can't be read.
    #[error(
        "{path}: not a note of this version of Anello: {reason}; remove the file to have the store looked at anew"
    )]
    BadNote {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The new store can't be made.
    #[error(transparent)]
    Store(#[from] OpenError),
}

/// The note that a store is damaged.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Damage {
    /// Where the store goes.
    aside: String,
    /// What RocksDB says.
    what: String,
}

/// The node's store, and all that a start reads of it.
pub(crate) struct Opened {
    pub(crate) store: Arc<RocksStore>,
    /// Whether nothing has ever been written to it.
    pub(crate) is_empty: bool,
    pub(crate) replacement: Option<Replacement>,
    pub(crate) memory: Memory,
}

impl Opened {
    fn read(store: &Arc<RocksStore>) -> Result<Self, String> {
        Ok(Self {
            is_empty: store.is_empty()?,
            replacement: store.replacement()?,
            memory: Memory {
                shelved: shelf::HintShelf::load(&**store).map_err(|error| error.to_string())?,
                last_alive: store.last_alive()?,
                was_restored: store.was_restored()?,
                was_lost: store.was_lost()?,
            },
            store: Arc::clone(store),
        })
    }
}

/// Opens the node's store. One that is damaged is set aside first.
pub(crate) fn open_store(
    data_dir: &DataDir,
    durability: Durability,
    partitions: u32,
) -> Result<Opened, StartError> {
    let dir = data_dir.path();
    if is_noted(dir) {
        mend(dir, durability, partitions)?;
    }
    match look(data_dir, durability, partitions) {
        // A directory without an identity is not known to be this node's, nor to have held anything.
        Err(Look::Damaged(what)) if !data_dir.is_new() => {
            tracing::error!("the store is damaged: {what}");
            note(dir, &what)?;
            mend(dir, durability, partitions)?;
            look(data_dir, durability, partitions).map_err(Look::into_error)
        }
        looked => looked.map_err(Look::into_error),
    }
}

/// What stands in the way of a store.
enum Look {
    Damaged(String),
    Failed(StartError),
}

impl Look {
    fn into_error(self) -> StartError {
        match self {
            Self::Damaged(what) => StartError::Broken(format!("the store is damaged: {what}")),
            Self::Failed(error) => error,
        }
    }
}

/// Opens it, and reads all that a start reads, so that damage there is found while the store can be replaced.
fn look(data_dir: &DataDir, durability: Durability, partitions: u32) -> Result<Opened, Look> {
    let store = match RocksStore::open(&data_dir.store(), durability, partitions) {
        Ok(store) => Arc::new(store),
        Err(OpenError::Corrupt { reason, .. }) => return Err(Look::Damaged(reason)),
        Err(error) => return Err(Look::Failed(error.into())),
    };
    let looked = Opened::read(&store);
    if let Some(Trouble::Damaged(what)) = &*store.trouble().borrow() {
        return Err(Look::Damaged(what.clone()));
    }
    looked.map_err(|reason| Look::Failed(StartError::Broken(reason)))
}

/// Whether a store is damaged and has yet to be replaced.
pub(crate) fn is_noted(dir: &Path) -> bool {
    dir.join(DAMAGE).exists()
}

/// Notes that the store is damaged, so that whatever happens next, it is not used again.
pub(crate) fn note(dir: &Path, what: &str) -> Result<(), MendError> {
    if is_noted(dir) {
        return Ok(());
    }
    let io = |source| MendError::Io { path: dir.into(), source };
    let damage = Damage { aside: free_name(dir).map_err(io)?, what: what.into() };
    let text = toml::to_string(&damage).expect("two sentences make a table");
    write_whole(dir, DAMAGE, text.as_bytes()).map_err(io)
}

/// The first name for a damaged store that isn't taken.
fn free_name(dir: &Path) -> io::Result<String> {
    let mut last = 0;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(ASIDE)?.parse::<u64>().ok());
        last = last.max(number.unwrap_or_default());
    }
    Ok(format!("{ASIDE}{}", last + 1))
}

/// Sets the store aside that is noted to be damaged, and makes another in its place.
fn mend(dir: &Path, durability: Durability, partitions: u32) -> Result<(), MendError> {
    let io = |source| MendError::Io { path: dir.into(), source };
    let text = fs::read_to_string(dir.join(DAMAGE)).map_err(io)?;
    let damage: Damage = toml::from_str(&text).map_err(|error| MendError::BadNote {
        path: dir.join(DAMAGE),
        reason: error.message().replace('\n', ", "),
    })?;
    let (store, aside, fresh) = (dir.join(STORE), dir.join(&damage.aside), dir.join(FRESH));
    if !aside.exists() {
        fs::rename(&store, &aside).map_err(io)?;
        sync(dir).map_err(io)?;
    }
    if !store.exists() {
        if fresh.exists() {
            // It was being made when the process ended; nothing has been written to it but copies.
            fs::remove_dir_all(&fresh).map_err(io)?;
        }
        let (replacement, belonging) = kept(&aside, damage.aside);
        RocksStore::replace(&fresh, durability, partitions, &replacement, belonging.as_ref())?;
        fs::rename(&fresh, &store).map_err(io)?;
        sync(dir).map_err(io)?;
    }
    fs::remove_file(dir.join(DAMAGE)).map_err(io)?;
    sync(dir).map_err(io)?;
    tracing::warn!(
        "the damaged store ({}) was set aside as {}; an empty one is in its place, in which every vnode \
         begins a new incarnation",
        damage.what,
        aside.display()
    );
    Ok(())
}

/// What a new store takes over from a damaged one.
fn kept(aside: &Path, name: String) -> (Replacement, Option<Belonging>) {
    let mut damaged = Vec::new();
    let belonging = match Wreck::open(aside) {
        Ok(wreck) => {
            damaged = wreck.replacement().map(|before| before.damaged).unwrap_or_default();
            let belonging = wreck.belonging();
            match wreck.is_whole() {
                true => belonging,
                // An older one may have come to light, under which the node has voted since.
                false => belonging.and_then(|Belonging { membership, held }| {
                    let membership = anello_gossip::forget_votes(&membership)?;
                    Some(Belonging { membership, held })
                }),
            }
        }
        Err(reason) => {
            tracing::error!("nothing of {} can be read: {reason}", aside.display());
            None
        }
    };
    if belonging.is_none() {
        tracing::error!("the membership record can't be read: the cluster is asked for it");
    }
    damaged.push(name);
    (Replacement { damaged, lost_membership: belonging.is_none() }, belonging)
}

/// Makes what was renamed or removed in a directory durable.
fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use anello_gossip::MembershipStore;
    use anello_protocol::id::{KeyspaceId, PartitionId};
    use anello_replica::store::{Store, VnodeRecord};

    use super::*;
    use crate::{
        data_dir::tests::identity,
        rocks::tests::{
            damage::{keep_hint, table_of},
            disk, key, versions, write_with,
        },
    };

    const RECORD: VnodeRecord = VnodeRecord {
        incarnation: anello_protocol::causality::Incarnation(77),
        births_reserved: 1024,
    };

    /// A data directory whose store holds a key, a vnode's record and a membership record.
    fn used() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let mut data_dir = open_dir(&dir);
        let opened = open_store(&data_dir, Durability::Sync, 256).expect("opens");
        data_dir.adopt(opened.is_empty).expect("empty");
        write_with(&opened.store, &key(1, 1), versions(1, 10), Some(RECORD));
        let (told, outcome) = std::sync::mpsc::channel();
        opened.store.save(b"member".to_vec(), Box::new(move |saved| drop(told.send(saved))));
        assert_eq!(outcome.recv(), Ok(Ok(())));
        dir
    }

    fn open_dir(dir: &tempfile::TempDir) -> DataDir {
        DataDir::open(dir.path(), identity("n", "a")).expect("free")
    }

    /// What a mended directory is like, wherever the mending was cut off.
    fn check_mended(dir: &tempfile::TempDir) {
        let Opened { store, .. } =
            open_store(&open_dir(dir), Durability::Sync, 256).expect("opens");
        assert!(!is_noted(dir.path()));
        assert!(dir.path().join("db.damaged-1").exists() && !dir.path().join(FRESH).exists());
        assert!(!dir.path().join("db.damaged-2").exists(), "it is done once");
        assert_eq!(store.load(), Ok(Some(b"member".to_vec())), "it is the member that it was");
        let held = std::collections::BTreeSet::from([KeyspaceId(1)]);
        assert_eq!(store.held_keyspaces(), held, "it doesn't deny what is yet to be salvaged");
        let vnode = store.load_vnode(PartitionId(0));
        assert_eq!(vnode, Ok(None), "every vnode begins a new incarnation");
        let replacement = store.replacement().expect("read").expect("it replaces another");
        assert_eq!(replacement.damaged, ["db.damaged-1"]);
        assert!(!replacement.lost_membership);
        let wreck = Wreck::open(&dir.path().join("db.damaged-1")).expect("opens");
        assert_eq!(wreck.step(&[]).entries, [(key(1, 1), versions(1, 10))]);
    }

    #[test]
    fn a_mending_that_is_cut_off_goes_on_wherever_that_was() {
        type Cut = fn(&Path);
        let cuts: [(&str, Cut); 4] = [
            ("noted", |_| ()),
            ("set aside", |dir| {
                fs::rename(dir.join(STORE), dir.join("db.damaged-1")).expect("renamed");
            }),
            ("half made", |dir| {
                fs::rename(dir.join(STORE), dir.join("db.damaged-1")).expect("renamed");
                fs::create_dir(dir.join(FRESH)).expect("made");
                fs::write(dir.join(FRESH).join("CURRENT"), "MANIFEST-").expect("written");
            }),
            ("in place", |dir| {
                let note = fs::read(dir.join(DAMAGE)).expect("noted");
                mend(dir, Durability::Sync, 256).expect("mended");
                fs::write(dir.join(DAMAGE), note).expect("written");
            }),
        ];
        for (name, cut) in cuts {
            println!("cut off when it was {name}");
            let dir = used();
            note(dir.path(), "a checksum differs").expect("noted");
            cut(dir.path());
            check_mended(&dir);
            check_mended(&dir);
        }
    }

    /// What comes to light behind a damaged log may be older than what the node has voted on since: such a
    /// record is not gone on from as it is, and this one can't be read any further.
    #[test]
    fn a_membership_record_from_behind_a_damaged_log_is_not_trusted() {
        let dir = used();
        let store =
            RocksStore::open(&dir.path().join(STORE), Durability::Sync, 256).expect("opens");
        for number in 2..66 {
            write_with(&store, &key(1, number), versions(number, 8_000), None);
        }
        drop(store);
        let log = disk::largest(&dir.path().join(STORE), "log");
        disk::damage(&log, 1, 2);
        let Opened { store, .. } =
            open_store(&open_dir(&dir), Durability::Sync, 256).expect("mended");
        assert_eq!(store.load(), Ok(None));
        let replacement = store.replacement().expect("read").expect("it replaces another");
        assert!(replacement.lost_membership);
    }

    #[test]
    fn a_store_that_is_damaged_again_before_it_is_salvaged_forgets_neither() {
        let dir = used();
        for _ in 0..2 {
            note(dir.path(), "a checksum differs").expect("noted");
            drop(open_store(&open_dir(&dir), Durability::Sync, 256).expect("mended"));
        }
        let Opened { store, .. } =
            open_store(&open_dir(&dir), Durability::Sync, 256).expect("opens");
        let replacement = store.replacement().expect("read").expect("it replaces others");
        assert_eq!(replacement.damaged, ["db.damaged-1", "db.damaged-2"]);
    }

    /// It would keep the node from starting for ever.
    #[test]
    fn damage_in_what_every_start_reads_is_mended() {
        for family in ["meta", "trees", "hints"] {
            let dir = used();
            let Opened { store, .. } =
                open_store(&open_dir(&dir), Durability::Sync, 256).expect("opens");
            keep_hint(&store);
            let table = table_of(&store, family);
            drop(store);
            disk::damage(&table, 0, 1);
            let mended = open_store(&open_dir(&dir), Durability::Sync, 256);
            assert!(mended.is_ok(), "{family}: {}", mended.err().expect("it failed"));
            assert!(dir.path().join("db.damaged-1").exists(), "{family}");
        }
    }

    #[test]
    fn what_is_no_damage_sets_nothing_aside() {
        let dir = used();
        let held = RocksStore::open(&dir.path().join(STORE), Durability::Sync, 256).expect("opens");
        let refused =
            open_store(&open_dir(&dir), Durability::Sync, 256).map(drop).expect_err("in use");
        assert!(matches!(refused, StartError::Store(OpenError::Database { .. })), "{refused}");
        drop(held);
        assert!(!is_noted(dir.path()) && !dir.path().join("db.damaged-1").exists());
        assert!(open_store(&open_dir(&dir), Durability::Sync, 256).is_ok());
    }
}
