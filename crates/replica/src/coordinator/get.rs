//! A client's read: a quorum read, what of it the client is shown, and behind the answer, once, the repair
//! of the replicas that turned out to lack something.

use anello_protocol::{
    causality::token_encode,
    id::{Epoch, NodeId},
    message::{
        client::{Answer, ContextToken, Found, FoundVersion, Get, RequestError},
        replica::StoreVersions,
    },
    time::Moment,
    version::{Content, Versions},
};

use super::{
    desk::{Desk, Head, LINGER, earliest},
    events::{CallFailure, Incoming, Outgoing, Reply},
    read::{Progress, QuorumRead},
    receipt::receipt_of_nobody,
    site::Site,
};
use crate::tally::Side;

/// A client's read under way.
#[derive(Debug)]
pub(super) struct GetRequest {
    pub(super) head: Head,
    get: Get,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Reading(QuorumRead),
    /// Enough have answered; the receipt waits for the others until then.
    Explaining(QuorumRead, Moment),
    /// The cluster has moved on, and this coordinator has yet to hear of it.
    Waiting(Epoch),
    /// It was answered; these attempts at repairing replicas have yet to end.
    Repairing(Vec<u32>),
    Over,
}

impl GetRequest {
    /// Begins; it may be over at once.
    pub(super) fn start(desk: &mut Desk, head: Head, get: Get) -> Self {
        let mut request = Self { head, get, phase: Phase::Over };
        request.plan(desk);
        request
    }

    pub(super) fn answered(
        &mut self,
        desk: &mut Desk,
        attempt: u32,
        outcome: Result<Incoming, CallFailure>,
    ) {
        match &mut self.phase {
            Phase::Reading(read) => {
                let progress = read.answered(desk, &mut self.head, attempt, outcome);
                self.go_on(desk, progress);
            }
            Phase::Explaining(read, _) => {
                read.answered(desk, &mut self.head, attempt, outcome);
                if !read.has_stragglers() {
                    self.finish(desk);
                }
            }
            Phase::Repairing(attempts) => {
                // Whoever failed is left to the next read, or to anti-entropy.
                attempts.retain(|own| *own != attempt);
                if attempts.is_empty() {
                    self.phase = Phase::Over;
                }
            }
            Phase::Waiting(_) | Phase::Over => {}
        }
    }

    pub(super) fn time_up(&mut self, desk: &mut Desk) {
        match &mut self.phase {
            Phase::Explaining(_, until) if desk.moment() >= *until => self.finish(desk),
            Phase::Repairing(_) if desk.moment() >= self.head.deadline => self.phase = Phase::Over,
            _ if desk.moment() >= self.head.deadline => self.give_up(desk),
            Phase::Reading(read) => {
                let progress = read.time_up(desk, &mut self.head);
                self.go_on(desk, progress);
            }
            Phase::Explaining(..) | Phase::Waiting(_) | Phase::Repairing(_) | Phase::Over => {}
        }
    }

    pub(super) fn cluster_changed(&mut self, desk: &mut Desk) {
        if let Phase::Waiting(epoch) = self.phase
            && epoch <= desk.epoch()
        {
            self.plan(desk);
        }
    }

    pub(super) fn due(&self, desk: &Desk) -> Moment {
        let deadline = Some(self.head.deadline);
        let due = match &self.phase {
            Phase::Reading(read) => earliest(read.due(desk), deadline),
            Phase::Explaining(_, until) => Some(*until),
            Phase::Waiting(_) | Phase::Repairing(_) | Phase::Over => deadline,
        };
        due.unwrap_or(self.head.deadline)
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Whether it was answered and only goes on for the sake of replicas.
    pub(super) fn is_lingering(&self) -> bool {
        matches!(self.phase, Phase::Repairing(_))
    }

    pub(super) fn bytes(&self) -> usize {
        let read = match &self.phase {
            Phase::Reading(read) | Phase::Explaining(read, _) => read.bytes(),
            Phase::Waiting(_) | Phase::Repairing(_) | Phase::Over => 0,
        };
        self.get.key.as_bytes().len() + read
    }

    /// Ends it for want of memory.
    pub(super) fn shed(&mut self, desk: &mut Desk, error: RequestError) {
        if !self.is_over() && !self.is_lingering() {
            self.fail(desk, error);
        }
    }

    fn plan(&mut self, desk: &mut Desk) {
        match self.read(desk) {
            Ok(read) => self.phase = Phase::Reading(read),
            Err(error) => self.fail(desk, error),
        }
    }

    fn read(&mut self, desk: &mut Desk) -> Result<QuorumRead, RequestError> {
        let site = self.site(desk)?;
        QuorumRead::start(desk, &mut self.head, site)
    }

    fn site(&self, desk: &Desk) -> Result<Site, RequestError> {
        let Get { keyspace, key, options } = &self.get;
        let site = Site::find(desk, Side::Read, keyspace, key, |configured| {
            options.read.unwrap_or(configured)
        })?;
        Ok(site.counting(options.quorum))
    }

    fn go_on(&mut self, desk: &mut Desk, progress: Progress) {
        match progress {
            Progress::Waiting => {}
            Progress::Stale(newer) => self.begin_again(desk, newer),
            Progress::Enough => {
                let phase = std::mem::replace(&mut self.phase, Phase::Over);
                let Phase::Reading(read) = phase else { return };
                let explains = self.get.options.explain && read.has_stragglers();
                let until = (desk.moment() + desk.config.explain_wait).min(self.head.deadline);
                self.phase = Phase::Explaining(read, until);
                if !explains {
                    self.finish(desk);
                }
            }
        }
    }

    fn begin_again(&mut self, desk: &mut Desk, newer: Epoch) {
        if newer > desk.epoch() {
            self.phase = Phase::Waiting(newer);
        } else {
            self.plan(desk);
        }
    }

    fn finish(&mut self, desk: &mut Desk) {
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        let (Phase::Reading(read) | Phase::Explaining(read, _)) = phase else { return };
        let receipt = self.get.options.explain.then(|| read.receipt(desk, &self.head));
        let repair = read.repair(desk);
        let found = found(read);
        desk.reply(&self.head, Reply::Get(Answer { result: Ok(found), receipt }));
        if let Some((store, stale)) = repair {
            self.repair(desk, &store, &stale);
        }
    }

    fn repair(&mut self, desk: &mut Desk, store: &StoreVersions, stale: &[NodeId]) {
        self.head.deadline = desk.moment() + LINGER;
        let sent = stale
            .iter()
            .map(|replica| desk.send(&mut self.head, replica, Outgoing::Store(store.clone())));
        self.phase = Phase::Repairing(sent.collect());
    }

    fn give_up(&mut self, desk: &mut Desk) {
        let (required, received) = match &self.phase {
            Phase::Reading(read) => read.counts(),
            _ => (1, 0),
        };
        self.fail(desk, RequestError::Timeout { required, received });
    }

    fn fail(&mut self, desk: &mut Desk, error: RequestError) {
        let receipt = match &self.phase {
            _ if !self.get.options.explain => None,
            Phase::Reading(read) | Phase::Explaining(read, _) => {
                Some(read.receipt(desk, &self.head))
            }
            _ => {
                let site = self.site(desk).ok();
                site.map(|site| receipt_of_nobody(desk, &site, self.head.us(desk)))
            }
        };
        self.phase = Phase::Over;
        desk.reply(&self.head, Reply::Get(Answer { result: Err(error), receipt }));
    }
}

/// What a reader is shown of a quorum read.
fn found(read: QuorumRead) -> Found {
    let key = read.key().clone();
    let versions = read.into_result();
    let context = ContextToken(token_encode(&key, &versions.context()));
    Found { versions: shown(versions), context }
}

/// Each write once, and of several tombstones one: that it was deleted can only be said once.
fn shown(versions: Versions) -> Vec<FoundVersion> {
    let mut shown: Vec<FoundVersion> = Vec::with_capacity(versions.len());
    for version in versions.visible() {
        let tombstone = shown
            .iter_mut()
            .find(|other| version.is_tombstone() && matches!(other.content, Content::Tombstone));
        match tombstone {
            Some(other) => other.time = other.time.max(version.time),
            None => {
                shown.push(FoundVersion { content: version.content.clone(), time: version.time })
            }
        }
    }
    shown
}
