//! Messages: what actors say to each other, on one node and between nodes.
//!
//! A message is declared once, as a plain struct with its reply type and its tag. Its encoding is
//! postcard's, which doesn't describe itself: a tag, once given out, names one struct for ever, and a
//! changed struct gets a new tag. `tests/golden` freezes the bytes of every one.

pub mod admin;
pub mod client;
pub mod gossip;
pub mod hint;
pub mod repair;
pub mod replica;

use serde::{Serialize, de::DeserializeOwned};

/// Which queue a message travels in. Membership and failure detection never queue behind data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Reads, writes, and what they cause.
    Data,
    /// Gossip, votes, joining.
    Control,
}

/// A message with its reply.
///
/// Not promised: the order of two messages, or that one arrives exactly once.
pub trait Message: Serialize + DeserializeOwned + Send + 'static {
    /// What answers it.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// Its number on the wire, from [`tag`].
    const TAG: u16;
    /// The queue that it travels in.
    const LANE: Lane;
    /// Whether a client may send it, and not only a node.
    const FOR_CLIENTS: bool;
}

/// The table of tags. Append only: a number is never given out twice.
pub mod tag {
    /// [`super::replica::ReadVersions`]
    pub const READ_VERSIONS: u16 = 1;
    /// [`super::replica::StoreVersions`]
    pub const STORE_VERSIONS: u16 = 2;
    /// [`super::replica::MintVersion`]
    pub const MINT_VERSION: u16 = 3;
    /// [`super::replica::RelayVersions`]
    pub const RELAY_VERSIONS: u16 = 4;
    /// [`super::replica::RelayedAck`]
    pub const RELAYED_ACK: u16 = 5;
    /// [`super::replica::ForwardWrite`]
    pub const FORWARD_WRITE: u16 = 6;
    /// [`super::hint::StoreHint`]
    pub const STORE_HINT: u16 = 7;
    /// [`super::hint::ReadHints`]
    pub const READ_HINTS: u16 = 8;
    /// [`super::hint::RequestCredit`]
    pub const REQUEST_CREDIT: u16 = 9;
    /// [`super::hint::MarkForRepair`]
    pub const MARK_FOR_REPAIR: u16 = 10;
    /// [`super::hint::CheckHints`]
    pub const CHECK_HINTS: u16 = 11;
    /// [`super::repair::CompareRoots`]
    pub const COMPARE_ROOTS: u16 = 12;
    /// [`super::repair::CompareRanges`]
    pub const COMPARE_RANGES: u16 = 13;
    /// [`super::repair::CompareKeys`]
    pub const COMPARE_KEYS: u16 = 14;
    /// [`super::repair::PurgeVersions`]
    pub const PURGE_VERSIONS: u16 = 15;
    /// [`super::hint::MintHint`]
    pub const MINT_HINT: u16 = 16;
    /// [`super::client::Get`]
    pub const GET: u16 = 20;
    /// [`super::client::Write`]
    pub const WRITE: u16 = 21;
    /// [`super::client::LocateKey`]
    pub const LOCATE_KEY: u16 = 22;
    /// [`super::admin::FetchCluster`]
    pub const FETCH_CLUSTER: u16 = 40;
    /// [`super::admin::DescribeCluster`]
    pub const DESCRIBE_CLUSTER: u16 = 41;
    /// [`super::admin::AlterKeyspace`]
    pub const ALTER_KEYSPACE: u16 = 42;
    /// [`super::admin::DescribeNode`]
    pub const DESCRIBE_NODE: u16 = 43;
    /// [`super::admin::StartRepair`]
    pub const START_REPAIR: u16 = 44;
    /// [`super::admin::AlterRing`]
    pub const ALTER_RING: u16 = 45;
    // 60 and on: gossip
    /// [`super::gossip::GossipPacket`]
    pub const GOSSIP_PACKET: u16 = 60;
}

macro_rules! message {
    ($type:ty => $reply:ty, $tag:ident, $lane:ident, $clients:literal) => {
        impl $crate::message::Message for $type {
            type Reply = $reply;
            const TAG: u16 = $crate::message::tag::$tag;
            const LANE: $crate::message::Lane = $crate::message::Lane::$lane;
            const FOR_CLIENTS: bool = $clients;
        }
    };
}
use message;
