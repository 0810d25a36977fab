//! What nodes tell each other about who is there, and how they agree on it.
//!
//! Every [`GossipPacket`] stands for itself: an answer is a packet of its own, so that a slow vote holds up
//! nothing. Packets may be lost, doubled, delayed and reordered; each is safe to handle at any time. What a
//! node says to the sender of a packet at once goes back as the call's reply: half the traffic of a fleet
//! at rest is answers to digests.
//!
//! ```text
//! heartbeats, every round, with a few peers       founding and joining
//!
//!   A --Digest--> B    what I have heard of         new --Knock------> seed
//!   A <--Delta--- B    what you lack, what I want   new <--Answer----- seed    nobody here knows of one
//!   A --Delta---> B    what you want                new <--Decided---- member  you are in
//!
//! a new cluster state (Paxos, one decree an epoch)
//!
//!   A --Prepare--> all      A <--Promise-- all      or Rejected, by who has promised a later ballot
//!   A --Accept---> all      A <--Accepted- all      a majority: the decree is chosen
//!   A --Decided--> all      A <--Learned-- all
//!
//! a change of the ring, partition by partition
//!
//!   owner --HandedOver--> driver     a partition can enter its next phase, as far as this owner is concerned
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    cluster::{
        ClusterState, MAX_KEYSPACES, MAX_MEMBERS, MAX_PARTITIONS, MAX_REPLICAS_PER_DATACENTER,
        MAX_WEIGHT, Member, Phase, Replication,
    },
    id::{ClusterName, Epoch, KeyspaceId, NodeId, PartitionId},
};

/// The most nodes that one digest or delta speaks of; a larger cluster is covered in turns.
pub const MAX_BEATS: usize = 64;
/// The longest address, in bytes: a DNS name, a colon, a port.
pub const MAX_ADDRESS_BYTES: usize = 260;
/// The longest program version, in bytes.
pub const MAX_PROGRAM_BYTES: usize = 64;

/// The most partitions that a packet says have been handed over.
pub const MAX_HANDED_OVER: usize = 4096;

/// One thing that a node tells another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GossipPacket {
    /// The sender's cluster. A node never heeds a packet of another one.
    pub cluster: ClusterName,
    /// What it says.
    pub body: GossipBody,
}
super::message!(GossipPacket => Option<GossipPacket>, GOSSIP_PACKET, Control, false);

/// What a packet says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum GossipBody {
    /// "I have no cluster. Do you know of one? Take me in." Sent to the seeds until something comes of
    /// it; passed on to the member that takes nodes in.
    Knock {
        /// Who asks.
        candidate: Box<Candidate>,
        /// Into how many partitions its configuration cuts the hash space.
        partitions: u32,
    },
    /// What comes of a knock, as long as it is not yet [`GossipBody::Decided`].
    Answer {
        /// The [`Candidate::birth`] of the knock, so that an answer to a former life is not heeded.
        birth: u64,
        /// What comes of it.
        answer: KnockAnswer,
    },
    /// "This is how new my news is." Answered by a delta.
    Digest {
        /// The sender's own heartbeat.
        pulse: Pulse,
        /// The newest heartbeats that it has of others, [`MAX_BEATS`] at most.
        heard: Vec<Beat>,
    },
    /// "Here is news that you lack, and this I lack."
    Delta {
        /// The cluster state that the sender knows.
        epoch: Epoch,
        /// Heartbeats newer than those of the digest, [`MAX_BEATS`] at most.
        pulses: Vec<Pulse>,
        /// Of whom the digest had newer ones, [`MAX_BEATS`] at most. Answered by a delta that wants
        /// nothing.
        wanted: Vec<NodeId>,
    },
    /// A step of the vote on the state with that number.
    Vote {
        /// The epoch that is voted on.
        epoch: Epoch,
        /// The ballot.
        ballot: Ballot,
        /// The step.
        step: VoteStep,
    },
    /// "This was chosen." Answered by [`GossipBody::Learned`].
    Decided(Box<Decree>),
    /// "I act under that state."
    Learned(Epoch),
    /// "These partitions can go on, as far as I am concerned": the sender acts under the phase that each is
    /// in, and is in step with whom it has to be. Sent to the member that drives the change, until the
    /// state says that they have gone on.
    HandedOver {
        /// Since when that is asked: see [`crate::cluster::RingChange::asked`].
        change: Epoch,
        /// The partitions, at most [`MAX_HANDED_OVER`], with the phases that they can leave.
        partitions: Vec<(PartitionId, Phase)>,
    },
}

/// A step of a vote (Lamport, "The Part-Time Parliament", 1998).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum VoteStep {
    /// "Heed no earlier ballot, and tell me what you have accepted."
    Prepare {
        /// Whether the change may move ownership: the voter refuses data writes from its promise until
        /// it knows the outcome, and says what data it holds.
        freeze: bool,
    },
    /// "I heed no earlier ballot." Durable before it is said.
    Promise {
        /// What the voter has accepted last, in which ballot.
        accepted: Option<Box<(Ballot, Decree)>>,
        /// The keyspaces that it holds data of; empty unless the prepare asked to freeze.
        holding: BTreeSet<KeyspaceId>,
    },
    /// "I have promised a later ballot."
    Rejected {
        /// Which.
        promised: Ballot,
    },
    /// "Accept this."
    Accept {
        /// The value of the ballot.
        decree: Box<Decree>,
    },
    /// "I have." Durable before it is said.
    Accepted,
    /// "Nothing that was proposed up to this ballot was or can be chosen": said after every voter has
    /// promised and none had accepted anything. What these ballots froze may thaw.
    Release,
}

/// A ballot's number: totally ordered, never used twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Above every round that its proposer has heard of in this epoch.
    pub round: u64,
    /// Its proposer.
    pub proposer: NodeId,
    /// Drawn at random, so that a proposer that lost its memory doesn't use a number again.
    pub salt: u64,
}

/// What a vote decides: the next cluster state, and how its members came to be in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decree {
    /// Drawn when the cluster was founded: two clusters of one name are told apart by it.
    pub origin: u64,
    /// The state.
    pub state: ClusterState,
    /// The [`Candidate::birth`] under which each member was taken in. A member that has another one has
    /// lost its disk since, and with it the memory of its votes.
    pub admitted: BTreeMap<NodeId, u64>,
}

/// A node that wants to be taken in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The node, as it would be a member.
    pub member: Member,
    /// Drawn when its data directory was empty, and kept in it.
    pub birth: u64,
}

/// What comes of a knock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KnockAnswer {
    /// The one who answers knows of no cluster either.
    NoCluster,
    /// There is a cluster; why it takes a while, in a sentence.
    Wait(String),
    /// The cluster can't take the node in as things are; why, in a sentence.
    NotNow(String),
    /// The cluster will never take the node in as it is; why, in a sentence.
    Never(String),
}

/// How new a heartbeat is. Of two of one node the one with the higher generation, then version is newer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// The node whose heart beats.
    pub node: NodeId,
    /// Its starts, counted.
    pub generation: u64,
    /// Its heartbeats since, counted.
    pub version: u64,
}

/// A node's heartbeat, with what everybody is to know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulse {
    /// How new it is, and whose.
    pub beat: Beat,
    /// The cluster state that the node acts under.
    pub epoch: Epoch,
    /// The version of its program.
    pub program: String,
    /// It is shutting down: this is its last.
    pub leaving: bool,
}

/// A packet that no honest node sends.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not an honest packet: {0}")]
pub struct BadPacket(&'static str);

fn ensure(holds: bool, otherwise: &'static str) -> Result<(), BadPacket> {
    if holds { Ok(()) } else { Err(BadPacket(otherwise)) }
}

impl GossipPacket {
    /// Checks what decoding alone doesn't: that everything is within its bounds and makes sense.
    pub fn check(&self) -> Result<(), BadPacket> {
        match &self.body {
            GossipBody::Knock { candidate, .. } => check_member(&candidate.member),
            GossipBody::Digest { pulse, heard } => {
                ensure(heard.len() <= MAX_BEATS, "a digest of too many")?;
                check_pulse(pulse)
            }
            GossipBody::Delta { pulses, wanted, .. } => {
                ensure(pulses.len() <= MAX_BEATS, "a delta of too many")?;
                ensure(wanted.len() <= MAX_BEATS, "too many wanted")?;
                pulses.iter().try_for_each(check_pulse)
            }
            GossipBody::Vote { step, epoch, .. } => match step {
                VoteStep::Promise { accepted, holding } => {
                    ensure(holding.len() <= MAX_KEYSPACES, "too many keyspaces held")?;
                    accepted.as_ref().map_or(Ok(()), |accepted| accepted.1.check_for(*epoch))
                }
                VoteStep::Accept { decree } => decree.check_for(*epoch),
                _ => Ok(()),
            },
            GossipBody::Decided(decree) => decree.check(),
            GossipBody::HandedOver { partitions, .. } => {
                ensure(partitions.len() <= MAX_HANDED_OVER, "too many partitions handed over")
            }
            GossipBody::Answer { .. } | GossipBody::Learned(_) => Ok(()),
        }
    }
}

impl Decree {
    /// Checks that its state is one that a cluster can be in.
    pub fn check(&self) -> Result<(), BadPacket> {
        let state = &self.state;
        ensure(state.epoch.0 > 0, "epoch 0")?;
        let partitions = state.partitions;
        ensure(
            partitions.is_power_of_two() && partitions <= MAX_PARTITIONS,
            "partitions that are no power of two",
        )?;
        ensure((1..=MAX_MEMBERS).contains(&state.members.len()), "no or too many members")?;
        ensure(state.keyspaces.len() <= MAX_KEYSPACES, "too many keyspaces")?;
        ensure(
            state.members.keys().all(|id| self.admitted.contains_key(id)),
            "a member that was never taken in",
        )?;
        for (id, member) in &state.members {
            ensure(*id == member.id, "a member under another's name")?;
            check_member(member)?;
        }
        if let Some(change) = &state.change {
            let phases = u32::try_from(change.phases.len());
            ensure(phases == Ok(partitions), "a change of other partitions")?;
            let known = change.old.owners.keys().all(|id| state.members.contains_key(id));
            ensure(known, "an old owner that is no member")?;
            let weights = change.old.owners.values();
            let within = weights.into_iter().all(|weight| *weight > 0.0 && *weight <= MAX_WEIGHT);
            ensure(within, "a bad weight")?;
        }
        for keyspace in state.keyspaces.values() {
            if let Replication::PerDatacenter(counts) = &keyspace.config.replication {
                let within = counts.values().all(|count| *count <= MAX_REPLICAS_PER_DATACENTER);
                ensure(within, "too many replicas")?;
            }
        }
        Ok(())
    }

    fn check_for(&self, epoch: Epoch) -> Result<(), BadPacket> {
        ensure(self.state.epoch == epoch, "a decree of another epoch")?;
        self.check()
    }
}

fn check_member(member: &Member) -> Result<(), BadPacket> {
    let address = |address: &str| (1..=MAX_ADDRESS_BYTES).contains(&address.len());
    ensure(address(&member.quic) && address(&member.http), "a bad address")?;
    ensure(member.weight > 0.0 && member.weight <= MAX_WEIGHT, "a bad weight")
}

fn check_pulse(pulse: &Pulse) -> Result<(), BadPacket> {
    ensure(pulse.program.len() <= MAX_PROGRAM_BYTES, "a program version too long")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::MemberState,
        codec,
        id::{Datacenter, Rack},
    };
    use proptest::prelude::*;

    fn decree() -> Decree {
        let id = NodeId::new("eu-a-1").expect("a good name");
        let member = Member {
            id: id.clone(),
            datacenter: Datacenter::new("eu").expect("a good name"),
            rack: Rack::new("a").expect("a good name"),
            weight: 1.0,
            quic: "127.0.0.1:7400".into(),
            http: "127.0.0.1:7480".into(),
            state: MemberState::Up,
        };
        let name = ClusterName::new("demo").expect("a good name");
        let state = ClusterState::founded(name, 256, member);
        Decree { origin: 7, state, admitted: BTreeMap::from([(id, 7)]) }
    }

    fn packet(body: GossipBody) -> GossipPacket {
        GossipPacket { cluster: ClusterName::new("demo").expect("a good name"), body }
    }

    #[test]
    fn a_decree_that_makes_no_sense_is_refused() {
        assert_eq!(decree().check(), Ok(()));
        let spoil = |spoil: fn(&mut Decree)| {
            let mut decree = decree();
            spoil(&mut decree);
            packet(GossipBody::Decided(Box::new(decree))).check()
        };
        assert!(spoil(|decree| decree.state.partitions = 100).is_err());
        assert!(spoil(|decree| decree.state.partitions = 0).is_err());
        assert!(spoil(|decree| decree.state.members.clear()).is_err());
        assert!(spoil(|decree| decree.admitted.clear()).is_err());
        assert!(spoil(|decree| decree.state.epoch = Epoch(0)).is_err());
        assert!(
            spoil(|decree| decree.state.members.values_mut().for_each(|m| m.weight = f64::NAN))
                .is_err()
        );
    }

    #[test]
    fn a_vote_carries_a_decree_of_its_own_epoch() {
        let proposer = NodeId::new("eu-a-1").expect("a good name");
        let ballot = Ballot { round: 1, proposer, salt: 0 };
        let accept = VoteStep::Accept { decree: Box::new(decree()) };
        let vote = |epoch| GossipBody::Vote {
            epoch: Epoch(epoch),
            ballot: ballot.clone(),
            step: accept.clone(),
        };
        assert!(packet(vote(1)).check().is_ok());
        assert!(packet(vote(2)).check().is_err());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let check = |bytes: &[u8]| codec::decode::<GossipPacket>(bytes).map(|packet| packet.check());
            let _ = check(&bytes);
            let mut mutated = codec::encode(&packet(GossipBody::Decided(Box::new(decree()))));
            let at = at.index(mutated.len());
            mutated[at] = byte;
            let _ = check(&mutated);
        }
    }
}
