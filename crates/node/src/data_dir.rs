//! The data directory: one process at a time, and always the same node's.
//!
//! ```text
//! data_dir/
//!   LOCK           held locked while a process uses the directory
//!   identity.toml  whose data this is; written once, when the store exists
//!   db/            the store
//! ```
//!
//! A store without an identity, or an identity without a store, means that something was lost: the
//! node then refuses to start instead of serving as if it had been empty. What is there besides while a
//! damaged store is replaced, [`crate::mending`] says.

use std::{
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anello_protocol::id::{ClusterName, Datacenter, NodeId, Rack};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{config::Config, mending};

const LOCK: &str = "LOCK";
const IDENTITY: &str = "identity.toml";
pub(crate) const STORE: &str = "db";
const FORMAT: u32 = 1;

/// Why a data directory can't be used; nothing in it was changed.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// It, or what it is said to be below, is something else.
    #[error("data directory {0}: not a directory")]
    NotADirectory(PathBuf),
    /// Another process has it.
    #[error(
        "data directory {0}: another process uses it; stop that one, or give this node a directory of its own"
    )]
    InUse(PathBuf),
    /// It belongs to another node, or the node's settings were changed.
    #[error(
        "data directory {path}: {differences}; a node keeps these for the life of its data directory: correct the settings, or give the node an empty directory"
    )]
    OtherIdentity {
        /// The directory.
        path: PathBuf,
        /// What differs, and how.
        differences: String,
    },
    /// Its identity can't be read.
    #[error(
        "{path}: not an identity of this version of Anello: {reason}; restore the file from a backup, or give the node an empty directory"
    )]
    BadIdentity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is an identity and no store.
    #[error(
        "data directory {0}: it has an {IDENTITY} and no {STORE}: the node's data is gone; restore it from a backup, or remove the node and start one under another id with an empty directory"
    )]
    StoreGone(PathBuf),
    /// There is a store with something in it and no identity.
    #[error(
        "data directory {0}: it holds data and no {IDENTITY}; restore that file from a backup, or give the node an empty directory"
    )]
    IdentityGone(PathBuf),
    /// The file system failed.
    #[error("data directory {path}: {doing}: {source}")]
    Io {
        /// The directory or a file of it.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// How it failed.
        source: io::Error,
    },
}

/// Whose data a directory holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    format: u32,
    cluster: ClusterName,
    id: NodeId,
    datacenter: Datacenter,
    rack: Rack,
    partitions: u32,
}

impl Identity {
    /// Who the settings say that the node is.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            format: FORMAT,
            cluster: config.cluster.name.clone(),
            id: config.node.id.clone(),
            datacenter: config.node.datacenter.clone(),
            rack: config.node.rack.clone(),
            partitions: config.cluster.partitions,
        }
    }

    /// What differs, in words; nothing if nothing does.
    fn differences(&self, configured: &Identity) -> Option<String> {
        let compare = |key: &str, held: &dyn fmt::Display, configured: &dyn fmt::Display| {
            let (held, configured) = (held.to_string(), configured.to_string());
            (held != configured)
                .then(|| format!("it belongs to {key} {held:?}, the settings say {configured:?}"))
        };
        let differences = [
            compare("cluster.name", &self.cluster, &configured.cluster),
            compare("node.id", &self.id, &configured.id),
            compare("node.datacenter", &self.datacenter, &configured.datacenter),
            compare("node.rack", &self.rack, &configured.rack),
            compare("cluster.partitions", &self.partitions, &configured.partitions),
        ];
        let differences: Vec<_> = differences.into_iter().flatten().collect();
        (!differences.is_empty()).then(|| differences.join("; "))
    }
}

/// A data directory that this process, and no other, uses. Given back when dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    identity: Identity,
    is_new: bool,
    /// Locked until it is closed, also by the end of the process, however that comes.
    _lock: fs::File,
}

impl DataDir {
    /// Takes the directory for this process, making it if it isn't there.
    pub(crate) fn open(path: &Path, identity: Identity) -> Result<Self, DataDirError> {
        let io = |doing| move |source| DataDirError::Io { path: path.into(), doing, source };
        fs::create_dir_all(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                DataDirError::NotADirectory(path.into())
            }
            _ => io("can't be created")(error),
        })?;
        let lock = fs::File::create(path.join(LOCK)).map_err(io("can't write its lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(DataDirError::InUse(path.into())),
            Err(fs::TryLockError::Error(source)) => return Err(io("can't be locked")(source)),
        }
        let is_new = Self::check(path, &identity)?;
        Ok(Self { path: path.into(), identity, is_new, _lock: lock })
    }

    /// Looks whether the directory may be used by this node, changing nothing; says whether it has no
    /// identity yet.
    pub(crate) fn check(path: &Path, identity: &Identity) -> Result<bool, DataDirError> {
        let file = path.join(IDENTITY);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(DataDirError::NotADirectory(path.into()));
            }
            Err(source) => {
                return Err(DataDirError::Io { path: file, doing: "can't be read", source });
            }
        };
        let held: Identity = toml::from_str(&text).map_err(|error| DataDirError::BadIdentity {
            path: file.clone(),
            reason: error.message().replace('\n', ", "),
        })?;
        if held.format != FORMAT {
            let reason = format!("its format is {}, expected {FORMAT}", held.format);
            return Err(DataDirError::BadIdentity { path: file, reason });
        }
        if let Some(differences) = held.differences(identity) {
            return Err(DataDirError::OtherIdentity { path: path.into(), differences });
        }
        // RocksDB would quietly make an empty store where its file CURRENT is missing.
        if !path.join(STORE).join("CURRENT").exists() && !mending::is_noted(path) {
            return Err(DataDirError::StoreGone(path.into()));
        }
        Ok(false)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it has no identity yet.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Where the store is.
    pub(crate) fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// Writes down whose data this is from here on, once the store exists. `store_is_empty` guards
    /// against a directory that has lost its identity.
    pub(crate) fn adopt(&mut self, store_is_empty: bool) -> Result<(), DataDirError> {
        if !self.is_new {
            return Ok(());
        }
        if !store_is_empty {
            return Err(DataDirError::IdentityGone(self.path.clone()));
        }
        let text = toml::to_string(&self.identity).expect("names and numbers make a table");
        let io = |doing| {
            let path = self.path.clone();
            move |source| DataDirError::Io { path, doing, source }
        };
        write_whole(&self.path, IDENTITY, text.as_bytes())
            .map_err(io("can't write its identity"))?;
        self.is_new = false;
        Ok(())
    }
}

/// Writes a file so that after a crash it is there in full or not at all.
pub(crate) fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = dir.join(format!("{name}.draft"));
    let mut file = fs::File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, dir.join(name))?;
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn identity(id: &str, rack: &str) -> Identity {
        Identity {
            format: FORMAT,
            cluster: ClusterName::new("demo").expect("a name"),
            id: NodeId::new(id).expect("a name"),
            datacenter: Datacenter::new("eu").expect("a name"),
            rack: Rack::new(rack).expect("a name"),
            partitions: 64,
        }
    }

    /// A directory as a first start leaves it, the store's part played by one file.
    fn adopted() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let mut data = DataDir::open(dir.path(), identity("n", "a")).expect("free");
        assert!(data.is_new);
        fs::create_dir(data.store()).expect("created");
        fs::write(data.store().join("CURRENT"), "").expect("written");
        data.adopt(true).expect("empty");
        dir
    }

    #[test]
    fn a_second_process_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("not/yet/there");
        let first = DataDir::open(&path, identity("n", "a")).expect("free");
        let second = DataDir::open(&path, identity("n", "a")).expect_err("taken");
        assert_eq!(
            second.to_string(),
            format!(
                "data directory {}: another process uses it; stop that one, or give this node a \
                 directory of its own",
                path.display()
            )
        );
        drop(first);
        assert!(DataDir::open(&path, identity("n", "a")).is_ok());
    }

    #[test]
    fn a_file_is_no_directory_and_holds_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        fs::write(&file, "").expect("written");
        for path in [file.clone(), file.join("data")] {
            let opened = DataDir::open(&path, identity("n", "a")).expect_err("a file");
            assert!(matches!(opened, DataDirError::NotADirectory(_)), "{opened}");
            let checked = DataDir::check(&path, &identity("n", "a")).expect_err("a file");
            assert!(matches!(checked, DataDirError::NotADirectory(_)), "{checked}");
        }
    }

    #[test]
    fn another_identity_is_refused_and_said() {
        let dir = adopted();
        assert!(!DataDir::open(dir.path(), identity("n", "a")).expect("the same").is_new);
        let error = DataDir::open(dir.path(), identity("m", "b")).expect_err("another");
        assert_eq!(
            error.to_string(),
            format!(
                "data directory {}: it belongs to node.id \"n\", the settings say \"m\"; it belongs to \
                 node.rack \"a\", the settings say \"b\"; a node keeps these for the life of its data \
                 directory: correct the settings, or give the node an empty directory",
                dir.path().display()
            )
        );
    }

    #[test]
    fn a_lost_store_is_not_taken_for_an_empty_one() {
        let dir = adopted();
        fs::remove_dir_all(dir.path().join(STORE)).expect("removed");
        let error = DataDir::open(dir.path(), identity("n", "a")).expect_err("lost");
        assert!(matches!(error, DataDirError::StoreGone(_)), "{error}");
    }

    #[test]
    fn a_lost_or_zeroed_identity_is_not_taken_for_a_first_start() {
        let dir = adopted();
        let file = dir.path().join(IDENTITY);
        fs::write(&file, [0; 64]).expect("written");
        let error = DataDir::open(dir.path(), identity("n", "a")).expect_err("zeroed");
        assert!(matches!(error, DataDirError::BadIdentity { .. }), "{error}");
        fs::remove_file(&file).expect("removed");
        let mut data = DataDir::open(dir.path(), identity("n", "a")).expect("seems new");
        let error = data.adopt(false).expect_err("holds data");
        assert!(matches!(error, DataDirError::IdentityGone(_)), "{error}");
    }
}
