//! What operators are told of the cluster, the ring and the node, in JSON.

use anello_protocol::{
    cluster::{MemberState, Phase, RingChange},
    id::{Epoch, KeyspaceName},
    key::Key,
    message::{
        admin::{ClusterView, NodeView},
        client::{KeyLocation, LocateKey},
    },
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    error::{ErrorCode, Failure},
    path,
};

/// The cluster as one node sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ClusterBody {
    /// Its name.
    name: String,
    /// How many partitions there are.
    partitions: u32,
    /// The nodes, by datacenter, rack and name.
    nodes: Vec<NodeBody>,
    /// The change of the ring that is under way; null as a rule.
    change: Option<ChangeBody>,
}

/// A change of the ring that is under way.
#[derive(Debug, Serialize, ToSchema)]
struct ChangeBody {
    /// What it is for, for people.
    what: String,
    /// The number of the cluster state that it began with.
    began: u64,
    /// How far the partitions are.
    partitions: PhasesBody,
}

/// How many partitions are how far on their way to their new owners.
#[derive(Debug, Default, Serialize, ToSchema)]
struct PhasesBody {
    /// Old and new owners are written to, the old ones are read; the new ones are being filled.
    filling: u32,
    /// Old and new owners are written to, the new ones are read.
    serving: u32,
    /// Theirs alone, or never on their way.
    done: u32,
}

impl From<&RingChange> for ChangeBody {
    fn from(change: &RingChange) -> Self {
        let mut partitions = PhasesBody::default();
        for phase in &change.phases {
            *match phase {
                Phase::Filling => &mut partitions.filling,
                Phase::Serving => &mut partitions.serving,
                Phase::Done => &mut partitions.done,
            } += 1;
        }
        Self { what: change.purpose.to_string(), began: change.began.0, partitions }
    }
}

/// A change of the ring has begun.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BegunBody {
    /// The number of the cluster state that has it.
    epoch: u64,
    /// What has begun, for people.
    began: String,
}

impl BegunBody {
    pub(crate) fn new(epoch: Epoch, began: String) -> Self {
        Self { epoch: epoch.0, began }
    }
}

/// A node as another one sees it.
#[derive(Debug, Serialize, ToSchema)]
struct NodeBody {
    /// Its name.
    id: String,
    /// Its datacenter.
    datacenter: String,
    /// Its rack.
    rack: String,
    /// Its advertised QUIC address.
    address: String,
    /// Its advertised HTTP address.
    http: String,
    /// Where it is in its life.
    state: StateBody,
    /// Whether it answers, as far as this node knows.
    reachable: bool,
    /// How suspicious its silence is.
    phi: f64,
    /// Why it is held reachable or not, for people.
    verdict: String,
    /// How many of the datacenter's tokens it owns.
    partitions: u32,
    /// The version of its program; empty while not heard of.
    version: String,
}

/// Where a node is in its life.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum StateBody {
    /// Taken in, being filled.
    Joining,
    /// Owns its share.
    Up,
    /// Handing its share over.
    Leaving,
    /// Gone of its own will.
    Left,
    /// Taken out for good.
    Removed,
}

impl ClusterBody {
    pub(crate) fn new(view: ClusterView, change: Option<&RingChange>) -> Self {
        Self {
            name: view.name.to_string(),
            partitions: view.partitions,
            nodes: view.nodes.into_iter().map(NodeBody::from).collect(),
            change: change.map(ChangeBody::from),
        }
    }
}

/// The highest phi that is told: JSON knows no infinity, and a silence this suspicious is certain.
const PHI_MAX: f64 = 1000.0;

impl From<NodeView> for NodeBody {
    fn from(node: NodeView) -> Self {
        let phi = if node.phi.is_nan() { PHI_MAX } else { node.phi.clamp(0.0, PHI_MAX) };
        Self {
            id: node.id.to_string(),
            datacenter: node.datacenter.to_string(),
            rack: node.rack.to_string(),
            address: node.quic,
            http: node.http,
            state: match node.state {
                MemberState::Joining => StateBody::Joining,
                MemberState::Up => StateBody::Up,
                MemberState::Leaving => StateBody::Leaving,
                MemberState::Left => StateBody::Left,
                MemberState::Removed => StateBody::Removed,
            },
            reachable: node.reachable,
            phi: (phi * 1000.0).round() / 1000.0,
            verdict: node.verdict,
            partitions: node.partitions,
            version: node.version,
        }
    }
}

/// Where a key lives.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RingBody {
    /// The key's partition.
    partition: u32,
    /// Its replicas, in the order of the preference list.
    replicas: Vec<PlaceBody>,
    /// The nodes that stand in for them, in the order in which they are asked.
    fallbacks: Vec<String>,
}

/// A node and where it stands.
#[derive(Debug, Serialize, ToSchema)]
struct PlaceBody {
    /// The node.
    id: String,
    /// Its datacenter.
    datacenter: String,
    /// Its rack.
    rack: String,
}

impl From<KeyLocation> for RingBody {
    fn from(location: KeyLocation) -> Self {
        let places = location.replicas.into_iter().map(|place| PlaceBody {
            id: place.id.to_string(),
            datacenter: place.datacenter.to_string(),
            rack: place.rack.to_string(),
        });
        Self {
            partition: location.partition.0,
            replicas: places.collect(),
            fallbacks: location.fallbacks.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Reads the query of `GET /admin/ring`: percent-encoded as in a path, so that a `+` is a `+`.
pub(crate) fn ring_query(query: &str) -> Result<LocateKey, Failure> {
    let mut key: Option<Key> = None;
    let mut keyspace: Option<KeyspaceName> = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let twice = match name {
            "key" => key.replace(path::key(&value.replace('/', "%2F"))?).is_some(),
            "keyspace" => keyspace.replace(path::keyspace(value)?).is_some(),
            _ => return Err(Failure::bad_request("the query is ?key=…[&keyspace=…]")),
        };
        if twice {
            return Err(Failure::bad_request("the query names a key or keyspace twice"));
        }
    }
    let key = key.ok_or_else(|| {
        Failure::new(ErrorCode::BadKey, "say which key: GET /admin/ring?key=…[&keyspace=…]")
    })?;
    Ok(LocateKey { keyspace: keyspace.unwrap_or_else(KeyspaceName::default_keyspace), key })
}

/// The node works, or serves.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OkBody {
    status: OkWord,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum OkWord {
    Ok,
}

impl OkBody {
    /// `{"status": "ok"}`
    pub(crate) const OK: Self = Self { status: OkWord::Ok };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_read_as_a_path_spells_it() {
        let locate = |keyspace: &str, key: &'static [u8]| LocateKey {
            keyspace: KeyspaceName::new(keyspace).unwrap(),
            key: Key::new(key).unwrap(),
        };
        for (query, expected) in [
            ("key=cart:42", locate("default", b"cart:42")),
            ("keyspace=carts&key=a%2Fb", locate("carts", b"a/b")),
            ("key=a/b+c%2B%20&", locate("default", b"a/b+c+ ")),
            ("key=%ff%00", locate("default", b"\xff\0")),
            ("key=a=b", locate("default", b"a=b")),
        ] {
            assert_eq!(ring_query(query), Ok(expected), "{query}");
        }
        for (query, code) in [
            ("", ErrorCode::BadKey),
            ("key=", ErrorCode::BadKey),
            ("key", ErrorCode::BadKey),
            ("key=%x", ErrorCode::BadKey),
            ("key=a&key=b", ErrorCode::BadRequest),
            ("key=a&colour=red", ErrorCode::BadRequest),
            ("key=a&keyspace=A", ErrorCode::NoSuchKeyspace),
        ] {
            assert_eq!(ring_query(query).unwrap_err().code(), code, "{query}");
        }
    }
}
