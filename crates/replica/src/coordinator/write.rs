//! A client's write: handed to a replica, or coordinated here.
//!
//! ```text
//!   no replica here:  Forwarding ----------------------------------------> answer
//!   a replica here:   (Reading, of a delete without context) -> Minting -> Storing -> answer
//!                                                                  ^----------'
//!                                                  issued anew, if it lost to a later time
//! ```
//!
//! Invariants: nothing is sent before it is known that enough replicas can be reached; once the write
//! may have been kept anywhere, every failure is a timeout; a write that was answered is never issued
//! anew.

mod ending;

use anello_protocol::{
    causality::{Context, token_decode},
    consistency::Consistency,
    id::{Epoch, NodeId},
    message::{
        client::{Receipt, RequestError, Write},
        replica::{Minted, Refusal, RelayFailure, Stored, WriteTicket},
    },
    time::{HybridTime, Moment},
    version::{ConflictRule, Content, Versions},
};

use self::ending::written;
use super::{
    desk::{Desk, Head, LINGER, earliest},
    events::{CallFailure, Incoming},
    forward::{self, Forwarding, overloaded},
    minting::{self, Minting},
    read::{self, QuorumRead},
    replicate::{self, Plan, Replication},
    site::Site,
};
use crate::{replica::context_of_known, tally::Side};

/// A client's write under way.
#[derive(Debug)]
pub(super) struct WriteRequest {
    pub(super) head: Head,
    write: Write,
    /// Another coordinator handed it over, and waits.
    is_forwarded: bool,
    phase: Phase,
    /// How many versions were sent out for it.
    rounds: u16,
    /// Whether it may have been kept somewhere.
    maybe_written: bool,
    answered: bool,
    /// Enough have answered; the receipt waits for the others until then.
    explain_until: Option<Moment>,
}

#[derive(Debug)]
enum Phase {
    Forwarding(Forwarding),
    Reading(QuorumRead),
    Minting(Minting),
    Storing(Replication),
    /// The cluster has moved on, and this coordinator has yet to hear of it. What has been issued goes
    /// on from where it was.
    Waiting(Epoch, Option<Replication>),
    Over,
}

impl WriteRequest {
    /// Begins; it may be over at once.
    pub(super) fn start(desk: &mut Desk, head: Head, write: Write, is_forwarded: bool) -> Self {
        let mut request = Self {
            head,
            write,
            is_forwarded,
            phase: Phase::Over,
            rounds: 0,
            maybe_written: false,
            answered: false,
            explain_until: None,
        };
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
            Phase::Forwarding(forwarding) => {
                match forwarding.answered(desk, &mut self.head, &self.write, attempt, outcome) {
                    forward::Progress::Going => {}
                    forward::Progress::Answered(answer) => self.pass_on(desk, answer),
                    forward::Progress::Refused(error) => self.fail(desk, error),
                    forward::Progress::Stale(newer) => self.begin_again(desk, newer),
                }
            }
            Phase::Reading(read) => {
                let progress = read.answered(desk, &mut self.head, attempt, outcome);
                self.after_reading(desk, progress);
            }
            Phase::Minting(minting) => {
                let progress = minting.answered(desk, &self.head, attempt, outcome);
                self.after_minting(desk, progress);
            }
            Phase::Storing(replication) => {
                let progress = replication.answered(desk, &mut self.head, attempt, outcome);
                self.after_storing(desk, progress);
            }
            Phase::Waiting(..) | Phase::Over => {}
        }
    }

    /// A relay tells of a replica behind it.
    pub(super) fn acked(
        &mut self,
        desk: &mut Desk,
        ticket: WriteTicket,
        replica: &NodeId,
        outcome: Result<Stored, RelayFailure>,
    ) {
        if let Phase::Storing(replication) = &mut self.phase {
            let progress = replication.acked(desk, &mut self.head, ticket, replica, outcome);
            self.after_storing(desk, progress);
        }
    }

    pub(super) fn time_up(&mut self, desk: &mut Desk) {
        if desk.moment() >= self.head.deadline {
            return self.give_up(desk);
        }
        match &mut self.phase {
            Phase::Forwarding(forwarding) => {
                forwarding.time_up(desk, &mut self.head, &self.write);
            }
            Phase::Reading(read) => {
                let progress = read.time_up(desk, &mut self.head);
                self.after_reading(desk, progress);
            }
            Phase::Minting(minting) => minting.time_up(desk, &mut self.head, &self.write),
            Phase::Storing(replication) => {
                replication.time_up(desk, &mut self.head);
                self.after_storing(desk, replicate::Progress::Going);
            }
            Phase::Waiting(..) | Phase::Over => {}
        }
    }

    pub(super) fn cluster_changed(&mut self, desk: &mut Desk) {
        let Phase::Waiting(epoch, stored) = &mut self.phase else { return };
        if *epoch > desk.epoch() {
            return;
        }
        match stored.take() {
            Some(replication) => self.store_again(desk, replication),
            None => self.plan(desk),
        }
    }

    pub(super) fn due(&self, desk: &Desk) -> Moment {
        let due = match &self.phase {
            Phase::Forwarding(forwarding) => forwarding.due(desk),
            Phase::Reading(read) => read.due(desk),
            Phase::Minting(minting) => minting.due(),
            Phase::Storing(replication) => earliest(replication.due(desk), self.explain_until),
            Phase::Waiting(..) | Phase::Over => None,
        };
        due.map_or(self.head.deadline, |due| due.min(self.head.deadline))
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Whether it was answered and only goes on for the sake of the replicas that have yet to answer.
    pub(super) fn is_lingering(&self) -> bool {
        self.answered
    }

    pub(super) fn bytes(&self) -> usize {
        let read = match &self.phase {
            Phase::Reading(read) => read.bytes(),
            _ => 0,
        };
        let versions = match &self.phase {
            Phase::Storing(replication) => replication.plan.versions.value_bytes(),
            _ => 0,
        };
        read + versions.max(bytes(&self.write))
    }

    /// Ends it for want of memory.
    pub(super) fn shed(&mut self, desk: &mut Desk, error: RequestError) {
        if !self.is_over() && !self.answered {
            self.fail(desk, error);
        }
    }

    fn plan(&mut self, desk: &mut Desk) {
        if let Err(error) = self.try_plan(desk) {
            self.fail(desk, error);
        }
    }

    fn try_plan(&mut self, desk: &mut Desk) -> Result<(), RequestError> {
        let site = self.site(desk)?;
        let context = match &self.write.context {
            None => None,
            Some(token) => match token_decode(&site.key, &token.0) {
                Ok(context) => Some(context),
                Err(bad) => return Err(RequestError::BadContext(bad.to_string())),
            },
        };
        site.enough_alive(desk)?;
        if !site.can_issue(desk) {
            if self.is_forwarded {
                self.refuse(desk, Refusal::NotOwner);
            } else {
                let mut nodes = others_of(desk, &site);
                if site.is_abandoned(desk) {
                    nodes.splice(..0, stand_ins_of(desk, &site));
                }
                self.forward(desk, nodes);
            }
            return Ok(());
        }
        match (&self.write.content, context) {
            (Content::Tombstone, None) => self.phase = Phase::Reading(self.read(desk)?),
            // Its writer has seen that there is nothing.
            (Content::Tombstone, Some(seen))
                if seen.is_empty()
                    && site.rule == ConflictRule::Siblings
                    && !self.write.is_named =>
            {
                self.succeed(desk, &site, &seen, None);
            }
            (_, context) => self.mint(desk, site, context.unwrap_or_default(), None),
        }
        Ok(())
    }

    fn site(&self, desk: &Desk) -> Result<Site, RequestError> {
        let Write { keyspace, key, options, .. } = &self.write;
        let site = Site::find(desk, Side::Write, keyspace, key, |configured| {
            options.write.unwrap_or(configured)
        })?;
        Ok(site.counting(options.quorum))
    }

    fn forward(&mut self, desk: &mut Desk, replicas: Vec<NodeId>) {
        let forwarding = Forwarding::start(desk, &mut self.head, &self.write, replicas);
        self.phase = Phase::Forwarding(forwarding);
    }

    /// What a delete without context covers is what a quorum shows.
    fn read(&mut self, desk: &mut Desk) -> Result<QuorumRead, RequestError> {
        let Write { keyspace, key, options, .. } = &self.write;
        let site = Site::find(desk, Side::Read, keyspace, key, |configured| {
            match options.read.unwrap_or(configured) {
                // The level of the write that this read is a part of.
                Consistency::EachQuorum => Consistency::Quorum,
                level => level,
            }
        })?;
        QuorumRead::start(desk, &mut self.head, site.counting(options.quorum))
    }

    fn after_reading(&mut self, desk: &mut Desk, progress: read::Progress) {
        match progress {
            read::Progress::Waiting => {}
            read::Progress::Stale(newer) => self.begin_again(desk, newer),
            read::Progress::Enough => {
                let phase = std::mem::replace(&mut self.phase, Phase::Over);
                let Phase::Reading(read) = phase else { return };
                let receipt = self.write.options.explain.then(|| read.receipt(desk, &self.head));
                let is_certain = !read.has_stand_ins();
                self.delete(desk, read.into_result(), is_certain, receipt);
            }
        }
    }

    /// Writes a tombstone over what a quorum shows; `is_certain` if that is one of replicas only.
    fn delete(
        &mut self,
        desk: &mut Desk,
        shown: Versions,
        is_certain: bool,
        receipt: Option<Receipt>,
    ) {
        let site = match self.site(desk) {
            Ok(site) => site,
            Err(error) => return self.fail(desk, error),
        };
        if shown.is_empty() && is_certain && !self.write.is_named {
            // A tombstone over nothing would only be a sibling to whoever writes at the same time. But it
            // alone remembers the write, and whoever named it may send it again after such a one; and where
            // stand-ins took part, replicas that are away may hold something.
            return self.succeed(desk, &site, &Context::new(), receipt);
        }
        if shown.knows(self.write.write_id) {
            // It has been issued, here or elsewhere; it may yet have to get to enough replicas.
            let context = context_of_known(&shown, self.write.write_id, Context::new());
            self.begin_storing(desk, site, Minted { versions: shown, context }, &[], None);
        } else if !site.can_issue(desk) {
            // The state is another one since the read began.
            self.plan(desk);
        } else {
            self.mint(desk, site, shown.context(), None);
        }
    }

    fn mint(
        &mut self,
        desk: &mut Desk,
        site: Site,
        context: Context,
        later_than: Option<HybridTime>,
    ) {
        let Self { head, write, .. } = self;
        self.phase = Phase::Minting(Minting::start(desk, head, write, site, context, later_than));
    }

    fn after_minting(&mut self, desk: &mut Desk, progress: minting::Progress) {
        match progress {
            minting::Progress::Going => {}
            minting::Progress::Minted(minted) => {
                let phase = std::mem::replace(&mut self.phase, Phase::Over);
                let Phase::Minting(Minting { site, stands_for, .. }) = phase else { return };
                let node = desk.node.clone();
                self.begin_storing(desk, site, minted, &[node], stands_for);
            }
            minting::Progress::Stale(newer) => {
                // The vnode says so too of what it has kept, if that took until the newer state.
                self.maybe_written = true;
                self.begin_again(desk, newer);
            }
            minting::Progress::Busy if self.maybe_written => self.mint_later(desk),
            minting::Progress::Busy if self.is_forwarded => self.refuse(desk, Refusal::Busy),
            minting::Progress::Busy => self.fail(desk, overloaded()),
            minting::Progress::Missing => self.mint_elsewhere(desk, Refusal::NotOwner),
            minting::Progress::DiskFull => self.mint_elsewhere(desk, Refusal::DiskFull),
            minting::Progress::Broken(refusal) => {
                self.maybe_written = true;
                self.mint_elsewhere(desk, refusal);
            }
            minting::Progress::Hopeless(error) => self.fail(desk, error),
        }
    }

    fn mint_later(&mut self, desk: &Desk) {
        if let Phase::Minting(minting) = &mut self.phase {
            minting.ask_later(desk, &self.head);
        }
    }

    /// The own vnode can't, but those of the other replicas may.
    fn mint_elsewhere(&mut self, desk: &mut Desk, refusal: Refusal) {
        let Phase::Minting(Minting { site, .. }) = &self.phase else { return };
        let mut others = others_of(desk, site);
        if site.is_abandoned(desk) {
            others.splice(..0, stand_ins_of(desk, site));
        }
        match refusal {
            // Whoever handed it over asks the next, and tells the client this if none has room.
            Refusal::DiskFull if self.is_forwarded || others.is_empty() => {
                let required = site.required();
                self.fail(desk, RequestError::DiskFull { required, alive: 0 });
            }
            refusal if self.is_forwarded => self.refuse(desk, refusal),
            _ if !others.is_empty() => self.forward(desk, others),
            Refusal::NotOwner => {
                let required = site.required();
                self.fail(desk, RequestError::Unavailable { required, alive: 0 });
            }
            _ => self.mint_later(desk),
        }
    }

    fn begin_storing(
        &mut self,
        desk: &mut Desk,
        site: Site,
        minted: Minted,
        holders: &[NodeId],
        kept_for: Option<usize>,
    ) {
        let Minted { versions, context } = minted;
        let can_lose = versions.iter().any(|version| version.write_id == self.write.write_id);
        let plan = Plan { site, versions, context, can_lose };
        self.store(desk, plan, holders, kept_for);
    }

    fn store(&mut self, desk: &mut Desk, plan: Plan, holders: &[NodeId], kept_for: Option<usize>) {
        self.maybe_written = true;
        self.rounds = self.rounds.wrapping_add(1);
        self.explain_until = None;
        let (head, round) = (&mut self.head, self.rounds);
        let replication = Replication::start(desk, head, plan, round, holders, kept_for);
        self.phase = Phase::Storing(replication);
        self.after_storing(desk, replicate::Progress::Going);
    }

    /// Goes on under a newer state: the versions stay, who holds them may have changed.
    fn store_again(&mut self, desk: &mut Desk, replication: Replication) {
        match self.site(desk) {
            Ok(site) if site.key == replication.plan.site.key => {
                let holders = replication.holders(&site);
                let plan = Plan { site, ..replication.plan };
                self.store(desk, plan, &holders, None);
            }
            // The keyspace is gone, and with it what was written.
            Ok(_) | Err(_) if self.answered => self.phase = Phase::Over,
            Ok(_) => self.fail(desk, RequestError::NoSuchKeyspace(self.write.keyspace.clone())),
            Err(error) => self.fail(desk, error),
        }
    }

    fn after_storing(&mut self, desk: &mut Desk, progress: replicate::Progress) {
        match progress {
            replicate::Progress::Going => {}
            replicate::Progress::Stale(newer) => return self.begin_again(desk, newer),
            replicate::Progress::Lost(later) => return self.issue_anew(desk, later),
        }
        let Phase::Storing(replication) = &mut self.phase else { return };
        if !replication.enough() {
            return;
        }
        if !self.answered {
            let explains = self.write.options.explain && replication.has_stragglers();
            let wait = desk.moment() + desk.config.explain_wait;
            if explains && *self.explain_until.get_or_insert(wait) > desk.moment() {
                return;
            }
            self.explain_until = None;
            self.answered = true;
            // A later version that is met from here on may have been written by somebody who had
            // seen this one.
            replication.plan.can_lose = false;
            self.head.deadline = desk.moment() + LINGER;
            let receipt = self.write.options.explain.then(|| replication.receipt(desk, &self.head));
            let answer = written(&replication.plan.site, &replication.plan.context, receipt);
            self.reply(desk, answer);
        }
        if let Phase::Storing(replication) = &self.phase
            && replication.is_settled()
        {
            self.phase = Phase::Over;
        }
    }

    /// Under last-write-wins: the write must win over what was there before it was acknowledged.
    fn issue_anew(&mut self, desk: &mut Desk, later: HybridTime) {
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        let Phase::Storing(replication) = phase else { return };
        let Plan { site, context, .. } = replication.plan;
        self.mint(desk, site, context, Some(later));
    }

    fn begin_again(&mut self, desk: &mut Desk, newer: Epoch) {
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        let stored = match phase {
            Phase::Storing(replication) => Some(replication),
            Phase::Forwarding(forwarding) => {
                self.maybe_written |= forwarding.maybe_written();
                None
            }
            _ => None,
        };
        match stored {
            stored if newer > desk.epoch() => self.phase = Phase::Waiting(newer, stored),
            Some(replication) => self.store_again(desk, replication),
            None => self.plan(desk),
        }
    }
}

/// The others who are read and count, in the order in which they are to be asked to coordinate a write.
fn others_of(desk: &Desk, site: &Site) -> Vec<NodeId> {
    let replicas = &site.placement.replicas;
    let order = desk.peers.order(replicas, &desk.node, &desk.datacenter, |at, place| {
        place.id != desk.node && site.counts_as_reader(at, place)
    });
    order.into_iter().map(|at| replicas[at].id.clone()).collect()
}

/// Who may coordinate a write if no replica can be reached, in the order in which they are to be asked.
fn stand_ins_of<'a>(desk: &'a Desk, site: &'a Site) -> impl Iterator<Item = NodeId> + use<'a> {
    let others = site.placement.stand_ins.iter().filter(|place| {
        let counts = site.is_sloppy() && site.requirement.readers.counts(&place.datacenter);
        counts && place.id != desk.node && desk.peers.is_reachable(&place.id)
    });
    others.map(|place| place.id.clone())
}

/// What a write weighs.
pub(super) fn bytes(write: &Write) -> usize {
    let content = match &write.content {
        Content::Value(value) => value.bytes().len(),
        Content::Tombstone => 0,
    };
    let context = write.context.as_ref().map_or(0, |token| token.0.len());
    write.key.as_bytes().len() + content + context
}
