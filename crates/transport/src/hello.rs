//! The first words on a connection, both ways, before any call.
//!
//! ```text
//! hello = length u16, of what follows | "anello" | version u16 | role u8 | cluster | name
//! role  = 1 a node | 2 a client
//! cluster, name = length u8 | text
//! ```
//!
//! The dialler speaks first. Each says which cluster it is of, and who it is; that must be the name in
//! its certificate. A client may leave the cluster empty: it talks to whichever its authority vouches for.
//! The version is the highest minor version that one speaks (the major one is in the ALPN): the lower of
//! the two is spoken. Bytes after the known ones are room for later versions, and passed over.

use anello_protocol::id::{ClusterName, NodeId};
use thiserror::Error;

use crate::identity::{Identity, Name};

/// The highest minor version that is spoken here.
pub(crate) const VERSION: u16 = 1;
/// The longest hello that is read, beside its length.
pub(crate) const MAX_HELLO_BYTES: usize = 512;

const MAGIC: &[u8; 6] = b"anello";
const NODE: u8 = 1;
const CLIENT: u8 = 2;

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The highest minor version that it speaks.
    pub(crate) version: u16,
    /// Its cluster.
    pub(crate) cluster: Option<ClusterName>,
    /// Its name.
    pub(crate) name: Name,
}

/// Why a hello is not accepted.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum HelloError {
    /// It isn't one.
    #[error("the first words on the connection are no hello")]
    Malformed,
    /// It is of another cluster.
    #[error("{who} is of cluster {theirs:?}, not of {ours:?}")]
    OtherCluster {
        /// Who it is.
        who: String,
        /// The cluster it is of.
        theirs: String,
        /// Our own.
        ours: String,
    },
    /// It claims another name than its certificate has.
    #[error("a certificate for {certified:?} does not make its holder {claimed:?}")]
    OtherName {
        /// What it says.
        claimed: String,
        /// What was proved.
        certified: String,
    },
}

impl Hello {
    /// What one says of oneself.
    pub(crate) fn of(identity: &Identity) -> Self {
        Self {
            version: VERSION,
            cluster: identity.cluster().cloned(),
            name: identity.name().clone(),
        }
    }

    /// The bytes, with their length in front.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (role, name) = match &self.name {
            Name::Node(node) => (NODE, node.as_str()),
            Name::Client(name) => (CLIENT, name.as_str()),
        };
        let cluster = self.cluster.as_ref().map_or("", ClusterName::as_str);
        let mut bytes = vec![0, 0];
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.push(role);
        for text in [cluster, name] {
            bytes.push(u8::try_from(text.len()).expect("names have at most 63 bytes"));
            bytes.extend_from_slice(text.as_bytes());
        }
        let length = u16::try_from(bytes.len() - 2).expect("a hello is short");
        bytes[..2].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    /// Reads the bytes that follow the length.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HelloError> {
        Self::parse(bytes).ok_or(HelloError::Malformed)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.strip_prefix(MAGIC)?;
        let (version, bytes) = bytes.split_first_chunk()?;
        let (role, bytes) = bytes.split_first()?;
        let (cluster, bytes) = text(bytes)?;
        let (name, _) = text(bytes)?;
        let cluster = match cluster {
            "" => None,
            cluster => Some(ClusterName::new(cluster).ok()?),
        };
        // Clients' names follow the grammar of nodes'.
        let node = NodeId::new(name).ok()?;
        let name = match *role {
            NODE => Name::Node(node),
            CLIENT => Name::Client(name.into()),
            _ => return None,
        };
        Some(Self { version: u16::from_le_bytes(*version), cluster, name })
    }

    /// Checks what another says against one's own cluster and against its certificate. Only a client may
    /// leave its cluster open; the node at the other end always names one.
    pub(crate) fn check(&self, ours: &Hello, certified: &Name) -> Result<(), HelloError> {
        if self.name != *certified {
            return Err(HelloError::OtherName {
                claimed: self.name.to_string(),
                certified: certified.to_string(),
            });
        }
        let open = |hello: &Hello| hello.cluster.is_none() && matches!(hello.name, Name::Client(_));
        if open(self) || open(ours) || self.cluster == ours.cluster {
            return Ok(());
        }
        let text = |cluster: &Option<ClusterName>| {
            cluster.as_ref().map(ClusterName::to_string).unwrap_or_default()
        };
        let who = self.name.to_string();
        Err(HelloError::OtherCluster {
            who,
            theirs: text(&self.cluster),
            ours: text(&ours.cluster),
        })
    }
}

fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, bytes) = bytes.split_first()?;
    let (text, rest) = bytes.split_at_checked(usize::from(*length))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(cluster: &str, name: Name) -> Hello {
        let cluster = (!cluster.is_empty()).then(|| ClusterName::new(cluster).unwrap());
        Hello { version: VERSION, cluster, name }
    }

    fn node(id: &str) -> Name {
        Name::Node(NodeId::new(id).unwrap())
    }

    #[test]
    fn the_bytes_are_frozen() {
        let bytes = hello("demo", node("eu-a-1")).encode();
        assert_eq!(bytes, b"\x15\x00anello\x01\x00\x01\x04demo\x06eu-a-1");
        let bytes = hello("", Name::Client("web".into())).encode();
        assert_eq!(bytes, b"\x0e\x00anello\x01\x00\x02\x00\x03web");
    }

    #[test]
    fn what_is_written_is_read_and_later_bytes_are_passed_over() {
        let said = hello("demo", node("eu-a-1"));
        let mut bytes = said.encode();
        assert!(bytes.len() < MAX_HELLO_BYTES);
        bytes.extend_from_slice(b"from the future");
        assert_eq!(Hello::decode(&bytes[2..]), Ok(said));
    }

    #[test]
    fn what_is_no_hello_is_refused_at_every_length() {
        let bytes = hello("demo", node("eu-a-1")).encode();
        for end in 2..bytes.len() {
            assert_eq!(Hello::decode(&bytes[2..end]), Err(HelloError::Malformed));
        }
        assert!(Hello::decode(b"anello\x01\x00\x01\x01!\x01a").is_err());
        assert!(Hello::decode(b"anello\x01\x00\x03\x01a\x01a").is_err());
    }

    #[test]
    fn clusters_and_names_must_agree() {
        let ours = hello("demo", node("a"));
        assert_eq!(hello("demo", node("b")).check(&ours, &node("b")), Ok(()));
        assert!(matches!(
            hello("other", node("b")).check(&ours, &node("b")),
            Err(HelloError::OtherCluster { .. })
        ));
        assert!(matches!(
            hello("demo", node("b")).check(&ours, &node("c")),
            Err(HelloError::OtherName { .. })
        ));
        let client = Name::Client("web".into());
        assert_eq!(hello("", client.clone()).check(&ours, &client), Ok(()));
        assert!(hello("other", client.clone()).check(&ours, &client).is_err());
        // A node always names its cluster, and a client's certificate makes no node.
        assert!(hello("", node("b")).check(&ours, &node("b")).is_err());
        assert!(hello("demo", node("web")).check(&ours, &client).is_err());
    }
}
