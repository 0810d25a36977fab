//! What becomes of what only this node holds, while it is quarantined.
//!
//! A node that was merely away keeps it, and hands it out afterwards. A store that was put back from a copy
//! may hold what was deleted, and forgotten, since the copy was made:
//!
//! ```text
//! Weighing ──► older than the grace ──► Asking ──► nobody holds anything ──► Dropping
//!     └──────► younger: kept               └─────► somebody does: kept
//! ```
//!
//! Where somebody can't be asked it stays, and the tree is not in step. A replica that is quarantined
//! itself shows nothing; after a while the word of those that serve is enough, because two nodes
//! that were both put back from copies would wait for each other for ever.

use std::{collections::BTreeSet, time::Duration};

use anello_protocol::{
    id::NodeId,
    message::{
        repair::PurgeVersions,
        replica::{Held, ReadVersions, Refusal, Want},
    },
    time::HybridTime,
    version::VersionsDigest,
};

use super::{
    Exchange, Failure, expect,
    transfer::{Stage, TRIES_MAX, Transfer},
};
use crate::{
    desk::{Desk, Owner},
    events::{CallFailure, Incoming, Outgoing, Report},
    looking::{Look, Looked},
    quarantine::{Lone, Others, PATIENCE, Verdict, verdict},
};

/// What the other replicas say of a key.
#[derive(Debug)]
pub(super) struct Inquiry {
    /// What is held here.
    digest: VersionsDigest,
    latest: HybridTime,
    /// Who has not answered yet.
    waits_for: BTreeSet<NodeId>,
    /// Whether somebody has said that it holds nothing.
    has_word: bool,
    is_unknown: bool,
    /// Whether to ask again may help.
    is_passing: bool,
}

impl Exchange {
    /// A key of which this node has what the other lacks, and which it must not hand out: says whether there
    /// is something to be done about it.
    pub(super) fn weigh(&mut self, desk: &mut Desk, number: u64, transfer: &mut Transfer) -> bool {
        // What somebody else holds was not forgotten.
        if !desk.was_restored || !transfer.theirs.is_empty() {
            self.is_one_way = true;
            return false;
        }
        transfer.stage = Stage::Weighing;
        let key = transfer.what.key.clone();
        desk.look(Owner::Transfer(self.id, number), Look::Versions(key));
        true
    }

    /// The store has been looked at.
    pub(crate) fn weighed(&mut self, desk: &mut Desk, number: u64, looked: Looked) {
        let Some(mut transfer) = self.transfers.remove(&number) else { return };
        match looked {
            Looked::Versions(versions) if versions.is_empty() => {}
            Looked::Versions(versions) => {
                let latest = versions.latest();
                let others = desk.others(self.keyspace, self.partition);
                // A tombstone is nobody's victim. And where nobody can have forgotten anything, because all
                // others are only being filled, nothing was.
                if versions.is_deleted()
                    || others.is_empty()
                    || self.judge(desk, latest, Others::SomeUnknown) == Verdict::Push
                {
                    self.is_one_way = true;
                } else {
                    let held = (versions.digest(), latest);
                    self.inquire(desk, number, &mut transfer, others, held);
                    self.transfers.insert(number, transfer);
                    return;
                }
            }
            other => {
                if let Looked::Failed(sentence) = other {
                    desk.report(Report::StoreFailed(sentence));
                }
                self.transfer_failed(desk, &mut transfer, &Failure::Here);
            }
        }
        desk.bytes_at_hand -= transfer.bytes();
    }

    fn inquire(
        &self,
        desk: &mut Desk,
        number: u64,
        transfer: &mut Transfer,
        others: Vec<NodeId>,
        (digest, latest): (VersionsDigest, HybridTime),
    ) {
        for other in &others {
            let (epoch, key) = (desk.epoch(), transfer.what.key.clone());
            let read = ReadVersions { epoch, key, want: Want::Digest };
            let owner = Owner::Lone(self.id, number, other.clone());
            desk.send(owner, other, Outgoing::Read(read));
        }
        let waits_for = others.into_iter().collect();
        let (has_word, is_unknown, is_passing) = (false, false, false);
        transfer.stage =
            Stage::Asking(Inquiry { digest, latest, waits_for, has_word, is_unknown, is_passing });
    }

    /// Another replica has answered about a key, or not.
    pub(crate) fn heard(
        &mut self,
        desk: &mut Desk,
        number: u64,
        from: &NodeId,
        outcome: Result<Incoming, CallFailure>,
    ) {
        let Some(mut transfer) = self.transfers.remove(&number) else { return };
        if let Stage::Asking(inquiry) = &mut transfer.stage {
            let holds_some = inquiry.heard(desk, from, outcome);
            let is_open = !holds_some && !inquiry.waits_for.is_empty();
            if is_open || !self.decide(desk, number, &mut transfer, holds_some) {
                self.transfers.insert(number, transfer);
                return;
            }
        }
        desk.bytes_at_hand -= transfer.bytes();
    }

    /// Says whether the key is done.
    fn decide(
        &mut self,
        desk: &mut Desk,
        number: u64,
        transfer: &mut Transfer,
        holds_some: bool,
    ) -> bool {
        let Stage::Asking(inquiry) = &transfer.stage else { return true };
        let others = match () {
            () if holds_some => Others::Something,
            () if inquiry.has_word && !inquiry.is_unknown => Others::AllNothing,
            () => Others::SomeUnknown,
        };
        let (digest, is_passing) = (inquiry.digest, inquiry.is_passing);
        match self.judge(desk, inquiry.latest, others) {
            Verdict::Push => self.is_one_way = true,
            Verdict::Drop => {
                let (epoch, key) = (desk.epoch(), transfer.what.key.clone());
                let to = desk.node.clone();
                let purge = PurgeVersions { epoch, key, digest };
                desk.send(Owner::Transfer(self.id, number), &to, Outgoing::Purge(purge));
                transfer.stage = Stage::Dropping;
                return false;
            }
            Verdict::Keep => {
                let what = &mut transfer.what;
                what.tries += 1;
                match is_passing && what.tries < TRIES_MAX {
                    true => self.moves.push_back(what.clone()),
                    false => self.is_unresolved = true,
                }
            }
        }
        true
    }

    fn judge(&self, desk: &Desk, latest: HybridTime, others: Others) -> Verdict {
        verdict(&Lone {
            was_restored: desk.was_restored && desk.quarantined.contains(&self.partition),
            latest,
            wall_ms: desk.now.wall_ms,
            grace: Duration::from_millis(desk.terms(self.keyspace).grace_ms),
            others,
        })
    }
}

impl Inquiry {
    /// Takes in what a replica has answered: says whether that is that it holds something.
    fn heard(
        &mut self,
        desk: &mut Desk,
        from: &NodeId,
        outcome: Result<Incoming, CallFailure>,
    ) -> bool {
        self.waits_for.remove(from);
        let held = expect(outcome, |incoming| match incoming {
            Incoming::Read(held) => Some(held),
            _ => None,
        });
        let failure = match held {
            Ok(held) => {
                desk.refusing.remove(from);
                self.has_word = true;
                return match held {
                    Held::Digest(digest) => digest != VersionsDigest::default(),
                    Held::Full(versions) => !versions.is_empty(),
                };
            }
            Err(failure) => failure,
        };
        if let Failure::Refused(Refusal::Quarantined) = failure {
            desk.peer_quarantined(from);
            let now = desk.now.moment;
            let since = *desk.refusing.entry(from.clone()).or_insert(now);
            self.is_unknown |= now.since(since) < PATIENCE;
        } else {
            desk.refusing.remove(from);
            self.is_unknown = true;
            self.is_passing |= !failure.is_final();
        }
        false
    }
}
