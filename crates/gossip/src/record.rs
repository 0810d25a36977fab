//! What a node remembers of its membership, and the port to where it keeps that.
//!
//! One small record, replaced as a whole: a vote, the state it was cast under and the count of starts can't
//! come apart.

use std::sync::{Arc, Mutex, PoisonError};

use anello_protocol::{
    codec::{self, DecodeError},
    id::Epoch,
    message::gossip::Decree,
};
use serde::{Deserialize, Serialize};

use crate::agreement::acceptor::{Acceptor, Memory};

/// What must survive a crash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Drawn when the data directory was empty.
    pub(crate) birth: u64,
    /// The node's starts, counted.
    pub(crate) generation: u64,
    /// The newest cluster state known; none before the node is in a cluster.
    pub(crate) decree: Option<Decree>,
    /// The node's vote on the next one.
    pub(crate) acceptor: Acceptor,
}

impl Record {
    /// The record of a node that has never been in a cluster.
    pub(crate) fn new(birth: u64) -> Self {
        let acceptor = Acceptor::new(Epoch(0), Memory::Whole);
        Self { birth, generation: 0, decree: None, acceptor }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        codec::encode_stored(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_stored(bytes)
    }
}

/// What is left of a record that may not be the newest one that the node has saved, for a node that goes on
/// from it: it stays in its cluster, and recalls its votes before it votes again. Nothing is left of one
/// that can't be read, or from before the node was in a cluster: it can't be known how it was taken in.
pub fn forget_votes(record: &[u8]) -> Option<Vec<u8>> {
    let mut record = Record::decode(record).ok()?;
    let state = &record.decree.as_ref()?.state;
    // A sole member has nobody to recall a vote from, and needs nobody's: what it knows is all there is.
    let memory = if state.members.len() > 1 { Memory::Lost } else { Memory::Whole };
    record.acceptor = Acceptor::new(state.epoch.next(), memory);
    Some(record.encode())
}

/// Where a node keeps its membership record.
pub trait MembershipStore: Send + Sync {
    /// The record's bytes; none if none was ever saved.
    ///
    /// An error means that the record may be there and can't be read: the node must not serve.
    fn load(&self) -> Result<Option<Vec<u8>>, String>;

    /// Replaces the record, and calls back once it is durable, or failed to be. May call back before it
    /// returns, from any thread. Of two saves the later one stays.
    fn save(&self, record: Vec<u8>, done: Box<dyn FnOnce(Result<(), String>) + Send>);
}

/// Keeps the record in memory: for tests and simulations. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryMembershipStore(Arc<Mutex<Option<Vec<u8>>>>);

impl MembershipStore for MemoryMembershipStore {
    fn load(&self) -> Result<Option<Vec<u8>>, String> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn save(&self, record: Vec<u8>, done: Box<dyn FnOnce(Result<(), String>) + Send>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(record);
        done(Ok(()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use anello_protocol::{
        cluster::{ClusterState, Member, MemberState},
        id::{ClusterName, Datacenter, NodeId, Rack},
    };

    use super::*;

    fn member(id: &str) -> Member {
        Member {
            id: NodeId::new(id).expect("a good name"),
            datacenter: Datacenter::new("eu").expect("a good name"),
            rack: Rack::new("r").expect("a good name"),
            weight: 1.0,
            quic: "127.0.0.1:1".into(),
            http: String::new(),
            state: MemberState::Up,
        }
    }

    fn record(members: &[&str]) -> Record {
        let name = ClusterName::new("test").expect("a good name");
        let mut state = ClusterState::founded(name, 8, member("a"));
        state.members = members.iter().map(|id| (member(id).id, member(id))).collect();
        let acceptor = Acceptor::new(state.epoch.next(), Memory::Whole);
        let decree = Some(Decree { origin: 7, state, admitted: BTreeMap::new() });
        Record { birth: 3, generation: 5, decree, acceptor }
    }

    #[test]
    fn without_its_votes_a_member_recalls_them_and_is_still_a_member() {
        for (members, recalls) in [(&["a", "b"][..], true), (&["a"], false)] {
            let before = record(members);
            let after = forget_votes(&before.encode()).expect("it is readable");
            let after = Record::decode(&after).expect("it is readable");
            assert_eq!(after.acceptor.must_recall(), recalls, "{members:?}");
            assert_eq!(after.acceptor.epoch(), before.acceptor.epoch());
            assert_eq!((after.decree, after.birth), (before.decree, before.birth));
        }
    }

    #[test]
    fn of_what_names_no_cluster_nothing_is_left() {
        assert_eq!(forget_votes(&Record::new(3).encode()), None);
        assert_eq!(forget_votes(b"\x01damaged"), None);
    }
}
