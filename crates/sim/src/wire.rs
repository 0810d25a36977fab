//! What travels between simulated nodes, really encoded and decoded by the product's codec.

use anello_protocol::{
    codec::{self, DecodeError},
    id::PartitionId,
    message::{
        client::{Answer, Written},
        gossip::GossipPacket,
        hint::{CheckHints, Credit, MarkForRepair, ReadHints, RequestCredit, StoreHint},
        repair::{CompareKeys, CompareRanges, CompareRoots, KeysDiffer, PurgeVersions, Purged},
        replica::{
            ForwardWrite, Held, Minted, ReadVersions, Refusal, RelayVersions, RelayedAck,
            StoreVersions, Stored,
        },
    },
};
use serde::{Deserialize, Serialize};

/// The number of a call at its caller.
pub type WireCall = u64;

/// A packet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Frame {
    /// Membership's.
    Gossip(GossipPacket),
    /// A question, with how many microseconds its caller waits for the answer: they count from the arrival,
    /// so what lay in front of a process that stood still is as good as new.
    Ask(WireCall, u64, Ask),
    /// Its answer.
    Answer(WireCall, AnswerFrame),
    /// An acknowledgement that nobody answers.
    Ack(RelayedAck),
}

/// What one node asks of another, or of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Of a vnode.
    Read(ReadVersions),
    /// Of a vnode.
    Store(StoreVersions),
    /// Of a vnode.
    Purge(PurgeVersions),
    /// Of a coordinator.
    Relay(RelayVersions),
    /// Of a coordinator.
    Forward(ForwardWrite),
    /// Of a hint store.
    Hint(StoreHint),
    /// Of a hint store.
    ReadHints(ReadHints),
    /// Of a hint store.
    Check(CheckHints),
    /// Of a hint store.
    Credit(RequestCredit),
    /// Of anti-entropy.
    Mark(MarkForRepair),
    /// Of anti-entropy.
    Roots(CompareRoots),
    /// Of anti-entropy.
    Ranges(CompareRanges),
    /// Of anti-entropy.
    Keys(CompareKeys),
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum AnswerFrame {
    /// To a read, of a vnode or a hint store.
    Read(Result<Held, Refusal>),
    /// To a store, a relay or a hint.
    Stored(Result<Stored, Refusal>),
    /// To a purge.
    Purged(Result<Purged, Refusal>),
    /// To a forwarded write.
    Forwarded(Result<Answer<Written>, Refusal>),
    /// To a dot that was asked for, which nobody does over the network.
    Minted(Result<Minted, Refusal>),
    /// To a question after hints.
    Checked(Result<Vec<bool>, Refusal>),
    /// To a request for credit.
    Credit(Credit),
    /// To a mark.
    Marked,
    /// To roots.
    Roots(Result<Vec<PartitionId>, Refusal>),
    /// To ranges.
    Ranges(Result<Vec<u16>, Refusal>),
    /// To keys.
    Keys(Result<KeysDiffer, Refusal>),
    /// To what no node would ask.
    Malformed,
}

impl Frame {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The packet in the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes)
    }
}
