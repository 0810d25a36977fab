//! The profile file: where a cluster is and as whom to talk to it.
//!
//! ```toml
//! cluster    = "demo"
//! seeds      = ["127.0.0.1:7400", "127.0.0.1:7401"]
//! datacenter = "eu"
//!
//! [tls]
//! ca   = "demo/tls/ca.pem"
//! cert = "demo/tls/client.pem"
//! key  = "demo/tls/client.key"
//! ```
//!
//! Paths in it are relative to the folder that it is in.

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anello_protocol::id::{ClusterName, Datacenter};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where a cluster is, and as whom to talk to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The cluster's name, so that none of another name is talked to; without it, the CA decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    /// QUIC addresses of nodes, `host:port`. One that answers is enough; the others are learned.
    pub seeds: Vec<String>,
    /// The datacenter that the client is in; without it, it asks whichever node answers fastest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datacenter: Option<Datacenter>,
    /// The client's certificate and the cluster's CA.
    pub tls: TlsFiles,
}

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The cluster's CA.
    pub ca: PathBuf,
    /// The client's certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A profile that can't be used.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// The file can't be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// What it says is no profile.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong, in words.
        why: String,
    },
}

impl Profile {
    /// The environment variable that names the profile's file.
    pub const VARIABLE: &str = "ANELLO_PROFILE";
    /// Where a profile is looked for in the current folder.
    pub const LOCAL: &str = ".anello/profile.toml";

    /// Reads a file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ProfileError> {
        let path = path.as_ref();
        let text = fs::read_to_string(path)
            .map_err(|error| ProfileError::File { path: path.into(), error })?;
        let malformed = |why: String| ProfileError::Malformed { path: path.into(), why };
        let mut profile: Self =
            toml::from_str(&text).map_err(|error| malformed(error.to_string().trim().into()))?;
        if profile.seeds.is_empty() {
            return Err(malformed("seeds: at least one address, \"host:port\"".into()));
        }
        if let Some(seed) = profile.seeds.iter().find(|seed| !is_address(seed)) {
            return Err(malformed(format!(
                "seeds: expected addresses such as \"127.0.0.1:7400\", found {seed:?}"
            )));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        for file in profile.tls.all() {
            *file = folder.join(&*file);
        }
        Ok(profile)
    }

    /// Reads the profile that applies where none is named: `$ANELLO_PROFILE`, else
    /// `./.anello/profile.toml`, else `~/.config/anello/profile.toml`; none if there is none of them.
    pub fn find() -> Result<Option<Self>, ProfileError> {
        let found = Self::first_place(
            env::var_os(Self::VARIABLE).map(PathBuf::from),
            env::home_dir(),
            &|path| path.exists(),
        );
        found.map(Self::load).transpose()
    }

    /// A file that was named is taken even if it isn't there: its absence is worth an error.
    fn first_place(
        named: Option<PathBuf>,
        home: Option<PathBuf>,
        exists: &dyn Fn(&Path) -> bool,
    ) -> Option<PathBuf> {
        let named = named.filter(|path| !path.as_os_str().is_empty());
        let home = home.map(|home| home.join(".config/anello/profile.toml"));
        let places = [Some(PathBuf::from(Self::LOCAL)), home];
        named.or_else(|| places.into_iter().flatten().find(|path| exists(path)))
    }

    /// Writes a file, and the folder that it goes to if that is missing. Paths below that folder
    /// become relative to it, so that the folder can be moved. The file is replaced as a whole: a
    /// reader never sees half of it.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ProfileError> {
        let path = path.as_ref();
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut profile = self.clone();
        for file in profile.tls.all() {
            if let Ok(below) = file.strip_prefix(folder) {
                *file = below.into();
            }
        }
        let text = toml::to_string(&profile).map_err(|error| ProfileError::Malformed {
            path: path.into(),
            why: error.to_string(),
        })?;
        replace(path, folder, &text)
            .map_err(|error| ProfileError::File { path: path.into(), error })
    }
}

impl TlsFiles {
    fn all(&mut self) -> [&mut PathBuf; 3] {
        [&mut self.ca, &mut self.cert, &mut self.key]
    }
}

/// Whether this is `host:port`, with a port that one can connect to.
fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(|c: char| c.is_whitespace() || c == '/')
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

fn replace(path: &Path, folder: &Path, text: &str) -> io::Result<()> {
    if !folder.as_os_str().is_empty() {
        fs::create_dir_all(folder)?;
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let mut file = fs::File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(folder: &Path) -> Profile {
        Profile {
            cluster: Some("demo".parse().unwrap()),
            seeds: vec!["127.0.0.1:7400".into()],
            datacenter: Some("eu".parse().unwrap()),
            tls: TlsFiles {
                ca: folder.join("tls/ca.pem"),
                cert: folder.join("tls/client.pem"),
                key: "/etc/anello/client.key".into(),
            },
        }
    }

    #[test]
    fn what_is_saved_is_loaded_even_after_the_folder_has_moved() {
        let parent = tempfile::tempdir().unwrap();
        let (old, new) = (parent.path().join("old"), parent.path().join("new"));
        profile(&old).save(old.join("profile.toml")).unwrap();
        assert_eq!(Profile::load(old.join("profile.toml")).unwrap(), profile(&old));
        fs::rename(&old, &new).unwrap();
        assert_eq!(Profile::load(new.join("profile.toml")).unwrap(), profile(&new));
        assert_eq!(fs::read_dir(&new).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn an_error_names_the_file_and_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profile.toml");
        let complaint = |text: &str| {
            fs::write(&path, text).unwrap();
            Profile::load(&path).unwrap_err().to_string()
        };
        let tls = "[tls]\nca = 'a'\ncert = 'b'\nkey = 'c'\n";
        let unknown = complaint(&format!("cluster = 'demo'\nseeds = ['a:1']\nsede = 1\n{tls}"));
        assert!(unknown.contains("profile.toml") && unknown.contains("sede"), "{unknown}");
        let empty = complaint(&format!("cluster = 'demo'\nseeds = []\n{tls}"));
        assert!(empty.contains("seeds"), "{empty}");
        for bad in ["127.0.0.1", ":7400", "a:0", "a:b", "http://a:7400", "a b:1"] {
            let seeds = complaint(&format!("cluster = 'demo'\nseeds = ['a:1', '{bad}']\n{tls}"));
            let said = "profile.toml: seeds: expected addresses such as";
            assert!(seeds.contains(said) && seeds.contains(bad), "{seeds}");
        }
        let name = complaint(&format!("cluster = 'De Mo'\nseeds = ['a:1']\n{tls}"));
        assert!(name.contains("De Mo"), "{name}");
        let missing = Profile::load(folder.path().join("none.toml")).unwrap_err();
        assert!(missing.to_string().contains("none.toml"), "{missing}");
    }

    #[test]
    fn the_nearest_profile_applies() {
        let home = Some(PathBuf::from("/home/me"));
        let local = PathBuf::from(Profile::LOCAL);
        let own = PathBuf::from("/home/me/.config/anello/profile.toml");
        let place = |named: Option<&str>, exists: &dyn Fn(&Path) -> bool| {
            Profile::first_place(named.map(PathBuf::from), home.clone(), exists)
        };
        assert_eq!(place(Some("x.toml"), &|_| true), Some("x.toml".into()));
        assert_eq!(place(Some(""), &|_| true), Some(local));
        assert_eq!(place(None, &|path| path == own), Some(own.clone()));
        assert_eq!(place(None, &|_| false), None);
    }
}
