//! How many replicas must answer: the levels that a request or a keyspace names.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A consistency level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// Any one replica.
    One,
    /// Any two.
    Two,
    /// Any three.
    Three,
    /// A majority of all replicas, over all datacenters together.
    #[default]
    Quorum,
    /// Every replica.
    All,
    /// One replica in the coordinator's datacenter.
    LocalOne,
    /// A majority of the replicas in the coordinator's datacenter.
    LocalQuorum,
    /// A majority of the replicas in every datacenter; for writes.
    EachQuorum,
    /// That many replicas, over all datacenters together.
    Count(u16),
}

/// A word that is no consistency level.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} is no consistency level: expected one, two, three, quorum, all, local_one, local_quorum or each_quorum"
)]
pub struct BadConsistency(pub String);

impl Consistency {
    const NAMES: [(&'static str, Consistency); 8] = [
        ("one", Consistency::One),
        ("two", Consistency::Two),
        ("three", Consistency::Three),
        ("quorum", Consistency::Quorum),
        ("all", Consistency::All),
        ("local_one", Consistency::LocalOne),
        ("local_quorum", Consistency::LocalQuorum),
        ("each_quorum", Consistency::EachQuorum),
    ];
}

impl FromStr for Consistency {
    type Err = BadConsistency;

    /// Reads a level's name, in any case.
    fn from_str(name: &str) -> Result<Self, BadConsistency> {
        let named = Self::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        named
            .map(|(_, level)| *level)
            .ok_or_else(|| BadConsistency(name.chars().take(40).collect()))
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Consistency::Count(count) => count.fmt(f),
            level => {
                let named = Self::NAMES.iter().find(|(_, known)| known == level);
                f.pad(named.map_or("", |(name, _)| name))
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Consistency")]
enum Wire {
    One,
    Two,
    Three,
    Quorum,
    All,
    LocalOne,
    LocalQuorum,
    EachQuorum,
    Count(u16),
}

impl Serialize for Consistency {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            return to.collect_str(self);
        }
        match self {
            Consistency::One => Wire::One,
            Consistency::Two => Wire::Two,
            Consistency::Three => Wire::Three,
            Consistency::Quorum => Wire::Quorum,
            Consistency::All => Wire::All,
            Consistency::LocalOne => Wire::LocalOne,
            Consistency::LocalQuorum => Wire::LocalQuorum,
            Consistency::EachQuorum => Wire::EachQuorum,
            Consistency::Count(count) => Wire::Count(*count),
        }
        .serialize(to)
    }
}

impl<'de> Deserialize<'de> for Consistency {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            let name = String::deserialize(from)?;
            return name.parse().map_err(serde::de::Error::custom);
        }
        Ok(match Wire::deserialize(from)? {
            Wire::One => Consistency::One,
            Wire::Two => Consistency::Two,
            Wire::Three => Consistency::Three,
            Wire::Quorum => Consistency::Quorum,
            Wire::All => Consistency::All,
            Wire::LocalOne => Consistency::LocalOne,
            Wire::LocalQuorum => Consistency::LocalQuorum,
            Wire::EachQuorum => Consistency::EachQuorum,
            Wire::Count(count) => Consistency::Count(count),
        })
    }
}

/// Whether stand-ins count towards a quorum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuorumKind {
    /// Reachable stand-ins count, with a hint for the replica they stand in for.
    #[default]
    Sloppy,
    /// Only the key's own replicas count.
    Strict,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_in_any_case() {
        for (name, level) in Consistency::NAMES {
            assert_eq!(name.to_uppercase().parse(), Ok(level));
            assert_eq!(level.to_string(), name);
        }
        assert!("most".parse::<Consistency>().is_err());
    }
}
