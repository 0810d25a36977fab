//! Handing hints over: runs over what is kept for an owner that answers again.
//!
//! A run pages through the shelf, the oldest first, and sends as much as the owner grants; one that ends,
//! however, begins again with the oldest that is left, so nothing is ever passed for good. What the
//! owner has durably is removed, if that is still all there is. A hint that fails is passed over for a
//! moment while the others go on; when the owner itself fails, the run ends and begins again later.
//!
//! While an owner is away there are no runs but those, after the state has changed, for what has to go to
//! others in its place.

use std::{collections::BTreeMap, time::Duration};

use anello_protocol::{
    id::NodeId,
    key::DataKey,
    message::{
        hint::{MarkForRepair, RequestCredit},
        replica::StoreVersions,
    },
    time::{Moment, Now},
};
use anello_ring::view::View;

use super::{
    destination::{Destination, destination, is_member},
    events::{CallNumber, Effect, Outgoing, PageNumber},
    keeping::Place,
    machine::{Freezing, HintStore},
    open::{Removal, Removed, Task, Waiting, Why},
    owner::{Owner, Run, RunState, Sent},
    store::Hint,
};

/// The most hints on their way to one owner.
pub(super) const IN_FLIGHT_MAX: usize = 64;
/// The most on their way to replicas in place of an owner. Nobody grants credit for these.
const HANDOVERS_MAX: usize = 4;
/// The most runs at once: each has a page in memory.
pub(super) const RUNS_MAX: usize = 16;
/// What a page has at most.
const PAGE_COUNT: usize = 64;
const PAGE_BYTES: usize = 1 << 20;
/// How long an answer is waited for.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// How long after that a message without an answer may yet be handled.
pub(super) const LURKING: Duration = Duration::from_secs(5);
/// When a hint for an owner that answers is handed over: its owner was too slow just before.
const PAUSE_FOR_NEW: Duration = Duration::from_secs(1);
/// How long after a run that left something the next one begins.
const PAUSE_BETWEEN: Duration = Duration::from_millis(100);

/// What is on its way, over all owners.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    pub(super) calls: BTreeMap<CallNumber, Sending>,
    next_call: u64,
    next_page: u64,
    /// Keys of messages that had no answer, and until when they may yet be handled.
    pub(super) lurking: BTreeMap<DataKey, Moment>,
    pub(super) delivered: u64,
    /// Whether a run may be due before the next wake.
    pub(super) is_run_due: bool,
}

/// A message that waits for its answer.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) owner: NodeId,
    pub(super) what: Purpose,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Credit,
    Marks,
    Hint { number: u64, deadline: Moment },
}

impl Delivery {
    pub(super) fn page(&mut self) -> PageNumber {
        self.next_page += 1;
        PageNumber(self.next_page)
    }

    fn call(&mut self, owner: &NodeId, what: Purpose) -> CallNumber {
        self.next_call += 1;
        let call = CallNumber(self.next_call);
        self.calls.insert(call, Sending { owner: owner.clone(), what });
        call
    }

    pub(super) fn is_lurking(&self, now: Moment, key: &DataKey) -> bool {
        self.lurking.get(key).is_some_and(|until| *until > now)
    }

    pub(super) fn forget_lurking(&mut self, now: Moment) {
        self.lurking.retain(|_, until| *until > now);
    }
}

impl HintStore {
    pub(super) fn reachability_changed(&mut self, now: Now, node: NodeId, reachable: bool) {
        if !reachable {
            if let Some(owner) = self.owners.get_mut(&node) {
                owner.run.rest(Some(now.moment));
                owner.run.balance = 0;
                owner.run.held_back.clear();
            }
            self.unreachable.insert(node);
        } else {
            self.unreachable.remove(&node);
            if let Some(owner) = self.owners.get_mut(&node) {
                owner.is_back(now.moment);
            }
            self.delivery.is_run_due = true;
        }
    }

    /// Whether what is kept for an owner can go anywhere.
    fn may_run(&self, id: &NodeId, owner: &Owner) -> bool {
        let is_idle = self.view.is_none() || self.frozen != Freezing::No;
        !is_idle && (owner.run.may_redirect || !self.is_away(id))
    }

    /// Whether an owner can't be reached, but may be some day.
    fn is_away(&self, id: &NodeId) -> bool {
        self.unreachable.contains(id) && self.view.as_ref().is_some_and(|it| is_member(it, id))
    }

    /// A hint is kept for an owner. If that is none to have it, its being away is no reason to wait.
    pub(super) fn redirect_if_moved(&mut self, place: &Place) {
        let Some(view) = self.view.clone() else { return };
        let (id, key) = place;
        if let Destination::Replicas(_) = destination(&view, &self.node, &self.unreachable, id, key)
        {
            self.owner(id).run.may_redirect = true;
        }
    }

    fn can_be_told(&self, id: &NodeId) -> bool {
        self.view.as_ref().is_some_and(|view| is_member(view, id)) && !self.unreachable.contains(id)
    }

    /// Those who are gone for good will never ask what they lack.
    pub(super) fn forget_marks_of_the_gone(&mut self) {
        let Some(view) = &self.view else { return };
        let gone = self.owners.iter_mut().filter(|(id, _)| !is_member(view, id));
        gone.for_each(|(_, owner)| owner.forget_marks());
    }

    /// When the next run is due, or the next mark.
    pub(super) fn next_run(&self) -> Option<Moment> {
        let has_room = self.runs() < RUNS_MAX;
        let runs = self.owners.iter().filter_map(|(id, owner)| match owner.run.state {
            RunState::Resting(Some(due)) if has_room && owner.totals.count > 0 => {
                self.may_run(id, owner).then_some(due)
            }
            _ => None,
        });
        let marks = self
            .owners
            .iter()
            .filter_map(|(id, owner)| owner.marks_due().filter(|_| self.can_be_told(id)));
        runs.chain(marks).min()
    }

    fn runs(&self) -> usize {
        self.owners.values().filter(|owner| !owner.run.is_resting()).count()
    }

    /// Begins whatever is due, the longest due first.
    pub(super) fn begin_runs(&mut self, now: Now) {
        let mut due: Vec<_> = self
            .owners
            .iter()
            .filter_map(|(id, owner)| match owner.run.state {
                RunState::Resting(Some(due)) if due <= now.moment && owner.totals.count > 0 => {
                    self.may_run(id, owner).then(|| (due, id.clone()))
                }
                _ => None,
            })
            .collect();
        due.sort_unstable();
        due.truncate(RUNS_MAX.saturating_sub(self.runs()));
        for (_, id) in due {
            self.owner(&id).run.begin();
            self.drive(now, &id);
        }
        let told = self.owners.iter().filter(|(id, owner)| {
            owner.marks_due().is_some_and(|due| due <= now.moment) && self.can_be_told(id)
        });
        let told: Vec<_> = told.map(|(id, _)| id.clone()).collect();
        for id in told {
            let call = self.delivery.call(&id, Purpose::Marks);
            let ranges = self.owner(&id).tell_marks(call);
            self.send(now, call, id, Outgoing::Mark(MarkForRepair { ranges }));
        }
    }

    /// Something is kept for an owner, which may be there.
    pub(super) fn run_soon(&mut self, now: Now, id: &NodeId) {
        let run = &mut self.owner(id).run;
        if run.state == RunState::Resting(None) {
            run.state = RunState::Resting(Some(now.moment + PAUSE_FOR_NEW));
        }
    }

    /// Goes on with every run, as far as it can.
    pub(super) fn drive_all(&mut self, now: Now) {
        let ids: Vec<_> = self.owners.keys().cloned().collect();
        ids.iter().for_each(|id| self.drive(now, id));
        self.delivery.is_run_due = true;
    }

    /// Goes on with a run as far as it can.
    pub(super) fn drive(&mut self, now: Now, id: &NodeId) {
        let Some(view) = self.view.clone().filter(|_| self.frozen == Freezing::No) else { return };
        let is_away = self.is_away(id);
        while let Some(owner) = self.owners.get_mut(id) {
            let run = &mut owner.run;
            if run.state != RunState::Going || run.in_flight.len() >= IN_FLIGHT_MAX {
                return;
            }
            let Some((key, hint)) = run.queue.front() else {
                return self.turn_page(now, id);
            };
            let (number, weight) = (hint.number, hint.weight(key));
            if run.is_passed_over(now.moment, number) {
                run.queue.pop_front();
                continue;
            }
            let replicas = match destination(&view, &self.node, &self.unreachable, id, key) {
                Destination::Owner if is_away => {
                    run.queue.pop_front();
                    run.held_back.remove(&number);
                    continue;
                }
                Destination::Owner if weight > run.balance => {
                    if run.in_flight.is_empty() {
                        self.ask_for_credit(now, id);
                    }
                    return;
                }
                Destination::Owner => {
                    run.balance -= weight;
                    None
                }
                Destination::Replicas(replicas) => {
                    if run.in_flight.values().filter(|it| it.is_handover).count() >= HANDOVERS_MAX {
                        return;
                    }
                    Some(replicas)
                }
                Destination::Nowhere => {
                    let place = (id.clone(), key.clone());
                    run.queue.pop_front();
                    self.remove_when_known(now, &place, Removal { number, why: Why::Pointless });
                    continue;
                }
            };
            let Some(entry) = run.queue.pop_front() else { return };
            match replicas {
                Some(replicas) if replicas.is_empty() => self.fail_one(now, id, number),
                replicas => self.hand_over(now, &view, id, entry, replicas),
            }
        }
    }

    /// Nothing of what was read is left: reads on, or ends the run.
    fn turn_page(&mut self, now: Now, id: &NodeId) {
        let page = self.delivery.page();
        let is_any_open = self.keys.keys().any(|(owner, _)| owner == id);
        let is_away = self.is_away(id);
        let owner = self.owner(id);
        let run = &mut owner.run;
        match (run.paging, run.is_end) {
            (Some(_), _) => {}
            (None, false) => {
                if run.cursor == 0 {
                    run.is_exact = !is_any_open;
                }
                run.paging = Some(page);
                let (owner, from) = (id.clone(), run.cursor);
                let (count, bytes) = (PAGE_COUNT, PAGE_BYTES);
                self.effects.push_back(Effect::Page { page, owner, from, count, bytes });
            }
            (None, true) if run.in_flight.is_empty() => {
                if !run.has_seen_any && run.is_exact {
                    // Commits that failed have left a count of what isn't there. A page says so only if
                    // nothing came to the shelf behind it.
                    (owner.totals.count, owner.totals.bytes, owner.totals.oldest_ms) = (0, 0, 0);
                }
                let until = match owner.totals.count {
                    0 => None,
                    left => {
                        let held = run.held_back.values().map(|held| held.until);
                        // What is left for an owner that is away is not to be read again and again.
                        let held = if is_away { held.max() } else { held.min() };
                        let are_all_held = is_away || run.held_back.len() as u64 >= left;
                        let soon = now.moment + PAUSE_BETWEEN;
                        Some(held.filter(|_| are_all_held).map_or(soon, |held| held.max(soon)))
                    }
                };
                run.complete(until);
                self.delivery.is_run_due = true;
            }
            (None, true) => {}
        }
    }

    fn ask_for_credit(&mut self, now: Now, id: &NodeId) {
        let call = self.delivery.call(id, Purpose::Credit);
        let owner = self.owner(id);
        owner.run.state = RunState::Asking(call);
        let waiting_bytes = owner.totals.bytes;
        self.send(now, call, id.clone(), Outgoing::Credit(RequestCredit { waiting_bytes }));
    }

    /// Sends a hint to its owner, or to the replicas in place of it.
    fn hand_over(
        &mut self,
        now: Now,
        view: &View,
        id: &NodeId,
        (key, hint): (DataKey, Hint),
        replicas: Option<Vec<NodeId>>,
    ) {
        let is_handover = replicas.is_some();
        let to = replicas.unwrap_or_else(|| vec![id.clone()]);
        let (number, digest) = (hint.number, hint.versions.digest());
        let sent =
            Sent { key: key.clone(), digest, waiting: to.len(), is_stored: false, is_handover };
        self.owner(id).run.in_flight.insert(number, sent);
        // The keyspace's rule of this epoch, which is what the vnode goes by, not that of the day when the
        // hint was kept.
        let rule = view.keyspace_of(key.keyspace).map_or(hint.rule, |it| it.config.conflict);
        let store = StoreVersions { epoch: view.epoch(), key, rule, versions: hint.versions };
        let deadline = now.moment + CALL_TIMEOUT;
        for node in to {
            let call = self.delivery.call(id, Purpose::Hint { number, deadline });
            self.send(now, call, node, Outgoing::Store(store.clone()));
        }
    }

    fn send(&mut self, now: Now, call: CallNumber, to: NodeId, message: Outgoing) {
        let deadline = now.moment + CALL_TIMEOUT;
        self.effects.push_back(Effect::Send { call, to, message, deadline });
    }

    /// Passes a hint over for a while.
    pub(super) fn fail_one(&mut self, now: Now, id: &NodeId, number: u64) {
        let run = &mut self.owner(id).run;
        run.failures += 1;
        // So many in a row: it is not they that fail.
        if !run.hold_back(now.moment, number) || run.failures >= IN_FLIGHT_MAX as u32 {
            run.failures = 0;
            self.fail_run(now, id, Duration::ZERO);
        }
    }

    pub(super) fn fail_run(&mut self, now: Now, id: &NodeId, pause: Duration) {
        self.owner(id).run.fail(now.moment, pause);
        self.delivery.is_run_due = true;
    }

    /// Has a hint removed as soon as it is known what is kept.
    pub(super) fn remove_when_known(&mut self, now: Now, place: &Place, removal: Removal) {
        self.enqueue(now, place, Waiting { task: Task::Remove(removal), bytes: 0 });
    }

    /// A removal has ended, durably or not.
    pub(super) fn removal_ended(
        &mut self,
        now: Now,
        place: &Place,
        removal: Removal,
        removed: Removed,
    ) {
        let (id, key) = place;
        let Removal { number, why } = removal;
        let run = &mut self.owner(id).run;
        if matches!(why, Why::Delivered(_)) {
            run.in_flight.remove(&number);
        }
        match (removed, why) {
            (Removed::Gone, _) => {
                run.held_back.remove(&number);
                match why {
                    Why::Delivered(_) => {
                        (run.attempts, run.failures) = (0, 0);
                        self.delivery.delivered += 1;
                    }
                    Why::Expired(_) => {
                        self.dropped += 1;
                        self.mark(id, key);
                    }
                    Why::Pointless => {}
                }
            }
            // The owner has what was sent; what came since goes next.
            (Removed::Stays, Why::Delivered(_)) => {
                (run.attempts, run.failures) = (0, 0);
                run.held_back.remove(&number);
            }
            // A shelf that takes no removals would have everything sent again and again.
            (Removed::Failed, Why::Delivered(_) | Why::Pointless) => self.fail_one(now, id, number),
            (Removed::Stays, _) | (Removed::Failed, Why::Expired(_)) => {}
        }
        self.drive(now, id);
        self.swept(now, id, number, removed);
    }
}

impl Run {
    /// A page has come.
    pub(super) fn read(&mut self, entries: Vec<(DataKey, Hint)>) {
        self.paging = None;
        match entries.last() {
            None => self.is_end = true,
            Some((_, last)) => {
                self.has_seen_any = true;
                self.cursor = last.number + 1;
            }
        }
        self.queue.extend(entries);
    }
}
