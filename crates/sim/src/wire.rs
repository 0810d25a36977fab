//! What travels between simulated nodes, really encoded and decoded by the product's codec.

use anello_protocol::{
    codec::{self, DecodeError},
    message::{
        client::{Answer, Written},
        gossip::GossipPacket,
        replica::{
            ForwardWrite, Held, ReadVersions, Refusal, RelayVersions, RelayedAck, StoreVersions,
            Stored,
        },
    },
    time::Moment,
};
use serde::{Deserialize, Serialize};

/// The number of a call at its caller.
pub type WireCall = u64;

/// A packet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Frame {
    /// Membership's.
    Gossip(GossipPacket),
    /// A question, with the deadline of its caller.
    Ask(WireCall, u64, Ask),
    /// Its answer.
    Answer(WireCall, AnswerFrame),
    /// An acknowledgement that nobody answers.
    Ack(RelayedAck),
}

/// What one node asks of another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Of a vnode.
    Read(ReadVersions),
    /// Of a vnode.
    Store(StoreVersions),
    /// Of a coordinator.
    Relay(RelayVersions),
    /// Of a coordinator.
    Forward(ForwardWrite),
}

/// What it answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum AnswerFrame {
    /// To a read.
    Read(Result<Held, Refusal>),
    /// To a store or a relay.
    Stored(Result<Stored, Refusal>),
    /// To a forwarded write.
    Forwarded(Result<Answer<Written>, Refusal>),
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

    /// The deadline of a question.
    pub fn deadline(us: u64) -> Moment {
        Moment(us)
    }
}
