//! Bookmarks: how far an interrupted import came, kept below `./.anello/imports/`.
//!
//! A bookmark is of one file, as it was (its size and its time), and of one keyspace of one cluster. A
//! file that was changed, or another one under the same name, begins anew.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use anello_protocol::id::{ClusterName, KeyspaceName};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::records::Start;
use crate::fleet::layout::HOME;

/// Where a bookmark is kept, and what it is of.
#[derive(Clone, Debug)]
pub(super) struct Bookmark {
    path: PathBuf,
    of: Of,
}

/// What a bookmark is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Of {
    file: String,
    size: u64,
    modified_ns: u64,
    cluster: ClusterName,
    keyspace: KeyspaceName,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    of: Of,
    offset: u64,
    lines: u64,
}

impl Bookmark {
    /// The bookmark of a file in a keyspace.
    pub(super) fn of(
        home: &Path,
        file: &Path,
        cluster: &ClusterName,
        keyspace: &KeyspaceName,
    ) -> io::Result<Self> {
        let file = file.canonicalize()?;
        let about = fs::metadata(&file)?;
        let modified = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let of = Of {
            file: file.to_string_lossy().into_owned(),
            size: about.len(),
            modified_ns: u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX),
            cluster: cluster.clone(),
            keyspace: keyspace.clone(),
        };
        let name = format!("{}\0{cluster}\0{keyspace}", of.file);
        let path = home.join("imports").join(format!("{:016x}.json", xxh3_64(name.as_bytes())));
        Ok(Self { path, of })
    }

    /// Where everything before is done: the beginning, if nothing is known of this file as it is.
    pub(super) fn read(&self) -> Start {
        let kept: Option<Kept> =
            fs::read(&self.path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        match kept {
            Some(Kept { of, offset, lines }) if of == self.of && offset <= self.of.size => {
                Start { offset, lines }
            }
            _ => Start::default(),
        }
    }

    /// Keeps how far the import came.
    pub(super) fn write(&self, reached: Start) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir)?;
        }
        let Start { offset, lines } = reached;
        let text = serde_json::to_vec(&Kept { of: self.of.clone(), offset, lines })?;
        let draft = self.path.with_extension("draft");
        fs::write(&draft, text)?;
        fs::rename(&draft, &self.path)
    }

    /// Forgets it: everything is done, or is to begin anew.
    pub(super) fn remove(&self) {
        // One that stays behind costs a look at records that are there.
        let _ = fs::remove_file(&self.path);
    }
}

/// The directory that bookmarks are kept below.
pub(super) fn home() -> PathBuf {
    PathBuf::from(HOME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("in.jsonl");
        fs::write(&file, "0123456789").unwrap();
        let cluster = ClusterName::new("demo").unwrap();
        let bookmark = |keyspace: &str| {
            let keyspace = KeyspaceName::new(keyspace).unwrap();
            Bookmark::of(dir.path(), &file, &cluster, &keyspace).unwrap()
        };
        let start = Start { offset: 7, lines: 2 };
        bookmark("a").write(start).unwrap();
        assert_eq!(bookmark("a").read(), start);
        assert_eq!(bookmark("b").read(), Start::default());
        fs::write(&file, "0123456789!").unwrap();
        assert_eq!(bookmark("a").read(), Start::default());
        bookmark("a").remove();
        assert_eq!(bookmark("a").read(), Start::default());
    }
}
