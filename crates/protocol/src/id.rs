//! Names and numbers that identify things: nodes, places, keyspaces, partitions, epochs.
//!
//! Every name is validated where it is made or decoded, so code that holds one need not look again.
//! Numbers are newtypes, so that an epoch can't be passed for a partition.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// The longest name of a node, datacenter, rack, cluster or keyspace, in bytes.
pub const MAX_NAME_BYTES: usize = 63;

/// A name that does not follow its grammar.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("bad {what} name {name:?}: expected {expected}")]
pub struct BadName {
    /// What the name was for.
    pub what: &'static str,
    /// The name as given, cut to a printable length.
    pub name: String,
    /// The grammar in words.
    pub expected: &'static str,
}

const PLACE_GRAMMAR: &str =
    "1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit";
const KEYSPACE_GRAMMAR: &str = "a lower-case letter, then up to 62 of a-z, 0-9, '_' and '-'";

fn is_place(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    bytes.len() <= MAX_NAME_BYTES
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

fn is_keyspace(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() <= MAX_NAME_BYTES
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $check:ident, $expected:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Takes a name that follows the grammar.
            pub fn new(name: &str) -> Result<Self, BadName> {
                if $check(name) {
                    Ok(Self(name.into()))
                } else {
                    let name = name.chars().take(MAX_NAME_BYTES + 1).collect();
                    Err(BadName { what: $what, name, expected: $expected })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = BadName;
            fn from_str(name: &str) -> Result<Self, BadName> {
                Self::new(name)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Name;
                impl serde::de::Visitor<'_> for Name {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "a {} name: {}", $what, $expected)
                    }
                    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<$type, E> {
                        $type::new(name).map_err(E::custom)
                    }
                }
                from.deserialize_str(Name)
            }
        }
    };
}

name!(
    /// A node, unique in its cluster for ever: a removed id never comes back.
    NodeId, "node", is_place, PLACE_GRAMMAR
);
name!(
    /// A datacenter. Each one is a full ring of its own.
    Datacenter, "datacenter", is_place, PLACE_GRAMMAR
);
name!(
    /// A rack within a datacenter: what fails together.
    Rack, "rack", is_place, PLACE_GRAMMAR
);
name!(
    /// A cluster. Nodes of clusters with other names are not talked to.
    ClusterName, "cluster", is_place, PLACE_GRAMMAR
);
name!(
    /// A keyspace: a set of keys with their own replication and conflict rule.
    KeyspaceName, "keyspace", is_keyspace, KEYSPACE_GRAMMAR
);

impl KeyspaceName {
    /// The keyspace that always exists.
    pub fn default_keyspace() -> Self {
        Self("default".into())
    }
}

/// One of the Q equal parts of the hash space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId(pub u32);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of an agreed cluster state; 0 means that none is known yet.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identifies one life of a keyspace: the epoch that created it. A keyspace that is dropped and
/// created again under its old name gets another id, so that nothing of its former life shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyspaceId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_grammar() {
        for good in ["a", "eu-a-1", "9", "a--b"] {
            assert!(NodeId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "ü", "a.b", &"x".repeat(64)] {
            assert!(NodeId::new(bad).is_err(), "{bad}");
        }
        for good in ["a", "a_b-9", &"x".repeat(63)] {
            assert!(KeyspaceName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "9a", "_a", "A", "a/b", &"x".repeat(64)] {
            assert!(KeyspaceName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_decoded_name_is_validated() {
        let bytes = postcard::to_stdvec("Not A Name").expect("a string encodes");
        assert!(postcard::from_bytes::<NodeId>(&bytes).is_err());
    }
}
