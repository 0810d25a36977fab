//! A member's vote on the next epoch.
//!
//! Invariants: a promise only grows; nothing is accepted below a promise; an acceptor without memory of
//! how it voted does not vote. Whoever calls makes every change durable before its answer is sent.
//!
//! A member that lost its disk may have voted and forgotten it. It gets its vote back for one epoch by
//! taking promises of a ballot of its own from so many others that every majority which its lost
//! vote could have completed contains one of them, and by adopting the latest thing that they accepted:
//! what was chosen with its lost vote, it then holds again; what wasn't, can't be chosen with it any
//! more. Had none accepted anything, no later epoch existed that it could have voted in either, and its
//! memory is whole; else it has to recall again in the next epoch. What is not recalled is a freeze: a
//! member that loses its disk in the second between its promise and the outcome takes writes again.

use anello_protocol::{
    id::Epoch,
    message::gossip::{Ballot, Decree},
};
use serde::{Deserialize, Serialize};

/// A member's vote on one epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Acceptor {
    epoch: Epoch,
    promised: Option<Ballot>,
    accepted: Option<(Ballot, Decree)>,
    /// The last ballot that froze the data, while something it proposed may yet be chosen.
    frozen_by: Option<Ballot>,
    memory: Memory,
}

/// Whether the acceptor knows how it voted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Memory {
    /// In every epoch.
    Whole,
    /// It lost its disk after it was taken in.
    Lost,
    /// It lost its disk, and has recalled its vote on that epoch only.
    RecalledFor(Epoch),
}

/// What an acceptor makes of a ballot.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Vote {
    /// It agrees; to be made durable, then said.
    Agreed,
    /// It has promised a later ballot.
    Rejected(Ballot),
    /// It does not know how it voted, and says nothing.
    Abstained,
}

impl Acceptor {
    /// An acceptor that has not voted on that epoch, or has forgotten.
    pub(crate) fn new(epoch: Epoch, memory: Memory) -> Self {
        Self { epoch, promised: None, accepted: None, frozen_by: None, memory }
    }

    /// The acceptor for the epoch after one that was chosen.
    pub(crate) fn follow(&self, chosen: Epoch) -> Self {
        let memory = if self.memory == Memory::Whole { Memory::Whole } else { Memory::Lost };
        Self::new(chosen.next(), memory)
    }

    /// The epoch that is voted on.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The highest round that it has promised.
    pub(crate) fn round(&self) -> u64 {
        self.promised.as_ref().map_or(0, |ballot| ballot.round)
    }

    /// What it has accepted last.
    pub(crate) fn accepted(&self) -> Option<&(Ballot, Decree)> {
        self.accepted.as_ref()
    }

    /// Whether data writes are refused until the vote's outcome is known.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen_by.is_some()
    }

    /// Whether it has to recall its vote before it can vote on this epoch.
    pub(crate) fn must_recall(&self) -> bool {
        match self.memory {
            Memory::Whole => false,
            Memory::Lost => true,
            Memory::RecalledFor(epoch) => epoch != self.epoch,
        }
    }

    /// Whether that is the ballot which it has promised last.
    pub(crate) fn has_promised(&self, ballot: &Ballot) -> bool {
        self.promised.as_ref() == Some(ballot)
    }

    /// Somebody prepares a ballot.
    pub(crate) fn prepare(&mut self, ballot: &Ballot, freeze: bool) -> Vote {
        if self.must_recall() {
            return Vote::Abstained;
        }
        if let Some(promised) = self.promised.as_ref().filter(|promised| *promised > ballot) {
            return Vote::Rejected(promised.clone());
        }
        self.promised = Some(ballot.clone());
        if freeze {
            self.frozen_by = Some(ballot.clone());
        }
        Vote::Agreed
    }

    /// Somebody proposes a decree.
    pub(crate) fn accept(&mut self, ballot: &Ballot, decree: &Decree) -> Vote {
        let vote = self.prepare(ballot, false);
        if vote == Vote::Agreed {
            self.accepted = Some((ballot.clone(), decree.clone()));
        }
        vote
    }

    /// Somebody found that nothing proposed up to that ballot was or can be chosen. Returns whether that
    /// ends a freeze.
    pub(crate) fn release(&mut self, ballot: &Ballot) -> bool {
        let releases = self.frozen_by.as_ref().is_some_and(|frozen_by| frozen_by <= ballot);
        if releases {
            self.frozen_by = None;
        }
        releases
    }

    /// Enough others have promised a ballot of this member's, and the latest that they have accepted
    /// is this.
    pub(crate) fn recall(&mut self, ballot: &Ballot, accepted: Option<(Ballot, Decree)>) {
        self.memory =
            if accepted.is_none() { Memory::Whole } else { Memory::RecalledFor(self.epoch) };
        self.promised = Some(ballot.clone());
        self.accepted = accepted;
    }
}
