//! Keyspaces as operators see and set them.
//!
//! A `PUT` may leave fields out: of a keyspace that exists they keep their value, of a new one they
//! get the default. It reads the agreed state and proposes the whole configuration, so of two
//! operators who set different fields at the same moment the later one's view wins.

use std::collections::BTreeMap;

use anello_protocol::{
    cluster::{KeyspaceConfig, MAX_REPLICAS_PER_DATACENTER, Replication},
    consistency::Consistency,
    id::Datacenter,
    version::ConflictRule,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{error::Failure, object};

/// What is decided for a keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct KeyspaceBody {
    /// How many replicas, and where.
    replication: ReplicationBody,
    /// What becomes of concurrent writes.
    conflict: ConflictBody,
    /// The level of reads that name none.
    #[schema(example = "quorum")]
    read: String,
    /// The level of writes that name none.
    #[schema(example = "quorum")]
    write: String,
    /// How long a tombstone stays at least, in seconds.
    tombstone_grace_s: u64,
}

/// A change to a keyspace; what is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyspaceChangeBody {
    /// How many replicas, and where.
    replication: Option<ReplicationBody>,
    /// What becomes of concurrent writes.
    conflict: Option<ConflictBody>,
    /// The level of reads that name none.
    #[schema(example = "quorum")]
    read: Option<String>,
    /// The level of writes that name none.
    #[schema(example = "quorum")]
    write: Option<String>,
    /// How long a tombstone stays at least, in seconds.
    tombstone_grace_s: Option<u64>,
}

/// How many replicas, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ReplicationBody {
    /// Up to 3 in every datacenter that has nodes.
    Auto(AutoBody),
    /// That many in each datacenter named.
    PerDatacenter(BTreeMap<String, u16>),
}

/// The word `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AutoBody {
    /// Up to 3 in every datacenter that has nodes.
    Auto,
}

/// What becomes of concurrent writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ConflictBody {
    /// All are kept, and the application merges them.
    Siblings,
    /// The latest stays, the others are lost.
    Lww,
}

impl From<&KeyspaceConfig> for KeyspaceBody {
    fn from(config: &KeyspaceConfig) -> Self {
        let replication = match &config.replication {
            Replication::Auto => ReplicationBody::Auto(AutoBody::Auto),
            Replication::PerDatacenter(counts) => ReplicationBody::PerDatacenter(
                counts.iter().map(|(place, count)| (place.to_string(), *count)).collect(),
            ),
        };
        Self {
            replication,
            conflict: match config.conflict {
                ConflictRule::Siblings => ConflictBody::Siblings,
                ConflictRule::Lww => ConflictBody::Lww,
            },
            read: config.read.to_string(),
            write: config.write.to_string(),
            tombstone_grace_s: config.tombstone_grace_s,
        }
    }
}

impl KeyspaceChangeBody {
    /// Reads a body that has arrived whole; an empty one changes nothing.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Failure> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        object::from_slice(body).map_err(|error| {
            Failure::bad_request(format!(
                "the body is no keyspace in JSON, such as {{\"replication\": {{\"eu\": 3}} or \
                 \"auto\", \"conflict\": \"siblings\" or \"lww\", \"read\": \"quorum\", \
                 \"write\": \"quorum\", \"tombstone_grace_s\": 864000}}: {error}"
            ))
        })
    }

    /// The configuration after the change.
    pub(crate) fn applied_to(self, mut config: KeyspaceConfig) -> Result<KeyspaceConfig, Failure> {
        if let Some(replication) = self.replication {
            config.replication = self::replication(replication)?;
        }
        if let Some(conflict) = self.conflict {
            config.conflict = match conflict {
                ConflictBody::Siblings => ConflictRule::Siblings,
                ConflictBody::Lww => ConflictRule::Lww,
            };
        }
        if let Some(read) = self.read {
            config.read = level(&read)?;
            if config.read == Consistency::EachQuorum {
                return Err(Failure::bad_request("each_quorum is for writes, not for read"));
            }
        }
        if let Some(write) = self.write {
            config.write = level(&write)?;
        }
        if let Some(grace) = self.tombstone_grace_s {
            config.tombstone_grace_s = grace;
        }
        Ok(config)
    }
}

fn level(name: &str) -> Result<Consistency, Failure> {
    name.parse().map_err(|error: anello_protocol::consistency::BadConsistency| {
        Failure::bad_request(error.to_string())
    })
}

fn replication(body: ReplicationBody) -> Result<Replication, Failure> {
    let ReplicationBody::PerDatacenter(named) = body else {
        return Ok(Replication::Auto);
    };
    let mut counts = BTreeMap::new();
    for (name, count) in named {
        let datacenter =
            Datacenter::new(&name).map_err(|error| Failure::bad_request(error.to_string()))?;
        if count > MAX_REPLICAS_PER_DATACENTER {
            return Err(Failure::bad_request(format!(
                "{count} replicas in {name} are too many: at most {MAX_REPLICAS_PER_DATACENTER}"
            )));
        }
        counts.insert(datacenter, count);
    }
    if counts.values().all(|count| *count == 0) {
        let message = "a keyspace has at least one replica: name a datacenter with its number";
        return Err(Failure::bad_request(message));
    }
    Ok(Replication::PerDatacenter(counts))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(body: &str) -> Result<KeyspaceConfig, Failure> {
        KeyspaceChangeBody::parse(body.as_bytes())?.applied_to(KeyspaceConfig::default())
    }

    #[test]
    fn a_keyspace_reads_as_the_contract_says() {
        let body = serde_json::to_value(KeyspaceBody::from(&KeyspaceConfig::default())).unwrap();
        let expected = json!({
            "replication": "auto", "conflict": "siblings", "read": "quorum", "write": "quorum",
            "tombstone_grace_s": 864_000,
        });
        assert_eq!(body, expected);
        let config = change(r#"{"replication":{"eu":3,"us":2},"conflict":"lww"}"#).unwrap();
        let body = serde_json::to_value(KeyspaceBody::from(&config)).unwrap();
        assert_eq!(body["replication"], json!({"eu": 3, "us": 2}));
        assert_eq!(body["conflict"], json!("lww"));
    }

    #[test]
    fn what_is_left_out_stays() {
        assert_eq!(change("").unwrap(), KeyspaceConfig::default());
        assert_eq!(change("{}").unwrap(), KeyspaceConfig::default());
        let config = change(r#"{"read":"ONE"}"#).unwrap();
        let again = KeyspaceChangeBody::parse(br#"{"tombstone_grace_s":5,"replication":"auto"}"#);
        let config = again.unwrap().applied_to(config).unwrap();
        assert_eq!((config.read, config.tombstone_grace_s), (Consistency::One, 5));
        assert_eq!(config.write, Consistency::Quorum);
        let nulls = r#"{"replication":null,"conflict":null,"read":null,"write":null,"tombstone_grace_s":null}"#;
        assert_eq!(change(nulls).unwrap(), KeyspaceConfig::default());
    }

    #[test]
    fn nonsense_is_refused() {
        for body in [
            "x",
            "[]",
            r#"["auto","lww","one","one",5]"#,
            "null",
            r#"{"colour":"red"}"#,
            r#"{"replication":"all"}"#,
            r#"{"replication":{}}"#,
            r#"{"replication":{"eu":0}}"#,
            r#"{"replication":{"eu":17}}"#,
            r#"{"replication":{"eu":-1}}"#,
            r#"{"replication":{"eu":70000}}"#,
            r#"{"replication":{"EU":1}}"#,
            r#"{"conflict":"merge"}"#,
            r#"{"read":"each_quorum"}"#,
            r#"{"read":2}"#,
            r#"{"write":"most"}"#,
            r#"{"tombstone_grace_s":-1}"#,
        ] {
            assert!(change(body).is_err(), "{body}");
        }
        assert!(change(r#"{"write":"each_quorum"}"#).is_ok());
    }
}
