//! The member as the one who has something voted on: it runs one ballot at a time.
//!
//! What for, in this order: to recall a lost vote, to bring an end to what keeps the data frozen, changes
//! that somebody waits for, nodes at the door, its own new address, partitions that can go on in a change of
//! the ring. A ballot that meets a later one backs off for a
//! random while, and what it was for is tried again on whatever state there is by then.

use std::{collections::BTreeSet, time::Duration};

use anello_protocol::{
    id::{Epoch, KeyspaceId, NodeId},
    message::gossip::{Ballot, GossipBody, VoteStep},
    time::Moment,
};

use super::{Effect, Membership, Ticket, To};
use crate::{
    agreement::proposer::{Aim, Instead, Proposer, Step},
    change::Change,
};

/// The least that a ballot waits after it has met a later one; the most doubles with every meeting.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// How often the longest wait is doubled.
const BACKOFF_DOUBLINGS: u32 = 4;

/// To how many voters a decree is sent for their vote at once; of more voters only as many as make a majority
/// likely, because a decree is as large as its cluster.
const ACCEPTS_MAX: usize = 64;

/// What a ballot is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The change that was asked for under this token.
    Errand(u64),
    /// The nodes at the door.
    Admit,
    /// The node's own new address.
    Readdress,
    /// The partitions that can go on in a change of the ring.
    Advance,
    /// To bring a ballot that somebody left behind to an end, or to recall a lost vote.
    Tidy,
}

/// The ballot that is run.
#[derive(Clone, Debug)]
struct Running {
    proposer: Proposer,
    purpose: Purpose,
    asks_again: Moment,
    ends: Moment,
}

/// What a member has in hand about ballots of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Campaign {
    running: Option<Running>,
    /// The highest round that was heard of in this epoch.
    round: u64,
    /// Ballots that came to nothing, in a row.
    failures: u32,
    not_before: Moment,
    inspecting: Option<(Ticket, Moment)>,
    /// What the node's own store held when it was last asked.
    inspected: Option<(BTreeSet<KeyspaceId>, Moment)>,
}

impl Membership {
    /// When there is something to do about ballots.
    pub(super) fn drive_due(&self) -> Option<Moment> {
        if let Some(running) = &self.campaign.running {
            return Some(running.asks_again.min(running.ends));
        }
        self.cluster.as_ref()?;
        let waits = self.has_errands() || self.record.acceptor.must_recall();
        let due = [
            waits.then_some(self.now),
            self.takeover_due(),
            self.admission.due(),
            self.change_due(),
        ];
        due.into_iter().flatten().min().map(|due| due.max(self.campaign.not_before))
    }

    /// Does what it is time for.
    pub(super) fn drive(&mut self) {
        if self.cluster.is_none() {
            return;
        }
        if self.campaign.running.is_some() {
            return self.run_on();
        }
        if self.now < self.campaign.not_before {
            return;
        }
        if self.record.acceptor.must_recall() {
            return self.run(Aim::Recall, Purpose::Tidy);
        }
        if self.takeover_due().is_some_and(|due| self.now >= due) {
            return self.run(Aim::Finish, Purpose::Tidy);
        }
        if self.run_errand() || self.open_door() || self.readdress() {
            return;
        }
        self.drive_change();
    }

    /// Returns whether something was set going.
    fn readdress(&mut self) -> bool {
        let Some(decree) = &self.record.decree else { return false };
        let me = &self.config.member;
        // After every input: what a change makes of the state costs a copy of it, so it is asked for last.
        let known = decree.state.members.get(&me.id);
        if known.is_none_or(|known| (&known.quic, &known.http) == (&me.quic, &me.http)) {
            return false;
        }
        let change =
            Change::Readdress { node: me.id.clone(), quic: me.quic.clone(), http: me.http.clone() };
        let next = change.apply(decree);
        if let Ok(Some(next)) = next {
            self.note(format!(
                "telling the members that this node is at {}",
                self.config.member.quic
            ));
            let moves = BTreeSet::new();
            self.run(Aim::Propose { decree: Box::new(next), moves }, Purpose::Readdress);
            return true;
        }
        false
    }

    /// Whether the node's own store holds data of these keyspaces; none while it is being asked. Asked
    /// before any ballot that freezes everybody's writes, because one holder is enough to say no.
    pub(super) fn inspected(&mut self, moves: &BTreeSet<KeyspaceId>) -> Option<bool> {
        if let Some((held, at)) = self.campaign.inspected.take()
            && at == self.now
        {
            return Some(!held.is_disjoint(moves));
        }
        let timeout = self.config.timing.ballot;
        if self.campaign.inspecting.as_ref().is_none_or(|(_, at)| self.now.since(*at) >= timeout) {
            let ticket = self.outbox.ticket();
            self.campaign.inspecting = Some((ticket, self.now));
            self.outbox.push(Effect::Inspect { ticket });
        }
        self.campaign.not_before = self.campaign.not_before.max(self.now + timeout);
        None
    }

    /// Runs a ballot.
    pub(super) fn run(&mut self, aim: Aim, purpose: Purpose) {
        let Some(mut idle) = self.record.decree.clone() else { return };
        idle.state.epoch = idle.state.epoch.next();
        let voters = idle.state.voters().cloned().collect();
        let round = self.campaign.round.max(self.record.acceptor.round()) + 1;
        self.campaign.round = round;
        let proposer = self.config.member.id.clone();
        let ballot = Ballot { round, proposer, salt: self.dice.any() };
        let proposer = Proposer::new(ballot, voters, idle, aim);
        let ballot = self.ballot_takes();
        self.campaign.running = Some(Running {
            proposer,
            purpose,
            asks_again: self.now + ballot / 4,
            ends: self.now + ballot,
        });
        self.ask_voters();
    }

    /// How long a ballot waits for votes, asked for again at a quarter of it.
    pub(super) fn ballot_takes(&self) -> Duration {
        let voters = self.cluster.as_ref().map_or(0, |state| state.members.len());
        self.config.timing.ballot_among(voters)
    }

    /// Asks those for their votes who haven't given them.
    fn ask_voters(&mut self) {
        let Some(running) = &self.campaign.running else { return };
        let proposer = &running.proposer;
        let step = match proposer.proposed() {
            Some(decree) => VoteStep::Accept { decree: Box::new(decree.clone()) },
            None => VoteStep::Prepare { freeze: proposer.freezes() },
        };
        let (epoch, ballot) = (proposer.epoch(), proposer.ballot().clone());
        let mut asked = proposer.awaited();
        if proposer.proposed().is_some() && asked.len() > ACCEPTS_MAX {
            let missing = proposer.missing();
            // Those that answer first; of those that don't, one may be needed all the same.
            asked = self.dice.pick(asked, usize::MAX);
            asked.sort_by_key(|voter| !self.heartbeats.is_reachable(voter));
            asked.truncate((missing + missing / 8).max(ACCEPTS_MAX));
        }
        for voter in asked {
            let body = GossipBody::Vote { epoch, ballot: ballot.clone(), step: step.clone() };
            // After the proposer's own vote, where that was just recalled.
            self.outbox.send_durably(To::Node(voter), body);
        }
    }

    fn run_on(&mut self) {
        let again = self.ballot_takes() / 4;
        let Some(running) = &mut self.campaign.running else { return };
        if self.now >= running.ends {
            match running.proposer.time_up() {
                Step::Wait => self.fall_short(),
                step => self.follow(step),
            }
        } else if self.now >= running.asks_again {
            running.asks_again = self.now + again;
            self.ask_voters();
        }
    }

    pub(super) fn tally(&mut self, ballot: &Ballot, vote: impl FnOnce(&mut Proposer) -> Step) {
        let Some(running) = &mut self.campaign.running else { return };
        if running.proposer.ballot() == ballot {
            let step = vote(&mut running.proposer);
            self.follow(step);
        }
    }

    /// Does what the ballot asks for.
    fn follow(&mut self, step: Step) {
        let takes = self.ballot_takes();
        let Some(running) = &mut self.campaign.running else { return };
        let (epoch, ballot) = (running.proposer.epoch(), running.proposer.ballot().clone());
        match step {
            Step::Wait => {}
            Step::Recall(accepted) => {
                // Saved before anything that depends on it is sent: what follows is sent durably.
                self.record.acceptor.recall(&ballot, accepted);
                self.outbox.touch();
                let next = running.proposer.recalled();
                self.follow(next);
            }
            Step::Accept(_) => {
                running.ends = self.now + takes;
                running.asks_again = self.now + takes / 4;
                if let Purpose::Errand(token) = running.purpose {
                    self.expose_errand(token);
                }
                self.ask_voters();
            }
            Step::GiveUp { holder, instead } => {
                let purpose = running.purpose;
                match instead {
                    Instead::Nothing => self.campaign.running = None,
                    Instead::Release => {
                        self.campaign.running = None;
                        self.release_voters(epoch, &ballot);
                    }
                    Instead::Accept(idle) => {
                        running.purpose = Purpose::Tidy;
                        self.follow(Step::Accept(idle));
                    }
                }
                self.came_to_nothing(purpose, holder);
            }
            Step::Decided(decree) => {
                self.campaign.running = None;
                let before = self.cluster.iter().flat_map(|state| state.members.keys());
                let before: BTreeSet<NodeId> = before.cloned().collect();
                self.adopt((*decree).clone());
                self.welcome(&decree, &before);
                self.spread(vec![]);
            }
        }
    }

    fn release_voters(&mut self, epoch: Epoch, ballot: &Ballot) {
        let voters = self.cluster.iter().flat_map(|state| state.members.keys()).cloned();
        for voter in voters.collect::<Vec<_>>() {
            let step = VoteStep::Release;
            let body = GossipBody::Vote { epoch, ballot: ballot.clone(), step };
            self.outbox.send_durably(To::Node(voter), body);
        }
    }

    /// Nothing came of what a ballot was run for, and nothing will.
    fn came_to_nothing(&mut self, purpose: Purpose, holder: Option<NodeId>) {
        match (purpose, holder) {
            (Purpose::Admit, Some(_)) => self.admission.fills = true,
            (Purpose::Admit, None) => {
                self.wait_at_door("not every member said in time that it holds no data".into());
            }
            (Purpose::Errand(token), Some(_)) => self.holds_data(token),
            (Purpose::Errand(token), None) => {
                let voters = self.cluster.as_ref().map_or(0, |state| state.voters().count());
                self.fail_errand(token, voters, voters.saturating_sub(1));
            }
            (Purpose::Readdress | Purpose::Advance | Purpose::Tidy, _) => {}
        }
    }

    /// The ballot's time is over: too few votes came.
    fn fall_short(&mut self) {
        let Some(running) = self.campaign.running.take() else { return };
        let proposer = &running.proposer;
        if let Purpose::Errand(token) = running.purpose
            && proposer.proposed().is_none()
        {
            self.fail_errand(token, proposer.majority(), proposer.promises());
        }
        let ballot = self.config.timing.ballot;
        self.campaign.not_before = self.now + self.dice.between(ballot / 4, ballot);
    }

    /// A voter has promised a later ballot: leaves the field to it for a while.
    fn back_off(&mut self) {
        self.campaign.running = None;
        self.campaign.failures = (self.campaign.failures + 1).min(BACKOFF_DOUBLINGS);
        let most = BACKOFF_MIN * 2 * 2u32.pow(self.campaign.failures);
        self.campaign.not_before = self.now + self.dice.between(BACKOFF_MIN, most);
    }

    /// A voter has promised that ballot instead of this node's.
    pub(super) fn rejected(&mut self, ballot: &Ballot, promised: &Ballot) {
        let running = self.campaign.running.as_ref();
        if running.is_some_and(|running| running.proposer.ballot() == ballot) {
            self.campaign.round = self.campaign.round.max(promised.round);
            self.back_off();
        }
    }

    /// The node's own store answered [`Membership::inspected`]. Returns whether it was asked by that.
    pub(super) fn inspection_done(
        &mut self,
        ticket: Ticket,
        keyspaces: &BTreeSet<KeyspaceId>,
    ) -> bool {
        let asked = self.campaign.inspecting.take_if(|(asked, _)| *asked == ticket).is_some();
        if asked {
            self.campaign.inspected = Some((keyspaces.clone(), self.now));
            self.campaign.not_before = self.now;
        }
        asked
    }

    /// A new state is acted under: what was about an older one is over.
    pub(super) fn epoch_began(&mut self) {
        let campaign = &mut self.campaign;
        campaign.running = None;
        campaign.round = 0;
        campaign.failures = 0;
        campaign.inspecting = None;
        self.votes_are_over();
        let campaign = &mut self.campaign;
        // Those who waited for this state don't all start at once.
        campaign.not_before = self.now + self.dice.between(Duration::ZERO, BACKOFF_MIN);
        if !self.record.acceptor.is_frozen() {
            self.thaw();
        }
        self.settle_errands();
    }
}
