//! Keeping hints: joining versions into what is kept for an owner of a key, committing that, removing it.
//!
//! The shape is a vnode's (`replica/machine.rs`), with a removal as one more kind of change.

use std::sync::Arc;

use anello_protocol::{
    causality::{Dot, Incarnation},
    id::NodeId,
    key::DataKey,
    message::{
        hint::StoreHint,
        replica::{Refusal, Stored},
    },
    time::Now,
    version::{ConflictRule, Versions},
};

use super::{
    events::{CommitNumber, CommitOutcome, Effect, Reply, Request, Token},
    machine::{Freezing, HintStore},
    open::{KeyState, OpenHint, Removal, Removed, Task, Waiting, Why},
    store::{Hint, HintChange},
};
use crate::{replica, store::VnodeRecord};

/// An owner and a key: what one hint is for.
pub(super) type Place = (NodeId, DataKey);

#[derive(Debug)]
pub(super) struct CommitUnderWay {
    place: Place,
    /// The life of the hint store in which it was issued.
    life: Incarnation,
    record: Option<VnodeRecord>,
    /// What is answered once it has ended, and what each request weighs.
    replies: Vec<(Token, Reply, usize)>,
    removal: Option<Removal>,
}

/// What is to be kept of a key in place of what is.
pub(super) struct Kept {
    pub(super) versions: Versions,
    pub(super) rule: ConflictRule,
    pub(super) minted: Option<Dot>,
    pub(super) record: Option<VnodeRecord>,
    /// Whether a write counts it.
    pub(super) counts: bool,
}

impl HintStore {
    /// A request that changes what is kept.
    pub(super) fn take_in(&mut self, now: Now, token: Token, request: Request) {
        let bytes = request.weight();
        if !self.has_room(1, bytes) {
            return self.effects.push_back(Effect::Reply(token, request.refused(Refusal::Busy)));
        }
        let (place, task) = match request {
            Request::Store(hint) => {
                ((hint.owner.clone(), hint.store.key.clone()), Task::Store(token, hint))
            }
            Request::Mint(hint) => {
                ((hint.owner.clone(), hint.mint.key.clone()), Task::Mint(token, hint))
            }
            Request::Read(_) | Request::Check(_) | Request::Credit(..) => return,
        };
        self.load.requests += 1;
        self.load.bytes += bytes;
        self.owner(&place.0);
        self.enqueue(now, &place, Waiting { task, bytes });
    }

    /// Whether so much more may wait.
    pub(super) fn has_room(&self, requests: usize, bytes: usize) -> bool {
        let bytes_max = self.config.requests_bytes_max.max(bytes);
        (self.load.requests == 0 || self.load.requests + requests <= self.config.requests_max)
            && self.load.bytes + bytes <= bytes_max
    }

    /// Does something with what is kept, as soon as that is known.
    pub(super) fn enqueue(&mut self, now: Now, place: &Place, waiting: Waiting) {
        match (self.keys.get_mut(place), &waiting.task) {
            (Some(KeyState::Removing { hint, .. }), Task::Look(look)) => {
                let (look, hint) = (*look, hint.clone());
                self.looked(look, Ok((Some(hint), true)));
            }
            (Some(KeyState::Loading { queue, .. } | KeyState::Removing { queue, .. }), _) => {
                queue.push(waiting);
            }
            (Some(KeyState::Open(_)), _) => self.carry_out(now, place, waiting),
            (None, _) => {
                self.load_for(place, vec![waiting], None);
            }
        }
    }

    fn load_for(&mut self, place: &Place, queue: Vec<Waiting>, counted: Option<Option<u64>>) {
        self.keys.insert(place.clone(), KeyState::Loading { queue, counted });
        self.effects.push_back(Effect::Load(place.0.clone(), place.1.clone()));
    }

    pub(super) fn loaded(&mut self, now: Now, place: Place, found: Result<Option<Hint>, String>) {
        match self.keys.remove(&place) {
            Some(KeyState::Loading { queue, counted }) => match found {
                Ok(found) => {
                    if let Some(counted) = counted {
                        let weight = found.as_ref().map(|hint| hint.weight(&place.1));
                        let since_ms = found.as_ref().map_or(0, |hint| hint.since_ms);
                        self.owner(&place.0).count(counted, weight, since_ms);
                    }
                    self.reopen(now, &place, OpenHint::new(found), queue);
                }
                Err(sentence) => queue.into_iter().for_each(|Waiting { task, bytes }| {
                    let refusal = Refusal::Storage(sentence.clone());
                    self.refuse(now, &place, task, bytes, refusal);
                }),
            },
            // Nobody asked for it: what is known is newer.
            Some(other) => drop(self.keys.insert(place, other)),
            None => {}
        }
    }

    /// What is kept is known, and those that waited go on.
    fn reopen(&mut self, now: Now, place: &Place, open: OpenHint, queue: Vec<Waiting>) {
        self.keys.insert(place.clone(), KeyState::Open(open));
        for Waiting { task, bytes } in queue {
            // The cluster may have changed, or be frozen, since the request was admitted.
            let (task, admitted) = match task {
                Task::Store(token, hint) => {
                    let request = Request::Store(hint);
                    let admitted = self.admit(&request);
                    let Request::Store(hint) = request else { unreachable!("it was just made") };
                    (Task::Store(token, hint), admitted)
                }
                Task::Mint(token, hint) => {
                    let request = Request::Mint(hint);
                    let admitted = self.admit(&request);
                    let Request::Mint(hint) = request else { unreachable!("it was just made") };
                    (Task::Mint(token, hint), admitted)
                }
                task @ (Task::Look(_) | Task::Remove(_)) => (task, Ok(())),
            };
            match admitted {
                Ok(()) => self.enqueue(now, place, Waiting { task, bytes }),
                Err(refusal) => self.refuse(now, place, task, bytes, refusal),
            }
        }
        self.close_if_settled(place);
    }

    fn refuse(&mut self, now: Now, place: &Place, task: Task, bytes: usize, refusal: Refusal) {
        match task {
            Task::Store(token, _) => self.reply(token, Reply::Store(Err(refusal)), bytes),
            Task::Mint(token, _) => self.reply(token, Reply::Mint(Err(refusal)), bytes),
            Task::Look(look) => self.looked(look, Err(refusal)),
            Task::Remove(removal) => self.removal_ended(now, place, removal, Removed::Failed),
        }
    }

    /// Carries a task out on a key that is open.
    fn carry_out(&mut self, now: Now, place: &Place, Waiting { task, bytes }: Waiting) {
        match task {
            Task::Store(token, hint) => self.store(now, place, token, hint, bytes),
            Task::Mint(token, hint) => self.mint(now, place, token, hint, bytes),
            Task::Look(look) => {
                let open = self.open(place);
                let seen = (open.committed().cloned(), open.latest().is_some());
                self.looked(look, Ok(seen));
            }
            Task::Remove(removal) => self.remove(now, place, removal),
        }
    }

    fn store(&mut self, now: Now, place: &Place, token: Token, hint: StoreHint, bytes: usize) {
        let (rule, counts) = (hint.store.rule, hint.counts);
        let open = self.open(place);
        let (nothing, latest) = (Versions::new(), open.latest());
        let held = latest.map_or(&nothing, |hint| &hint.versions);
        let (joined, lost_to) = replica::join(held, hint.store);
        let stored = Stored { lost_to, is_quarantined: false };
        let minted = latest.and_then(|hint| hint.minted);
        // That a write counts it has to be remembered even if there is nothing to join.
        let counted = latest.filter(|known| counts && !known.counts);
        let joined = joined.or_else(|| counted.map(|known| known.versions.clone()));
        // What is joined with may hold a fresh dot, whose own commit may yet fail.
        let rests_on = open.last_commit();
        let record = rests_on.and_then(|_| self.issuer.record_to_commit());
        let kept = joined.map(|versions| Kept { versions, rule, minted, record, counts });
        self.keep(now, place, kept, (token, Reply::Store(Ok(stored)), bytes));
    }

    /// Commits what is to be kept, if that is anything new; the answer follows.
    pub(super) fn keep(
        &mut self,
        now: Now,
        place: &Place,
        kept: Option<Kept>,
        reply: (Token, Reply, usize),
    ) {
        let (owner, key) = place;
        let latest = self.open(place).latest().cloned();
        let Some(Kept { versions, rule, minted, record, counts }) = kept else {
            // What the answer rests on may still be on its way to the disk.
            let last = self.open(place).last_commit();
            return match last.and_then(|last| self.commits.get_mut(&last)) {
                Some(commit) => commit.replies.push(reply),
                None => self.reply(reply.0, reply.1, reply.2),
            };
        };
        let totals = self.owner(owner).totals;
        let joined_ms = self.clock_ms(now);
        let (number, since_ms) = latest
            .as_ref()
            .map_or((self.last_number + 1, joined_ms), |hint| (hint.number, hint.since_ms));
        // What counted once may still be the only copy.
        let counts = counts || latest.as_ref().is_some_and(|hint| hint.counts);
        let hint = Hint { number, since_ms, rule, versions, minted, joined_ms, counts };
        let hint = Arc::new(hint);
        let before = latest.as_ref().map(|hint| hint.weight(key));
        let after = hint.weight(key);
        let others = totals.bytes.saturating_sub(before.unwrap_or(0));
        if after > before.unwrap_or(0) && others + after > self.config.bytes_max {
            self.dropped += 1;
            self.mark(owner, key);
            return self.reply(reply.0, reply.1.refused(Refusal::HintsFull), reply.2);
        }
        self.last_number = self.last_number.max(number);
        let known = self.owner(owner);
        known.totals.last_number = totals.last_number.max(number);
        known.count(before, Some(after), since_ms);
        let commit = self.commit(place, Some((*hint).clone()), record, vec![reply], None);
        self.open(place).push(commit, hint);
        self.run_soon(now, owner);
    }

    /// Removes a hint, if it is the one that is meant and nothing of it is under way.
    fn remove(&mut self, now: Now, place: &Place, removal: Removal) {
        let is_meant = |hint: &Hint| {
            let is_same = match removal.why {
                Why::Delivered(digest) => hint.versions.digest() == digest,
                // It may have grown, or been counted, since the sweep saw it.
                Why::Expired(digest) => hint.versions.digest() == digest && !hint.counts,
                Why::Pointless => true,
            };
            hint.number == removal.number && is_same
        };
        let open = self.open(place);
        let found = open.committed().filter(|hint| open.is_settled() && is_meant(hint)).cloned();
        let Some(hint) = found.filter(|_| self.frozen == Freezing::No) else {
            return self.removal_ended(now, place, removal, Removed::Stays);
        };
        self.commit(place, None, None, Vec::new(), Some(removal));
        self.keys.insert(place.clone(), KeyState::Removing { hint, queue: Vec::new() });
    }

    fn commit(
        &mut self,
        place: &Place,
        hint: Option<Hint>,
        record: Option<VnodeRecord>,
        replies: Vec<(Token, Reply, usize)>,
        removal: Option<Removal>,
    ) -> CommitNumber {
        let number = self.next_commit;
        self.next_commit.0 += 1;
        let (owner, key) = place.clone();
        let removed = removal.map(|removal| removal.number);
        let change = HintChange { owner, key, hint, removed, record };
        let life = self.issuer.life();
        let under_way = CommitUnderWay { place: place.clone(), life, record, replies, removal };
        self.commits.insert(number, under_way);
        self.owner(&place.0).run.is_exact = false;
        self.effects.push_back(Effect::Commit(number, change));
        number
    }

    pub(super) fn committed(&mut self, now: Now, number: CommitNumber, outcome: CommitOutcome) {
        let Some(commit) = self.commits.remove(&number) else { return };
        let CommitUnderWay { place, life, record, replies, removal } = commit;
        match removal {
            Some(removal) => self.removed(now, &place, removal, outcome),
            None => self.kept(&place, number, outcome, life, record, replies),
        }
        self.settle_freeze();
    }

    fn kept(
        &mut self,
        place: &Place,
        number: CommitNumber,
        outcome: CommitOutcome,
        life: Incarnation,
        record: Option<VnodeRecord>,
        mut replies: Vec<(Token, Reply, usize)>,
    ) {
        let refusal = match outcome {
            CommitOutcome::Durable => {
                self.open(place).committed_up_to(number);
                if let Some(record) = record {
                    self.issuer.committed(record);
                }
                self.redirect_if_moved(place);
                self.close_if_settled(place);
                None
            }
            CommitOutcome::NotTaken(why) => {
                replies.extend(self.withdraw_from(place, number));
                self.close_if_settled(place);
                Some(replica::refusal_of(why))
            }
            CommitOutcome::Failed(sentence) => {
                let open = self.open(place);
                let counted = open.latest().map(|hint| hint.weight(&place.1));
                open.failed(number);
                if open.is_settled() {
                    self.load_for(place, Vec::new(), Some(counted));
                }
                self.issuer.end(life);
                Some(Refusal::Storage(sentence))
            }
        };
        for (token, reply, bytes) in replies {
            let reply = match &refusal {
                None => reply,
                Some(refusal) => reply.refused(refusal.clone()),
            };
            self.reply(token, reply, bytes);
        }
    }

    /// The shelf had no room for a commit. Those of the key that contain it were not offered yet and come
    /// to nothing too: whoever waits for them.
    fn withdraw_from(&mut self, place: &Place, number: CommitNumber) -> Vec<(Token, Reply, usize)> {
        let weight = |open: &OpenHint| open.latest().map(|hint| hint.weight(&place.1));
        let open = self.open(place);
        let before = weight(open);
        let withdrawn = open.withdraw_from(number);
        let after = weight(open);
        self.owner(&place.0).count(before, after, 0);
        self.effects.retain(
            |effect| !matches!(effect, Effect::Commit(number, _) if withdrawn.contains(number)),
        );
        let commits = withdrawn.iter().filter_map(|number| self.commits.remove(number));
        commits.flat_map(|commit| commit.replies).collect()
    }

    fn removed(&mut self, now: Now, place: &Place, removal: Removal, outcome: CommitOutcome) {
        let Some(KeyState::Removing { hint, queue }) = self.keys.remove(place) else {
            unreachable!("a key is being removed as long as that commit is under way")
        };
        let weight = Some(hint.weight(&place.1));
        let removed = match outcome {
            CommitOutcome::Durable => Removed::Gone,
            CommitOutcome::NotTaken(_) | CommitOutcome::Failed(_) => Removed::Failed,
        };
        match outcome {
            CommitOutcome::Durable => {
                self.owner(&place.0).count(weight, None, 0);
                self.reopen(now, place, OpenHint::new(None), queue);
            }
            CommitOutcome::NotTaken(_) => {
                let hint = Arc::unwrap_or_clone(hint);
                self.reopen(now, place, OpenHint::new(Some(hint)), queue);
            }
            CommitOutcome::Failed(_) => self.load_for(place, queue, Some(weight)),
        }
        self.removal_ended(now, place, removal, removed);
    }

    /// A key that is open: commits are under way, or tasks are being carried out on it.
    pub(super) fn open(&mut self, place: &Place) -> &mut OpenHint {
        match self.keys.get_mut(place) {
            Some(KeyState::Open(open)) => open,
            _ => unreachable!("a key is open as long as a commit of it is under way"),
        }
    }

    fn close_if_settled(&mut self, place: &Place) {
        if let Some(KeyState::Open(open)) = self.keys.get(place)
            && open.is_settled()
        {
            self.keys.remove(place);
        }
    }

    /// Answers a request that waited.
    pub(super) fn reply(&mut self, token: Token, reply: Reply, bytes: usize) {
        self.load.requests -= 1;
        self.load.bytes -= bytes;
        self.effects.push_back(Effect::Reply(token, reply));
    }
}
